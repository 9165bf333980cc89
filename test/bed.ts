// What end-to-end tests lie on: a lab with a controller and, on every Docker host, an engine and an agent that joined by
// token, as docs/install.md does it. Each test file names its own bed, so that files can run side by side.
import { join } from 'node:path';
import { agentSocket, startAgent, startController } from '#lab/causeway.ts';
import type { CommandOptions, Output } from '#lab/command.ts';
import { docker, type EngineOptions, startDockerd } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import { boxImage, type ImageRecipe, importImages } from '#lab/images.ts';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { askSocket } from '#lab/unix-http.ts';
import { until } from '#lab/until.ts';

const cli = join(import.meta.dirname, '..', 'src', 'bin', 'cli.ts');

export interface BedOptions {
  /** The lab's name, unique to the test file. A leftover of an earlier run is removed. */
  readonly name: string;
  readonly hosts?: number;
  readonly images?: readonly ImageRecipe[];
  readonly engine?: EngineOptions;
  /** Further arguments of every agent. */
  readonly agent?: readonly string[];
  /** Further arguments of the controller. */
  readonly controller?: readonly string[];
}

/** What an agent says of itself on its socket, as far as tests read it. */
export interface AgentStatus {
  readonly connected: boolean;
  readonly reason?: string;
  readonly synced: boolean;
  readonly runs: number;
  readonly desired: number;
  readonly failing: readonly string[];
  readonly refused: readonly string[];
  readonly kernelWrites: number;
  readonly docker?: {
    readonly engine: string;
    readonly problems: readonly string[];
    readonly networks: readonly { readonly name: string; readonly state: string; readonly message?: string }[];
  };
}

export class Bed implements AsyncDisposable {
  readonly lab: Lab;
  readonly #options: BedOptions;

  constructor(lab: Lab, options: BedOptions) {
    this.lab = lab;
    this.#options = options;
  }

  get hosts(): readonly Host[] {
    return this.lab.hosts;
  }

  get url(): string {
    return `https://${this.lab.controller.address}:7480`;
  }

  /** The `index`-th Docker host from 1. */
  host(index: number): Host {
    return this.lab.host(`host${index}`);
  }

  /** Runs `causeway` on the controller's host as its administrator and answers what it prints. Faults as `run`. */
  causeway(...argv: string[]): Promise<string> {
    return this.lab.controller.ask(cliOf(argv));
  }

  /** The same to whatever end. */
  tryCauseway(...argv: string[]): Promise<Output> {
    return this.lab.controller.exec(cliOf(argv), { anyStatus: true });
  }

  async json(...argv: string[]): Promise<unknown> {
    return JSON.parse(await this.causeway(...argv, '--output', 'json'));
  }

  /** Docker's client against the engine of the `index`-th host. */
  docker(index: number, argv: readonly string[], options: CommandOptions = {}): Promise<string> {
    return docker(this.host(index), argv, options);
  }

  /** A container of the box image that stays. Its id. */
  run(index: number, name: string, network: string, ...options: string[]): Promise<string> {
    return this.docker(index, [
      'run',
      '--detach',
      '--init',
      '--name',
      name,
      '--network',
      network,
      ...options,
      boxImage.name,
      'sleep',
      '86400',
    ]);
  }

  async startController(): Promise<void> {
    const { controller } = this.lab;
    await startController(controller, {
      arguments: ['--san', controller.address, '--log-level', 'info', ...(this.#options.controller ?? [])],
    });
    await until('the controller to answer', () => this.causeway('status'), { intervalMs: 200 });
  }

  /** A one-time join token. */
  async token(): Promise<string> {
    const answer = await this.json('token', 'create', '--join');
    if (typeof answer !== 'object' || answer === null || !('token' in answer)) throw new TypeError('A token was expected');
    return String(answer.token);
  }

  /** The agent's command line without `--join`. */
  get agentArguments(): readonly string[] {
    return ['--controller', this.url, '--log-level', 'debug', ...(this.#options.agent ?? [])];
  }

  /** Joins the host for the first time, or anew after its state directory has been emptied. */
  async join(host: Host): Promise<void> {
    await startAgent(host, { arguments: ['--join', await this.token(), ...this.agentArguments] });
  }

  /** Starts the agent of a host that has joined before. */
  startAgent(host: Host): Promise<void> {
    return startAgent(host, { arguments: this.agentArguments });
  }

  /** Makes a network and waits until every engine knows it. */
  async network(name: string, ...options: string[]): Promise<void> {
    await this.causeway('network', 'create', name, ...options);
    for (const host of this.hosts) {
      const known = async (): Promise<boolean> =>
        (await docker(host, ['network', 'ls', '--format', '{{.Name}}'])).split('\n').includes(name);
      await until(`network ${name} on ${host.name}`, known, { intervalMs: 200 });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await destroyLab(this.lab.name);
  }
}

const cliOf = (argv: readonly string[]): string[] => [process.execPath, '--disable-warning=ExperimentalWarning', cli, ...argv];

/** Builds the lab, starts everything and waits until every agent is ready. */
export async function makeBed(options: BedOptions): Promise<Bed> {
  await destroyLab(options.name);
  const lab = await createLab({ name: options.name, hosts: options.hosts ?? 2 });
  await using undo = new AsyncDisposableStack();
  const bed = undo.use(new Bed(lab, options));
  await Promise.all([
    bed.startController(),
    ...lab.hosts.map(async (host) => {
      await startDockerd(host, options.engine);
      await importImages(host, options.images ?? [boxImage]);
    }),
  ]);
  for (const host of lab.hosts) await bed.join(host);
  await Promise.all(lab.hosts.map((host) => healthy(host)));
  undo.move();
  return bed;
}

/** Fault-free answer of the agent's socket; rejects while nobody answers. */
export const agentStatus = async (host: Host): Promise<AgentStatus> =>
  JSON.parse((await askSocket(host.file(agentSocket), { path: '/status', timeoutMs: 5000 })).text);

export const isHealthy = ({ synced, connected, failing }: AgentStatus): boolean => synced && connected && failing.length === 0;

/** Waits until the agent is in step with its controller and the kernel accepts everything. */
export async function healthy(host: Host, timeoutMs = 60_000): Promise<AgentStatus> {
  let last: AgentStatus | undefined;
  try {
    return await until(
      `the agent of ${host.name} to be healthy`,
      async () => {
        last = await agentStatus(host);
        return isHealthy(last) ? last : undefined;
      },
      { timeoutMs, intervalMs: 50 },
    );
  } catch (error) {
    throw new Error(`${host.name}: ${JSON.stringify(last)}\n${host.log('agent').slice(-2000)}`, { cause: error });
  }
}

/** The command line's beginning that enters the container's network namespace from inside its host. */
export async function entering(host: Host, container: string): Promise<string[]> {
  const pid = await docker(host, ['inspect', '--format', '{{.State.Pid}}', container]);
  return ['nsenter', `--net=/proc/${pid}/ns/net`, '--'];
}

/** Whether one echo request from the container is answered. */
export async function pings(host: Host, container: string, address: string): Promise<boolean> {
  const { status } = await host.exec([...(await entering(host, container)), 'ping', '-c1', '-W1', '-n', address], { anyStatus: true });
  return status === 0;
}

/** Waits until one from the container is answered. Fault `timeout`. */
export const reaches = (host: Host, container: string, address: string): Promise<true> =>
  until(`${container} on ${host.name} to reach ${address}`, () => pings(host, container, address), { intervalMs: 200 });
