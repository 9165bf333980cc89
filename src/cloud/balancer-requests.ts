// What is asked of Octavia for a load balancer, and how to see that one is as asked. What OVN's provider cannot do (allowed CIDRs of a
// listener, HTTP, members of another family than the address: those it takes without a word in a load balancer that is made whole, and
// never uses) is not asked of it (ovn-octavia-provider, driver.py). Pure.
import type { MonitorWish, ProxyWish } from '#model/cloud-services.ts';
import { familyOf } from '#model/ip.ts';
import { exposureTag } from './floating.ts';
import type { ListenerFields, ListenerRequest, LoadBalancerRequest, MemberRequest, MonitorRequest, PoolFields } from './octavia.ts';
import type { HealthMonitor, Listener, LoadBalancerPool, Member } from './octavia-schemas.ts';
import { isPassing } from './providers.ts';
import type { WishedBalancer, WishedListener } from './wish.ts';

export type Members = readonly Omit<MemberRequest, 'protocol_port' | 'monitor_port'>[];

export interface Asking {
  /** Of the installation. */
  readonly name: string;
  /** What every tag of the installation begins with. */
  readonly tag: string;
  readonly provider: string | undefined;
  /** Where its own address is unless it is said. */
  readonly subnet: string;
  readonly members: Members;
}

const protocols = { tcp: 'TCP', udp: 'UDP', sctp: 'SCTP' } as const;

export function requestOf(one: WishedBalancer, { name: installation, tag, provider, subnet, members }: Asking): LoadBalancerRequest {
  const { id, kind, name, place = {}, listeners, proxy = {} } = one;
  const vip =
    place.port !== undefined
      ? { vip_port_id: place.port }
      : place.network !== undefined
        ? { vip_network_id: place.network, ...(place.subnet === undefined ? {} : { vip_subnet_id: place.subnet }) }
        : { vip_subnet_id: place.subnet ?? subnet };
  const isProxy = !isPassing(provider);
  const requests = listeners.map((listener) => listenerRequest(one, listener, { provider, members }));
  return {
    name: `${installation}-${nameOf(name)}`,
    description: `${kind} ${name} of ${installation}`,
    ...vip,
    ...(place.address === undefined ? {} : { vip_address: place.address }),
    ...(provider === undefined ? {} : { provider }),
    ...(isProxy && proxy.flavor !== undefined ? { flavor_id: proxy.flavor } : {}),
    ...(isProxy && proxy.zone !== undefined ? { availability_zone: proxy.zone } : {}),
    tags: [tag, exposureTag(tag, id)],
    // Of one that Octavia refuses for a certificate the port that it is to have at Neutron stays, each time (octavia/api/v2/controllers/
    // load_balancer.py, post): its listeners come when it is there.
    listeners: requests.some(endsTls) ? [] : requests,
  };
}

export const endsTls = (request: ListenerRequest): boolean => request.default_tls_container_ref !== undefined;

const nameOf = (name: string): string => name.replace('/', '-');

/** Of its own family; Octavia takes no others. */
export const clientsOf = ({ sources, family }: WishedBalancer): string[] => sources.filter((source) => familyOf(source) === family);

export function listenerRequest(
  one: WishedBalancer,
  listener: WishedListener,
  { provider, members, tags }: Pick<Asking, 'provider' | 'members'> & { readonly tags?: readonly string[] },
): ListenerRequest {
  const { name, listeners, proxy = {} } = one;
  const { protocol, port } = listener;
  const monitor = monitorOf(one, listener, provider);
  const called = listeners.length === 1 ? nameOf(name) : `${nameOf(name)}-${protocol}-${port}`;
  const isProxy = !isPassing(provider) && protocol === 'tcp';
  const listens = isProxy ? listensBy(proxy) : protocols[protocol];
  return {
    name: called,
    protocol: listens,
    protocol_port: port,
    ...(isProxy && proxy.isForwardedFor === true ? { insert_headers: { 'X-Forwarded-For': 'true' } } : {}),
    ...(tags === undefined ? {} : { tags }),
    ...(listens === 'TERMINATED_HTTPS' && proxy.certificate !== undefined ? { default_tls_container_ref: proxy.certificate } : {}),
    ...asked(fieldsOf(one, provider)),
    default_pool: {
      name: called,
      protocol: (isProxy ? proxy.header : undefined) ?? (listens === 'TERMINATED_HTTPS' ? 'HTTP' : listens),
      ...poolFields(one, provider),
      members: ledTo(one, listener, { provider, members }),
      ...(monitor === undefined ? {} : { healthmonitor: monitor }),
    },
  };
}

/** Of ports of TCP. */
function listensBy({ certificate, isForwardedFor }: ProxyWish): ListenerRequest['protocol'] {
  if (certificate !== undefined) return 'TERMINATED_HTTPS';
  return isForwardedFor === true ? 'HTTP' : 'TCP';
}

const ledTo = (
  { proxy }: WishedBalancer,
  { hostPort }: WishedListener,
  { provider, members }: Pick<Asking, 'provider' | 'members'>,
): MemberRequest[] =>
  members.map((member) => ({
    ...member,
    protocol_port: hostPort,
    ...(proxy?.healthPort === undefined || isPassing(provider) ? {} : { monitor_port: proxy.healthPort }),
  }));

/** OVN has one algorithm, and says who may come by hosts' security groups. */
export function poolFields({ proxy = {} }: WishedBalancer, provider: string | undefined): PoolFields {
  if (isPassing(provider)) return { lb_algorithm: 'SOURCE_IP_PORT' };
  const { algorithm = 'ROUND_ROBIN', isSticky } = proxy;
  return { lb_algorithm: algorithm, ...(isSticky === true ? { session_persistence: { type: 'SOURCE_IP' } } : {}) };
}

/** What may be changed in place; empty where nothing of it is for Causeway to say. Null is what is not asked for. */
export function fieldsOf(one: WishedBalancer, provider: string | undefined): ListenerFields {
  if (isPassing(provider)) return {};
  const { connectionLimit = null, timeouts = {} } = one.proxy ?? {};
  const { clientData = null, memberConnect = null, memberData = null, tcpInspect = null } = timeouts;
  const settings = {
    connection_limit: connectionLimit,
    timeout_client_data: clientData,
    timeout_member_connect: memberConnect,
    timeout_member_data: memberData,
    timeout_tcp_inspect: tcpInspect,
  };
  const said = Object.entries(settings).flatMap(([name, value]) => (value === null ? [] : [`${name}=${value}`]));
  return { description: said.join(' '), allowed_cidrs: clientsOf(one), ...settings };
}

/** When it is made there is nothing to take back. */
const asked = (fields: ListenerFields): ListenerFields =>
  Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== null && value !== '' && !(Array.isArray(value) && value.length === 0)),
  );

/** A host that has died is left out after this: two tries that fail. */
const usual: Required<MonitorWish> = { delay: 2, timeout: 1, retries: 1, retriesDown: 2 };
/** Octavia's own limit (udp_connect_min_interval_health_monitor). */
const usualUdpDelay = 3;

/**
 * Hosts with sources of their own drop OVN's probes like anybody else's packets. Of HTTP only where hosts tell by it whether they have a pod.
 */
function monitorOf(
  { sources, proxy = {} }: WishedBalancer,
  { protocol, monitor }: WishedListener,
  provider: string | undefined,
): MonitorRequest | undefined {
  if (monitor === undefined || (isPassing(provider) && (sources.length > 0 || protocol === 'sctp'))) return undefined;
  const { delay, timeout, retries, retriesDown } = { ...usual, ...(protocol === 'udp' ? { delay: usualUdpDelay } : {}), ...monitor };
  const times = { delay, timeout, max_retries: retries, max_retries_down: retriesDown };
  if (!isPassing(provider) && proxy.healthPort !== undefined)
    return { type: 'HTTP', url_path: '/healthz', expected_codes: '200', ...times };
  return { type: protocol === 'tcp' ? 'TCP' : protocol === 'udp' ? 'UDP-CONNECT' : 'SCTP', ...times };
}

export interface FoundListener {
  readonly listener: Listener;
  readonly pool?: LoadBalancerPool | undefined;
  readonly members: readonly Member[];
  readonly monitor?: HealthMonitor | undefined;
}

/** What cannot be changed about one is the same, and it works. */
export function isSame({ listener, pool }: FoundListener, request: ListenerRequest): boolean {
  if (pool === undefined || listener.provisioning === 'ERROR' || pool.provisioning === 'ERROR') return false;
  return (
    listener.protocol === request.protocol &&
    listener.port === request.protocol_port &&
    listener.headers.join() === Object.keys(request.insert_headers ?? {}).join() &&
    pool.protocol === request.default_pool.protocol
  );
}

const isAs = (wanted: readonly string[], found: readonly string[]): boolean =>
  new Set(wanted).symmetricDifference(new Set(found)).size === 0;

/** What was set and is not asked for any more, the listener's description tells. */
export function isSet({ allowedCidrs, description, settings }: Listener, fields: ListenerFields): boolean {
  const { allowed_cidrs: clients, description: said = description, ...numbers } = fields;
  return (
    said === description &&
    (clients === undefined || isAs(clients, allowedCidrs)) &&
    Object.entries(numbers).every(([name, value]) => value === null || value === settings[name])
  );
}

export const isBalancing = ({ algorithm, persistence }: LoadBalancerPool, wanted: PoolFields): boolean =>
  algorithm === wanted.lb_algorithm && persistence === wanted.session_persistence?.type;

export const isLedTo = (found: readonly Member[], wanted: readonly MemberRequest[]): boolean =>
  isAs(
    wanted.map(({ address, protocol_port: port, monitor_port: probed }) => `${address} ${port} ${probed ?? ''}`),
    found.map(({ address, port, monitorPort }) => `${address} ${port} ${monitorPort ?? ''}`),
  );

/** Members or probes that came to nothing: the provider works on them again when they are asked for once more. */
export const isLost = ({ provisioning }: Pick<Member, 'provisioning'>): boolean => provisioning === 'ERROR';
