// What of Octavia's resources Causeway reads (docs.openstack.org/api-ref/load-balancer/v2). Every release answers with further fields.
import * as v from 'valibot';
import type { Schema } from '#api/parse.ts';

export interface Provider {
  /** `amphora`, `ovn` and so on. */
  readonly name: string;
  readonly description: string;
}
/** Of anything of a load balancer: `ACTIVE`, `PENDING_CREATE`, `PENDING_UPDATE`, `PENDING_DELETE`, `ERROR`, `DELETED`. */
type Provisioning = string;
/** What is measured: `ONLINE`, `OFFLINE`, `DEGRADED`, `ERROR`, `NO_MONITOR`. */
type Operating = string;

export interface LoadBalancer {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly projectId: string;
  readonly provider: string;
  /** Where clients send to, within the cloud. */
  readonly address: string;
  /** Neutron's, of that address. */
  readonly portId: string;
  readonly subnetId: string;
  readonly provisioning: Provisioning;
  readonly operating: Operating;
  readonly tags: readonly string[];
  readonly listeners: readonly string[];
  readonly pools: readonly string[];
}
export interface Listener {
  readonly id: string;
  readonly name: string;
  readonly protocol: string;
  readonly port: number;
  /** Empty: everybody. */
  readonly allowedCidrs: readonly string[];
  readonly description: string;
  /** Where the certificate is by which it ends TLS. */
  readonly certificate?: string | undefined;
  /** As Octavia calls them; of those that are numbers. */
  readonly settings: Readonly<Record<string, number>>;
  /** Names of headers that it adds. */
  readonly headers: readonly string[];
  readonly pool: string | undefined;
  readonly loadBalancers: readonly string[];
  readonly provisioning: Provisioning;
  readonly tags: readonly string[];
}
export interface LoadBalancerPool {
  readonly id: string;
  readonly name: string;
  readonly protocol: string;
  readonly algorithm: string;
  /** `SOURCE_IP` and so on; undefined: clients do not stay with a member. */
  readonly persistence: string | undefined;
  readonly monitor: string | undefined;
  readonly provisioning: Provisioning;
}
export interface Member {
  readonly id: string;
  readonly name: string;
  readonly address: string;
  readonly port: number;
  /** Where probes go, where that is another one. */
  readonly monitorPort: number | undefined;
  readonly provisioning: Provisioning;
  readonly operating: Operating;
}
export interface HealthMonitor {
  readonly id: string;
  readonly type: string;
  readonly delay: number;
  readonly timeout: number;
  readonly retries: number;
  readonly retriesDown: number;
  readonly provisioning: Provisioning;
}

const text = v.nullish(v.string(), '');
const absent = v.pipe(
  v.nullish(v.string()),
  v.transform((value) => value ?? undefined),
);
const ids = v.pipe(
  v.nullish(v.array(v.object({ id: v.string() })), []),
  v.transform((all) => all.map(({ id }) => id)),
);
const state = { provisioning_status: text, operating_status: text };
const tags = v.nullish(v.array(v.string()), []);

export const provider: Schema<Provider> = v.object({ name: v.string(), description: text });

export const loadBalancer: Schema<LoadBalancer> = v.pipe(
  v.object({
    id: v.string(),
    name: text,
    description: text,
    project_id: text,
    provider: text,
    vip_address: text,
    vip_port_id: text,
    vip_subnet_id: text,
    ...state,
    tags,
    listeners: ids,
    pools: ids,
  }),
  v.transform((found) => ({
    id: found.id,
    name: found.name,
    description: found.description,
    projectId: found.project_id,
    provider: found.provider,
    address: found.vip_address,
    portId: found.vip_port_id,
    subnetId: found.vip_subnet_id,
    provisioning: found.provisioning_status,
    operating: found.operating_status,
    tags: found.tags,
    listeners: found.listeners,
    pools: found.pools,
  })),
);

const part = v.object({ provisioning_status: text });

/** States of all that belongs to a load balancer, from its status tree. */
export const partStates: Schema<readonly string[]> = v.pipe(
  v.object({
    loadbalancer: v.object({
      listeners: v.nullish(
        v.array(
          v.object({
            ...part.entries,
            pools: v.nullish(
              v.array(v.object({ ...part.entries, members: v.nullish(v.array(part), []), health_monitor: v.nullish(part, {}) })),
              [],
            ),
          }),
        ),
        [],
      ),
    }),
  }),
  v.transform(({ loadbalancer: { listeners } }) => {
    const pools = listeners.flatMap((one) => one.pools);
    const parts = [...listeners, ...pools, ...pools.flatMap(({ members, health_monitor: monitor }) => [...members, monitor])];
    return parts.map((one) => one.provisioning_status);
  }),
);

const number = v.nullish(v.number());
/** Of a listener. */
const settingNames = [
  'connection_limit',
  'timeout_client_data',
  'timeout_member_connect',
  'timeout_member_data',
  'timeout_tcp_inspect',
] as const;

export const listener: Schema<Listener> = v.pipe(
  v.object({
    id: v.string(),
    name: text,
    description: text,
    connection_limit: number,
    timeout_client_data: number,
    timeout_member_connect: number,
    timeout_member_data: number,
    timeout_tcp_inspect: number,
    insert_headers: v.nullish(v.record(v.string(), v.unknown()), {}),
    protocol: v.string(),
    protocol_port: v.number(),
    allowed_cidrs: v.nullish(v.array(v.string()), []),
    default_pool_id: absent,
    default_tls_container_ref: absent,
    loadbalancers: ids,
    ...state,
    tags,
  }),
  v.transform((found) => ({
    id: found.id,
    name: found.name,
    protocol: found.protocol,
    port: found.protocol_port,
    allowedCidrs: found.allowed_cidrs,
    description: found.description,
    certificate: found.default_tls_container_ref,
    settings: Object.fromEntries(settingNames.flatMap((name) => (typeof found[name] === 'number' ? [[name, found[name]]] : []))),
    headers: Object.entries(found.insert_headers)
      .filter(([, value]) => value === true || value === 'true')
      .map(([name]) => name),
    pool: found.default_pool_id,
    loadBalancers: found.loadbalancers,
    provisioning: found.provisioning_status,
    tags: found.tags,
  })),
);

export const pool: Schema<LoadBalancerPool> = v.pipe(
  v.object({
    id: v.string(),
    name: text,
    protocol: v.string(),
    lb_algorithm: v.string(),
    session_persistence: v.nullish(v.object({ type: v.string() })),
    healthmonitor_id: absent,
    ...state,
  }),
  v.transform((found) => ({
    id: found.id,
    name: found.name,
    protocol: found.protocol,
    algorithm: found.lb_algorithm,
    persistence: found.session_persistence?.type,
    monitor: found.healthmonitor_id,
    provisioning: found.provisioning_status,
  })),
);

export const member: Schema<Member> = v.pipe(
  v.object({ id: v.string(), name: text, address: v.string(), protocol_port: v.number(), monitor_port: v.nullish(v.number()), ...state }),
  v.transform((found) => ({
    id: found.id,
    name: found.name,
    address: found.address,
    port: found.protocol_port,
    monitorPort: found.monitor_port ?? undefined,
    provisioning: found.provisioning_status,
    operating: found.operating_status,
  })),
);

export const healthMonitor: Schema<HealthMonitor> = v.pipe(
  v.object({
    id: v.string(),
    type: v.string(),
    delay: v.number(),
    timeout: v.number(),
    max_retries: v.number(),
    // Octavia's own where nobody says it.
    max_retries_down: v.nullish(v.number(), 3),
    ...state,
  }),
  v.transform((found) => ({
    id: found.id,
    type: found.type,
    delay: found.delay,
    timeout: found.timeout,
    retries: found.max_retries,
    retriesDown: found.max_retries_down,
    provisioning: found.provisioning_status,
  })),
);
