// Drift: tells that somebody else may have changed something of ours, per namespace, from the kernel's multicast groups.
// One rtnetlink and one nftables socket per namespace, none of which Node can wait for by itself: its loop refuses netlink
// sockets, a blocked read would take a pool thread per namespace, and a Worker that polls costs some ten megabytes. So the
// sockets raise a signal when they become readable (fcntl(2), F_SETSIG), and the handler empties those that epoll(7) names:
// nothing runs while nothing happens. The signal is SIGURG because its default is to be ignored, so that one that comes
// before or after the handler is installed does no harm. Of our own transactions of nft the kernel is not asked to tell: it would
// have a message for each element, of which a hundred thousand find no room; their number tells whether there were others.
import { closeSync, type FSWatcher, watch } from 'node:fs';
import type { KindName, Netns } from '#model/desired.ts';
import {
  errnoName,
  ignoringSignal,
  netlinkPort,
  openNetlinkSocket,
  openPoll,
  pollFor,
  raiseSignal,
  readable,
  receive,
  setOption,
  transmit,
} from './libc.ts';
import { ownChanges } from './libnftables.ts';
import { dumpLinks } from './batch.ts';
import { type Cause, isForwardingChange, isNftDrift, isRouteDrift, type Memory, rememberedAs } from './drift.ts';
import { decodeAttributes, decodeMessages, encodeMessage, type Message } from './netlink/codec.ts';
import { decodeNeigh, encodeNeighDump } from './netlink/rtnl.ts';
import {
  AF_BRIDGE,
  AF_UNSPEC,
  NETLINK_ADD_MEMBERSHIP,
  NETLINK_DROP_MEMBERSHIP,
  NETLINK_NETFILTER,
  NETLINK_ROUTE,
  NFNL_SUBSYS_NFTABLES,
  NFNLGRP_NFTABLES,
  NFT_MSG_GETGEN,
  NFT_MSG_NEWGEN,
  NFTA_GEN_ID,
  NLM_F_REQUEST,
  NUD_PERMANENT,
  RTM_GETNEIGH,
  RTMGRP_IPV4_IFADDR,
  RTMGRP_IPV4_ROUTE,
  RTMGRP_IPV6_IFADDR,
  RTMGRP_IPV6_ROUTE,
  RTMGRP_LINK,
  RTMGRP_NEIGH,
  RTMGRP_TC,
  RTNLGRP_IPV4_NETCONF,
  RTNLGRP_IPV6_NETCONF,
  SO_RCVBUFFORCE,
  SOL_NETLINK,
  SOL_SOCKET,
} from './netlink/uapi.ts';
import { inNetns, listNetns, netnsIdentity, shareDirectory } from './netns.ts';
import { isOurNetns } from './ownership.ts';
import type { Sockets } from './sockets.ts';

/** `netns` absent: anything anywhere may have changed. Called at most once per namespace and turn of the event loop. */
export type OnDrift = (netns: Netns | undefined) => void;

const signal = 'SIGURG';
const routeGroups =
  RTMGRP_LINK |
  RTMGRP_NEIGH |
  RTMGRP_TC |
  RTMGRP_IPV4_IFADDR |
  RTMGRP_IPV4_ROUTE |
  RTMGRP_IPV6_IFADDR |
  RTMGRP_IPV6_ROUTE |
  (1 << (RTNLGRP_IPV4_NETCONF - 1)) |
  (1 << (RTNLGRP_IPV6_NETCONF - 1));
const nftGroups = 1 << (NFNLGRP_NFTABLES - 1);
// A limit, not an allocation: room for some ten thousand messages about links and routes while a large plan is applied.
const bufferBytes = 16 * 1024 * 1024;
const buffer = Buffer.alloc(64 * 1024);

interface Watched {
  readonly netns: Netns;
  readonly identity: number | undefined;
  readonly routeFd: number;
  readonly nftFd: number;
  readonly memory: Memory;
  readonly nftPort: number;
  /** Number of the last nft transaction that was heard of; undefined when some have been missed. */
  generation: number | undefined;
  /** The kernel's answer to the last question for that number. */
  answered: number | undefined;
  /** What was listed and has not been changed by others since. */
  readonly listed: Set<KindName>;
}

const getGeneration = encodeMessage({
  type: (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN,
  flags: NLM_F_REQUEST,
  sequence: 1,
  port: 0,
  // struct nfgenmsg: any family, version 0.
  body: Buffer.alloc(4),
});
const isGeneration = (message: Message): boolean => message.type === ((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWGEN);
const generationIn = (message: Message): number | undefined => {
  const value = decodeAttributes(message.body.subarray(4)).get(NFTA_GEN_ID);
  return value?.length === 4 ? value.readUInt32BE(0) : undefined;
};

export class Events implements Disposable {
  readonly #sockets: Sockets;
  readonly #onDrift: OnDrift;
  readonly #watched = new Map<Netns, Watched>();
  readonly #poll = openPoll();
  readonly #byFd = new Map<number, Watched>();
  readonly #suspects = new Set<Netns | undefined>();
  readonly #drain = (): void => this.#drainAll('loud');
  #names: FSWatcher | undefined;
  #quiet = 0;
  #elsewhere = 0;

  /** Subscribes to the host's namespace and to every domain that exists. Fault `kernel`. */
  constructor(sockets: Sockets, onDrift: OnDrift) {
    this.#sockets = sockets;
    this.#onDrift = onDrift;
    process.on(signal, this.#drain);
    shareDirectory(sockets.directory);
    // Somebody else's `ip netns del` shows only in the directory.
    this.#names = watch(sockets.directory, { persistent: false }, () => this.#compareNames());
    this.follow();
  }

  [Symbol.dispose](): void {
    this.#names?.close();
    this.#names = undefined;
    for (const netns of this.#watched.keys()) this.#unwatch(netns);
    process.off(signal, this.#drain);
    closeSync(this.#poll);
  }

  /** Subscribes to domains that are new and lets go of those that are gone. Called after namespaces were made or removed. */
  follow(): void {
    const names = new Set(['', ...listNetns(this.#sockets.directory).map(({ name }) => name)]);
    for (const [netns, watched] of this.#watched) {
      if (!names.has(netns) || (netns !== '' && watched.identity !== netnsIdentity(this.#sockets.path(netns)))) this.#unwatch(netns);
    }
    for (const netns of names) if (!this.#watched.has(netns)) this.#watch(netns);
  }

  /** How many changes of what others let the host forward have been heard of; lost messages count as one. */
  get elsewhere(): number {
    return this.#elsewhere;
  }

  /** Lets go of one namespace, so that it can end. */
  release(netns: Netns): void {
    this.#unwatch(netns);
  }

  /**
   * Runs our own writes: what the kernel tells about them, also what it did by itself in consequence, is no drift. What a
   * foreign process changed at the same time still is, where the message names its sender. All of it is read at the end: each
   * message would raise a signal, and run its handler for nothing.
   */
  quiet<T>(fn: () => T): T {
    if (this.#quiet > 0) return fn();
    this.#drainAll('loud');
    this.#quiet++;
    try {
      return ignoringSignal(signal, fn);
    } finally {
      this.#quiet--;
      this.#drainAll('quiet');
    }
  }

  /** Runs our own transactions of nft in these namespaces, of which nothing is heard. That others had some as well is drift. */
  transact<T>(where: Iterable<Netns>, fn: () => T): T {
    const deaf = [...new Set(where)].flatMap((netns) => this.#watched.get(netns) ?? []);
    for (const watched of deaf) this.#isComplete(watched);
    const before = deaf.map(({ generation }) => generation ?? Number.NaN);
    const own = ownChanges();
    for (const { nftFd } of deaf) setOption(nftFd, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, NFNLGRP_NFTABLES);
    try {
      return fn();
    } finally {
      for (const { nftFd } of deaf) setOption(nftFd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES);
      for (const watched of deaf) watched.generation = this.#askGeneration(watched);
      const all = deaf.reduce((sum, { generation = Number.NaN }, index) => sum + generation - (before[index] ?? 0), 0);
      if (all !== ownChanges() - own) for (const watched of deaf) this.#missed(watched);
    }
  }

  /** A kind of nft's has just been listed in that namespace. */
  listed(netns: Netns, kind: KindName): void {
    this.#watched.get(netns)?.listed.add(kind);
  }

  /**
   * Whether nobody else has changed anything of this kind of nft's since it was listed: nothing was heard of, and the kernel,
   * which numbers its transactions, has none that was not heard of.
   */
  isTold(netns: Netns, kind: KindName): boolean {
    const watched = this.#watched.get(netns);
    if (watched === undefined || !this.#isComplete(watched)) return false;
    return watched.listed.has(kind);
  }

  #isComplete(watched: Watched): boolean {
    const answered = this.#askGeneration(watched);
    const { generation } = watched;
    watched.generation = answered;
    if (answered === undefined || answered === generation) return answered !== undefined;
    watched.listed.clear();
    return false;
  }

  /** Of the last transaction of nft in that namespace; all that was told of before has been heard on return. */
  #askGeneration(watched: Watched): number | undefined {
    watched.answered = undefined;
    if (transmit(watched.nftFd, getGeneration) < 0) return undefined;
    this.#drainOne(watched.nftFd, 'loud');
    return watched.answered;
  }

  /** There were changes of which nobody knows what they are. */
  #missed(watched: Watched): void {
    this.#elsewhere += watched.netns === '' ? 1 : 0;
    this.#changed(watched);
  }

  /** Rules or elements of ours are no longer as they were listed. */
  #changed(watched: Watched): void {
    watched.listed.clear();
    this.#suspect(watched.netns);
  }

  #watch(netns: Netns): void {
    const path = this.#sockets.path(netns);
    const identity = netns === '' ? undefined : netnsIdentity(path);
    const [routeFd, nftFd] = inNetns(path, () => [open(NETLINK_ROUTE, routeGroups), open(NETLINK_NETFILTER, nftGroups)] as const);
    const watched: Watched = {
      nftPort: netlinkPort(nftFd),
      generation: undefined,
      answered: undefined,
      listed: new Set(),
      netns,
      identity,
      routeFd,
      nftFd,
      memory: { domain: isOurNetns(netns), links: new Map(), permanent: new Set<string>() },
    };
    this.#watched.set(netns, watched);
    for (const fd of [routeFd, nftFd]) {
      this.#byFd.set(fd, watched);
      pollFor(this.#poll, fd);
    }
    this.#recall(watched);
    this.#isComplete(watched);
  }

  /** Fills the memory from the kernel. */
  #recall({ netns, memory }: Watched): void {
    const socket = this.#sockets.find(netns);
    if (socket === undefined) return;
    memory.links.clear();
    memory.permanent.clear();
    for (const link of dumpLinks(socket)) memory.links.set(link.index, link);
    for (const family of [AF_UNSPEC, AF_BRIDGE]) {
      for (const message of socket.dump({ type: RTM_GETNEIGH, body: encodeNeighDump(family), action: 'list neighbours' })) {
        const neigh = decodeNeigh(message.body);
        if ((neigh.state & NUD_PERMANENT) !== 0) memory.permanent.add(rememberedAs(neigh));
      }
    }
  }

  #unwatch(netns: Netns): void {
    const watched = this.#watched.get(netns);
    if (watched === undefined) return;
    this.#watched.delete(netns);
    for (const fd of [watched.routeFd, watched.nftFd]) {
      this.#byFd.delete(fd);
      closeSync(fd);
    }
  }

  #drainAll(mode: 'loud' | 'quiet'): void {
    for (let fds = readable(this.#poll); fds.length > 0; fds = readable(this.#poll)) {
      for (const fd of fds) this.#drainOne(fd, mode);
    }
  }

  #drainOne(fd: number, mode: 'loud' | 'quiet'): void {
    const watched = this.#byFd.get(fd);
    if (watched === undefined) return;
    for (;;) {
      const length = receive(fd, buffer, { wait: false });
      if (length < 0) {
        if (errnoName(-length) === 'EINTR') continue;
        if (errnoName(-length) !== 'ENOBUFS') return;
        // Messages were lost: what is remembered is as old as what the caller knows.
        this.#recall(watched);
        watched.generation = undefined;
        this.#missed(watched);
        continue;
      }
      for (const message of decodeMessages(buffer.subarray(0, length))) {
        if (fd === watched.nftFd) this.#hearNft(watched, message);
        else if (isRouteDrift(watched.memory, message, this.#causeOf(message.port, mode))) this.#suspect(watched.netns);
      }
    }
  }

  #hearNft(watched: Watched, message: Message): void {
    if (!isGeneration(message)) {
      if (isNftDrift(message)) this.#changed(watched);
      else if (isForwardingChange(message)) this.#elsewhere += watched.netns === '' ? 1 : 0;
    } else if (message.port === watched.nftPort) {
      watched.answered = generationIn(message);
    } else {
      watched.generation = generationIn(message);
    }
  }

  #causeOf(port: number, mode: 'loud' | 'quiet'): Cause {
    if (this.#sockets.ports.has(port)) return 'self';
    if (port !== 0) return 'foreign';
    return mode === 'quiet' ? 'self' : 'kernel';
  }

  #compareNames(): void {
    const before = new Map([...this.#watched.values()].map(({ netns, identity }) => [netns, identity]));
    this.follow();
    for (const [netns, identity] of before) {
      if (this.#watched.get(netns)?.identity === identity && this.#watched.has(netns)) continue;
      this.#sockets.forget(netns);
      this.#suspect(netns);
      this.#suspect('');
    }
    for (const netns of this.#watched.keys()) if (!before.has(netns)) this.#suspect('');
  }

  #suspect(netns: Netns | undefined): void {
    if (this.#suspects.size === 0) queueMicrotask(() => this.#deliver());
    this.#suspects.add(netns);
  }

  #deliver(): void {
    const suspects = [...this.#suspects];
    this.#suspects.clear();
    for (const netns of suspects) this.#onDrift(netns);
  }
}

function open(protocol: number, groups: number): number {
  const fd = openNetlinkSocket(protocol, groups);
  setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, bufferBytes);
  raiseSignal(fd, signal);
  return fd;
}
