// Causeway on a bed as the installation guide does it: a controller on its own host with SQLite, an agent joined by token on
// each Docker host, everything asked for by the command line.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { startAgent, startController } from '#lab/causeway.ts';
import { docker } from '#lab/engine.ts';
import type { Lab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';

const cli = join(import.meta.dirname, '..', 'src', 'bin', 'cli.ts');

export interface Access {
  readonly url: string;
  readonly token: string;
  /** PEM. */
  readonly ca: string;
}

export class Causeway {
  readonly #lab: Lab;
  constructor(lab: Lab) {
    this.#lab = lab;
  }

  get url(): string {
    return `https://${this.#lab.controller.address}:7480`;
  }

  /** Runs `causeway` on the controller's host as its administrator and answers what it prints. */
  ask(argv: readonly string[]): Promise<string> {
    return this.#lab.controller.ask([process.execPath, '--disable-warning=ExperimentalWarning', cli, ...argv]);
  }

  /** How programs of a benchmark speak to the controller as its administrator. */
  get access(): Access {
    const file = parse(readFileSync(this.#lab.controller.file('/etc/causeway/contexts.yaml'), 'utf8')) as {
      contexts: { local: { token: string; ca: string } };
    };
    const { token, ca } = file.contexts.local;
    return { url: this.url, token, ca };
  }

  async json(argv: readonly string[]): Promise<unknown> {
    return JSON.parse(await this.ask([...argv, '--output', 'json'])) as unknown;
  }

  /** Makes a network and waits until every engine knows it. */
  async createNetwork(name: string, options: readonly string[]): Promise<void> {
    await this.ask(['network', 'create', name, ...options]);
    for (const host of this.#lab.hosts) {
      await until(
        `network ${name} on ${host.name}`,
        async () => (await docker(host, ['network', 'inspect', name], { anyStatus: true })) !== '[]',
        {
          timeoutMs: 30_000,
          intervalMs: 200,
        },
      );
    }
  }
}

/** Starts the controller and lets every Docker host join. Needs running engines. */
export async function installCauseway({ lab }: { readonly lab: Lab }): Promise<Causeway> {
  const causeway = await installController(lab);
  for (const host of lab.hosts) {
    const { token } = (await causeway.json(['token', 'create', '--join', '--host', host.name])) as { token: string };
    await startAgent(host, { arguments: ['--join', token, '--controller', causeway.url, '--host', host.name, '--log-level', 'warn'] });
  }
  return causeway;
}

export async function installController(lab: Lab): Promise<Causeway> {
  const causeway = new Causeway(lab);
  await startController(lab.controller, { arguments: ['--san', lab.controller.address, '--log-level', 'warn'] });
  await until('the controller to answer', () => causeway.ask(['status']), { timeoutMs: 30_000, intervalMs: 200 });
  return causeway;
}
