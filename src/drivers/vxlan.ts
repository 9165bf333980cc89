// VXLAN (RFC 7348) as the kernel does it, without flooding and without learning. Three generations of this exist in the
// field: per-endpoint entries filled on netlink misses (early flannel, Docker), per-endpoint entries pushed by gossip
// (Docker Swarm), and one route per block with one neighbour and one forwarding entry per remote host (flannel today). This
// is the third: state grows with hosts, not with containers. A remote host's VTEP MAC follows from its index, so a device
// that is made again looks the same to everybody.
import { type Cidr, cidrBase, familyOf, type Family, type Ip, type Mac, hostPrefix } from '#model/ip.ts';
import { type Addr, familiesOf, type Desired, type Fdb, type Neigh, type Netns, type Route } from '#model/desired.ts';
import { vtepAddress, vtepMac, vxlanLink, vxlanPort } from '#model/numbers.ts';
import type { Host, Network, Snapshot } from '#model/resources.ts';
import type { Carriage, Driver, Overhead, Remote } from './driver.ts';

/** Outer header of VXLAN: inner Ethernet 14, VXLAN 8, UDP 8, outer IP 20 or 40. */
export function vxlanOverhead(family: Family): readonly Overhead[] {
  return [
    { what: family === 4 ? 'outer IPv4 header' : 'outer IPv6 header', bytes: family === 4 ? 20 : 40 },
    { what: 'UDP header', bytes: 8 },
    { what: 'VXLAN header', bytes: 8 },
    { what: 'inner Ethernet header', bytes: 14 },
  ];
}

/** The address of `peer` that `self` sends to: the first one of the family of `self`'s preferred underlay. */
export function underlayOf(self: Host, peer: Host): Ip | undefined {
  const [own] = self.underlay;
  if (own === undefined) return undefined;
  return peer.underlay.find(({ ip }) => familyOf(ip) === familyOf(own.ip))?.ip;
}

/** Routes for everything a remote host holds: its blocks, and one by one the addresses that no block covers. */
export function routesTo(
  remote: Remote,
  netns: Netns,
  next: (family: Family) => Pick<Route, 'via' | 'link' | 'onlink'>,
  mtu?: number,
): Route[] {
  return [...remote.blocks.map(({ cidr }) => cidr), ...remote.exceptions.map(hostPrefix)].map((destination) => ({
    netns,
    destination,
    type: 'unicast' as const,
    ...next(familyOf(destination)),
    ...(mtu === undefined ? {} : { mtu }),
  }));
}

const macOf = ({ index, carrying }: Host): Mac => carrying?.vtepMac ?? vtepMac(index);

/** Neighbour, forwarding entry and routes by which `remote` is reached over the vxlan link; nothing while it has no address. */
export function reachByVxlan({ network, netns, self, mtu }: Carriage, remote: Remote): { route: Route[]; neigh: Neigh[]; fdb: Fdb[] } {
  const underlay = underlayOf(self, remote.host);
  if (underlay === undefined) return { route: [], neigh: [], fdb: [] };
  const link = vxlanLink(network.vni);
  const mac = macOf(remote.host);
  const ownMtu = self.underlay[0]?.mtu ?? mtu;
  const peerMtu = remote.host.underlay[0]?.mtu ?? ownMtu;
  const lower = peerMtu < ownMtu ? mtu - (ownMtu - peerMtu) : undefined;
  const route = routesTo(remote, netns, (family) => ({ link, via: vtepAddress(remote.host.index, family), onlink: true }), lower);
  const families = familiesOf(route.map(({ destination }) => destination));
  return {
    route,
    neigh: families.map((family) => ({ netns, link, ip: vtepAddress(remote.host.index, family), mac })),
    fdb: route.length === 0 ? [] : [{ netns, link, mac, remote: underlay }],
  };
}

/** The vxlan link of the network on this host; its socket is opened on the host's own side. */
export function vxlanDevice({ network, netns, self, mtu }: Carriage): Desired['link'] {
  const [underlay] = self.underlay;
  if (underlay === undefined) return [];
  return [
    {
      type: 'vxlan',
      netns,
      name: vxlanLink(network.vni),
      mtu,
      mac: macOf(self),
      alias: `causeway ${network.id} ${network.name}`,
      vni: network.vni,
      port: vxlanPort,
      local: underlay.ip,
      checksum: familyOf(underlay.ip) === 6,
      // Hosts that say how they carry may have been flannel's: its tunnel of that number is the same.
      ...(self.carrying === undefined ? {} : { adopts: `flannel.${network.vni}` }),
    },
  ];
}

/** The first address of each of the host's blocks, by which it can talk to the network from inside. */
export const nodeAddresses = ({ blocks }: Snapshot, { id }: Network, self: Host): Cidr[] =>
  [...blocks.values()]
    .filter(({ network, host }) => network === id && host === self.id)
    .map(({ cidr }) => hostPrefix(cidrBase(cidr)))
    .toSorted();

/** A host that was flannel's keeps the addresses of its tunnel: connections of its own began from them. */
export const keptAddresses = ({ network, netns, self, snapshot }: Carriage): Addr[] =>
  self.carrying?.vtepMac === undefined
    ? []
    : nodeAddresses(snapshot, network, self).map((address) => ({ netns, link: vxlanLink(network.vni), address }));

export const vxlan: Driver = {
  name: 'vxlan',
  overhead: (_network, self) => vxlanOverhead(self.underlay[0] === undefined ? 4 : familyOf(self.underlay[0].ip)),
  passages: () => [{ protocol: 17, port: vxlanPort, why: 'VXLAN between hosts' }],
  plan(carriage) {
    const reached = carriage.remotes.map((remote) => reachByVxlan(carriage, remote));
    return {
      link: vxlanDevice(carriage),
      addr: keptAddresses(carriage),
      neigh: reached.flatMap(({ neigh }) => neigh),
      fdb: reached.flatMap(({ fdb }) => fdb),
      route: reached.flatMap(({ route }) => route),
    };
  },
};
