// Ports of the cloud that a node has for pods of a network of ours: one custom resource for each network and node. The node's agent
// says what it wants of which network (`spec`); the controller that keeps the cloud says where that is and which blocks of addresses
// have ports by now (`status`), and a block is there no sooner than all of its ports. What the status says is all that is known of it:
// a definition may be deleted while pods are in its network, and a controller may be a new one.
import { createHash } from 'node:crypto';
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { companionRange } from '#drivers/companion.ts';
import { choicesFor } from '#drivers/models.ts';
import { Fault } from '#model/fault.ts';
import { bitsOf, type Cidr, cidrBase, cidrLength, contains, covers, type Family, familyOf, type Ip } from '#model/ip.ts';
import type { Block, Network, NeutronPlace, Pool } from '#model/resources.ts';
import { revisionOf } from './client.ts';
import { fallbackPoolId, fallbacksOf, meta, type NetworkFacts, type OwnNetwork, ownNetwork, poolId } from './own-network.ts';

export const portPoolsPath = '/apis/causeway.dev/v1alpha1/portpools';
const kind = { apiVersion: 'causeway.dev/v1alpha1', kind: 'PortPool' } as const;

export interface HeldBlock {
  readonly cidr: Cidr;
  readonly vlan?: number;
}

export interface PortPool {
  readonly name: string;
  readonly revision: number;
  readonly network: OwnNetwork;
  readonly host: string;
  /** How many blocks of each subnet the node wants. */
  readonly wanted: number;
  /** Blocks that the node gives back: it uses them no more. */
  readonly left: readonly Cidr[];
  /** How many of the node's pods have no port, and an address of the fallback instead. */
  readonly portless: number;
  /** Where the network lies; absent: nobody has looked. */
  readonly place?: PodPlace;
  readonly blocks: readonly HeldBlock[];
  /** Why there are fewer blocks than wanted. */
  readonly problem?: string;
}

/** With the gateways of its subnets, as far as they have one; absent: nobody has looked for them. */
export type PodPlace = NeutronPlace & { readonly gateways?: readonly Ip[] };

const place: v.GenericSchema<unknown, PodPlace> = v.object({
  network: v.string(),
  subnet: v.string(),
  subnet6: v.exactOptional(v.string()),
  mtu: v.exactOptional(field.mtu),
  groups: v.exactOptional(v.array(v.string())),
  gateways: v.exactOptional(v.array(field.ip)),
});
const resource = v.looseObject({
  metadata: v.looseObject({ name: v.string(), resourceVersion: v.string() }),
  spec: v.looseObject({
    network: ownNetwork,
    host: v.string(),
    blocks: field.count,
    left: v.optional(v.array(field.cidr), []),
    portless: v.optional(field.count, 0),
  }),
  status: v.optional(
    v.looseObject({
      place: v.exactOptional(place),
      blocks: v.optional(v.array(v.object({ cidr: field.cidr, vlan: v.exactOptional(field.vlan) })), []),
      problem: v.exactOptional(v.string()),
    }),
    {},
  ),
});

/** Of a network and a node. */
export const portPoolName = ({ id }: Pick<OwnNetwork, 'id'>, host: string): string => `${id}.${host}`;

/** Fault `invalid` when it is none of ours. */
export function readPortPool(item: unknown): PortPool {
  const read = v.safeParse(resource, item);
  if (!read.success) throw new Fault('invalid', `A PortPool cannot be read: ${read.issues[0].message}`);
  const { metadata, spec, status } = read.output;
  return {
    name: metadata.name,
    revision: revisionOf(metadata.resourceVersion),
    network: spec.network,
    host: spec.host,
    wanted: spec.blocks,
    left: spec.left,
    portless: spec.portless,
    ...(status.place === undefined ? {} : { place: status.place }),
    blocks: status.blocks,
    ...(status.problem === undefined ? {} : { problem: status.problem }),
  };
}

export type PortPoolSpec = Pick<PortPool, 'network' | 'host' | 'wanted' | 'left' | 'portless'>;

/** As its agent writes it; with `revision` in the place of that one. */
export const bodyOfPool = ({ network, host, wanted, left, portless }: PortPoolSpec, revision?: number): object => ({
  ...kind,
  metadata: { name: portPoolName(network, host), ...(revision === undefined ? {} : { resourceVersion: String(revision) }) },
  spec: { network, host, blocks: wanted, ...(left.length === 0 ? {} : { left }), ...(portless === 0 ? {} : { portless }) },
});

export type PortPoolStatus = Pick<PortPool, 'place' | 'blocks' | 'problem'>;

/** The item with another status, for a server that compares its resource version. */
export function withPoolStatus(item: unknown, status: PortPoolStatus): object {
  const read = v.safeParse(resource, item);
  if (!read.success) throw new Fault('invalid', `A PortPool cannot be read: ${read.issues[0].message}`);
  return { ...kind, ...read.output, status };
}

const blockId = ({ id }: OwnNetwork, cidr: Cidr): string =>
  `ports${createHash('sha256').update(`${id} ${cidr}`).digest('hex').slice(0, 16)}`;

/** One of a node's, as it would be with ports for each of its addresses. Fault `invalid` for one of no subnet. */
export function blockOf({ network, host }: Pick<PortPool, 'network' | 'host'>, { cidr, vlan }: HeldBlock): Block {
  const subnet = network.subnets.find((one) => covers(one, cidr));
  if (subnet === undefined) throw new Fault('invalid', `${cidr} is in no subnet of ${network.key}`);
  const id = blockId(network, cidr);
  return {
    ...meta(id, network.createdAt),
    network: network.id,
    pool: poolId(network, subnet),
    cidr,
    host,
    loans: [],
    ...(vlan === undefined ? {} : { vlan }),
  };
}

export const blocksOfPool = (pool: PortPool): Block[] => pool.blocks.map((held) => blockOf(pool, held));

const withoutGateways = ({ gateways: _gateways, ...rest }: PodPlace): NeutronPlace => rest;

/** The network and its pools. Without knowing where in the cloud it lies nobody starts a pod without a port of it. */
export function cloudFactsOf(network: OwnNetwork, known?: PodPlace): NetworkFacts {
  const { ports = 1, mtu } = network;
  const gateways = known?.gateways ?? [];
  const fallbacks = known === undefined ? [] : fallbacksOf(network);
  const lengthOf = (family: Family): number => bitsOf(family) - Math.log2(ports);
  return {
    network: {
      ...meta(network.id, network.createdAt),
      model: 'neutron',
      tenant: 'default',
      choices: choicesFor('neutron', { blockLength4: lengthOf(4), blockLength6: lengthOf(6) }),
      encrypted: false,
      internal: false,
      vni: network.vni,
      ...(mtu === undefined ? {} : { mtu }),
      attachable: false,
      addressing: 'blocks',
      names: 'elsewhere',
      ...(known === undefined ? {} : { neutron: { ...withoutGateways(known), ...(fallbacks.length === 0 ? {} : { fallback: true }) } }),
      // Who leads to pods without ports, which all nodes are to reach.
      ...(fallbacks.length === 0 ? {} : { present: 'always' }),
    },
    pools: [...portedPools(network, { lengthOf, gateways }), ...fallbacks.map((cidr) => fallbackPool(network, cidr))],
  };
}

interface Ported {
  readonly lengthOf: (family: Family) => number;
  readonly gateways: readonly Ip[];
}

function portedPools(network: OwnNetwork, { lengthOf, gateways }: Ported): Pool[] {
  const { subnets, ranges = [] } = network;
  return subnets.map((cidr) => {
    const id = poolId(network, cidr);
    const range = ranges.find((one) => contains(cidr, cidrBase(one)));
    const gateway = gateways.find((ip) => familyOf(ip) === familyOf(cidr));
    return {
      ...meta(id, network.createdAt),
      network: network.id,
      cidr,
      ...(range === undefined ? {} : { range }),
      ...(gateway === undefined ? {} : { gateway }),
      reserved: {},
      blockLength: lengthOf(familyOf(cidr)),
    };
  });
}

/** Nodes have their parts of it by their podCIDRs, and no other. */
const fallbackPool = (network: OwnNetwork, cidr: Cidr): Pool => ({
  ...meta(fallbackPoolId(network, familyOf(cidr)), network.createdAt),
  network: network.id,
  cidr,
  range: companionRange(cidr),
  reserved: {},
  blockLength: cidrLength(companionRange(cidr)),
  fallback: true,
});

export interface PortFacts {
  readonly networks: readonly Network[];
  readonly pools: readonly Pool[];
  readonly blocks: readonly Block[];
}

/** One sentence for each node that has pods without ports. */
export const portlessText = (pools: readonly PortPool[]): string[] =>
  pools
    .filter(({ portless }) => portless > 0)
    .map(({ portless, network, host, problem }) => {
      const who = `${portless} ${portless === 1 ? 'pod' : 'pods'} of ${network.key} on ${host}`;
      return [
        `${who} without ports of the cloud, in its overlay ${fallbacksOf(network).join(' and ')}`,
        ...(problem === undefined ? [] : [problem]),
      ].join(': ');
    });

/** What the cloud beneath has to know of them: networks whose place is known, with the blocks that nodes have. */
export function portFacts(pools: readonly PortPool[]): PortFacts {
  const placed = pools.filter(({ place: found }) => found !== undefined);
  const networks = [...new Map(placed.map((pool) => [pool.network.id, pool])).values()];
  const all = networks.map(({ network, place: found }) => ({ ...cloudFactsOf(network, found), key: network.key }));
  return {
    networks: all.map(({ network, key }) => ({ ...network, name: key })),
    pools: all.flatMap((facts) => facts.pools),
    blocks: placed.flatMap(blocksOfPool),
  };
}
