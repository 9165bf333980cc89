// Where pools may lie. Our own ranges and the hosts' underlay are never free; ranges of networks that hosts take part in must
// not meet each other; isolated networks may overlap, but a subnet that nobody asked for is chosen free of everything.
import { Fault } from '#model/fault.ts';
import { bitsOf, type Cidr, cidrLength, contains, covers, familyOf, type Family, overlaps, parseCidr, subnetAt } from '#model/ip.ts';
import { models } from '#drivers/models.ts';
import { transitBase, tunnelBase } from '#model/numbers.ts';
import type { Choices, Network, Pool } from '#model/resources.ts';
import * as v from 'valibot';
import { cidr as cidrSchema } from '#api/fields.ts';
import type { Control } from './control.ts';

export interface Taken {
  readonly cidr: Cidr;
  /** For messages: `the underlay of host a`. */
  readonly what: string;
  /** A bridge of an engine, which no isolated network ever meets. */
  readonly isBridge?: true;
}

/** What a host says that it routes, as hosts.ts keeps it. */
const hostRoutes = v.object({ routes: v.array(cidrSchema), bridges: v.array(cidrSchema) });

/** Where subnets that nobody asked for come from. */
export const choosable: Readonly<Record<Family, Cidr>> = {
  4: parseCidr('10.64.0.0/10'),
  6: parseCidr('fd63:7710::/28'),
};

/** What no link can have, or means something else to every kernel; containers' gateways are link-local, too. */
const ofNobody: Readonly<Record<string, string>> = {
  '0.0.0.0/8': 'addresses of no host',
  '127.0.0.0/8': 'loopback addresses',
  '169.254.0.0/16': 'link-local addresses',
  '224.0.0.0/4': 'multicast addresses',
  '255.255.255.255/32': 'the broadcast address',
  '::/96': 'addresses of no host and the loopback address',
  '::ffff:0:0/96': 'IPv4 addresses written as IPv6',
  'fe80::/10': 'link-local addresses',
  'ff00::/8': 'multicast addresses',
};

const ownRanges: readonly Taken[] = [
  ...Object.entries(ofNobody).map(([range, what]) => ({ cidr: parseCidr(range), what: `${what}, ${range}` })),
  ...Object.values(transitBase).map((cidr) => ({ cidr, what: 'the range of transit addresses' })),
  ...Object.values(tunnelBase).map((cidr) => ({ cidr, what: 'the range of tunnel addresses' })),
];

/** What no pool may overlap, whatever its network. */
export function occupied({ mirror }: Pick<Control, 'mirror'>): Taken[] {
  const underlays = [...mirror.all('hosts').values()].flatMap(({ name, underlay }) =>
    underlay.map((one) => ({ cidr: one.subnet, what: `the underlay ${one.subnet} of host ${name}` })),
  );
  const routed = mirror.entries('routes').flatMap(({ key, value }) => {
    const host = key.slice('routes/'.length);
    const found = v.safeParse(hostRoutes, value);
    if (!found.success) return [];
    const { routes, bridges } = found.output;
    return [
      ...routes.map((cidr): Taken => ({ cidr, what: `the route ${cidr} of host ${host}` })),
      ...bridges.map((cidr): Taken => ({ cidr, what: `the Docker bridge ${cidr} of host ${host}`, isBridge: true })),
    ];
  });
  return [...ownRanges, ...underlays, ...routed];
}

/** `call` says what network it is. */
export const poolsAsTaken = (pools: readonly Pool[], call: (network: string) => string): Taken[] =>
  pools.map(({ cidr, network }) => ({ cidr, what: `${cidr} of ${call(network)}` }));

/** Fault `overlap` naming both ranges and `field`. */
export function checkFree(wanted: Cidr, taken: readonly Taken[], field: string): void {
  const hit = taken.find(({ cidr }) => overlaps(cidr, wanted));
  if (hit !== undefined) {
    throw new Fault('overlap', `${wanted} overlaps ${hit.what}`, {
      field,
      hint: 'Choose another range, or leave it out to have one chosen',
    });
  }
}

/** Networks that hosts take part in share one routing table with the hosts, so their pools must not meet each other. */
export const isShared = (choices: Choices): boolean => choices.domain === 'host';

/** How long the prefix of a chosen subnet is: a /24 or /64, or room for 256 blocks where one block is that large already. */
export function chosenLength(choices: Pick<Choices, 'address'>, family: Family): number {
  const block = family === 4 ? choices.address.blockLength4 : choices.address.blockLength6;
  const usual = family === 4 ? 24 : 64;
  return block > usual ? usual : Math.max(block - 8, family === 4 ? 12 : 40);
}

/** The first free subnet; `taken` must hold everything there is. Fault `exhausted`. */
export function chooseSubnet(family: Family, length: number, taken: readonly Pick<Taken, 'cidr'>[]): Cidr {
  const space = choosable[family];
  const near = taken.map(({ cidr }) => cidr).filter((cidr) => overlaps(cidr, space));
  for (let index = 0n; ;) {
    const candidate = subnetAt(space, length, index);
    if (candidate === undefined) break;
    const blocking = near.find((cidr) => overlaps(cidr, candidate));
    if (blocking === undefined) return candidate;
    index = after(blocking, candidate, index);
  }
  throw new Fault('exhausted', `No subnet /${length} is left in ${space}`, { hint: 'Name a range: --subnet' });
}

/** The position past `blocking`, which may be far larger than one candidate. */
function after(blocking: Cidr, candidate: Cidr, index: bigint): bigint {
  if (!covers(blocking, candidate)) return index + 1n;
  const bits = BigInt(cidrLength(candidate) - cidrLength(blocking));
  return ((index >> bits) + 1n) << bits;
}

/** Range, gateway and reserved addresses lie inside the pool. Faults: `invalid` naming the field below `at`. */
export function checkPool(pool: Pick<Pool, 'cidr' | 'range' | 'gateway' | 'reserved'>, at: string): void {
  const inside = (field: string, fits: boolean, text: string): void => {
    if (!fits) throw new Fault('invalid', `${text} is not inside ${pool.cidr}`, { field: `${at}${field}` });
  };
  if (pool.range !== undefined) inside('range', covers(pool.cidr, pool.range), pool.range);
  if (pool.gateway !== undefined) inside('gateway', contains(pool.cidr, pool.gateway), pool.gateway);
  for (const [key, value] of Object.entries(pool.reserved)) {
    inside(`reserved[${JSON.stringify(key.slice(0, 80))}]`, covers(pool.cidr, prefixOf(value)), value);
  }
}

const prefixOf = (value: string): Cidr => parseCidr(value.includes('/') ? value : `${value}/${value.includes(':') ? 128 : 32}`);

/** Blocks that a pool is cut into at least, if nobody chose their length, so that one host cannot take all of a small one. */
const fewestBlocksBits = 3;

/** The prefix length of a pool's blocks; `within` is what addresses are given from. */
export function blockLengthFor({ model, choices }: Pick<Network, 'model' | 'choices'>, cidr: Cidr, within: Cidr = cidr): number {
  const family = familyOf(cidr);
  const ofFamily = ({ address }: Choices): number => (family === 4 ? address.blockLength4 : address.blockLength6);
  const length = ofFamily(choices);
  const fewest = length === ofFamily(models[model].choices) ? Math.min(cidrLength(within) + fewestBlocksBits, bitsOf(family)) : 0;
  return Math.max(length, cidrLength(cidr), fewest);
}
