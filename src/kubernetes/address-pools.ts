// Ranges of addresses for load balancers, as the cluster-scoped resource AddressPool (causeway.dev/v1alpha1) says them, and which
// service gets which. Pure: the same objects give the same addresses, and what a service has it keeps.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { byAge } from '#model/age.ts';
import { type Cidr, cidrBase, cidrLast, type Family, familyOf, formatIp, type Ip, ipToBigint } from '#model/ip.ts';
import { prefixesOf, united } from '#model/ranges.ts';

export const addressPools = '/apis/causeway.dev/v1alpha1/addresspools';
/** Which ranges the cluster gives services their own addresses of; servers tell since 1.33, and may since 1.31. */
export const serviceRanges: readonly string[] = ['/apis/networking.k8s.io/v1/servicecidrs', '/apis/networking.k8s.io/v1beta1/servicecidrs'];

const pool = v.object({
  metadata: v.object({ name: v.string(), creationTimestamp: v.nullish(v.string()) }),
  spec: v.object({
    addresses: v.array(v.string()),
    autoAssign: v.nullish(v.boolean()),
    announce: v.nullish(v.picklist(['wire', 'none'])),
  }),
});

const serviceRange = v.object({ spec: v.object({ cidrs: v.nullish(v.array(v.string()), []) }) });

/** Of a ServiceCIDR. */
export function readServiceRange(item: unknown): readonly string[] {
  const read = v.safeParse(serviceRange, item);
  return read.success ? (read.output.spec.cidrs ?? []) : [];
}

interface Range {
  readonly family: Family;
  readonly first: bigint;
  readonly last: bigint;
}

export interface AddressPool {
  readonly name: string;
  /** RFC 3339; empty: before all others. */
  readonly createdAt: string;
  readonly ranges: readonly Range[];
  /** Given to services that ask for no pool and no address. */
  readonly isAutomatic: boolean;
  /** Whether hosts answer for the addresses on the wire; otherwise somebody else leads them to hosts. */
  readonly isAnnounced: boolean;
}

function rangeOf(text: string): Range | undefined {
  const [from = '', to] = text.split('-').map((part) => part.trim());
  const cidr = v.safeParse(field.cidr, from);
  if (to === undefined && cidr.success) {
    const { output } = cidr;
    return { family: familyOf(output), first: ipToBigint(cidrBase(output)), last: ipToBigint(cidrLast(output)) };
  }
  const [first, last] = [v.safeParse(field.ip, from), v.safeParse(field.ip, to ?? from)];
  if (!first.success || !last.success || familyOf(first.output) !== familyOf(last.output)) return undefined;
  const range = { family: familyOf(first.output), first: ipToBigint(first.output), last: ipToBigint(last.output) };
  return range.first <= range.last ? range : undefined;
}

/** A pool, or what is wrong with it: one bad range makes all of it unusable. */
export function readPool(item: unknown): AddressPool | { readonly problem: string } {
  const read = v.safeParse(pool, item);
  if (!read.success) return { problem: `${v.getDotPath(read.issues[0]) ?? 'The pool'}: ${read.issues[0].message}` };
  const { metadata, spec } = read.output;
  const ranges = spec.addresses.map((text) => ({ text, range: rangeOf(text) }));
  const bad = ranges.find(({ range }) => range === undefined);
  if (bad !== undefined) return { problem: `spec.addresses: ${JSON.stringify(bad.text.slice(0, 60))} is no prefix, address or range` };
  return {
    name: metadata.name,
    createdAt: metadata.creationTimestamp ?? '',
    ranges: ranges.flatMap(({ range }) => range ?? []),
    isAutomatic: spec.autoAssign ?? true,
    isAnnounced: spec.announce !== 'none',
  };
}

const holds = ({ ranges }: AddressPool, ip: Ip): boolean => {
  const [family, value] = [familyOf(ip), ipToBigint(ip)];
  return ranges.some((range) => range.family === family && range.first <= value && value <= range.last);
};

/** All of their addresses. */
export const prefixesIn = (pools: readonly AddressPool[]): Cidr[] =>
  united(pools.flatMap(({ ranges }) => ranges.flatMap(({ family, first, last }) => prefixesOf(family, first, last))));

/** Those of them that the pool has. */
export const amongPool = (one: AddressPool, ips: Iterable<Ip>): Ip[] => [...ips].filter((ip) => holds(one, ip));

export const poolOf = (pools: readonly AddressPool[], ip: Ip): AddressPool | undefined => pools.find((one) => holds(one, ip));

const overlap = (a: readonly Range[], b: readonly Range[]): boolean =>
  a.some((one) => b.some((other) => one.family === other.family && one.first <= other.last && other.first <= one.last));

/** The first of these ranges that the pool has addresses of: the cluster may give one of them to somebody else. */
export const amongGiven = ({ ranges }: AddressPool, given: readonly string[]): string | undefined =>
  given.find((text) => {
    const range = rangeOf(text);
    return range !== undefined && overlap(ranges, [range]);
  });

/** Of pools that overlap the oldest is used, as services may have its addresses; the others' names, and who is in the way of each. */
export function usablePools(pools: readonly AddressPool[]): {
  readonly usable: AddressPool[];
  readonly refused: ReadonlyMap<string, string>;
} {
  const usable: AddressPool[] = [];
  const refused = new Map<string, string>();
  for (const one of pools.toSorted(byAge(({ name }) => name))) {
    const other = usable.find((candidate) => overlap(candidate.ranges, one.ranges));
    if (other === undefined) usable.push(one);
    else refused.set(one.name, other.name);
  }
  return { usable, refused };
}

/** A service of type LoadBalancer that is ours to give addresses to. */
export interface Claim {
  readonly key: string;
  readonly createdAt: string;
  /** One address for each. */
  readonly families: readonly Family[];
  /** In its status now. */
  readonly current: readonly Ip[];
  /** Asked for by name. */
  readonly addresses: readonly Ip[];
  readonly pool?: string;
}

export interface Grant {
  readonly addresses: readonly Ip[];
  /** What it asks for and does not get, for people. */
  readonly problem?: string;
}

/** How far the search for a free address goes in one pool: far more than there are services. */
const mostTried = 100_000n;

class Taken {
  readonly #ips = new Set<Ip>();
  /** Where the search in a range goes on, as all before is taken. */
  readonly #next = new Map<Range, bigint>();

  take(ip: Ip): boolean {
    if (this.#ips.has(ip)) return false;
    this.#ips.add(ip);
    return true;
  }

  free({ family, ranges }: { readonly family: Family; readonly ranges: readonly Range[] }): Ip | undefined {
    for (const range of ranges) {
      if (range.family !== family) continue;
      const from = this.#next.get(range) ?? range.first;
      const end = range.last - from < mostTried ? range.last : from + mostTried;
      for (let value = from; value <= end; value++) {
        const ip = formatIp(value, family);
        this.#next.set(range, value);
        if (this.take(ip)) return ip;
      }
    }
    return undefined;
  }
}

const isWanted = ({ families, addresses, pool: name }: Claim, ip: Ip, pools: readonly AddressPool[]): boolean => {
  const from = poolOf(pools, ip);
  if (from === undefined || !families.includes(familyOf(ip))) return false;
  const asked = addresses.filter((one) => familyOf(one) === familyOf(ip));
  return (asked.length === 0 || asked.includes(ip)) && (name === undefined || from.name === name);
};

/** What there is to give. */
interface Stock {
  readonly pools: readonly AddressPool[];
  /** Of nodes: they would be lost to who has them. */
  readonly nodes: ReadonlySet<Ip>;
}

function give(claim: Claim, family: Family, stock: Stock, taken: Taken): Ip | string {
  const { pools, nodes } = stock;
  const asked = claim.addresses.find((ip) => familyOf(ip) === family);
  if (asked !== undefined) {
    if (nodes.has(asked)) return `${asked} is a node's own`;
    if (!isWanted(claim, asked, pools)) return `${asked} is in no pool that the service may have it from`;
    return taken.take(asked) ? asked : `${asked} is another service's`;
  }
  const from = pools.filter(({ name, isAutomatic }) => (claim.pool === undefined ? isAutomatic : name === claim.pool));
  for (const { ranges } of from) {
    const ip = taken.free({ family, ranges });
    if (ip !== undefined) return ip;
  }
  return `No pool has a free IPv${family} address${claim.pool === undefined ? '' : ` (asked for: ${claim.pool})`}`;
}

/**
 * Addresses by the claim's key. First everybody keeps what they have, the oldest first where two have the same; then the oldest
 * that lack some are given some, and nobody is given one of `nodes`, which nodes have themselves. A claim whose addresses are all of no
 * pool is somebody else's and not answered.
 */
export function grant(claims: readonly Claim[], pools: readonly AddressPool[], nodes: ReadonlySet<Ip> = new Set()): Map<string, Grant> {
  const stock = { pools, nodes };
  const taken = new Taken();
  const ours = claims
    .filter(({ current }) => current.length === 0 || current.some((ip) => poolOf(pools, ip) !== undefined))
    .toSorted(byAge(({ key }) => key));
  const kept = new Map(
    ours.map((claim) => [
      claim.key,
      claim.families.flatMap(
        (family) => claim.current.find((ip) => familyOf(ip) === family && isWanted(claim, ip, pools) && taken.take(ip)) ?? [],
      ),
    ]),
  );
  for (const ip of nodes) taken.take(ip);
  return new Map(
    ours.map((claim): [string, Grant] => {
      const has = kept.get(claim.key) ?? [];
      const answers = claim.families.map((family) => has.find((ip) => familyOf(ip) === family) ?? give(claim, family, stock, taken));
      const addresses = answers.filter((answer): answer is Ip => v.is(field.ip, answer));
      const problem = answers.find((answer) => !v.is(field.ip, answer));
      return [claim.key, { addresses, ...(problem === undefined ? {} : { problem }) }];
    }),
  );
}
