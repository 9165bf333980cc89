// The vocabulary that everything speaks: what a host, network, pool, block, endpoint and exposure are, as plain readonly
// data. Schemas with the same shape live in api/schemas.ts and are checked against these types by the compiler. Words are
// defined in docs/glossary.md.
import type { Cidr, Ip, Mac } from './ip.ts';
import type { Paths } from './paths.ts';

/** What every stored resource carries. `id` never changes and is never reused; `name` is for people and may change. */
export interface Meta {
  /** Lower-case letters and digits; random for networks, the host's name for hosts, Docker's id for its endpoints. */
  readonly id: string;
  readonly name: string;
  /** Store revision of the last change; the value of `ETag`. 0 before it is stored. */
  readonly revision: number;
  /** RFC 3339, UTC. */
  readonly createdAt: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface Tenant extends Meta {
  readonly description: string;
}

/** One address of a host on the underlay, the on-link prefix it lives in, and the MTU of that interface. */
export interface Underlay {
  readonly interface: string;
  readonly ip: Ip;
  readonly subnet: Cidr;
  readonly mtu: number;
}

export interface Host extends Meta {
  /** Unique among hosts, 1..65535, never reused while the host exists; VTEP MAC and tunnel address follow from it. */
  readonly index: number;
  /** Incarnation: grows with every join of the same name. An older one can never overwrite a newer one. */
  readonly generation: number;
  /** First entry is preferred. Empty until the agent has reported. */
  readonly underlay: readonly Underlay[];
  /** Base64 X25519 public key; absent while the host cannot do WireGuard. */
  /** `port`: where its device for a network listens, when that is not the one that follows from the network. */
  readonly wireguard?: { readonly publicKey: string; readonly port?: number };
  /** Base64 X25519 public key by which other hosts know its datagrams. */
  readonly talkKey?: string;
  /** Where hosts may differ in how they carry a network; absent: all of them do as the network says. */
  readonly carrying?: Carrying;
  readonly agentVersion: string;
  readonly status: HostStatus;
}

/** How one host carries what it sends to others, and what it takes from them. */
export interface Carrying {
  readonly wants: CarryName;
  /** What it sends by now, to some at least. */
  readonly sends?: readonly CarryName[];
  /** What is in place there to take; absent: what it wants, and nothing more is known. */
  readonly receives?: readonly CarryName[];
  /** MAC of its vxlan links when it is not the one that follows from its index. */
  readonly vtepMac?: Mac;
  /** MAC of its tunnel over IPv6, which hosts of flannel have, and ours beside them: IPv6 goes there. */
  readonly vtepMac6?: Mac;
  /** What whoever keeps the hosts' router has said; absent: nothing. */
  readonly routed?: RoutedBlocks;
  /** What whoever keeps the cloud has said that it does not let be; absent: nothing. */
  readonly refused?: RefusedCarriages;
  /** It would be wanted, and is refused. */
  readonly insteadOf?: CarryName;
}

export interface RefusedCarriages {
  readonly carries: readonly CarryName[];
  /** A sentence without a full stop. */
  readonly because: string;
}

export interface RoutedBlocks {
  /** Blocks that the router leads to the host. */
  readonly to: readonly Cidr[];
  /** Why it does not lead to others, a sentence without a full stop. */
  readonly problem?: string;
}

export interface HostStatus {
  /** `ready` is what the agent last said of itself; `seenAt` when (RFC 3339); the reader judges its age. */
  readonly ready: boolean;
  readonly seenAt: string;
  readonly desired: number;
  readonly applied: number;
  /** What the kernel refuses at the moment, one sentence each. */
  readonly failing: readonly string[];
  readonly features: Readonly<Record<string, boolean | string>>;
  /** What its probes to other hosts have found; absent where it sends none. */
  readonly paths?: Paths;
}

export type ModelName = 'overlay' | 'flannel' | 'calico' | 'neutron' | 'routes' | 'swarm';
export type CarryName =
  | 'vxlan'
  | 'direct-routing'
  | 'host-gateway'
  | 'bgp'
  | 'bgp-cross-subnet'
  | 'wireguard'
  | 'routes'
  | 'address-pairs'
  | 'docker';

/** A model's five choices, after the user's changes. The table of defaults is drivers/models.ts. */
export interface Choices {
  readonly attach: 'routed' | 'docker';
  /** `own`: the network has its own routing domain, so ranges may overlap; `host`: it is routed by the host itself. */
  readonly domain: 'own' | 'host' | 'docker';
  /** `block`: bits of one block's prefix per family; blocksPerHost 0 = unlimited. */
  readonly address: {
    readonly blockLength4: number;
    readonly blockLength6: number;
    readonly blocksPerHost: number;
    readonly borrow: boolean;
  };
  readonly carry: CarryName;
  /** `isolated`: nothing crosses the network's border but exposures and outgoing traffic; `open`: the host routes freely. */
  readonly guard: 'isolated' | 'open' | 'docker';
}

export interface Instead {
  readonly carry: CarryName;
  /** A sentence without a full stop. */
  readonly because: string;
}

/** Where in a cloud a network lies whose containers have Neutron ports of their own. Ids. */
export interface NeutronPlace {
  readonly network: string;
  /** Of IPv4, unless containers have IPv6 alone. */
  readonly subnet: string;
  /** Of IPv6, where they have both. */
  readonly subnet6?: string;
  /** Largest packet that the network takes; absent where the cloud does not tell. */
  readonly mtu?: number;
  /** Security groups of containers' own ports, where they are sub-ports; absent: the project's default. */
  readonly groups?: readonly string[];
  /** Containers for which the cloud gives no port start all the same, with an address of the network's pool for them (Pool.fallback). */
  readonly fallback?: true;
}

/** A subnet there, as Neutron has it. */
export interface FoundSubnet {
  readonly cidr: Cidr;
  readonly gateway?: Ip;
}
export interface FoundPlace {
  readonly place: NeutronPlace;
  /** Of the families that are wanted. */
  readonly subnets: readonly FoundSubnet[];
}

export interface Network extends Meta {
  readonly model: ModelName;
  readonly tenant: string;
  readonly choices: Choices;
  /** How it was wanted to be carried, and why it is not as long as this is set; `choices.carry` is what is done. */
  readonly instead?: Instead;
  /** True exactly when the carriage encrypts (`wireguard`, or Docker's own encryption for the model `swarm`). */
  readonly encrypted: boolean;
  /** Neither outgoing traffic nor published ports. */
  readonly internal: boolean;
  /** VXLAN network identifier, 1..2^24-1, unique in the installation. */
  readonly vni: number;
  /** Upper bound set by the user; what is used is the smaller of this and what the underlay leaves. */
  readonly mtu?: number;
  /** Docker: may be attached by hand (`docker run --network`) when the engine is in a Swarm. */
  readonly attachable: boolean;
  /** Who gives addresses: `blocks` = Causeway; `external` = the asker (Docker's own IPAM, Swarm's manager), recorded here. */
  readonly addressing: 'blocks' | 'external';
  /** With the model `neutron`, and only there. */
  readonly neutron?: NeutronPlace;
  /** Who answers endpoints' questions for names: absent = the agent; `elsewhere` = whomever they are configured to ask. */
  readonly names?: 'elsewhere';
  /** `always`: every host that holds a block takes part, with endpoints or without. Absent = only hosts with endpoints. */
  readonly present?: 'always';
  /** Set while the network is being removed everywhere. */
  readonly deletedAt?: string;
}

/** A range of addresses of one network. A network may have several per family. */
export interface Pool extends Meta {
  readonly network: string;
  readonly cidr: Cidr;
  /** Only addresses inside are given out by themselves (`--ip-range`); a static address may be anywhere in `cidr`. */
  readonly range?: Cidr;
  /** Shown as the gateway to Docker; never given to an endpoint. */
  readonly gateway?: Ip;
  /** Never given out: name (for example Docker's `--aux-address` key) to address or prefix. */
  readonly reserved: Readonly<Record<string, Ip | Cidr>>;
  readonly blockLength: number;
  /** With the model `neutron`: for containers without a port of the cloud, carried by VXLAN. Given only when the others give nothing. */
  readonly fallback?: true;
  /** What leaves the network keeps its sender: routers around know the way back. Absent: it has the host's address. */
  readonly keepsSender?: true;
}

/**
 * A piece of a pool whose addresses one host gives out without asking anybody. The host is the only authority for
 * addresses inside; another host gets one by asking for a loan, which the owner grants (see model/block.ts).
 */
export interface Block extends Meta {
  readonly network: string;
  readonly pool: string;
  readonly cidr: Cidr;
  readonly host: string;
  readonly loans: readonly Loan[];
  /** Of its first address, the next has the next: each has a port of the cloud that is a sub-port of the host's own. Absent: none has. */
  readonly vlan?: number;
  /** Ids of security groups that containers have asked for, by address; the ports of all others have those of the network. */
  readonly groups?: Readonly<Record<string, readonly string[]>>;
}

/** One address of a block lent to another host. `asked` by the borrower, then settled by the block's owner. */
export interface Loan {
  readonly id: string;
  readonly host: string;
  readonly endpoint: string;
  /** Absent while the borrower takes any. */
  readonly ip?: Ip;
  readonly state: 'asked' | 'granted' | 'refused' | 'returned';
  /** Why it was refused, for the user. */
  readonly reason?: string;
}

export type Protocol = 'tcp' | 'udp' | 'sctp';

/** A port of the host that leads to the endpoint. `hostIp` absent = every address of the host. */
export interface PublishedPort {
  readonly protocol: Protocol;
  readonly hostIp?: Ip;
  readonly hostPort: number;
  readonly port: number;
}

export interface Endpoint extends Meta {
  readonly network: string;
  readonly host: string;
  /** What it belongs to, for people: a container's name or id. */
  readonly owner: string;
  /** At most one per family. */
  readonly addresses: readonly Ip[];
  readonly mac: Mac;
  /** Names that resolve to this endpoint inside its network, beside `name`: aliases, container id. */
  readonly names: readonly string[];
  readonly ports: readonly PublishedPort[];
  /** Grows with every change its host makes; an update with a lower one is refused (`stale`). */
  readonly sequence: number;
}

/** A deliberate opening to the outside of one port of an endpoint, on the host where the endpoint is. */
export interface Exposure extends Meta {
  readonly network: string;
  /** Name of an endpoint in the network. */
  readonly endpoint: string;
  readonly protocol: Protocol;
  readonly port: number;
  readonly hostPort: number;
  readonly hostIp?: Ip;
  /** Only clients in these ranges; empty = everyone. */
  readonly sources: readonly Cidr[];
  /** Of an OpenStack cloud: `auto`, an address of the project, or name or id of an external network. */
  readonly floatingIp?: string;
  /** Of an OpenStack cloud: one in front of `hostPort` of the hosts, on `port`; reached from outside, or within the cloud only. */
  readonly loadBalancer?: 'public' | 'internal';
  /** Who makes it: a provider of the cloud's Octavia. Absent: the usual one. */
  readonly provider?: string;
  /**
   * Told by whoever keeps the cloud: from where it speaks to hosts, where that is not with the addresses of clients. Hosts let in these
   * ranges then, and itself the sources.
   */
  readonly balancerRanges?: readonly Cidr[];
  /** Of an OpenStack cloud: reached by an address of its own on the hosts' network, which one of several hosts has at a time. */
  readonly virtualIp?: VirtualIp;
  /** Of the address that such a cloud gives it: that which moves, or the load balancer's. Absent: IPv4. */
  readonly family?: 6;
}

/** What the cloud has of an address that moves between hosts: nothing at first. */
export interface VirtualIp {
  readonly ip?: Ip;
  /** Ids of those whose ports the cloud lets have it; which of them has it they settle among themselves. */
  readonly hosts: readonly string[];
}

/** Where packets for a service go. */
export interface Backend {
  readonly ip: Ip;
  readonly port: number;
}

/** A virtual address and port in front of endpoints: no host has the address, every host translates it. */
export interface Service {
  /** Unlike for all services of a host; for people and for the journal. */
  readonly key: string;
  /** Unspecified (`0.0.0.0`, `::`): every address of the host on the underlay, a node port. */
  readonly ip: Ip;
  readonly protocol: Protocol;
  readonly port: number;
  /** Of the address's family. Empty: connections are refused. */
  readonly backends: readonly Backend[];
  /** Who serves connections that come from other machines, where that is somebody else. Empty: they are dropped. */
  readonly outer?: readonly Backend[];
  /** Without backends connections are dropped, not refused: others serve it, but not to clients on this host. */
  readonly servedElsewhere?: true;
  /** The address is one of services alone: connections to ports of it that none has are refused. */
  readonly refusesOthers?: true;
  /** For how long a client that comes again is led to the backend that it had. */
  readonly affinitySeconds?: number;
  /** Clients in these ranges only. */
  readonly sources?: readonly Cidr[];
  /** Hosts of which one answers for the address on the wire. Absent: it is led here by somebody else. */
  readonly announcers?: 'every' | readonly string[];
}

export type BgpSort = 'BGPConfiguration' | 'BGPPeer' | 'BGPFilter';

/** One of Calico's resources of BGP, as its user wrote it. Its id is `bgppeer.NAME`, so that each sort has names of its own. */
export interface BgpResource extends Meta {
  readonly sort: BgpSort;
  /** JSON; read by api/calico-bgp.ts. */
  readonly spec: Readonly<Record<string, unknown>>;
}

/** That there are passwords, and under which keys; their texts are told to the hosts that need them and to nobody else. */
export interface Secret extends Meta {
  readonly keys: readonly string[];
}

/** Kind name to resource type. Store keys are `<kind>/<id>`, REST paths `/v1/<kind>/<id>`. */
export interface Resources {
  readonly tenants: Tenant;
  readonly hosts: Host;
  readonly networks: Network;
  readonly pools: Pool;
  readonly blocks: Block;
  readonly endpoints: Endpoint;
  readonly exposures: Exposure;
  readonly bgp: BgpResource;
  readonly secrets: Secret;
}
export type ResourceKind = keyof Resources;
export const resourceKinds: readonly ResourceKind[] = [
  'tenants',
  'hosts',
  'networks',
  'pools',
  'blocks',
  'endpoints',
  'exposures',
  'bgp',
  'secrets',
];

/** What one host knows of the cluster: an immutable value, the only input of the plan besides LocalState. */
export interface Snapshot {
  readonly hosts: ReadonlyMap<string, Host>;
  readonly networks: ReadonlyMap<string, Network>;
  readonly pools: ReadonlyMap<string, Pool>;
  readonly blocks: ReadonlyMap<string, Block>;
  readonly endpoints: ReadonlyMap<string, Endpoint>;
  readonly exposures: ReadonlyMap<string, Exposure>;
}

/** Limits of an endpoint, in bits; seen from the container: `ingress` comes to it. */
export interface Bandwidth {
  readonly ingress?: Limit;
  readonly egress?: Limit;
}
export interface Limit {
  /** Bits per second. */
  readonly rate: number;
  /** Bits that may go at once; absent: what the rate makes in a moment. */
  readonly burst?: number;
}

/** What only this host knows of one of its endpoints, kept in its journal. */
export interface LocalEndpoint {
  readonly endpoint: Endpoint;
  /** Small number unique among this host's endpoints (1..32766); the transit address follows from it. */
  readonly slot: number;
  /** Path of the container's network namespace once it has been joined. */
  readonly sandbox?: string;
  /** Which of its container's networks of ours this is, from 1, while joined; its gateway follows from it. */
  readonly order?: number;
  /** Name of its link inside the sandbox, once the engine has placed it there. */
  readonly ifname?: string;
  /** What the container asks of its engine's resolver is answered here first. */
  readonly answersFirst?: true;
  readonly bandwidth?: Bandwidth;
  /** Which of those that its owner's name has been given to (see AttachRequest). */
  readonly ownerId?: string;
}
