// What the tests of a Swarm lie in: three real nodes with Causeway as their managed plugin, and what is asked of them.
import { join } from 'node:path';
import { startController } from '#lab/causeway.ts';
import { docker, startDockerd } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import { boxImage, importImages } from '#lab/images.ts';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { buildPlugin, defaultPluginFolder } from '#lab/plugin.ts';
import { silentProgress } from '#lab/progress.ts';
import { installPlugin, joinSwarm, pluginName } from '#lab/swarm.ts';
import { until } from '#lab/until.ts';

const cli = join(import.meta.dirname, '..', 'src', 'bin', 'cli.ts');
export const patient = { timeoutMs: 180_000, intervalMs: 300 };
/** For one look of many: an answer that never comes is asked for again. */
const brief = { timeoutMs: 30_000 };

export interface Task {
  readonly host: Host;
  readonly container: string;
  readonly name: string;
  readonly address: string;
}

export const addresses = (list: readonly Task[]): string[] => list.map(({ address }) => address).sort();

export class SwarmBed implements AsyncDisposable {
  readonly lab: Lab;
  readonly manager: Host;

  constructor(lab: Lab) {
    this.lab = lab;
    this.manager = lab.host('host1');
  }

  causeway(...argv: string[]): Promise<string> {
    return this.lab.controller.ask([process.execPath, '--disable-warning=ExperimentalWarning', cli, ...argv]);
  }

  /** Makes a Swarm network of our driver. */
  network(title: string, ...options: string[]): Promise<string> {
    return docker(this.manager, ['network', 'create', '--driver', pluginName, ...options, title]);
  }

  /**
   * Once nobody uses it any more. With several managers one may remove it and be told of an error all the same, as when another
   * becomes the leader; what that was is shown.
   */
  async #removeNetwork(title: string): Promise<void> {
    let refused = '';
    const isGone = async (): Promise<boolean> => {
      try {
        await docker(this.manager, ['network', 'rm', title]);
        return true;
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        if (refused !== '' && message.includes(`network ${title} not found`)) {
          console.log(`${title} is gone, by a removal that was answered with: ${refused}`);
          return true;
        }
        refused = message;
        throw error;
      }
    };
    await until(`${title} to be removable`, isGone, patient);
  }

  /** Makes a service of idle tasks, spread over the nodes; `running` waits for them. */
  service(title: string, ...options: string[]): Promise<string> {
    const serve = 'mkdir -p /srv && hostname >/srv/index.html && exec httpd -f -p 80 -h /srv';
    const quick = ['--detach', '--stop-grace-period', '1s', '--restart-delay', '500ms'];
    return docker(this.manager, ['service', 'create', '--name', title, ...quick, ...options, boxImage.name, 'sh', '-c', serve]);
  }

  /** The running tasks of a service with their addresses in `title`'s network. */
  async tasks(title: string, net: string): Promise<Task[]> {
    const found = this.lab.hosts.map(async (host) => {
      const ids = (await docker(host, ['ps', '--quiet', '--filter', `label=com.docker.swarm.service.name=${title}`], brief)).split('\n');
      const format = `{{.Name}} {{(index .NetworkSettings.Networks "${net}").IPAddress}}`;
      return Promise.all(
        ids
          .filter((id) => id !== '')
          .map(async (container) => {
            const [full = '', address = ''] = (await docker(host, ['inspect', '--format', format, container], brief)).slice(1).split(' ');
            return { host, container, name: full, address };
          }),
      );
    });
    return (await Promise.all(found)).flat();
  }

  /** Waits until so many tasks run and have addresses. Fault `timeout`, once Swarm's view of each task is shown. */
  async running(title: string, net: string, count: number): Promise<Task[]> {
    const look = async (): Promise<Task[] | undefined> => {
      const list = await this.tasks(title, net);
      return list.length === count && list.every(({ address }) => address !== '') ? list : undefined;
    };
    try {
      return await until(`${count} tasks of ${title}`, look, patient);
    } catch (error) {
      console.log(await docker(this.manager, ['service', 'ps', '--no-trunc', title], { anyStatus: true }));
      throw error;
    }
  }

  /** Waits until the Swarm has the network with this driver; '' for having none of that name. */
  async inSwarm(title: string, driver: string): Promise<void> {
    const look = async (): Promise<string> => {
      const lines = (await docker(this.manager, ['network', 'ls', '--format', '{{.Name}} {{.Driver}}'])).split('\n');
      return lines.find((line) => line.startsWith(`${title} `))?.slice(title.length + 1) ?? '';
    };
    await until(`${title} in the Swarm`, async () => (await look()) === driver, patient);
  }

  /** Removes services, and then networks as soon as the Swarm lets them go, with their records. */
  async remove(services: readonly string[], networks: readonly string[]): Promise<void> {
    if (services.length > 0) await docker(this.manager, ['service', 'rm', ...services]);
    for (const title of networks) {
      await this.#removeNetwork(title);
      await until('its record to go', async () => !(await this.causeway('network', 'ls')).includes(title), patient);
    }
  }

  async endpoints(net: string): Promise<number> {
    const list: unknown = JSON.parse(await this.causeway('endpoint', 'ls', '--network', net, '--output', 'json'));
    return Array.isArray(list) ? list.length : -1;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await destroyLab(this.lab.name);
  }
}

/** Builds lab, plugin and Swarm. Faults as `createLab`, `run`, and `timeout`. */
export async function makeSwarmBed(name: string): Promise<SwarmBed> {
  await destroyLab(name);
  const built = buildPlugin(defaultPluginFolder, silentProgress);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => destroyLab(name));
  const lab = await createLab({ name, hosts: 3 });
  const bed = new SwarmBed(lab);
  await startController(lab.controller, { arguments: ['--san', lab.controller.address] });
  await until('the controller to answer', () => bed.causeway('status'), patient);
  await Promise.all(lab.hosts.map((host) => startDockerd(host)));
  const { folder } = await built;
  for (const host of lab.hosts) {
    await importImages(host, [boxImage]);
    const { token } = JSON.parse(await bed.causeway('token', 'create', '--join', '--output', 'json')) as { token: string };
    await installPlugin(host, folder, { CAUSEWAY_CONTROLLER: `https://${lab.controller.address}:7480`, CAUSEWAY_JOIN: token });
  }
  await joinSwarm(lab.hosts);
  undo.move();
  return bed;
}

export const inside = (task: Task, ...argv: string[]): Promise<string> => docker(task.host, ['exec', task.container, ...argv], brief);

export async function reaches(task: Task, target: string, ...options: readonly string[]): Promise<boolean> {
  const argv = ['exec', task.container, 'ping', '-c1', '-W1', ...options, target];
  return /1 packets received/.test(await docker(task.host, argv, { ...brief, anyStatus: true }));
}

/** A task is told to other hosts a moment after it runs. Fault `timeout`. */
export async function reachesAll(task: Task, all: readonly Task[]): Promise<void> {
  for (const to of all) await until(`${task.name} to reach ${to.name} at ${to.address}`, () => reaches(task, to.address), patient);
}

/** What it serves, once it does. Fault `timeout`. */
export const pageOf = (task: Task, target: string): Promise<string> =>
  until(`${task.name} to be answered by ${target}`, () => inside(task, 'wget', '-T', '5', '-qO-', `http://${target}/`), patient);

/** Addresses that a name has inside a task. */
export async function resolved(task: Task, title: string): Promise<string[]> {
  const answer = await docker(task.host, ['exec', task.container, 'nslookup', title], { ...brief, anyStatus: true });
  return [...answer.matchAll(/^Address: (\d+\.\d+\.\d+\.\d+)$/gm)].map(([, address = '']) => address).sort();
}

/** Links and namespaces of ours on a host. */
export async function leftovers(host: Host): Promise<string> {
  const links = (await host.ask(['ip', '-o', 'link'])).split('\n').filter((line) => /: cw/.test(line));
  const domains = (await host.ask(['ip', 'netns'])).split('\n').filter((line) => line.startsWith('cw-'));
  return [...links, ...domains].join('\n');
}
