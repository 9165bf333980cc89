// What goes on between two pods while nodes change how they carry packets: a packet each millisecond, and a connection that says numbers.
// Both begin and end in the pods' network namespaces, by programs of their nodes.
import assert from 'node:assert/strict';
import type { Host } from '#lab/host.ts';
import { until } from '#lab/until.ts';
import { type Counted, countedIn, everyMillisecond, roomLine } from './answered.ts';

/** Runs a line of shell in the network namespace of the pod with that address. */
export const inside = (ip: string, line: string): string[] => [
  'sh',
  '-c',
  `for ns in $(ip netns list | cut -d' ' -f1); do
     ip -n $ns -o addr | grep -qF '${ip}/' && exec ip netns exec $ns sh -c '${line}'
   done; exit 1`,
];

/** A packet every millisecond to an address, from where `enter` has a line of shell run, until it is told to stop. */
export function pingingFrom(from: Host, enter: (line: string) => readonly string[], to: string): () => Promise<Counted> {
  // Its socket has room for some 150 packets: it gets a processor before others do.
  const line = `exec nice -n -20 ${everyMillisecond(to).join(' ')} 2>/dev/null`;
  const ping = from.spawn(enter(line));
  let printed = '';
  ping.child.stdout?.on('data', (bytes) => (printed += String(bytes)));
  return async () => {
    const { stdout: sockets } = await from.exec(enter(roomLine));
    ping.kill('SIGINT');
    await ping.ended;
    return countedIn(printed, sockets);
  };
}

/** The same from one pod to another; how many were lost. */
export function pinging(from: Host, ips: readonly [string, string]): () => Promise<number> {
  const stop = pingingFrom(from, (line) => inside(ips[0], line), ips[1]);
  return async () => {
    const { sent, lost } = await stop();
    assert.ok(sent - lost > 100, `only ${sent - lost} answers`);
    return lost;
  };
}

export interface Traffic {
  /** How many numbers have come, without one missing. */
  count(): number;
  stop(): void;
}

/** A connection that says numbers, from one pod to the other, until told to stop. */
export async function traffic(from: Host, to: Host, ips: readonly [string, string]): Promise<Traffic> {
  const socket = ips[1].includes(':') ? { listen: 'TCP6-LISTEN', ip: `[${ips[1]}]` } : { listen: 'TCP-LISTEN', ip: ips[1] };
  const listener = to.spawn(inside(ips[1], `exec socat -u ${socket.listen}:9100,reuseaddr STDOUT`));
  let heard = '';
  listener.child.stdout?.on('data', (bytes) => (heard += String(bytes)));
  await until('the listener', async () => (await to.exec(inside(ips[1], 'ss -Hltn sport = :9100'), { anyStatus: true })).stdout !== '');
  const numbers = 'i=0; while :; do echo $i; i=$((i+1)); sleep 0.005; done';
  const talker = from.spawn(inside(ips[0], `(${numbers}) | socat -u STDIN TCP:${socket.ip}:9100`));
  await until('numbers', () => Promise.resolve(heard.length > 20));
  return {
    count(): number {
      const lines = heard.split('\n').slice(0, -1).map(Number);
      assert.deepEqual(lines, [...lines.keys()]);
      return lines.length;
    },
    stop(): void {
      talker.kill('SIGKILL');
      listener.kill('SIGKILL');
    },
  };
}

/** While two hosts agree on keys a few milliseconds may be. */
export const mostLost = { wireguard: 100, bgp: 0, 'bgp-cross-subnet': 0, 'host-gateway': 0, vxlan: 0 } as const;

/** Numbers of the hosts' devices of WireGuard: others after one was made again. */
export const wireguardDevices = (hosts: readonly Host[]): Promise<string[]> =>
  Promise.all(hosts.map((host) => host.ask(['cat', '/sys/class/net/cww1/ifindex'])));

/** Until two hosts send each to the other's pod by WireGuard. Fault `timeout`. */
export async function untilByWireguard(hosts: readonly Host[], ips: readonly [string, string], timeoutMs: number): Promise<void> {
  for (const [index, host] of hosts.entries()) {
    const way = (): Promise<string> => host.ask(['ip', 'route', 'get', ips[1 - index] ?? '']);
    await until(`${host.name} to send by WireGuard`, async () => / dev cww1 /.test(await way()), { timeoutMs });
  }
}
