// The kind `wireguard`: what each device of ours listens on and which peers it has. The device itself is a link, made by
// wireguard-kernel.ts or wireguard-userspace.ts; both are configured through the same four calls. Only differences are
// written, so peers that stay keep their sessions and lose no packet.
import type { Netns, WireguardConfig } from '#model/desired.ts';
import { byItem, place } from './batch.ts';
import type { Kind } from './kind.ts';
import { kernelFault } from './libc.ts';
import type { Sockets } from './sockets.ts';
import { pause } from './wait.ts';
import { changeOf, madeBy, parseEndpoint, sameConfig, type WireguardBackend } from './wireguard-config.ts';
import { type After, Handshakes, later } from './wireguard-handshakes.ts';
import { createKernelWireguard, hasKernelWireguard } from './wireguard-kernel.ts';
import { publicKeyOf } from './wireguard-keys.ts';
import { createUserspaceWireguard, findWireguardGo, type Starter } from './wireguard-userspace.ts';

/**
 * Another device of the host that has its key and carries its packets, in the place of which one of ours comes. Others answer where they
 * heard of that key last, and what one of the two does not know it drops. So packets are led to ours before it has peers; when the other
 * has sent what it had, ours begins; and the other, of which nothing comes any more, takes in what is still sent to it until it goes.
 */
export interface Predecessor {
  isThere(item: WireguardConfig): boolean;
  remove(item: WireguardConfig): void;
}

export interface WireguardKindOptions {
  readonly backend: WireguardBackend;
  /** The host's, in base64; every device of the host has it. */
  readonly privateKey: string;
  /** How looks at new peers are put off; default by Node's timers. */
  readonly after?: After | undefined;
  readonly predecessor?: Predecessor | undefined;
}

export interface WireguardKind extends Kind<WireguardConfig>, Disposable {}

const keyOf = ({ netns, link }: WireguardConfig): string => `${netns} ${link}`;

/** How long the other device may still send what was led to it: what is lost then is what a way of its own would cost. */
const drainMs = 10;

/** A device that has no key yet, or somebody's else, is listed with this port, which is never wanted. */
const foreignPort = 0;

/** Looks at new peers now and then; the caller disposes of it. */
export function createWireguardKind({ backend, privateKey, after = later, predecessor }: WireguardKindOptions): WireguardKind {
  const keys = { privateKey, publicKey: publicKeyOf(privateKey) };
  const handshakes = new Handshakes({ backend, publicKey: keys.publicKey, after });
  const isSuccessor = (item: WireguardConfig): boolean => item.peers.length > 0 && predecessor?.isThere(item) === true;

  function read(netns: Netns, link: string): WireguardConfig {
    const state = backend.read(netns, link);
    return {
      netns,
      link,
      port: state.publicKey === keys.publicKey ? state.port : foreignPort,
      peers: state.peers.map(({ publicKey, endpoint, allowed }) => ({
        publicKey,
        endpoint: parseEndpoint(endpoint) ?? { ip: '' as WireguardConfig['peers'][number]['endpoint']['ip'], port: 0 },
        allowed,
      })),
    };
  }

  return {
    name: 'wireguard',
    key: keyOf,
    same: (wanted, found) => sameConfig(wanted, found) && !isSuccessor(wanted),
    isAfterRoutes: isSuccessor,
    // A device without key and peers is an unconfigured link, not a configuration.
    list: (netns) =>
      backend.names(netns).flatMap((link) => [read(netns, link)].filter(({ port, peers }) => port !== foreignPort || peers.length > 0)),
    add: (items) =>
      byItem(items, (item) => {
        const { netns, link } = item;
        if (!backend.names(netns).includes(link)) throw kernelFault(`configure wireguard device ${link}${place(netns)}`, 'ENODEV');
        const state = backend.read(netns, link);
        const isNext = isSuccessor(item);
        if (isNext) pause(drainMs);
        const change = changeOf(item, keys, state);
        if (change !== undefined) {
          backend.write(netns, link, change);
          handshakes.begun(item, madeBy(change, state));
        }
        if (isNext) predecessor?.remove(item);
      }),
    remove: (items) =>
      byItem(items, ({ netns, link }) => {
        if (!backend.names(netns).includes(link)) return;
        const { peers } = backend.read(netns, link);
        backend.write(netns, link, { privateKey: '', set: [], remove: peers.map(({ publicKey }) => publicKey) });
      }),
    [Symbol.dispose]: () => handshakes[Symbol.dispose](),
  };
}

const starterOf = (pipe: string | undefined): Starter | undefined => (pipe === undefined ? findWireguardGo() : { pipe });

/**
 * How this host can have WireGuard devices. Asks the kernel first, which loads its module where there is one. With a pipe somebody
 * else is to start processes, whether or not he is there already.
 */
export function probeWireguard(pipe?: string): 'kernel' | 'userspace' | 'none' {
  if (hasKernelWireguard()) return 'kernel';
  return starterOf(pipe) === undefined ? 'none' : 'userspace';
}

export interface UserspacePlace {
  /** The agent's own, for userspace devices. */
  readonly directory: string;
  /** As of probeWireguard(). */
  readonly pipe?: string | undefined;
}

/** The best backend this host has; undefined when it has none. */
export function openWireguard(sockets: Sockets, { directory, pipe }: UserspacePlace): WireguardBackend | undefined {
  if (hasKernelWireguard()) return createKernelWireguard(sockets);
  const starter = starterOf(pipe);
  return starter === undefined ? undefined : createUserspaceWireguard({ sockets, directory, starter });
}
