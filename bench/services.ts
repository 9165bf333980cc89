// Services of ten endpoints each, against kube-proxy (mode iptables by its older interface, the best that this kernel and its
// version have): from the start of the program until packets reach the last service, from a change of an endpoint until packets
// follow, what the kernel keeps for the rules. A thousand of them, with --large ten thousand, for which kube-proxy takes minutes. And
// the rate of connections to one service with ten and with ten thousand of them.
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
const figures = v.object({ programmedMs: v.number(), memoryKib: v.number(), changedMs: v.number() });

class Side implements AsyncDisposable {
  readonly #folder = mkdtempSync(join(tmpdir(), 'causeway-bench-'));
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;

  constructor(program: 'causeway' | 'kube-proxy', services: number) {
    const script = join(import.meta.dirname, 'service-side.ts');
    const side = [process.execPath, '--disable-warning=ExperimentalWarning', script, program, String(services), this.#folder];
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

const figuresOf = async (side: Side): Promise<v.InferOutput<typeof figures>> => {
  const read = v.parse(figures, JSON.parse(await side.line()));
  process.stderr.write(`  ${JSON.stringify(read)}\n`);
  return read;
};

export async function servicesBench({ large }: { readonly large: boolean }): Promise<Row[]> {
  const count = large ? many : usual;
  await buildKubernetes(terminalProgress(), [proxyProgram]);
  let peer: v.InferOutput<typeof figures>;
  {
    await using proxy = new Side('kube-proxy', count);
    peer = await figuresOf(proxy);
  }
  let ours: v.InferOutput<typeof figures>;
  {
    await using agent = new Side('causeway', count);
    ours = await figuresOf(agent);
  }
  await using full = new Side('causeway', many);
  await figuresOf(full);
  await using small = new Side('causeway', few);
  await figuresOf(small);
  const rates = medians(await alternate('services: connections', rounds, { many: () => full.rate(), few: () => small.rate() }));
  const against = { peer: 'kube-proxy, iptables' };
  return [
    compare(`services: ${count} × 10, from start until served`, ours.programmedMs / 1000, peer.programmedMs / 1000, {
      ...against,
      unit: 's',
      atMost: 0.2,
    }),
    compare('services: an endpoint changes, until packets follow', ours.changedMs, peer.changedMs, { ...against, unit: 'ms', atMost: 0.1 }),
    compare("services: the kernel's memory", ours.memoryKib / 1024, peer.memoryKib / 1024, { ...against, unit: 'MiB', atMost: 0.5 }),
    compare(`services: connection with request, ${many} services`, rates.many, rates.few, {
      unit: '/s',
      peer: `${few} services`,
      atLeast: 0.97,
    }),
  ];
}
