// What the cloud's tests, figures and demonstration lie on: a real OpenStack in a lab, a project with a network behind a router, and
// Docker hosts as its instances: port security on, a security group that lets everything out and nothing in. The controller is
// outside the cloud.
import { join } from 'node:path';
import { startAgent, startController } from './causeway.ts';
import type { Output } from './command.ts';
import { docker, startDockerd } from './engine.ts';
import { inspectContainer } from './engine-api.ts';
import { etcdUrl, startEtcd } from './etcd.ts';
import type { Host, LabProcess } from './host.ts';
import { boxImage, importImages } from './images.ts';
import { openLab } from './lab.ts';
import { createOpenStack, demo, type Instance, OpenStack, type OpenStackOptions, publicNetwork } from './openstack.ts';
import type { Operator } from './openstack-operator.ts';
import { type Progress, silentProgress } from './progress.ts';
import { until } from './until.ts';

/** Of `causeway`. */
const command = [process.execPath, '--disable-warning=ExperimentalWarning', join(import.meta.dirname, '..', 'src', 'bin', 'cli.ts')];
/** While programs start, which looking would only make slower: it starts one as well. */
const patience = { timeoutMs: 240_000, intervalMs: 1000 };
/** Where the cloud has a part in it. */
const longPatience = { timeoutMs: 240_000, intervalMs: 300 };

/** Of giveIpv6(). */
const subnet6 = 'fd00:20::/64';
/** An instance's address there. */
export const own6 = (index: number): string => `fd00:20::1${index}`;

/** What a host gets from a web server; undefined: nothing within two seconds. */
export async function pageOf(host: Host, address: string, port: number): Promise<string | undefined> {
  const url = `http://${address.includes(':') ? `[${address}]` : address}:${port}/`;
  const { status, stdout } = await host.exec(['busybox', 'wget', '-T', '2', '-qO-', url], { anyStatus: true });
  return status === 0 ? stdout.trim() : undefined;
}

interface Made {
  readonly id: string;
}

/** The project's network and everything around it, as a user of the cloud makes it. */
export interface Site {
  readonly network: string;
  readonly subnet: string;
  readonly router: string;
  readonly group: string;
}

export class CloudBed implements AsyncDisposable {
  readonly cloud: OpenStack;
  /** As the project's member. */
  readonly member: Operator;
  readonly site: Site;
  readonly instances: readonly Instance[];

  constructor(cloud: OpenStack, site: Site, instances: readonly Instance[]) {
    this.cloud = cloud;
    this.member = cloud.operator.as(demo);
    this.site = site;
    this.instances = instances;
  }

  /** The `index`-th instance from 1. */
  host(index: number): Host {
    const instance = this.instances[index - 1];
    if (instance === undefined) throw new TypeError(`No instance ${index}`);
    return instance.host;
  }

  /** `causeway` on the controller's host, logged in to the cloud as the project's member, to whatever end. */
  tryCauseway(argv: readonly string[], env: Readonly<Record<string, string>> = this.cloud.environment()): Promise<Output> {
    return this.cloud.controller.exec([...command, ...argv], { env, anyStatus: true });
  }

  /** The same, begun. */
  spawnCauseway(argv: readonly string[], env: Readonly<Record<string, string>>): LabProcess {
    return this.cloud.controller.spawn([...command, ...argv], { env });
  }

  async causeway(...argv: readonly string[]): Promise<string> {
    const output = await this.tryCauseway(argv);
    if (output.status !== 0) throw new Error(`causeway ${argv.join(' ')}: exit status ${output.status}: ${output.stderr}${output.stdout}`);
    return output.stdout.trim();
  }

  /** The same as JSON, also with exit status 10, which says that something is left to be wished for. */
  async json<T>(...argv: readonly string[]): Promise<T> {
    const output = await this.tryCauseway([...argv, '--output', 'json']);
    if (output.status !== 0 && output.status !== 10) throw new Error(`causeway ${argv.join(' ')}: ${output.stderr}${output.stdout}`);
    return JSON.parse(output.stdout) as T;
  }

  /** Of the project, by a query of Neutron's. */
  portsBy<T extends Made>(filter: string): Promise<T[]> {
    return this.member.list<T>('neutron', `/v2.0/ports?${filter}`, 'ports');
  }

  docker(index: number, ...argv: readonly string[]): Promise<string> {
    return docker(this.host(index), argv);
  }

  /** A container that stays. */
  run(index: number, name: string, network: string): Promise<string> {
    return this.docker(index, 'run', '--detach', '--init', '--name', name, '--network', network, boxImage.name, 'sleep', '86400');
  }

  /**
   * A container whose network needs something first: ports of the cloud, or a Swarm that has just come together. Where that takes
   * longer than an engine waits, it is there by the next time.
   */
  async runFirst(index: number, name: string, network: string): Promise<void> {
    // What could not be connected stays, and has the name.
    const isRunning = (): Promise<string> =>
      this.run(index, name, network).catch(async (error: unknown) => {
        await this.docker(index, 'rm', '--force', name);
        throw error;
      });
    await until(`${name} to run`, isRunning, { ...longPatience, intervalMs: 1000 });
  }

  /** Waits until that engine shows the network. */
  async untilKnown(index: number, network: string): Promise<void> {
    const isThere = async (): Promise<boolean> =>
      (await this.docker(index, 'network', 'ls', '--format', '{{.Name}}')).split('\n').includes(network);
    await until(`network ${network} on node${index}`, isThere, longPatience);
  }

  /** A network of that name, with a container `NAME1`, `NAME2` and so on of it on every host. */
  async spread(name: string, ...options: readonly string[]): Promise<void> {
    await this.causeway('network', 'create', name, ...options);
    await this.#everywhere(async (index) => {
      await this.untilKnown(index, name);
      await this.run(index, `${name}${index}`, name);
    });
  }

  /** On all hosts side by side. */
  async #everywhere(work: (index: number) => Promise<void>): Promise<void> {
    await Promise.all(this.instances.map((_, index) => work(index + 1)));
  }

  /** Of a container of spread(), on the host `index`. */
  addressOf(index: number, name: string): Promise<string> {
    return this.docker(index, 'inspect', '--format', `{{(index .NetworkSettings.Networks "${name}").IPAddress}}`, `${name}${index}`);
  }

  /** No container and no network of ours, and nothing of Causeway in the cloud, whatever was left. */
  async clear(): Promise<void> {
    await this.#everywhere(async (index) => {
      const ids = await this.docker(index, 'ps', '--all', '--quiet');
      if (ids !== '') await this.docker(index, 'rm', '--force', ...ids.split('\n'));
    });
    await until(
      'all networks to be removed',
      async () => {
        const names = (await this.json<{ name: string }[]>('network', 'ls')).map(({ name }) => name);
        return names.length === 0 || (await this.tryCauseway(['network', 'rm', '--yes', ...names])).status === 0;
      },
      longPatience,
    );
    await this.causeway('cloud', 'destroy', '--yes');
  }

  /**
   * Runs a program in a container, to whatever end. Its namespaces are entered here: an engine starts several programs for it, which
   * take more of the processor than this one. Fault `not-found` while the container does not run.
   */
  async within(index: number, container: string, ...argv: readonly string[]): Promise<Output> {
    const { pid } = await inspectContainer(this.host(index), container);
    return this.host(index).exec(['nsenter', `--target=${pid}`, '--all', '--', ...argv], { anyStatus: true });
  }

  /** Whether a container's echo requests are answered. */
  async pings(index: number, container: string, address: string): Promise<boolean> {
    return (await this.within(index, container, 'ping', '-c', '2', '-W', '2', address)).status === 0;
  }

  /** A subnet of IPv6 on the hosts' network, on no router, and an address of it for every instance. Its id, when hosts have told of it. */
  async giveIpv6(): Promise<string> {
    const fields = { name: 'hosts6', network_id: this.site.network, ip_version: 6, cidr: subnet6 };
    const { id } = await this.member.send<Made>('neutron', 'POST', '/v2.0/subnets', { subnet: fields });
    await this.#everywhere(async (index) => {
      const port = this.instances[index - 1]?.port;
      const fixed = [...(port?.fixed_ips ?? []), { subnet_id: id, ip_address: own6(index) }];
      await this.member.send('neutron', 'PUT', `/v2.0/ports/${port?.id}`, { port: { fixed_ips: fixed } });
      await this.address6(index);
    });
    const isTold = async (): Promise<boolean> => {
      const hosts = await this.json<{ underlay: { ip: string }[] }[]>('host', 'ls');
      return hosts.every(({ underlay }) => underlay.some(({ ip }) => ip.includes(':')));
    };
    await until('the hosts to tell of their addresses', isTold, longPatience);
    return id;
  }

  /** What comes by DHCP elsewhere; a link that goes down loses it. */
  async address6(index: number): Promise<void> {
    await this.host(index).exec(['ip', 'address', 'add', `${own6(index)}/64`, 'dev', 'eth0', 'nodad'], { netOnly: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cloud[Symbol.asyncDispose]();
  }
}

export async function makeSite(cloud: OpenStack): Promise<Site> {
  const member = cloud.operator.as(demo);
  const post = (path: string, body: object): Promise<Made> => member.send<Made>('neutron', 'POST', `/v2.0/${path}`, body);
  const outside = await member.get<Made[]>('neutron', `/v2.0/networks?name=${publicNetwork}`, 'networks');
  const network = await post('networks', { network: { name: 'hosts' } });
  const subnet = await post('subnets', { subnet: { name: 'hosts', network_id: network.id, ip_version: 4, cidr: '10.20.0.0/24' } });
  const router = await post('routers', { router: { name: 'main', external_gateway_info: { network_id: outside[0]?.id } } });
  await member.send('neutron', 'PUT', `/v2.0/routers/${router.id}/add_router_interface`, { subnet_id: subnet.id });
  const group = await post('security-groups', { security_group: { name: 'instances' } });
  return { network: network.id, subnet: subnet.id, router: router.id, group: group.id };
}

export interface BedOptions extends OpenStackOptions {
  /** Who is told what is being done; nobody where it is absent. */
  readonly progress?: Progress;
  /** The controller keeps its state in an etcd on its host, which others may share. */
  readonly isInEtcd?: boolean;
}

/** One that another process has made and whose hosts are still on; undefined for anything less. */
export async function findCloudBed(name: string, count = 2): Promise<CloudBed | undefined> {
  const lab = openLab(name);
  if (lab === undefined || lab.instances.length !== count) return undefined;
  if (![lab.underlay, lab.outside, lab.controller, ...lab.hosts, ...lab.instances].every(({ isOn }) => isOn)) return undefined;
  const cloud = new OpenStack(lab);
  for (const host of [lab.controller, ...lab.hosts, ...lab.instances])
    for (const service of host.services()) await host.startService(service, 60_000);
  const member = cloud.operator.as(demo);
  const idOf = async (kind: string, called: string): Promise<string> => {
    const [found] = await member.get<Made[]>('neutron', `/v2.0/${kind}?name=${called}`, kind.replaceAll('-', '_'));
    return found?.id ?? '';
  };
  const site: Site = {
    network: await idOf('networks', 'hosts'),
    subnet: await idOf('subnets', 'hosts'),
    router: await idOf('routers', 'main'),
    group: await idOf('security-groups', 'instances'),
  };
  const instances = lab.instances.map(async (host, index): Promise<Instance> => {
    const port = await cloud.port(await idOf('ports', host.name));
    return { host, port, hypervisor: lab.host(`host${(index % lab.hosts.length) + 1}`) };
  });
  return new CloudBed(cloud, site, await Promise.all(instances));
}

/** A cloud with `count` instances on different hypervisors, in turns. */
export async function makeInstances(options: BedOptions, count: number): Promise<CloudBed> {
  const { progress = silentProgress } = options;
  const cloud = await createOpenStack(options, progress);
  await using undo = new AsyncDisposableStack();
  undo.use(cloud);
  const { site, instances } = await progress.step(`Booting ${count} instances on a network of the project`, async () => {
    const made = await makeSite(cloud);
    return { site: made, instances: await bootInstances(cloud, made, count) };
  });
  undo.move();
  return new CloudBed(cloud, site, instances);
}

async function bootInstances(cloud: OpenStack, site: Site, count: number): Promise<Instance[]> {
  const instances: Instance[] = [];
  for (let index = 1; index <= count; index++) instances.push(await bootOn(cloud, site, { index, ip: `10.20.0.${10 + index}` }));
  return instances;
}

async function bootOn(
  cloud: OpenStack,
  { network, group }: Pick<Site, 'network' | 'group'>,
  { index, ip }: { index: number; ip: string },
): Promise<Instance> {
  const name = `node${index}`;
  const port = { network_id: network, name, security_groups: [group], fixed_ips: [{ ip_address: ip }] };
  const made = await cloud.operator.as(demo).send<Made>('neutron', 'POST', '/v2.0/ports', { port });
  return cloud.boot(name, made.id, ((index - 1) % cloud.lab.hosts.length) + 1);
}

/** One more Docker host with Causeway, on a subnet of its own behind the project's router, as the last of the bed's instances. */
export async function bootBeyond({ cloud, site, member, instances }: CloudBed): Promise<CloudBed> {
  const post = (path: string, body: object): Promise<Made> => member.send<Made>('neutron', 'POST', `/v2.0/${path}`, body);
  const network = await post('networks', { network: { name: 'beyond' } });
  const subnet = await post('subnets', { subnet: { name: 'beyond', network_id: network.id, ip_version: 4, cidr: '10.21.0.0/24' } });
  await member.send('neutron', 'PUT', `/v2.0/routers/${site.router}/add_router_interface`, { subnet_id: subnet.id });
  const index = instances.length + 1;
  const instance = await bootOn(cloud, { network: network.id, group: site.group }, { index, ip: `10.21.0.${10 + index}` });
  const wider = new CloudBed(cloud, site, [...instances, instance]);
  await installOn(wider, [instance]);
  return wider;
}

/** The same with Causeway: a controller, and an engine with an agent on every instance. */
export async function makeCloudBed(options: BedOptions, count = 2): Promise<CloudBed> {
  const { progress = silentProgress } = options;
  const bed = await makeInstances(options, count);
  await using undo = new AsyncDisposableStack();
  undo.use(bed);
  await progress.step('Starting the controller, outside the cloud', () => serveFor(bed, options));
  await progress.step('Starting a Docker engine and an agent in every instance', () => installOn(bed, bed.instances));
  undo.move();
  return bed;
}

/** One Docker host with Causeway, in a cloud that has other instances as well. */
export async function bootDockerHost(cloud: OpenStack, site: Site): Promise<CloudBed> {
  const bed = new CloudBed(cloud, site, [await bootOn(cloud, site, { index: 1, ip: '10.20.0.11' })]);
  await serveFor(bed);
  await installOn(bed, bed.instances);
  return bed;
}

async function serveFor(bed: CloudBed, { isInEtcd = false }: Pick<BedOptions, 'isInEtcd'> = {}): Promise<void> {
  const { controller } = bed.cloud;
  if (isInEtcd) await startEtcd(controller);
  const store = isInEtcd ? ['--store', `etcd:${etcdUrl}`] : [];
  await startController(controller, { arguments: ['--san', controller.address, ...store] });
  await until('the controller to answer', () => bed.causeway('status').catch(() => undefined), patience);
}

async function installOn(bed: CloudBed, instances: readonly Instance[]): Promise<void> {
  await Promise.all(
    instances.map(async ({ host }) => {
      await startDockerd(host);
      await importImages(host, [boxImage]);
      const { token } = await bed.json<{ token: string }>('token', 'create', '--join');
      await startAgent(host, { arguments: ['--join', token, '--controller', `https://${bed.cloud.controller.address}:7480`] });
    }),
  );
  await until(
    'all hosts to be ready',
    async () => {
      const found = await bed.json<{ status: { ready: boolean } }[]>('host', 'ls');
      return found.length === bed.instances.length && found.every(({ status }) => status.ready);
    },
    patience,
  );
}
