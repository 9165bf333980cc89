// A LocalAgent in memory for tests of this folder and of others: same contract, one host, no controller. With `wire` it
// does the least real thing for a container (bed.ts), so that real engines can be run against it.
import type { AddressRoom, AttachRequest, JoinAnswer, Journal, LocalAgent, NetworkRequest, PlacedLink, PoolRequest } from '#api/local.ts';
import { Fault } from '#model/fault.ts';
import {
  type Cidr,
  cidrBase,
  cidrLast,
  cidrSize,
  contains,
  everything,
  type Family,
  familyOf,
  hostPrefix,
  type Ip,
  ipAdd,
  ipToBigint,
  overlaps,
  parseCidr,
  parseIp,
} from '#model/ip.ts';
import { endpointMac, endpointPeerLink } from '#model/numbers.ts';
import { clashes } from '#model/published-ports.ts';
import type { Endpoint, Network, Pool, PublishedPort } from '#model/resources.ts';

/** Keeps JSON text, so that what is read is never what was written by reference. */
export class FakeJournal implements Journal {
  readonly #values: Map<string, string> = new Map();

  get(key: string): unknown {
    const text = this.#values.get(key);
    const value: unknown = text === undefined ? undefined : JSON.parse(text);
    return value;
  }
  keys(prefix: string): string[] {
    return [...this.#values.keys()].filter((key) => key.startsWith(prefix)).sort();
  }
  list(prefix: string): { key: string; value: unknown }[] {
    return this.keys(prefix).map((key) => ({ key, value: this.get(key) }));
  }
  put(key: string, value: unknown): void {
    this.#values.set(key, JSON.stringify(value));
  }
  delete(key: string): void {
    this.#values.delete(key);
  }
  soon<T>(fn: () => T): T {
    return fn();
  }

  durable(): Promise<void> {
    return Promise.resolve();
  }
  transaction<T>(fn: () => T): T {
    const before = new Map(this.#values);
    try {
      return fn();
    } catch (error) {
      this.#values.clear();
      for (const [key, value] of before) this.#values.set(key, value);
      throw error;
    }
  }
}

/** What a joined endpoint needs in a kernel; all of it may be absent. */
export interface Wire {
  join(endpoint: Endpoint, network: Network, gateways: Readonly<Partial<Record<Family, Ip>>>, mtu: number): void;
  leave(endpoint: Endpoint): void;
}

const meta = { revision: 1, createdAt: '2026-01-01T00:00:00Z', labels: {} };

/** An endpoint of which only `more` matters. */
export const fakeEndpoint = (more: Partial<Endpoint>): Endpoint => ({
  ...meta,
  id: 'endpoint0000000',
  name: 'endpoint',
  network: 'network000001',
  host: 'host-b',
  owner: 'endpoint',
  addresses: [],
  mac: endpointMac(parseIp('0.0.0.1')),
  names: [],
  ports: [],
  sequence: 1,
  ...more,
});

export class FakeAgent implements LocalAgent {
  readonly host: string;
  readonly journal: FakeJournal = new FakeJournal();
  /** Every call that changes something, for assertions: method and arguments. */
  readonly calls: [string, ...unknown[]][] = [];
  readonly #wire: Wire | undefined;
  readonly #networks: Map<string, Network> = new Map();
  readonly #pools: Map<string, Pool> = new Map();
  readonly #endpoints: Map<string, Endpoint> = new Map();
  /** Address (with its pool) to holder. */
  readonly #held: Map<string, string> = new Map();
  readonly #sandboxes: Map<string, { path: string; order: number; ifname: string | undefined }> = new Map();
  #count = 0;
  /** Set to make every call that needs the controller fail. */
  isControllerAway = false;
  hasSynced = true;

  constructor(host = 'host-a', wire?: Wire) {
    this.host = host;
    this.#wire = wire;
  }

  isSynced(): boolean {
    return this.hasSynced;
  }
  networks(): readonly Network[] {
    return [...this.#networks.values()];
  }
  network(id: string): Network | undefined {
    return this.#networks.get(id);
  }
  pools(network: string): readonly Pool[] {
    return [...this.#pools.values()].filter((pool) => pool.network === network);
  }
  endpoints(network: string): readonly Endpoint[] {
    return [...this.#endpoints.values()].filter((endpoint) => endpoint.network === network);
  }
  localEndpoint(id: string): Endpoint | undefined {
    const endpoint = this.#endpoints.get(id);
    return endpoint?.host === this.host ? endpoint : undefined;
  }
  localEndpoints(): readonly Endpoint[] {
    return [...this.#endpoints.values()].filter((endpoint) => endpoint.host === this.host);
  }
  /** Addresses given out and not released, `pool address`. */
  held(): readonly string[] {
    return [...this.#held.keys()].sort();
  }

  async createNetwork(request: NetworkRequest): Promise<Network> {
    this.#record('createNetwork', request);
    this.#needController();
    if (this.networks().some((network) => network.name === request.name)) throw new Fault('exists', `Network ${request.name} exists`);
    if (request.vni !== undefined && this.networks().some((network) => network.vni === request.vni)) {
      throw new Fault('exists', `VNI ${request.vni} is taken`);
    }
    checkPools(request.pools ?? []);
    const number = ++this.#count;
    const network = networkOf(request, number);
    this.#networks.set(network.id, network);
    for (const pool of request.pools ?? []) await this.#addPool(network.id, pool);
    return network;
  }

  async #addPool(network: string, request: PoolRequest): Promise<void> {
    const cidr = request.cidr ?? (await this.proposePool(request.family, []));
    const id = request.id ?? `pool${String(this.#pools.size + 1).padStart(8, '0')}`;
    this.#pools.set(id, {
      ...meta,
      id,
      name: cidr,
      network,
      cidr,
      ...(request.range === undefined ? {} : { range: request.range }),
      gateway: request.gateway ?? ipAdd(cidrBase(cidr), 1),
      reserved: request.reserved ?? {},
      blockLength: request.family === 4 ? 26 : 122,
    });
  }

  async renameNetwork(id: string, name: string, labels?: Readonly<Record<string, string>>): Promise<Network> {
    this.#record('renameNetwork', id, name, labels);
    this.#needController();
    const network = this.#networks.get(id);
    if (network === undefined) throw new Fault('not-found', `No network ${id}`);
    if (this.networks().some((other) => other.name === name && other.id !== id)) throw new Fault('exists', `Network ${name} exists`);
    const renamed: Network = { ...network, name, labels: { ...network.labels, ...labels } };
    this.#networks.set(id, renamed);
    return Promise.resolve(renamed);
  }

  async removeNetwork(id: string): Promise<void> {
    this.#record('removeNetwork', id);
    this.#needController();
    if (this.endpoints(id).length > 0) throw new Fault('in-use', `Network ${id} has endpoints`);
    this.forgetNetwork(id);
    return Promise.resolve();
  }

  /** As if it had been removed from another host. */
  forgetNetwork(id: string): void {
    this.#networks.delete(id);
    for (const pool of this.#pools.values()) if (pool.network === id) this.#pools.delete(pool.id);
  }

  /** As if another host had made it. */
  addEndpoint(endpoint: Endpoint): void {
    this.#endpoints.set(endpoint.id, endpoint);
  }

  async proposePool(family: Family, besides: readonly Cidr[]): Promise<Cidr> {
    this.#needController();
    const used = [...this.#pools.values()].map((pool) => pool.cidr).concat(besides);
    for (let index = 0; index < 256; index++) {
      const cidr = parseCidr(
        family === 4 ? `10.${200 + (index >> 8)}.${index & 255}.0/24` : `fd63:7700:0:${(index + 1).toString(16)}::/64`,
      );
      if (!used.some((other) => overlaps(other, cidr))) return Promise.resolve(cidr);
    }
    throw new Fault('exhausted', 'No subnet left');
  }

  async requestAddress(poolId: string, ip?: Ip, holder?: string): Promise<Ip> {
    this.#record('requestAddress', poolId, ip, holder);
    const pool = this.#pools.get(poolId);
    if (pool === undefined) throw new Fault('not-found', `No pool ${poolId}`);
    if (ip !== undefined) {
      if (!contains(pool.cidr, ip)) throw new Fault('invalid', `${ip} is outside of ${pool.cidr}`);
      const held = this.#held.get(`${poolId} ${ip}`);
      if (held !== undefined && (held === '' || held !== holder)) throw new Fault('exists', `Address ${ip} is taken`);
    }
    const given = ip ?? this.#free(pool);
    this.#held.set(`${poolId} ${given}`, holder ?? '');
    return Promise.resolve(given);
  }

  #free(pool: Pool): Ip {
    const ip = this.#firstFree(pool);
    if (ip === undefined) throw new Fault('exhausted', `No address left in ${pool.cidr}`, { hint: 'Add a pool to the network' });
    return ip;
  }

  #firstFree(pool: Pool): Ip | undefined {
    const range = pool.range ?? pool.cidr;
    const reserved = new Set<string>([pool.gateway ?? '', ...Object.values(pool.reserved), cidrBase(pool.cidr)]);
    for (let ip = cidrBase(range); ipToBigint(ip) < ipToBigint(cidrLast(range)); ip = ipAdd(ip, 1)) {
      if (!reserved.has(ip) && !this.#held.has(`${pool.id} ${ip}`)) return ip;
    }
    return undefined;
  }

  async releaseAddress(pool: string, ip: Ip): Promise<void> {
    this.#record('releaseAddress', pool, ip);
    this.#held.delete(`${pool} ${ip}`);
    return Promise.resolve();
  }

  async attach(request: AttachRequest): Promise<Endpoint> {
    this.#record('attach', request);
    const known = this.#endpoints.get(request.id);
    const addresses = request.addresses.length > 0 ? request.addresses : (known?.addresses ?? (await this.#someAddress(request.network)));
    const first = addresses[0] ?? parseIp('0.0.0.0');
    const mac = request.mac ?? known?.mac ?? endpointMac(first);
    if (known !== undefined) {
      const isSame = known.network === request.network && known.mac === mac && known.addresses.join() === addresses.join();
      if (!isSame) throw new Fault('exists', `Endpoint ${request.id} exists with other content`);
      return known;
    }
    const endpoint: Endpoint = {
      ...meta,
      id: request.id,
      name: request.name ?? request.owner,
      network: request.network,
      host: this.host,
      owner: request.owner,
      addresses,
      mac,
      names: [],
      ports: request.ports,
      sequence: 1,
    };
    this.#endpoints.set(endpoint.id, endpoint);
    return endpoint;
  }

  async #someAddress(network: string): Promise<readonly Ip[]> {
    const pool = this.pools(network)[0];
    return pool === undefined ? [] : [await this.requestAddress(pool.id)];
  }

  /** The k-th interface of a container gets the k-th gateway: Docker finds an interface by its gateway's address. */
  async join(id: string, sandbox: string, ifname?: string): Promise<JoinAnswer> {
    this.#record('join', id, sandbox, ifname);
    if (this.gone.has(sandbox)) throw new Fault('kernel', `No namespace ${sandbox}`, { errno: 'ENOENT' });
    const endpoint = this.#endpoints.get(id);
    const network = endpoint === undefined ? undefined : this.#networks.get(endpoint.network);
    if (endpoint === undefined || network === undefined) throw new Fault('not-found', `No endpoint ${id}`);
    const used = new Set([...this.#sandboxes].flatMap(([other, { path, order }]) => (path === sandbox && other !== id ? [order] : [])));
    let order = 1;
    while (used.has(order)) order++;
    this.#sandboxes.set(id, { path: sandbox, order, ifname });
    const gateways = Object.fromEntries(
      endpoint.addresses.map((ip) => [familyOf(ip), parseIp(familyOf(ip) === 4 ? `169.254.1.${order}` : `fe80::${order}`)]),
    );
    this.#wire?.join(endpoint, network, gateways, network.mtu ?? 1400);
    return Promise.resolve({ link: endpointPeerLink(id), gateways, routes: [] });
  }

  async publish(id: string, ports: readonly PublishedPort[]): Promise<void> {
    this.#record('publish', id, ports);
    const endpoint = this.#endpoints.get(id);
    if (endpoint === undefined) throw new Fault('not-found', `No endpoint ${id}`);
    for (const port of ports) {
      const other = this.localEndpoints().find((one) => one.id !== id && one.ports.some((taken) => clashes(taken, port)));
      if (other !== undefined) throw new Fault('exists', `Port ${port.hostPort}/${port.protocol} is taken by ${other.owner}`);
    }
    this.#endpoints.set(id, { ...endpoint, ports, sequence: endpoint.sequence + 1 });
    return Promise.resolve();
  }

  /** Sandboxes that are gone. */
  readonly gone: Set<string> = new Set();

  async inspect(id: string): Promise<PlacedLink | undefined> {
    const endpoint = this.#endpoints.get(id);
    const sandbox = this.#sandboxes.get(id);
    if (endpoint === undefined || sandbox?.ifname === undefined || this.gone.has(sandbox.path)) return Promise.resolve(undefined);
    const routes = endpoint.addresses.map((ip) => ({
      destination: everything[familyOf(ip)],
      via: parseIp(familyOf(ip) === 4 ? `169.254.1.${sandbox.order}` : `fe80::${sandbox.order}`),
    }));
    return Promise.resolve({ name: sandbox.ifname, mtu: 1400, addresses: endpoint.addresses.map(hostPrefix), routes });
  }

  room(pool: string): AddressRoom {
    const found = this.#pools.get(pool);
    const capacity = Number(cidrSize(found?.cidr ?? parseCidr('0.0.0.0/32')));
    const free = capacity - [...this.#held.keys()].filter((key) => key.startsWith(`${pool} `)).length;
    return { free, capacity, isExhausted: found === undefined || this.#firstFree(found) === undefined };
  }

  /** Ports that programs of the host have. */
  readonly busyPorts: Set<number> = new Set();

  isPortFree({ hostPort }: Omit<PublishedPort, 'port'>): boolean {
    return !this.busyPorts.has(hostPort);
  }

  async leave(id: string): Promise<void> {
    this.#record('leave', id);
    const endpoint = this.#endpoints.get(id);
    if (endpoint !== undefined && this.#sandboxes.delete(id)) this.#wire?.leave(endpoint);
    return Promise.resolve();
  }

  async detach(id: string): Promise<void> {
    await this.leave(id);
    this.#record('detach', id);
    this.#endpoints.delete(id);
  }

  leadOut(sandbox: string, ifname: string, gateways: readonly Ip[]): Promise<void> {
    this.#record('leadOut', sandbox, ifname, ...gateways);
    return Promise.resolve();
  }

  answerFirst(id: string, isWanted: boolean): Promise<boolean> {
    this.#record('answerFirst', id, isWanted);
    const has4 = this.#endpoints.get(id)?.addresses.some((ip) => familyOf(ip) === 4) === true;
    return Promise.resolve(isWanted && has4 && this.#sandboxes.has(id));
  }

  // oxlint-disable-next-line require-await -- part of an asynchronous interface
  async rename(id: string, owner: string, names: readonly string[]): Promise<void> {
    this.#record('rename', id, owner, names);
    const endpoint = this.#endpoints.get(id);
    if (endpoint !== undefined) this.#endpoints.set(id, { ...endpoint, owner, name: owner, names, sequence: endpoint.sequence + 1 });
    return Promise.resolve();
  }

  #record(...call: [string, ...unknown[]]): void {
    this.calls.push(call);
  }
  #needController(): void {
    if (this.isControllerAway) throw new Fault('unavailable', 'The controller cannot be reached', { hint: 'Try again when it is back' });
  }
}

function checkPools(pools: readonly PoolRequest[]): void {
  const cidrs = pools.flatMap((pool) => pool.cidr ?? []);
  if (cidrs.some((cidr, index) => cidrs.slice(0, index).some((other) => overlaps(cidr, other)))) {
    throw new Fault('overlap', 'Pools overlap each other');
  }
}

function networkOf(request: NetworkRequest, number: number): Network {
  const { pools: _, blockLength4 = 26, blockLength6 = 122, carry = 'vxlan', neutron, ...rest } = request;
  return {
    model: 'overlay',
    tenant: 'default',
    encrypted: false,
    internal: false,
    vni: 4096 + number,
    attachable: true,
    addressing: 'blocks',
    choices: {
      attach: 'routed',
      domain: 'own',
      address: { blockLength4, blockLength6, blocksPerHost: 0, borrow: true },
      carry,
      guard: 'isolated',
    },
    ...meta,
    ...rest,
    ...(neutron === undefined ? {} : { neutron: { network: neutron.network, subnet: neutron.subnet ?? 'subnet' } }),
    id: `network${String(number).padStart(6, '0')}`,
  };
}
