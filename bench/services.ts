// Services of ten endpoints each, against kube-proxy (mode iptables by its older interface, the best that this kernel and its
// version have): from the start of the program until packets reach the last service, from a change of an endpoint until packets
// follow, what the kernel keeps for the rules when the program is gone. A thousand of them, and ten thousand, for which kube-proxy may
// take longer than is waited: then it is said how long that was. And the rate of connections to one service with ten and with ten
// thousand of them.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import * as v from 'valibot';
import { buildKubernetes, proxyProgram } from '#lab/kubernetes-programs.ts';
import { terminalProgress } from '#lab/progress.ts';
import { alternate, medians } from './alternate.ts';
import { compare, type Row } from './report.ts';

const usual = 1_000;
const many = 10_000;
const few = 10;
const rounds = 9;
/** For each of: being programmed, and all changes. */
const patienceMs = 100_000;
const figures = v.object({
  programmedMs: v.exactOptional(v.number()),
  /** Of the processor, until then. */
  processorMs: v.number(),
  memoryKib: v.number(),
  changedMs: v.exactOptional(v.number()),
});
type Figures = v.InferOutput<typeof figures>;

class Side implements AsyncDisposable {
  readonly #folder = mkdtempSync(join(tmpdir(), 'causeway-bench-'));
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;

  constructor(program: 'causeway' | 'kube-proxy', services: number) {
    const script = join(import.meta.dirname, 'service-side.ts');
    const side = [
      process.execPath,
      '--disable-warning=ExperimentalWarning',
      script,
      program,
      String(services),
      this.#folder,
      String(patienceMs),
    ];
    // With processes of its own: what it started ends with it.
    this.#child = spawn('unshare', ['--net', '--mount', '--pid', '--fork', '--mount-proc', '--kill-child', ...side], { stdio: 'pipe' });
    this.#child.stderr.pipe(process.stderr, { end: false });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error('A side of the benchmark of services has ended early');
    return value;
  }

  async rate(): Promise<number> {
    this.#child.stdin.write('\n');
    return Number(await this.line());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    if (this.#child.exitCode === null) await ended;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function figuresOf(side: Side): Promise<Figures> {
  const read = v.parse(figures, JSON.parse(await side.line()));
  process.stderr.write(`  ${JSON.stringify(read)}\n`);
  return read;
}

async function figuresWith(program: 'causeway' | 'kube-proxy', services: number): Promise<Figures> {
  await using side = new Side(program, services);
  return await figuresOf(side);
}

/** Of a peer that has not finished all that is known is that it takes longer. */
function compareTimes(measure: string, ours: number | undefined, theirs: number | undefined, atMost: number): Row {
  if (ours === undefined) throw new Error(`${measure}: not in ${patienceMs / 1000} s`);
  const peer = theirs === undefined ? 'kube-proxy, iptables: longer' : 'kube-proxy, iptables';
  const [unit, size] = Math.max(ours, theirs ?? patienceMs) < 1000 ? ['ms', 1] : ['s', 1000];
  return compare(measure, ours / size, (theirs ?? patienceMs) / size, { unit, peer, atMost });
}

async function compareWithProxy(count: number): Promise<Row[]> {
  await buildKubernetes(terminalProgress(), [proxyProgram]);
  const peer = await figuresWith('kube-proxy', count);
  // Where nothing has ever been started from this checkout the first start compiles it.
  await figuresWith('causeway', few);
  const ours = await figuresWith('causeway', count);
  const named = `services: ${count} × 10`;
  const stated = { unit: 's', peer: 'kube-proxy, iptables' };
  return [
    compareTimes(`${named}, from start until served`, ours.programmedMs, peer.programmedMs, 0.2),
    compare(`${named}, processor time for that`, ours.processorMs / 1000, peer.processorMs / 1000, stated),
    compareTimes(`${named}, an endpoint changes, until packets follow`, ours.changedMs, peer.changedMs, 0.1),
    compare(`${named}, the kernel's memory`, ours.memoryKib / 1024, peer.memoryKib / 1024, { ...stated, unit: 'MiB', atMost: 0.5 }),
  ];
}

export async function servicesBench(): Promise<Row[]> {
  const rows = await compareWithProxy(usual);
  await using full = new Side('causeway', many);
  await figuresOf(full);
  await using small = new Side('causeway', few);
  await figuresOf(small);
  const rates = medians(await alternate('services: connections', rounds, { many: () => full.rate(), few: () => small.rate() }));
  const against = { unit: '/s', peer: `${few} services`, atLeast: 0.97 };
  return [...rows, compare(`services: connection with request, ${many} services`, rates.many, rates.few, against)];
}

export const servicesManyBench = (): Promise<Row[]> => compareWithProxy(many);
