// The wire form of DNS (RFC 1035, EDNS0 RFC 6891) as far as a server needs it that answers for names of its own and hands
// everything else on as bytes: questions are read, never rewritten, so that letter case and unusual labels survive. Input
// is hostile: whatever the bytes, nothing here throws.
import { familyOf, type Ip, ipToBigint } from '#model/ip.ts';

export const recordType = { A: 1, PTR: 12, AAAA: 28, OPT: 41, ANY: 255 } as const;
export const rcode = { ok: 0, formatError: 1, serverFailure: 2, noSuchName: 3, notImplemented: 4, refused: 5 } as const;
export type Rcode = (typeof rcode)[keyof typeof rcode];
const badVersion = 16;
const classIn = 1;
const classAny = 255;
const headerBytes = 12;
/** What a client without EDNS can take, and what we say and use with it (no fragments on any sane path). */
const plainBytes = 512;
export const ednsBytes = 1232;
const flag = { response: 0x8000, authoritative: 0x0400, truncated: 0x0200, recursionDesired: 0x0100, recursionAvailable: 0x0080 };

export interface Question {
  readonly id: number;
  /** Lower case, labels joined by dots, no dot at the end; '' is the root. */
  readonly name: string;
  readonly labels: number;
  readonly type: number;
  /** The class is Internet (or any). */
  readonly isInternet: boolean;
  readonly wantsRecursion: boolean;
  /** The question section as it came. */
  readonly bytes: Buffer;
  /** Bytes of UDP payload that the client takes; undefined without EDNS. */
  readonly edns: { readonly bytes: number } | undefined;
}

/** `answer`: a whole reply to send back at once; `ignore`: not a question at all, answering could start a loop. */
export type Reading =
  | { readonly kind: 'question'; readonly question: Question }
  | { readonly kind: 'answer'; readonly reply: Buffer }
  | { readonly kind: 'ignore' };

export interface AnswerRecord {
  readonly type: number;
  readonly data: Buffer;
}

interface Name {
  readonly text: string;
  readonly labels: number;
  readonly end: number;
}

/** A name without compression: a question is the first name of its packet, so there is nothing to point to. */
function readName(packet: Buffer, start: number): Name | undefined {
  const labels: string[] = [];
  let offset = start;
  for (;;) {
    const length = packet[offset];
    if (length === undefined || length > 63 || offset - start + length >= 255) return undefined;
    offset++;
    if (length === 0) return { text: labels.join('.').toLowerCase(), labels: labels.length, end: offset };
    if (offset + length > packet.length) return undefined;
    // A dot inside a label must not look like two labels.
    labels.push(packet.toString('latin1', offset, offset + length).replaceAll('.', '\\.'));
    offset += length;
  }
}

function skipName(packet: Buffer, start: number): number | undefined {
  for (let offset = start; ;) {
    const length = packet[offset];
    if (length === undefined) return undefined;
    if (length === 0) return offset + 1;
    if (length >= 0xc0) return offset + 2;
    if (length > 63) return undefined;
    offset += length + 1;
  }
}

interface Edns {
  readonly bytes: number;
  readonly version: number;
}

/** The OPT record among `count` records from `start`; 'broken' when they do not parse or there are two. */
function readEdns(packet: Buffer, start: number, count: number): Edns | undefined | 'broken' {
  let edns: Edns | undefined;
  let offset = start;
  for (let index = 0; index < count; index++) {
    const end = skipName(packet, offset);
    if (end === undefined || end + 10 > packet.length) return 'broken';
    if (packet.readUInt16BE(end) === recordType.OPT) {
      if (edns !== undefined || end !== offset + 1) return 'broken';
      edns = { bytes: packet.readUInt16BE(end + 2), version: packet.readUInt8(end + 5) };
    }
    offset = end + 10 + packet.readUInt16BE(end + 8);
    if (offset > packet.length) return 'broken';
  }
  return edns;
}

const refuse = (packet: Buffer, code: Rcode): Reading => {
  const reply = Buffer.alloc(headerBytes);
  reply.writeUInt16BE(packet.readUInt16BE(0), 0);
  reply.writeUInt16BE(flag.response | (packet.readUInt16BE(2) & 0x7900) | code, 2);
  return { kind: 'answer', reply };
};

/** Reads a packet from a client. Never throws. */
export function readQuestion(packet: Buffer): Reading {
  if (packet.length < headerBytes) return { kind: 'ignore' };
  const flags = packet.readUInt16BE(2);
  if ((flags & flag.response) !== 0) return { kind: 'ignore' };
  if ((flags & 0x7800) !== 0) return refuse(packet, rcode.notImplemented);
  const name = packet.readUInt16BE(4) === 1 ? readName(packet, headerBytes) : undefined;
  if (name === undefined || name.end + 4 > packet.length) return refuse(packet, rcode.formatError);
  const rest = packet.readUInt16BE(6) + packet.readUInt16BE(8) + packet.readUInt16BE(10);
  const edns = readEdns(packet, name.end + 4, rest);
  if (edns === 'broken') return refuse(packet, rcode.formatError);
  const ednsClass = packet.readUInt16BE(name.end + 2);
  const question: Question = {
    id: packet.readUInt16BE(0),
    name: name.text,
    labels: name.labels,
    type: packet.readUInt16BE(name.end),
    isInternet: ednsClass === classIn || ednsClass === classAny,
    wantsRecursion: (flags & flag.recursionDesired) !== 0,
    bytes: packet.subarray(headerBytes, name.end + 4),
    edns: edns === undefined ? undefined : { bytes: edns.bytes },
  };
  if (edns !== undefined && edns.version > 0)
    return { kind: 'answer', reply: writeReply(question, { code: badVersion, records: [] }, plainBytes) };
  return { kind: 'question', question };
}

/** How many bytes a UDP answer to this question may have. */
export const udpLimit = (question: Question): number =>
  question.edns === undefined ? plainBytes : Math.min(Math.max(question.edns.bytes, plainBytes), ednsBytes);

export interface Reply {
  /** Codes above 15 need EDNS. */
  readonly code: number;
  readonly records: readonly AnswerRecord[];
  readonly isAuthoritative?: boolean;
  readonly ttlSeconds?: number;
}

/**
 * The reply to a question, all records owned by the name asked for. As many as fit into `limit` bytes; when some do not,
 * the reply says that it is truncated, so that the client comes again over TCP (limit 65,535).
 */
export function writeReply(question: Question, { code, records, isAuthoritative = false, ttlSeconds = 0 }: Reply, limit: number): Buffer {
  const optBytes = question.edns === undefined ? 0 : 11;
  let bytes = headerBytes + question.bytes.length + optBytes;
  let count = 0;
  for (const { data } of records) {
    if (bytes + 12 + data.length > limit) break;
    bytes += 12 + data.length;
    count++;
  }
  const reply = Buffer.alloc(bytes);
  const flags =
    flag.response |
    flag.recursionAvailable |
    (isAuthoritative ? flag.authoritative : 0) |
    (question.wantsRecursion ? flag.recursionDesired : 0) |
    (count < records.length ? flag.truncated : 0);
  reply.writeUInt16BE(question.id, 0);
  reply.writeUInt16BE(flags | (code & 15), 2);
  reply.writeUInt16BE(1, 4);
  reply.writeUInt16BE(count, 6);
  reply.writeUInt16BE(optBytes === 0 ? 0 : 1, 10);
  let offset = headerBytes + question.bytes.copy(reply, headerBytes);
  for (const { type, data } of records.slice(0, count)) {
    // The owner is a pointer to the name in the question.
    reply.writeUInt16BE(0xc000 | headerBytes, offset);
    reply.writeUInt16BE(type, offset + 2);
    reply.writeUInt16BE(classIn, offset + 4);
    reply.writeUInt32BE(ttlSeconds, offset + 6);
    reply.writeUInt16BE(data.length, offset + 10);
    offset += 12 + data.copy(reply, offset + 12);
  }
  if (optBytes > 0) {
    reply.writeUInt16BE(recordType.OPT, offset + 1);
    reply.writeUInt16BE(ednsBytes, offset + 3);
    reply.writeUInt8(code >> 4, offset + 5);
  }
  return reply;
}

/** Data of an A or AAAA record. */
export function addressRecord(ip: Ip): AnswerRecord {
  const isV6 = familyOf(ip) === 6;
  const hex = ipToBigint(ip).toString(16);
  return { type: isV6 ? recordType.AAAA : recordType.A, data: Buffer.from(hex.padStart(isV6 ? 32 : 8, '0'), 'hex') };
}

/** Data of a PTR record; undefined when `name` cannot be written as a domain name. */
export function nameRecord(name: string): AnswerRecord | undefined {
  const labels = name.split('.').map((label) => Buffer.from(label, 'latin1'));
  if (labels.some((label) => label.length === 0 || label.length > 63)) return undefined;
  const data = Buffer.concat([...labels.flatMap((label) => [Buffer.of(label.length), label]), Buffer.of(0)]);
  return data.length > 255 ? undefined : { type: recordType.PTR, data };
}

/** Whether `reply` answers the packet `query` (same id, same question whatever its letter case), so that it may be handed on. */
export function isReplyTo(reply: Buffer, query: Buffer, question: Question): boolean {
  const end = headerBytes + question.bytes.length;
  if (reply.length < end || reply.readUInt16BE(0) !== query.readUInt16BE(0)) return false;
  if ((reply.readUInt16BE(2) & flag.response) === 0 || reply.readUInt16BE(4) !== 1) return false;
  return reply.toString('latin1', headerBytes, end).toLowerCase() === question.bytes.toString('latin1').toLowerCase();
}

export const isTruncated = (reply: Buffer): boolean => (reply.readUInt16BE(2) & flag.truncated) !== 0;
export const codeOf = (reply: Buffer): number => reply.readUInt16BE(2) & 15;

/** The same packet under another id. */
export function withId(packet: Buffer, id: number): Buffer {
  const copy = Buffer.from(packet);
  copy.writeUInt16BE(id, 0);
  return copy;
}
