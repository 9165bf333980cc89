// Desired kernel state as plain data: what plan() returns, what each kernel Kind lists, adds and removes. Every item says
// in which network namespace it lives, so one plan covers the host and all of its domains.
import type { Cidr, Family, Ip, Mac } from './ip.ts';

/** '' is the host's own namespace; `cw-…` a domain below /run/netns; an absolute path a container's sandbox. */
export type Netns = string;

/** A domain: a named network namespace of ours. */
export interface NetnsItem {
  readonly name: string;
}

interface LinkShape {
  readonly netns: Netns;
  readonly name: string;
  readonly mtu: number;
  readonly mac: Mac;
  /** IFLA_IFALIAS, at most 255 bytes; begins with `causeway ` so that the owner can be told from the link alone. */
  readonly alias: string;
}

/** One end of a veth pair, the end that stays ours. The far end is created along with it and then no longer looked at. */
export interface VethLink extends LinkShape {
  readonly type: 'veth';
  readonly peer: { readonly netns: Netns; readonly name: string; readonly mac: Mac; readonly mtu: number; readonly up: boolean };
}

/** Created from the host's namespace, so its UDP socket stays on the underlay, then moved to `netns`. No learning. */
export interface VxlanLink extends LinkShape {
  readonly type: 'vxlan';
  readonly vni: number;
  readonly port: number;
  /** Source address of outer packets. */
  readonly local: Ip;
  /** Whether outer UDP checksums are computed (always for IPv6 outer). */
  readonly checksum: boolean;
  /** A link of another system that is the same tunnel: it is taken over with what hangs on it, instead of making a new one. */
  readonly adopts?: string;
}

/** A wireguard device: of the kernel where it can, otherwise a wireguard-go process of the agent. */
export interface WireguardLink {
  readonly type: 'wireguard';
  readonly netns: Netns;
  readonly name: string;
  readonly mtu: number;
  readonly alias: string;
}

export type Link = VethLink | VxlanLink | WireguardLink;

export interface Addr {
  readonly netns: Netns;
  readonly link: string;
  /** With prefix length; host bits may be set. */
  readonly address: string;
}

export interface Route {
  readonly netns: Netns;
  readonly destination: Cidr;
  readonly via?: Ip;
  readonly link?: string;
  /** The next hop counts as on-link although no prefix covers it. */
  readonly onlink: boolean;
  readonly type: 'unicast' | 'unreachable' | 'blackhole';
  readonly mtu?: number;
  /** Preferred source address. */
  readonly source?: Ip;
}

/** A permanent neighbour entry. */
export interface Neigh {
  readonly netns: Netns;
  readonly link: string;
  readonly ip: Ip;
  readonly mac: Mac;
}

/** An address that is not the host's own and that it answers for on a link of its own. */
export interface Proxy {
  readonly netns: Netns;
  readonly link: string;
  readonly ip: Ip;
}

/** Addresses in the order of their VLANs: the block's first has `vlan`. */
export interface TaggedBlock {
  readonly cidr: Cidr;
  readonly vlan: number;
}

/**
 * What a link of the host's own carries in VLANs: packets with addresses of these blocks, each address in one of its own and with the
 * MAC that follows from it (endpointMac). Also between two addresses of the same host.
 */
export interface Trunk {
  readonly netns: Netns;
  readonly link: string;
  readonly blocks: readonly TaggedBlock[];
  /** Of the subnets that the link itself is in, one a family; by them those of that subnet reach the ones outside. Absent: none. */
  readonly gateways?: readonly Ip[];
  /** Subnets of blocks that the link itself is not in. Absent: none. */
  readonly outside?: readonly OutsideSubnet[];
}

/** Packets with its addresses reach its own neighbours and its own gateway by the link, and nothing that the link is in. */
export interface OutsideSubnet {
  readonly subnet: Cidr;
  readonly gateway?: Ip;
  /** Address of one of the blocks, in whose name neighbours are asked where they are. */
  readonly asker: Ip;
  /** Ranges to which the host knows the way itself. */
  readonly beside: readonly Cidr[];
}

/** A permanent forwarding entry of a vxlan link: packets for `mac` leave to `remote`. */
export interface Fdb {
  readonly netns: Netns;
  readonly link: string;
  readonly mac: Mac;
  readonly remote: Ip;
}

/** One file below /proc/sys of that namespace, `net/ipv4/ip_forward` = `1`. Never removed, only set. */
export interface Sysctl {
  readonly netns: Netns;
  readonly path: string;
  readonly value: string;
}

/**
 * One nft table of ours, rendered whole: `text` is the body between the braces of `table inet NAME { … }`, with sets and
 * maps declared but empty (their elements are NftElement items). Replaced in one transaction when `text` changes; the
 * elements are loaded again in the same transaction.
 */
export interface NftTable {
  readonly netns: Netns;
  readonly family: 'inet';
  readonly name: string;
  readonly text: string;
  /** With which it is loaded, for tables that must be whole from the first packet on. Absent: with those it has. */
  readonly elements?: readonly NftElement[];
  /** Of those it has, these have another value from now on, or are new: old ones may lead to what the new text does not have. */
  readonly renewed?: readonly NftElement[];
}

/**
 * One element of a set or map of such a table, in nft's own spelling: `1.2.3.4 . tcp . 80` and, for maps, its value. Or a row of a map whose
 * keys end with a number, which is there as a whole or is another: there may be a hundred thousand.
 */
export interface NftElement {
  readonly netns: Netns;
  readonly table: string;
  readonly set: string;
  readonly key: string;
  readonly value?: string;
  /** Of a row, whose elements have the key followed by ` . 0`, ` . 1`, …; where one that was found lacks a number, ''. */
  readonly values?: readonly string[];
}

/** The elements of a row; any other itself. */
export const singly = (element: NftElement): readonly NftElement[] =>
  element.values === undefined
    ? [element]
    : element.values.flatMap((value, index) => {
        const { netns, table, set, key } = element;
        return value === '' ? [] : [{ netns, table, set, key: `${key} . ${index}`, value }];
      });

export interface WireguardPeer {
  readonly publicKey: string;
  readonly endpoint: { readonly ip: Ip; readonly port: number };
  readonly allowed: readonly Cidr[];
}

/** Configuration of one wireguard link; the private key never enters a plan, the kernel kind takes it from the host. */
export interface WireguardConfig {
  readonly netns: Netns;
  readonly link: string;
  readonly port: number;
  readonly peers: readonly WireguardPeer[];
}

/** How the container's end must look once its sandbox is known; repaired when it is lost. */
export interface Attachment {
  readonly netns: Netns;
  readonly mac: Mac;
  readonly mtu: number;
  /** Host prefixes. */
  readonly addresses: readonly Cidr[];
  /** One fixed link-local gateway per family in use. */
  readonly gateways: readonly Ip[];
  /** The pair to make again when the link is gone: our end. */
  readonly host: { readonly netns: Netns; readonly name: string };
}

/**
 * A short cut at the entrance of a link, for packets between endpoints of one network that would only be routed: straight to
 * the other endpoint's link here, into the tunnel, or to another host. What it does not take goes the long way, which alone decides.
 */
export interface FastPath {
  readonly netns: Netns;
  readonly link: string;
  /** Pools of each network: both ends of every packet taken are in those of one. */
  readonly networks: readonly (readonly Cidr[])[];
  /** Whose link it is: only packets with this sender are taken. Absent on a tunnel's link and on the host's own. */
  readonly member?: { readonly mac: Mac; readonly addresses: readonly Ip[] };
  /**
   * MAC of the tunnel's link, by which the kernel's answer is recognised, and the largest packet that every remote host
   * takes. Absent: nothing is sent into a tunnel.
   */
  readonly tunnel?: { readonly mac: Mac; readonly mtu: number };
  /** The host's own links to other hosts, which plain routes may lead to, and the same. Absent: nothing leaves by them. */
  readonly outward?: { readonly links: readonly string[]; readonly mtu: number };
  /** One of the host's own links: only packets are taken whose answers would leave by it, as with rp_filter 1. */
  readonly strict?: true;
}

/** A limit on what goes to an endpoint, or comes from it, on our end of its link. */
export interface Shaper {
  readonly netns: Netns;
  readonly link: string;
  readonly direction: 'to' | 'from';
  /** Bytes per second. */
  readonly rate: number;
  /** Bytes that may go at once. */
  readonly burst: number;
}

/**
 * The host's BGP speaker, a BIRD process: its configuration, and the passwords that it includes. Always of the host itself.
 * What it learns it writes into the kernel by itself.
 */
export interface BirdConfig {
  readonly netns: Netns;
  readonly text: string;
  /** Never shown. */
  readonly secrets: string;
}

/** Everything the kernel of one host must hold; one array per Kind, in the order in which kinds are applied. */
/** Packets with that bit of the mark leave by another routing table than the main one; `priority`: its place among the host's rules. */
export interface WayRule {
  readonly netns: Netns;
  readonly family: Family;
  readonly mark: number;
  readonly table: number;
  readonly priority: number;
}

export interface Desired {
  readonly netns: readonly NetnsItem[];
  readonly rule: readonly WayRule[];
  readonly sysctl: readonly Sysctl[];
  readonly link: readonly Link[];
  readonly wireguard: readonly WireguardConfig[];
  readonly addr: readonly Addr[];
  readonly neigh: readonly Neigh[];
  readonly proxy: readonly Proxy[];
  readonly trunk: readonly Trunk[];
  readonly fdb: readonly Fdb[];
  readonly route: readonly Route[];
  readonly table: readonly NftTable[];
  readonly element: readonly NftElement[];
  readonly shaper: readonly Shaper[];
  readonly fast: readonly FastPath[];
  readonly bird: readonly BirdConfig[];
}
export type KindName = keyof Desired;

export const emptyDesired: Desired = {
  netns: [],
  rule: [],
  sysctl: [],
  link: [],
  wireguard: [],
  addr: [],
  neigh: [],
  proxy: [],
  trunk: [],
  fdb: [],
  route: [],
  table: [],
  element: [],
  shaper: [],
  fast: [],
  bird: [],
};

/** Families that a list of addresses uses, IPv4 first. */
export const familiesOf = (addresses: readonly string[]): readonly Family[] =>
  ([4, 6] as const).filter((family) => addresses.some((address) => address.includes(':') === (family === 6)));
