// Network namespaces: working inside one, and the named ones below a directory, laid out as ip-netns(8) does so that
// `ip netns exec` works on them. setns(2) moves only the calling thread, and Node's thread pool consists of other threads:
// a pool thread started while the main thread is away stays in that namespace for good. Hence: everything inside is
// synchronous, and the pool is started before anything else (warmThreadPool).
import { closeSync, mkdirSync, openSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { isFault } from '#model/fault.ts';
import type { Netns, NetnsItem } from '#model/desired.ts';
import {
  enterNetns,
  type InetBinding,
  kernelFault,
  MNT_DETACH,
  mount,
  MS_BIND,
  MS_REC,
  MS_SHARED,
  openTcpListener,
  openUdp,
  unmount,
  unshareNetns,
} from './libc.ts';
import { isOurNetns } from './ownership.ts';

export const defaultNetnsDirectory = '/run/netns';

const threadNetns = '/proc/thread-self/ns/net';
let currentFd: number | undefined;

/** Starts every thread of libuv's pool in the namespace the process is in. The first thing a program does. */
export async function warmThreadPool(): Promise<void> {
  await stat('/');
}

function away<T>(leave: () => void, fn: () => T): T {
  const back = (currentFd ??= openSync(threadNetns, 'r'));
  try {
    leave();
    return fn();
  } finally {
    currentFd = back;
    try {
      enterNetns(back);
    } catch (error) {
      // Going on would configure the wrong namespace. A restart is safe by design.
      process.stderr.write(`Cannot return to the own network namespace: ${String(error)}\n`);
      process.abort();
    }
  }
}

/** `never` for a promise, so that an asynchronous function is not assignable; a function that only throws is fine. */
type Synchronous<T> = [T] extends [never] ? unknown : T extends PromiseLike<unknown> ? never : unknown;

/**
 * Runs `fn` with the process's main thread inside the namespace at `path`, and returns to where it was. `fn` must be
 * synchronous, which its type demands; child processes spawned inside inherit the namespace. May be nested.
 * Fault `kernel` with errno ENOENT when there is no such namespace, EINVAL when the file is not one.
 */
export function inNetns<T>(path: string, fn: (() => T) & Synchronous<T>): T {
  // Wherever the thread is.
  if (path === threadNetns) return fn();
  const fd = openNetns(path);
  try {
    return away(() => {
      enterNetns(fd);
      currentFd = fd;
    }, fn);
  } finally {
    closeSync(fd);
  }
}

/** A descriptor that keeps the namespace at `path` alive; the caller closes it. Fault `kernel`. */
export function openNetns(path: string): number {
  return translated(`open network namespace ${path}`, () => openSync(path, 'r'));
}

/** Turns what node:fs throws into a Fault. */
function translated<T>(action: string, fn: () => T): T {
  try {
    return fn();
  } catch (error) {
    throw kernelFault(action, systemErrno(error));
  }
}

function systemErrno(error: unknown): string {
  if (!(error instanceof Error) || !('code' in error)) throw error;
  return String(error.code);
}

/** Where a namespace can be entered: '' is the process's own. Only the first is ever cached by descriptor. */
export function netnsPath(netns: Netns, directory: string = defaultNetnsDirectory): string {
  if (netns === '') return threadNetns;
  return netns.startsWith('/') ? netns : `${directory}/${netns}`;
}

/**
 * A number that tells one namespace from another, also from one that had the same name before; undefined when there is
 * none (a leftover file without its mount counts as none).
 */
export function netnsIdentity(path: string): number | undefined {
  const found = statSync(path, { throwIfNoEntry: false });
  return found !== undefined && found.dev === nsfsDevice() ? found.ino : undefined;
}

let nsfs: number | undefined;
function nsfsDevice(): number {
  nsfs ??= statSync(threadNetns).dev;
  return nsfs;
}

/** Makes the directory a mount point of its own whose mounts reach every other mount namespace, as ip-netns(8) does. Idempotent. Fault `kernel`. */
export function shareDirectory(directory: string): void {
  translated(`make ${directory}`, () => mkdirSync(directory, { recursive: true, mode: 0o755 }));
  const refused = mount('', directory, MS_SHARED | MS_REC);
  if (refused === undefined) return;
  if (refused !== 'EINVAL') throw kernelFault(`share ${directory}`, refused);
  const bound = mount(directory, directory, MS_BIND | MS_REC);
  if (bound !== undefined) throw kernelFault(`bind ${directory}`, bound);
  const shared = mount('', directory, MS_SHARED | MS_REC);
  if (shared !== undefined) throw kernelFault(`share ${directory}`, shared);
}

/**
 * Makes a named namespace; one that exists stays as it is and `inside` does not run. `inside` runs in the new one before
 * it gets its name, so that nobody sees it unfinished. Fault `kernel`.
 */
export function createNetns(directory: string, name: string, inside: () => void = () => undefined): void {
  const path = `${directory}/${name}`;
  if (netnsIdentity(path) !== undefined) return;
  shareDirectory(directory);
  translated(`make network namespace ${name}`, () => writeFileSync(path, '', { mode: 0o444 }));
  try {
    away(unshareNetns, () => {
      inside();
      const refused = mount(threadNetns, path, MS_BIND);
      if (refused !== undefined) throw kernelFault(`name network namespace ${name}`, refused);
    });
  } catch (error) {
    rmSync(path, { force: true });
    throw error;
  }
}

/** Takes a namespace its name; it ends when its last process and socket have. Absent already is success. Fault `kernel`. */
export function removeNetns(directory: string, name: string): void {
  const path = `${directory}/${name}`;
  for (;;) {
    const refused = unmount(path, MNT_DETACH);
    if (refused === undefined) continue;
    // EINVAL: no (further) mount on it.
    if (refused !== 'EINVAL' && refused !== 'ENOENT' && refused !== 'ENOTDIR')
      throw kernelFault(`unmount network namespace ${name}`, refused);
    translated(`remove network namespace ${name}`, () => rmSync(path, { force: true }));
    return;
  }
}

/** Our namespaces below `directory`, in name order. */
export function listNetns(directory: string): NetnsItem[] {
  let entries: string[];
  try {
    entries = readdirSync(directory);
  } catch (error) {
    if (systemErrno(error) === 'ENOENT') return [];
    throw kernelFault(`list ${directory}`, systemErrno(error));
  }
  return entries
    .filter((name) => isOurNetns(name) && netnsIdentity(`${directory}/${name}`) !== undefined)
    .sort()
    .map((name) => ({ name }));
}

/** A UDP socket inside a namespace, for `dgram.createSocket(…).bind({ fd })`. The caller owns the descriptor. Fault `kernel`. */
export const bindUdpInNetns = (path: string, binding: InetBinding): number => inNetns(path, () => openUdp(binding));

/** A listening TCP socket inside a namespace, for `net.createServer(…).listen({ fd })`. The caller owns it. Fault `kernel`. */
export const listenTcpInNetns = (path: string, binding: InetBinding): number => inNetns(path, () => openTcpListener(binding));

/** Whether the fault says that the namespace (or the link) is not there. */
export const isAbsent = (error: unknown): boolean => isFault(error, 'kernel') && (error.errno === 'ENOENT' || error.errno === 'ENODEV');
