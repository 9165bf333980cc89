// Netlink messages to and from bytes: header, attributes, nested attributes (linux/netlink.h). Pure. Netlink is in the
// host's byte order; every machine Causeway runs on is little-endian, and attributes that are big-endian say so.
import { type Family, familyOf, type Ip, ipToBigint, type Mac } from '#model/ip.ts';
import { NLA_F_NESTED, NLA_TYPE_MASK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSGERR_ATTR_MSG } from './uapi.ts';

export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly port: number;
  /** What follows the 16-byte header. A view into the receive buffer unless copied. */
  readonly body: Buffer;
}

/** Attributes by type. Looking one up walks the bytes: a link has some sixty attributes, of which eight are wanted. */
export interface Attributes {
  get(type: number): Buffer | undefined;
}

const headerLength = 16;
/** Attributes and messages begin at multiples of four bytes. */
export const align = (length: number): number => (length + 3) & ~3;

/** One message, padded to four bytes. */
export function encodeMessage(message: Message): Buffer {
  const length = headerLength + message.body.length;
  const bytes = Buffer.alloc(align(length));
  bytes.writeUInt32LE(length, 0);
  bytes.writeUInt16LE(message.type, 4);
  bytes.writeUInt16LE(message.flags, 6);
  bytes.writeUInt32LE(message.sequence, 8);
  bytes.writeUInt32LE(message.port, 12);
  message.body.copy(bytes, headerLength);
  return bytes;
}

/** To those that the encoded message has. */
export const addFlags = (message: Buffer, flags: number): void => {
  message.writeUInt16LE(message.readUInt16LE(6) | flags, 6);
};

/** Every whole message of a datagram; what is cut off or malformed at its end is left out. */
export function decodeMessages(bytes: Buffer): Message[] {
  const messages: Message[] = [];
  let offset = 0;
  while (offset + headerLength <= bytes.length) {
    const length = bytes.readUInt32LE(offset);
    if (length < headerLength || offset + length > bytes.length) break;
    messages.push({
      type: bytes.readUInt16LE(offset + 4),
      flags: bytes.readUInt16LE(offset + 6),
      sequence: bytes.readUInt32LE(offset + 8),
      port: bytes.readUInt32LE(offset + 12),
      body: bytes.subarray(offset + headerLength, offset + length),
    });
    offset += align(length);
  }
  return messages;
}

/** One attribute with its padding. */
export function attribute(type: number, value: Buffer): Buffer {
  const bytes = Buffer.alloc(align(4 + value.length));
  bytes.writeUInt16LE(4 + value.length, 0);
  bytes.writeUInt16LE(type, 2);
  value.copy(bytes, 4);
  return bytes;
}

export const nested = (type: number, ...parts: readonly Buffer[]): Buffer => attribute(type | NLA_F_NESTED, Buffer.concat(parts));
export const text = (type: number, value: string): Buffer => attribute(type, Buffer.from(`${value}\0`));
export const u8 = (type: number, value: number): Buffer => attribute(type, Buffer.of(value));

export function u16be(type: number, value: number): Buffer {
  return attribute(type, Buffer.of(value >> 8, value & 255));
}

export function u16(type: number, value: number): Buffer {
  return attribute(type, Buffer.of(value & 255, value >> 8));
}

export function u32(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16LE(8, 0);
  bytes.writeUInt16LE(type, 2);
  bytes.writeUInt32LE(value, 4);
  return bytes;
}

export function u32be(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value, 0);
  return attribute(type, bytes);
}

export const ipAttribute = (type: number, ip: Ip): Buffer => attribute(type, ipBytes(ip));
export const macAttribute = (type: number, mac: Mac): Buffer => attribute(type, macBytes(mac));

/** The attributes of `bytes`, flag bits of their types ignored; of several with one type the first counts. */
export function decodeAttributes(bytes: Buffer | undefined): Attributes {
  return {
    get(type) {
      if (bytes === undefined) return undefined;
      let offset = 0;
      while (offset + 4 <= bytes.length) {
        const length = bytes.readUInt16LE(offset);
        if (length < 4 || offset + length > bytes.length) break;
        if ((bytes.readUInt16LE(offset + 2) & NLA_TYPE_MASK) === type) return bytes.subarray(offset + 4, offset + length);
        offset += align(length);
      }
      return undefined;
    },
  };
}

/** The attributes in order, for lists whose members repeat a type. */
export function attributeList(bytes: Buffer): [number, Buffer][] {
  const list: [number, Buffer][] = [];
  let offset = 0;
  while (offset + 4 <= bytes.length) {
    const length = bytes.readUInt16LE(offset);
    if (length < 4 || offset + length > bytes.length) break;
    list.push([bytes.readUInt16LE(offset + 2) & NLA_TYPE_MASK, bytes.subarray(offset + 4, offset + length)]);
    offset += align(length);
  }
  return list;
}

export const readText = (value: Buffer | undefined): string => value?.toString('utf8').replace(/\0.*$/s, '') ?? '';
export const readU32 = (value: Buffer | undefined): number => (value !== undefined && value.length >= 4 ? value.readUInt32LE(0) : 0);
export const readMac = (value: Buffer | undefined): Mac => (value?.toString('hex').match(/../g)?.join(':') ?? '') as Mac;

/** Address bytes to text; undefined when they are neither 4 nor 16. */
export function readIp(value: Buffer | undefined): Ip | undefined {
  if (value?.length === 4) return value.join('.') as Ip;
  return value?.length === 16 ? readIp6(value) : undefined;
}

/** As formatIp() of model/ip.ts (RFC 5952), but some ten times as fast from bytes: namespaces list thousands of addresses. */
function readIp6(value: Buffer): Ip {
  let best = { start: -1, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && value.readUInt16BE((start + length) * 2) === 0) length++;
    if (length > best.length) best = { start, length };
    start += length;
  }
  const groups = Array.from({ length: 8 }, (_, index) => value.readUInt16BE(index * 2).toString(16));
  if (best.start < 0) return groups.join(':') as Ip;
  return `${groups.slice(0, best.start).join(':')}::${groups.slice(best.start + best.length).join(':')}` as Ip;
}

export function ipBytes(ip: Ip): Buffer {
  const family: Family = familyOf(ip);
  if (family === 4) return Buffer.from(ip.split('.').map(Number));
  return Buffer.from(ipToBigint(ip).toString(16).padStart(32, '0'), 'hex');
}

export const macBytes = (mac: Mac): Buffer => Buffer.from(mac.replaceAll(':', ''), 'hex');

/** What an NLMSG_ERROR body says: 0 is the acknowledgement. `text` is the kernel's own sentence when it gave one. */
export function decodeError(message: Message): { readonly errno: number; readonly text: string } {
  const errno = -message.body.readInt32LE(0);
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return { errno, text: '' };
  // The refused request follows the number, whole, or its header alone when the reply is capped.
  const original = (message.flags & NLM_F_CAPPED) !== 0 ? headerLength : align(message.body.readUInt32LE(4));
  return { errno, text: readText(decodeAttributes(message.body.subarray(4 + original)).get(NLMSGERR_ATTR_MSG)) };
}
