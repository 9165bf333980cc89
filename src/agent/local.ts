// The agent as front ends on its host see it (api/local.ts): networks come from the view, addresses from the address book,
// endpoints from the journal, and the kernel only through the loop.
import type { AddressRoom, AttachRequest, JoinAnswer, Journal, LocalAgent, NetworkRequest, PlacedLink } from '#api/local.ts';
import { contains, familyOf, hostPrefix, type Cidr, type Family, type Ip, type Mac } from '#model/ip.ts';
import { mayHaveMore } from '#model/claims.ts';
import { Fault } from '#model/fault.ts';
import { familiesOf } from '#model/desired.ts';
import { endpointMac, endpointPeerLink, gatewayOf, mostGateways } from '#model/numbers.ts';
import { checkMtu } from '#drivers/mtu.ts';
import type { Endpoint, LocalEndpoint, Network, Pool, PublishedPort } from '#model/resources.ts';
import { inspectAttachment } from '#kernel/attachment.ts';
import { leadOut } from '#kernel/default-route.ts';
import { isAbsent } from '#kernel/netns.ts';
import type { ClusterAddresses } from './address-cluster.ts';
import { Companions } from './address-companion.ts';
import { AddressShortage } from './address-shortage.ts';
import type { Endpoints } from './endpoints.ts';
import { type HostPort, type HostPorts, mustNotClash } from './host-ports.ts';
import type { Loop } from './loop.ts';
import { poolsHolding } from './pool-holding.ts';
import { PortGroups } from './port-groups.ts';
import { refusalOf } from './refusal.ts';
import type { ContainerEnds } from './sandboxes.ts';
import type { View } from './view.ts';

/** What this needs of the address book (address-book.ts). */
export interface Addresses {
  /** One owner has at most one address of a pool; asking again gives the same. */
  request(pool: string, owner: string, ip?: Ip): Promise<Ip>;
  /** The address belongs to this endpoint from now on. Fault `not-found` when it is not held. */
  bind(pool: string, ip: Ip, endpoint: string): void;
  release(pool: string, ip: Ip): void;
  held(pool: string, ip: Ip): { readonly endpoint?: string | undefined } | undefined;
  room(pool: string): { readonly free: number; readonly capacity: number };
  reconcile(live: Iterable<string>): Promise<void>;
  background(doing: string, work: () => Promise<void>): void;
}

/** What this needs of a controller; each call rejects with `unavailable` when none answers. */
export interface ClusterNetworks {
  create(request: NetworkRequest): Promise<{ readonly network: Network; readonly pools: readonly Pool[] }>;
  /** Replaces name and labels, starting from the newest record. */
  rename(id: string, name: string, labels: Readonly<Record<string, string>>): Promise<Network>;
  remove(id: string): Promise<void>;
  proposePool(family: Family, besides: readonly Cidr[]): Promise<Cidr>;
}

export interface LocalOptions {
  readonly host: string;
  readonly journal: Journal;
  readonly view: View;
  readonly endpoints: Endpoints;
  readonly addresses: Addresses;
  readonly cluster: { readonly networks: ClusterNetworks; readonly addresses: Pick<ClusterAddresses, 'setPortGroups'> };
  readonly loop: Loop;
  /** The host's ports, as other programs see them. */
  readonly ports: Pick<HostPorts, 'isFree' | 'take' | 'keep'>;
  /** What is done inside of containers. */
  readonly ends?: ContainerEnds | undefined;
  readonly now: () => Date;
  /** A name that nobody else has. */
  readonly newId: () => string;
}

export class HostAgent implements LocalAgent {
  readonly host: string;
  readonly journal: Journal;
  readonly #options: LocalOptions;
  readonly #shortage: AddressShortage;
  readonly #groups: PortGroups;
  readonly companions: Companions;

  constructor(options: LocalOptions) {
    this.host = options.host;
    this.journal = options.journal;
    this.#options = options;
    const { host, view, endpoints, addresses, cluster } = options;
    const now = (): number => options.now().getTime();
    this.companions = new Companions({ addresses, now, snapshot: () => view.snapshot, endpoints: () => endpoints.all() });
    this.#shortage = new AddressShortage({ now, found: () => options.loop.kick() });
    this.#groups = new PortGroups({ host, view, addresses, set: cluster.addresses.setPortGroups });
    this.#keepPorts();
  }

  isSynced(): boolean {
    return this.#options.view.isSynced;
  }

  networks(): readonly Network[] {
    return [...this.#options.view.snapshot.networks.values()];
  }

  network(id: string): Network | undefined {
    return this.#options.view.snapshot.networks.get(id);
  }

  pools(network: string): readonly Pool[] {
    return [...this.#options.view.snapshot.pools.values()].filter((pool) => pool.network === network);
  }

  endpoints(network: string): readonly Endpoint[] {
    return [...this.#options.view.snapshot.endpoints.values()].filter((endpoint) => endpoint.network === network);
  }

  localEndpoint(id: string): Endpoint | undefined {
    return this.#options.endpoints.get(id)?.endpoint;
  }

  localEndpoints(): readonly Endpoint[] {
    return this.#options.endpoints.all().map(({ endpoint }) => endpoint);
  }

  async createNetwork(request: NetworkRequest): Promise<Network> {
    const { view, cluster } = this.#options;
    const { network, pools } = await cluster.networks.create(request);
    view.learn('networks', network);
    for (const pool of pools) view.learn('pools', pool);
    return network;
  }

  async renameNetwork(id: string, name: string, labels: Readonly<Record<string, string>> = {}): Promise<Network> {
    const { view, cluster } = this.#options;
    const known = view.snapshot.networks.get(id);
    if (known !== undefined && known.name === name && Object.entries(labels).every(([key, value]) => known.labels[key] === value))
      return known;
    const network = await cluster.networks.rename(id, name, labels);
    view.learn('networks', network);
    return network;
  }

  async removeNetwork(id: string): Promise<void> {
    const { view, cluster } = this.#options;
    await cluster.networks.remove(id);
    for (const pool of this.pools(id)) view.forget('pools', pool.id);
    view.forget('networks', id);
  }

  async proposePool(family: Family, besides: readonly Cidr[]): Promise<Cidr> {
    return await this.#options.cluster.networks.proposePool(family, besides);
  }

  /**
   * Docker asks for an address before it names the endpoint. An exact address is held under its own name, so that a
   * repeated call is answered again, until an endpoint has it; any other gets a name of its own, and what a lost answer
   * leaves behind is freed by the address book's reconcile().
   */
  async requestAddress(pool: string, ip?: Ip, holder?: string): Promise<Ip> {
    const { addresses } = this.#options;
    if (ip === undefined) return await this.#requestAny(pool, holder);
    const bound = addresses.held(pool, ip)?.endpoint;
    if (bound !== undefined && bound !== holder) throw this.#taken(ip, bound);
    if (bound !== undefined) return ip;
    return await this.#requestFor(holder, ip.replaceAll(':', '-'), (owner) => this.#request(pool, owner, ip));
  }

  async #requestAny(pool: string, holder: string | undefined): Promise<Ip> {
    const asked = (owner: string): Promise<Ip> =>
      this.#shortage.noting(pool, () => this.companions.request(pool, (from) => this.#request(from, owner)));
    return await this.#requestFor(holder, this.#options.newId(), asked);
  }

  /** Without a holder the answer goes to the engine, which may keep it: it is on the disk before. */
  async #requestFor(holder: string | undefined, name: string, ask: (owner: string) => Promise<Ip>): Promise<Ip> {
    if (holder !== undefined) return await ask(holder);
    const given = await ask(`engine-${name}`);
    await this.journal.durable();
    return given;
  }

  #release(pool: string, ip: Ip): void {
    this.#shortage.freed(pool);
    this.#options.addresses.release(pool, ip);
  }

  /**
   * Nobody is told of it before it has reached the disk, with the endpoint or by itself. One that is at hand is taken before the
   * promise is there; whatever takes longer is written as ever.
   */
  async #request(pool: string, endpoint: string, ip?: Ip): Promise<Ip> {
    const { addresses } = this.#options;
    const { asked } = this.journal.soon(() => ({ asked: addresses.request(pool, endpoint, ip) }));
    return await asked;
  }

  /** An address that an endpoint here still has is not let go of: whoever says so is late, or was refused it. */
  // oxlint-disable-next-line require-await -- part of an asynchronous interface
  async releaseAddress(pool: string, ip: Ip): Promise<void> {
    const { addresses, endpoints } = this.#options;
    const bound = addresses.held(pool, ip)?.endpoint;
    if (bound === undefined || endpoints.get(bound) === undefined) this.#release(pool, ip);
  }

  async attach(request: AttachRequest): Promise<Endpoint> {
    const { endpoints } = this.#options;
    const known = endpoints.get(request.id);
    const endpoint = known === undefined ? await this.#attachNew(request) : again(known, request);
    if (request.durable !== 'later') await this.journal.durable();
    return endpoint;
  }

  async #attachNew(request: AttachRequest): Promise<Endpoint> {
    const { endpoints, now } = this.#options;
    const network = this.#networkOf(request.network);
    this.#checkMtu(network);
    const held = await this.#hold(network, request);
    const [first] = held;
    if (first === undefined) throw new Fault('invalid', `Network ${network.name} has no pool`, { field: 'network' });
    if (network.neutron !== undefined || request.groups !== undefined) await this.#settleGroups(network, request, held);
    const mac = this.#takePorts(request, held, first.ip);
    const endpoint: Endpoint = {
      id: request.id,
      name: request.name ?? request.id.slice(0, 12),
      revision: 0,
      createdAt: now().toISOString(),
      labels: {},
      network: network.id,
      host: this.host,
      owner: request.owner,
      addresses: held.map(({ ip }) => ip),
      mac,
      names: [],
      ports: request.ports,
      sequence: this.#firstSequence(request.id),
    };
    // Addresses first: bound to an endpoint that did not come to be, they are let go of again in time. Not one transaction:
    // what memory has learned inside would outlive one that cannot be committed. All of it is on the disk before anybody is told.
    this.journal.soon(() => {
      for (const { pool, ip } of held) this.#options.addresses.bind(pool, ip, endpoint.id);
    });
    endpoints.put({ endpoint, slot: endpoints.freeSlot(), ...kept(request) });
    return endpoint;
  }

  async #settleGroups(network: Network, request: AttachRequest, held: readonly { pool: string; ip: Ip }[]): Promise<void> {
    try {
      for (const one of held) await this.#groups.settle(network, one, request.groups);
    } catch (error) {
      this.#letGo(request, held);
      throw error;
    }
  }

  /** Waits for nothing, so that none of those who attach at the same time comes between. Answers the MAC address. */
  #takePorts(request: AttachRequest, held: readonly { pool: string; ip: Ip }[], ip: Ip): Mac {
    try {
      const mac = this.#macFor(request, ip);
      mustNotClash(request, this.localEndpoints());
      this.#options.ports.take(request.ports);
      return mac;
    } catch (error) {
      this.#letGo(request, held);
      throw error;
    }
  }

  /** Addresses that the request did not bring along. */
  #letGo({ addresses }: AttachRequest, held: readonly { pool: string; ip: Ip }[]): void {
    for (const { pool, ip } of held) if (!addresses.includes(ip)) this.#release(pool, ip);
  }

  #checkMtu(network: Network): void {
    const self = this.#options.view.snapshot.hosts.get(this.host);
    const hasIpv6 = this.pools(network.id).some(({ cidr }) => familyOf(cidr) === 6);
    if (self !== undefined) checkMtu(network, self, hasIpv6);
  }

  /** To be called now and then: what a crash or an absent controller left is done, of addresses and of groups. */
  async reconcile(): Promise<void> {
    const { addresses, endpoints } = this.#options;
    this.#groups.reconcile();
    await addresses.reconcile(endpoints.all().map(({ endpoint }) => endpoint.id));
  }

  async join(id: string, sandbox: string, ifname?: string): Promise<JoinAnswer> {
    const { endpoints, loop } = this.#options;
    const local = this.#localOf(id);
    const network = this.#networkOf(local.endpoint.network);
    const order = local.sandbox === sandbox && local.order !== undefined ? local.order : this.#freeOrder(sandbox);
    const isPlaced = local.sandbox === sandbox && (ifname === undefined || local.ifname === ifname);
    const place = ifname === undefined ? {} : { ifname };
    if (!isPlaced) endpoints.put({ ...outside(local), sandbox, order, ...place });
    const outcome = await loop.runTogether();
    const end = this.#options.ends?.left(id);
    const fault = refusalOf(outcome, local.endpoint, network);
    if (fault !== undefined) {
      if (endpoints.get(id) !== undefined) endpoints.put(outside(local));
      // What the kernel did take of it goes before anybody is told.
      await loop.runTogether();
      throw fault;
    }
    const families = familiesOf(local.endpoint.addresses);
    return {
      link: endpointPeerLink(id),
      gateways: Object.fromEntries(families.map((family) => [family, gatewayOf(family, order)])),
      routes: families.map((family) => ({ destination: hostPrefix(gatewayOf(family, order)) })),
      ...(end === undefined ? {} : { end }),
    };
  }

  // oxlint-disable-next-line require-await -- part of an asynchronous interface
  async publish(id: string, ports: readonly PublishedPort[]): Promise<void> {
    const { endpoints, loop } = this.#options;
    const local = this.#localOf(id);
    if (JSON.stringify(local.endpoint.ports) === JSON.stringify(ports)) return;
    mustNotClash({ id, ports }, this.localEndpoints());
    this.#options.ports.take(ports);
    try {
      endpoints.put({ ...local, endpoint: { ...local.endpoint, ports, sequence: local.endpoint.sequence + 1 } });
      if (local.sandbox !== undefined) loop.run();
    } finally {
      this.#keepPorts();
    }
  }

  // oxlint-disable-next-line require-await -- part of an asynchronous interface
  async inspect(id: string): Promise<PlacedLink | undefined> {
    const local = this.#options.endpoints.get(id);
    if (local?.sandbox === undefined) return undefined;
    try {
      return inspectAttachment(local.sandbox, local.endpoint.mac);
    } catch (error) {
      if (isAbsent(error)) return undefined;
      throw error;
    }
  }

  room(pool: string): AddressRoom {
    const { addresses, view } = this.#options;
    const room = addresses.room(pool);
    const facts = view.snapshot.pools.get(pool);
    const network = view.snapshot.networks.get(facts?.network ?? '');
    // Other hosts' addresses and further blocks are for the asking, where the network permits them.
    const own = [...view.snapshot.blocks.values()].filter((block) => block.pool === pool && block.host === this.host);
    const isClosed = network !== undefined && facts !== undefined && !mayHaveMore(network, facts, own) && !network.choices.address.borrow;
    return { ...room, isExhausted: room.free === 0 && (isClosed || this.#shortage.has(pool)) };
  }

  isPortFree(port: HostPort): boolean {
    return this.#options.ports.isFree(port);
  }

  async leave(id: string, when: 'soon' | 'now' = 'soon'): Promise<void> {
    const { endpoints, loop } = this.#options;
    const local = endpoints.get(id);
    if (local?.sandbox === undefined) {
      // One that was left before, or whose container was found to have ended, may still have its link.
      if (when === 'now') await loop.settle();
      return;
    }
    endpoints.put(outside(local));
    // Mostly not run at once: deleting a link waits for the kernel's grace period.
    if (when === 'now') await loop.runTogether();
    else loop.kick();
  }

  async detach(id: string): Promise<void> {
    await this.leave(id);
    this.#forget(id);
  }

  /** The host has been off: no container has kept its namespace, and the engine makes new endpoints for those it starts. */
  detachAll(): void {
    for (const { endpoint } of this.#options.endpoints.all()) this.#forget(endpoint.id);
  }

  // oxlint-disable-next-line require-await -- part of an asynchronous interface
  async leadOut(sandbox: string, ifname: string, gateways: readonly Ip[]): Promise<void> {
    leadOut(sandbox, ifname, gateways);
  }

  // oxlint-disable-next-line require-await -- part of an asynchronous interface
  async answerFirst(id: string, isWanted: boolean): Promise<boolean> {
    const { endpoints, ends } = this.#options;
    const local = endpoints.get(id);
    if (local?.sandbox === undefined || !local.endpoint.addresses.some((ip) => familyOf(ip) === 4)) return false;
    const { answersFirst = false, ...rest } = local;
    if (answersFirst === isWanted) return isWanted;
    endpoints.put(isWanted ? { ...rest, answersFirst: true } : rest);
    ends?.asked(id);
    return isWanted;
  }

  // oxlint-disable-next-line require-await -- part of an asynchronous interface
  async rename(id: string, owner: string, names: readonly string[]): Promise<void> {
    const { endpoints } = this.#options;
    const local = endpoints.get(id);
    if (local === undefined) return;
    const { endpoint } = local;
    const [name = endpoint.name, ...others] = names;
    if (endpoint.owner === owner && endpoint.name === name && endpoint.names.join(' ') === others.join(' ')) return;
    endpoints.put({ ...local, endpoint: { ...endpoint, owner, name, names: others, sequence: endpoint.sequence + 1 } });
  }

  #keepPorts(): void {
    this.#options.ports.keep(this.#options.endpoints.all().flatMap(({ endpoint }) => endpoint.ports));
  }

  /** The lowest number that no other network of the container has. */
  #freeOrder(sandbox: string): number {
    const taken = new Set(this.#options.endpoints.all().flatMap((local) => (local.sandbox === sandbox ? [local.order ?? 1] : [])));
    for (let order = 1; order <= mostGateways; order++) if (!taken.has(order)) return order;
    throw new Fault('exhausted', `A container can be in ${mostGateways} networks`);
  }

  #forget(id: string): void {
    const { addresses, endpoints, view } = this.#options;
    const local = endpoints.get(id);
    if (local === undefined) return;
    // In this order a crash in between leaves an address without an endpoint, never the opposite.
    endpoints.delete(id);
    for (const { pool, ip } of poolsHolding(addresses, view.snapshot, local.endpoint)) {
      this.#release(pool, ip);
      this.#groups.putBack({ pool, ip });
    }
    this.#keepPorts();
  }

  /** Later than any that an endpoint with this id ever had, also one that this journal does not know of. */
  #firstSequence(id: string): number {
    const { now, view } = this.#options;
    return Math.max((view.snapshot.endpoints.get(id)?.sequence ?? 0) + 1, now().getTime());
  }

  #networkOf(id: string): Network {
    const network = this.network(id);
    if (network === undefined)
      throw new Fault('not-found', `No network ${id}`, { field: 'network', hint: 'causeway network ls shows those that exist' });
    return network;
  }

  #localOf(id: string): LocalEndpoint {
    const local = this.#options.endpoints.get(id);
    if (local === undefined) throw new Fault('not-found', `No endpoint ${id.slice(0, 12)} on this host`, { field: 'id' });
    return local;
  }

  /** Addresses for a new endpoint: those that were given, and one of each family that has a pool but no address yet. */
  async #hold(network: Network, request: AttachRequest): Promise<{ pool: string; ip: Ip }[]> {
    const { addresses } = this.#options;
    const pools = this.pools(network.id);
    const given = request.addresses.map((ip) => {
      const pool = pools.find(({ cidr }) => contains(cidr, ip));
      if (pool === undefined)
        throw new Fault('invalid', `${ip} is not in network ${network.name} (${pools.map(({ cidr }) => cidr).join(', ')})`, {
          field: 'addresses',
        });
      const bound = addresses.held(pool.id, ip)?.endpoint;
      if (bound !== undefined && bound !== request.id) throw this.#taken(ip, bound);
      return { pool: pool.id, ip };
    });
    if (given.length > 0) return given;
    const held: { pool: string; ip: Ip }[] = [];
    try {
      for (const family of [4, 6] as const) {
        const pool = pools.find(({ cidr, fallback }) => familyOf(cidr) === family && fallback !== true);
        if (pool === undefined) continue;
        const ip = await this.#requestAny(pool.id, request.id);
        held.push({ pool: pools.find(({ cidr }) => contains(cidr, ip))?.id ?? pool.id, ip });
      }
    } catch (error) {
      for (const { pool, ip } of held) addresses.release(pool, ip);
      throw error;
    }
    return held;
  }

  #taken(ip: Ip, endpoint: string): Fault {
    const owner = this.localEndpoint(endpoint)?.owner ?? endpoint.slice(0, 12);
    return new Fault('exists', `${ip} is taken by ${owner}`, { field: 'addresses', hint: 'Leave the address out to get a free one' });
  }

  #macFor({ network, id, mac: wanted }: AttachRequest, ip: Ip): Mac {
    if (wanted === undefined) return endpointMac(ip);
    // The cluster may know this very endpoint from before the journal was lost.
    const other = this.endpoints(network).find((one) => one.mac === wanted && one.id !== id);
    if (other !== undefined) throw new Fault('exists', `MAC ${wanted} is taken by ${other.owner} on ${other.host}`, { field: 'mac' });
    return wanted;
  }
}

type Kept = Pick<LocalEndpoint, 'bandwidth' | 'ownerId'>;
const kept = ({ bandwidth, ownerId }: Kept): Kept => ({ ...(bandwidth && { bandwidth }), ...(ownerId && { ownerId }) });

/** The endpoint in no container. */
const outside = (local: LocalEndpoint): LocalEndpoint => ({ endpoint: local.endpoint, slot: local.slot, ...kept(local) });

/** The same request again: the same answer. The same id with other addresses is somebody else's mistake. */
function again({ endpoint }: LocalEndpoint, request: AttachRequest): Endpoint {
  const differs =
    endpoint.network !== request.network ||
    request.addresses.some((ip) => !endpoint.addresses.includes(ip)) ||
    (request.mac !== undefined && request.mac !== endpoint.mac);
  if (differs) throw new Fault('exists', `Endpoint ${request.id.slice(0, 12)} exists with other addresses`, { field: 'id' });
  return endpoint;
}
