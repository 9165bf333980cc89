// Removal of a demonstration, in whatever state it is, and the proof that nothing of it is left.
import { existsSync, readFileSync } from 'node:fs';
import { Fault } from '#model/fault.ts';
import { cgroupExists, processesOf } from './cgroup.ts';
import { destroyLab } from './lab.ts';
import { isAlive } from './process.ts';
import { labDisk, labFolder, labGroup } from './state.ts';

/** Removes the lab; absent is success. Fault `internal` names what is left. */
export async function removeSite(name: string): Promise<void> {
  const members = processesOf(labGroup(name));
  await destroyLab(name);
  const left = leftOf(name);
  const alive = members.filter(isAlive);
  if (alive.length > 0) left.push(`processes ${alive.map(({ pid }) => pid).join(', ')}`);
  if (left.length > 0) throw new Fault('internal', `Cannot remove all of lab ${name}: left are ${left.join('; ')}`);
}

/** Groups with their processes, folders and mounts. Namespaces live only as long as a process or a mount holds them. */
export function leftOf(name: string): string[] {
  const folders = [labFolder(name), labDisk(name)];
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  return [
    ...(cgroupExists(labGroup(name)) ? [`control group ${labGroup(name)}`] : []),
    ...folders.filter((path) => existsSync(path)),
    ...mounts.flatMap((line) => (folders.some((path) => line.includes(`${path}/`)) ? [`mount ${line.split(' ')[4]}`] : [])),
  ];
}
