// What tcpdump sees while a test runs, on the underlay or in a host.
import type { LabProcess } from '#lab/host.ts';
import { until } from '#lab/until.ts';

const patience = { intervalMs: 100 };

/** What passes by, from now until it is stopped. */
export class Capture implements AsyncDisposable {
  readonly #process: LabProcess;
  #text = '';
  #errors = '';

  private constructor(process: LabProcess) {
    this.#process = process;
    process.child.stdout?.on('data', (chunk: Buffer) => (this.#text += chunk.toString('latin1')));
    process.child.stderr?.on('data', (chunk: Buffer) => (this.#errors += chunk.toString()));
  }

  static async start(process: LabProcess): Promise<Capture> {
    const capture = new Capture(process);
    await until('tcpdump to listen', () => capture.#errors.includes('listening on'), patience);
    return capture;
  }

  get text(): string {
    return this.#text;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill('SIGTERM');
    await this.#process.ended;
  }
}

/** What tcpdump prints, a line a packet at once; read with `Capture.start(host.spawn(…))`. */
export const tcpdump = (...argv: readonly string[]): string[] => ['tcpdump', '--immediate-mode', '-l', '-n', ...argv];
