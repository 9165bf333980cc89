// The services of a lab's cloud, each from Debian's packages with a configuration of its own: MariaDB, OVN's databases and
// northd, Keystone, Neutron with ML2/OVN. All on the controller's host. No message broker: nothing of ML2/OVN listens for one.
import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Host } from './host.ts';
import type { Operator } from './openstack-operator.ts';
import { databaseSocket, makeTables, sql } from './openstack-tables.ts';

export type ServiceName = 'keystone' | 'neutron' | 'glance' | 'magnum' | 'nova' | 'octavia' | 'placement';
export const apiPorts: Readonly<Record<ServiceName, number>> = {
  keystone: 5000,
  neutron: 9696,
  glance: 9292,
  magnum: 9511,
  nova: 8774,
  octavia: 9876,
  placement: 8778,
};
/** Beside the port: reached through the host's files from any namespace. */
export const apiSocket = (service: ServiceName): string => `/run/${service}.sock`;

/** Whoever has it may not write allowed address pairs. */
export const limitedRole = 'limited';
/** Whoever has it may not update routers. */
export const unroutedRole = 'unrouted';

/** Configuration of all services, as the controller's host sees it. */
export const folder = '/etc/causeway/openstack';
export const password = 'secret';
/** Services of the lab may start on a machine that is busy with other tests. */
const patienceMs = 120_000;

/** A service that a cloud has when it is asked for. Its account and its database bear its name. */
export interface FurtherService {
  readonly name: ServiceName;
  /** In the catalogue: `image`. */
  readonly type: string;
  /** Behind the port, in the catalogue: `/v1`, or nothing. */
  readonly path: string;
  /** Keystone, Neutron and the service's account are there by then. */
  start(host: Host, operator: Operator): Promise<void>;
}
export const neutronService: Omit<FurtherService, 'start'> = { name: 'neutron', type: 'network', path: '' };

/** Writes a file of configuration and answers its path. */
export function write(host: Host, name: string, lines: readonly string[]): string {
  const path = `${folder}/${name}`;
  mkdirSync(dirname(host.file(path)), { recursive: true });
  writeFileSync(host.file(path), `${lines.join('\n')}\n`);
  return path;
}

/** Durability is off: what is written does not outlive the lab anyway. */
export async function startDatabase(host: Host, names: readonly ServiceName[]): Promise<void> {
  const data = '/var/lib/causeway-mysql';
  // Temporary tables are named after the number of the process, which is the same in several labs, and /tmp is the machine's.
  const temporary = '/var/lib/causeway-mysql-tmp';
  await host.exec(['mkdir', '-p', temporary]);
  await host.exec([
    'mariadb-install-db',
    '--no-defaults',
    '--user=root',
    `--datadir=${data}`,
    `--tmpdir=${temporary}`,
    '--auth-root-authentication-method=normal',
    '--skip-test-db',
  ]);
  const options = [
    '--no-defaults',
    '--user=root',
    `--datadir=${data}`,
    `--tmpdir=${temporary}`,
    `--socket=${databaseSocket}`,
    '--pid-file=/run/mysql.pid',
    '--skip-networking',
    '--innodb-flush-log-at-trx-commit=0',
    '--innodb-flush-method=nosync',
    '--innodb-doublewrite=0',
    '--innodb-buffer-pool-size=64M',
    '--performance-schema=OFF',
    // Questions about a port join a dozen tables, all small: to try out the best order takes longer than any order.
    '--optimizer-search-depth=1',
    // Most of them are asked again before anything of theirs has changed.
    '--query-cache-type=1',
    '--query-cache-size=32M',
  ];
  await host.startService({ name: 'mariadb', argv: ['mariadbd', ...options], env: {}, ready: { socket: databaseSocket } }, patienceMs);
  await sql(host, names.map((name) => databaseStatement(name)).join('\n'));
}

export const databaseStatement = (user: ServiceName, name: string = user): string =>
  `create database ${name} character set utf8mb3; grant all on ${name}.* to '${user}'@'localhost' identified by '${password}';`;

/** `database`: where the service has several. */
export const databaseUrl = (name: ServiceName, database: string = name): string => urlBy('pymysql', name, database);

/**
 * By a client in C, which takes much less of the processor: for services whose threads are the kernel's. Greenlets that wait for each
 * other's locks would wait in it for ever.
 */
export const fastDatabaseUrl = (name: ServiceName): string => urlBy('mysqldb', name, name);

const urlBy = (driver: 'pymysql' | 'mysqldb', name: ServiceName, database: string): string =>
  `mysql+${driver}://${name}:${password}@localhost/${database}?charset=utf8&unix_socket=${databaseSocket}`;

/** The northbound database on this host only, the southbound one for the hypervisors. */
export async function startOvn(host: Host): Promise<void> {
  await host.exec(['mkdir', '-p', '/run/ovn', '/var/lib/ovn']);
  for (const [name, remote] of [
    ['nb', '6641:127.0.0.1'],
    ['sb', `6642:${host.address}`],
  ] as const) {
    const database = `/var/lib/ovn/lab-${name}.db`;
    const socket = `/run/ovn/${name}.sock`;
    await host.exec(['ovsdb-tool', 'create', database, `/usr/share/ovn/ovn-${name}.ovsschema`]);
    await host.startService({
      name: `ovn-${name}`,
      argv: ['ovsdb-server', `--remote=punix:${socket}`, `--remote=ptcp:${remote}`, `--unixctl=/run/ovn/${name}.ctl`, database],
      env: {},
      ready: { socket },
    });
  }
  const databases = ['--ovnnb-db=unix:/run/ovn/nb.sock', '--ovnsb-db=unix:/run/ovn/sb.sock'];
  await host.startService({
    name: 'ovn-northd',
    argv: ['ovn-northd', '--unixctl=/run/ovn/northd.ctl', ...databases],
    env: {},
    ready: { socket: '/run/ovn/northd.ctl' },
  });
}

const keys = '/var/lib/causeway-keystone';

export async function startKeystone(host: Host): Promise<void> {
  const config = write(host, 'keystone.conf', [
    '[database]',
    `connection = ${fastDatabaseUrl('keystone')}`,
    '[fernet_tokens]',
    `key_repository = ${keys}/fernet`,
    '[fernet_receipts]',
    `key_repository = ${keys}/fernet`,
    '[credential]',
    `key_repository = ${keys}/credential`,
    // Without a cache every request reads the catalogue anew: 250 ms instead of 10.
    '[cache]',
    'enabled = true',
    'backend = oslo_cache.dict',
    '[identity]',
    'password_hash_rounds = 4',
  ]);
  for (const repository of ['fernet', 'credential']) writeKey(host, `${keys}/${repository}`);
  const url = `http://${host.address}:${apiPorts.keystone}/v3`;
  const urls = ['admin', 'internal', 'public'].map((name) => `--bootstrap-${name}-url=${url}`);
  const manage = (...argv: readonly string[]) => host.exec(['keystone-manage', `--config-file=${config}`, ...argv]);
  await makeTables(host, { name: 'keystone', about: url }, async () => {
    await manage('db_sync');
    await manage('bootstrap', `--bootstrap-password=${password}`, '--bootstrap-region-id=RegionOne', ...urls);
  });
  await serveKeystone(host, config);
}

const serveKeystone = (host: Host, config: string): Promise<void> =>
  serve(host, {
    name: 'keystone',
    module: 'from keystone.wsgi.api import application',
    env: { OS_KEYSTONE_CONFIG_FILES: config },
    threads: 4,
    processes: 1,
    path: '/v3',
  });

/** Starts it anew with another key, so that no token of before is one any more, as when its time has come. */
export async function restartKeystone(host: Host): Promise<void> {
  await host.stopService('keystone', 'SIGINT');
  writeKey(host, `${keys}/fernet`);
  await serveKeystone(host, `${folder}/keystone.conf`);
}

/** What `keystone-manage fernet_setup` makes, which takes seconds to do it. */
function writeKey(host: Host, repository: string): void {
  mkdirSync(host.file(repository), { recursive: true, mode: 0o700 });
  const key = randomBytes(32).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
  writeFileSync(host.file(`${repository}/0`), key, { mode: 0o600 });
}

/** Configuration and tables, for which nobody else has to be up. */
export async function prepareNeutron(host: Host, pageLength: number): Promise<void> {
  // Among the package's tests, where it belongs to no service package.
  mkdirSync(host.file(folder), { recursive: true });
  copyFileSync('/usr/lib/python3/dist-packages/neutron/tests/etc/api-paste.ini', host.file(`${folder}/neutron-paste.ini`));
  // As in clouds that keep this to their operators; here from one user each only.
  const rules = { 'update_port:allowed_address_pairs': `not role:${limitedRole}`, update_router: `not role:${unroutedRole}` };
  const policy = write(host, 'neutron-policy.json', [JSON.stringify(rules)]);
  const config = write(host, 'neutron.conf', neutronConfig(host, { policy, pageLength }));
  const migrate = 'from neutron.db.migration.cli import main; main()';
  await makeTables(host, { name: 'neutron' }, () =>
    host.exec(['/usr/bin/python3', '-c', migrate, '--config-file', config, 'upgrade', 'heads']),
  );
}

export async function startNeutron(host: Host): Promise<void> {
  const module = 'from neutron.wsgi.api import application';
  const env = { OS_NEUTRON_CONFIG_DIR: folder, OS_NEUTRON_CONFIG_FILES: 'neutron.conf' };
  // Neutron's database sessions are not made for threads. Another process would have to get to know every question as well: eight seconds of
  // processor, and all that OVN tells is told to each.
  await serve(host, { name: 'neutron', module, env, threads: 1, processes: 1, path: '/' });
}

const neutronConfig = (host: Host, { policy, pageLength }: { readonly policy: string; readonly pageLength: number }): string[] => [
  '[DEFAULT]',
  'state_path = /var/lib/causeway-neutron',
  `api_paste_config = ${folder}/neutron-paste.ini`,
  'core_plugin = ml2',
  'service_plugins = ovn-router,trunk,port_forwarding',
  `pagination_max_limit = ${pageLength}`,
  'transport_url = fake://',
  // Nobody hears it: OVN's agents are told by its databases. Each change of anything would be read anew for that.
  'rpc_workers = 0',
  // As many as answer here, by default one for each processor: while not all are there, three questions are asked at each thing that OVN tells.
  'api_workers = 1',
  'enable_traditional_dhcp = false',
  'notify_nova_on_port_status_changes = false',
  'notify_nova_on_port_data_changes = false',
  '[oslo_messaging_notifications]',
  'driver = noop',
  '[oslo_concurrency]',
  'lock_path = /run/neutron',
  '[oslo_policy]',
  `policy_file = ${policy}`,
  '[database]',
  `connection = ${fastDatabaseUrl('neutron')}`,
  '[ml2]',
  'type_drivers = local,flat,vlan,geneve',
  'tenant_network_types = geneve',
  'mechanism_drivers = ovn',
  'extension_drivers = port_security',
  'overlay_ip_version = 4',
  '[ml2_type_geneve]',
  // Each of them is a row, written at the start.
  'vni_ranges = 1:1000',
  'max_header_size = 38',
  '[ml2_type_flat]',
  'flat_networks = physical',
  '[ovn]',
  'ovn_nb_connection = tcp:127.0.0.1:6641',
  `ovn_sb_connection = tcp:${host.address}:6642`,
  'ovn_metadata_enabled = false',
  ...accountSection(host, 'keystone_authtoken', 'neutron'),
];

/** For services that tell nobody of what they do; ends in the section of the database. */
export const quiet = (name: string): string[] => [
  '[oslo_messaging_notifications]',
  'driver = noop',
  '[oslo_concurrency]',
  `lock_path = /run/${name}`,
  '[database]',
];

/** As whom a service speaks to others. */
export const accountSection = (host: Host, section: string, name: ServiceName): string[] => [
  `[${section}]`,
  'auth_type = password',
  `auth_url = http://${host.address}:${apiPorts.keystone}/v3`,
  `www_authenticate_uri = http://${host.address}:${apiPorts.keystone}/v3`,
  `username = ${name}`,
  `password = ${password}`,
  'project_name = service',
  'user_domain_name = Default',
  'project_domain_name = Default',
  'region_name = RegionOne',
];

export interface Served {
  readonly name: ServiceName;
  /** Python that defines `application`. */
  readonly module: string;
  readonly env: Readonly<Record<string, string>>;
  readonly threads: number;
  readonly processes: number;
  /** Answered with 200 once it works. */
  readonly path: string;
}

/**
 * Python that loads a program. Else Python looks for garbage again and again while some hundred thousand objects are made that stay,
 * and among these ever after.
 */
export const loading = (...lines: readonly string[]): string[] => [
  'import gc',
  'gc.disable()',
  ...lines,
  'gc.freeze()',
  'gc.set_threshold(50_000, 20, 20)',
  'gc.enable()',
];

/**
 * What belongs to a list's members is read by their keys, by a question that is made once, instead of by the list's own question once more,
 * from which another is made each time: a seventh of Neutron's work.
 */
const quickLists: readonly string[] = [
  'from sqlalchemy.orm import relationships, strategies',
  'loaders = relationships.RelationshipProperty._all_strategies[relationships.RelationshipProperty]',
  'loaders[(("lazy", "subquery"),)] = strategies.SelectInLoader',
];

/**
 * Who may read a list is asked for each field of each of its members, and each time Python is asked anew how a check is called and the
 * system whether a file of rules has changed: half of a service's work. How checks are called does not change, nor do rules in a lab.
 */
const quickPolicy: readonly string[] = [
  'import functools, inspect, types',
  'from oslo_policy import _checks, policy',
  'specification = functools.cache(inspect.getfullargspec)',
  '_checks.inspect = types.SimpleNamespace(getfullargspec=lambda check: specification(check.__func__))',
  'load_rules = policy.Enforcer.load_rules',
  'def load_once(enforcer, force_reload=False):',
  '    load_rules(enforcer, force_reload)',
  '    enforcer.use_conf = False',
  'policy.Enforcer.load_rules = load_once',
];

/** Two facts of uwsgi: its HTTP has no keep-alive and has to say so, and ML2/OVN's hash ring reads `start-time`. */
export async function serve(host: Host, { name, module, env, threads, processes, path }: Served): Promise<void> {
  const wsgi = write(host, `${name}_wsgi.py`, loading(...quickPolicy, ...quickLists, module));
  const config = write(host, `${name}-uwsgi.ini`, [
    '[uwsgi]',
    'plugins = python3',
    `http-socket = ${host.address}:${apiPorts[name]}`,
    `http-socket = ${apiSocket(name)}`,
    `wsgi-file = ${wsgi}`,
    `processes = ${processes}`,
    `threads = ${threads}`,
    'master = true',
    'enable-threads = true',
    'lazy-apps = true',
    'need-app = true',
    'die-on-term = true',
    'disable-logging = true',
    'buffer-size = 65535',
    'add-header = Connection: close',
    'start-time = %t',
    ...Object.entries(env).map(([key, value]) => `env = ${key}=${value}`),
  ]);
  await host.startService({ name, argv: ['uwsgi-core', '--ini', config], env: {}, ready: { socket: apiSocket(name), path } }, patienceMs);
}
