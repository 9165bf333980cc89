// The installation that the demonstration shows: a lab of three hosts with real engines, the controller on its own host, an
// agent on each, built with the same commands that an operator would type. Every step finds what is there already, so it
// also completes what an interrupted run began, and starts again what somebody has stopped.
import { resolve } from 'node:path';
import { agentSocket, startAgent, startController } from './causeway.ts';
import { startDockerd } from './engine.ts';
import type { Host } from './host.ts';
import { databaseImage, type ImageRecipe, importImages, webImage } from './images.ts';
import { createLab, destroyLab, type Lab, openLab } from './lab.ts';
import type { Screen } from './demo-screen.ts';
import { until } from './until.ts';

const program = resolve(import.meta.dirname, '../src/bin/cli.ts');
export const underlayMtu = 1450;

/** A shell's usual programs, the real ping (for packets that must not be fragmented) and what measures. */
export const toolsImage: ImageRecipe = {
  name: 'causeway/tools',
  programs: {
    '/usr/bin/ping': '/usr/bin/ping',
    '/usr/bin/iperf3': '/usr/bin/iperf3',
    '/usr/bin/redis-check-rdb': '/usr/bin/redis-server',
    '/usr/bin/redis-benchmark': '/usr/bin/redis-benchmark',
    // glibc loads it when iperf3 cancels a thread at its end; ldd does not know
    [libgcc()]: libgcc(),
  },
  scripts: {},
  changes: ['CMD ["sh"]'],
};

function libgcc(): string {
  return `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/libgcc_s.so.1`;
}

export class Site {
  readonly lab: Lab;
  readonly screen: Screen;

  constructor(lab: Lab, screen: Screen) {
    this.lab = lab;
    this.screen = screen;
  }

  /** host1, host2 or host3. */
  host(index: 1 | 2 | 3): Host {
    return this.lab.host(`host${index}`);
  }

  get controllerUrl(): string {
    return `https://${this.lab.controller.address}:7480`;
  }

  /** Runs the `causeway` command as root of the controller's host does. Faults as `run`. */
  causeway(...argv: readonly string[]): Promise<string> {
    return this.lab.controller.ask([process.execPath, '--disable-warning=ExperimentalWarning', program, ...argv]);
  }

  /** As `causeway`, and answers what `--output json` says. */
  async question(...argv: readonly string[]): Promise<unknown> {
    return JSON.parse(await this.causeway(...argv, '--output', 'json')) as unknown;
  }
}

/** Builds or completes the installation. Faults as `createLab`, `run`, and `timeout`. */
export async function openSite(name: string, screen: Screen): Promise<Site> {
  const lab = await openWires(name, screen);
  const site = new Site(lab, screen);
  await screen.step(`controller at ${site.controllerUrl}, state in SQLite`, () => bringController(site));
  await screen.step('three agents joined, three Docker engines started', () => all(lab.hosts.map((host) => bringHost(site, host))));
  await screen.step('all hosts ready', () => untilReady(site));
  await screen.step('container images made from this machine’s programs', () =>
    all(lab.hosts.map((host) => importImages(host, imagesOf(host)))),
  );
  return site;
}

async function openWires(name: string, screen: Screen): Promise<Lab> {
  const found = openLab(name);
  if (found !== undefined && found.underlay.isOn) {
    await screen.step(`hosts of lab ${name}: found running`, async () => {
      for (const host of [found.outside, found.controller, ...found.hosts]) await found.powerOn(host);
    });
    return found;
  }
  if (found !== undefined) await screen.step(`removing what is left of lab ${name}`, () => destroyLab(name));
  const title = `lab ${name}: host1, host2, host3 and a controller host, underlay MTU ${underlayMtu}`;
  return screen.step(title, () => createLab({ name, hosts: 3, mtu: underlayMtu }));
}

async function bringController(site: Site): Promise<void> {
  const { controller } = site.lab;
  await startController(controller, { arguments: ['--san', controller.address] });
  await until('the controller to answer', () => site.causeway('network', 'ls'), { timeoutMs: 120_000, intervalMs: 200 });
}

/** The agent comes first, as on a real host: Docker asks for the plugin when it restarts containers. */
async function bringHost(site: Site, host: Host): Promise<void> {
  if (!host.isRunning('agent')) {
    const known = host.services().find(({ name }) => name === 'agent');
    await (known === undefined ? join(site, host) : host.startService({ ...known, ready: { socket: agentSocket } }));
  }
  await startDockerd(host);
}

async function join(site: Site, host: Host): Promise<void> {
  const { token } = (await site.question('token', 'create', '--join', '--host', host.name)) as { token: string };
  await startAgent(host, { arguments: ['--join', token, '--controller', site.controllerUrl] });
}

async function untilReady(site: Site): Promise<void> {
  await until(
    'all hosts to be ready',
    async () => {
      const hosts = (await site.question('host', 'ls')) as { status: { ready: boolean } }[];
      return hosts.length === site.lab.hosts.length && hosts.every(({ status }) => status.ready);
    },
    { timeoutMs: 180_000, intervalMs: 300 },
  );
}

/** host1 serves pages, host3 keeps data, all can run the tools. */
const imagesOf = ({ name }: Host): ImageRecipe[] => [
  toolsImage,
  ...(name === 'host1' ? [webImage] : []),
  ...(name === 'host3' ? [databaseImage] : []),
];

/** Waits for all, also when one fails, so that nothing goes on behind a reported failure. */
export async function all<T>(tasks: readonly Promise<T>[]): Promise<T[]> {
  const results = await Promise.allSettled(tasks);
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}
