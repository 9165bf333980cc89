// What a host has found out about its ways to other hosts by packets of its own, and what that says to people. A way is judged by
// the controller, because only it knows whether the other host was up meanwhile.

/** Feature of a host: whether its agent answers probes, where that is known. */
export const answersProbes = 'answersProbes';

/** How packets go that were lost: in a tunnel's datagrams, in a session of BGP, or with containers' addresses as they are. */
export type PathSort = 'tunnel' | 'session' | 'plain';

export interface LostPath {
  /** The other host's id. */
  readonly host: string;
  readonly sort: PathSort;
  /** `UDP port 8472`, or the ranges. */
  readonly what: string;
  /** Names of networks that go this way. */
  readonly networks: readonly string[];
  /** How long no packet has come back. */
  readonly seconds: number;
  /** Nor does this sort of packet from any other host. */
  readonly isAlone: boolean;
}

/** The largest packet that reaches a host, where that is less than both interfaces take. Bytes, IP header included. */
export interface NarrowPath {
  readonly host: string;
  readonly mtu: number;
  readonly usual: number;
}

/** What a host does itself to containers' packets, a sentence each. */
export interface HostPackets {
  /** By its own firewall (agent/host-firewall.ts). */
  readonly dropped: readonly string[];
  /** For want of room for further connections (agent/connection-rooms.ts). */
  readonly crowded: readonly string[];
}

export interface Paths {
  /** Ways that were tried at least once, and how many of them pass. */
  readonly tried: number;
  readonly passing: number;
  readonly lost: readonly LostPath[];
  readonly narrow: readonly NarrowPath[];
}

/** Who drops it, a sentence without a full stop. */
export const eaten: Readonly<Record<PathSort, string>> = {
  tunnel: 'A security group or another firewall between them or on that host drops it',
  session: 'A security group or another firewall between them drops it',
  plain: "The ports' allowed address pairs (port security) or the security groups' rules for the range are missing",
};

export const lostSentence = ({ host, sort, what, networks, seconds }: LostPath): string =>
  `${what} does not reach host ${host}, for ${seconds} s (networks ${networks.join(', ')}). ${eaten[sort]}; in an OpenStack cloud "causeway cloud plan" tells what is missing and "causeway cloud apply" adds it`;

export const narrowSentence = ({ host, mtu, usual }: NarrowPath): string =>
  `Packets of more than ${mtu} bytes do not reach host ${host}, though the interfaces of both take ${usual}: a link between them has a smaller MTU. Containers are told to send no larger ones; set the interfaces' MTU to ${mtu}, or raise the link's`;
