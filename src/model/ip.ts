// Addresses and prefixes as canonical branded strings: they compare with ===, are map keys, survive JSON and read well in
// logs. Arithmetic goes through bigint here and nowhere else. One code path for both families.
// Text form of IPv6: RFC 5952 (lower case, longest run of zeros compressed, no IPv4-mapped dotted form).
import { Fault } from './fault.ts';

export type Ip = string & { readonly __brand: 'Ip' };
/** A prefix in canonical form: host bits are zero, for example `10.0.0.0/24`, `fd00::/64`. */
export type Cidr = string & { readonly __brand: 'Cidr' };
export type Family = 4 | 6;
/** Six octets, lower-case hexadecimal, colons. */
export type Mac = string & { readonly __brand: 'Mac' };

const macPattern = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;

export const bitsOf = (family: Family): 32 | 128 => (family === 4 ? 32 : 128);

/** An IPv4 address as a number; undefined when `text` is none. Read digit by digit: hosts look at a hundred thousand of them at once. */
export function numberOf4(text: string): number | undefined {
  let value = 0;
  let octet = 0;
  let digits = 0;
  let octets = 0;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code === dot) {
      if (digits === 0 || octets === 3) return undefined;
      value = value * 256 + octet;
      octets += 1;
      octet = 0;
      digits = 0;
      continue;
    }
    const hasLeadingZero = digits === 1 && octet === 0;
    octet = octet * 10 + code - zero;
    digits += 1;
    if (code < zero || code > nine || hasLeadingZero || octet > 255) return undefined;
  }
  return octets === 3 && digits > 0 ? value * 256 + octet : undefined;
}
const [dot, zero, nine] = [0x2e, 0x30, 0x39];

function parse4(text: string): bigint | undefined {
  const value = numberOf4(text);
  return value === undefined ? undefined : BigInt(value);
}

/** `isEnd`: only the last 32 bits of an address may be written as IPv4 (RFC 4291 section 2.2). */
function groupsOf(text: string, isEnd: boolean): number[] | undefined {
  if (text === '') return [];
  const groups: number[] = [];
  const parts = text.split(':');
  for (const [index, part] of parts.entries()) {
    if (isEnd && index === parts.length - 1 && part.includes('.')) {
      const v4 = parse4(part);
      if (v4 === undefined) return undefined;
      groups.push(Number(v4 >> 16n), Number(v4 & 0xffffn));
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(part)) return undefined;
      groups.push(Number.parseInt(part, 16));
    }
  }
  return groups;
}

function parse6(text: string): bigint | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = groupsOf(halves[0] ?? '', halves.length === 1);
  const tail = groupsOf(halves[1] ?? '', true);
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  let value = 0n;
  for (const group of [...head, ...Array.from({ length: missing }, () => 0), ...tail]) value = (value << 16n) | BigInt(group);
  return value;
}

function format6(value: bigint): string {
  const groups = Array.from({ length: 8 }, (_, index) => Number((value >> BigInt(112 - index * 16)) & 0xffffn));
  let best = { start: -1, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  const hex = groups.map((group) => group.toString(16));
  if (best.start < 0) return hex.join(':');
  return `${hex.slice(0, best.start).join(':')}::${hex.slice(best.start + best.length).join(':')}`;
}

/** The numeric value of an address in either family, or undefined when `text` is not an address. */
function valueOf(text: string): { family: Family; value: bigint } | undefined {
  if (text.includes(':')) {
    const value = parse6(text);
    return value === undefined ? undefined : { family: 6, value };
  }
  const value = parse4(text);
  return value === undefined ? undefined : { family: 4, value };
}

/** In canonical form; undefined when `text` is not an address. */
export function readIp(text: string): Ip | undefined {
  // In that form already.
  if (numberOf4(text) !== undefined) return text as Ip;
  const parsed = valueOf(text);
  return parsed === undefined ? undefined : formatIp(parsed.value, parsed.family);
}

/** Parses and canonicalises an address; a Fault `invalid` naming `field` otherwise. */
export function parseIp(text: string, field = 'address'): Ip {
  const ip = readIp(text);
  if (ip === undefined) throw new Fault('invalid', `Not an IP address: ${JSON.stringify(text).slice(0, 80)}`, { field });
  return ip;
}

export function formatIp(value: bigint, family: Family): Ip {
  if (family === 6) return format6(value) as Ip;
  return [24n, 16n, 8n, 0n].map((shift) => ((value >> shift) & 255n).toString()).join('.') as Ip;
}

export const familyOf = (address: Ip | Cidr): Family => (address.includes(':') ? 6 : 4);

export function ipToBigint(ip: Ip): bigint {
  const parsed = valueOf(ip);
  if (parsed === undefined) throw new TypeError(`Broken invariant: ${ip} is not an address`);
  return parsed.value;
}

/** `ip` plus `offset`; a Fault `exhausted` when that leaves the address family. */
export function ipAdd(ip: Ip, offset: bigint | number): Ip {
  const family = familyOf(ip);
  const value = ipToBigint(ip) + BigInt(offset);
  if (value < 0n || value >> BigInt(bitsOf(family)) !== 0n) throw new Fault('exhausted', `No address ${ip} + ${offset}`);
  return formatIp(value, family);
}

/**
 * Parses a prefix. With `strict` (default) host bits must be zero; otherwise they are cleared.
 * Faults: `invalid`, naming `field` and, for host bits, the prefix that was probably meant.
 */
export function parseCidr(text: string, field = 'cidr', strict = true): Cidr {
  const { ip, length } = parseInterface(text, field);
  const cidr = cidrOf(ip, length);
  if (strict && cidr !== `${ip}/${length}`) {
    throw new Fault('invalid', `${text} has host bits set`, { field, hint: `Use ${cidr}` });
  }
  return cidr;
}

/** Parses `address/length` where host bits may be set, as on an interface. */
export function parseInterface(text: string, field = 'cidr'): { ip: Ip; length: number } {
  const slash = text.lastIndexOf('/');
  const parsed = slash < 0 ? undefined : valueOf(text.slice(0, slash));
  const lengthText = text.slice(slash + 1);
  const length = Number(lengthText);
  if (parsed === undefined || !/^(0|[1-9][0-9]{0,2})$/.test(lengthText) || length > bitsOf(parsed.family)) {
    throw new Fault('invalid', `Not a prefix: ${JSON.stringify(text).slice(0, 80)}`, {
      field,
      hint: 'Write it as 10.0.0.0/24 or fd00::/64',
    });
  }
  return { ip: formatIp(parsed.value, parsed.family), length };
}

/** The prefix of `length` bits that holds `ip`. */
export function cidrOf(ip: Ip, length: number): Cidr {
  const family = familyOf(ip);
  const hostBits = BigInt(bitsOf(family) - length);
  return `${formatIp((ipToBigint(ip) >> hostBits) << hostBits, family)}/${length}` as Cidr;
}

/** `/32` or `/128` of one address. */
export const hostPrefix = (ip: Ip): Cidr => `${ip}/${bitsOf(familyOf(ip))}` as Cidr;

export const cidrLength = (cidr: Cidr): number => Number(cidr.slice(cidr.lastIndexOf('/') + 1));
/** The prefix that holds every address of the family. */
export const everything: Readonly<Record<Family, Cidr>> = { 4: '0.0.0.0/0' as Cidr, 6: '::/0' as Cidr };
/** First address of the prefix (the network address). */
export const cidrBase = (cidr: Cidr): Ip => cidr.slice(0, cidr.lastIndexOf('/')) as Ip;
export const cidrSize = (cidr: Cidr): bigint => 1n << BigInt(bitsOf(familyOf(cidr)) - cidrLength(cidr));
export const cidrLast = (cidr: Cidr): Ip => ipAdd(cidrBase(cidr), cidrSize(cidr) - 1n);

/** Unsigned 32-bit value of a canonical IPv4 address, without a detour through bigint: the plan asks this for every endpoint. */
function ipv4ToNumber(ip: string): number {
  let value = 0;
  let part = 0;
  for (let index = 0; index < ip.length; index++) {
    const code = ip.charCodeAt(index);
    if (code === 47) break; // the slash of a prefix
    if (code === 46) {
      value = value * 256 + part;
      part = 0;
    } else part = part * 10 + (code - 48);
  }
  return value * 256 + part;
}

export function contains(cidr: Cidr, ip: Ip): boolean {
  if (familyOf(cidr) !== familyOf(ip)) return false;
  if (familyOf(ip) === 4) {
    const offset = ipv4ToNumber(ip) - ipv4ToNumber(cidr);
    return offset >= 0 && offset < 2 ** (32 - cidrLength(cidr));
  }
  const offset = ipToBigint(ip) - ipToBigint(cidrBase(cidr));
  return offset >= 0n && offset < cidrSize(cidr);
}

/** Which of all the prefixes of `length` bits holds the address, counted from 0. */
const placeOf = (ip: Ip, length: number): number | bigint =>
  familyOf(ip) === 4 ? Math.floor(ipv4ToNumber(ip) / 2 ** (32 - length)) : ipToBigint(ip) >> BigInt(128 - length);

/** As `contains` for any of `cidrs`, which are read only once: for asking about thousands of addresses. */
export function coverage(cidrs: readonly Cidr[]): (ip: Ip) => boolean {
  const byLength: Readonly<Record<Family, Map<number, Set<number | bigint>>>> = { 4: new Map(), 6: new Map() };
  for (const cidr of cidrs) {
    const length = cidrLength(cidr);
    const sets = byLength[familyOf(cidr)];
    sets.set(length, (sets.get(length) ?? new Set()).add(placeOf(cidrBase(cidr), length)));
  }
  return (ip) => {
    for (const [length, places] of byLength[familyOf(ip)]) if (places.has(placeOf(ip, length))) return true;
    return false;
  };
}

/** Whether `inner` lies wholly inside `outer` (equal counts). */
export const covers = (outer: Cidr, inner: Cidr): boolean => cidrLength(outer) <= cidrLength(inner) && contains(outer, cidrBase(inner));

export const overlaps = (a: Cidr, b: Cidr): boolean => covers(a, b) || covers(b, a);

/** The prefix of `length` bits at position `index` inside `cidr`; undefined past its end. */
export function subnetAt(cidr: Cidr, length: number, index: bigint): Cidr | undefined {
  const bits = bitsOf(familyOf(cidr));
  if (length < cidrLength(cidr) || length > bits) return undefined;
  if (index < 0n || index >> BigInt(length - cidrLength(cidr)) !== 0n) return undefined;
  return `${ipAdd(cidrBase(cidr), index << BigInt(bits - length))}/${length}` as Cidr;
}

/** Parses and canonicalises a MAC address; group addresses are refused, as no interface can own one. */
export function parseMac(text: string, field = 'mac'): Mac {
  const mac = text.toLowerCase().replaceAll('-', ':');
  if (!macPattern.test(mac)) throw new Fault('invalid', `Not a MAC address: ${JSON.stringify(text).slice(0, 80)}`, { field });
  if ((Number.parseInt(mac.slice(0, 2), 16) & 1) === 1) throw new Fault('invalid', `${mac} is a group address`, { field });
  return mac as Mac;
}

/** IPv6 link-local address from a MAC, modified EUI-64 (RFC 4291 appendix A). */
export function linkLocalOf(mac: Mac): Ip {
  const o = mac.split(':').map((octet) => Number.parseInt(octet, 16));
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = o;
  const low = [(a ^ 2) * 256 + b, c * 256 + 0xff, 0xfe00 + d, e * 256 + f];
  return formatIp(
    low.reduce((sum, group) => (sum << 16n) | BigInt(group), 0xfe80n << 48n),
    6,
  );
}
