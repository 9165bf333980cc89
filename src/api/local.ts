// What a front end on a host (Docker's plugin protocol, CNI) may ask of that host's agent. The agent implements
// it (agent/local.ts); a front end translates its protocol to these calls and decides nothing. Every call is idempotent:
// the same request again gives the same answer.
import type { Cidr, Family, Ip, Mac } from '#model/ip.ts';
import type { Bandwidth, Endpoint, ModelName, Network, Pool, PublishedPort } from '#model/resources.ts';

/** A small durable map of the host: survives crashes, writes are on disk when the call returns. Values are JSON. */
export interface Journal {
  get(key: string): unknown;
  /** In order. */
  keys(prefix: string): string[];
  /** In key order. */
  list(prefix: string): { key: string; value: unknown }[];
  put(key: string, value: unknown): void;
  delete(key: string): void;
  /** All writes made inside `fn` become durable together, or none if it throws. Synchronous. */
  transaction<T>(fn: () => T): T;
  /**
   * Writes made inside `fn` outlive the process on return, and a power cut no later than the next write outside: for what
   * nobody has been told of by then, or what ends with the power anyway. Each is still all or nothing, in order. Synchronous.
   */
  soon<T>(fn: () => T): T;
  /** Resolves when everything that has been written by now outlives a power cut. Fault `unavailable` when the disk refuses. */
  durable(): Promise<void>;
}

export interface PoolRequest {
  /** Absent: chosen by the controller so that it overlaps no other network, no host route and no underlay. */
  readonly cidr?: Cidr;
  readonly family: Family;
  readonly range?: Cidr;
  readonly gateway?: Ip;
  readonly reserved?: Readonly<Record<string, Ip | Cidr>>;
  /** Id that the pool shall have, where the front end had to name it before the network existed. */
  readonly id?: string;
}

export interface NetworkRequest {
  readonly name: string;
  readonly model?: ModelName;
  readonly tenant?: string;
  readonly pools?: readonly PoolRequest[];
  readonly encrypted?: boolean;
  readonly internal?: boolean;
  readonly attachable?: boolean;
  readonly mtu?: number;
  readonly vni?: number;
  readonly carry?: Network['choices']['carry'];
  readonly addressing?: Network['addressing'];
  readonly blockLength4?: number;
  readonly blockLength6?: number;
  readonly labels?: Readonly<Record<string, string>>;
  /** For the model `neutron`, which cannot do without. */
  readonly neutron?: NeutronRequest;
}

/** Of Neutron's, by name or id. */
export interface NeutronRequest {
  readonly network: string;
  /** May be left out where the network has one of IPv4 only, or only a pool of IPv6 is asked for: then containers have that alone. */
  readonly subnet?: string;
  /** The same of IPv6, which containers have when it is named, or a pool of IPv6 is asked for. */
  readonly subnet6?: string;
  /** Security groups of containers' own ports, where they are sub-ports of a trunk; left out: the project's default. */
  readonly groups?: readonly string[];
  /** Containers start in an overlay beside it while the cloud gives no ports; its range, or one that is chosen. Left out: they fail. */
  readonly fallback?: 'overlay' | Cidr;
}

export interface AttachRequest {
  readonly network: string;
  /** Endpoint id, unique in the installation; Docker's endpoint id. */
  readonly id: string;
  readonly owner: string;
  /** Which of those that have been called so, one after the other: a pod's uid. */
  readonly ownerId?: string;
  readonly name?: string;
  /** Addresses that were given before (Docker asks its IPAM driver first). Absent families are allocated by the agent. */
  readonly addresses: readonly Ip[];
  readonly mac?: Mac;
  readonly ports: readonly PublishedPort[];
  readonly bandwidth?: Bandwidth;
  /** Security groups of its port in the cloud, by name or id; left out: those of the network. */
  readonly groups?: readonly string[];
  /** Whoever asks waits for the journal by itself before it tells anybody, and has other work done meanwhile. */
  readonly durable?: 'later';
}

/** One address: of the first of these pools that has one, or exactly `ip`. */
export interface AddressChoice {
  readonly pools: readonly string[];
  readonly ip?: Ip;
}

/** Which addresses of a network a pod gets that asks for none itself; undefined: one of each family, of the network's first pool. */
export type AddressChooser = (
  of: { readonly namespace?: string; readonly pod?: string },
  network: string,
) => Promise<readonly AddressChoice[] | undefined>;

export interface AddressRoom {
  /** Addresses that this host could give out of the pool now, without asking anybody. */
  readonly free: number;
  readonly capacity: number;
  /** No endpoint could have an address of the pool now, as far as this host knows, also when others are asked. */
  readonly isExhausted: boolean;
}

export interface JoinAnswer {
  /** Link in the host's namespace that the engine moves into the container. */
  readonly link: string;
  readonly gateways: Readonly<Partial<Record<Family, Ip>>>;
  readonly routes: readonly { readonly destination: Cidr; readonly via?: Ip }[];
  /** The container's end, where this join has set it up and so knows it. */
  readonly end?: PlacedLink;
}

/** The container's end of an endpoint's link, as it is. */
export interface PlacedLink {
  readonly name: string;
  readonly mtu: number;
  readonly addresses: readonly Cidr[];
  readonly routes: readonly { readonly destination: Cidr; readonly via?: Ip }[];
}

export interface LocalAgent {
  /** The host's name. */
  readonly host: string;
  readonly journal: Journal;
  /** Whether networks() and the like are a whole answer: false until this process has had a listing from a controller. */
  isSynced(): boolean;
  networks(): readonly Network[];
  network(id: string): Network | undefined;
  pools(network: string): readonly Pool[];
  endpoints(network: string): readonly Endpoint[];
  localEndpoint(id: string): Endpoint | undefined;
  /** All endpoints of this host, also those whose network is gone. */
  localEndpoints(): readonly Endpoint[];

  /** Faults: `exists` (name or VNI), `overlap`, `invalid`, `unavailable` (controller away), `exhausted`. */
  createNetwork(request: NetworkRequest): Promise<Network>;
  /** `labels` are merged into the network's. The same again writes nothing. Faults: `exists` (name), `not-found`. */
  renameNetwork(id: string, name: string, labels?: Readonly<Record<string, string>>): Promise<Network>;
  /** Absent already is success. Fault `in-use` while endpoints remain anywhere. */
  removeNetwork(id: string): Promise<void>;

  /** A free subnet for a pool that does not exist yet, avoiding those in `besides`. */
  proposePool(family: Family, besides: readonly Cidr[]): Promise<Cidr>;
  /**
   * Gives an address of the pool, or exactly `ip`. Faults: `exhausted`, `exists` (taken), `invalid` (outside), `unavailable`.
   * `holder` is an endpoint's id where it is known: the same holder asking for `ip` again is given it again.
   */
  requestAddress(pool: string, ip?: Ip, holder?: string): Promise<Ip>;
  /** Releasing an address that is not held is success. */
  releaseAddress(pool: string, ip: Ip): Promise<void>;

  /** Records the endpoint; nothing is in the kernel yet. Faults: `exists` when the id is known with other content; as PortPools.regroup. */
  attach(request: AttachRequest): Promise<Endpoint>;
  /**
   * Puts the endpoint into the kernel: on return its link, routes and guard are in force on this host. With `ifname` the
   * container's end has that name in the sandbox and is complete; without, the engine moves it there and sets it up.
   * Faults: `not-found`, `unavailable`, `kernel` (the sandbox is gone, or has a link of that name).
   */
  join(id: string, sandbox: string, ifname?: string): Promise<JoinAnswer>;
  /** The container's end as it is now; undefined when the endpoint is unknown or not joined, or its sandbox or link is gone. */
  inspect(id: string): Promise<PlacedLink | undefined>;
  room(pool: string): AddressRoom;
  /**
   * Replaces the ports that the endpoint publishes on this host; on return they are in force. Docker decides only after
   * join which of a container's networks carries them. Faults: `not-found`, `exists` (a port of the host is taken).
   */
  publish(id: string, ports: readonly PublishedPort[]): Promise<void>;
  /** Whether no program of this host has the port; says nothing of what endpoints publish. */
  isPortFree(port: Omit<PublishedPort, 'port'>): boolean;
  /**
   * The container has left; address and record stay until detach. Its link goes soon, because an engine takes the container's
   * end away anyway, or `now`: on return. Unknown ids are success.
   */
  leave(id: string, when?: 'soon' | 'now'): Promise<void>;
  detach(id: string): Promise<void>;
  /**
   * Leads the container's default routes of the gateways' families over its link `ifname`, whosever link it is, and nowhere else.
   * Fault `kernel` (no such namespace or link, or the gateway cannot be reached there).
   */
  leadOut(sandbox: string, ifname: string, gateways: readonly Ip[]): Promise<void>;
  /**
   * Whether what the container asks of its engine's resolver is answered here first, and by that one only what nobody here
   * knows: for engines that ask outside past the container's networks. Answers whether it is: without an IPv4 address it
   * cannot be. Unknown ids and such as have not joined are ignored.
   */
  answerFirst(id: string, isWanted: boolean): Promise<boolean>;
  /** Names that resolve to the endpoint inside its network. Unknown ids are ignored. */
  rename(id: string, owner: string, names: readonly string[]): Promise<void>;
}
