// Running programs from the lab: to the end with collected output, or detached. A program that fails becomes a Fault that
// shows its last lines, because the lab drives many small tools (ip, mount, docker) whose own words explain best.
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { Fault } from '#model/fault.ts';
import { descendantsOf, refOf, signalProcess } from './process.ts';

export interface CommandOptions {
  readonly input?: string | Buffer;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Answer with the exit status instead of throwing when it is not 0. */
  readonly anyStatus?: boolean;
}

/** A command line that parseArgs does not understand. */
export const isMisuse = (error: unknown): error is TypeError =>
  error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');

export interface Output {
  readonly stdout: string;
  readonly stderr: string;
  /** Exit status; 128 and more when a signal ended the program, as a shell counts. */
  readonly status: number;
}

/**
 * Runs `argv` to its end. Faults: `unsupported` when the program is absent, `timeout` with what it has said so far, once it and what it
 * has started were ended, `internal` when it exits with another status than 0 (unless `anyStatus`).
 */
export async function run(argv: readonly string[], options: CommandOptions = {}): Promise<Output> {
  const child = start(argv, {
    stdio: ['pipe', 'pipe', 'pipe'],
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { ...process.env, ...options.env },
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  const { stdin, stdout, stderr } = child;
  if (stdin === null || stdout === null || stderr === null) throw new TypeError('A child with pipes has streams');
  const [out, err] = [collected(stdout), collected(stderr)];
  const said = (): string => lastLines(err() === '' ? out() : err());
  const overdue = Promise.withResolvers<never>();
  const expire = (): void => {
    endTree(child);
    overdue.reject(new Fault('timeout', `Cannot run ${shown(argv)}: not finished after ${options.timeoutMs} ms: ${said()}`));
  };
  const timer = options.timeoutMs === undefined ? undefined : setTimeout(expire, options.timeoutMs);
  // A program may end before it has read all of its input; its exit status tells then, not EPIPE.
  stdin.on('error', () => {});
  stdin.end(options.input);
  const whole = Promise.all([ending(child, argv), finished(stdout), finished(stderr)]);
  const [{ status }] = await Promise.race([whole, overdue.promise]).finally(() => clearTimeout(timer));
  if (status !== 0 && options.anyStatus !== true) {
    throw new Fault('internal', `Cannot run ${shown(argv)}: exit status ${status}: ${said()}`);
  }
  return { stdout: out(), stderr: err(), status };
}

/** Reads a stream to its end, and answers what has come so far. */
function collected(stream: Readable): () => string {
  const parts: string[] = [];
  stream.setEncoding('utf8').on('data', (part: string) => parts.push(part));
  return () => parts.join('');
}

/** Ends a program with all that it has started, and lets go of its pipes, which something else may still hold open. */
function endTree({ pid, stdout, stderr }: ChildProcess): void {
  for (const one of pid === undefined ? [] : [pid, ...descendantsOf(pid)].map((number) => refOf(number))) {
    if (one !== undefined) signalProcess(one, 'SIGKILL');
  }
  stdout?.destroy();
  stderr?.destroy();
}

/** Spawns `argv`; an absent program surfaces through `ending`. */
export function start(argv: readonly string[], options: SpawnOptions): ChildProcess {
  const [program, ...rest] = argv;
  if (program === undefined) throw new TypeError('An empty command');
  return spawn(program, rest, options);
}

export interface Ending {
  readonly status: number;
}

/** Settles when the child has ended. Fault `unsupported` when it could not be started at all. */
export function ending(child: ChildProcess, argv: readonly string[]): Promise<Ending> {
  const { promise, resolve, reject } = Promise.withResolvers<Ending>();
  child.once('error', (cause: NodeJS.ErrnoException) => {
    if (cause.name === 'AbortError') reject(cause);
    else reject(new Fault('unsupported', `Cannot start ${argv[0]}: ${cause.code ?? cause.message}`, { cause }));
  });
  child.once('exit', (code, signal) => resolve({ status: code ?? 128 + signalNumber(signal) }));
  return promise;
}

const signalNumbers: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGTERM: 15,
};
const signalNumber = (signal: string | null): number => signalNumbers[signal ?? ''] ?? 0;

const shown = (argv: readonly string[]): string =>
  argv.map((part) => (/^[\w@%+=:,./-]+$/.test(part) ? part : JSON.stringify(part))).join(' ');

export const lastLines = (output: string, count = 12): string => output.trimEnd().split('\n').slice(-count).join('\n');
