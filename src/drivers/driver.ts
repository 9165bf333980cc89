// A driver is one way to carry packets between hosts. Pure: no clock, no I/O, the same answer every time, and nothing but
// the carriage: attaching, guarding and exposing are the same for all of them (plan.ts).
import type { Desired, Netns } from '#model/desired.ts';
import type { Block, CarryName, Host, Network, Snapshot } from '#model/resources.ts';
import type { Cidr, Ip } from '#model/ip.ts';

/** What a carriage adds to every packet, so that the MTU sum can be shown. */
export interface Overhead {
  readonly what: string;
  readonly bytes: number;
}

/** One thing the underlay must let pass between hosts: an IP protocol number and, for UDP, a destination port. */
export interface Passage {
  readonly protocol: number;
  readonly port?: number;
  readonly why: string;
}

export interface Carriage {
  readonly network: Network;
  /** Where the network is routed on this host. */
  readonly netns: Netns;
  readonly self: Host;
  /** Hosts other than `self` that hold blocks or endpoints of the network, with what leads to each of them. */
  readonly remotes: readonly Remote[];
  /** Hosts that are sent to in another way, and may send in this one. */
  readonly others?: readonly Remote[];
  /** Ways that a speaker of BGP has put into this host's kernel; absent: nobody has looked. */
  readonly learned?: ReadonlySet<Cidr> | undefined;
  /** MTU of the network on this host, carriage overhead already taken off. */
  readonly mtu: number;
  readonly snapshot: Snapshot;
}

export interface Remote {
  readonly host: Host;
  readonly blocks: readonly Block[];
  /** Addresses that none of this host's blocks cover: routed one by one. */
  readonly exceptions: readonly Ip[];
  /** Of the host itself beside its blocks, by which it talks through a tunnel (inside.ts). */
  readonly inside?: readonly Ip[];
}

export interface Driver {
  readonly name: CarryName;
  /** Bytes this carriage takes from each packet between `self` and `peer`, outermost first. */
  overhead(network: Network, self: Host, peer?: Host): readonly Overhead[];
  passages(network: Network): readonly Passage[];
  /** What the kernel of `self` must hold so that the network's packets reach every remote. */
  plan(carriage: Carriage): Partial<Desired>;
}
