// Glance in a lab's cloud, for services that make machines: Magnum's clusters and Nova's servers name an image.
import { mkdirSync } from 'node:fs';
import { accountSection, apiPorts, databaseUrl, folder, type FurtherService, quiet, serve, write } from './openstack-services.ts';
import { makeTables } from './openstack-tables.ts';
import type { Need } from './packages.ts';

export const glanceNeed: Need = {
  program: '/usr/lib/python3/dist-packages/glance/api/versions.py',
  package: 'python3-glance',
  why: 'the cloud’s images',
};

export const glance: FurtherService = {
  name: 'glance',
  type: 'image',
  path: '',
  start: async (host) => {
    const data = '/var/lib/causeway-glance';
    for (const one of ['images', 'staging', 'tasks', 'cache']) mkdirSync(host.file(`${data}/${one}`), { recursive: true });
    const paste = write(host, 'glance-paste.ini', glancePaste);
    const config = write(host, 'glance/glance-api.conf', [
      '[DEFAULT]',
      'enabled_backends = fs:file',
      'enabled_import_methods = []',
      `worker_self_reference_url = http://${host.address}:${apiPorts.glance}`,
      `image_cache_dir = ${data}/cache`,
      'transport_url = fake://',
      '[glance_store]',
      'default_backend = fs',
      '[fs]',
      `filesystem_store_datadir = ${data}/images`,
      '[os_glance_staging_store]',
      `filesystem_store_datadir = ${data}/staging`,
      '[os_glance_tasks_store]',
      `filesystem_store_datadir = ${data}/tasks`,
      '[paste_deploy]',
      'flavor = keystone',
      `config_file = ${paste}`,
      ...quiet('glance'),
      `connection = ${databaseUrl('glance')}`,
      ...accountSection(host, 'keystone_authtoken', 'glance'),
    ]);
    const main = 'import sys; from glance.cmd.manage import main; sys.exit(main())';
    await makeTables(host, { name: 'glance' }, () => host.exec(['/usr/bin/python3', '-c', main, '--config-file', config, 'db_sync']));
    const module = 'from glance.common import wsgi_app; application = wsgi_app.init_app()';
    const env = { OS_GLANCE_CONFIG_DIR: `${folder}/glance` };
    await serve(host, { name: 'glance', module, env, threads: 2, processes: 1, path: '/healthcheck' });
  },
};

const glancePaste: readonly string[] = [
  '[composite:glance-api-keystone]',
  'paste.composite_factory = glance.api:root_app_factory',
  '/: api',
  '/healthcheck: healthcheck',
  '[composite:api]',
  'paste.composite_factory = glance.api:pipeline_factory',
  'keystone = versionnegotiation authtoken context rootapp',
  '[composite:rootapp]',
  'paste.composite_factory = glance.api:root_app_factory',
  '/: versions',
  '/v2: v2',
  '[app:healthcheck]',
  'paste.app_factory = oslo_middleware:Healthcheck.app_factory',
  '[app:versions]',
  'paste.app_factory = glance.api.versions:create_resource',
  '[app:v2]',
  'paste.app_factory = glance.api.v2.router:API.factory',
  '[filter:versionnegotiation]',
  'paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory',
  '[filter:context]',
  'paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory',
  '[filter:authtoken]',
  'paste.filter_factory = keystonemiddleware.auth_token:filter_factory',
  'delay_auth_decision = true',
];
