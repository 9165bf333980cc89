// Ranges of networks as the host keeps them: in its sets, which refuse an address that is there twice, and among its routes.
import { type Cidr } from '#model/ip.ts';
import { disjoint } from '#model/ranges.ts';
import type { Netns, Route } from '#model/desired.ts';
import type { Pool } from '#model/resources.ts';
import type { Carriage } from './driver.ts';

/** Pools that lie in no other one, each range once; those of Kubernetes may lie in each other. */
export function outermost(pools: readonly Pool[]): readonly Pool[] {
  const byCidr = new Map(pools.map((pool) => [pool.cidr, pool]));
  return disjoint([...byCidr.keys()]).flatMap((cidr) => byCidr.get(cidr) ?? []);
}

/** From where packets leave as they are. */
export const keepingSender = (pools: readonly Pool[]): Cidr[] =>
  disjoint(pools.flatMap(({ cidr, keepsSender }) => (keepsSender === true ? [cidr] : [])));

/** No way to addresses of these ranges that nobody has. To one that is a block of another host's as a whole, that host is the way. */
export function nowhere(netns: Netns, ranges: readonly Pick<Pool, 'cidr'>[], { remotes }: Carriage): Route[] {
  const theirs = new Set(remotes.flatMap(({ blocks }) => blocks.map(({ cidr }) => cidr)));
  return ranges.flatMap(({ cidr }) => (theirs.has(cidr) ? [] : { netns, destination: cidr, onlink: false, type: 'unreachable' }));
}
