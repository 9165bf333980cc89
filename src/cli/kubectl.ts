// Kubernetes' own program, as an administrator of a cluster uses it. What it is told to log in with lies in a folder that nobody
// else can read, and goes with the work.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { Fault } from '#model/fault.ts';

export interface Said {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class Kubectl implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), 'causeway-kubectl-'));

  constructor(kubeconfig: string) {
    writeFileSync(this.#config, kubeconfig, { mode: 0o600 });
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  get #config(): string {
    return join(this.#folder, 'kubeconfig');
  }

  /** Runs it to its end, however that is. Fault `unsupported` where there is no kubectl. */
  async try(words: readonly string[], input = ''): Promise<Said> {
    // What it has learned of a server it keeps by the server's address, which another cluster may have had.
    const argv = [`--kubeconfig=${this.#config}`, `--cache-dir=${join(this.#folder, 'cache')}`, ...words];
    const child = spawn('kubectl', argv, { stdio: ['pipe', 'pipe', 'pipe'] });
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    child.once('error', reject);
    child.once('close', (status) => resolve(status ?? 1));
    child.stdin.once('error', () => {}); // it has ended before it read all, and says why
    child.stdin.end(input);
    try {
      const [status, stdout, stderr] = await Promise.all([promise, text(child.stdout), text(child.stderr)]);
      return { status, stdout: stdout.trim(), stderr: stderr.trim() };
    } catch (cause) {
      throw new Fault('unsupported', 'Cannot run kubectl', { hint: 'Install it (Debian: kubernetes-client) on this machine', cause });
    }
  }

  /** As `try`, and answers what it says. Fault `unavailable` with its words when it fails. */
  async run(words: readonly string[], input?: string): Promise<string> {
    const { status, stdout, stderr } = await this.try(words, input);
    if (status === 0) return stdout;
    throw new Fault('unavailable', `kubectl ${words.slice(0, 2).join(' ')}: ${stderr === '' ? stdout : stderr}`);
  }
}
