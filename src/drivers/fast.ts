// Which links get a fast path: those of networks with a domain of their own, where nothing but the domain's guard stands
// between two endpoints. Networks that the host routes itself must pass the host's own rules, and a WireGuard device has no
// MAC by which its link could be told, so only traffic between endpoints of one host is short there. What may be fast is
// exactly what guard.ts leaves untracked: from a member's own address to an address of the network, except names.
import type { FastPath, Route } from '#model/desired.ts';
import type { Cidr } from '#model/ip.ts';
import { endpointLink, vtepMac, vxlanLink } from '#model/numbers.ts';
import type { LocalEndpoint } from '#model/resources.ts';
import type { Carriage } from './driver.ts';

/** More pools than this are looked up the long way: a program tries them one after the other. */
const mostRanges = 8;

type Crossing = Pick<Carriage, 'network' | 'netns' | 'self' | 'mtu'>;

interface Reach {
  /** The network's pools. */
  readonly ranges: readonly Cidr[];
  /** Its ways to other hosts, some of which may take less than this one. */
  readonly routes: readonly Route[];
  readonly local: readonly LocalEndpoint[];
}

/**
 * One for each endpoint's link, and one for the tunnel's where packets from other hosts come out of it.
 */
export function planFast({ network, netns, self, mtu }: Crossing, { ranges, routes, local }: Reach): FastPath[] {
  // A short cut to an endpoint goes around the queue at its link.
  if (local.some(({ bandwidth }) => bandwidth !== undefined)) return [];
  if (netns === '' || ranges.length === 0 || ranges.length > mostRanges) return [];
  const tunnelled = network.choices.carry === 'vxlan' && self.underlay.length > 0;
  const tunnel = { mac: vtepMac(self.index), mtu: Math.min(mtu, ...routes.map((route) => route.mtu ?? mtu)) };
  const ends = local.map(({ endpoint: { id, mac, addresses } }) => ({
    netns,
    link: endpointLink(id),
    ranges,
    member: { mac, addresses },
    ...(tunnelled ? { tunnel } : {}),
  }));
  return tunnelled ? [...ends, { netns, link: vxlanLink(network.vni), ranges }] : ends;
}
