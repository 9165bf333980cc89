// One netlink socket per namespace, opened inside it and kept, so that no later call has to switch namespaces. A kept
// socket keeps its namespace alive, so each use first checks that the name still stands for the same namespace.
import { closeSync } from 'node:fs';
import type { Netns } from '#model/desired.ts';
import { kernelFault } from './libc.ts';
import { NetlinkSocket } from './netlink/socket.ts';
import { defaultNetnsDirectory, inNetns, netnsIdentity, netnsPath, openNetns } from './netns.ts';

interface Kept {
  readonly identity: number;
  readonly socket: NetlinkSocket;
}

export class Sockets implements Disposable {
  readonly directory: string;
  /** Port ids of every socket of ours that is open: multicast messages that carry one were caused by us. */
  readonly ports: Set<number> = new Set();
  readonly #kept = new Map<Netns, Kept>();

  constructor(directory: string = defaultNetnsDirectory) {
    this.directory = directory;
  }

  path(netns: Netns): string {
    return netnsPath(netns, this.directory);
  }

  /** The namespace's socket, or undefined when there is no such namespace. */
  find(netns: Netns): NetlinkSocket | undefined {
    const kept = this.#kept.get(netns);
    if (netns === '') return kept?.socket ?? this.#open('', 0);
    const identity = netnsIdentity(this.path(netns));
    if (kept !== undefined && kept.identity === identity) return kept.socket;
    this.forget(netns);
    return identity === undefined ? undefined : this.#open(netns, identity);
  }

  /** The namespace's socket; Fault `kernel` with errno ENOENT when there is no such namespace. */
  of(netns: Netns): NetlinkSocket {
    const socket = this.find(netns);
    if (socket === undefined) throw kernelFault(`open network namespace ${netns}`, 'ENOENT');
    return socket;
  }

  /** Runs `fn` with a descriptor of the namespace, for requests that name one. */
  withFd<T>(netns: Netns, fn: (fd: number) => T): T {
    const fd = openNetns(this.path(netns));
    try {
      return fn(fd);
    } finally {
      closeSync(fd);
    }
  }

  /** Closes the namespace's socket so that the namespace can end. */
  forget(netns: Netns): void {
    const kept = this.#kept.get(netns);
    if (kept === undefined) return;
    this.#kept.delete(netns);
    this.ports.delete(kept.socket.port);
    kept.socket[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    for (const netns of this.#kept.keys()) this.forget(netns);
  }

  #open(netns: Netns, identity: number): NetlinkSocket {
    const socket = netns === '' ? new NetlinkSocket() : inNetns(this.path(netns), () => new NetlinkSocket());
    this.#kept.set(netns, { identity, socket });
    this.ports.add(socket.port);
    return socket;
  }
}
