// Magnum in a lab's cloud, and what it asks for: Glance, whose images say by `os_distro` which driver makes a cluster's machines
// (docs.openstack.org/magnum/latest/admin), and a domain of its own in Keystone for the users that clusters act as.
import type { Host } from './host.ts';
import { brokerNeed, brokerUrl, driverEnvironment, installDriver, startBroker, startConductor } from './openstack-conductor.ts';
import { glanceNeed } from './openstack-glance.ts';
import type { Operator } from './openstack-operator.ts';
import { accountSection, databaseUrl, type FurtherService, password, quiet, serve, write } from './openstack-services.ts';
import { makeTables } from './openstack-tables.ts';
import type { Need } from './packages.ts';

export const magnumNeeds: readonly Need[] = [
  glanceNeed,
  { program: '/usr/lib/python3/dist-packages/magnum/api/app.py', package: 'python3-magnum', why: 'the cloud’s clusters' },
  brokerNeed,
];

/** By these Magnum finds the driver of the lab's machines. */
const machineImage = 'machines';
const machineDistribution = 'debian';

export const magnum: FurtherService = {
  name: 'magnum',
  type: 'container-infra',
  path: '/v1',
  start: async (host, operator) => {
    const config = write(host, 'magnum.conf', magnumConfig(host));
    installDriver(host);
    const migrate = () => host.exec(['magnum-db-manage', '--config-file', config, 'upgrade']);
    await Promise.all([seedTrustDomain(operator), makeTables(host, { name: 'magnum' }, migrate), startBroker(host)]);
    const module = [
      `import sys; sys.argv = ['magnum-api', '--config-file', '${config}']`,
      ...oneDomain,
      'from magnum.api import app',
      'application = app.build_wsgi_app()',
    ].join('\n');
    await serve(host, { name: 'magnum', module, env: driverEnvironment, threads: 1, processes: 1, path: '/' });
    await startConductor(host, operator, config);
  },
};

/** Whether somebody is of the domain of clusters' users is asked several times a request, each with a login for the domain's id. */
const oneDomain: readonly string[] = [
  'from magnum.common.keystone import KeystoneClientV3',
  'ask = KeystoneClientV3.trustee_domain_id.fget',
  'known = []',
  'KeystoneClientV3.trustee_domain_id = property(lambda client: known[0] if known else known.append(ask(client)) or known[0])',
];

const domain = 'magnum';
const domainAdmin = 'magnum_domain_admin';

/** Without them Magnum answers 403 to everybody. */
async function seedTrustDomain(operator: Operator): Promise<void> {
  const post = <T>(path: string, body: object): Promise<T> => operator.send<T>('keystone', 'POST', path, body);
  const { id } = await post<{ id: string }>('/v3/domains', { domain: { name: domain } });
  const user = await post<{ id: string }>('/v3/users', { user: { name: domainAdmin, password, domain_id: id } });
  const [role] = await operator.get<{ id: string }[]>('keystone', '/v3/roles?name=admin', 'roles');
  await operator.send('keystone', 'PUT', `/v3/domains/${id}/users/${user.id}/roles/${role?.id}`);
}

const magnumPaste: readonly string[] = [
  '[pipeline:main]',
  'pipeline = request_id authtoken v1',
  '[app:v1]',
  'paste.app_factory = magnum.api.app:app_factory',
  '[filter:authtoken]',
  'acl_public_routes = /, /v1',
  'paste.filter_factory = magnum.api.middleware.auth_token:AuthTokenMiddleware.factory',
  '[filter:request_id]',
  'paste.filter_factory = oslo_middleware:RequestId.factory',
];

const magnumConfig = (host: Host): string[] => [
  '[DEFAULT]',
  'state_path = /var/lib/causeway-magnum',
  `transport_url = ${brokerUrl}`,
  '[api]',
  `api_paste_config = ${write(host, 'magnum-paste.ini', magnumPaste)}`,
  // Short pages, so that whoever lists things meets several.
  'max_limit = 3',
  '[conductor]',
  'workers = 1',
  '[certificates]',
  'cert_manager_type = x509keypair',
  '[trust]',
  `trustee_domain_name = ${domain}`,
  `trustee_domain_admin_name = ${domainAdmin}`,
  `trustee_domain_admin_password = ${password}`,
  'trustee_keystone_interface = public',
  ...quiet('magnum'),
  `connection = ${databaseUrl('magnum')}`,
  ...accountSection(host, 'keystone_authtoken', 'magnum'),
  ...accountSection(host, 'keystone_auth', 'magnum'),
];

/** An image whose distribution is our own driver's. Nothing is ever started from it. */
export async function makeImage(operator: Operator): Promise<void> {
  const image = { name: machineImage, disk_format: 'raw', container_format: 'bare', visibility: 'public', os_distro: machineDistribution };
  await operator.send('glance', 'POST', '/v2/images', image);
}
