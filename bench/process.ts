// What a program of a lab host takes: resident memory and processor time, from proc_pid_status(5) and proc_pid_stat(5).
import { readdirSync, readFileSync } from 'node:fs';
import { Fault } from '#model/fault.ts';
import type { Host } from '#lab/host.ts';

/** The host's processes with an argument, among the first, that ends with `program`. */
function find(host: Host, program: string): string {
  const found = readdirSync(host.file('/proc')).find((entry) => /^\d+$/.test(entry) && runs(host.file(`/proc/${entry}/cmdline`), program));
  if (found === undefined) throw new Fault('not-found', `No ${program} runs on ${host.name}`);
  return host.file(`/proc/${found}`);
}

function runs(path: string, program: string): boolean {
  try {
    return readFileSync(path, 'utf8')
      .split('\0')
      .slice(0, 8)
      .some((argument) => argument.endsWith(program));
  } catch {
    return false; // it ended while we looked
  }
}

/** Resident memory in MiB. Fault `not-found`. */
export function memoryOf(host: Host, program: string): number {
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`${find(host, program)}/status`, 'utf8')) ?? [];
  return Number(kib) / 1024;
}

const ticksPerSecond = 100;

/** Seconds of processor time that it has used. Fault `not-found`. */
export function processorOf(host: Host, program: string): number {
  const stat = readFileSync(`${find(host, program)}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}
