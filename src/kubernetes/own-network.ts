// Networks of ours that a cluster defines: a NetworkAttachmentDefinition whose configuration has a plugin `causeway` with
// `subnets`. Nothing else is stored of them, and nobody gives out their blocks: a node's part of such a network is as far along in it
// as its podCIDR is in the range of pods, so every agent works out all of them alike. Only nodes of the model `calico`, which have no
// such range, claim blocks (own-blocks.ts). With `neutron` it is a network of the cloud, whose
// pods have ports of their own there: blocks of those are given out by the controller that keeps the cloud (port-pools.ts).
import { createHash } from 'node:crypto';
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { NeutronRequest } from '#api/local.ts';
import { parse } from '#api/parse.ts';
import { neutronRequest } from '#api/requests.ts';
import { companionHint, companionRange, companionRanges } from '#drivers/companion.ts';
import { choicesFor } from '#drivers/models.ts';
import { Fault } from '#model/fault.ts';
import {
  bitsOf,
  type Cidr,
  cidrBase,
  cidrLength,
  covers,
  type Family,
  familyOf,
  ipToBigint,
  overlaps,
  parseCidr,
  subnetAt,
} from '#model/ip.ts';
import { portRange } from '#model/numbers.ts';
import type { Block, CarryName, Choices, Meta, ModelName, Network, Pool } from '#model/resources.ts';
import { type NodeFacts, podNetwork } from './nodes.ts';

export interface OwnNetwork {
  /** `namespace/name` of the definition. */
  readonly key: string;
  /** Follows from what cannot change without its being another network. */
  readonly id: string;
  readonly vni: number;
  /** One per family at most. */
  readonly subnets: readonly Cidr[];
  readonly mtu?: number;
  /** Where in the cloud it lies; absent: nodes carry it. */
  readonly neutron?: NeutronRequest;
  /** With it: what pods get of each subnet. */
  readonly ranges?: readonly Cidr[];
  /** With it: how many ports a node has made at a time. */
  readonly ports?: number;
  /** With it: of pods for which the cloud gives no port, one a family; absent: they fail. */
  readonly fallback?: Cidr;
  readonly fallback6?: Cidr;
  /** Of the definition, RFC 3339. */
  readonly createdAt: string;
}

export const ownNetwork: v.GenericSchema<unknown, OwnNetwork> = v.object({
  key: v.string(),
  id: field.id,
  vni: field.vni,
  subnets: v.array(field.cidr),
  mtu: v.exactOptional(field.mtu),
  neutron: v.exactOptional(neutronRequest),
  ranges: v.exactOptional(v.array(field.cidr)),
  ports: v.exactOptional(v.number()),
  fallback: v.exactOptional(field.cidr),
  fallback6: v.exactOptional(field.cidr),
  createdAt: field.timestamp,
});

const definition = v.object({
  metadata: v.object({ creationTimestamp: v.optional(field.timestamp, '1970-01-01T00:00:00Z') }),
  spec: v.nullish(v.object({ config: v.nullish(v.string(), '') }), {}),
});
const configured = v.pipe(v.string(), v.parseJson(), field.object);
const families = v.pipe(
  field.listOf(field.cidr, 2),
  v.minLength(1, 'expected a range'),
  v.check((ranges) => new Set(ranges.map(familyOf)).size === ranges.length, 'expected one range per family'),
);
const described = v.pipe(
  v.object({
    subnets: families,
    vni: v.exactOptional(field.vni),
    mtu: v.exactOptional(field.mtu),
    neutron: v.exactOptional(neutronRequest),
    ranges: v.exactOptional(families),
    ports: v.exactOptional(v.picklist([2, 4, 8, 16, 32, 64, 128, 256], 'expected a power of two from 2 to 256')),
  }),
  v.check(
    ({ neutron, subnets }) => companionRanges(neutron?.fallback ?? 'overlay', subnets.map(familyOf)) !== undefined,
    `neutron.fallback: expected ${companionHint([4, 6])}, of a family of the subnets`,
  ),
  v.check(({ neutron, vni }) => neutron === undefined || vni === undefined, 'vni is for networks that nodes carry'),
  v.check(
    ({ neutron, ranges, ports }) => neutron !== undefined || (ranges === undefined && ports === undefined),
    'ranges and ports are for networks of the cloud: name it by neutron',
  ),
  v.check(
    ({ subnets, ranges = [] }) => ranges.every((range) => subnets.some((subnet) => covers(subnet, range))),
    'ranges: expected a part of each subnet',
  ),
);

/** Keys of the plugin that say what the network is, and are not for who attaches to it. */
export const describingKeys: readonly string[] = ['subnets', 'vni', 'mtu', 'neutron', 'ranges', 'ports'];

/** Plugins of a configuration or list, with their places in it. */
export function pluginsOf(
  configuration: Readonly<Record<string, unknown>>,
): { plugin: Readonly<Record<string, unknown>>; place: string }[] {
  const { plugins } = configuration;
  if (!Array.isArray(plugins)) return [{ plugin: configuration, place: '' }];
  return plugins.flatMap((one: unknown, index) => {
    const read = v.safeParse(field.object, one);
    return read.success ? [{ plugin: read.output, place: `plugins[${index}]: ` }] : [];
  });
}

/** Undefined: it describes none. Fault `invalid` naming the field. */
export function readOwnNetwork(key: string, item: unknown): OwnNetwork | undefined {
  const read = v.safeParse(definition, item);
  if (!read.success) return undefined;
  const { metadata, spec } = read.output;
  const text = v.safeParse(configured, spec?.config);
  const own = text.success ? pluginsOf(text.output).filter(({ plugin }) => plugin['type'] === 'causeway') : [];
  const [first, second] = own;
  if (first === undefined) return undefined;
  if (second !== undefined)
    throw new Fault('invalid', `spec.config: ${second.place}there is a plugin causeway before it`, { field: 'spec.config' });
  try {
    const { subnets, vni, mtu, neutron, ranges, ports } = parse(described, first.plugin, 'it');
    const place = neutron === undefined ? [] : [neutron, ranges, ports];
    const hash = createHash('sha256')
      .update(JSON.stringify([key, subnets, vni, ...place]))
      .digest('hex');
    // Beyond the first thousands, which people choose, and the pods' own.
    const derived = portRange + (Number.parseInt(hash.slice(16, 24), 16) % (0xffffff - portRange));
    return {
      key,
      id: `further${hash.slice(0, 16)}`,
      vni: vni ?? derived,
      subnets,
      ...(mtu === undefined ? {} : { mtu }),
      ...(neutron === undefined ? {} : { neutron, ranges: subnets.map((subnet) => rangeIn(subnet, ranges)), ports: ports ?? usualPorts }),
      ...fallbackOf(neutron?.fallback, subnets, hash.slice(24, 32)),
      createdAt: metadata.creationTimestamp,
    };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault('invalid', `spec.config: ${first.place}${error.message}`, { field: 'spec.config' });
  }
}

const usualPorts = 8;

/** Where none is chosen, one of 32 ranges /16 that clusters' pods and services are not in by any usual setting, or a /64 of our own. */
function fallbackOf(
  asked: 'overlay' | Cidr | undefined,
  subnets: readonly Cidr[],
  hash: string,
): Pick<OwnNetwork, 'fallback' | 'fallback6'> {
  const ranges = asked === undefined ? undefined : companionRanges(asked, subnets.map(familyOf));
  const chosen = {
    4: () => parseCidr(`10.${192 + (Number.parseInt(hash, 16) % 32)}.0.0/16`),
    6: () => parseCidr(`fd63:7704:${hash.slice(0, 4)}:${hash.slice(4)}::/64`),
  };
  const of = (family: Family): Cidr | undefined => (ranges?.has(family) === true ? (ranges.get(family) ?? chosen[family]()) : undefined);
  const [fallback, fallback6] = [of(4), of(6)];
  return { ...(fallback === undefined ? {} : { fallback }), ...(fallback6 === undefined ? {} : { fallback6 }) };
}

/** One a family; none: pods fail for which the cloud gives no port. */
export const fallbacksOf = ({ fallback, fallback6 }: Pick<OwnNetwork, 'fallback' | 'fallback6'>): readonly Cidr[] =>
  [fallback, fallback6].filter((cidr) => cidr !== undefined);

/** Otherwise the half of the subnet where instances are not usually given addresses first. */
const rangeIn = (subnet: Cidr, ranges: readonly Cidr[] = []): Cidr =>
  ranges.find((range) => covers(subnet, range)) ?? subnetAt(subnet, cidrLength(subnet) + 1, 1n) ?? subnet;

export interface Surroundings {
  readonly podCidrs: readonly Cidr[];
  /** Where hosts have their addresses. */
  readonly hosts: readonly Cidr[];
}

/** On one subnet of the cloud there may be several, each with a range of its own. */
const takenBy = ({ neutron, subnets, ranges }: OwnNetwork, other: OwnNetwork): readonly Cidr[] =>
  neutron === undefined || other.neutron === undefined ? subnets : (ranges ?? subnets);

function fallbackConflict(network: OwnNetwork, others: readonly OwnNetwork[], { podCidrs, hosts }: Surroundings): string | undefined {
  const subnets = [network, ...others].flatMap((one) => one.subnets);
  const near = [...podCidrs, ...hosts, ...subnets, ...others.flatMap(fallbacksOf)];
  for (const own of fallbacksOf(network)) {
    const hit = near.find((cidr) => overlaps(cidr, own));
    if (hit !== undefined) return `its fallback ${own} overlaps ${hit}: name another range by "fallback"`;
  }
  const taken = others.find((other) => fallbacksOf(other).some((own) => network.subnets.some((subnet) => overlaps(subnet, own))));
  return taken === undefined ? undefined : `its range overlaps the fallback of ${taken.key}`;
}

/** Undefined: it can be beside the others. Networks that share a UDP port of WireGuard would take each other's packets. */
export function conflictOf(network: OwnNetwork, others: readonly OwnNetwork[], { podCidrs, hosts }: Surroundings): string | undefined {
  const overlapped = (ranges: readonly Cidr[], own = network.subnets): Cidr | undefined =>
    ranges.find((range) => own.some((subnet) => overlaps(range, subnet)));
  const [pods, underlay] = [overlapped(podCidrs), network.neutron === undefined ? overlapped(hosts) : undefined];
  if (pods !== undefined) return `its range overlaps that of pods, ${pods}`;
  if (underlay !== undefined) return `its range overlaps that of hosts, ${underlay}`;
  const overlapping = others.find((other) => overlapped(takenBy(other, network), takenBy(network, other)) !== undefined);
  if (overlapping !== undefined) return `its range overlaps that of ${overlapping.key}`;
  const unfit = fallbackConflict(network, others, { podCidrs, hosts });
  if (unfit !== undefined) return unfit;
  if (network.neutron !== undefined) return undefined;
  const carried = others.filter(({ neutron }) => neutron === undefined);
  const sharing = [podNetwork.vni, ...carried.map(({ vni }) => vni)].some((vni) => vni % portRange === network.vni % portRange);
  return sharing ? `its vni ${network.vni} has the same rest by ${portRange} as another network's: give it one by "vni"` : undefined;
}

export const meta = (id: string, createdAt: string): Meta => ({ id, name: id, revision: 1, createdAt, labels: {} });

export const poolId = ({ id }: OwnNetwork, subnet: Cidr): string => `${id}p${familyOf(subnet)}`;

export interface NodePlace {
  /** Number of the node's range among those of its length in the range of pods, and how many bits number them. */
  readonly number: bigint;
  readonly bits: number;
}

/** Undefined while the node has no range. */
export function nodePlace({ blocks }: NodeFacts, podCidrs: readonly Cidr[]): NodePlace | undefined {
  const [first] = blocks;
  const range = first === undefined ? undefined : podCidrs.find((one) => covers(one, first.cidr));
  if (first === undefined || range === undefined) return undefined;
  const bits = cidrLength(first.cidr) - cidrLength(range);
  const below = BigInt(bitsOf(familyOf(range)) - cidrLength(first.cidr));
  return { number: (ipToBigint(cidrBase(first.cidr)) - ipToBigint(cidrBase(range))) >> below, bits };
}

/** The node's parts. None of a range that is too small to have four addresses for each. */
export const blocksOf = (network: OwnNetwork, host: string, place: NodePlace): Block[] =>
  network.subnets.flatMap((subnet) => partOf({ network, pool: poolId(network, subnet), range: subnet }, host, place));

export const fallbackPoolId = ({ id }: Pick<OwnNetwork, 'id'>, family: Family): string => `${id}o${family}`;

/** Of what pods for which the cloud gives no port get; the same. */
export const fallbackBlocksOf = (network: OwnNetwork, host: string, place: NodePlace): Block[] =>
  fallbacksOf(network).flatMap((cidr) =>
    partOf({ network, pool: fallbackPoolId(network, familyOf(cidr)), range: companionRange(cidr) }, host, place),
  );

interface Divided {
  readonly network: OwnNetwork;
  readonly pool: string;
  readonly range: Cidr;
}

function partOf({ network: { id, createdAt }, pool, range }: Divided, host: string, { number, bits }: NodePlace): Block[] {
  const length = cidrLength(range) + bits;
  const cidr = length > bitsOf(familyOf(range)) - 2 ? undefined : subnetAt(range, length, number);
  return cidr === undefined ? [] : [{ ...meta(`${pool}b${number.toString(36)}`, createdAt), network: id, pool, cidr, host, loans: [] }];
}

export interface OwnNetworkOptions {
  readonly carry?: CarryName;
  /** This node's own parts, of which the first address is nobody's, as in the cluster's network. */
  readonly own: readonly Block[];
}

export interface NetworkFacts {
  readonly network: Network;
  readonly pools: readonly Pool[];
}

/** As nodes have it. */
export const made = (network: OwnNetwork, model: ModelName, choices: Choices): Network => ({
  ...meta(network.id, network.createdAt),
  model,
  tenant: 'default',
  choices,
  encrypted: choices.carry === 'wireguard',
  // The way out of a pod is the cluster's network.
  internal: true,
  vni: network.vni,
  ...(network.mtu === undefined ? {} : { mtu: network.mtu }),
  attachable: false,
  addressing: 'blocks',
  names: 'elsewhere',
});

/** The network and its pools, as this node has them. */
export function factsOf(network: OwnNetwork, { carry, own }: OwnNetworkOptions): NetworkFacts {
  const lengthOf = (subnet: Cidr): number => cidrLength(own.find(({ pool }) => pool === poolId(network, subnet))?.cidr ?? subnet);
  const [four, six] = ([4, 6] as const).map((family) => network.subnets.find((subnet) => familyOf(subnet) === family));
  const choices = choicesFor('flannel', {
    carry,
    blockLength4: four === undefined ? undefined : lengthOf(four),
    blockLength6: six === undefined ? undefined : lengthOf(six),
  });
  return {
    network: made(network, 'flannel', choices),
    pools: network.subnets.map((cidr) => {
      const id = poolId(network, cidr);
      const block = own.find(({ pool }) => pool === id);
      return {
        ...meta(id, network.createdAt),
        network: network.id,
        cidr,
        reserved: block === undefined ? {} : { node: cidrBase(block.cidr) },
        blockLength: lengthOf(cidr),
      };
    }),
  };
}
