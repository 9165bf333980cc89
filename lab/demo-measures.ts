// Figures of the demonstration: what a stream and a request between containers on two hosts get, against the bare
// underlay and against Docker's built-in overlay on the same engines. A Swarm is made for that overlay and removed again.
// All sides take turns, so that whatever else the machine does meets all of them. `npm run bench` measures more, and longer.
import { existsSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Fault } from '#model/fault.ts';
import { docker } from './engine.ts';
import type { Host } from './host.ts';
import { blue, green } from './demo-shops.ts';
import { all, type Site, toolsImage, underlayMtu } from './demo-site.ts';
import { labFolder, readJson, writeJson } from './state.ts';
import { until } from './until.ts';

const rounds = 4;
const streamSeconds = 1;
const requests = 5000;
/** What Docker's overlay leaves of the underlay; it does not find out by itself. */
const overlayMtu = underlayMtu - 50;
const overlay = 'measured-overlay';
const serve = "taskset 1 redis-server --protected-mode no --bind '*' --save '' --loglevel warning & exec iperf3 --server";

/** iperf3's client and server each on a processor of their own where there are two. */
const affinity = availableParallelism() > 1 ? ['--affinity', '0,1'] : [];

interface Side {
  readonly name: string;
  readonly title: string;
  /** Docker network of both containers; `host` is the underlay itself. */
  readonly network: string;
}

const sides: readonly Side[] = [
  { name: 'underlay', title: 'bare underlay', network: 'host' },
  { name: 'blue', title: 'network blue (VXLAN)', network: blue.name },
  { name: 'overlay', title: 'Docker’s own overlay (VXLAN)', network: overlay },
  { name: 'green', title: 'network green (WireGuard)', network: green.name },
];

/** Of the best round: other work on the machine only ever makes a round worse. */
interface Figures {
  /** Mbit/s. */
  readonly throughput: number;
  /** Milliseconds. */
  readonly roundTrip: number;
  /** By how much the worst round's throughput is below the best's, 0..1. */
  readonly spread: number;
}

interface Measured {
  readonly at: string;
  readonly isWireguardInKernel: boolean;
  readonly sides: Readonly<Record<string, Figures>>;
}

const pathOf = (site: Site): string => join(labFolder(site.lab.name), 'measured.json');

/** Shows the figures: those of an earlier run unless `again`. Faults as `run`; what was made for measuring is gone then, too. */
export async function showMeasures(site: Site, again: boolean): Promise<void> {
  const known = again ? undefined : (readJson(pathOf(site)) as Measured | undefined);
  const measured = known ?? (await measureAll(site));
  if (known === undefined) writeJson(pathOf(site), measured);
  else site.screen.line(`  Measured at ${known.at.slice(11, 16)} UTC; once more: ./causeway demo --measure`);
  show(site, measured);
}

/** There while measuring; who finds it later finds a run that was ended. */
const markOf = (site: Site): string => join(labFolder(site.lab.name), 'measuring.json');

/** Removes what an interrupted run has left: its Swarm and its containers would be seen by the checks. */
export async function endMeasuring(site: Site): Promise<void> {
  if (!existsSync(markOf(site))) return;
  await site.screen.step('remains of an interrupted measurement removed', () => removeLeftovers(site));
}

async function measureAll(site: Site): Promise<Measured> {
  const { screen } = site;
  writeJson(markOf(site), { process: process.pid });
  try {
    await screen.step('a Swarm of the same engines with a built-in overlay, for comparison', () => makeOverlay(site));
    const lanes = await screen.step('on each side iperf3 and Redis on host3, clients on host1', () =>
      all(sides.map(async (side) => ({ side, target: await openLane(site, side) }))),
    );
    const results = new Map(sides.map(({ name }) => [name, { streams: [] as number[], trips: [] as number[] }]));
    for (let round = 1; round <= rounds; round++) {
      await screen.step(
        `round ${round} of ${rounds}: a TCP stream of ${streamSeconds} s and ${requests} Redis requests on each side`,
        async () => {
          for (const { side, target } of lanes) {
            results.get(side.name)?.streams.push(await stream(site, side, target));
            results.get(side.name)?.trips.push(await roundTrip(site, side, target));
          }
        },
      );
    }
    const figures = [...results].map(([name, { streams, trips }]): [string, Figures] => [
      name,
      { throughput: Math.max(...streams), roundTrip: Math.min(...trips), spread: 1 - Math.min(...streams) / Math.max(...streams) },
    ]);
    return { at: new Date().toISOString(), isWireguardInKernel: await isWireguardInKernel(site), sides: Object.fromEntries(figures) };
  } finally {
    await screen.step('Swarm, its overlay and the measuring containers removed', () => removeLeftovers(site));
  }
}

async function makeOverlay(site: Site): Promise<void> {
  const [first, last] = [site.host(1), site.host(3)];
  await docker(first, ['swarm', 'init', `--advertise-addr=${first.address}`]);
  const token = await docker(first, ['swarm', 'join-token', '--quiet', 'worker']);
  await docker(last, ['swarm', 'join', `--advertise-addr=${last.address}`, `--token=${token}`, `${first.address}:2377`]);
  const mtu = `--opt=com.docker.network.driver.mtu=${overlayMtu}`;
  await docker(first, ['network', 'create', '--driver=overlay', '--attachable', mtu, '--subnet=10.21.0.0/24', overlay]);
}

const serverOf = ({ name }: Side): string => `measured-${name}-server`;
const clientOf = ({ name }: Side): string => `measured-${name}-client`;

/** Starts both ends and answers the server's address once it serves. */
async function openLane(site: Site, side: Side): Promise<string> {
  const [client, server] = [site.host(1), site.host(3)];
  const run = (host: Host, name: string, ...command: readonly string[]): Promise<string> =>
    docker(host, ['run', '--detach', `--name=${name}`, `--network=${side.network}`, toolsImage.name, ...command]);
  await run(server, serverOf(side), 'sh', '-c', serve);
  await run(client, clientOf(side), 'sleep', '1000000');
  const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}';
  const target = side.network === 'host' ? server.address : await docker(server, ['inspect', '--format', format, serverOf(side)]);
  await until(
    `${side.title} to answer`,
    () => docker(client, ['exec', clientOf(side), 'iperf3', '--client', target, '--bytes', '1K']).then(() => true),
    {
      timeoutMs: 30_000,
      intervalMs: 200,
    },
  );
  return target;
}

/** Mbit/s that arrived. */
async function stream(site: Site, side: Side, target: string): Promise<number> {
  const argv = ['exec', clientOf(side), 'iperf3', '--client', target, '--time', String(streamSeconds), '--json', ...affinity];
  const said = JSON.parse(await docker(site.host(1), argv, { timeoutMs: 30_000 })) as {
    end: { sum_received: { bits_per_second: number } };
  };
  return said.end.sum_received.bits_per_second / 1e6;
}

/**
 * Milliseconds of a request and its answer, from one client after another to a Redis. Both ends stay on one processor: left
 * alone, a pair runs three times faster or slower for where the scheduler happens to put it, whatever the network.
 */
async function roundTrip(site: Site, side: Side, target: string): Promise<number> {
  const ask = ['redis-benchmark', '-h', target, '-c', '1', '-n', String(requests), '-t', 'ping_mbulk', '--csv'];
  const said = await docker(site.host(1), ['exec', clientOf(side), 'taskset', '1', ...ask], { timeoutMs: 60_000 });
  const perSecond = /^"PING_MBULK","([\d.]+)"/m.exec(said)?.[1];
  if (perSecond === undefined) throw new Fault('internal', `Cannot read what redis-benchmark said: ${said}`);
  return 1000 / Number(perSecond);
}

async function isWireguardInKernel(site: Site): Promise<boolean> {
  const { status } = await site.host(1).exec(['pgrep', '-x', 'wireguard-go'], { anyStatus: true });
  return status !== 0;
}

/** Removes what measuring makes; absent is success. */
async function removeLeftovers(site: Site): Promise<void> {
  const [first, last] = [site.host(1), site.host(3)];
  await all(
    [first, last].map(async (host) => {
      const left = await docker(host, ['ps', '--all', '--quiet', '--filter', 'name=^measured-']);
      if (left !== '') await docker(host, ['rm', '--force', ...left.split('\n')]);
    }),
  );
  if ((await docker(first, ['network', 'ls', '--quiet', '--filter', `name=^${overlay}$`])) !== '') {
    await docker(first, ['network', 'rm', overlay]);
    // Only the agent of a manager can tell that it is gone, so before there is none. Too late, it stays listed, which harms nothing.
    const names = async (): Promise<readonly string[]> => (await site.causeway('network', 'ls', '--quiet')).split('\n');
    await until('Causeway to hear of it', async () => !(await names()).includes(overlay), { timeoutMs: 10_000, intervalMs: 200 }).catch(
      () => undefined,
    );
  }
  for (const host of [last, first]) {
    if ((await docker(host, ['info', '--format', '{{.Swarm.LocalNodeState}}'])) === 'inactive') continue;
    await docker(host, ['swarm', 'leave', '--force']);
    // the Swarm's own bridge stays behind by itself
    await docker(host, ['network', 'rm', 'docker_gwbridge'], { anyStatus: true });
  }
  rmSync(markOf(site), { force: true });
}

function show({ screen }: Site, measured: Measured): void {
  const figures = (name: string): Figures => measured.sides[name] ?? { throughput: Number.NaN, roundTrip: Number.NaN, spread: Number.NaN };
  const [bare, ours, theirs] = [figures('underlay'), figures('blue'), figures('overlay')];
  const rows = sides.map(({ name, title }) => {
    const { throughput, roundTrip: trip } = figures(name);
    return [
      title,
      `${Math.round(throughput).toLocaleString('en')} Mbit/s`.padStart(14),
      `${(throughput / bare.throughput).toFixed(2)} of bare`,
      `${trip.toFixed(3)} ms`,
      `${(trip / bare.roundTrip).toFixed(2)} × bare`,
    ];
  });
  screen.line();
  screen.table([['', 'one TCP stream', '', 'round trip', ''], ...rows]);
  screen.line();
  const [throughput, trip] = [ours.throughput / theirs.throughput, ours.roundTrip / theirs.roundTrip];
  screen.line(`  blue against Docker’s own: ${throughput.toFixed(2)} × the throughput, ${trip.toFixed(2)} × the round trip.`);
  if (!measured.isWireguardInKernel) screen.line('  No WireGuard in this kernel: wireguard-go encrypts, which costs more.');
  const worst = Math.round(Math.max(...sides.map(({ name }) => figures(name).spread)) * 100);
  screen.line(`  Best of ${rounds} rounds in turn, which differ by up to ${worst} % on one side. Longer: npm run bench`);
}
