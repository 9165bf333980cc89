// Fifty containers started in one moment on three hosts, until each has answered a container on another host. They are
// created before; the engines are asked through their API to start all of them at once. What is timed is from there until
// the last one has accepted a connection that came over the network from the next host. How much of it is the
// engines' own work, which no network driver makes shorter, tell the same without a network and with a driver that only
// answers, both until all have started.
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { Fault } from '#model/fault.ts';
import type { Host, LabProcess } from '#lab/host.ts';
import { boxImage } from '#lab/images.ts';
import { alternate, medians } from './alternate.ts';
import { type Bed, makeBed } from './bed.ts';
import { installCauseway } from './causeway.ts';
import { createContainer, inspectContainer, removeContainer, startContainer } from '#lab/engine-api.ts';
import { LeastDriver } from './least-driver.ts';
import { compare, type Row } from './report.ts';

const count = 50;
const rounds = 3;

export async function burstBench(): Promise<Row[]> {
  await using bed = await makeBed({ hosts: 3, images: [boxImage] });
  const causeway = await installCauseway(bed);
  await causeway.createNetwork('ours', ['--subnet', '10.40.0.0/16']);
  await bed.createOverlay('theirs', '10.41.0.0/16');
  await using undo = new AsyncDisposableStack();
  const drivers: LeastDriver[] = [];
  for (const host of bed.hosts) drivers.push(undo.use(await LeastDriver.start(host)));
  const sides = {
    none: () => startAll(bed, 'none'),
    least: async () => {
      for (const driver of drivers) await driver.prepare(count);
      return startAll(bed, 'least');
    },
    ours: () => burst(bed, 'ours'),
    theirs: () => burst(bed, 'theirs'),
  };
  const { none, least, ours, theirs } = medians(await alternate(`${count} containers at once, s`, rounds, sides));
  const measure = `${count} containers on 3 hosts, until all answer`;
  const peer = 'built-in overlay';
  return [
    compare(measure, ours, theirs, { unit: 's', peer, atMost: 0.7 }),
    compare(`${measure}: more than without a network`, ours - none, theirs - none, { unit: 's', peer }),
    compare('the same with a driver that only answers, until all have started', least, theirs, { unit: 's', peer }),
  ];
}

interface Member {
  readonly host: Host;
  readonly id: string;
}

/** Seconds until all have started. */
async function startAll(bed: Bed, network: string): Promise<number> {
  const members: Member[] = [];
  for (let index = 0; index < count; index++) {
    const host = hostAt(bed, index);
    members.push({
      host,
      id: await createContainer(host, { image: boxImage.name, command: ['httpd', '-f', '-p', '80'], network }),
    });
  }
  const began = performance.now();
  await Promise.all(members.map(({ host, id }) => startContainer(host, id)));
  const seconds = (performance.now() - began) / 1000;
  await Promise.all(members.map(({ host, id }) => removeContainer(host, id)));
  return seconds;
}

/** Seconds until all answered. */
export async function burst(bed: Bed, network: string): Promise<number> {
  await using undo = new AsyncDisposableStack();
  const remove = async ({ host, id }: Member): Promise<void> => removeContainer(host, id);
  const create = async (host: Host, command: readonly string[]): Promise<Member> => {
    const member = { host, id: await createContainer(host, { image: boxImage.name, command, network }) };
    undo.defer(() => remove(member));
    return member;
  };
  const probes = new Map<Host, Probe>();
  for (const host of bed.hosts) {
    const prober = await create(host, ['sleep', '86400']);
    await startContainer(host, prober.id);
    const probe = new Probe(host, (await inspectContainer(host, prober.id)).pid);
    undo.use(probe);
    probes.set(host, probe);
  }
  const members: Member[] = [];
  for (let index = 0; index < count; index++) members.push(await create(hostAt(bed, index), ['httpd', '-f', '-p', '80']));
  const patience = AbortSignal.timeout(120_000);
  const began = performance.timeOrigin + performance.now();
  const answered = await Promise.all(
    members.map(async ({ host, id }, index) => {
      await startContainer(host, id);
      const { address } = await inspectContainer(host, id);
      return probes.get(hostAt(bed, index + 1))?.answered(address, patience) ?? Number.NaN;
    }),
  );
  const seconds = (Math.max(...answered) - began) / 1000;
  // all at once: one after the other they would take ten times as long, and it is not what is measured
  await Promise.all(members.map(remove));
  return seconds;
}

const hostAt = (bed: Bed, index: number): Host => bed.host((index % bed.hosts.length) + 1);

/** burst-probe.ts in the network namespace of a container, given by the number of its first process on the host. */
class Probe implements Disposable {
  readonly #process: LabProcess;
  readonly #waiting = new Map<string, PromiseWithResolvers<number>>();

  constructor(host: Host, pid: number) {
    const program = join(import.meta.dirname, 'burst-probe.ts');
    this.#process = host.spawn(['nsenter', `--net=/proc/${pid}/ns/net`, '--', process.execPath, program]);
    const { stdout, stderr } = this.#process.child;
    if (stdout === null) throw new TypeError('A child with pipes has streams');
    stderr?.pipe(process.stderr);
    createInterface({ input: stdout }).on('line', (line) => {
      const [address = '', time] = line.split(' ');
      this.#waiting.get(address)?.resolve(Number(time));
    });
    this.#process.child.once('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Fault('internal', `The prober on ${host.name} has ended`));
    });
  }

  /** When the address first accepted a connection, in milliseconds since 1970. Fault `timeout` when `patience` ends. */
  answered(address: string, patience: AbortSignal): Promise<number> {
    const answer = Promise.withResolvers<number>();
    patience.addEventListener('abort', () => answer.reject(new Fault('timeout', `${address} did not answer`)));
    this.#waiting.set(address, answer);
    this.#process.child.stdin?.write(`${address}\n`);
    return answer.promise;
  }

  [Symbol.dispose](): void {
    this.#process.kill('SIGKILL');
  }
}
