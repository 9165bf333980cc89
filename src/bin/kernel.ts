// The kernel of this host as the agent's kinds see it, with WireGuard where there is one.
import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { findUnderlay } from '#agent/underlay.ts';
import { dumpLinks } from '#kernel/batch.ts';
import type { OnDrift } from '#kernel/events.ts';
import { createKinds, type RealKinds } from '#kernel/kinds.ts';
import { type Predecessor, probeWireguard } from '#kernel/wireguard.ts';
import { loadKeyPair } from '#kernel/wireguard-keys.ts';
import { parseInterface } from '#model/ip.ts';
import type { Underlay } from '#model/resources.ts';

export interface Kernel {
  readonly kinds: RealKinds;
  readonly wireguard: 'kernel' | 'userspace' | 'none';
  /** Of this host, for others to encrypt to. */
  readonly publicKey?: string;
}

/** Of the host's WireGuard key. */
export const keyFile = (state: string): string => join(state, 'wireguard.key');

export interface Telling {
  /** Somebody else has changed something of ours; absent: nothing is watched. */
  readonly onDrift?: OnDrift;
  /** Absent: no other device of the host has its key. */
  readonly predecessor?: Predecessor | undefined;
}

export interface KernelPlaces {
  readonly state: string;
  readonly run: string;
  /** By which somebody else is asked to start wireguard-go; absent: the agent does. */
  readonly wireguardStarter?: string;
}

/** The caller disposes of the kinds. */
export function openKernel({ state, run, wireguardStarter: pipe }: KernelPlaces, telling: Telling = {}): Kernel {
  const { onDrift, predecessor } = telling;
  const wireguard = probeWireguard(pipe);
  const watching = { birdDirectory: join(run, 'bird'), ...(onDrift === undefined ? {} : { onDrift }) };
  if (wireguard === 'none') return { wireguard, kinds: createKinds(watching) };
  const { privateKey, publicKey } = loadKeyPair(keyFile(state));
  const kinds = createKinds({ ...watching, wireguard: { directory: join(run, 'wireguard'), pipe, privateKey, predecessor } });
  return { wireguard, publicKey, kinds };
}

/** See findUnderlay. Faults: `invalid`, `kernel`. */
export function underlayOf({ sockets, addr }: RealKinds, wanted: string | undefined): Underlay[] {
  const mtus = new Map(dumpLinks(sockets.of('')).map(({ name, mtu }) => [name, mtu]));
  return findUnderlay({
    interfaces: networkInterfaces(),
    routes: readFileSync('/proc/net/route', 'utf8'),
    mtuOf: (link) => mtus.get(link),
    wanted,
    own: new Set(addr.list('').map(({ address }) => parseInterface(address).ip)),
  });
}
