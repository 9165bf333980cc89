// Which links get a fast path. A network with a domain of its own has one for each endpoint and one for its tunnel, as nothing but the
// domain's guard stands between two endpoints; a WireGuard device has no MAC by which its link could be told, so with it only
// traffic between endpoints of one host is short. A network that hosts carry by plain routes has one for each endpoint, and all
// such networks share one on each link to other hosts; unless somebody has a say there in what goes on between two endpoints:
// policies, services that endpoints of other hosts answer for, Kubernetes with whatever translates for it. What may be fast is
// exactly what guard.ts leaves untracked: from a member's own address to an address of the network, except names.
import type { Desired, FastPath, Route } from '#model/desired.ts';
import { type Cidr, familyOf } from '#model/ip.ts';
import { endpointLink, vtepMac, vxlanLink } from '#model/numbers.ts';
import type { Host, LocalEndpoint, Network, Pool } from '#model/resources.ts';
import type { Carriage } from './driver.ts';
import { elements } from './guard.ts';

/** More pools than this are looked up the long way: a program tries them one after the other. */
const mostRanges = 8;
/** The same of all networks together that share a link of the host. */
const mostShared = 32;

interface Crossing {
  readonly carriage: Pick<Carriage, 'network' | 'netns' | 'self' | 'mtu'>;
  readonly pools: readonly Pick<Pool, 'cidr'>[];
  readonly local: readonly LocalEndpoint[];
}

/**
 * Whether hosts route the network themselves, by plain routes, and nobody but an engine has to do with it: not where every host takes
 * part, with endpoints or without.
 */
export const isPlainlyRouted = ({ choices, present }: Pick<Network, 'choices' | 'present'>): boolean =>
  choices.domain === 'host' && choices.carry === 'host-gateway' && present === undefined;

const rangesOf = ({ pools }: Crossing): Cidr[] => pools.map(({ cidr }) => cidr);

/** Those networks of the host whose packets may take short cuts. `isAsked`: the host has a say in what it routes itself. */
export function shortOf<Present extends Crossing>(presents: readonly Present[], isAsked: boolean): Set<Present> {
  const fit = presents.filter(
    // A short cut to an endpoint goes around the queue at its link.
    ({ pools, local }) => pools.length > 0 && pools.length <= mostRanges && local.every(({ bandwidth }) => bandwidth === undefined),
  );
  const apart = fit.filter(({ carriage }) => carriage.netns !== '');
  const shared = fit.filter(({ carriage: { network, self } }) => isPlainlyRouted(network) && self.underlay.length > 0);
  return new Set([...apart, ...(isAsked || shared.flatMap(rangesOf).length > mostShared ? [] : shared)]);
}

/** One for each endpoint's link, and one for the tunnel's where packets from other hosts come out of it. */
export function planFast(crossing: Crossing, routes: readonly Route[]): FastPath[] {
  const { carriage, local } = crossing;
  const { network, netns, self, mtu } = carriage;
  const tunnelled = netns !== '' && network.choices.carry === 'vxlan' && self.underlay.length > 0;
  // Some ways to other hosts may take less than this one.
  const least = Math.min(mtu, ...routes.map((route) => route.mtu ?? mtu));
  const networks = [rangesOf(crossing)];
  const ends = local.map(({ endpoint: { id, mac, addresses } }) => ({
    netns,
    link: endpointLink(id),
    networks,
    member: { mac, addresses },
    ...(tunnelled ? { tunnel: { mac: vtepMac(self.index), mtu: least } } : {}),
    ...(netns === '' ? { outward: { links: linksOf(self), mtu: least } } : {}),
  }));
  return tunnelled ? [...ends, { netns, link: vxlanLink(network.vni), networks }] : ends;
}

/** What comes from other hosts by plain routes for any of these networks: a path for each link that the hosts are behind. */
export function planArrivals(self: Host, crossings: readonly Crossing[]): Partial<Desired> {
  const networks = crossings.map(rangesOf);
  return {
    fast: networks.length === 0 ? [] : linksOf(self).map((link) => ({ netns: '', link, networks, strict: true })),
    element: networks.flatMap((ranges) =>
      ranges.flatMap((from) =>
        ranges.filter((to) => familyOf(to) === familyOf(from)).flatMap((to) => elements('', `short${familyOf(from)}`, [`${from} . ${to}`])),
      ),
    ),
  };
}

const linksOf = ({ underlay }: Host): string[] => [...new Set(underlay.map((one) => one.interface))].toSorted();
