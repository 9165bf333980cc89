// The allowed address pairs of a port: which of them are ours, and how a wish fits in beside others'. A port takes only so many. A
// wish for more is written with fewer ranges where these hold exactly the same addresses; what is too much even then is left out
// and said, and nothing that is there goes for it. Pure.
import {
  bitsOf,
  type Cidr,
  cidrBase,
  cidrLast,
  cidrLength,
  cidrOf,
  cidrSize,
  covers,
  familyOf,
  hostPrefix,
  ipToBigint,
  parseCidr,
  parseIp,
  subnetAt,
} from '#model/ip.ts';
import type { AddressPair, NeutronPort } from './neutron-schemas.ts';
import type { Wish, WishedPort } from './wish.ts';

/** What Neutron takes by default (max_allowed_address_pair); which number a cloud has, it tells only who wants more. */
export const mostPairs = 10;
/** Of Neutron's words (neutron_lib/exceptions/allowedaddresspairs.py). */
export function pairsToldIn(words: string): number | undefined {
  const [, told] = /allowed address pair exceeds the maximum (\d+)/.exec(words) ?? [];
  return told === undefined ? undefined : Number(told);
}
export const tagOf = (name: string): string => `causeway.${name}`;
/** A tag is part of a path when it is set, so it holds no slash. */
export const rangeTag = (name: string, range: Cidr): string => `${tagOf(name)}.range.${range.replace('/', '_')}`;
/** Each address of the range is a pair. */
export const eachTag = (name: string, range: Cidr): string => `${tagOf(name)}.each.${range.replace('/', '_')}`;
/** Of a router: a route of others into a range of ours. */
export const theirsTag = (name: string, range: Cidr): string => `${tagOf(name)}.theirs.${range.replace('/', '_')}`;
/** Whether the tag is one of this installation's. */
export const isTag = (name: string, tag: string): boolean =>
  tag === tagOf(name) || ['range', 'each', 'theirs'].some((sort) => tag.startsWith(`${tagOf(name)}.${sort}.`));
const isSingle = (range: Cidr): boolean => cidrLength(range) === bitsOf(familyOf(range));
/** Of a single address Neutron keeps no length, and finds a port with that address as the one that the pair is for. */
export const pairText = (range: Cidr): string => (isSingle(range) ? cidrBase(range) : range);
export const pairsOf = ({ pairs, blocks }: Pick<WishedPort, 'pairs' | 'blocks'>): Cidr[] => [
  ...pairs,
  ...blocks.flatMap(({ addresses }) => addresses.map(hostPrefix)),
];
/** Of a port: pairs that its tags say to be ours. */
export const pairsOfTags = (name: string, tags: readonly string[]): Cidr[] => [
  ...rangesOfTags(name, tags),
  ...rangesOfTags(name, tags, 'each').flatMap(addressesIn),
];
const addressesIn = (range: Cidr): Cidr[] =>
  Array.from({ length: Number(cidrSize(range)) }, (_, index) => subnetAt(range, bitsOf(familyOf(range)), BigInt(index)) ?? []).flat();
export const rangesOfTags = (name: string, tags: readonly string[], sort: 'range' | 'each' = 'range'): Cidr[] => {
  const prefix = `${tagOf(name)}.${sort}.`;
  return tags.filter((tag) => tag.startsWith(prefix)).flatMap((tag) => rangeOf(tag.slice(prefix.length).replace('_', '/')) ?? []);
};

/** undefined for what is no range; people may write tags, too. */
export function rangeOf(text: string): Cidr | undefined {
  try {
    return parseCidr(text, 'range', false);
  } catch {
    return undefined;
  }
}

/** One without a MAC of its own gets the port's. */
export const isPlain = (pair: AddressPair, port: NeutronPort): boolean => pair.mac_address === undefined || pair.mac_address === port.mac;

/** A single address comes without its length. */
const rangeOfPair = ({ ip_address: text }: AddressPair): Cidr | undefined =>
  rangeOf(text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`);

/** Whether a port may send with every address of the range: by a pair of whomever. */
export const isPaired = (port: NeutronPort, range: Cidr): boolean =>
  port.pairs.some((pair) => {
    const found = isPlain(pair, port) ? rangeOfPair(pair) : undefined;
    return found !== undefined && covers(found, range);
  });

const place = (range: Cidr): bigint => ipToBigint(cidrBase(range));
const inOrder = (a: Cidr, b: Cidr): number =>
  familyOf(a) - familyOf(b) || (place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : cidrLength(a) - cidrLength(b));

/** The fewest ranges with exactly these addresses, in order. */
export function condensed(ranges: readonly Cidr[]): Cidr[] {
  const result: Cidr[] = [];
  for (const range of new Set(ranges.toSorted(inOrder))) {
    const last = result.at(-1);
    if (last !== undefined && covers(last, range)) continue;
    result.push(range);
    for (;;) {
      const [one, other] = result.slice(-2);
      const whole = one === undefined || other === undefined ? undefined : halvesOf(one, other);
      if (whole === undefined) break;
      result.splice(-2, 2, whole);
    }
  }
  return result;
}

/** The range of which these are the first and second half. */
function halvesOf(one: Cidr, other: Cidr): Cidr | undefined {
  const length = cidrLength(one);
  if (familyOf(one) !== familyOf(other) || length !== cidrLength(other) || length === 0) return undefined;
  const whole = cidrOf(cidrBase(one), length - 1);
  return cidrBase(whole) === cidrBase(one) && cidrLast(whole) === cidrLast(other) ? whole : undefined;
}

export interface Fitted {
  /** As much of the wish as the port takes. */
  readonly wished: WishedPort;
  /** Ranges with addresses that are not among its pairs. */
  readonly left: readonly Cidr[];
  readonly trouble?: string;
}

export interface Fitting {
  /** Of the installation. */
  readonly name: string;
  /** That a port takes, where that is known. */
  readonly most?: number | undefined;
}

/** What of the wish for a port with port security is to be had. */
export function fitted(wished: WishedPort, port: NeutronPort, { name, most = mostPairs }: Fitting): Fitted {
  const wanted = pairsOf(wished);
  const tagged = pairsOfTags(name, port.tags);
  const ours = new Set<string>([...tagged, ...wanted, ...condensed(wished.pairs)].map(pairText));
  const others = port.pairs.filter(({ ip_address: ip }) => !ours.has(ip)).length;
  const room = most - others;
  if (!port.portSecurity || wanted.length <= room) return { wished, left: [] };
  const fewer = condensed(wished.pairs);
  const count = fewer.length + wanted.length - wished.pairs.length;
  if (count <= room) return { wished: { ...wished, pairs: fewer }, left: [] };
  const there = tagged.filter((range) => isPaired(port, range));
  const chosen = chosenOf({ ...wished, pairs: fewer }, there, room);
  const left = [
    ...fewer.filter((range) => !condensed(chosen.pairs).some((one) => covers(one, range))),
    ...wished.blocks.filter((block) => !chosen.blocks.includes(block)).map(({ cidr }) => cidr),
  ];
  const rest = others === 0 ? '' : `, and ${others} are others'`;
  const lost = left.length === 0 ? '' : `. Not allowed: ${left.join(', ')}`;
  const trouble = `Port ${port.id} of host ${wished.host} would need ${count} allowed address pairs${rest}; a port takes ${most}${lost}. Carry networks by vxlan, which needs none`;
  return { wished: { ...wished, ...chosen }, left, trouble };
}

/** What is there stays; then come blocks, for which containers wait, and ranges in their order, as long as there is room. */
function chosenOf({ pairs, blocks }: WishedPort, there: readonly Cidr[], room: number): Pick<WishedPort, 'pairs' | 'blocks'> {
  const has = new Set<string>(there);
  const chosen = {
    pairs: there.filter((range) => pairs.some((one) => covers(one, range))),
    blocks: blocks.filter(({ addresses }) => addresses.every((ip) => has.has(hostPrefix(ip)))),
  };
  for (const block of blocks) {
    if (!chosen.blocks.includes(block) && pairsOf(chosen).length + block.addresses.length <= room) chosen.blocks.push(block);
  }
  for (const range of pairs) {
    const next = [...chosen.pairs.filter((one) => !covers(range, one)), range];
    if (!chosen.pairs.includes(range) && pairsOf({ ...chosen, pairs: next }).length <= room) chosen.pairs = next;
  }
  return chosen;
}

export interface Pairing {
  readonly add: readonly Cidr[];
  readonly remove: readonly Cidr[];
  /** That tell of pairs. */
  readonly tags: readonly string[];
}

type Refusing = Pick<Wish, 'name' | 'refused'>;
/** Whether the cloud does not let the pairs of a port be written. */
export const isUnpaired = ({ refused }: Refusing, { id }: NeutronPort): boolean => refused?.pairs.has(id) === true;

/**
 * Whether the address of a port of ours is a pair of ours of another one, from which the cloud does not let it be taken: nobody else is to
 * get the address while that one may send with it.
 */
export function holding(wish: Refusing, ports: readonly NeutronPort[]): (port: Pick<NeutronPort, 'addresses'>) => boolean {
  const stuck = ports.filter((port) => isUnpaired(wish, port));
  const held = stuck.flatMap((port) => pairsOfTags(wish.name, port.tags).filter((range) => isPaired(port, range)));
  return ({ addresses }) => addresses.some(({ ip }) => held.some((range) => covers(range, hostPrefix(parseIp(ip)))));
}

/** What to do to the pairs of a port. */
export const pairingOf = (wish: Refusing, wished: WishedPort, port: NeutronPort): Pairing =>
  isUnpaired(wish, port)
    ? { add: [], remove: [], tags: port.tags.filter((tag) => pairsOfTags(wish.name, [tag]).length > 0) }
    : wantedPairing(wish.name, wished, port);

function wantedPairing(name: string, wished: WishedPort, port: NeutronPort): Pairing {
  const has = (range: Cidr): boolean => port.pairs.some((pair) => isPlain(pair, port) && pair.ip_address === pairText(range));
  const tagged = pairsOfTags(name, port.tags);
  // A pair that somebody else has put there is theirs, also when we want it too.
  const ours = pairsOf(wished).filter((range) => !has(range) || tagged.includes(range));
  return {
    add: ours.filter((range) => !has(range)),
    remove: tagged.filter((range) => !ours.includes(range) && has(range)),
    tags: [
      ...wished.pairs.filter((range) => ours.includes(range)).map((range) => rangeTag(name, range)),
      ...wished.blocks.map(({ cidr }) => eachTag(name, cidr)),
    ],
  };
}

/** What of the wish for the pairs of a port the cloud does not let be. */
export function unpaired(
  wish: Refusing,
  wished: WishedPort,
  port: NeutronPort,
): { readonly left: readonly Cidr[]; readonly trouble?: string } {
  const why = wish.refused?.pairs.get(port.id);
  const { add, remove } = wantedPairing(wish.name, wished, port);
  const left = add.filter((range) => !isPaired(port, range));
  if (why === undefined || left.length + remove.length === 0) return { left: [] };
  const lacks = left.length === 0 ? [] : [`lacks ${left.join(', ')}`];
  const keeps = remove.length === 0 ? [] : [`keeps ${remove.join(', ')}`];
  const other =
    left.length === 0 ? '' : '. Carry networks by vxlan or wireguard, which need none, or have the operator of the cloud write them';
  return {
    left,
    trouble: `Of allowed address pairs port ${port.id} of ${wished.host} ${[...lacks, ...keeps].join(', and ')}: ${why}${other}`,
  };
}
