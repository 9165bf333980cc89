// What a cluster consists of, as far as the cloud beneath it has to know: hosts, the network of all pods with its ranges and every
// carriage that nodes want (two while they are changed node by node), networks that the cluster defines, and what its services ask
// for. Pure: the same objects give the same facts.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { type BgpRouter, routersOf } from '#api/bgp-routers.ts';
import { excludeLabel } from '#drivers/announce.ts';
import { models } from '#drivers/models.ts';
import { byAge } from '#model/age.ts';
import { type NodePort, type ServiceBalancer, serverLabel } from '#model/cloud-services.ts';
import { isFault } from '#model/fault.ts';
import type { Cidr } from '#model/ip.ts';
import type { Block, Host, Network, Pool } from '#model/resources.ts';
import { podCidrsOf, readAnnotations } from './annotations.ts';
import { blocksPath, readBlock } from './blocks.ts';
import { ipPoolIn } from './calico.ts';
import { CalicoFacts, readCalicoNode } from './calico-facts.ts';
import { clusterNetwork, podNetwork, readNode } from './nodes.ts';
import { claimedFacts } from './own-blocks.ts';
import { prefix } from './openstack-proxy.ts';
import { type AskedBalancer, readAsk, type Serving } from './openstack-service.ts';
import { blocksOf, conflictOf, factsOf, nodePlace, type OwnNetwork, readOwnNetwork } from './own-network.ts';
import { definitionsPath } from './own-networks.ts';
import { portFacts, portlessText, type PortPool, portPoolsPath, readPortPool } from './port-pools.ts';
import { type Carried, carriedBy } from './refused-carriages.ts';
import { readSlice, sliceVersions } from './services.ts';

export const cloudKinds = ['nodes', 'services', 'slices', 'ipPools', 'blocks', 'definitions', 'portPools', 'bgpPeers'] as const;
/** Sorts of objects that it depends on. */
export type CloudKind = (typeof cloudKinds)[number];
/** Where each is; those that a server may lack are empty there. */
export const cloudPaths: Readonly<Record<CloudKind, { readonly paths: readonly string[]; readonly absent?: 'empty' }>> = {
  nodes: { paths: ['/api/v1/nodes'] },
  services: { paths: ['/api/v1/services'] },
  slices: { paths: sliceVersions },
  ipPools: { paths: ['/apis/projectcalico.org/v3/ippools'], absent: 'empty' },
  blocks: { paths: [blocksPath], absent: 'empty' },
  definitions: { paths: [definitionsPath], absent: 'empty' },
  portPools: { paths: [portPoolsPath], absent: 'empty' },
  bgpPeers: { paths: ['/apis/projectcalico.org/v3/bgppeers'], absent: 'empty' },
};

/** By their keys. */
export type ClusterObjects = Readonly<Record<CloudKind, ReadonlyMap<string, unknown>>>;

/** None of any kind. */
export const noObjects = (): Record<CloudKind, Map<string, unknown>> => ({
  nodes: new Map(),
  services: new Map(),
  slices: new Map(),
  ipPools: new Map(),
  blocks: new Map(),
  definitions: new Map(),
  portPools: new Map(),
  bgpPeers: new Map(),
});

export interface ClusterFacts {
  readonly hosts: readonly Host[];
  readonly networks: readonly Network[];
  readonly pools: readonly Pool[];
  readonly blocks: readonly Block[];
  readonly endpoints: readonly [];
  readonly exposures: readonly [];
  readonly routers: readonly BgpRouter[];
  readonly nodePorts: readonly NodePort[];
  readonly services: readonly ServiceBalancer[];
}

export interface ClusterWish {
  readonly facts: ClusterFacts;
  /** Services that are to have a load balancer of the cloud, those too that cannot. */
  readonly asked: readonly AskedBalancer[];
  /** What else is to be known of it, one sentence each. */
  readonly problems: readonly string[];
}

const annotated = v.object({ metadata: v.object({ annotations: v.nullish(v.record(v.string(), v.string()), {}) }) });
const specified = v.object({ spec: v.unknown(), metadata: v.object({ creationTimestamp: field.timestamp }) });

/** What is wrong with one is said in its conditions. */
function peerOf(name: string, item: unknown): { name: string; spec: unknown }[] {
  const read = v.safeParse(specified, item);
  return read.success ? [{ name, spec: read.output.spec }] : [];
}

const provided = v.object({ spec: v.object({ providerID: v.string() }) });
/** As the cloud's provider writes it: `openstack:///ID`, `openstack://REGION/ID`. */
function serverOf(item: unknown): Record<string, string> {
  const read = v.safeParse(provided, item);
  const [, id] = (read.success && /^openstack:\/\/[^/]*\/([^/]+)$/.exec(read.output.spec.providerID)) || [];
  return id === undefined ? {} : { [serverLabel]: id };
}

const annotationsOf = (item: unknown): Readonly<Record<string, string>> => {
  const read = v.safeParse(annotated, item);
  return read.success ? (read.output.metadata.annotations ?? {}) : {};
};

const labelled = v.object({ metadata: v.object({ labels: v.nullish(field.texts, {}) }) });
const labelsOf = (item: unknown): Readonly<Record<string, string>> => {
  const read = v.safeParse(labelled, item);
  return read.success ? (read.output.metadata.labels ?? {}) : {};
};

/** One that cannot be read keeps no other from being used; whoever uses it says what is wrong with it. */
export function readable<T>(items: Iterable<unknown>, read: (item: unknown) => T | undefined): T[] {
  return [...items].flatMap((item) => {
    try {
      return read(item) ?? [];
    } catch (error) {
      if (!isFault(error)) throw error;
      return [];
    }
  });
}

export function clusterWish(objects: ClusterObjects, serving: Serving): ClusterWish {
  const nodes = [...objects.nodes].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, item]) => item);
  const podCidrs = [...new Set(nodes.flatMap((item) => podCidrsOf(annotationsOf(item))))].toSorted();
  const pods = known(podCidrs.length > 0 ? flannelFacts(nodes, podCidrs) : calicoFacts(nodes, objects));
  // What a Node does not say of its links, such as their MTU, is not taken for something.
  const hosts = pods.hosts.map((host) => ({
    ...host,
    labels: { ...host.labels, ...serverOf(objects.nodes.get(host.id)) },
    underlay: host.underlay.map((link) => ({ ...link, mtu: 0 })),
  }));
  const further = podCidrs.length > 0 ? furtherFacts(objects, podCidrs, nodes) : claimedFurther(objects, pods, nodes);
  const portPools = portPoolsOf(objects);
  const ports = portFacts(portPools);
  const asks = [...objects.services.values()].map((item) => readAsk(item, serving));
  const asked = asks.flatMap(({ balancer }) => balancer ?? []).toSorted((a, b) => (a.key < b.key ? -1 : 1));
  const places = new Places(objects, hosts);
  return {
    facts: {
      hosts,
      networks: [...pods.networks, ...further.networks, ...ports.networks],
      pools: [...pods.pools, ...further.pools, ...ports.pools],
      blocks: [...pods.blocks, ...further.blocks, ...ports.blocks],
      endpoints: [],
      exposures: [],
      routers: routersOf([...objects.bgpPeers].flatMap(([name, item]) => peerOf(name, item))),
      nodePorts: asks.flatMap(({ nodePorts }) => nodePorts),
      services: asked.flatMap((one) => (one.balancer === undefined ? [] : [{ ...one.balancer, hosts: places.of(one) }])),
    },
    asked: asked.map((one) => (places.isForNone(one) ? { ...one, notes: [...one.notes, nowhere] } : one)),
    problems: portlessText(portPools),
  };
}

/** Of nodes that there are, in an order that stays. */
export const portPoolsOf = ({ portPools, nodes }: ClusterObjects): PortPool[] =>
  readable(
    [...portPools].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, item]) => item),
    readPortPool,
  ).filter(({ host }) => nodes.has(host));

/** One sentence for each service that cannot have the load balancer that it asks for. */
export const refusals = (asked: readonly AskedBalancer[]): string[] =>
  asked.flatMap(({ key, balancer, notes }) => (balancer === undefined ? [`Service ${key} has no load balancer: ${notes.join('. ')}`] : []));

type PodFacts = Pick<ClusterFacts, 'hosts' | 'networks' | 'pools' | 'blocks'>;

const nothing: PodFacts = { hosts: [], networks: [], pools: [], blocks: [] };
/** As long as nobody has told of the network, or of its ranges, nothing is known: to wish for less would take things back. */
const known = (facts: PodFacts): PodFacts => (facts.networks.length > 0 && facts.pools.length > 0 ? facts : nothing);

/** Each once, in an order that stays. */
const carriesOf = (nodes: readonly unknown[]): Carried[] => {
  const told = nodes.flatMap((item) => readAnnotations(annotationsOf(item)).carrying ?? []).flatMap(carriedBy);
  const by = new Map(told.map((one) => [`${one.carry} ${one.instead?.carry ?? ''}`, one]));
  return [...by].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, one]) => one);
};

const withInstead = (network: Network, { instead }: Carried): Network => (instead === undefined ? network : { ...network, instead });

function flannelFacts(nodes: readonly unknown[], podCidrs: readonly Cidr[]): PodFacts {
  const read = readable(nodes, (item) => readNode(item, { podCidrs }));
  const blocks = read.flatMap((node) => node.blocks);
  const wanted = carriesOf(nodes).filter(({ carry }) => models.flannel.carries.includes(carry));
  const networks = wanted.map((one) => {
    const { network, pools } = clusterNetwork({ podCidrs, carry: one.carry }, blocks);
    return { network: withInstead(network, one), pools };
  });
  return {
    hosts: read.flatMap(({ host }) => host ?? []),
    networks: networks.map(({ network }) => network),
    pools: networks[0]?.pools ?? [],
    blocks,
  };
}

function calicoFacts(nodes: readonly unknown[], { ipPools, blocks }: ClusterObjects): PodFacts {
  const wanted = carriesOf(nodes).filter(({ carry }) => models.calico.carries.includes(carry));
  const facts = new CalicoFacts(undefined);
  const pools = [...ipPools].flatMap(([name, item]) => ipPoolIn(name, item) ?? []);
  const claimed = readable(blocks.values(), readBlock).filter(({ network }) => network === podNetwork.id);
  for (const pool of pools) facts.pools.set(pool.name, pool);
  for (const block of claimed) facts.blocks.set(block.id, block);
  return {
    hosts: readable(nodes, readCalicoNode),
    networks: wanted.map((one) => withInstead(new CalicoFacts(one.carry).network(), one)),
    pools: [...pools.map((pool) => facts.poolOf(pool)), ...facts.left()],
    blocks: claimed,
  };
}

/** Older definitions first, as agents choose. */
function ownNetworks({ definitions }: ClusterObjects, podCidrs: readonly Cidr[]): OwnNetwork[] {
  const read = [...definitions].flatMap(([key, item]) => readable([item], () => readOwnNetwork(key, item)));
  const used: OwnNetwork[] = [];
  for (const one of read.toSorted(byAge(({ key }) => key)))
    if (conflictOf(one, used, { podCidrs, hosts: [] }) === undefined) used.push(one);
  // Of those of the cloud what nodes have asked for counts.
  return used.filter(({ neutron }) => neutron === undefined);
}

type FurtherFacts = Omit<PodFacts, 'hosts'>;

const withNames = (facts: FurtherFacts, used: readonly OwnNetwork[]): FurtherFacts => {
  const named = new Map(used.map(({ id, key }) => [id, key]));
  return {
    ...facts,
    networks: facts.networks.map((network) => ({ ...network, name: named.get(network.id) ?? network.name })),
    pools: [...new Map(facts.pools.map((pool) => [pool.id, pool])).values()],
  };
};

/** Of the model `calico`: blocks are claimed, and what BGP carries for pods goes by VXLAN. */
function claimedFurther(objects: ClusterObjects, pods: PodFacts, nodes: readonly unknown[]): FurtherFacts {
  const used = ownNetworks(
    objects,
    pods.pools.map(({ cidr }) => cidr),
  );
  const carries = new Set(carriesOf(nodes).map(({ carry }) => (carry === 'wireguard' ? carry : 'vxlan')));
  const all = used.flatMap((network) => [...carries].map((carry) => claimedFacts(network, carry)));
  const ids = new Set(used.map(({ id }) => id));
  return withNames(
    {
      networks: all.map(({ network }) => network),
      pools: all.flatMap(({ pools }) => pools),
      blocks: readable(objects.blocks.values(), readBlock).filter(({ network }) => ids.has(network)),
    },
    used,
  );
}

/** They are carried as the pods' network is. */
function furtherFacts(objects: ClusterObjects, podCidrs: readonly Cidr[], nodes: readonly unknown[]): FurtherFacts {
  const carries = carriesOf(nodes);
  const carried = ownNetworks(objects, podCidrs);
  const all = carried.flatMap((network) =>
    carries.map((one) => {
      const facts = factsOf(network, { carry: one.carry, own: [] });
      return { ...facts, network: withInstead(facts.network, one) };
    }),
  );
  const places = readable(carried.length === 0 ? [] : nodes, (item) => {
    const { host, ...facts } = readNode(item, { podCidrs });
    const place = nodePlace(facts, podCidrs);
    return host === undefined || place === undefined ? undefined : { host: host.id, place };
  });
  const facts = {
    networks: all.map(({ network }) => network),
    pools: all.flatMap(({ pools }) => pools),
    blocks: carried.flatMap((network) => places.flatMap(({ host, place }) => blocksOf(network, host, place))),
  };
  return withNames(facts, carried);
}

const nowhere = `${prefix}node-selector: no node that takes part has these labels`;

/**
 * Which hosts load balancers lead to: those that take part and have the labels that the service names, of services with the policy Local
 * those that have a pod that is ready.
 */
class Places {
  readonly #hosts: readonly Host[];
  readonly #nodes = new Map<string, Set<string>>();
  readonly #objects: ClusterObjects['nodes'];

  constructor({ slices, nodes: objects }: ClusterObjects, hosts: readonly Host[]) {
    const part = hosts.filter(({ labels }) => labels[excludeLabel] === undefined);
    const ready = part.filter(({ status }) => status.ready);
    // Where none is called ready it is whoever calls them so that has gone.
    this.#hosts = ready.length > 0 ? ready : part;
    this.#objects = objects;
    for (const item of slices.values()) {
      const slice = readSlice(item);
      if (slice === undefined) continue;
      const nodes = this.#nodes.get(slice.service) ?? new Set();
      for (const { node, isReady } of slice.endpoints) if (isReady && node !== undefined) nodes.add(node);
      this.#nodes.set(slice.service, nodes);
    }
  }

  isForNone(asked: AskedBalancer): boolean {
    return asked.nodes !== undefined && this.of({ ...asked, isLocal: false }).length === 0;
  }

  of({ key, isLocal, nodes = {} }: AskedBalancer): string[] {
    const wanted = Object.entries(nodes);
    const fits = (id: string): boolean => {
      const labels = wanted.length === 0 ? {} : labelsOf(this.#objects.get(id));
      return wanted.every(([label, value]) => labels[label] !== undefined && (value === null || labels[label] === value));
    };
    return this.#hosts
      .map(({ id }) => id)
      .filter((id) => fits(id) && (!isLocal || this.#nodes.get(key)?.has(id) === true))
      .toSorted();
  }
}
