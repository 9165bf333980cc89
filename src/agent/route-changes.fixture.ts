// For kernel tests: what happens to routes somewhere, one by one. A packet may come in between any two changes, though a test that
// sends packets would seldom see one do so.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { type Cidr, cidrLength, contains, everything, familyOf, hostPrefix, type Ip, parseCidr, readIp } from '#model/ip.ts';
import { inNetns } from '#kernel/netns.ts';
import { eventually, type Place } from './namespaces.fixture.ts';

export interface RouteChanges extends Disposable {
  /** As ip-monitor(8) prints them, of the main table. */
  readonly lines: () => string[];
}

/** From the time at which this is there. */
export async function routeChanges({ path }: Place): Promise<RouteChanges> {
  const child = inNetns(path, () => spawn('ip', ['monitor', 'route'], { stdio: ['ignore', 'pipe', 'ignore'] }));
  let said = '';
  child.stdout.on('data', (bytes) => (said += String(bytes)));
  // Of its sockets the one that has joined groups; the kernel shows who that is by the process's number.
  const joined = new RegExp(`^\\S+ +0 +${child.pid} +(?!0{8})`, 'm');
  await eventually(() => joined.test(readFileSync(`/proc/${child.pid}/net/netlink`, 'utf8')), 'ip monitor to listen');
  return {
    lines: () => said.split('\n').filter((line) => line !== '' && !line.includes(' table ')),
    [Symbol.dispose]: () => void child.kill(),
  };
}

/** `10.0.0.0/24 via …`, `unreachable 10.0.0.0/16 …`, `10.0.0.1 dev …`, `default via …`: what it is for. */
function destinationOf(route: string, ip: Ip): Cidr {
  const [, text = ''] = /^(?:unreachable |blackhole )?(\S+)/.exec(route) ?? [];
  const one = readIp(text);
  return text === 'default' ? everything[familyOf(ip)] : one === undefined ? parseCidr(text) : hostPrefix(one);
}

/** Which route packets to that address take after each of the changes to the table, which is as `ip -4 route` or `ip -6 route` shows it. */
export function waysTo(ip: Ip, table: string, changes: readonly string[]): (string | undefined)[] {
  const routes = new Map<Cidr, string>();
  const after = (line: string): string | undefined => {
    const isDeleted = line.startsWith('Deleted ');
    const route = line.replace('Deleted ', '').trim();
    const destination = destinationOf(route, ip);
    if (isDeleted) routes.delete(destination);
    else routes.set(destination, route);
    const fitting = [...routes].filter(([cidr]) => contains(cidr, ip)).toSorted(([a], [b]) => cidrLength(b) - cidrLength(a));
    return fitting[0]?.[1];
  };
  for (const line of table.trim().split('\n')) after(line);
  return changes.map(after);
}
