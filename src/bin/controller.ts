// `causeway controller`: reads arguments and environment, starts a controller, and ends it cleanly on SIGTERM.
import { existsSync, readFileSync } from 'node:fs';
import { Command, InvalidArgumentError, Option } from 'commander';
import pino from 'pino';
import { Fault } from '#model/fault.ts';
import { controllerPort } from '#model/numbers.ts';
import { openStore } from '#store/open.ts';
import type { Control } from '#controller/control.ts';
import { openController } from '#controller/controller.ts';
import { writeFirstContext } from '#controller/first-context.ts';
import { startServer } from '#controller/server.ts';
import type { CloudOptions } from './controller-cloud.ts';
import { failed } from './failed.ts';
import { runKubernetesController } from './kubernetes-controller.ts';

interface Options extends Omit<CloudOptions, 'cloud'> {
  readonly cloud?: string | true;
  readonly kubernetes?: string;
  readonly leaseNamespace: string;
  readonly store: string;
  readonly listen: { readonly host: string; readonly port: number };
  readonly san: readonly string[];
  readonly contextsFile: string;
  readonly logLevel: string;
}

function parseListen(text: string): Options['listen'] {
  const [, bracketed, plain, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):([0-9]{1,5})$/.exec(text) ?? [];
  if (port === undefined || Number(port) > 65535)
    throw new InvalidArgumentError('Write it as ADDRESS:PORT, for example 0.0.0.0:7480 or [::]:7480.');
  return { host: bracketed ?? (plain === undefined || plain === '' ? everyAddress() : plain), port: Number(port) };
}

function parseInterval(text: string): number {
  const seconds = /^[0-9]{1,5}$/.test(text) ? Number(text) : 0;
  if (seconds < 5 || seconds > 86_400) throw new InvalidArgumentError('Write it as a number of seconds, 5 to 86400.');
  return seconds;
}

function parseShare(text: string): number {
  const services = /^[0-9]{1,4}$/.test(text) ? Number(text) : 0;
  if (services < 1) throw new InvalidArgumentError('Write it as a number of services, 1 to 9999.');
  return services;
}

const versionOf = (): string => {
  const parsed: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  return typeof parsed === 'object' && parsed !== null && 'version' in parsed ? String(parsed.version) : '0.0.0';
};

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}

/** A socket on `::` takes IPv4 too (ipv6(7)), whatever net.ipv6.bindv6only says, because Node clears IPV6_V6ONLY. A kernel without IPv6 has no such file. */
const everyAddress = (): string => (existsSync('/proc/net/if_inet6') ? '::' : '0.0.0.0');

/** Where the controller's own machine reaches it. */
const localUrl = ({ host }: Options['listen'], port: number): string => {
  const name = host === '0.0.0.0' || host === '::' || isLoopback(host) ? 'localhost' : host;
  return `https://${name.includes(':') ? `[${name}]` : name}:${port}`;
};

/** What speaks with clouds is loaded where there is one. */
async function keepCloud(control: Control, options: CloudOptions): Promise<AsyncDisposable> {
  const cloud = await import('./controller-cloud.ts');
  return cloud.keepCloud(control, options, process.env);
}

async function run(options: Options): Promise<void> {
  const log = pino({ level: options.logLevel, errorKey: 'error' }, pino.destination({ dest: 2, sync: true }));
  const { kubernetes, leaseNamespace, cloud: wanted } = options;
  const cloud = wanted === undefined ? undefined : { ...options, cloud: wanted };
  if (kubernetes !== undefined) {
    await runKubernetesController({ kubeconfig: kubernetes, namespace: leaseNamespace, ...(cloud === undefined ? {} : { cloud }) }, log);
    return;
  }
  const version = versionOf();
  await using store = await openStore(options.store);
  await using controller = await openController({ store, log, version });
  const { host, port } = options.listen;
  await using server = await startServer(controller, {
    host,
    port,
    names: [...options.san, ...(host === '0.0.0.0' || host === '::' ? [] : [host])],
  });
  await using beside = new AsyncDisposableStack();
  if (cloud !== undefined) beside.use(await keepCloud(controller.control, cloud));
  const wrote = await writeFirstContext(controller.control, options.contextsFile, localUrl(options.listen, server.port));
  if (wrote) log.info({ file: options.contextsFile }, 'Wrote the context of the first administrator');
  log.info(
    { store: store.name, host, port: server.port, version, ca: controller.control.authority.fingerprint },
    'The controller is ready',
  );
  const ended = new Promise<string>((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, resolve);
  });
  const signal = await Promise.race([ended, controller.control.mirror.lost]);
  if (signal instanceof Fault) throw signal;
  log.info({ signal }, 'The controller ends');
}

const collect = (value: string, previous: readonly string[]): readonly string[] => [
  ...previous,
  ...value.split(',').filter((name) => name !== ''),
];

const program = new Command('causeway controller')
  .description('Serve the API, keep the facts, decide what needs one mind')
  .option(
    '--store <url>',
    'memory:, sqlite:/path or etcd:http://host:2379,…',
    process.env['CAUSEWAY_STORE'] ?? 'sqlite:/var/lib/causeway/controller.db',
  )
  .addOption(
    new Option('--listen <address:port>', 'where to listen, for example 10.0.0.1:7480 or [fd00::1]:7480')
      .argParser(parseListen)
      .default({ host: everyAddress(), port: controllerPort }, `port ${controllerPort} of every address, IPv4 and IPv6`),
  )
  .addOption(
    new Option('--san <name>', 'a name or address under which the controller is reached (repeat, or separate by commas)')
      .argParser(collect)
      .default([], 'none beside its own addresses'),
  )
  .addOption(
    new Option(
      '--cloud [name]',
      'keep this OpenStack cloud of clouds.yaml as the networks need it; without a name the one of OS_CLOUD or the other OS_* variables',
    ).env('CAUSEWAY_CLOUD'),
  )
  .addOption(
    new Option('--cloud-name <name>', 'name of this installation in the cloud, where one project holds several')
      .env('CAUSEWAY_CLOUD_NAME')
      .default('causeway'),
  )
  .addOption(new Option('--cloud-network <network>', "only the hosts' ports on this Neutron network").env('CAUSEWAY_CLOUD_NETWORK'))
  .addOption(new Option('--cloud-routes <router>', 'give this router ways to containers').env('CAUSEWAY_CLOUD_ROUTES'))
  .addOption(
    new Option(
      '--cloud-provider <name>',
      "of load balancers that name none: this provider of the cloud's Octavia; left out: ovn, else amphora",
    ).env('CAUSEWAY_CLOUD_PROVIDER'),
  )
  .addOption(
    new Option('--cloud-max-shared-lb <number>', 'with --kubernetes: services that may share a load balancer; left out: 2')
      .env('CAUSEWAY_CLOUD_MAX_SHARED_LB')
      .argParser(parseShare),
  )
  .addOption(
    new Option('--cloud-interval <seconds>', 'time between looks at the cloud where nothing of ours changes')
      .env('CAUSEWAY_CLOUD_INTERVAL')
      .argParser(parseInterval)
      .default(60),
  )
  .option('--contexts-file <path>', 'where the first administrator finds address, token and CA', '/etc/causeway/contexts.yaml')
  .addOption(
    new Option(
      '--kubernetes <kubeconfig>',
      'be the controller of a Kubernetes cluster instead: no API and no store of our own; of the options above those of the cloud',
    ).env('CAUSEWAY_KUBERNETES'),
  )
  .addOption(
    new Option('--cloud-all-balancers', "with --kubernetes: load balancers of services that name no class are Octavia's, too").env(
      'CAUSEWAY_CLOUD_ALL_BALANCERS',
    ),
  )
  .addOption(
    new Option(
      '--cloud-classes <json>',
      'with --kubernetes: classes that services may name by annotation, {"dmz": {"floating-subnet-id": "ID"}}',
    ).env('CAUSEWAY_CLOUD_CLASSES'),
  )
  .option('--lease-namespace <name>', 'where the Lease is that says which of several such controllers decides', 'kube-system')
  .option('--log-level <level>', 'debug, info, warn or error', process.env['CAUSEWAY_LOG_LEVEL'] ?? 'info')
  .exitOverride()
  // It is told in our own form.
  .configureOutput({ writeErr: () => undefined })
  .action(run);

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = failed(error, 'causeway controller');
}
