// Programs that measure a path, in containers like any other. iperf3 for one TCP stream; netperf for request/response over
// one connection (TCP_RR, one byte each way) and with a connection for each (TCP_CRR): both wait in the kernel and do next
// to nothing themselves. Both ends of netperf are bound to one processor: what is counted is then the work of the path.
// Left alone, a pair runs three times faster or slower for where the scheduler happens to put it, whatever the path.
import { availableParallelism } from 'node:os';
import { docker } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import type { ImageRecipe } from '#lab/images.ts';
import type { Need } from '#lab/packages.ts';
import { until } from '#lab/until.ts';

export const meterNeeds: readonly Need[] = [
  { program: 'iperf3', package: 'iperf3', why: 'to measure throughput' },
  { program: 'netperf', package: 'netperf', why: 'to measure requests and responses' },
];

/** glibc loads it when a thread is cancelled, which iperf3 does at its end; ldd does not know. */
const libgcc = `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/libgcc_s.so.1`;
const carried = ['/usr/bin/iperf3', '/usr/bin/netperf', '/usr/bin/netserver', libgcc];

export const meterImage: ImageRecipe = {
  name: 'causeway/meters',
  programs: Object.fromEntries(carried.map((path) => [path, path])),
  scripts: {},
  changes: ['CMD ["sh", "-c", "netserver -4 && exec iperf3 --server"]'],
};

/** A container that measures and one that is measured against. */
export interface Lane {
  readonly name: string;
  readonly client: Host;
  readonly server: Host;
  /** Docker network; `host` for the underlay itself. */
  readonly network: string;
  /** The server's address where Docker does not know it (`host`). */
  readonly address?: string;
}

export const measures = ['throughput', 'request/response', 'connect/request/response'] as const;
export type Measure = (typeof measures)[number];
export const units: Readonly<Record<Measure, string>> = {
  throughput: 'Mbit/s',
  'request/response': '/s',
  'connect/request/response': '/s',
};

/** That a measurement of throughput takes. */
export const seconds = 3;

/** Processors of iperf3's client and server: one each where there are two. */
const apart = availableParallelism() > 1 ? '0,1' : '0,0';

/** Starts both ends and waits until the server answers the client. */
export async function openLane({ name, client, server, network, address }: Lane): Promise<(measure: Measure) => Promise<number>> {
  await docker(server, ['run', '--detach', `--name=${name}-server`, `--network=${network}`, meterImage.name]);
  // The engine's names for one container must differ, also where both ends are on one host.
  await docker(client, ['run', '--detach', `--name=${name}-client`, `--network=${network}`, meterImage.name, 'sleep', '86400']);
  const target = address ?? (await addressOf(server, `${name}-server`));
  const ask = (argv: readonly string[]): Promise<string> => docker(client, ['exec', `${name}-client`, ...argv], { timeoutMs: 60_000 });
  await until(`${name} to answer`, () => ask(['netperf', '-H', target, '-t', 'TCP_RR', '-l', '1', '-P', '0']), { timeoutMs: 30_000 });
  return async (measure) => {
    if (measure === 'throughput') {
      const said = JSON.parse(await ask(['iperf3', '--client', target, '--time', `${seconds}`, '--json', '--affinity', apart])) as {
        end: { sum_received: { bits_per_second: number } };
      };
      return said.end.sum_received.bits_per_second / 1e6;
    }
    const test = measure === 'request/response' ? 'TCP_RR' : 'TCP_CRR';
    const said = await ask(['netperf', '-H', target, '-T', '0,0', '-t', test, '-l', '3', '-P', '0', '--', '-k', 'THROUGHPUT']);
    return Number(/THROUGHPUT=([\d.]+)/.exec(said)?.[1] ?? Number.NaN);
  };
}

/** First address of a container, whatever its network is called. */
export const addressOf = (host: Host, container: string): Promise<string> =>
  docker(host, ['inspect', '--format', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}', container]);
