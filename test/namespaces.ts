// Which namespaces of the machine are in use, and by whom. Their numbers are given again once they have gone, also to labs that
// other test files make at the same time, so what is left of a lab is told by whoever used its namespaces before it ended.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { statOf } from '#lab/process.ts';

const kinds = ['net', 'mnt', 'pid', 'cgroup', 'uts', 'ipc'];

/** Like `net:[4026531840]`; none of a process that has ended. */
export function namespacesOf(pid: number): string[] {
  try {
    return kinds.map((kind) => readlinkSync(`/proc/${pid}/ns/${kind}`));
  } catch {
    return [];
  }
}

/** `PROCESS START NAMESPACE` of every living process, and `mount NAMESPACE` of those that a mount keeps. */
export function usersOfNamespaces(): ReadonlySet<string> {
  const processes = readdirSync('/proc').flatMap((entry) => (/^\d+$/.test(entry) ? (statOf(Number(entry)) ?? []) : []));
  const used = processes.flatMap(({ pid, startTime }) => namespacesOf(pid).map((id) => `${pid} ${startTime} ${id}`));
  const mounted = readFileSync('/proc/self/mountinfo', 'utf8').match(/net:\[\d+\]/g) ?? [];
  return new Set([...used, ...mounted.map((id) => `mount ${id}`)]);
}

/** Those of `users` that still use one of `namespaces`. */
export function stillUsing(users: ReadonlySet<string>, namespaces: Iterable<string>): string[] {
  const those = new Set(namespaces);
  const now = usersOfNamespaces();
  return [...users].filter((user) => now.has(user) && those.has(user.split(' ').at(-1) ?? ''));
}
