// Addresses by which hosts themselves talk through a tunnel with pods of other hosts. From its underlay address a host would be answered
// past the tunnel, by packets with a pod's address: an underlay that knows of hosts only drops them (Neutron's port security), and a
// firewall that keeps track has seen half of the connection. flannel has the first address of a host's block for that. Where blocks are
// small and all of them for pods (`calico`) it is one that follows from the host's index.
import { type Addr, type Desired, familiesOf } from '#model/desired.ts';
import { cidrBase, type Family, familyOf, hostPrefix, type Ip } from '#model/ip.ts';
import { linkPrefix, tunnelAddress } from '#model/numbers.ts';
import type { Block, Host, Network, Pool } from '#model/resources.ts';
import type { Carriage } from './driver.ts';

/** The host's blocks of the network, in an order that stays. */
export const ownBlocks = ({ snapshot, network, self }: Pick<Carriage, 'snapshot' | 'network' | 'self'>): Block[] =>
  [...snapshot.blocks.values()]
    .filter((block) => block.network === network.id && block.host === self.id)
    .toSorted((a, b) => (a.id < b.id ? -1 : 1));

/** Whether hosts' addresses inside are beside their blocks, so that ways to blocks do not lead to them. */
export const isBeside = ({ present, model }: Network): boolean => present === 'always' && model === 'calico';

/** Of a network whose hosts' addresses inside are beside their blocks. */
export const besideOf = ({ index }: Host, families: readonly Family[]): Ip[] => families.map((family) => tunnelAddress(index, family));

export const familiesOfPools = (pools: Iterable<Pool>): readonly Family[] => familiesOf([...pools].map(({ cidr }) => cidr));

/** The host's own, none where hosts have no part in the network themselves. */
export function insideAddresses(carriage: Pick<Carriage, 'snapshot' | 'network' | 'self'>): Ip[] {
  const { snapshot, network, self } = carriage;
  // Where the cloud carries, they are those of the overlay beside it (companion.ts).
  if (network.present !== 'always' || network.model === 'neutron') return [];
  if (!isBeside(network))
    return ownBlocks(carriage)
      .map(({ cidr }) => cidrBase(cidr))
      .toSorted();
  return besideOf(self, familiesOfPools([...snapshot.pools.values()].filter((pool) => pool.network === network.id)));
}

/** On that link of a tunnel, those of the families that it carries. */
export const insideOn = (carriage: Carriage, link: string, families: readonly Family[] = [4, 6]): Addr[] =>
  insideAddresses(carriage)
    .filter((ip) => families.includes(familyOf(ip)))
    .map((ip) => ({ netns: carriage.netns, link, address: hostPrefix(ip) }));

/**
 * Hosts that have no address inside talk through a tunnel of IPv6 from their underlay address. The kernel may prefer the name server's,
 * which is alike on all hosts and so the same sort of address as containers' (RFC 6724).
 */
export function fromUnderlay(part: Partial<Desired>, carriage: Carriage): Partial<Desired> {
  const source = carriage.self.underlay.find(({ ip }) => familyOf(ip) === 6)?.ip;
  if (carriage.netns !== '' || source === undefined || insideAddresses(carriage).some((ip) => familyOf(ip) === 6)) return part;
  const route = part.route?.map((one) =>
    one.type === 'unicast' && one.link?.startsWith(linkPrefix) === true && familyOf(one.destination) === 6 ? { ...one, source } : one,
  );
  return { ...part, ...(route === undefined ? {} : { route }) };
}
