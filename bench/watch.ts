// One controller with a thousand watching hosts and an endpoint added every ten milliseconds, in two shapes. Spread: ten
// networks with a hundred hosts each, so that every change is for a hundred; all hosts are real clients. Wide: one network
// with everybody in it, so that every change is for a thousand, a hundred thousand lines a second; most of the hosts then
// read their connection without understanding it (watch-readers.ts), because a small machine cannot play a thousand readers.
// And, as a bench of its own because so many take minutes to join, five thousand hosts spread over fifty networks.
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { Fault } from '#model/fault.ts';
import type { Network, Pool } from '#model/resources.ts';
import type { Host, LabProcess } from '#lab/host.ts';
import { makeBed } from './bed.ts';
import { type Causeway, installController } from './causeway.ts';
import { memoryOf, processorOf } from './process.ts';
import { percentile, type Row } from './report.ts';
import type { Add, Begin, Result } from './watch-hosts.ts';
import type { Reader } from './watch-readers.ts';

const endpoints = 2000;
const everyMs = 10;

interface Shape {
  readonly name: string;
  /** A multiple of processes times networks. */
  readonly hosts: number;
  readonly processes: number;
  readonly networks: number;
  readonly reader: Reader;
  readonly targetMs: number;
}
const thousand = { hosts: 1000, processes: 4, targetMs: 500 };
const shapes: readonly Shape[] = [
  { ...thousand, name: 'spread over 10 networks', networks: 10, reader: 'client' },
  { ...thousand, name: 'all in 1 network', networks: 1, reader: 'bytes' },
];
const many: Shape = { name: '5000 hosts over 50 networks', hosts: 5000, processes: 5, networks: 50, reader: 'client', targetMs: 1000 };

export async function watchBench(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const shape of shapes) rows.push(...(await measure(shape)));
  return rows;
}

export const watchManyBench = (): Promise<Row[]> => measure(many);

async function measure(shape: Shape): Promise<Row[]> {
  const { hosts, processes } = shape;
  await using bed = await makeBed({ hosts: 1, engines: false });
  const { controller } = bed.lab;
  const memory = (): number => memoryOf(controller, 'controller.ts');
  const causeway = await installController(bed.lab);
  const idle = memory();
  const networks: Place[] = [];
  for (let index = 0; index < shape.networks; index++) networks.push(await makeNetwork(causeway, index));
  await using workers = new AsyncDisposableStack();
  const started = Array.from({ length: processes }, (_, worker) => {
    const mine = networks.map(({ id, pool }, network) => {
      const count = hosts / processes / shape.networks;
      return { id, pool, hosts: Array.from({ length: count }, (__, number) => `agent-${worker}-${network}-${number}`) };
    });
    return workers.use(new Worker(bed.host(1), { access: causeway.access, networks: mine, reader: shape.reader }));
  });
  await Promise.all(started.map((worker) => worker.answer()));
  process.stderr.write(`  ${hosts} hosts have joined, ${shape.name}\n`);
  await Promise.all(started.map((worker) => worker.ask('watch')));
  const watched = memory();
  const before = processorOf(controller, 'controller.ts');
  const at = performance.timeOrigin + performance.now() + 1000;
  const add = (first: number): Add => ({ at, first, step: processes, count: endpoints, everyMs });
  await Promise.all(started.map((worker, first) => worker.ask(add(first))));
  const expected = (endpoints * hosts) / shape.networks;
  const results = (await Promise.all(started.map((worker) => worker.ask({ expected: expected / processes })))) as Result[];
  const controllerSeconds = processorOf(controller, 'controller.ts') - before;
  return report(shape, results, { idle, watched, busy: memory(), controllerSeconds, expected });
}

interface Measured {
  readonly idle: number;
  readonly watched: number;
  readonly busy: number;
  readonly controllerSeconds: number;
  readonly expected: number;
}

function report(shape: Shape, results: readonly Result[], { idle, watched, busy, controllerSeconds, expected }: Measured): Row[] {
  const { hosts, targetMs } = shape;
  const received = results.reduce((sum, result) => sum + result.received, 0);
  const worst = Array.from({ length: endpoints }, (_, number) => Math.max(...results.map(({ last }) => last[number] ?? 0)));
  const p99 = percentile(worst, 0.99);
  const clients = results.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0);
  const what = `watch, ${shape.name}`;
  return [
    {
      measure: `${what}: until the last of ${hosts / shape.networks} hosts has a change, p99`,
      ours: `${p99.toFixed(0)} ms`,
      against: `median ${percentile(worst, 0.5).toFixed(0)} ms`,
      target: `< ${targetMs} ms`,
      met: received === expected && p99 < targetMs,
    },
    {
      measure: `${what}: any change at any host, p99`,
      ours: `${percentileOf(results, 0.99)} ms`,
      against: `median ${percentileOf(results, 0.5)} ms`,
      target: 'stated',
    },
    { measure: `${what}: changes that arrived`, ours: `${received}`, against: `of ${expected}`, target: 'all', met: received === expected },
    {
      measure: `${what}: controller's memory`,
      ours: `${busy.toFixed(0)} MiB`,
      against: `${idle.toFixed(0)} idle, ${watched.toFixed(0)} watched`,
      target: 'stated',
    },
    {
      measure: `${what}: processor time`,
      ours: `${controllerSeconds.toFixed(1)} s`,
      against: `${clients.toFixed(1)} s of the clients, in ${(endpoints * everyMs) / 1000} s`,
      target: 'stated',
    },
  ];
}

/** Milliseconds below which `share` of all lines stayed. */
function percentileOf(results: readonly Result[], share: number): number {
  const total = results.reduce((sum, { histogram }) => sum + histogram.reduce((all, count) => all + count, 0), 0);
  const longest = Math.max(...results.map(({ histogram }) => histogram.length));
  let below = 0;
  for (let ms = 0; ms < longest; ms++) {
    for (const { histogram } of results) below += histogram[ms] ?? 0;
    if (below >= total * share) return ms;
  }
  return longest;
}

interface Place {
  readonly id: string;
  readonly pool: string;
}

async function makeNetwork(causeway: Causeway, index: number): Promise<Place> {
  const { id } = (await causeway.json(['network', 'create', `wide-${index}`, '--subnet', `10.${64 + index}.0.0/16`])) as Network;
  const pools = (await causeway.json(['pool', 'ls'])) as Pool[];
  const pool = pools.find(({ network }) => network === id);
  if (pool === undefined) throw new Fault('not-found', 'The new network has no pool');
  return { id, pool: pool.id };
}

/** watch-hosts.ts in a lab host. */
class Worker implements Disposable {
  readonly #process: LabProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(host: Host, begin: Begin) {
    this.#process = host.spawn([process.execPath, '--disable-warning=ExperimentalWarning', join(import.meta.dirname, 'watch-hosts.ts')]);
    const { stdout, stderr } = this.#process.child;
    if (stdout === null) throw new TypeError('A child with pipes has streams');
    stderr?.pipe(process.stderr);
    this.#lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
    this.#send(begin);
  }

  #send(line: unknown): void {
    this.#process.child.stdin?.write(`${JSON.stringify(line)}\n`);
  }

  /** The next line it says. Fault `internal` when it has ended. */
  async answer(): Promise<unknown> {
    const { done, value } = await this.#lines.next();
    if (done === true) throw new Fault('internal', 'A process of watching hosts has ended');
    return JSON.parse(value) as unknown;
  }

  ask(line: unknown): Promise<unknown> {
    this.#send(line);
    return this.answer();
  }

  [Symbol.dispose](): void {
    this.#process.kill('SIGKILL');
  }
}
