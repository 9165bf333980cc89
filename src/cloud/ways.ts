// Ways to blocks of containers whose packets travel as they are: which pairs a host's port has for them, and by way of which host a router
// leads to each. Pure.
import { type Cidr, covers, familyOf, type Ip } from '#model/ip.ts';
import type { CloudFacts, Need } from './wish.ts';

export interface Route {
  readonly destination: Cidr;
  readonly nexthop: Ip;
}

/** To containers by way of their hosts, for routers. */
export interface WishedRoutes {
  /** They hold all destinations. */
  readonly ranges: readonly Cidr[];
  readonly routes: readonly Route[];
  /** Names of hosts that a router cannot lead to, as they have no address of the family. Absent: none. */
  readonly lost?: readonly { readonly host: string; readonly destination: Cidr }[];
  /** Why the cloud has refused them; it is not asked again. */
  readonly refused?: string;
}

export const rangesOf = (needs: readonly Need[]): Cidr[] => [...new Set(needs.flatMap(({ pairs }) => pairs))].toSorted();

const isIn = (ranges: readonly Cidr[], cidr: Cidr): boolean => ranges.some((range) => covers(range, cidr));

/**
 * By a host's id: whole ranges, so that a new block needs no change, but of networks by a router only the host's own blocks: others'
 * packets come from the router, and nobody else's address leaves the host.
 */
export function pairsFor(needs: readonly Need[], { blocks }: CloudFacts): (host: string) => readonly Cidr[] {
  const plain = needs.filter(({ isInCloud }) => isInCloud !== true);
  const whole = rangesOf(plain.filter(({ isByRouter }) => isByRouter !== true));
  const routed = rangesOf(plain.filter(({ isByRouter }) => isByRouter === true));
  const own = Map.groupBy(
    blocks.filter(({ cidr }) => isIn(routed, cidr) && !isIn(whole, cidr)),
    ({ host }) => host,
  );
  return (host) => [...new Set([...whole, ...(own.get(host) ?? []).map(({ cidr }) => cidr)])].toSorted();
}

/** Whether what becomes of a pair matters to the need: it is one of its ranges, holds one, or is a part of one by a router. */
export const isForNeed = ({ pairs, isByRouter }: Need, pair: Cidr): boolean =>
  pairs.some((range) => covers(pair, range) || (isByRouter === true && covers(range, pair)));

/** A block is reached by way of the host that it belongs to. */
export function routesOf({ blocks, hosts }: CloudFacts, ranges: readonly Cidr[]): WishedRoutes {
  const byId = new Map(hosts.map((host) => [host.id, host]));
  const found = blocks.flatMap(({ cidr: destination, host: id }) => {
    const host = byId.get(id);
    if (host === undefined || !isIn(ranges, destination)) return [];
    const nexthop = host.underlay.find(({ ip }) => familyOf(ip) === familyOf(destination))?.ip;
    return [{ host: host.name, destination, nexthop }];
  });
  const routes = found.flatMap(({ destination, nexthop }): Route[] => (nexthop === undefined ? [] : [{ destination, nexthop }]));
  const lost = found.flatMap(({ host, destination, nexthop }) => (nexthop === undefined ? [{ host, destination }] : []));
  return { ranges, routes, ...(lost.length === 0 ? {} : { lost }) };
}
