// Which of a cloud's things is meant by the name or id that a person gives, and which are Causeway's.
import { Fault } from '#model/fault.ts';

/** Faults: `not-found` telling which there are; `invalid` when several have the name. */
export function named<T extends { readonly id: string; readonly name: string }>(all: readonly T[], wanted: string, kind: string): T {
  const found = all.filter(({ id, name }) => id === wanted || name === wanted);
  const [one, other] = found;
  if (one === undefined) {
    const names = all.map(({ name }) => name).join(', ');
    throw new Fault('not-found', `The cloud has no ${kind} ${wanted} that you can see; it has ${names || 'none'}`, { field: kind });
  }
  if (other === undefined) return one;
  throw new Fault('invalid', `The cloud has several ${kind}s ${wanted}: ${found.map(({ id }) => id).join(', ')}`, {
    field: kind,
    hint: 'Use the id',
  });
}

/** Whether an installation can be called so, whose things in the cloud are told from those of others by it. */
export const isInstallation = (name: string): boolean => /^[a-z0-9][a-z0-9-]{0,31}$/.test(name);

/** Whether it is of Causeway's making, whichever installation. */
export const isOfCauseway = ({ tags }: { readonly tags: readonly string[] }): boolean => tags.some((tag) => tag.startsWith('causeway.'));

/** Whether it is a router's on a subnet, also a distributed one's (neutron_lib/constants.py). */
export const isOfRouter = ({ owner }: { readonly owner: string }): boolean => owner.startsWith('network:router_interface');

/** Which subnet an address of the port is of. */
export const subnetOf = (
  { addresses }: { readonly addresses: readonly { readonly ip: string; readonly subnetId: string }[] },
  address: string,
): string | undefined => addresses.find(({ ip }) => ip === address)?.subnetId;
