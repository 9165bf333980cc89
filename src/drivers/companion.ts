// The overlay beside a network of the model `neutron`, for containers for which the cloud gives no port. They are in the network like
// the others, with names and published ports, but with addresses of a pool of its own, which no router of the cloud knows: hosts carry
// them to each other by VXLAN, and what leaves the network has its host's address. Containers with ports reach them by way of
// their own host, in whose name it asks: an address that it has in the pool, so that answers come back by VXLAN, too. (With the
// container's own address the other host would send them into the cloud's network, which lets out nothing with the sender's.)
import type { Desired } from '#model/desired.ts';
import { bitsOf, type Cidr, cidrBase, cidrLength, cidrSize, contains, familyOf, hostPrefix, type Ip, ipAdd, subnetAt } from '#model/ip.ts';
import type { Block, Host, Network, Pool } from '#model/resources.ts';
import type { Carriage, Remote } from './driver.ts';
import { ownBlocks } from './inside.ts';
import { tunnelsOf } from './tunnels.ts';
import { vxlan } from './vxlan.ts';

/** Of a range that nobody has chosen. */
export const companionLength = 16;
const half = (cidr: Cidr, which: bigint): Cidr => subnetAt(cidr, cidrLength(cidr) + 1, which) ?? cidr;
/** What containers get; the other half is for hosts. */
export const companionRange = (cidr: Cidr): Cidr => half(cidr, 0n);

export const hasCompanion = ({ neutron }: Network): boolean => neutron?.fallback === true;

interface Holder {
  readonly host: Host;
  /** Of the pool. */
  readonly blocks: readonly Block[];
}

/**
 * The host's own; undefined where the range has none left for it. Where every host has a part of the range it is as far along as that
 * one: indexes are large there (kubernetes/nodes.ts).
 */
function addressIn({ present }: Network, { cidr }: Pool, { host: { index }, blocks }: Holder): Ip | undefined {
  const [first] = blocks;
  if (present === 'always') return first === undefined ? undefined : ipAdd(cidrBase(first.cidr), cidrSize(half(cidr, 0n)));
  const found = subnetAt(half(cidr, 1n), bitsOf(familyOf(cidr)), BigInt(index));
  return found === undefined ? undefined : cidrBase(found);
}

export const companionPool = ({ snapshot, network }: Pick<Carriage, 'snapshot' | 'network'>): Pool | undefined =>
  hasCompanion(network) ? [...snapshot.pools.values()].find((pool) => pool.network === network.id && pool.fallback === true) : undefined;

/** Largest packet of a container with these addresses: where they are carried by VXLAN that takes a part of it. */
export function mtuFor(carriage: Carriage, addresses: readonly Ip[]): number {
  const pool = companionPool(carriage);
  return pool !== undefined && addresses.some((ip) => contains(pool.cidr, ip)) ? companionMtu(carriage) : carriage.mtu;
}

function companionMtu({ network, self, mtu }: Carriage): number {
  const left = vxlan.overhead(network, self).reduce((rest, { bytes }) => rest - bytes, self.underlay[0]?.mtu ?? 1500);
  return Math.min(mtu, left);
}

export function planCompanion(carriage: Carriage): Partial<Desired> {
  const pool = companionPool(carriage);
  if (pool === undefined) return {};
  const { network, self } = carriage;
  const remotes = carriage.remotes.map(({ host, blocks: all, exceptions }): Remote => {
    const blocks = all.filter((block) => block.pool === pool.id);
    const own = addressIn(network, pool, { host, blocks });
    return {
      host,
      blocks,
      exceptions: [...exceptions.filter((ip) => contains(pool.cidr, ip)), ...(own === undefined ? [] : [own])],
    };
  });
  const narrow = { ...carriage, remotes, mtu: companionMtu(carriage) };
  const own = addressIn(network, pool, { host: self, blocks: ownBlocks(carriage).filter((block) => block.pool === pool.id) });
  const link = tunnelsOf(narrow).first?.link;
  const addr = own === undefined || link === undefined ? [] : [{ netns: carriage.netns, link, address: hostPrefix(own) }];
  return { ...vxlan.plan(narrow), addr };
}
