// Networks that a container asks for beside the one that its runtime attaches it to. Who knows of them (a cluster's objects) says
// which they are; the front end that attaches the container attaches it to these as well, and says what came of it.
import type { Ip, Mac } from '#model/ip.ts';

export interface AskingPod {
  readonly namespace: string;
  readonly pod: string;
  readonly podUid?: string;
  /** As the runtime says them. */
  readonly annotations: Readonly<Record<string, string>>;
}

export interface FurtherNetwork {
  /** Where it was asked for and what defines it, for messages. */
  readonly place: string;
  /** For the report: `namespace/name` of what defines it. */
  readonly name: string;
  /** Of its link in the container. */
  readonly ifname: string;
  /** A CNI configuration, of one plugin or a list. */
  readonly configuration: Readonly<Record<string, unknown>>;
  /** Addresses that are asked for, as they were written, some with prefix length. */
  readonly ips: readonly string[];
  readonly mac?: Mac;
  /** Arguments of the capabilities `bandwidth` and `portMappings`. */
  readonly capabilities: Readonly<Record<string, unknown>>;
  /** Merged into `args.cni` of each plugin's configuration. */
  readonly args: Readonly<Record<string, unknown>>;
  /** The container's default routes lead to these, over this network. */
  readonly gateways: readonly Ip[];
}

export interface AttachedNetwork {
  readonly name: string;
  readonly ifname: string;
  readonly ips: readonly Ip[];
  readonly mac?: string;
  readonly mtu?: number;
  /** The one that the runtime attaches to. */
  readonly isFirst: boolean;
  readonly dns: object;
  readonly gateways: readonly Ip[];
}

export interface FurtherNetworks {
  /**
   * The network in the place of the one that the runtime attaches to, its configuration a plugin `causeway`; undefined: that one. Faults
   * as of().
   */
  first(pod: AskingPod): Promise<FurtherNetwork | undefined>;
  /** In the order in which they are attached. Faults: `invalid`, `not-found`, `unsupported`, `unavailable`; the message names the place. */
  of(pod: AskingPod): Promise<readonly FurtherNetwork[]>;
  /** Replaces what was said of the pod before. Faults: `not-found` (there is no such pod any more), `unavailable`, `forbidden`. */
  tell(pod: AskingPod, attached: readonly AttachedNetwork[]): Promise<void>;
}
