// Octavia in a lab's cloud with OVN's own load balancers (docs.openstack.org/ovn-octavia-provider): no machines, no message broker.
// The provider's agent tells Octavia of states, by sockets in /run/octavia, wherever the configuration would have them; Octavia
// waits for these for minutes, so the agent is first. Nobody may try whether it listens: a connection that ends without a word keeps
// a processor busy for ever (_recv in octavia/api/drivers/driver_agent/driver_listener.py). Where there are amphorae as well there is
// a broker (openstack-amphora.ts).
import { existsSync, mkdirSync } from 'node:fs';
import { demo } from './openstack.ts';
import type { Host } from './host.ts';
import { amphoraApi, amphoraConfig, type ApiOptions, driverEnvironment, startWorker } from './openstack-amphora.ts';
import type { Operator } from './openstack-operator.ts';
import { accountSection, fastDatabaseUrl, type FurtherService, loading, serve, write } from './openstack-services.ts';
import { makeTables } from './openstack-tables.ts';
import type { Need } from './packages.ts';
import { until } from './until.ts';

export const octaviaNeeds: readonly Need[] = [
  { program: '/usr/lib/python3/dist-packages/octavia/api/app.py', package: 'python3-octavia', why: 'the cloud’s load balancers' },
  {
    program: '/usr/lib/python3/dist-packages/ovn_octavia_provider/driver.py',
    package: 'python3-ovn-octavia-provider',
    why: 'load balancers of OVN',
  },
];

/** `hasAmphorae`: its second provider is `amphora`, whose machines are the lab's (octavia-machines.ts); RabbitMQ runs already. */
const octaviaOf = (hasAmphorae: boolean): FurtherService => ({
  name: 'octavia',
  type: 'load-balancer',
  path: '',
  start: async (host, operator) => {
    mkdirSync(host.file('/run/octavia'), { recursive: true });
    const config = write(
      host,
      'octavia.conf',
      hasAmphorae ? [...octaviaConfig(host, amphoraApi), ...(await amphoraConfig(host))] : octaviaConfig(host, ovnApi),
    );
    const migrate = () => host.exec(['octavia-db-manage', '--config-file', config, 'upgrade', 'head']);
    await Promise.all([seedRole(operator), makeTables(host, { name: 'octavia' }, migrate)]);
    await host.startService({ name: 'octavia-driver-agent', argv: ['/usr/bin/python3', '-c', agentMain(config)], env: {} });
    await until('Octavia’s agent to listen', () => existsSync(host.file('/run/octavia/get.sock')), { timeoutMs: 120_000 });
    const module = `from octavia.api import app\napplication = app.setup_app(argv=['octavia-api', '--config-file', '${config}'])`;
    await serve(host, { name: 'octavia', module, env: hasAmphorae ? driverEnvironment : {}, threads: 1, processes: 1, path: '/' });
    if (hasAmphorae) await startWorker(host, config);
  },
});

export const octavia: FurtherService = octaviaOf(false);
export const octaviaWithAmphorae: FurtherService = octaviaOf(true);

/** Short pages, so that whoever lists things meets several. */
const ovnApi: ApiOptions = { transport: 'fake://', providers: 'ovn:OVN', pageLength: 3 };

/**
 * The agent would fork for every word of the provider, and each child find out anew how tables and objects go together and how to ask
 * for them, which is most of its work: a tenth of a second of processor for each of some hundred words. Threads go on with what the
 * ones before have found out, from the beginning by questions about what there is not; connections are not for the agent's several
 * processes and are closed.
 */
const agentMain = (config: string): string =>
  [
    ...loading(
      'import socketserver, sys',
      `sys.argv = ['octavia-driver-agent', '--config-file', '${config}']`,
      'from octavia.cmd.driver_agent import main',
      'from octavia.common import service',
      'from octavia.api.drivers.driver_agent import driver_listener',
      'from octavia.api.drivers.driver_agent.driver_get import process_get',
      'from octavia.db.api import get_engine',
      'service.prepare_service(sys.argv)',
      // Options are read once.
      'service.prepare_service = lambda argv: None',
      "for kind in ('loadbalancers', 'listeners', 'pools', 'members', 'healthmonitors'):",
      "    process_get({'object': kind, 'id': 'none'})",
      'get_engine().dispose()',
      'class Threads(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):',
      '    daemon_threads = True',
      // What a word has read keeps its connection until Python looks for garbage.
      '    def shutdown_request(self, request):',
      '        super().shutdown_request(request)',
      '        gc.collect(1)',
      'driver_listener.ForkingUDSServer = Threads',
    ),
    'sys.exit(main())',
  ].join('\n');

/** Whoever is to make load balancers needs it (docs.openstack.org/octavia/latest/configuration/policy.html). */
const memberRole = 'load-balancer_member';

async function seedRole(operator: Operator): Promise<void> {
  const role = await operator.send<{ id: string }>('keystone', 'POST', '/v3/roles', { role: { name: memberRole } });
  const [project] = await operator.get<{ id: string }[]>('keystone', `/v3/projects?name=${demo.project}`, 'projects');
  const [user] = await operator.get<{ id: string }[]>('keystone', `/v3/users?name=${demo.user}`, 'users');
  await operator.send('keystone', 'PUT', `/v3/projects/${project?.id}/users/${user?.id}/roles/${role.id}`);
}

/** As in clouds where who lacks a role of Octavia's own may not even look. */
const policy = {
  'load-balancer:observer_and_owner': 'role:load-balancer_observer and rule:load-balancer:owner',
  'load-balancer:member_and_owner': `role:${memberRole} and rule:load-balancer:owner`,
};

const octaviaConfig = (host: Host, { transport, providers, pageLength }: ApiOptions): string[] => [
  '[DEFAULT]',
  `transport_url = ${transport}`,
  '[api_settings]',
  'auth_strategy = keystone',
  `enabled_provider_drivers = ${providers}`,
  'default_provider_driver = ovn',
  `pagination_max_limit = ${pageLength}`,
  '[driver_agent]',
  'enabled_provider_agents = ovn',
  '[ovn]',
  'ovn_nb_connection = tcp:127.0.0.1:6641',
  `ovn_sb_connection = tcp:${host.address}:6642`,
  '[oslo_concurrency]',
  'lock_path = /run/octavia',
  '[oslo_policy]',
  `policy_file = ${write(host, 'octavia-policy.json', [JSON.stringify(policy)])}`,
  '[database]',
  `connection = ${fastDatabaseUrl('octavia')}`,
  ...['keystone_authtoken', 'service_auth', 'neutron'].flatMap((section) => accountSection(host, section, 'octavia')),
];
