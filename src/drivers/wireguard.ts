// Encryption: every encrypted network has one WireGuard device per host (https://www.wireguard.com/papers/wireguard.pdf),
// which lives in the network's domain while its UDP socket stays on the host's side. Routes go straight over it: VXLAN over
// a shared device was measured at 0.31 of raw WireGuard, because encapsulated packets cannot use the device's segmentation
// offload; this way it is 1.0, one header less, and a key only ever opens the networks it belongs to. Peers are hosts;
// what a peer may send from is what it holds, so the cipher itself keeps hosts from speaking for each other's endpoints.
import { familyOf, type Family, hostPrefix } from '#model/ip.ts';
import { wireguardLink, wireguardPortOf } from '#model/numbers.ts';
import type { Host, Underlay } from '#model/resources.ts';
import type { Driver, Overhead, Remote } from './driver.ts';
import { insideOn, isBeside } from './inside.ts';
import { routesTo, tunnelledTo, underlayOf } from './vxlan.ts';

/** Outer IP 20 or 40, UDP 8, message header 16, Poly1305 tag 16. */
export function wireguardOverhead(family: Family): readonly Overhead[] {
  return [
    { what: family === 4 ? 'outer IPv4 header' : 'outer IPv6 header', bytes: family === 4 ? 20 : 40 },
    { what: 'UDP header', bytes: 8 },
    { what: 'WireGuard header', bytes: 16 },
    { what: 'WireGuard authentication tag', bytes: 16 },
  ];
}

const byHost = (a: { readonly remote: Remote }, b: { readonly remote: Remote }): number => (a.remote.host.id < b.remote.host.id ? -1 : 1);

function overheadOn(underlay: Underlay | undefined): readonly Overhead[] {
  const parts = wireguardOverhead(underlay === undefined ? 4 : familyOf(underlay.ip));
  const left = (underlay?.mtu ?? 1500) - parts.reduce((sum, { bytes }) => sum + bytes, 0);
  // WireGuard pads to 16 bytes; a multiple of 16 is never padded beyond the underlay, whatever MTU the process knows of.
  return left % 16 === 0 ? parts : [...parts, { what: 'rounding to whole 16-byte blocks', bytes: left % 16 }];
}

/** The largest packet to a host, where its underlay takes less than this one's. */
function narrower(self: Host, peer: Host, mtu: number): { readonly mtu?: number } {
  const ip = underlayOf(self, peer);
  const theirs = peer.underlay.find((one) => one.ip === ip);
  if (theirs === undefined) return {};
  const left = overheadOn(theirs).reduce((size, { bytes }) => size - bytes, theirs.mtu);
  return left < mtu ? { mtu: left } : {};
}

export const wireguard: Driver = {
  name: 'wireguard',
  overhead: (_network, self) => overheadOn(self.underlay[0]),
  passages: (network) => [{ protocol: 17, port: wireguardPortOf(network.vni), why: `WireGuard of network ${network.name} between hosts` }],
  plan(carriage) {
    const { network, netns, self, remotes, others = [], mtu } = carriage;
    const link = wireguardLink(network.vni);
    const port = wireguardPortOf(network.vni);
    const peersOf = (list: readonly Remote[]) =>
      list.flatMap((remote) => {
        const ip = underlayOf(self, remote.host);
        const { publicKey, port: theirs = port } = remote.host.wireguard ?? {};
        return ip === undefined || publicKey === undefined ? [] : [{ remote, publicKey, endpoint: { ip, port: theirs } }];
      });
    const reachable = peersOf(remotes);
    return {
      link: [{ type: 'wireguard', netns, name: link, mtu, alias: `causeway ${network.id} ${network.name}` }],
      addr: insideOn(carriage, link),
      wireguard: [
        {
          netns,
          link,
          port,
          // In the order of all hosts, whoever is sent to.
          peers: [...reachable, ...peersOf(others)].toSorted(byHost).map(({ remote, publicKey, endpoint }) => ({
            publicKey,
            endpoint,
            allowed: [
              ...tunnelledTo(remote),
              // Of programs of the peer's own that choose its address themselves.
              ...(isBeside(network) ? remote.host.underlay.map(({ ip }) => hostPrefix(ip)) : []),
            ],
          })),
        },
      ],
      route: reachable.flatMap(({ remote }) =>
        routesTo(tunnelledTo(remote), netns, () => ({ link, onlink: false, ...narrower(self, remote.host, mtu) })),
      ),
    };
  },
};
