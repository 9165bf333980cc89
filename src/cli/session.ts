// One run of the program: what it gets from its surroundings, and what a command may do with them. Only src/bin builds
// Surroundings, so a test can run every command without a process.
import { createInterface } from 'node:readline/promises';
import type { CloudSurroundings } from '#cloud/clouds.ts';
import type { RoutedHost } from '#cloud/router.ts';
import type { CloudFacts } from '#cloud/wish.ts';
import { Fault } from '#model/fault.ts';
import type { Client } from './client.ts';
import { type Choice, resolveTarget, type Target } from './contexts.ts';
import type { Look } from './table.ts';

export interface Output {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
}

export interface Surroundings {
  readonly environment: Choice['environment'];
  /** Where contexts are looked for, best first; `context add` writes to the first. */
  readonly contextFiles: readonly string[];
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean | undefined };
  readonly stdout: Output;
  readonly stderr: Output;
  /** The user does not want colour (NO_COLOR), or the terminal has none. */
  readonly plain: boolean;
  readonly debug: boolean;
  /** How long a command may be silent before it says on standard error what it waits for. */
  readonly patienceMs: number;
  readonly now: () => Date;
  readonly connect: (target: Target) => Promise<Client>;
  /** Path of the agent's socket when this machine runs an agent. */
  readonly agentSocket: string | undefined;
  /** The agent's identity file, where there may be one. */
  readonly identityFile: string | undefined;
  readonly hostname: string;
  /** Where the login to an OpenStack cloud may be. */
  readonly cloud: CloudSurroundings;
  /** What a Kubernetes cluster needs of the cloud that it is in. Faults: `not-found`, `invalid` (the kubeconfig), and as its API's. */
  readonly cluster: (choice: ClusterChoice) => Promise<ClusterNeeds>;
}

export interface ClusterChoice {
  /** Absent: that of kubectl. */
  readonly kubeconfig?: string | undefined;
  /** Absent: the current one. */
  readonly context?: string | undefined;
  /** Services of type LoadBalancer that name no class are Octavia's, too. */
  readonly allBalancers: boolean;
  /** Of load balancers, that services may name: JSON. */
  readonly classes?: string | undefined;
}
export interface ClusterNeeds {
  readonly facts: CloudFacts;
  /** What of it cannot be had, one sentence each. */
  readonly problems: readonly string[];
  /** Tells nodes what the cloud's router knows of them; absent: nobody has to be told. Answers what was not possible, one sentence each. */
  readonly tellRouted?: (found: readonly RoutedHost[] | undefined) => Promise<readonly string[]>;
}

/** What a command hands back: the data for programs, and how a person sees it. */
export interface Answer {
  readonly data: unknown;
  readonly text: (look: Look) => string;
  /** What --quiet prints, one a line: names, ids or a token. */
  readonly names: readonly string[];
  readonly status?: number;
}

export class Session {
  readonly surroundings: Surroundings;
  /** What the user is told when it takes long. */
  waitingFor = 'input';
  readonly #context: string | undefined;
  #connected: Promise<{ client: Client; target: Target }> | undefined;

  constructor(surroundings: Surroundings, context?: string) {
    this.surroundings = surroundings;
    this.#context = context;
  }

  /** Connects at first use. Faults: see resolveTarget. */
  async connection(): Promise<{ client: Client; target: Target }> {
    this.#connected ??= this.#connect();
    return this.#connected;
  }

  async client(): Promise<Client> {
    return (await this.connection()).client;
  }

  async #connect(): Promise<{ client: Client; target: Target }> {
    const { contextFiles, environment, identityFile, connect } = this.surroundings;
    const target = await resolveTarget(contextFiles, { context: this.#context, environment, identityFile });
    this.waitingFor = `the controller at ${target.url}`;
    return { target, client: await connect(target) };
  }

  /** Asks on a terminal, goes on without asking elsewhere or with `yes`. Returns whether to go on. */
  async confirm(question: string, yes: boolean | undefined): Promise<boolean> {
    const { stdin, stderr } = this.surroundings;
    if (yes === true || stdin.isTTY !== true || stderr.isTTY !== true) return true;
    stderr.write(`${question} [y/N] `);
    using lines = disposable(createInterface({ input: stdin }));
    for await (const line of lines.interface) return /^y(es)?$/i.test(line.trim());
    return false;
  }

  /** Everything on standard input. Fault `invalid` on a terminal, where waiting for it would look like hanging. */
  async readStdin(): Promise<string> {
    const { stdin } = this.surroundings;
    if (stdin.isTTY === true) throw new Fault('invalid', 'Nothing to read: standard input is a terminal', { hint: 'Pipe the input in.' });
    let text = '';
    for await (const chunk of stdin) text += String(chunk);
    return text;
  }

  /** The names given as arguments, `-` replaced by those on standard input (separated by white space). */
  async names(given: readonly string[]): Promise<readonly string[]> {
    if (!given.includes('-')) return given;
    const read = (await this.readStdin()).split(/\s+/).filter((name) => name !== '');
    return given.flatMap((name) => (name === '-' ? read : [name]));
  }
}

const disposable = (lines: ReturnType<typeof createInterface>): { interface: typeof lines } & Disposable => ({
  interface: lines,
  [Symbol.dispose]: () => lines.close(),
});
