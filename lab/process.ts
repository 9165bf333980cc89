// Processes known by number. A number alone may be reused by the kernel, so a process is always named with its start time
// (field 22 of /proc/PID/stat, in clock ticks since boot; proc_pid_stat(5)).
import { readdirSync, readFileSync } from 'node:fs';

export interface ProcessRef {
  readonly pid: number;
  readonly startTime: string;
}

export interface ProcessStat extends ProcessRef {
  readonly state: string;
  readonly parent: number;
}

/** Parses a line of /proc/PID/stat; the program's name in it may hold spaces and parentheses. */
export function parseStat(line: string): ProcessStat {
  const pid = Number.parseInt(line, 10);
  const fields = line.slice(line.lastIndexOf(')') + 2).split(' ');
  return { pid, state: fields[0] ?? '', parent: Number(fields[1]), startTime: fields[19] ?? '' };
}

/** undefined when there is no such process. A zombie has ended and counts as none. */
export function statOf(pid: number): ProcessStat | undefined {
  try {
    const stat = parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'));
    return stat.state === 'Z' || stat.state === 'X' ? undefined : stat;
  } catch {
    return undefined; // ENOENT or ESRCH: it ended, perhaps while we looked
  }
}

export const isAlive = (ref: ProcessRef): boolean => statOf(ref.pid)?.startTime === ref.startTime;

export const refOf = (pid: number): ProcessRef | undefined => {
  const stat = statOf(pid);
  return stat === undefined ? undefined : { pid, startTime: stat.startTime };
};

export function childrenOf(pid: number): number[] {
  const numbers = readdirSync('/proc').filter((entry) => /^\d+$/.test(entry));
  return numbers.flatMap((entry) => {
    const stat = statOf(Number(entry));
    return stat?.parent === pid ? [stat.pid] : [];
  });
}

/** Its children, theirs and so on. */
export const descendantsOf = (pid: number): number[] => childrenOf(pid).flatMap((child) => [child, ...descendantsOf(child)]);

/** Sends a signal; a process that has ended already is success. */
export function signalProcess(ref: ProcessRef, signal: NodeJS.Signals): void {
  if (!isAlive(ref)) return;
  try {
    process.kill(ref.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
