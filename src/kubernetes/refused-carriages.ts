// Where the cloud does not let nodes carry pods as they were told to (packets as they are need address pairs, or a router's routes), the
// controller that keeps it says so on their Nodes, and they carry by VXLAN, which needs one UDP port between hosts; until it says
// that it may be. Nodes go over one by one, as when agents are started with another carriage (drivers/carriages.ts).
import * as v from 'valibot';
import { travelsPlain } from '#drivers/passages.ts';
import { isFault } from '#model/fault.ts';
import type { Carrying, CarryName, Network, RefusedCarriages } from '#model/resources.ts';
import { readAnnotations, writeRefused } from './annotations.ts';
import type { KubernetesClient } from './client.ts';

/** What a node that was told to carry so wants, by what its Node says. */
export const wantedOf = (carry: CarryName, told: Carrying | undefined): Pick<Carrying, 'wants' | 'refused' | 'insteadOf'> => ({
  ...(told?.refused === undefined ? {} : { refused: told.refused }),
  ...(told?.refused?.carries.includes(carry) === true ? { wants: 'vxlan', insteadOf: carry } : { wants: carry }),
});

/** What a node was told to carry by, whatever it does meanwhile. */
const configuredOf = ({ wants, insteadOf }: Carrying): CarryName => insteadOf ?? wants;

export interface Carried {
  readonly carry: CarryName;
  readonly instead?: NonNullable<Network['instead']>;
}

/** What the cloud has to allow for one node. What it still sends by has to be until it does not, unless it cannot. */
export function carriedBy(carrying: Carrying): Carried[] {
  const { wants, sends = [], refused = { carries: [], because: '' } } = carrying;
  const configured = configuredOf(carrying);
  const all = [...new Set([configured, wants, ...sends])].filter((carry) => !refused.carries.includes(carry));
  const fallen = refused.carries.includes(configured);
  return [
    ...all.filter((carry) => !(fallen && carry === 'vxlan')).map((carry) => ({ carry })),
    ...(fallen ? [{ carry: 'vxlan' as const, instead: { carry: configured, because: refused.because } }] : []),
  ];
}

export interface RefusedOptions {
  readonly client: Pick<KubernetesClient, 'patch'>;
  readonly nodes: Iterable<unknown>;
  /** A Node, as the API answered when it was written. */
  readonly learn: (node: unknown) => void;
}

const node = v.object({
  metadata: v.object({ name: v.string(), annotations: v.nullish(v.record(v.string(), v.string()), {}) }),
});

/** Those Nodes for which `next` gives something else than they were told are told it. Faults as KubernetesClient.patch. */
async function tell({ client, nodes, learn }: RefusedOptions, next: (carrying: Carrying) => RefusedCarriages | undefined): Promise<void> {
  for (const item of nodes) {
    const read = v.safeParse(node, item);
    if (!read.success) continue;
    const { name, annotations } = read.output.metadata;
    const { carrying } = readAnnotations(annotations ?? {});
    if (carrying === undefined) continue;
    const words = writeRefused(next(carrying));
    if (Object.entries(words).every(([key, value]) => (annotations?.[key] ?? null) === value)) continue;
    try {
      learn(await client.patch(`/api/v1/nodes/${name}/status`, { metadata: { annotations: words } }));
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
    }
  }
}

/** Nodes that want one of these networks as they are carried now carry by VXLAN. Faults as KubernetesClient.patch. */
export function refuseCarriages(options: RefusedOptions, networks: readonly Network[], because: string): Promise<void> {
  const plain = networks.filter(travelsPlain);
  const carries = new Set(plain.map(({ choices }) => choices.carry));
  return tell(options, (carrying) => {
    const configured = configuredOf(carrying);
    const before = carrying.refused?.carries ?? [];
    return !carries.has(configured) || before.includes(configured)
      ? carrying.refused
      : { carries: [...before, configured].toSorted(), because: because.replaceAll(/\s+/g, ' ').slice(0, 1_000) };
  });
}

/** They carry again as these networks were wanted. Faults as KubernetesClient.patch. */
export function allowCarriages(options: RefusedOptions, networks: readonly Network[]): Promise<void> {
  const carries = new Set(networks.flatMap(({ instead }) => (instead === undefined ? [] : [instead.carry])));
  return tell(options, ({ refused }) =>
    refused === undefined ? undefined : { ...refused, carries: refused.carries.filter((carry) => !carries.has(carry)) },
  );
}
