// Load balancers as Octavia has them after it was asked.
import type { Exposure } from '#model/resources.ts';
import type { FoundListener } from './balancer-requests.ts';
import type { FoundBalancer } from './balancer-steps.ts';
import type { ListenerRequest, LoadBalancerRequest } from './octavia.ts';
import type { Listener } from './octavia-schemas.ts';
import { plainExposure } from './plan.fixture.ts';

/** By an internal load balancer, for everybody. */
export const exposureOf = (changes: Partial<Exposure> = {}): Exposure =>
  plainExposure('a', { name: 'web', endpoint: 'front', loadBalancer: 'internal', ...changes });

/** Octavia's own where nobody says it. */
const usual = {
  connection_limit: -1,
  timeout_client_data: 50_000,
  timeout_member_connect: 5_000,
  timeout_member_data: 50_000,
  timeout_tcp_inspect: 0,
};

export const bareListener = (changes: Partial<Listener> = {}): Listener => ({
  id: 'listener',
  name: '',
  description: '',
  protocol: 'TCP',
  port: 80,
  allowedCidrs: [],
  settings: usual,
  headers: [],
  pool: 'pool',
  loadBalancers: [],
  provisioning: 'ACTIVE',
  tags: [],
  ...changes,
});

const settingsOf = (request: ListenerRequest): Listener['settings'] => ({
  connection_limit: request.connection_limit ?? usual.connection_limit,
  timeout_client_data: request.timeout_client_data ?? usual.timeout_client_data,
  timeout_member_connect: request.timeout_member_connect ?? usual.timeout_member_connect,
  timeout_member_data: request.timeout_member_data ?? usual.timeout_member_data,
  timeout_tcp_inspect: request.timeout_tcp_inspect ?? usual.timeout_tcp_inspect,
});

export function listenerOf(request: ListenerRequest, index = 0): FoundListener {
  const {
    protocol,
    protocol_port: port,
    default_pool: pool,
    allowed_cidrs: clients = [],
    description = '',
    insert_headers: headers = {},
    tags = [],
    default_tls_container_ref: certificate,
  } = request;
  const settings = settingsOf(request);
  const listener = bareListener({
    id: `listener${index}`,
    protocol,
    port,
    allowedCidrs: clients,
    description,
    certificate,
    settings,
    pool: `pool${index}`,
    tags,
  });
  const probe = pool.healthmonitor;
  const timed = probe && {
    delay: probe.delay,
    timeout: probe.timeout,
    retries: probe.max_retries,
    retriesDown: probe.max_retries_down ?? 3,
    provisioning: 'ACTIVE',
  };
  return {
    listener: { ...listener, headers: Object.keys(headers) },
    pool: {
      id: `pool${index}`,
      name: '',
      protocol: pool.protocol,
      algorithm: pool.lb_algorithm,
      persistence: pool.session_persistence?.type,
      monitor: probe === undefined ? undefined : `monitor${index}`,
      provisioning: 'ACTIVE',
    },
    members: pool.members.map(({ address, protocol_port: memberPort, monitor_port: monitorPort }) => ({
      id: address,
      name: '',
      address,
      port: memberPort,
      monitorPort,
      provisioning: 'ACTIVE',
      operating: 'ONLINE',
    })),
    ...(probe === undefined || timed === undefined ? {} : { monitor: { id: `monitor${index}`, type: probe.type, ...timed } }),
  };
}

/** As Octavia makes it. */
export const made = (
  { name, tags = [], listeners, provider = 'ovn' }: LoadBalancerRequest,
  changes: Partial<FoundBalancer['balancer']> = {},
): FoundBalancer => ({
  balancer: {
    id: `id of ${name}`,
    name,
    description: '',
    projectId: 'project',
    provider,
    address: '10.213.0.99',
    portId: 'vip',
    subnetId: 'subnet',
    provisioning: 'ACTIVE',
    operating: 'ONLINE',
    tags,
    listeners: ['listener'],
    pools: ['pool'],
    ...changes,
  },
  listeners: listeners.map(listenerOf),
});
