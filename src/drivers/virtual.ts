// Addresses of exposures that move between hosts: which of them this host could have, and what the kernel holds where it has one.
// Which host has it is not decided here: hosts tell each other (agent/virtual-addresses.ts). Pure.
import type { Desired } from '#model/desired.ts';
import { covers, familyOf, hostPrefix, type Ip } from '#model/ip.ts';
import type { Exposure, Host, LocalEndpoint, Snapshot } from '#model/resources.ts';
import { names } from './publish.ts';
import { underlayOf } from './vxlan.ts';

export interface VirtualAddress {
  readonly ip: Ip;
  /** Id of that of the container, or of one of them. */
  readonly network: string;
  /** The other hosts that the cloud lets have it, by id, with the address by which each is reached. */
  readonly others: ReadonlyMap<string, Ip>;
}

/**
 * Those that the cloud lets this host have and that lead to a container here, while it has an address of that family itself. One that
 * several exposures share is told once.
 */
export function virtualAddresses(
  { exposures, hosts }: Pick<Snapshot, 'exposures' | 'hosts'>,
  local: readonly LocalEndpoint[],
  self: Host,
): readonly VirtualAddress[] {
  const found = new Map<Ip, VirtualAddress>();
  for (const exposure of exposures.values()) {
    const { ip, hosts: allowed = [] } = exposure.virtualIp ?? {};
    if (ip === undefined || found.has(ip) || !allowed.includes(self.id) || !isServed(exposure, local)) continue;
    if (!self.underlay.some((one) => familyOf(one.ip) === familyOf(ip))) continue;
    const others = allowed.flatMap((id): [string, Ip][] => {
      const host = id === self.id ? undefined : hosts.get(id);
      const address = host === undefined ? undefined : underlayOf(self, host);
      return address === undefined ? [] : [[id, address]];
    });
    found.set(ip, { ip, network: exposure.network, others: new Map(others) });
  }
  return [...found.values()].toSorted((a, b) => (a.ip < b.ip ? -1 : 1));
}

const isServed = (exposure: Exposure, local: readonly LocalEndpoint[]): boolean =>
  local.some(({ endpoint, sandbox }) => sandbox !== undefined && endpoint.network === exposure.network && names(endpoint, exposure));

/** On the underlay link, beside the host's own address. */
export const planVirtual = (carried: ReadonlySet<Ip>, self: Host): Partial<Desired> => ({
  addr: [...carried].toSorted().flatMap((ip) => {
    const ofFamily = self.underlay.filter((one) => familyOf(one.ip) === familyOf(ip));
    const underlay = ofFamily.find(({ subnet }) => covers(subnet, hostPrefix(ip))) ?? ofFamily[0];
    return underlay === undefined ? [] : [{ netns: '', link: underlay.interface, address: hostPrefix(ip) }];
  }),
});
