// Clusters made up for tests and benchmarks of the plan: hosts, networks, blocks and endpoints with given numbers.
import { choicesFor } from './models.ts';
import { endpointMac } from '#model/numbers.ts';
import { type Cidr, cidrBase, type Ip, ipAdd, parseCidr, parseIp, subnetAt } from '#model/ip.ts';
import type {
  Block,
  CarryName,
  Endpoint,
  Host,
  LocalEndpoint,
  ModelName,
  Network,
  Pool,
  PublishedPort,
  Snapshot,
} from '#model/resources.ts';

const meta = (id: string, name = id) => ({ id, name, revision: 1, createdAt: '2026-01-01T00:00:00.000Z', labels: {} });

/** Host number `index` (1-based) on 10.213.0.0/16 with the MTU of an OpenStack tenant network. */
export function makeHost(index: number, changes: Partial<Host> = {}): Host {
  const ip = ipAdd(parseIp('10.213.0.0'), index);
  return {
    ...meta(`host-${index}`),
    index,
    generation: 1,
    underlay: [{ interface: 'eth0', ip, subnet: parseCidr('10.213.0.0/16'), mtu: 1450 }],
    wireguard: { publicKey: `key${index}` },
    agentVersion: '0.1.0',
    status: { ready: true, seenAt: '2026-01-01T00:00:00.000Z', desired: 0, applied: 0, failing: [], features: {} },
    ...changes,
  };
}

/** The same with an underlay of both families. */
export const makeDualHost = (index: number, { mtu = 1450, ...changes }: Partial<Host> & { readonly mtu?: number } = {}): Host =>
  makeHost(index, {
    underlay: [
      { interface: 'eth0', ip: parseIp(`10.213.0.${index}`), subnet: parseCidr('10.213.0.0/16'), mtu },
      { interface: 'eth0', ip: parseIp(`fd00:213::${index}`), subnet: parseCidr('fd00:213::/64'), mtu },
    ],
    ...changes,
  });

export function makeNetwork(id: string, options: { model?: ModelName; carry?: CarryName; vni?: number; internal?: boolean } = {}): Network {
  const choices = choicesFor(options.model ?? 'overlay', { carry: options.carry });
  return {
    ...meta(id, `net-${id}`),
    model: options.model ?? 'overlay',
    tenant: 'default',
    choices,
    encrypted: choices.carry === 'wireguard',
    internal: options.internal ?? false,
    vni: options.vni ?? 4096,
    attachable: true,
    addressing: 'blocks',
  };
}

export function makePool(network: string, cidr: Cidr, blockLength: number): Pool {
  return { ...meta(`${network}-pool-${cidr.includes(':') ? 6 : 4}`), network, cidr, reserved: {}, blockLength };
}

export function makeBlock(pool: Pool, index: number, host: string): Block {
  const cidr = subnetAt(pool.cidr, pool.blockLength, BigInt(index));
  if (cidr === undefined) throw new RangeError(`No block ${index} in ${pool.cidr}`);
  return { ...meta(`${pool.id}-${index}`), network: pool.network, pool: pool.id, cidr, host, loans: [] };
}

export function makeEndpoint(network: string, host: string, number: number, addresses: readonly Ip[]): Endpoint {
  const [first] = addresses;
  if (first === undefined) throw new RangeError('An endpoint needs an address');
  const id = `${number.toString(16).padStart(8, '0')}${network}`;
  return {
    ...meta(id, `box-${number}`),
    network,
    host,
    owner: `box-${number}`,
    addresses,
    mac: endpointMac(first),
    names: [],
    ports: [],
    sequence: 1,
  };
}

/** Of each network one of each family: 10.4N.0.0/16 and fd4N::/64, N being its place in the list. */
export const makeDualPools = (networks: readonly Network[]): Pool[] =>
  networks.flatMap(({ id }, index) => [
    makePool(id, parseCidr(`10.4${index}.0.0/16`), 24),
    makePool(id, parseCidr(`fd4${index}::/64`), 112),
  ]);

interface DualLocal {
  readonly number: number;
  /** Place of its network in the list. */
  readonly of: number;
  /** Counted from 1; its blocks are as many blocks into the pools, counted from 0. */
  readonly host: number;
  readonly ports: readonly PublishedPort[];
  /** Where the endpoints' namespaces are. */
  readonly sandboxes: string;
}

/** With addresses of makeDualPools. */
export function makeDualLocal(networks: readonly Network[], { number, of, host, ports, sandboxes }: DualLocal): LocalEndpoint {
  const network = networks[of];
  if (network === undefined) throw new RangeError(`No network ${of}`);
  const addresses = [parseIp(`10.4${of}.${host - 1}.${number + 1}`), parseIp(`fd4${of}::${host - 1}:${number + 1}`)];
  const endpoint = { ...makeEndpoint(network.id, `host-${host}`, number, addresses), ports };
  return { endpoint, slot: number, sandbox: `${sandboxes}/${number}`, order: 1 };
}

const byId = <T extends { id: string }>(list: readonly T[] = []) => new Map(list.map((item) => [item.id, item]));

export const snapshotOf = (items: {
  hosts?: readonly Host[];
  networks?: readonly Network[];
  pools?: readonly Pool[];
  blocks?: readonly Block[];
  endpoints?: readonly Endpoint[];
}): Snapshot => {
  return {
    hosts: byId(items.hosts),
    networks: byId(items.networks),
    pools: byId(items.pools),
    blocks: byId(items.blocks),
    endpoints: byId(items.endpoints),
    exposures: new Map(),
  };
};

export interface FlatCluster {
  /** Two endpoints of the first host and one of the second. */
  readonly local: readonly [LocalEndpoint, LocalEndpoint, LocalEndpoint];
  readonly snapshot: Snapshot;
}

/** A flat network of both families on two hosts, each with a block of it. `sandboxes`: where the endpoints' namespaces are. */
export function makeFlatCluster(network: Network, hosts: readonly Host[], sandboxes: string): FlatCluster {
  const pools = [makePool(network.id, parseCidr('10.44.0.0/16'), 24), makePool(network.id, parseCidr('fd44::/64'), 112)];
  const onHost = (number: number, host: number): LocalEndpoint => {
    const addresses = [parseIp(`10.44.${host - 1}.${number + 1}`), parseIp(`fd44::${host - 1}:${number + 1}`)];
    const endpoint = makeEndpoint(network.id, `host-${host}`, number, addresses);
    return { endpoint, slot: number, sandbox: `${sandboxes}/${number}`, order: 1 };
  };
  const local = [onHost(1, 1), onHost(2, 1), onHost(3, 2)] as const;
  const snapshot = snapshotOf({
    hosts,
    networks: [network],
    pools,
    blocks: pools.flatMap((pool) => [makeBlock(pool, 0, 'host-1'), makeBlock(pool, 1, 'host-2')]),
    endpoints: local.map(({ endpoint }) => endpoint),
  });
  return { local, snapshot };
}

/** `hosts` hosts with `perHost` endpoints each in one network; host-1's endpoints are also given as local and joined. */
export function makeCluster(
  hosts: number,
  perHost: number,
  network: Network = makeNetwork('aaaaaaaaaa'),
): { snapshot: Snapshot; local: LocalEndpoint[]; self: Host } {
  const all = Array.from({ length: hosts }, (_, index) => makeHost(index + 1));
  const pool = makePool(network.id, parseCidr('10.0.0.0/8'), 25);
  const blocks = all.map((host, index) => makeBlock(pool, index, host.id));
  const endpoints = blocks.flatMap((block, index) =>
    Array.from({ length: perHost }, (_, slot) =>
      makeEndpoint(network.id, block.host, index * perHost + slot, [ipAdd(cidrBase(block.cidr), slot + 2)]),
    ),
  );
  const [self] = all;
  if (self === undefined) throw new RangeError('A cluster needs a host');
  const local = endpoints
    .filter(({ host }) => host === self.id)
    .map((endpoint, index) => ({ endpoint, slot: index + 1, sandbox: `/run/docker/netns/${endpoint.id}` }));
  return { snapshot: snapshotOf({ hosts: all, networks: [network], pools: [pool], blocks, endpoints }), local, self };
}
