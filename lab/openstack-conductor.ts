// Magnum's conductor, which makes clusters, signs certificates and watches health, with RabbitMQ between it and the API. The one
// part of the lab's own is the driver that it loads by Magnum's contract (magnum-driver/): it hands out lab hosts as machines.
import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from './host.ts';
import type { Operator } from './openstack-operator.ts';
import { folder } from './openstack-services.ts';
import type { Need } from './packages.ts';
import { until } from './until.ts';

const brokerHome = '/var/lib/causeway-rabbitmq';
/** Whom RabbitMQ has from the beginning, for programs of its own machine. */
export const brokerUrl = 'rabbit://guest:guest@127.0.0.1:5672//';
const driverFolder = `${folder}/magnum-driver`;
/** For whoever loads drivers: the API asks them as well. What Python notes of a folder that is gone afterwards goes with it. */
export const driverEnvironment: Readonly<Record<string, string>> = { PYTHONPATH: driverFolder, XDG_CACHE_HOME: `${folder}/cache` };

const patient = { timeoutMs: 180_000, intervalMs: 300 };

export function installDriver(host: Host): void {
  cpSync(join(import.meta.dirname, 'magnum-driver'), host.file(driverFolder), { recursive: true });
}

export const brokerNeed: Need = {
  program: '/usr/lib/rabbitmq/bin/rabbitmq-server',
  package: 'rabbitmq-server',
  why: 'between a service’s API and what works for it',
};

export async function startBroker(host: Host): Promise<void> {
  mkdirSync(host.file(brokerHome), { recursive: true });
  const env = {
    HOME: brokerHome,
    RABBITMQ_NODENAME: 'rabbit@localhost',
    RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
    RABBITMQ_DIST_PORT: '25672',
    RABBITMQ_MNESIA_BASE: brokerHome,
    RABBITMQ_LOG_BASE: brokerHome,
    RABBITMQ_LOGS: '-',
    RABBITMQ_PID_FILE: `${brokerHome}/pid`,
    RABBITMQ_ENABLED_PLUGINS_FILE: `${brokerHome}/plugins`,
    ERL_EPMD_ADDRESS: '127.0.0.1',
    // One scheduler: there is little to do, and idle ones spin.
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '+S 1:1 +sbwt none',
  };
  await host.startService({ name: 'rabbitmq', argv: ['/usr/lib/rabbitmq/bin/rabbitmq-server'], env });
  const probe = ['bash', '-c', '</dev/tcp/127.0.0.1/5672'];
  await until('RabbitMQ to listen', async () => (await host.exec(probe, { anyStatus: true })).status === 0, patient);
}

/**
 * How often Magnum looks at health it takes from its defaults: its configuration is read too late for that. How often it looks what
 * has become of the machines is in its code: every ten seconds, which every creation, upgrade and removal would be waited for.
 */
const conductorMain = (config: string): string =>
  [
    'import sys',
    // It makes sockets green, which has to be before anybody loads requests: TLS is broken otherwise, and every cluster unhealthy.
    'import magnum.cmd',
    `sys.argv = ['magnum-conductor', '--config-file', '${config}']`,
    'import magnum.conf',
    "magnum.conf.CONF.set_default('health_polling_interval', 3, group='kubernetes')",
    'from magnum.service.periodic import MagnumPeriodicTasks',
    "MagnumPeriodicTasks._periodic_spacing['sync_cluster_status'] = 1",
    'from magnum.cmd.conductor import main',
    'sys.exit(main())',
  ].join('\n');

/** Returns when the conductor says that it is up: what the API hands over before that is lost. */
export async function startConductor(host: Host, operator: Operator, config: string): Promise<void> {
  await host.startService({
    name: 'magnum-conductor',
    argv: ['/usr/bin/python3', '-c', conductorMain(config)],
    env: driverEnvironment,
  });
  const isUp = async (): Promise<boolean> => {
    const services = await operator.get<{ state: string }[]>('magnum', '/v1/mservices', 'mservices');
    return services.some(({ state }) => state === 'up');
  };
  await until('Magnum’s conductor to be up', isUp, patient);
}
