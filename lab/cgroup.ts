// Control groups of a lab. Every process of a lab host, its engine's containers included, lives below one cgroup2 directory,
// which is what ends them for certain (cgroup.kill, Linux 5.14) and what cgroup-attached programs see as "this host".
// Engines make further groups below the same path in the version 1 controllers where a machine still mounts those.
import { existsSync, readdirSync, readFileSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Fault } from '#model/fault.ts';
import { isAlive, type ProcessRef, refOf } from './process.ts';
import { until } from './until.ts';

export interface CgroupMount {
  readonly path: string;
  readonly version: 1 | 2;
}

/** Reads the cgroup mounts out of /proc/self/mountinfo (proc_pid_mountinfo(5)). */
export function parseCgroupMounts(mountinfo: string): CgroupMount[] {
  return mountinfo.split('\n').flatMap((line): CgroupMount[] => {
    const [before, after] = line.split(' - ');
    const path = before?.split(' ')[4];
    const type = after?.split(' ')[0];
    if (path === undefined || (type !== 'cgroup' && type !== 'cgroup2')) return [];
    return [{ path, version: type === 'cgroup2' ? 2 : 1 }];
  });
}

const mounts = (): CgroupMount[] => parseCgroupMounts(readFileSync('/proc/self/mountinfo', 'utf8'));

/** Path of the cgroup2 mount. Fault `unsupported` when there is none. */
export function cgroup2Root(): string {
  const mount = mounts().find(({ version }) => version === 2);
  if (mount === undefined) {
    throw new Fault('unsupported', 'Cannot build a lab: no cgroup2 is mounted', { hint: 'mount -t cgroup2 none /sys/fs/cgroup' });
  }
  return mount.path;
}

/** Makes the group `group` (`/causeway-lab/…`) and returns its directory in cgroup2. Existing is success. */
export function makeCgroup(group: string): string {
  const path = join(cgroup2Root(), group);
  mkdirSync(path, { recursive: true });
  return path;
}

export const cgroupExists = (group: string): boolean => mounts().some(({ path }) => existsSync(join(path, group)));

/**
 * Ends every process in and below the group and waits until none is left, and so none of their mounts and namespaces.
 * Absent is success. Fault `timeout`.
 */
export async function killCgroup(group: string): Promise<void> {
  const path = join(cgroup2Root(), group);
  if (!existsSync(path)) return;
  const members = membersOf(path);
  await until(`the processes of ${group} to end`, () => {
    if (/^populated 0$/m.test(readFileSync(join(path, 'cgroup.events'), 'utf8'))) return true;
    writeFileSync(join(path, 'cgroup.kill'), '1');
    return false;
  });
  // A process leaves its group before it is gone: the first one of a pid namespace waits for all others in between.
  await until(`the processes of ${group} to be gone`, () => members.every((ref) => !isAlive(ref)));
}

/** Processes in and below a cgroup2 directory. One that goes meanwhile, as those of containers do, has none. */
function membersOf(path: string): ProcessRef[] {
  try {
    const own = readFileSync(join(path, 'cgroup.procs'), 'utf8').split('\n');
    const refs = own.flatMap((line) => (line === '' ? [] : (refOf(Number(line)) ?? [])));
    const below = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    return [...refs, ...below.flatMap((entry) => membersOf(join(path, entry.name)))];
  } catch (error) {
    if (['ENOENT', 'ENODEV'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}

/** The processes of a group, as the machine counts. */
export const processesOf = (group: string): ProcessRef[] => {
  const path = join(cgroup2Root(), group);
  return existsSync(path) ? membersOf(path) : [];
};

/** Removes the group and all below it from every hierarchy, and parents that became empty. Its processes must have ended. */
export async function removeCgroup(group: string): Promise<void> {
  for (const mount of mounts()) {
    const path = join(mount.path, group);
    // EBUSY for a moment after the last process: the kernel lets go of a group with its zombies
    await until(`${path} to be removable`, () => removeTree(path));
    removeEmpty(join(mount.path, dirname(group)));
  }
}

function removeTree(path: string): true {
  if (!existsSync(path)) return true;
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) removeTree(join(path, entry.name));
  }
  rmdirSync(path);
  return true;
}

function removeEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // another lab is in it, or it was never made in this hierarchy
  }
}
