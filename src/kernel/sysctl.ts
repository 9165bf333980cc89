// Files below /proc/sys, seen from inside a namespace (/proc/sys/net belongs to the namespace of the thread that opens it).
// They exist anyway and have no owner: list() answers for the paths that this process was ever asked to set, and add()
// reads first, so that a restart writes nothing.
import { readFileSync, writeFileSync } from 'node:fs';
import type { Netns, Sysctl } from '#model/desired.ts';
import { byItem, byNetns, place } from './batch.ts';
import type { Failure, Kind } from './kind.ts';
import { kernelFault } from './libc.ts';
import { inNetns } from './netns.ts';
import type { Sockets } from './sockets.ts';

export const sysctlKey = (sysctl: Sysctl): string => `${sysctl.netns} ${sysctl.path}`;

const file = (path: string): string => `/proc/sys/${path}`;
// Several numbers in one file are separated by tabs when read.
const canonical = (value: string): string => value.trim().replaceAll(/\s+/g, ' ');

function read(path: string): string | undefined {
  try {
    return canonical(readFileSync(file(path), 'utf8'));
  } catch {
    // Not there, or not readable: it does not have the wanted value, and writing it will tell why.
    return undefined;
  }
}

function write({ netns, path, value }: Sysctl): void {
  try {
    writeFileSync(file(path), value);
  } catch (error) {
    const errno = error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
    throw kernelFault(`set sysctl ${path} = ${value}${place(netns)}`, errno);
  }
}

/** `count` is told how many files were really written. */
export function createSysctlKind(sockets: Sockets, count: (writes: number) => void = () => undefined): Kind<Sysctl> {
  const asked = new Map<Netns, Set<string>>();

  function within<T>(netns: Netns, fn: () => T[]): T[] {
    return netns === '' ? fn() : inNetns<T[]>(sockets.path(netns), fn);
  }

  function add(netns: Netns, items: readonly Sysctl[]): Failure<Sysctl>[] {
    const paths = asked.get(netns) ?? new Set();
    asked.set(netns, paths);
    return byItem(items, (item) => {
      paths.add(item.path);
      if (read(item.path) === canonical(item.value)) return;
      write(item);
      count(1);
    });
  }

  return {
    name: 'sysctl',
    key: sysctlKey,
    same: (wanted, found) => canonical(wanted.value) === canonical(found.value),
    list(netns) {
      const paths = asked.get(netns);
      if (paths === undefined) return [];
      if (sockets.find(netns) === undefined) {
        asked.delete(netns);
        return [];
      }
      return within(netns, () =>
        [...paths].flatMap((path) => {
          const value = read(path);
          return value === undefined ? [] : [{ netns, path, value }];
        }),
      );
    },
    add: (items) => byNetns(items, (netns, group) => within(netns, () => add(netns, group))),
    /** The value stays; it is only no longer looked after. */
    remove(items) {
      for (const { netns, path } of items) asked.get(netns)?.delete(path);
      return [];
    },
  };
}
