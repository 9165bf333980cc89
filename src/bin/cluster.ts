// Whom an agent follows: controllers that it has joined, the API of the Kubernetes cluster that its host is a node of
// (kubernetes-cluster.ts), or flannel's records in etcd (flannel-cluster.ts). Each is loaded where it is needed only: a host of Docker saves
// their memory, and a node of Kubernetes that of etcd's client.
import { networkInterfaces } from 'node:os';
import type { Logger } from 'pino';
import { linkAddresses } from '#agent/link-addresses.ts';
import type { Controller } from '#agent/controller.ts';
import type { ClusterBgp } from '#agent/cluster-bgp.ts';
import type { ClusterView } from '#agent/policy-report.ts';
import type { FoundRoute } from '#agent/underlay.ts';
import type { View } from '#agent/view.ts';
import type { FurtherNetworks } from '#api/further-networks.ts';
import type { AddressChooser, Journal, LocalAgent } from '#api/local.ts';
import type { Predecessor } from '#kernel/wireguard.ts';
import { takeKey } from '#kernel/wireguard-keys.ts';
import { flannelWireguard } from '#flannel/backend.ts';
import { isOurLinkName } from '#kernel/ownership.ts';
import type { CalicoBgp } from '#kubernetes/calico-bgp.ts';
import type { Applied } from '#kubernetes/carrying.ts';
import type { OwnNetworks } from '#kubernetes/own-networks.ts';
import type { KubernetesPolicies } from '#kubernetes/policy-source.ts';
import type { KubernetesServices } from '#kubernetes/service-source.ts';
import { contains, type Ip } from '#model/ip.ts';
import type { HostPackets, Paths } from '#model/paths.ts';
import type { PolicyFacts } from '#model/policy.ts';
import type { Network, Snapshot, Underlay } from '#model/resources.ts';
import { keyFile } from './kernel.ts';

/** What a run of the loop has brought about. */
export interface Done extends Applied {
  readonly policy: PolicyFacts | undefined;
  /** Why the rules are not as planned, if they are not. */
  readonly refusedRules: string | undefined;
}

export interface Cluster {
  /** Name of this host there. */
  readonly host: string;
  readonly generation: number;
  controller(network: (id: string) => Network | undefined): Controller;
  /** Renews credentials that need it. */
  renew(): void;
  /** Services of the cluster, where it has any; followed from start() on. */
  readonly services?: KubernetesServices;
  readonly policies?: KubernetesPolicies;
  /** What has become of policies on all hosts, by key. Faults as KubernetesClient.list. */
  readonly policyStatuses?: () => Promise<ReadonlyMap<string, ClusterView>>;
  /** How the host's BGP speaker is set; the same. */
  readonly bgp?: CalicoBgp | ClusterBgp;
  /** What the cluster says has changed. */
  factsChanged?(): void;
  /** What this host cannot follow of what the cluster says, one sentence each. */
  problems?(): readonly string[];
  /** Which pools a pod gets its addresses from, where the cluster says it. */
  readonly choose?: AddressChooser;
  /** Whether pods of this host may get addresses of a pool, where the cluster says it. */
  readonly isForPods?: (pool: string) => boolean;
  /**
   * That the cluster is told of a host without free addresses, and keeps pods away from it. A runtime that hears of it by STATUS calls
   * the whole node not ready, and the cluster then takes the pods that it has out of services, and evicts them.
   */
  readonly isFullToldElsewhere?: boolean;
  /** Which further networks pods are attached to, where the cluster says it. */
  readonly networks?: FurtherNetworks;
  /** Links of others that hold an address in blocks of this host, where it may have been another system's. */
  readonly bridges?: (blocks: Snapshot['blocks']) => readonly string[];
  /** Those of them that are ours; followed from start() on. */
  readonly own?: OwnNetworks;
  /** Another system's WireGuard device, which ours takes the place of. */
  readonly predecessor?: Predecessor;
  /** Told of the ways to other hosts, again and again, where the host itself is to say what is the matter with them. */
  readonly probed?: (paths: Paths, here: HostPackets) => void;
  /** Told after every run of the loop. */
  applied?(done: Done): void;
}

export interface ClusterContext {
  readonly journal: Journal;
  /** The loop has something to do. */
  readonly kick: () => void;
  /** It has something to do for which packets wait. */
  readonly hurry: () => void;
  readonly log: Logger;
  readonly closing: AsyncDisposableStack;
  readonly view: () => View;
  /** Of this host's agent, once it is there. */
  readonly local: () => LocalAgent;
  /** Why the endpoint of this host with that address has no port of the cloud; undefined: it has one, or is to have none. */
  readonly withoutPort: (ip: Ip) => string | undefined;
  /** Of this host's WireGuard key, when it can do WireGuard. */
  readonly publicKey: () => string | undefined;
  /** Of the main table, with the names of their links. */
  readonly routes: () => readonly FoundRoute[];
  /** Fault `invalid` when the interface that was asked for is not there. */
  readonly underlay: () => Underlay[];
  /** Directory of the agent's own files. */
  readonly state: string;
  /** One that is not there is none. */
  readonly removeLink: (name: string) => void;
}

/**
 * Where flannel has encrypted, others know this host by flannel's key: it becomes the host's own before the kernel is opened. Packets go by
 * flannel's device until they are led to ours. Fault `corrupt`.
 */
export function takeOverWireguard({ state, log, removeLink }: ClusterContext): Predecessor {
  let isThere = networkInterfaces()[flannelWireguard.link] !== undefined;
  if (isThere && takeKey(flannelWireguard.key, keyFile(state)))
    log.info({ file: flannelWireguard.key }, "took over flannel's WireGuard key");
  return {
    isThere: ({ netns }) => isThere && netns === '',
    remove() {
      isThere = false;
      removeLink(flannelWireguard.link);
      log.info({ link: flannelWireguard.link }, "removed flannel's link, as ours has taken its place");
    },
  };
}

/** On the host's links that are none of ours. */
export const foreignAddresses = (): ReturnType<typeof linkAddresses> => linkAddresses().filter(({ link }) => !isOurLinkName(link));

/** As another system leaves them, on which containers of before live on. */
export const bridgesOf =
  (self: string) =>
  (blocks: Snapshot['blocks']): string[] => {
    const own = [...blocks.values()].filter(({ host }) => host === self);
    const within = foreignAddresses().filter(({ ip }) => own.some(({ cidr }) => contains(cidr, ip)));
    return [...new Set(within.map(({ link }) => link))].toSorted();
  };
