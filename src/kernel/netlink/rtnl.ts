// The four message families of rtnetlink(7) that Causeway speaks: links, addresses, routes, neighbours (and forwarding
// entries, which are neighbours of family AF_BRIDGE). Pure: encoders give a request body, decoders read one message body.
import { type Cidr, cidrBase, cidrLength, familyOf, type Family, type Ip, type Mac } from '#model/ip.ts';
import {
  attributeList,
  attribute,
  decodeAttributes,
  ipAttribute,
  macAttribute,
  nested,
  readIp,
  readMac,
  readText,
  readU32,
  text,
  u16be,
  u32,
  u8,
} from './codec.ts';
import * as uapi from './uapi.ts';

export const afOf = (family: Family): number => (family === 6 ? uapi.AF_INET6 : uapi.AF_INET);

function linkHeader(index: number, flags: number, change: number): Buffer {
  const header = Buffer.alloc(16);
  header.writeInt32LE(index, 4);
  header.writeUInt32LE(flags, 8);
  header.writeUInt32LE(change, 12);
  return header;
}

/** Request body for RTM_NEWLINK, RTM_SETLINK, RTM_DELLINK, RTM_GETLINK about a link known by index or, with 0, by name. */
export interface LinkChange {
  readonly index?: number;
  readonly name?: string;
  readonly mtu?: number;
  readonly mac?: Mac;
  readonly alias?: string;
  readonly group?: number;
  readonly up?: boolean;
  /** Whether frames for other MACs are taken in, too. */
  readonly isPromiscuous?: boolean;
  /** Descriptor of the namespace the link is created in. */
  readonly netnsFd?: number;
  readonly info?: Buffer;
}

const flag = (bit: number, wanted: boolean | undefined): number => (wanted === undefined ? 0 : bit);

export function encodeLink(change: LinkChange): Buffer {
  const set = flag(uapi.IFF_UP, change.up || undefined) | flag(uapi.IFF_PROMISC, change.isPromiscuous || undefined);
  const changed = flag(uapi.IFF_UP, change.up) | flag(uapi.IFF_PROMISC, change.isPromiscuous);
  const parts = [linkHeader(change.index ?? 0, set, changed)];
  if (change.name !== undefined) parts.push(text(uapi.IFLA_IFNAME, change.name));
  if (change.mtu !== undefined) parts.push(u32(uapi.IFLA_MTU, change.mtu));
  if (change.mac !== undefined) parts.push(macAttribute(uapi.IFLA_ADDRESS, change.mac));
  if (change.group !== undefined) parts.push(u32(uapi.IFLA_GROUP, change.group));
  if (change.netnsFd !== undefined) parts.push(u32(uapi.IFLA_NET_NS_FD, change.netnsFd));
  if (change.alias !== undefined) parts.push(attribute(uapi.IFLA_IFALIAS, Buffer.from(change.alias)));
  if (change.info !== undefined) parts.push(change.info);
  return Buffer.concat(parts);
}

/** Body of RTM_GETLINK for one link by name, or for all of them; without counters. */
export function encodeLinkQuery(name?: string): Buffer {
  const mask = u32(uapi.IFLA_EXT_MASK, uapi.RTEXT_FILTER_SKIP_STATS);
  return Buffer.concat([linkHeader(0, 0, 0), mask, name === undefined ? Buffer.alloc(0) : text(uapi.IFLA_IFNAME, name)]);
}

/** IFLA_LINKINFO of a link that has nothing to say but its kind. */
export const plainInfo = (kind: string): Buffer => nested(uapi.IFLA_LINKINFO, text(uapi.IFLA_INFO_KIND, kind));

/** IFLA_LINKINFO of a veth: the far end is described like a link of its own. */
export const vethInfo = (peer: LinkChange): Buffer =>
  nested(
    uapi.IFLA_LINKINFO,
    text(uapi.IFLA_INFO_KIND, 'veth'),
    nested(uapi.IFLA_INFO_DATA, attribute(uapi.VETH_INFO_PEER, encodeLink(peer))),
  );

export interface Vxlan {
  readonly vni: number;
  readonly port: number;
  readonly local: Ip | undefined;
  readonly checksum: boolean;
  readonly learning: boolean;
}

/** IFLA_LINKINFO of a vxlan. With an IPv6 underlay, datagrams without a checksum are sent only if `checksum` is false, and never accepted. */
export const vxlanInfo = (vxlan: Vxlan & { readonly local: Ip }): Buffer =>
  nested(
    uapi.IFLA_LINKINFO,
    text(uapi.IFLA_INFO_KIND, 'vxlan'),
    nested(
      uapi.IFLA_INFO_DATA,
      u32(uapi.IFLA_VXLAN_ID, vxlan.vni),
      u16be(uapi.IFLA_VXLAN_PORT, vxlan.port),
      ipAttribute(familyOf(vxlan.local) === 6 ? uapi.IFLA_VXLAN_LOCAL6 : uapi.IFLA_VXLAN_LOCAL, vxlan.local),
      u8(uapi.IFLA_VXLAN_LEARNING, vxlan.learning ? 1 : 0),
      u8(uapi.IFLA_VXLAN_UDP_CSUM, vxlan.checksum ? 1 : 0),
      u8(uapi.IFLA_VXLAN_UDP_ZERO_CSUM6_TX, 0),
      u8(uapi.IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 0),
    ),
  );

export interface FoundLink {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly mac: Mac;
  readonly alias: string;
  readonly up: boolean;
  readonly isPromiscuous: boolean;
  /** Whether the far end is up too. */
  readonly carrier: boolean;
  /** `veth`, `vxlan`, …; empty for `lo` and real devices. */
  readonly kind: string;
  readonly vxlan?: Vxlan;
}

export function decodeLink(body: Buffer): FoundLink {
  const attributes = decodeAttributes(body.subarray(16));
  const flags = body.readUInt32LE(8);
  const info = decodeAttributes(attributes.get(uapi.IFLA_LINKINFO));
  const kind = readText(info.get(uapi.IFLA_INFO_KIND));
  const link = {
    index: body.readInt32LE(4),
    name: readText(attributes.get(uapi.IFLA_IFNAME)),
    mtu: readU32(attributes.get(uapi.IFLA_MTU)),
    mac: readMac(attributes.get(uapi.IFLA_ADDRESS)),
    alias: readText(attributes.get(uapi.IFLA_IFALIAS)),
    up: (flags & uapi.IFF_UP) !== 0,
    isPromiscuous: (flags & uapi.IFF_PROMISC) !== 0,
    carrier: (flags & uapi.IFF_LOWER_UP) !== 0,
    kind,
  };
  return kind === 'vxlan' ? { ...link, vxlan: decodeVxlan(info.get(uapi.IFLA_INFO_DATA)) } : link;
}

function decodeVxlan(bytes: Buffer | undefined): Vxlan {
  const attributes = decodeAttributes(bytes);
  const local = readIp(attributes.get(uapi.IFLA_VXLAN_LOCAL) ?? attributes.get(uapi.IFLA_VXLAN_LOCAL6));
  const port = attributes.get(uapi.IFLA_VXLAN_PORT);
  return {
    vni: readU32(attributes.get(uapi.IFLA_VXLAN_ID)),
    port: port === undefined ? 0 : port.readUInt16BE(0),
    local,
    checksum: (attributes.get(uapi.IFLA_VXLAN_UDP_CSUM)?.[0] ?? 0) !== 0,
    learning: (attributes.get(uapi.IFLA_VXLAN_LEARNING)?.[0] ?? 0) !== 0,
  };
}

export interface AddressMessage {
  readonly index: number;
  readonly ip: Ip;
  readonly length: number;
  /** IFA_PROTO; 0 when absent. */
  readonly protocol: number;
  readonly flags: number;
  /** Preferred for no time at all: nobody begins connections from it. Only told to the kernel. */
  readonly isDeprecated?: boolean;
}

export function encodeAddress(address: AddressMessage): Buffer {
  const header = Buffer.alloc(8);
  header[0] = afOf(familyOf(address.ip));
  header[1] = address.length;
  header.writeUInt32LE(address.index, 4);
  return Buffer.concat([
    header,
    ipAttribute(uapi.IFA_LOCAL, address.ip),
    ipAttribute(uapi.IFA_ADDRESS, address.ip),
    u32(uapi.IFA_FLAGS, address.flags),
    u8(uapi.IFA_PROTO, address.protocol),
    ...(address.isDeprecated === true ? [attribute(uapi.IFA_CACHEINFO, preferredNever)] : []),
  ]);
}

/** struct ifa_cacheinfo: preferred for 0 seconds, valid for ever, and two stamps that the kernel writes. */
const preferredNever = Buffer.from('00000000ffffffff0000000000000000', 'hex');

/** ifaddrmsg of a dump of both families. */
export const encodeAddressDump = (): Buffer => Buffer.alloc(8);

/** Undefined for families other than IP. */
export function decodeAddress(body: Buffer): AddressMessage | undefined {
  const attributes = decodeAttributes(body.subarray(8));
  const ip = readIp(attributes.get(uapi.IFA_LOCAL) ?? attributes.get(uapi.IFA_ADDRESS));
  if (ip === undefined) return undefined;
  const flags = attributes.get(uapi.IFA_FLAGS);
  return {
    index: body.readUInt32LE(4),
    ip,
    length: body[1] ?? 0,
    protocol: attributes.get(uapi.IFA_PROTO)?.[0] ?? 0,
    flags: flags === undefined ? (body[2] ?? 0) : readU32(flags),
  };
}

export interface RouteMessage {
  readonly destination: Cidr;
  readonly index: number | undefined;
  readonly via: Ip | undefined;
  readonly onlink: boolean;
  /** RTN_* */
  readonly type: number;
  readonly protocol: number;
  readonly mtu: number | undefined;
  readonly source: Ip | undefined;
  readonly table: number;
  readonly flags: number;
  /** RTA_PRIORITY; 0 when absent. */
  readonly metric: number;
}

/** The header has room for small numbers only; others are in an attribute, which goes before it. */
const shortTable = (table: number): number => (table > 255 ? 0 : table);
const longTable = (type: number, table: number | undefined): Buffer[] => (table === undefined || table <= 255 ? [] : [u32(type, table)]);

function routeHeader(
  family: number,
  fields: { length?: number; protocol?: number; scope?: number; type?: number; flags?: number; table?: number | undefined },
): Buffer {
  const header = Buffer.alloc(12);
  header[0] = family;
  header[1] = fields.length ?? 0;
  header[4] = shortTable(fields.table ?? uapi.RT_TABLE_MAIN);
  header[5] = fields.protocol ?? 0;
  header[6] = fields.scope ?? 0;
  header[7] = fields.type ?? 0;
  header.writeUInt32LE(fields.flags ?? 0, 8);
  return header;
}

export interface RouteChange {
  readonly destination: Cidr;
  readonly protocol: number;
  /** RTN_*; absent, with RTM_DELROUTE, means any. */
  readonly type?: number | undefined;
  readonly index?: number | undefined;
  readonly via?: Ip | undefined;
  readonly onlink?: boolean | undefined;
  readonly mtu?: number | undefined;
  readonly source?: Ip | undefined;
  /** Absent: the family's usual one; with RTM_DELROUTE any. */
  readonly metric?: number | undefined;
  /** Absent: the main one. */
  readonly table?: number | undefined;
}

/** IPv4 distinguishes what is on the link itself from what is behind a next hop; IPv6 has no such scopes. */
function scopeOf(route: RouteChange): number {
  if (familyOf(route.destination) === 6) return uapi.RT_SCOPE_UNIVERSE;
  if (route.type === undefined) return uapi.RT_SCOPE_NOWHERE;
  return route.via === undefined && route.type === uapi.RTN_UNICAST ? uapi.RT_SCOPE_LINK : uapi.RT_SCOPE_UNIVERSE;
}

/** Request body for RTM_NEWROUTE and RTM_DELROUTE. */
export function encodeRoute(route: RouteChange): Buffer {
  const family = familyOf(route.destination);
  const parts = [
    routeHeader(afOf(family), {
      length: cidrLength(route.destination),
      protocol: route.protocol,
      scope: scopeOf(route),
      type: route.type ?? 0,
      flags: route.onlink === true ? uapi.RTNH_F_ONLINK : 0,
      table: route.table,
    }),
    ipAttribute(uapi.RTA_DST, cidrBase(route.destination)),
    ...longTable(uapi.RTA_TABLE, route.table),
  ];
  if (route.via !== undefined) parts.push(nextHop(family, route.via));
  if (route.index !== undefined) parts.push(u32(uapi.RTA_OIF, route.index));
  if (route.source !== undefined) parts.push(ipAttribute(uapi.RTA_PREFSRC, route.source));
  if (route.metric !== undefined) parts.push(u32(uapi.RTA_PRIORITY, route.metric));
  if (route.mtu !== undefined) parts.push(nested(uapi.RTA_METRICS, u32(uapi.RTAX_MTU, route.mtu)));
  return Buffer.concat(parts);
}

const whereTo = [uapi.RTA_DST, uapi.RTA_OIF, uapi.RTA_GATEWAY, uapi.RTA_VIA, uapi.RTA_MULTIPATH] as const;

/** Body of RTM_NEWROUTE for a route that leads where the dumped one leads, also over several next hops. */
export function encodeRouteCopy(dumped: Buffer, { protocol, metric }: { readonly protocol: number; readonly metric: number }): Buffer {
  const header = Buffer.from(dumped.subarray(0, 12));
  header[5] = protocol;
  header.writeUInt32LE(header.readUInt32LE(8) & uapi.RTNH_F_ONLINK, 8);
  const attributes = decodeAttributes(dumped.subarray(12));
  const kept = whereTo.flatMap((type) => {
    const value = attributes.get(type);
    return value === undefined ? [] : [attribute(type, value)];
  });
  return Buffer.concat([header, ...kept, u32(uapi.RTA_PRIORITY, metric)]);
}

/** An IPv4 destination may have an IPv6 next hop (RFC 5549), which needs an attribute of its own. */
function nextHop(family: Family, via: Ip): Buffer {
  const hop = ipAttribute(uapi.RTA_GATEWAY, via);
  if (familyOf(via) === family) return hop;
  return attribute(uapi.RTA_VIA, Buffer.concat([Buffer.of(afOf(familyOf(via)), 0), hop.subarray(4)]));
}

/** Body of a dump of one of one family's tables, only routes of `protocol`, filtered by the kernel (NETLINK_GET_STRICT_CHK). */
export const encodeRouteDump = (family: Family, protocol: number, table?: number): Buffer =>
  Buffer.concat([routeHeader(afOf(family), { protocol, table }), ...longTable(uapi.RTA_TABLE, table)]);

/** Which table is asked for a way: that of packets that come in by a link, or that have such a source, and all bits of the mark. */
export interface RuleMessage {
  readonly family: Family;
  /** Its place among the others. */
  readonly priority: number;
  readonly table: number;
  readonly link: string | undefined;
  readonly source: Cidr | undefined;
  readonly mark?: number;
  readonly protocol: number;
}

/** Request body for RTM_NEWRULE and RTM_DELRULE (struct fib_rule_hdr, linux/fib_rules.h). */
export function encodeRule({ family, priority, table, link, source, mark, protocol }: RuleMessage): Buffer {
  const header = Buffer.alloc(12);
  header[0] = afOf(family);
  header[2] = source === undefined ? 0 : cidrLength(source);
  header[4] = shortTable(table);
  header[7] = uapi.FR_ACT_TO_TBL;
  return Buffer.concat([
    header,
    u32(uapi.FRA_PRIORITY, priority),
    u8(uapi.FRA_PROTOCOL, protocol),
    ...(link === undefined ? [] : [text(uapi.FRA_IIFNAME, link)]),
    ...(source === undefined ? [] : [ipAttribute(uapi.FRA_SRC, cidrBase(source))]),
    ...(mark === undefined ? [] : [u32(uapi.FRA_FWMARK, mark), u32(uapi.FRA_FWMASK, mark)]),
    ...longTable(uapi.FRA_TABLE, table),
  ]);
}

export interface FoundRule extends RuleMessage {
  /** It goes by something else as well, or does something else than to lead to a table. */
  readonly isOfMore: boolean;
}

const ruleParts = new Set([
  uapi.FRA_SRC,
  uapi.FRA_IIFNAME,
  uapi.FRA_PRIORITY,
  uapi.FRA_FWMARK,
  uapi.FRA_SUPPRESS_PREFIXLEN,
  uapi.FRA_TABLE,
  uapi.FRA_FWMASK,
  uapi.FRA_PROTOCOL,
]);
const noPrefix = 0xffff_ffff;

/** The header has the destination's length, the type of service, the action and flags. A mask alone goes by marks of 0. */
function isOfMore(body: Buffer): boolean {
  const parts = new Map(attributeList(body.subarray(12)));
  const isPlain = body[1] === 0 && body[3] === 0 && body[7] === uapi.FR_ACT_TO_TBL && (body.readUInt32LE(8) & uapi.FIB_RULE_INVERT) === 0;
  const isOfMark0 = parts.has(uapi.FRA_FWMASK) && !parts.has(uapi.FRA_FWMARK);
  const suppressed = parts.get(uapi.FRA_SUPPRESS_PREFIXLEN)?.readUInt32LE(0) ?? noPrefix;
  return !isPlain || isOfMark0 || suppressed !== noPrefix || [...parts.keys()].some((type) => !ruleParts.has(type));
}

/** Body of a dump of the rules of all families. */
export const encodeRuleDump = (): Buffer => Buffer.alloc(12);

/** Of a family that is neither IPv4 nor IPv6 the source means nothing. */
export function decodeRule(body: Buffer): FoundRule {
  const attributes = decodeAttributes(body.subarray(12));
  const source = readIp(attributes.get(uapi.FRA_SRC));
  const link = attributes.get(uapi.FRA_IIFNAME);
  const table = attributes.get(uapi.FRA_TABLE);
  const mark = attributes.get(uapi.FRA_FWMARK);
  return {
    family: body[0] === uapi.AF_INET6 ? 6 : 4,
    priority: readU32(attributes.get(uapi.FRA_PRIORITY)),
    table: table === undefined ? (body[4] ?? 0) : readU32(table),
    link: link === undefined ? undefined : readText(link),
    source: source === undefined ? undefined : (`${source}/${body[2] ?? 0}` as Cidr),
    ...(mark === undefined ? {} : { mark: readU32(mark) }),
    protocol: attributes.get(uapi.FRA_PROTOCOL)?.[0] ?? 0,
    isOfMore: isOfMore(body),
  };
}

export function decodeRoute(body: Buffer): RouteMessage {
  const attributes = decodeAttributes(body.subarray(12));
  const six = body[0] === uapi.AF_INET6;
  const base = readIp(attributes.get(uapi.RTA_DST)) ?? (six ? '::' : '0.0.0.0');
  const index = attributes.get(uapi.RTA_OIF);
  const via = attributes.get(uapi.RTA_VIA);
  const mtu = decodeAttributes(attributes.get(uapi.RTA_METRICS)).get(uapi.RTAX_MTU);
  const table = attributes.get(uapi.RTA_TABLE);
  const flags = body.readUInt32LE(8);
  return {
    destination: `${base}/${body[1] ?? 0}` as Cidr,
    index: index === undefined ? undefined : readU32(index),
    via: readIp(attributes.get(uapi.RTA_GATEWAY) ?? via?.subarray(2)),
    onlink: (flags & uapi.RTNH_F_ONLINK) !== 0,
    type: body[7] ?? 0,
    protocol: body[5] ?? 0,
    mtu: mtu === undefined ? undefined : readU32(mtu),
    source: readIp(attributes.get(uapi.RTA_PREFSRC)),
    table: table === undefined ? (body[4] ?? 0) : readU32(table),
    flags,
    metric: readU32(attributes.get(uapi.RTA_PRIORITY)),
  };
}

export interface NeighMessage {
  /** AF_INET, AF_INET6, or AF_BRIDGE for a forwarding entry. */
  readonly family: number;
  readonly index: number;
  readonly state: number;
  readonly flags: number;
  readonly ip: Ip | undefined;
  readonly mac: Mac | undefined;
  /** NDA_PROTOCOL: who made the entry. */
  readonly protocol?: number;
}

/** Request body for RTM_NEWNEIGH and RTM_DELNEIGH. */
export function encodeNeigh(neigh: NeighMessage): Buffer {
  const parts = [neighHeader(neigh.family)];
  parts[0]?.writeInt32LE(neigh.index, 4);
  parts[0]?.writeUInt16LE(neigh.state, 8);
  parts[0]?.writeUInt8(neigh.flags, 10);
  if (neigh.ip !== undefined) parts.push(ipAttribute(uapi.NDA_DST, neigh.ip));
  if (neigh.mac !== undefined) parts.push(macAttribute(uapi.NDA_LLADDR, neigh.mac));
  if (neigh.protocol !== undefined) parts.push(u8(uapi.NDA_PROTOCOL, neigh.protocol));
  return Buffer.concat(parts);
}

function neighHeader(family: number): Buffer {
  const header = Buffer.alloc(12);
  header[0] = family;
  return header;
}

/** Body of a dump of all neighbours (AF_UNSPEC) or of all forwarding entries (AF_BRIDGE); with NTF_PROXY of those answered for. */
export function encodeNeighDump(family: number, flags = 0): Buffer {
  const header = neighHeader(family);
  header.writeUInt8(flags, 10);
  return header;
}

/** ndm_state alone: most neighbours are the kernel's own and are not worth more. */
export const neighState = (body: Buffer): number => body.readUInt16LE(8);

export function decodeNeigh(body: Buffer): NeighMessage {
  const attributes = decodeAttributes(body.subarray(12));
  const mac = attributes.get(uapi.NDA_LLADDR);
  const protocol = attributes.get(uapi.NDA_PROTOCOL)?.[0];
  return {
    family: body[0] ?? 0,
    index: body.readInt32LE(4),
    state: neighState(body),
    flags: body[10] ?? 0,
    ip: readIp(attributes.get(uapi.NDA_DST)),
    mac: mac?.length === 6 ? readMac(mac) : undefined,
    ...(protocol === undefined ? {} : { protocol }),
  };
}
