// Nova in a lab's cloud, with Placement, which it asks what is free where. Everything of it is real but the machines: its compute
// service is that of the first hypervisor with Nova's own driver for tests (nova/virt/fake.py), which keeps the books of servers
// and starts none. Servers, their ports and their bindings are as in any cloud; a lab host may be plugged into such a port.
import { randomUUID } from 'node:crypto';
import { brokerNeed, brokerUrl, startBroker } from './openstack-conductor.ts';
import { glanceNeed } from './openstack-glance.ts';
import type { Host } from './host.ts';
import type { Operator } from './openstack-operator.ts';
import {
  accountSection,
  databaseStatement,
  databaseUrl,
  folder,
  type FurtherService,
  limitedRole,
  loading,
  quiet,
  serve,
  write,
} from './openstack-services.ts';
import { makeTables, sql } from './openstack-tables.ts';
import type { Need } from './packages.ts';
import { until } from './until.ts';

export const novaNeeds: readonly Need[] = [
  glanceNeed,
  brokerNeed,
  { program: '/usr/lib/python3/dist-packages/nova/cmd/compute.py', package: 'python3-nova', why: 'the cloud’s servers' },
  { program: '/usr/lib/python3/dist-packages/placement/deploy.py', package: 'python3-placement', why: 'what is free for servers' },
];

/** Looking takes processor time that services need to start. */
const patient = { timeoutMs: 240_000, intervalMs: 1000 };

export const placement: FurtherService = {
  name: 'placement',
  type: 'placement',
  path: '',
  start: async (host) => {
    const config = write(host, 'placement/placement.conf', [
      '[DEFAULT]',
      '[placement_database]',
      `connection = ${databaseUrl('placement')}`,
      ...accountSection(host, 'keystone_authtoken', 'placement'),
    ]);
    const migrate = () => host.exec(['placement-manage', '--config-file', config, 'db', 'sync']);
    await makeTables(host, { name: 'placement' }, migrate);
    const module = 'from placement.wsgi.api import application';
    const env = { OS_PLACEMENT_CONFIG_DIR: `${folder}/placement` };
    await serve(host, { name: 'placement', module, env, threads: 1, processes: 1, path: '/' });
  },
};

/** Of the API as a whole, and of servers that could be placed nowhere; the other is the one cell's. */
const databases = { api: 'nova_api', lost: 'nova_cell0' } as const;

export const nova: FurtherService = {
  name: 'nova',
  type: 'compute',
  path: '/v2.1',
  start: async (host, operator) => {
    const config = write(host, 'nova/nova.conf', novaConfig(host));
    write(host, 'nova/api-paste.ini', novaPaste);
    await Promise.all([startBroker(host), makeNovaTables(host, config)]);
    const env = { OS_NOVA_CONFIG_DIR: `${folder}/nova` };
    const module = 'from nova.wsgi.osapi_compute import application';
    // The compute service is of the hypervisor that Neutron binds its ports to.
    const compute = write(host, 'nova/compute.conf', ['[DEFAULT]', 'host = host1', 'compute_driver = fake.SmallFakeDriver']);
    const start = (name: 'conductor' | 'scheduler' | 'compute', ...files: readonly string[]): Promise<void> =>
      host.startService({ name: `nova-${name}`, argv: programOf(name, files), env: {} });
    await Promise.all([
      serve(host, { name: 'nova', module, env, threads: 1, processes: 1, path: '/' }),
      start('conductor', config),
      start('scheduler', config),
      start('compute', config, compute),
    ]);
    await until('Nova to have room for servers', () => hasRoom(operator), patient);
    await makeKinds(operator);
  },
};

const programOf = (name: string, files: readonly string[]): string[] => [
  '/usr/bin/python3',
  '-c',
  [...loading(`import sys; sys.argv[0] = 'nova-${name}'; from nova.cmd.${name} import main`), 'sys.exit(main())'].join('\n'),
  ...files.flatMap((file) => ['--config-file', file]),
];

/** What `nova-manage` writes of the cells is the same in every lab: it is kept with the tables. */
async function makeNovaTables(host: Host, config: string): Promise<void> {
  await sql(host, [databases.api, databases.lost].map((name) => databaseStatement('nova', name)).join('\n'));
  const manage = (...argv: readonly string[]) => host.exec([...programOf('manage', [config]), ...argv]);
  await makeTables(host, { name: 'nova', databases: ['nova', databases.api, databases.lost] }, async () => {
    await manage('api_db', 'sync');
    await manage('cell_v2', 'map_cell0', '--database_connection', databaseUrl('nova', databases.lost));
    await manage('db', 'sync');
    await manage('cell_v2', 'create_cell', '--name', 'cell1');
  });
}

/** The hypervisor belongs to a cell, and Placement knows what it has. */
async function hasRoom(operator: Operator): Promise<boolean> {
  const hypervisors = await operator.get<object[]>('nova', '/v2.1/os-hypervisors', 'hypervisors');
  const [provider] = await operator.get<{ uuid: string }[]>('placement', '/resource_providers', 'resource_providers');
  if (hypervisors.length === 0 || provider === undefined) return false;
  return 'VCPU' in (await operator.get<object>('placement', `/resource_providers/${provider.uuid}/inventories`, 'inventories'));
}

/** What a server is made of: an image that nothing is ever started from, and a flavor. */
const image = { id: randomUUID(), name: 'nothing', disk_format: 'raw', container_format: 'bare', visibility: 'public' };
const flavor = { id: 'small', name: 'small', ram: 64, vcpus: 1, disk: 1 };

async function makeKinds(operator: Operator): Promise<void> {
  await operator.send('glance', 'POST', '/v2/images', image);
  await operator.send('glance', 'PUT', `/v2/images/${image.id}/file`, 'nothing');
  await operator.send('nova', 'POST', '/v2.1/flavors', { flavor });
}

/** Makes a server on these ports of Neutron and answers its id when Nova calls it active. */
export async function makeServer(operator: Operator, name: string, ports: readonly string[]): Promise<string> {
  const networks = ports.map((port) => ({ port }));
  const server = { name, imageRef: image.id, flavorRef: flavor.id, networks };
  const { id } = await operator.send<{ id: string }>('nova', 'POST', '/v2.1/servers', { server });
  const isActive = async (): Promise<boolean> => {
    const { status, fault } = await operator.get<{ status: string; fault?: object }>('nova', `/v2.1/servers/${id}`, 'server');
    if (status === 'ERROR') throw new Error(`Nova cannot make server ${name}: ${JSON.stringify(fault)}`);
    return status === 'ACTIVE';
  };
  await until(`server ${name} to be active`, isActive, patient);
  return id;
}

/** Returns when its ports are free again. */
export async function removeServer(operator: Operator, id: string): Promise<void> {
  await operator.send('nova', 'DELETE', `/v2.1/servers/${id}`);
  const isGone = async (): Promise<boolean> =>
    (await operator.get<{ id: string }[]>('neutron', `/v2.0/ports?device_id=${id}`, 'ports')).length === 0;
  await until(`server ${id} to be gone`, isGone, patient);
}

const novaPaste: readonly string[] = [
  '[composite:osapi_compute]',
  'use = call:nova.api.openstack.urlmap:urlmap_factory',
  '/: versions',
  '/v2.1: v21',
  '[composite:v21]',
  'use = call:nova.api.auth:pipeline_factory_v21',
  'keystone = compute_req_id faultwrap authtoken keystonecontext app',
  '[pipeline:versions]',
  'pipeline = faultwrap versionsapp',
  '[app:versionsapp]',
  'paste.app_factory = nova.api.openstack.compute.versions:Versions.factory',
  '[app:app]',
  'paste.app_factory = nova.api.openstack.compute:APIRouterV21.factory',
  '[filter:compute_req_id]',
  'paste.filter_factory = nova.api.compute_req_id:ComputeReqIdMiddleware.factory',
  '[filter:faultwrap]',
  'paste.filter_factory = nova.api.openstack:FaultWrapper.factory',
  '[filter:keystonecontext]',
  'paste.filter_factory = nova.api.auth:NovaKeystoneContext.factory',
  '[filter:authtoken]',
  'paste.filter_factory = keystonemiddleware.auth_token:filter_factory',
];

/** Also not for everybody: who may not write address pairs is not told the ports of servers either. */
const novaRules = { 'os_compute_api:os-attach-interfaces:list': `rule:project_reader_or_admin and not role:${limitedRole}` };

const novaConfig = (host: Host): string[] => [
  '[DEFAULT]',
  'state_path = /var/lib/causeway-nova',
  `transport_url = ${brokerUrl}`,
  'rpc_response_timeout = 180',
  // Else up to a minute goes by before the scheduler looks for hypervisors for the first time.
  'periodic_fuzzy_delay = 0',
  // Nobody plugs the machines that there are not.
  'vif_plugging_is_fatal = false',
  'vif_plugging_timeout = 0',
  '[api]',
  // Short pages, so that whoever lists things meets several.
  'max_limit = 1',
  '[conductor]',
  'workers = 1',
  '[scheduler]',
  'workers = 1',
  'discover_hosts_in_cells_interval = 2',
  '[vnc]',
  'enabled = false',
  '[oslo_policy]',
  `policy_file = ${write(host, 'nova/policy.json', [JSON.stringify(novaRules)])}`,
  '[api_database]',
  `connection = ${databaseUrl('nova', databases.api)}`,
  ...quiet('nova'),
  `connection = ${databaseUrl('nova')}`,
  ...['keystone_authtoken', 'placement', 'neutron', 'glance'].flatMap((section) => accountSection(host, section, 'nova')),
];
