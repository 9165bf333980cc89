// Sets of addresses as prefixes of which no two overlap: what an nft set of intervals holds without complaint.
import { type Cidr, cidrBase, cidrLength, bitsOf, covers, familyOf, ipToBigint, overlaps, subnetAt } from './ip.ts';

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
