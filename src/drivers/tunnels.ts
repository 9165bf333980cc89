// The vxlan links of a network on a host. One is enough for both families, over the family that the underlay prefers. flannel has
// one for each family, over an underlay of that family: beside its hosts there is a second one, by which IPv6 goes to all that have it.
import { familyOf, type Family, type Ip, type Mac } from '#model/ip.ts';
import { vtepMac, vxlanLink, vxlanLink6 } from '#model/numbers.ts';
import type { Host, Underlay } from '#model/resources.ts';
import type { Carriage, Overhead } from './driver.ts';

/** Outer header of VXLAN: inner Ethernet 14, VXLAN 8, UDP 8, outer IP 20 or 40. */
export function vxlanOverhead(family: Family): readonly Overhead[] {
  return [
    { what: family === 4 ? 'outer IPv4 header' : 'outer IPv6 header', bytes: family === 4 ? 20 : 40 },
    { what: 'UDP header', bytes: 8 },
    { what: 'VXLAN header', bytes: 8 },
    { what: 'inner Ethernet header', bytes: 14 },
  ];
}

export interface Tunnel {
  readonly link: string;
  readonly underlay: Underlay;
  /** Largest packet that goes through it. */
  readonly mtu: number;
  /** The link that flannel has for it, in a network that may be flannel's. */
  readonly flannel?: string;
}

export interface Tunnels {
  /** For everything that the second is not for. Absent while the host has no underlay. */
  readonly first?: Tunnel;
  readonly second?: Tunnel;
}

/** Whether the host takes IPv6 by a tunnel over IPv6; ours does so from then on, too, so that nothing changes when flannel has gone. */
const isApart = ({ carrying }: Host): boolean => carrying?.vtepMac6 !== undefined;

export function tunnelsOf({
  network,
  self,
  mtu,
  remotes,
  others = [],
}: Pick<Carriage, 'network' | 'self' | 'mtu' | 'remotes' | 'others'>): Tunnels {
  const { vni } = network;
  const [preferred] = self.underlay;
  if (preferred === undefined) return {};
  // Hosts that say how they carry the network that all of them are in may be flannel's, or have been.
  const isFlannels = self.carrying !== undefined && network.present === 'always' && network.model === 'flannel';
  const flannelOf = (underlay: Underlay) =>
    isFlannels ? { flannel: familyOf(underlay.ip) === 6 ? `flannel-v6.${vni}` : `flannel.${vni}` } : {};
  const first = { link: vxlanLink(vni), underlay: preferred, mtu, ...flannelOf(preferred) };
  const six = familyOf(preferred.ip) === 6 ? undefined : self.underlay.find(({ ip }) => familyOf(ip) === 6);
  // What a host has told of once stays: others may still send there.
  const isWanted = isApart(self) || [...remotes, ...others].some(({ host }) => isApart(host));
  if (six === undefined || !isFlannels || !isWanted) return { first };
  const left = vxlanOverhead(6).reduce((size, { bytes }) => size - bytes, six.mtu);
  return { first, second: { link: vxlanLink6(vni), underlay: six, mtu: Math.min(mtu, left), ...flannelOf(six) } };
}

/** MAC of the host's end of a tunnel over that family. */
export const tunnelMac = ({ index, carrying }: Host, outer: Family): Mac =>
  (outer === 6 ? carrying?.vtepMac6 : undefined) ?? carrying?.vtepMac ?? vtepMac(index);

/** How packets of one family go to a host. */
export interface Way {
  readonly tunnel: Tunnel;
  readonly mac: Mac;
  readonly remote: Ip;
  /** Largest packet, where that is less than the network's. */
  readonly mtu?: number;
}

/** Undefined while the host has no address of the tunnel's family. */
export function wayTo({ first, second }: Tunnels, peer: Host, family: Family): Way | undefined {
  const tunnel = family === 6 && second !== undefined && isApart(peer) ? second : first;
  if (first === undefined || tunnel === undefined) return undefined;
  const outer = familyOf(tunnel.underlay.ip);
  const to = peer.underlay.find(({ ip }) => familyOf(ip) === outer);
  if (to === undefined) return undefined;
  // What the way leaves; the tunnel's own MTU may be less for other reasons, a bound of the user's among them.
  const left = vxlanOverhead(outer).reduce((rest, { bytes }) => rest - bytes, to.mtu);
  const size = Math.min(tunnel.mtu, left);
  return { tunnel, mac: tunnelMac(peer, outer), remote: to.ip, ...(size < first.mtu ? { mtu: size } : {}) };
}
