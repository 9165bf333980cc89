// Arithmetic of address blocks: which addresses of a block may be given out, and how many. A pool forbids some of its
// addresses (network and broadcast address, gateway, reserved ones) and may narrow what is given out by itself
// (Docker's --ip-range). Blocks may be large (IPv6), so the answer is a short list of spans, never a list of addresses.
import { bitsOf, type Cidr, cidrBase, cidrLast, cidrLength, cidrSize, contains, familyOf, formatIp, type Ip, ipToBigint } from './ip.ts';
import { Fault } from './fault.ts';
import type { Pool } from './resources.ts';

/** Consecutive addresses, both ends included. */
export interface Span {
  readonly first: bigint;
  readonly last: bigint;
}

/** Why an address can never be given out. */
export type Refusal = 'outside' | 'network' | 'broadcast' | 'gateway' | 'reserved';

/** What a block may give out by itself: ascending, disjoint, possibly empty. */
export interface Space {
  readonly cidr: Cidr;
  readonly spans: readonly Span[];
  /** Number of addresses in `spans`; a number because a block of more than 2^53 addresses is never full. */
  readonly capacity: number;
}

const spanOf = (range: Cidr): Span => {
  const first = ipToBigint(cidrBase(range));
  return { first, last: first + cidrSize(range) - 1n };
};

const isCidr = (range: Ip | Cidr): range is Cidr => range.includes('/');

const asSpan = (range: Ip | Cidr): Span => (isCidr(range) ? spanOf(range) : pointOf(range));

const pointOf = (ip: Ip): Span => {
  const value = ipToBigint(ip);
  return { first: value, last: value };
};

/** First addresses that no endpoint may have: IPv4 network (RFC 950), IPv6 subnet-router anycast (RFC 4291 section 2.6.1). */
const hasNetworkAddress = (cidr: Cidr): boolean => bitsOf(familyOf(cidr)) - cidrLength(cidr) > 1;

/** Point-to-point prefixes (RFC 3021) and single addresses have no broadcast address; IPv6 has none at all. */
const hasBroadcast = (cidr: Cidr): boolean => familyOf(cidr) === 4 && hasNetworkAddress(cidr);

const sameFamily = (pool: Pool, range: Ip | Cidr): boolean => familyOf(range) === familyOf(pool.cidr);

function forbiddenSpans(pool: Pool): Span[] {
  const spans: Span[] = [];
  if (hasNetworkAddress(pool.cidr)) spans.push(pointOf(cidrBase(pool.cidr)));
  if (hasBroadcast(pool.cidr)) spans.push(pointOf(cidrLast(pool.cidr)));
  if (pool.gateway !== undefined) spans.push(pointOf(pool.gateway));
  for (const range of Object.values(pool.reserved)) if (sameFamily(pool, range)) spans.push(asSpan(range));
  return spans;
}

const without = (spans: readonly Span[], hole: Span): Span[] =>
  spans.flatMap((span) => {
    if (hole.last < span.first || hole.first > span.last) return [span];
    const rest: Span[] = [];
    if (span.first < hole.first) rest.push({ first: span.first, last: hole.first - 1n });
    if (span.last > hole.last) rest.push({ first: hole.last + 1n, last: span.last });
    return rest;
  });

const intersection = (a: Span, b: Span): Span[] => {
  const first = a.first > b.first ? a.first : b.first;
  const last = a.last < b.last ? a.last : b.last;
  return first > last ? [] : [{ first, last }];
};

/** What may be given out by itself of `block`, which lies inside the pool. */
export function spaceOf(pool: Pool, block: Cidr): Space {
  const inside = intersection(spanOf(block), spanOf(pool.range ?? pool.cidr));
  const spans = forbiddenSpans(pool).reduce<Span[]>(without, inside);
  const capacity = spans.reduce((sum, span) => sum + span.last - span.first + 1n, 0n);
  return { cidr: block, spans, capacity: Number(capacity) };
}

/** Why an endpoint can never have `ip`, even when it is asked for by name; undefined when it can. `range` plays no part. */
export function refusalOf(pool: Pool, ip: Ip): Refusal | undefined {
  if (!contains(pool.cidr, ip)) return 'outside';
  if (hasNetworkAddress(pool.cidr) && ip === cidrBase(pool.cidr)) return 'network';
  if (hasBroadcast(pool.cidr) && ip === cidrLast(pool.cidr)) return 'broadcast';
  if (ip === pool.gateway) return 'gateway';
  const value = ipToBigint(ip);
  const reserved = Object.values(pool.reserved).some((range) => {
    if (!sameFamily(pool, range)) return false;
    const span = asSpan(range);
    return value >= span.first && value <= span.last;
  });
  return reserved ? 'reserved' : undefined;
}

/** The gateway to show for a pool that names none: its first address that is not reserved, inside `range` if there is one. */
export function defaultGateway(pool: Pick<Pool, 'cidr' | 'range' | 'reserved'>): Ip | undefined {
  const bare: Pool = { ...emptyPool, cidr: pool.cidr, reserved: pool.reserved, ...(pool.range === undefined ? {} : { range: pool.range }) };
  const first = spaceOf(bare, pool.cidr).spans[0]?.first;
  return first === undefined ? undefined : formatIp(first, familyOf(pool.cidr));
}

const emptyPool: Omit<Pool, 'cidr'> = {
  id: '',
  name: '',
  revision: 0,
  createdAt: '',
  labels: {},
  network: '',
  reserved: {},
  blockLength: 0,
};

export const inSpace = (space: Space, ip: Ip): boolean => {
  if (familyOf(space.cidr) !== familyOf(ip)) return false;
  const value = ipToBigint(ip);
  return space.spans.some((span) => value >= span.first && value <= span.last);
};

/** The first address at or after `from`, going round at the end, for which `isTaken` is false; undefined when all are. */
export function nextFree(space: Space, from: bigint, isTaken: (ip: Ip) => boolean): Ip | undefined {
  const family = familyOf(space.cidr);
  for (const { first, last } of [...ahead(space.spans, from), ...behind(space.spans, from)]) {
    for (let value = first; value <= last; value++) {
      const ip = formatIp(value, family);
      if (!isTaken(ip)) return ip;
    }
  }
  return undefined;
}

const ahead = (spans: readonly Span[], from: bigint): Span[] =>
  spans.filter((span) => span.last >= from).map((span) => (span.first >= from ? span : { first: from, last: span.last }));

const behind = (spans: readonly Span[], from: bigint): Span[] =>
  spans.filter((span) => span.first < from).map((span) => (span.last < from ? span : { first: span.first, last: from - 1n }));

const mostPlaces = 0x10000;
const highestIndex = mostPlaces - 1;

/**
 * A host's index, from the block that it has of `range`: which of the blocks of its length it is. Unlike for all of them, so where every
 * host has one block no host has to be told its index. As 0 is no index, the one of that place has the highest, which no other has
 * unless the range holds all 65536: fault `unsupported` for the last of these.
 */
export function indexIn(range: Cidr, block: Cidr): number {
  const places = ipToBigint(cidrBase(block)) >> BigInt(bitsOf(familyOf(block)) - cidrLength(block));
  const place = Number(places % BigInt(mostPlaces));
  if (place !== 0 && (place !== highestIndex || 2 ** (cidrLength(block) - cidrLength(range)) < mostPlaces)) return place;
  if (place === 0) return highestIndex;
  throw new Fault('unsupported', `${block} is the last of 65536`);
}

/** Lower-case letters and digits, for identifiers. */
export const compactOf = (block: Cidr): string => `${ipToBigint(cidrBase(block)).toString(36).padStart(8, '0')}x${cidrLength(block)}`;
