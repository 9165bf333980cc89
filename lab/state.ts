// What a lab writes down so that another process can find, use and destroy it, and the lock that keeps two builders of one
// lab apart. Small files are below /run, which a reboot of the machine empties just as it ends the lab's processes; hosts'
// disks are in /var/cache because engines need a real file system for overlay2 (overlayfs cannot be the upper of another).
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Fault } from '#model/fault.ts';
import { isAlive, type ProcessRef, refOf } from './process.ts';

const runRoot = '/run/causeway-lab';
const diskRoot = '/var/cache/causeway-lab';

export interface HostRecord {
  readonly name: string;
  readonly address: string;
  readonly address6: string;
  /** Extra addresses on lo: what the outside world has beyond the underlay. */
  readonly also: readonly string[];
  /** MTU of eth0. The host without one holds the underlay's bridge. */
  readonly mtu: number;
}

export interface LabRecord {
  readonly name: string;
  readonly status: 'building' | 'ready';
  readonly hosts: readonly HostRecord[];
  readonly underlay: HostRecord;
  readonly outside: HostRecord;
  readonly controller: HostRecord;
  /** Of a cloud in the lab: hosts on ports of its networks instead of the underlay. */
  readonly instances?: readonly HostRecord[];
}

export const labFolder = (lab: string): string => join(runRoot, lab);
export const hostFolder = (lab: string, host: string): string => join(runRoot, lab, host);
export const labDisk = (lab: string): string => join(diskRoot, lab);
export const hostDisk = (lab: string, host: string): string => join(diskRoot, lab, host);
export const labGroup = (lab: string): string => `/causeway-lab/${lab}`;
export const hostGroup = (lab: string, host: string): string => `/causeway-lab/${lab}/${host}`;

/** Fault `invalid` unless the name can be part of paths, link names and host names alike. */
export function checkLabName(name: string): void {
  if (!/^[a-z][a-z0-9-]{0,30}$/.test(name)) {
    throw new Fault('invalid', `Cannot use ${JSON.stringify(name)} as a lab's name: lower-case letters, digits and hyphens`, {
      field: 'name',
    });
  }
}

/** Replaces a file in one step, so that a reader never sees half of it. */
export function writeJson(path: string, value: unknown): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.new`, `${JSON.stringify(value, undefined, 1)}\n`);
  renameSync(`${path}.new`, path);
}

/** undefined when the file is absent. Fault `corrupt` when it is no JSON. */
export function readJson(path: string): unknown {
  let content: string;
  try {
    content = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return JSON.parse(content) as unknown;
  } catch (cause) {
    throw new Fault('corrupt', `Cannot read ${path}`, { cause });
  }
}

export const readLab = (name: string): LabRecord | undefined => readJson(join(labFolder(name), 'lab.json')) as LabRecord | undefined;
export const writeLab = (record: LabRecord): void => writeJson(join(labFolder(record.name), 'lab.json'), record);

/** Names of the labs on this machine, half-built ones too. */
export function labNames(): string[] {
  try {
    const entries = readdirSync(runRoot, { withFileTypes: true });
    return entries.flatMap((entry) => (entry.isDirectory() ? [entry.name] : [])).sort();
  } catch {
    return []; // no lab has been built since the machine started
  }
}

/** Removes what is on disk and in /run. Absent is success. */
export function removeLabFiles(name: string): void {
  rmSync(labDisk(name), { recursive: true, force: true });
  rmSync(labFolder(name), { recursive: true, force: true });
  removeEmptyFolder(diskRoot);
}

/** The last holder of a lock leaves the folder empty. */
function removeEmptyFolder(path: string): void {
  if (readFolder(path).length === 0) rmSync(path, { recursive: true, force: true });
}

function readFolder(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

/**
 * Runs `work` with the lock of a lab's name. A lock whose holder has died is taken over.
 * Fault `in-use` when a living process holds it.
 */
export async function withLabLock<T>(name: string, work: () => Promise<T>): Promise<T> {
  const path = join(runRoot, `${name}.lock`);
  mkdirSync(runRoot, { recursive: true });
  const holder = readJson(path) as ProcessRef | undefined;
  if (holder !== undefined && isAlive(holder)) {
    throw new Fault('in-use', `Cannot change lab ${name}: process ${holder.pid} is working on it`, { hint: 'Wait for it to finish.' });
  }
  rmSync(path, { force: true });
  try {
    const file = openSync(path, 'wx');
    writeFileSync(file, JSON.stringify(refOf(process.pid)));
    closeSync(file);
  } catch (cause) {
    throw new Fault('in-use', `Cannot change lab ${name}: another process began at the same moment`, { cause });
  }
  try {
    return await work();
  } finally {
    rmSync(path, { force: true });
    removeEmptyFolder(runRoot);
  }
}
