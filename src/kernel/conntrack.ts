// Connection tracking entries, deleted one by one where they match (linux/netfilter/nfnetlink_conntrack.h). Needed whenever
// a translation goes away: the kernel translates a connection as its first packet was, for as long as its entry lives, so
// without this a removed published port keeps answering, and a UDP client keeps reaching the endpoint of before.
import { readFileSync } from 'node:fs';
import type { Netns } from '#model/desired.ts';
import { Fault, isFault } from '#model/fault.ts';
import { type Family, familyOf, type Ip } from '#model/ip.ts';
import { netfilterSockets } from './netfilter.ts';
import { attribute, decodeAttributes, ipBytes, type Message, nested, readIp, u16be, u32, u8 } from './netlink/codec.ts';
import { NetlinkSocket, type Request } from './netlink/socket.ts';
import { AF_INET, AF_INET6, NETLINK_NETFILTER } from './netlink/uapi.ts';
import { inNetns, isAbsent } from './netns.ts';
import type { Sockets } from './sockets.ts';

/** Which entries; what is absent does not matter. The addresses of one selection are of one family. */
export interface ConntrackSelection {
  readonly protocol?: 'tcp' | 'udp' | 'sctp' | 'icmp' | undefined;
  /** Who sent the first packet. */
  readonly source?: Ip | undefined;
  /** Where the first packet was sent to, before any translation. */
  readonly destination?: Ip | undefined;
  readonly destinationPort?: number | undefined;
  /** Who answers: after a translation, the endpoint itself. */
  readonly replySource?: Ip | undefined;
  readonly replySourcePort?: number | undefined;
  /** Entries answered from one of these, `address . port`, are not meant. */
  readonly except?: ReadonlySet<string> | undefined;
}

// linux/netfilter/nfnetlink_conntrack.h; message types have the subsystem, 1, in their upper byte.
const IPCTNL_MSG_CT_GET = 0x101;
const IPCTNL_MSG_CT_DELETE = 0x102;
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_ID = 12;
const CTA_ZONE = 18;
const CTA_FILTER = 25;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_IP_V4_SRC = 1;
const CTA_IP_V4_DST = 2;
const CTA_IP_V6_SRC = 3;
const CTA_IP_V6_DST = 4;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_SRC_PORT = 2;
const CTA_PROTO_DST_PORT = 3;
const CTA_PROTO_ICMP_TYPE = 5;
const CTA_PROTO_ICMP_CODE = 6;
const CTA_PROTO_ICMPV6_TYPE = 8;
const CTA_PROTO_ICMPV6_CODE = 9;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_REPLY_FLAGS = 2;
// net/netfilter/nf_internals.h: which parts of a tuple the dump compares.
const CTA_FILTER_F_CTA_IP_SRC = 1;
const CTA_FILTER_F_CTA_IP_DST = 2;
const CTA_FILTER_F_CTA_PROTO_NUM = 8;
const CTA_FILTER_F_CTA_PROTO_SRC_PORT = 16;
const CTA_FILTER_F_CTA_PROTO_DST_PORT = 32;

const protocolNumbers = { tcp: 6, udp: 17, sctp: 132, icmp: 1 } as const;
const icmp6 = 58;

const header = (family: Family): Buffer => Buffer.of(family === 6 ? AF_INET6 : AF_INET, 0, 0, 0);

interface Tuple {
  readonly source: Ip | undefined;
  readonly destination: Ip | undefined;
  readonly protocol: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly icmp?: { readonly type: number; readonly code: number };
}

/** A tracked connection: who began it, and who answers after any translation. */
export interface Connection {
  readonly protocol: number;
  readonly source: Ip;
  readonly sourcePort: number;
  readonly destination: Ip;
  readonly destinationPort: number;
  /** Where the first packet was sent to, before any translation. */
  readonly asked: { readonly destination: Ip; readonly destinationPort: number };
  readonly icmp?: { readonly type: number; readonly code: number };
}

interface Entry {
  readonly family: Family;
  readonly original: Tuple;
  readonly reply: Tuple;
  /** What names this entry to the kernel. */
  readonly identity: Buffer;
}

function decodeTuple(bytes: Buffer): Tuple {
  const tuple = decodeAttributes(bytes);
  const ip = decodeAttributes(tuple.get(CTA_TUPLE_IP) ?? Buffer.alloc(0));
  const protocol = decodeAttributes(tuple.get(CTA_TUPLE_PROTO) ?? Buffer.alloc(0));
  return {
    ...icmpOf(protocol),
    source: readIp(ip.get(CTA_IP_V4_SRC) ?? ip.get(CTA_IP_V6_SRC)),
    destination: readIp(ip.get(CTA_IP_V4_DST) ?? ip.get(CTA_IP_V6_DST)),
    protocol: protocol.get(CTA_PROTO_NUM)?.[0] ?? 0,
    sourcePort: protocol.get(CTA_PROTO_SRC_PORT)?.readUInt16BE(0) ?? 0,
    destinationPort: protocol.get(CTA_PROTO_DST_PORT)?.readUInt16BE(0) ?? 0,
  };
}

function icmpOf(protocol: ReturnType<typeof decodeAttributes>): Pick<Tuple, 'icmp'> {
  const type = (protocol.get(CTA_PROTO_ICMP_TYPE) ?? protocol.get(CTA_PROTO_ICMPV6_TYPE))?.[0];
  const code = (protocol.get(CTA_PROTO_ICMP_CODE) ?? protocol.get(CTA_PROTO_ICMPV6_CODE))?.[0] ?? 0;
  return type === undefined ? {} : { icmp: { type, code } };
}

/** One entry from the body of a message about it. Pure. */
export function decodeEntry(body: Buffer): Entry {
  const attributes = decodeAttributes(body.subarray(4));
  const part = (type: number) => attributes.get(type) ?? Buffer.alloc(0);
  const identity = [CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE].flatMap((type) => {
    const value = attributes.get(type);
    return value === undefined ? [] : [type === CTA_TUPLE_ORIG ? nested(type, value) : attribute(type, value)];
  });
  return {
    family: body[0] === AF_INET6 ? 6 : 4,
    original: decodeTuple(part(CTA_TUPLE_ORIG)),
    reply: decodeTuple(part(CTA_TUPLE_REPLY)),
    identity: Buffer.concat(identity),
  };
}

const numberOf = (protocol: NonNullable<ConntrackSelection['protocol']>, family: Family): number =>
  protocol === 'icmp' && family === 6 ? icmp6 : protocolNumbers[protocol];

/** Pure. */
export function matches({ family, original, reply }: Entry, selection: ConntrackSelection): boolean {
  const { protocol, source, destination, destinationPort, replySource, replySourcePort, except } = selection;
  return (
    except?.has(`${reply.source} . ${reply.sourcePort}`) !== true &&
    (protocol === undefined || original.protocol === numberOf(protocol, family)) &&
    (source === undefined || original.source === source) &&
    (destination === undefined || original.destination === destination) &&
    (destinationPort === undefined || original.destinationPort === destinationPort) &&
    (replySource === undefined || reply.source === replySource) &&
    (replySourcePort === undefined || reply.sourcePort === replySourcePort)
  );
}

interface Half {
  readonly protocol: number | undefined;
  readonly ip: Ip | undefined;
  readonly port: number | undefined;
  readonly side: 'source' | 'destination';
}

/**
 * The kernel compares a port only together with its protocol's number. IPv6 addresses are left out: at least up to Linux
 * 6.18 it keeps the entries whose address differs (ctnetlink_filter_match_tuple), which matches() would then all drop.
 */
function encodeHalf(type: number, { protocol, ip, port, side }: Half): { readonly tuple: Buffer; readonly flags: number } {
  const [ipType, ipFlag, portType, portFlag] =
    side === 'source'
      ? [CTA_IP_V4_SRC, CTA_FILTER_F_CTA_IP_SRC, CTA_PROTO_SRC_PORT, CTA_FILTER_F_CTA_PROTO_SRC_PORT]
      : [CTA_IP_V4_DST, CTA_FILTER_F_CTA_IP_DST, CTA_PROTO_DST_PORT, CTA_FILTER_F_CTA_PROTO_DST_PORT];
  const parts: Buffer[] = [];
  let flags = 0;
  if (ip !== undefined && familyOf(ip) === 4) {
    parts.push(nested(CTA_TUPLE_IP, attribute(ipType, ipBytes(ip))));
    flags |= ipFlag;
  }
  if (protocol !== undefined) {
    parts.push(nested(CTA_TUPLE_PROTO, u8(CTA_PROTO_NUM, protocol), ...(port === undefined ? [] : [u16be(portType, port)])));
    flags |= CTA_FILTER_F_CTA_PROTO_NUM | (port === undefined ? 0 : portFlag);
  }
  return { tuple: flags === 0 ? Buffer.alloc(0) : nested(type, ...parts), flags };
}

/** Body of a dump that the kernel narrows down (Linux 5.8; an older one refuses or lists more). Pure. */
export function encodeDump(selection: ConntrackSelection, family: Family): Buffer {
  const protocol = selection.protocol === undefined ? undefined : numberOf(selection.protocol, family);
  const { source, destination, destinationPort } = selection;
  // One side is enough to narrow it down; matches() looks at both.
  const original = encodeHalf(
    CTA_TUPLE_ORIG,
    source === undefined
      ? { protocol, ip: destination, port: destinationPort, side: 'destination' }
      : { protocol, ip: source, port: undefined, side: 'source' },
  );
  const reply = encodeHalf(CTA_TUPLE_REPLY, { protocol, ip: selection.replySource, port: selection.replySourcePort, side: 'source' });
  return Buffer.concat([
    header(family),
    original.tuple,
    reply.tuple,
    nested(CTA_FILTER, u32(CTA_FILTER_ORIG_FLAGS, original.flags), u32(CTA_FILTER_REPLY_FLAGS, reply.flags)),
  ]);
}

function familiesOf({ source, destination, replySource }: ConntrackSelection): readonly Family[] {
  const ip = source ?? destination ?? replySource;
  return ip === undefined ? [4, 6] : [familyOf(ip)];
}

/**
 * Each selection costs the kernel a walk over its whole table, 40 ns a bucket also where there is nothing (10 ms with the usual 262,144).
 * One walk for all instead brings every entry here, which takes 75 times as long for each: cheaper unless the table is full.
 */
const bucketsPerEntry = 75;

const tableFact = (name: 'count' | 'buckets'): number => Number(readFileSync(`/proc/sys/net/netfilter/nf_conntrack_${name}`, 'utf8'));

/** Whether one walk for all of so many selections is cheaper than one for each, in the namespace that this is asked in. */
function areMany(selections: number): boolean {
  if (selections < 2) return false;
  try {
    return selections - 1 > (bucketsPerEntry * tableFact('count')) / tableFact('buckets');
  } catch {
    // Without /proc nothing is known but that few are few.
    return selections >= bucketsPerEntry;
  }
}

/** Whether any selection matches, in time that does not grow with their number: they are looked up by what they say. Pure. */
export function matcherOf(selections: readonly ConntrackSelection[]): (entry: Entry) => boolean {
  const fields = ['source', 'destination', 'destinationPort', 'replySource', 'replySourcePort'] as const;
  const shapes = new Map<string, { readonly used: readonly (typeof fields)[number][]; readonly of: Map<string, ConntrackSelection[]> }>();
  for (const selection of selections) {
    const used = fields.filter((name) => selection[name] !== undefined);
    const shape = shapes.get(used.join()) ?? { used, of: new Map<string, ConntrackSelection[]>() };
    shapes.set(used.join(), shape);
    const text = used.map((name) => selection[name]).join(' ');
    const others = shape.of.get(text);
    if (others === undefined) shape.of.set(text, [selection]);
    else others.push(selection);
  }
  return (entry) => {
    const { original, reply } = entry;
    const values = {
      source: original.source,
      destination: original.destination,
      destinationPort: original.destinationPort,
      replySource: reply.source,
      replySourcePort: reply.sourcePort,
    };
    return [...shapes.values()].some(({ used, of }) =>
      of.get(used.map((name) => values[name]).join(' '))?.some((selection) => matches(entry, selection)),
    );
  };
}

/** One walk of the kernel's over its table, in one family. */
interface Look {
  readonly narrow: Request;
  /** For a kernel that knows of no such question. */
  readonly wide: Request;
  readonly isMeant: (entry: Entry) => boolean;
}

const asking = (body: Buffer): Request => ({ type: IPCTNL_MSG_CT_GET, body, action: 'list connection tracking entries' });
const entriesOf = (messages: readonly Message[]): Entry[] => messages.map(({ body }) => decodeEntry(body));

function looksFor(selections: readonly ConntrackSelection[]): Look[] {
  const lookIn = (family: Family, filter: ConntrackSelection, isMeant: Look['isMeant']): Look => ({
    narrow: asking(encodeDump(filter, family)),
    wide: asking(header(family)),
    isMeant,
  });
  if (!areMany(selections.length)) {
    return selections.flatMap((selection) =>
      familiesOf(selection).map((family) => lookIn(family, selection, (entry) => matches(entry, selection))),
    );
  }
  const isMeant = matcherOf(selections);
  const protocols = new Map<Family, Set<ConntrackSelection['protocol']>>();
  for (const selection of selections) {
    for (const family of familiesOf(selection)) protocols.set(family, (protocols.get(family) ?? new Set()).add(selection.protocol));
  }
  return [...protocols].map(([family, of]) => lookIn(family, of.size === 1 ? { protocol: [...of][0] } : {}, isMeant));
}

const isUnheardOf = (error: unknown): boolean => isFault(error, 'kernel') && (error.errno === 'EINVAL' || error.errno === 'EOPNOTSUPP');

function find(socket: NetlinkSocket, { narrow, wide, isMeant }: Look): Entry[] {
  try {
    return entriesOf(socket.dump(narrow)).filter(isMeant);
  } catch (error) {
    if (!isUnheardOf(error)) throw error;
    return entriesOf(socket.dump(wide)).filter(isMeant);
  }
}

async function findAside(socket: NetlinkSocket, { narrow, wide, isMeant }: Look): Promise<Entry[]> {
  try {
    return entriesOf(await socket.dumpAside(narrow)).filter(isMeant);
  } catch (error) {
    if (!isUnheardOf(error)) throw error;
    return entriesOf(await socket.dumpAside(wide)).filter(isMeant);
  }
}

/** Each once; how many there were. */
function drop(socket: NetlinkSocket, found: readonly Entry[]): number {
  const entries = new Map(found.map((entry) => [entry.identity.toString('hex'), entry]));
  const requests = [...entries.values()].map(({ family, identity }): Request => ({
    type: IPCTNL_MSG_CT_DELETE,
    body: Buffer.concat([header(family), identity]),
    action: 'delete a connection tracking entry',
  }));
  const outcomes = socket.batch(requests);
  const refused = outcomes.find(({ fault }) => fault !== undefined && !isAbsent(fault));
  if (refused?.fault !== undefined) throw refused.fault;
  return outcomes.filter(({ fault }) => fault === undefined).length;
}

/**
 * Deletes every tracked connection of the namespace that one of the selections matches, and says how many there were. An
 * absent namespace has none. Fault `kernel`; Fault `invalid` for a selection that would match everything.
 */
export function flushConntrack(sockets: Sockets, netns: Netns, selections: readonly ConntrackSelection[]): number {
  checkSelections(selections);
  let count = 0;
  const work = () => {
    count = netfilterSockets.use((socket) => {
      const found = looksFor(selections).flatMap((look) => find(socket, look));
      return drop(socket, found);
    });
  };
  if (selections.length === 0) return 0;
  try {
    inNetns(sockets.path(netns), work);
  } catch (error) {
    if (!isAbsent(error)) throw error;
  }
  return count;
}

/** The same for the host's own namespace, where nobody waits for it: a thread of libuv's pool is kept while the kernel looks. */
export async function flushConntrackAside(selections: readonly ConntrackSelection[]): Promise<number> {
  checkSelections(selections);
  const socket = new NetlinkSocket(NETLINK_NETFILTER);
  try {
    let found: Entry[] = [];
    for (const look of looksFor(selections)) found = found.concat(await findAside(socket, look));
    return drop(socket, found);
  } finally {
    socket.closeAside();
  }
}

function checkSelections(selections: readonly ConntrackSelection[]): void {
  for (const selection of selections) {
    if (Object.values(selection).every((value) => value === undefined))
      throw new Fault('invalid', 'Cannot flush connection tracking: nothing is selected');
  }
}

function connectionOf({ original, reply }: Entry): Connection | undefined {
  const { source, protocol, sourcePort, icmp } = original;
  const destination = reply.source;
  if (source === undefined || destination === undefined || original.destination === undefined) return undefined;
  const asked = { destination: original.destination, destinationPort: original.destinationPort };
  return { protocol, source, sourcePort, destination, destinationPort: reply.sourcePort, asked, ...(icmp === undefined ? {} : { icmp }) };
}

/** Deletes the host's own tracked connections for which `isForbidden` says so, and says how many there were. Fault `kernel`. */
export function cutConnections(isForbidden: (connection: Connection) => boolean): number {
  return netfilterSockets.use((socket) => {
    const entries = ([4, 6] as const).flatMap((family) => entriesOf(socket.dump(asking(header(family)))));
    return drop(
      socket,
      entries.filter((entry) => {
        const connection = connectionOf(entry);
        return connection !== undefined && isForbidden(connection);
      }),
    );
  });
}
