// The installation's fixed numbers and names (DESIGN.md, "Numbers and names"), and how a host's or an endpoint's own
// numbers follow from its identity, so that they are the same after every restart and can be worked out by hand.
import { type Cidr, type Family, type Ip, ipAdd, ipToBigint, cidrBase, linkLocalOf, type Mac } from './ip.ts';

export const controllerPort = 7480;
export const agentPort = 7481;
/** UDP: hosts tell each other which addresses that move between them they can have. */
export const virtualPort = 7482;
export const vxlanPort = 8472;
/** What probes with containers' addresses are sent to: discard (RFC 863), nobody's. */
export const probePort = 9;
/** In the place of an interface's name where whoever tells of a host does not know it. */
export const unknownInterface = '-';
/** Ports that follow from a network's VNI follow from its rest by this. */
export const portRange = 4096;
/** First of the UDP ports of encrypted networks. */
export const wireguardBasePort = 51820;
/** UDP port of an encrypted network, the same on every host; the controller keeps two networks from sharing one. */
export const wireguardPortOf = (vni: number): number => wireguardBasePort + (vni % portRange);
/** rtm_protocol of every route of ours: how a process with no memory tells them from others. */
export const routeProtocol = 197;
/** The same of second copies of a BGP speaker's routes, which stand in for them while it starts again. */
export const heldRouteProtocol = 198;
/** Routing table of what leaves by a trunk, and the first of the priorities of the rules that lead to it. */
export const trunkTable = 197;
export const trunkPriority = 19_700;
/** Bit of a packet's mark on the host: its addresses are translated, so it goes where the host's own packets go. */
export const translatedMark = 0x2000_0000;
/** Bits of a packet's mark on the host, one for each routing table by which the host has other interfaces' answers leave (ways-back.ts). */
export const wayMarks: readonly number[] = [0x0100_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000];
export const tableName = 'causeway';
/** Apart from the other, so that a change of policies loads no services again. */
export const policyTableName = 'causeway_policy';
/** Bit of a packet's mark on the host: a policy that has its turn early has allowed it. */
export const allowedMark = 0x1000_0000;
export const linkPrefix = 'cw';
export const domainPrefix = 'cw-';

/** Networks that one container can be in at a time. */
export const mostGateways = 200;
/**
 * The gateway of a container's network number `order` (1 to mostGateways, in the order of joining): exists once per domain,
 * answers on every endpoint's link. The numbers of one container must differ, as Docker tells its links apart by them.
 */
export const gatewayOf = (family: Family, order: number): Ip => (family === 4 ? `169.254.1.${order}` : `fe80::${order.toString(16)}`) as Ip;
/** MAC of our end of every endpoint's veth pair. Locally administered. */
export const gatewayMac: Mac = '02:63:77:ff:ff:01' as Mac;

/** How packets reach a domain from its host and back: the two ends of the domain's uplink. */
export const uplink = {
  link: 'cwup',
  hostMac: '02:63:77:ff:fe:01' as Mac,
  domainMac: '02:63:77:ff:fe:02' as Mac,
  /** Next hop for the host towards the domain, and for the domain towards the host; permanent neighbours on both sides. */
  domain: { 4: '169.254.2.2' as Ip, 6: 'fe80::2:2' as Ip },
  host: { 4: '169.254.2.3' as Ip, 6: 'fe80::2:3' as Ip },
} as const;

/** Host-local addresses that stand for endpoints of isolated networks on the way in and out of their domain. */
export const transitBase: Readonly<Record<Family, Cidr>> = { 4: '100.127.0.0/16' as Cidr, 6: 'fd63:7701::/64' as Cidr };
/** Numbers that stand for remote hosts as next hops of a vxlan link; they exist only as permanent neighbours. */
export const tunnelBase: Readonly<Record<Family, Cidr>> = { 4: '100.126.0.0/16' as Cidr, 6: 'fd63:7702::/64' as Cidr };

export const transitAddress = (slot: number, family: Family): Ip => ipAdd(cidrBase(transitBase[family]), slot);
export const tunnelAddress = (hostIndex: number, family: Family = 4): Ip => ipAdd(cidrBase(tunnelBase[family]), hostIndex);

/** MAC of a host's vxlan links: 02:63:77 and the host's index. One per host; VNIs keep networks apart. */
export const vtepMac = (hostIndex: number): Mac =>
  `02:63:77:${[hostIndex >> 16, hostIndex >> 8, hostIndex].map((part) => (part & 255).toString(16).padStart(2, '0')).join(':')}` as Mac;
/** Next hop for routes to a host over vxlan; it exists only as a permanent neighbour of the vxlan link. */
export const vtepAddress = (hostIndex: number, family: Family): Ip =>
  family === 6 ? linkLocalOf(vtepMac(hostIndex)) : tunnelAddress(hostIndex, 4);

export const domainName = (networkId: string): string => `${domainPrefix}${networkId}`;
/** Our end of an endpoint's veth pair, inside the domain. Link names hold at most 15 bytes (IFNAMSIZ). */
export const endpointLink = (endpointId: string): string => `cwe${endpointId.slice(0, 11)}`;
/** The container's end before Docker has moved and renamed it. */
export const endpointPeerLink = (endpointId: string): string => `cwt${endpointId.slice(0, 11)}`;
/** The host's end of a domain's uplink. */
export const uplinkLink = (networkId: string): string => `cwu${networkId.slice(0, 11)}`;
/** Whether the link leads to a container, or to the domain of containers. */
export const isContainers = (link: string): boolean => link.startsWith('cwe') || link.startsWith('cwu');
export const vxlanLink = (vni: number): string => `cwx${vni}`;
/** The one for IPv6 alone, beside hosts of flannel. */
export const vxlanLink6 = (vni: number): string => `cwx${vni}v6`;
export const wireguardLink = (vni: number): string => `cww${vni}`;

/** A stable MAC for an endpoint from its first address, so a restarted container with the same address keeps it. */
export const endpointMac = (ip: Ip): Mac => {
  const low = ipToBigint(ip) & 0xffff_ffffn;
  return `0a:63:${[24n, 16n, 8n, 0n].map((shift) => ((low >> shift) & 255n).toString(16).padStart(2, '0')).join(':')}` as Mac;
};

/** In whose name a host asks for neighbours by IPv6 with the MAC of that address, in a subnet that it is not in: its own on that link. */
export const askingName = (asker: Ip): Ip => linkLocalOf(endpointMac(asker));

/**
 * Label of a network for which one host's engine chooses addresses by itself, upwards from the start of the pool (Docker's own
 * IPAM): its value is that host. All others claim their blocks from the far end, so that they stay out of each other's way.
 */
export const ipamHostLabel = 'causeway.ipam-host';
