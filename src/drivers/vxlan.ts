// VXLAN (RFC 7348) as the kernel does it, without flooding and without learning. Three generations of this exist in the
// field: per-endpoint entries filled on netlink misses (early flannel, Docker), per-endpoint entries pushed by gossip
// (Docker Swarm), and one route per block with one neighbour and one forwarding entry per remote host (flannel today). This
// is the third: state grows with hosts, not with containers. A remote host's VTEP MAC follows from its index, so a device
// that is made again looks the same to everybody.
import { type Cidr, familyOf, type Family, type Ip, hostPrefix } from '#model/ip.ts';
import { type Addr, familiesOf, type Desired, type Fdb, type Neigh, type Netns, type Route } from '#model/desired.ts';
import { vtepAddress, vxlanPort } from '#model/numbers.ts';
import type { Host } from '#model/resources.ts';
import type { Carriage, Driver, Remote } from './driver.ts';
import { insideOn } from './inside.ts';
import { tunnelMac, type Tunnels, tunnelsOf, vxlanOverhead, wayTo } from './tunnels.ts';

/** The address of `peer` that `self` sends to: the first one of the family of `self`'s preferred underlay. */
export function underlayOf(self: Host, peer: Host): Ip | undefined {
  const [own] = self.underlay;
  if (own === undefined) return undefined;
  return peer.underlay.find(({ ip }) => familyOf(ip) === familyOf(own.ip))?.ip;
}

/** Everything a remote host holds: its blocks, and one by one the addresses that no block covers. */
export const destinationsOf = ({ blocks, exceptions }: Remote): Cidr[] => [
  ...blocks.map(({ cidr }) => cidr),
  ...exceptions.map(hostPrefix),
];

/** The same through a tunnel. */
export const tunnelledTo = (remote: Remote): Cidr[] => [...destinationsOf(remote), ...(remote.inside ?? []).map(hostPrefix)];

type Next = (family: Family) => Pick<Route, 'via' | 'link' | 'onlink' | 'mtu'>;

export const routesTo = (destinations: readonly Cidr[], netns: Netns, next: Next): Route[] =>
  destinations.map((destination) => ({ netns, destination, type: 'unicast' as const, ...next(familyOf(destination)) }));

/** Neighbours, forwarding entries and routes by which `remote` is reached over the vxlan links; nothing while it has no address. */
export function reachByVxlan({ netns }: Carriage, tunnels: Tunnels, remote: Remote): { route: Route[]; neigh: Neigh[]; fdb: Fdb[] } {
  const { host } = remote;
  const destinations = tunnelledTo(remote);
  const ways = new Map(
    familiesOf(destinations).flatMap((family) => {
      const way = wayTo(tunnels, host, family);
      return way === undefined ? [] : [[family, way] as const];
    }),
  );
  const reached = (cidr: Cidr): boolean => ways.has(familyOf(cidr));
  const entries = [...ways.values()].map(({ tunnel: { link }, mac, remote: ip }) => ({ netns, link, mac, remote: ip }));
  return {
    route: routesTo(destinations, netns, (family) => {
      const { tunnel, mtu } = ways.get(family) ?? {};
      const link = tunnel === undefined ? {} : { link: tunnel.link };
      return { ...link, via: vtepAddress(host.index, family), onlink: true, ...(mtu === undefined ? {} : { mtu }) };
    }).filter(({ destination }) => reached(destination)),
    neigh: [...ways].map(([family, { tunnel, mac }]) => ({ netns, link: tunnel.link, ip: vtepAddress(host.index, family), mac })),
    fdb: [...new Map(entries.map((entry) => [entry.link, entry])).values()],
  };
}

/** The vxlan links of the network on this host; their sockets are opened on the host's own side. */
export function vxlanDevice({ network, netns, self }: Carriage, { first, second }: Tunnels): Desired['link'] {
  return [first, second].flatMap((tunnel) => {
    if (tunnel === undefined) return [];
    const { link: name, underlay, mtu, flannel } = tunnel;
    const outer = familyOf(underlay.ip);
    return [
      {
        type: 'vxlan' as const,
        netns,
        name,
        mtu,
        mac: tunnelMac(self, outer),
        alias: `causeway ${network.id} ${network.name}`,
        vni: network.vni,
        port: vxlanPort,
        local: underlay.ip,
        checksum: outer === 6,
        ...(flannel === undefined ? {} : { adopts: flannel }),
      },
    ];
  });
}

/** By which the host itself talks through the tunnels. */
export const insideTunnels = (carriage: Carriage, { first, second }: Tunnels): Addr[] => [
  ...(first === undefined ? [] : insideOn(carriage, first.link)),
  ...(second === undefined ? [] : insideOn(carriage, second.link, [6])),
];

export const vxlan: Driver = {
  name: 'vxlan',
  overhead: (_network, self) => vxlanOverhead(self.underlay[0] === undefined ? 4 : familyOf(self.underlay[0].ip)),
  passages: () => [{ protocol: 17, port: vxlanPort, why: 'VXLAN between hosts' }],
  plan(carriage) {
    const tunnels = tunnelsOf(carriage);
    const reached = carriage.remotes.map((remote) => reachByVxlan(carriage, tunnels, remote));
    return {
      link: vxlanDevice(carriage, tunnels),
      addr: insideTunnels(carriage, tunnels),
      neigh: reached.flatMap(({ neigh }) => neigh),
      fdb: reached.flatMap(({ fdb }) => fdb),
      route: reached.flatMap(({ route }) => route),
    };
  },
};
