// What keys and values of nft sets consist of, from nft's spelling to the kernel's bytes. Pure, and made for a hundred thousand at a
// time: nft's own reading of them takes twice as long as the kernel takes to add them. The numbers of types are nft's, which the kernel
// keeps with each set (nftables, include/datatype.h). What is not spelled as plans spell it is not read: nft may know it.
import { isFault } from '#model/fault.ts';
import { cidrBase, cidrLast, type Ip, numberOf4, parseCidr } from '#model/ip.ts';

/** One part of a key or value. */
export interface Atom {
  readonly size: number;
  /** Writes at `at`, where there are zeros; false when `text` is not understood. `isEnd`: the last of the range that `text` stands for. */
  write(text: string, place: Readonly<Place>): boolean;
}

/** One for all words of an element: there may be a hundred thousand elements. */
export interface Place {
  readonly bytes: Buffer;
  at: number;
  isEnd: boolean;
}

const zero = 48;

/** A number without leading zeros, up to `most`; -1 when it is none. */
function numberIn(text: string, most: number): number {
  const { length } = text;
  if (length === 0 || length > 10 || (length > 1 && text.codePointAt(0) === zero)) return -1;
  let value = 0;
  for (let index = 0; index < length; index++) {
    const digit = text.charCodeAt(index) - zero;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value > most ? -1 : value;
}

function writeIp4(text: string, { bytes, at }: Readonly<Place>): boolean {
  const value = numberOf4(text);
  if (value !== undefined) bytes.writeUInt32BE(value, at);
  return value !== undefined;
}

/** Groups between colons, in one place none for as many as are missing. */
function writeIp6(text: string, { bytes, at }: Readonly<Place>): boolean {
  const [before = '', after, ...more] = text.split('::');
  const head = before === '' ? [] : before.split(':');
  const tail = after === undefined || after === '' ? [] : after.split(':');
  const missing = 8 - head.length - tail.length;
  if (more.length > 0 || (after === undefined ? missing !== 0 : missing < 1)) return false;
  return writeGroups(head, bytes, at) && writeGroups(tail, bytes, at + 16 - 2 * tail.length);
}

function writeGroups(groups: readonly string[], bytes: Buffer, at: number): boolean {
  for (let index = 0; index < groups.length; index++) {
    const group = groups[index] ?? '';
    if (!/^[0-9a-f]{1,4}$/.test(group)) return false;
    const value = Number.parseInt(group, 16);
    bytes[at + 2 * index] = value >> 8;
    bytes[at + 2 * index + 1] = value & 255;
  }
  return true;
}

/** Addresses, and the ends of a prefix. */
const address = (size: 4 | 16, write: Atom['write']): Atom => ({
  size,
  write(text, place) {
    if (!text.includes('/')) return write(text, place);
    const ends = endsOf(text);
    return ends !== undefined && write(ends[place.isEnd ? 1 : 0], place);
  },
});

function endsOf(text: string): readonly [Ip, Ip] | undefined {
  try {
    const cidr = parseCidr(text, 'element');
    return [cidrBase(cidr), cidrLast(cidr)];
  } catch (error) {
    if (!isFault(error, 'invalid')) throw error;
    return undefined;
  }
}

const ifnameBytes = 16;
const ifname: Atom = {
  size: ifnameBytes,
  write(text, { bytes, at }) {
    const name = text.startsWith('"') && text.endsWith('"') && text.length > 2 ? text.slice(1, -1) : text;
    if (!/^[\w.:-]+$/.test(name) || name.length >= ifnameBytes) return false;
    bytes.write(name, at, 'latin1');
    return true;
  },
};

const mac: Atom = {
  size: 6,
  write(text, { bytes, at }) {
    return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(text) && bytes.write(text.replaceAll(':', ''), at, 'hex') === 6;
  },
};

const protocols: ReadonlyMap<string, number> = new Map([
  ['tcp', 6],
  ['udp', 17],
  ['sctp', 132],
  ['icmp', 1],
  ['ipv6-icmp', 58],
]);
const protocol: Atom = {
  size: 1,
  write(text, { bytes, at }) {
    const number = protocols.get(text) ?? numberIn(text, 255);
    bytes[at] = number;
    return number >= 0;
  },
};

const port: Atom = {
  size: 2,
  write(text, { bytes, at }) {
    const number = numberIn(text, 0xffff);
    if (number < 0) return false;
    bytes[at] = number >> 8;
    bytes[at + 1] = number & 255;
    return true;
  },
};

/** In the host's byte order, as `numgen` gives it. */
const integer: Atom = {
  size: 4,
  write(text, { bytes, at }) {
    const number = numberIn(text, 0xffff_ffff);
    if (number < 0) return false;
    bytes.writeUInt32LE(number, at);
    return true;
  },
};

const families: ReadonlyMap<string, number> = new Map([
  ['ipv4', 2],
  ['ipv6', 10],
]);
const family: Atom = {
  size: 1,
  write(text, { bytes, at }) {
    const number = families.get(text);
    bytes[at] = number ?? 0;
    return number !== undefined;
  },
};

const byType: ReadonlyMap<number, Atom> = new Map([
  [2, family],
  [4, integer],
  [7, address(4, writeIp4)],
  [8, address(16, writeIp6)],
  [9, mac],
  [12, protocol],
  [13, port],
  [41, ifname],
]);

/** Of a type of nft's: several are joined in one number, six bits each. Undefined: of some nothing is known here. */
export function atomsOf(type: number): readonly Atom[] | undefined {
  const atoms: Atom[] = [];
  for (let rest = type; rest > 0; rest = Math.floor(rest / 64)) {
    const atom = byType.get(rest % 64);
    if (atom === undefined) return undefined;
    atoms.unshift(atom);
  }
  return atoms.length === 0 ? undefined : atoms;
}
