// Sets of addresses as prefixes of which no two overlap: what an nft set of intervals holds without complaint.
import {
  bitsOf,
  type Cidr,
  cidrBase,
  cidrLength,
  cidrOf,
  cidrSize,
  contains,
  covers,
  everything,
  type Family,
  familyOf,
  formatIp,
  ipToBigint,
  overlaps,
  subnetAt,
} from './ip.ts';

const inOrder = (a: Cidr, b: Cidr): number => {
  const [first, second] = [ipToBigint(cidrBase(a)), ipToBigint(cidrBase(b))];
  return familyOf(a) - familyOf(b) || (first < second ? -1 : Number(first > second)) || cidrLength(a) - cidrLength(b);
};

/** The same addresses without those prefixes that lie in another; sorted by family and address. */
export function disjoint(cidrs: readonly Cidr[]): Cidr[] {
  const kept: Cidr[] = [];
  for (const cidr of cidrs.toSorted(inOrder)) {
    const last = kept.at(-1);
    if (last === undefined || !covers(last, cidr)) kept.push(cidr);
  }
  return kept;
}

/** The fewest prefixes that hold the same addresses; sorted by family and address. */
export function united(cidrs: readonly Cidr[]): Cidr[] {
  const whole: Cidr[] = [];
  for (let cidr of disjoint(cidrs)) {
    for (let before = whole.at(-1); before !== undefined && isOtherHalf(before, cidr); before = whole.at(-1)) {
      whole.pop();
      cidr = cidrOf(cidrBase(cidr), cidrLength(cidr) - 1);
    }
    whole.push(cidr);
  }
  return whole;
}

/** Of two of which neither holds the other. */
const isOtherHalf = (a: Cidr, b: Cidr): boolean =>
  cidrLength(a) === cidrLength(b) && cidrLength(a) > 0 && contains(cidrOf(cidrBase(a), cidrLength(a) - 1), cidrBase(b));

/** The fewest prefixes that hold all addresses from the first to the last and no other. */
export function prefixesOf(family: Family, first: bigint, last: bigint): Cidr[] {
  const sizeOf = (length: number): bigint => 1n << BigInt(bitsOf(family) - length);
  const prefixes: Cidr[] = [];
  for (let base = first; base <= last; base += cidrSize(prefixes.at(-1) ?? everything[family])) {
    let length: number = bitsOf(family);
    while (length > 0 && base % sizeOf(length - 1) === 0n && base + sizeOf(length - 1) - 1n <= last) length--;
    prefixes.push(cidrOf(formatIp(base, family), length));
  }
  return prefixes;
}

/** `cidr` without `excluded`: at most one prefix for each bit between their lengths. */
function without(cidr: Cidr, excluded: Cidr): Cidr[] {
  if (!overlaps(cidr, excluded)) return [cidr];
  if (covers(excluded, cidr) || cidrLength(cidr) === bitsOf(familyOf(cidr))) return [];
  const halves = [0n, 1n].flatMap((index) => subnetAt(cidr, cidrLength(cidr) + 1, index) ?? []);
  return halves.flatMap((half) => without(half, excluded));
}

/** The addresses of `cidrs` that are in none of `excluded`. */
export const subtract = (cidrs: readonly Cidr[], excluded: readonly Cidr[]): Cidr[] =>
  disjoint(excluded.reduce<Cidr[]>((rest, one) => rest.flatMap((cidr) => without(cidr, one)), [...cidrs]));

/** Those of a family of which every one is exhausted; all of none where there are none. Undefined: each family has room. */
export function exhaustedOf<T extends { readonly cidr: Cidr }>(
  ranges: readonly T[],
  isExhausted: (range: T) => boolean,
): readonly T[] | undefined {
  if (ranges.length === 0) return ranges;
  return [...Map.groupBy(ranges, ({ cidr }) => familyOf(cidr)).values()].find((some) => some.every(isExhausted));
}
