// What a cluster's services ask of the cloud that the cluster is in: ports of its hosts that are to be reached, and load balancers.
import type { Cidr, Family, Ip } from './ip.ts';
import type { Protocol } from './resources.ts';

/** A port of every host. */
export interface NodePort {
  /** Of the service, for people. */
  readonly service: string;
  readonly protocol: Protocol;
  readonly port: number;
  /** Who may come. */
  readonly sources: readonly Cidr[];
}

/** Seconds and counts as Octavia has them; what is absent is the usual. */
export interface MonitorWish {
  readonly delay?: number;
  readonly timeout?: number;
  readonly retries?: number;
  readonly retriesDown?: number;
}

/** What only load balancers can do that take connections themselves and make others to the hosts; Octavia's words. */
export interface ProxyWish {
  /** Written before what the client sends: who that is (haproxy, PROXY protocol). */
  readonly header?: 'PROXY' | 'PROXYV2';
  /** By a header of HTTP. */
  readonly isForwardedFor?: true;
  /** Its TCP ports end TLS by this certificate, and speak HTTP to the hosts: where its cloud keeps it, for Octavia. */
  readonly certificate?: string;
  readonly algorithm?: 'ROUND_ROBIN' | 'LEAST_CONNECTIONS' | 'SOURCE_IP';
  /** A client stays with its host. */
  readonly isSticky?: true;
  readonly connectionLimit?: number;
  /** Milliseconds. */
  readonly timeouts?: {
    readonly clientData?: number;
    readonly memberConnect?: number;
    readonly memberData?: number;
    readonly tcpInspect?: number;
  };
  /** Ids or names of the cloud's; only of use when it is made. */
  readonly flavor?: string;
  readonly zone?: string;
  /** Where hosts tell by HTTP whether they have a pod of the service. */
  readonly healthPort?: number;
}

/** A subnet of an external network, of which a floating IP is made: by id or name, or by one of these tags. */
export type SubnetChoice = { readonly named: string } | { readonly tagged: readonly string[] };

/** A load balancer in front of node ports of a service. */
export interface ServiceBalancer {
  /** As unlike as the service itself: one that is made anew under its name has another. */
  readonly id: string;
  /** `namespace/name`. */
  readonly service: string;
  /** Of its address and its hosts'; absent: IPv4. */
  readonly family?: Family;
  readonly ports: readonly { readonly protocol: Protocol; readonly port: number; readonly nodePort: number }[];
  /** Of clients; empty: everybody. */
  readonly sources: readonly Cidr[];
  /** Absent: it is reached within the cloud only. */
  readonly floating?: {
    /** `auto`, an address of the project's, or id of an external network. */
    readonly wanted: string;
    /** It stays the project's when the service goes. */
    readonly isKept: boolean;
    readonly subnet?: SubnetChoice;
  };
  /** Where its own address is; otherwise on the hosts' subnet. Ids of Neutron. */
  readonly place: { readonly subnet?: string; readonly network?: string; readonly port?: string; readonly address?: Ip };
  /** Id of a load balancer that is there, and stays when the service goes; absent: it has one of its own. */
  readonly shared?: string;
  /** Id of the subnet by whose addresses it leads to hosts; absent: by those that hosts are known by. */
  readonly memberSubnet?: string;
  /** Absent: members are taken to be alive. */
  readonly monitor?: MonitorWish;
  readonly proxy?: ProxyWish;
  /** What is not followed where it passes packets on as they are, one sentence each. */
  readonly notPassed?: readonly string[];
  /** Ids of hosts that it leads to; absent: every one. */
  readonly hosts?: readonly string[];
}

/** Label of a host that a cluster says to be this instance, by id: its ports' device. */
export const serverLabel = 'causeway.dev/server';
