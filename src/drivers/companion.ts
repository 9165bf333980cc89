// The overlay beside a network of the model `neutron`, for containers for which the cloud gives no port. They are in the network like
// the others, with names and published ports, but with addresses of a pool of its own, which no router of the cloud knows: hosts carry
// them to each other by VXLAN, and what leaves the network has its host's address. Containers with ports reach them by way of
// their own host, in whose name it asks: an address that it has in the pool, so that answers come back by VXLAN, too. (With the
// container's own address the other host would send them into the cloud's network, which lets out nothing with the sender's.)
import type { Addr, Desired } from '#model/desired.ts';
import {
  bitsOf,
  type Cidr,
  cidrBase,
  cidrLength,
  cidrSize,
  contains,
  type Family,
  familyOf,
  hostPrefix,
  type Ip,
  ipAdd,
  subnetAt,
} from '#model/ip.ts';
import type { Block, Host, Network, Pool } from '#model/resources.ts';
import type { Carriage, Remote } from './driver.ts';
import { ownBlocks } from './inside.ts';
import { tunnelsOf } from './tunnels.ts';
import { vxlan } from './vxlan.ts';

/** Of a range that nobody has chosen. */
export const companionLength: Readonly<Record<Family, number>> = { 4: 16, 6: 64 };
/** Longer than this one half of it would not do as addresses of hosts. */
const longest: Readonly<Record<Family, number>> = { 4: 24, 6: 112 };
/** What is to be there for each family: the range that is named, or undefined for one that is to be chosen. */
export type CompanionRanges = ReadonlyMap<Family, Cidr | undefined>;

/** Undefined: the range that is named is of no family of the network's, or too small. */
export function companionRanges(asked: 'overlay' | Cidr, families: readonly Family[]): CompanionRanges | undefined {
  if (asked !== 'overlay' && (!families.includes(familyOf(asked)) || cidrLength(asked) > longest[familyOf(asked)])) return undefined;
  return new Map(families.map((family) => [family, asked !== 'overlay' && familyOf(asked) === family ? asked : undefined]));
}
/** What else is possible, for who has asked for what is not. */
export const companionHint = (families: readonly Family[]): string =>
  `"overlay", or a range of ${families.map((family) => `IPv${family} of at least /${longest[family]}`).join(' or of ')}`;
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

/** One a family. */
export const companionPools = ({ snapshot, network }: Pick<Carriage, 'snapshot' | 'network'>): Pool[] =>
  hasCompanion(network) ? [...snapshot.pools.values()].filter((pool) => pool.network === network.id && pool.fallback === true) : [];

/** Largest packet of a container with these addresses: where they are carried by VXLAN that takes a part of it. */
export const mtuFor = (carriage: Carriage, addresses: readonly Ip[]): number =>
  companionPools(carriage).some(({ cidr }) => addresses.some((ip) => contains(cidr, ip))) ? companionMtu(carriage) : carriage.mtu;

function companionMtu({ network, self, mtu }: Carriage): number {
  const left = vxlan.overhead(network, self).reduce((rest, { bytes }) => rest - bytes, self.underlay[0]?.mtu ?? 1500);
  return Math.min(mtu, left);
}

export function planCompanion(carriage: Carriage): Partial<Desired> {
  const pools = companionPools(carriage);
  if (pools.length === 0) return {};
  const { network, self } = carriage;
  const ownOf = (host: Host, blocks: readonly Block[]): Ip[] =>
    pools.flatMap((pool) => addressIn(network, pool, { host, blocks: blocks.filter((block) => block.pool === pool.id) }) ?? []);
  const remotes = carriage.remotes.map(({ host, blocks: all, exceptions }): Remote => {
    const blocks = all.filter((block) => pools.some(({ id }) => id === block.pool));
    const those = exceptions.filter((ip) => pools.some(({ cidr }) => contains(cidr, ip)));
    return { host, blocks, exceptions: [...those, ...ownOf(host, blocks)] };
  });
  const narrow = { ...carriage, remotes, mtu: companionMtu(carriage) };
  const link = tunnelsOf(narrow).first?.link;
  const own = ownOf(self, ownBlocks(carriage));
  const addr = link === undefined ? [] : own.map((ip): Addr => ({ netns: carriage.netns, link, address: hostPrefix(ip) }));
  return { ...vxlan.plan(narrow), addr };
}
