// The kind `wireguard`: what each device of ours listens on and which peers it has. The device itself is a link, made by
// wireguard-kernel.ts or wireguard-userspace.ts; both are configured through the same four calls. Only differences are
// written, so peers that stay keep their sessions and lose no packet.
import type { Netns, WireguardConfig } from '#model/desired.ts';
import { byItem, place } from './batch.ts';
import type { Kind } from './kind.ts';
import { kernelFault } from './libc.ts';
import type { Sockets } from './sockets.ts';
import { changeOf, madeBy, parseEndpoint, sameConfig, type WireguardBackend } from './wireguard-config.ts';
import { type After, Handshakes, later } from './wireguard-handshakes.ts';
import { createKernelWireguard, hasKernelWireguard } from './wireguard-kernel.ts';
import { publicKeyOf } from './wireguard-keys.ts';
import { createUserspaceWireguard, findWireguardGo, type Starter } from './wireguard-userspace.ts';

export interface WireguardKindOptions {
  readonly backend: WireguardBackend;
  /** The host's, in base64; every device of the host has it. */
  readonly privateKey: string;
  /** How looks at new peers are put off; default by Node's timers. */
  readonly after?: After | undefined;
  /** Called before a device without peers is given some. Whatever else has the host's key ends now: answers would go to either. */
  readonly before?: ((item: WireguardConfig) => void) | undefined;
}

export interface WireguardKind extends Kind<WireguardConfig>, Disposable {}

/** A device that has no key yet, or somebody's else, is listed with this port, which is never wanted. */
const foreignPort = 0;

/** Looks at new peers now and then; the caller disposes of it. */
export function createWireguardKind({ backend, privateKey, after = later, before }: WireguardKindOptions): WireguardKind {
  const keys = { privateKey, publicKey: publicKeyOf(privateKey) };
  const handshakes = new Handshakes({ backend, publicKey: keys.publicKey, after });

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
    key: ({ netns, link }) => `${netns} ${link}`,
    same: sameConfig,
    // A device without key and peers is an unconfigured link, not a configuration.
    list: (netns) =>
      backend.names(netns).flatMap((link) => [read(netns, link)].filter(({ port, peers }) => port !== foreignPort || peers.length > 0)),
    add: (items) =>
      byItem(items, (item) => {
        const { netns, link } = item;
        if (!backend.names(netns).includes(link)) throw kernelFault(`configure wireguard device ${link}${place(netns)}`, 'ENODEV');
        const state = backend.read(netns, link);
        const change = changeOf(item, keys, state);
        if (change === undefined) return;
        if (state.peers.length === 0 && item.peers.length > 0) before?.(item);
        backend.write(netns, link, change);
        handshakes.begun(item, madeBy(change, state));
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
