// What a host tells its neighbours by BGP and how, as the cluster's users set it: the words of Calico's BGPConfiguration,
// BGPPeer and BGPFilter, read and checked. Absent settings are those of `defaultBgp`.
import type { Cidr, Ip } from './ip.ts';
import { type Selector, selects } from './selector.ts';

/** `65001:300`, or `65001:300:1` for a large one (RFC 8092). */
export type Community = string;

export interface BgpRule {
  readonly accept: boolean;
  readonly match: {
    readonly cidr?: Cidr;
    /** Of `cidr`: the route is equal to it, or within it, or not. */
    readonly operator?: 'Equal' | 'NotEqual' | 'In' | 'NotIn';
    readonly lengths?: { readonly min: number; readonly max: number };
    /** Only routes that were learned from other speakers. */
    readonly learned?: boolean;
    readonly interface?: string;
    readonly peer?: 'eBGP' | 'iBGP';
    readonly community?: Community;
    readonly pathBegins?: readonly number[];
    /** Of the route in the kernel: lower is preferred. */
    readonly priority?: number;
  };
  readonly changes: readonly (
    | { readonly type: 'community'; readonly value: Community }
    | { readonly type: 'prepend'; readonly path: readonly number[] }
    | { readonly type: 'priority'; readonly value: number }
  )[];
}

export type Direction = 'import' | 'export';

/** Rules in order; the first that fits decides, and where none does, what is done without filters. */
export interface BgpFilter {
  readonly name: string;
  readonly rules: Readonly<Record<`${Direction}${4 | 6}`, readonly BgpRule[]>>;
}

/** Hosts of the cluster, by name or by labels; both absent: all. */
export interface HostChoice {
  readonly host?: string;
  readonly selector?: Selector;
}

export const isChosen = ({ name, labels }: Named, { host, selector }: HostChoice): boolean =>
  (host === undefined || host === name) && (selector === undefined || selects(selector, labels));

export interface Named {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface Peering {
  readonly name: string;
  readonly of: HostChoice;
  /** A router outside, or hosts of the cluster. Its AS number is absent only where it cannot be known: the peering is left out. */
  readonly with: { readonly ip: Ip; readonly port: number; readonly asn: number } | { readonly selector: Selector };
  /** RFC 2385. */
  readonly password?: string;
  /** Connections come from the host's own underlay address; false: from whichever the kernel takes. */
  readonly fromHostAddress: boolean;
  /** `auto`: what BGP does by itself, this host towards other systems and the origin's within its own. */
  readonly nextHop: 'auto' | 'self' | 'keep';
  readonly restartSeconds?: number;
  readonly filters: readonly string[];
  /** RFC 5082: packets must come from no farther away than so many hops. */
  readonly hops?: number;
  /** The gateway by which the peer is reached. */
  readonly reachableBy?: Ip;
  readonly localAsn?: number;
  /** How often the own AS number may be in a route's path. */
  readonly ownAsnAllowed?: number;
}

export interface BgpSettings {
  readonly asn: number;
  readonly port: number;
  readonly mesh: { readonly enabled: boolean; readonly password?: string; readonly restartSeconds?: number };
  readonly peerings: readonly Peering[];
  readonly filters: readonly BgpFilter[];
  /** Of announced routes within a range. */
  readonly communities: readonly { readonly cidr: Cidr; readonly values: readonly Community[] }[];
  /** Of services: every host announces them. */
  readonly services: readonly Cidr[];
  /** Pools whose blocks no host announces. */
  readonly silent: readonly Cidr[];
}

/** As Calico has it where nothing is said: every host with every other one, in one private system (RFC 6996). */
export const defaultBgp: BgpSettings = {
  asn: 64_512,
  port: 179,
  mesh: { enabled: true },
  peerings: [],
  filters: [],
  communities: [],
  services: [],
  silent: [],
};

/** Labels of a host that say something of its BGP; annotations of its Node in Kubernetes. */
export const bgpLabels = {
  asn: 'projectcalico.org/ASNumber',
  /** The host reflects routes between others (RFC 4456), as one of the cluster with that number. */
  cluster: 'projectcalico.org/RouteReflectorClusterID',
  /** A host with this label announces no services. */
  noServices: 'node.kubernetes.io/exclude-from-external-load-balancers',
} as const;
