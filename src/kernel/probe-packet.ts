// The packets by which hosts try their ways to each other. A probe is a datagram like those of the network that is tried, to the
// same port, or a TCP segment that begins a connection; it is told from others by its IP identification (IPv4, RFC 791) or flow
// label (IPv6, RFC 6437), so that a socket filter of three instructions finds it. Its first eight bytes are zero, which neither VXLAN
// (RFC 7348: the I flag must be set) nor WireGuard (message types begin at 1) takes for theirs: the kernel drops what it may see
// of it. The other host's agent answers with both ends exchanged. A connection never comes to be: to whatever answers the first
// segment, the kernel says that it knows of none. Pure.
import { familyOf, type Family, formatIp, type Ip } from '#model/ip.ts';
import { checksum } from './checksum.ts';
import { ipBytes } from './netlink/codec.ts';

export interface Probe {
  readonly protocol: 'udp' | 'tcp';
  readonly from: Ip;
  readonly to: Ip;
  readonly sourcePort: number;
  readonly port: number;
  /** Bytes of the packet, IP header included; as many as are needed when absent. */
  readonly size?: number;
  /** 16 hexadecimal digits, anew for each. Of TCP the first eight count. */
  readonly nonce: string;
}

/** What came in: a question of another host, or the answer to one of ours, by its nonce. */
export type Heard =
  | { readonly type: 'question'; readonly from: Ip; readonly to: Ip; readonly answer: Buffer; readonly datagram?: Arrival }
  | { readonly type: 'answer'; readonly nonce: string };

/** A question by datagram, for whom it is to be seen whether the host lets it in. */
export interface Arrival {
  readonly nonce: string;
  readonly port: number;
}

const mark4 = 0xca5e;
const mark6 = 0x0ca5e;
const name = Buffer.from('causeway', 'latin1');
const [question, answer] = [1, 2];
/** Zeros, name, nonce, which of both. */
const payloadBytes = 32;
const ethernetBytes = 14;
const tcpBytes = 20;
const [SYN, RST, ACK] = [0x02, 0x04, 0x10];
const numbers = { udp: 17, tcp: 6 } as const;
export const bgpPort = 179;
/** As much of a frame as telling what it is takes. */
const snapBytes = 128;

const headerBytes = (family: Family): number => (family === 4 ? 20 : 40);

function header(family: Family, { from, to, protocol }: Pick<Probe, 'from' | 'to' | 'protocol'>, length: number): Buffer {
  const bytes = Buffer.alloc(headerBytes(family));
  if (family === 6) {
    bytes.writeUInt32BE(0x6000_0000 + mark6, 0);
    bytes.writeUInt16BE(length, 4);
    bytes[6] = numbers[protocol];
    bytes[7] = 64;
    ipBytes(from).copy(bytes, 8);
    ipBytes(to).copy(bytes, 24);
    return bytes;
  }
  bytes[0] = 0x45;
  bytes.writeUInt16BE(bytes.length + length, 2);
  bytes.writeUInt16BE(mark4, 4);
  // Do not fragment.
  bytes.writeUInt16BE(0x4000, 6);
  bytes[8] = 64;
  bytes[9] = numbers[protocol];
  ipBytes(from).copy(bytes, 12);
  ipBytes(to).copy(bytes, 16);
  bytes.writeUInt16BE(checksum(bytes), 10);
  return bytes;
}

interface Ends {
  readonly from: Ip;
  readonly to: Ip;
  readonly sourcePort: number;
  readonly port: number;
}

/** Header and whatever it carries, with the checksum at its place in the latter. */
function packet(ends: Ends, protocol: Probe['protocol'], body: Buffer): Buffer {
  const family = familyOf(ends.from);
  body.writeUInt16BE(ends.sourcePort, 0);
  body.writeUInt16BE(ends.port, 2);
  if (protocol === 'udp') body.writeUInt16BE(body.length, 4);
  const pseudo = Buffer.concat([ipBytes(ends.from), ipBytes(ends.to), Buffer.alloc(8)]);
  pseudo.writeUInt32BE(body.length, pseudo.length - 8);
  pseudo.writeUInt32BE(numbers[protocol], pseudo.length - 4);
  // All ones and zero are the same sum, and zero stands for none.
  body.writeUInt16BE(checksum(Buffer.concat([pseudo, body])) || 0xffff, protocol === 'udp' ? 6 : 16);
  return Buffer.concat([header(family, { ...ends, protocol }, body.length), body]);
}

function datagram(ends: Ends, nonce: string, { which, bytes }: { readonly which: number; readonly bytes: number }): Buffer {
  const body = Buffer.alloc(8 + Math.max(payloadBytes, bytes));
  name.copy(body, 16);
  body.write(nonce, 24, 'hex');
  body[32] = which;
  return packet(ends, 'udp', body);
}

function segment(ends: Ends, { sequence, acknowledged, flags }: { sequence: number; acknowledged: number; flags: number }): Buffer {
  const body = Buffer.alloc(tcpBytes);
  body.writeUInt32BE(sequence, 4);
  body.writeUInt32BE(acknowledged, 8);
  body[12] = (tcpBytes / 4) << 4;
  body[13] = flags;
  body.writeUInt16BE(1024, 14);
  return packet(ends, 'tcp', body);
}

const sequenceOf = (nonce: string): number => Number.parseInt(nonce.slice(0, 8), 16);

/** The IP packet that asks. */
export function questionPacket({ protocol, size = 0, nonce, ...ends }: Probe): Buffer {
  if (protocol === 'tcp') return segment(ends, { sequence: sequenceOf(nonce), acknowledged: 0, flags: SYN });
  return datagram(ends, nonce, { which: question, bytes: size - headerBytes(familyOf(ends.from)) - 8 });
}

/** What a frame is to us; undefined for any other. `frame`: from the Ethernet header on, possibly cut off. */
export function hear(frame: Buffer): Heard | undefined {
  if (frame.length < ethernetBytes + 20) return undefined;
  const ip = frame.subarray(ethernetBytes);
  const family = (ip[0] ?? 0) >> 4;
  if (family !== 4 && family !== 6) return undefined;
  const body = ip.subarray(headerBytes(family));
  const protocol = family === 4 ? ip[9] : ip[6];
  if (protocol === numbers.tcp && body.length >= tcpBytes) return hearSegment(frame, family, body);
  return protocol === numbers.udp && body.length >= 8 + payloadBytes ? hearDatagram(frame, family, body) : undefined;
}

function endsOf(ip: Buffer, family: Family, body: Buffer): Ends {
  const [at, length] = family === 4 ? [12, 4] : [8, 16];
  const read = (start: number): Ip => formatIp(BigInt(`0x${ip.toString('hex', start, start + length)}`), family);
  return { from: read(at), to: read(at + length), sourcePort: body.readUInt16BE(0), port: body.readUInt16BE(2) };
}

const isMarked = (ip: Buffer, family: Family): boolean =>
  family === 4 ? ip.readUInt16BE(4) === mark4 : (ip.readUInt32BE(0) & 0xfffff) === mark6;

/** Back where it came from, with both ends exchanged: whatever brought it here leads back. */
function back(frame: Buffer, { from, to, sourcePort, port }: Ends, make: (ends: Ends) => Buffer): Extract<Heard, { type: 'question' }> {
  const ethernet = Buffer.concat([frame.subarray(6, 12), frame.subarray(0, 6), frame.subarray(12, 14)]);
  return {
    type: 'question',
    from,
    to,
    answer: Buffer.concat([ethernet, make({ from: to, to: from, sourcePort: port, port: sourcePort })]),
  };
}

function hearDatagram(frame: Buffer, family: Family, body: Buffer): Heard | undefined {
  const ip = frame.subarray(ethernetBytes);
  if (!isMarked(ip, family) || !body.subarray(16, 24).equals(name)) return undefined;
  const nonce = body.toString('hex', 24, 32);
  if (body[32] === answer) return { type: 'answer', nonce };
  if (body[32] !== question) return undefined;
  const ends = endsOf(ip, family, body);
  const heard = back(frame, ends, (reversed) => datagram(reversed, nonce, { which: answer, bytes: 0 }));
  return { ...heard, datagram: { nonce, port: ends.port } };
}

/** The nonce of a question as it came in past the host's packet filters (openFilteredDatagramSocket); undefined for anything else. */
export function arrivedNonce(bytes: Buffer, family: Family): string | undefined {
  const body = family === 4 ? bytes.subarray(headerBytes(4)) : bytes;
  const isQuestion = body.length >= 8 + payloadBytes && body.subarray(16, 24).equals(name) && body[32] === question;
  return isQuestion ? body.toString('hex', 24, 32) : undefined;
}

function hearSegment(frame: Buffer, family: Family, body: Buffer): Heard | undefined {
  const ip = frame.subarray(ethernetBytes);
  const flags = (body[13] ?? 0) & (SYN | RST | ACK);
  // The other host's kernel may be the one that answers, whether somebody listens or not.
  if (flags === (SYN | ACK) || flags === (RST | ACK)) {
    return { type: 'answer', nonce: ((body.readUInt32BE(8) - 1) >>> 0).toString(16).padStart(8, '0') };
  }
  if (flags !== SYN || !isMarked(ip, family)) return undefined;
  const acknowledged = (body.readUInt32BE(4) + 1) >>> 0;
  return back(frame, endsOf(ip, family, body), (ends) => segment(ends, { sequence: 0, acknowledged, flags: SYN | ACK }));
}

/** struct sock_filter: code, jump if true, jump if false, value (linux/filter.h). */
type Instruction = readonly [code: number, yes: number, no: number, value: number];
const [LDH, LDB, LDW, JEQ, JSET, AND, RET] = [0x28, 0x30, 0x20, 0x15, 0x45, 0x54, 0x06];

const filters: Readonly<Record<Family, readonly Instruction[]>> = {
  4: [
    [LDH, 0, 0, 18],
    [JEQ, 6, 0, mark4],
    [LDB, 0, 0, 23],
    [JEQ, 0, 5, 6],
    [LDH, 0, 0, 34],
    [JEQ, 0, 3, bgpPort],
    [LDB, 0, 0, 47],
    [JSET, 0, 1, SYN | RST],
    [RET, 0, 0, snapBytes],
    [RET, 0, 0, 0],
  ],
  6: [
    [LDW, 0, 0, 14],
    [AND, 0, 0, 0xfffff],
    [JEQ, 6, 0, mark6],
    [LDB, 0, 0, 20],
    [JEQ, 0, 5, 6],
    [LDH, 0, 0, 54],
    [JEQ, 0, 3, bgpPort],
    [LDB, 0, 0, 67],
    [JSET, 0, 1, SYN | RST],
    [RET, 0, 0, snapBytes],
    [RET, 0, 0, 0],
  ],
};

/** Counted from the IP header wherever the packet is looked at (SKF_NET_OFF, linux/filter.h). */
const fromHeader = 0xfff0_0000;
const arrivedFilters: Readonly<Record<Family, readonly Instruction[]>> = {
  4: [
    [LDH, 0, 0, fromHeader + 4],
    [JEQ, 0, 1, mark4],
    [RET, 0, 0, snapBytes],
    [RET, 0, 0, 0],
  ],
  6: [
    [LDW, 0, 0, fromHeader],
    [AND, 0, 0, 0xfffff],
    [JEQ, 0, 1, mark6],
    [RET, 0, 0, snapBytes],
    [RET, 0, 0, 0],
  ],
};

/** Instructions of the socket filter that lets through what hear() may know, and nearly nothing else. */
export const filterOf = (family: Family): Buffer => programOf(filters[family]);

/** The same for what arrivedNonce() may know. */
export const arrivedFilterOf = (family: Family): Buffer => programOf(arrivedFilters[family]);

function programOf(instructions: readonly Instruction[]): Buffer {
  return Buffer.concat(
    instructions.map(([code, yes, no, value]) => {
      const bytes = Buffer.alloc(8);
      bytes.writeUInt16LE(code, 0);
      bytes[2] = yes;
      bytes[3] = no;
      bytes.writeUInt32LE(value, 4);
      return bytes;
    }),
  );
}
