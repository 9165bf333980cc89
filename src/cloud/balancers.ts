// Load balancers of exposures and of a cluster's services: one each, made whole by one call, whose members follow the containers by
// one call for all of them, and whose ports come and go while its address stays.
// OVN's provider only: it passes packets on with the client's address, so hosts' security groups know whom to let in, and no machine
// is needed; what it cannot do (allowed CIDRs of a listener, HTTP, members of another family than the address: those it takes without a
// word in a load balancer that is made whole, and never uses) is not asked of it (ovn-octavia-provider, driver.py). Pure.
import type { MonitorWish } from '#model/cloud-services.ts';
import { exposureTag } from './floating.ts';
import { subnetOf } from './named.ts';
import type { NeutronPort } from './neutron-schemas.ts';
import type { ListenerRequest, LoadBalancerRequest, MemberRequest, MonitorRequest } from './octavia.ts';
import type { HealthMonitor, Listener, LoadBalancer, Member } from './octavia-schemas.ts';
import type { WishedBalancer, WishedFloatingIp, WishedListener } from './wish.ts';

export interface FoundListener {
  readonly listener: Listener;
  readonly members: readonly Member[];
  readonly monitor?: HealthMonitor | undefined;
}

/** A load balancer of ours with what belongs to it. */
export interface FoundBalancer {
  readonly balancer: LoadBalancer;
  readonly listeners: readonly FoundListener[];
}

export type BalancerStep =
  /** `id`: of what is exposed. */
  | { readonly type: 'make-balancer'; readonly id: string; readonly request: LoadBalancerRequest }
  | { readonly type: 'add-listener'; readonly id: string; readonly balancer: LoadBalancer; readonly request: ListenerRequest }
  | { readonly type: 'remove-listener'; readonly balancer: LoadBalancer; readonly listener: Listener }
  | {
      readonly type: 'set-members';
      readonly balancer: LoadBalancer;
      /** Id. */
      readonly pool: string;
      readonly members: readonly MemberRequest[];
    }
  | { readonly type: 'set-monitor'; readonly balancer: LoadBalancer; readonly monitor: HealthMonitor; readonly request: MonitorRequest }
  | { readonly type: 'remove-balancer'; readonly balancer: LoadBalancer };

const types: ReadonlySet<string> = new Set<BalancerStep['type']>([
  'make-balancer',
  'add-listener',
  'remove-listener',
  'set-members',
  'set-monitor',
  'remove-balancer',
]);
export const isBalancerStep = (step: { readonly type: string }): step is BalancerStep => types.has(step.type);

export interface Balancing {
  /** Of the installation. */
  readonly name: string;
  /** What every tag of the installation begins with. */
  readonly tag: string;
  /** A host's port, or why there is none. */
  readonly portOf: (host: string) => NeutronPort | string;
  /** Of Octavia; undefined: the cloud has none. */
  readonly providers: readonly string[] | undefined;
  /** Ids of subnets that routers are on. */
  readonly routed: ReadonlySet<string>;
}

/** What is in the way of something that is exposed. */
export interface Trouble {
  /** Of the exposed. */
  readonly id: string;
  readonly text: string;
}

export interface BalancerPlan {
  /** To be taken first, as they close something. */
  readonly removals: readonly BalancerStep[];
  readonly changes: readonly BalancerStep[];
  /** Of those that are there. */
  readonly floating: readonly WishedFloatingIp[];
  /** By what stands in their place among the hosts of `floating`: ids of Neutron's ports. */
  readonly ports: ReadonlyMap<string, string>;
  /** Those that are there, by what they expose. */
  readonly found: ReadonlyMap<string, LoadBalancer>;
  readonly problems: readonly Trouble[];
}

export const provider = 'ovn';
const protocols = { tcp: 'TCP', udp: 'UDP', sctp: 'SCTP' } as const;

export function balancerPlan(wished: readonly WishedBalancer[], all: readonly FoundBalancer[], balancing: Balancing): BalancerPlan {
  const { tag, providers } = balancing;
  const ours = all.filter(({ balancer }) => balancer.tags.includes(tag));
  const isServed = providers?.includes(provider) === true;
  const changes: BalancerStep[] = [];
  const floating: WishedFloatingIp[] = [];
  const ports = new Map<string, string>();
  const found = new Map<string, LoadBalancer>();
  const problems: Trouble[] = [];
  const kept = new Set<FoundBalancer>();
  for (const one of wished) {
    const { id, kind, name } = one;
    const { members, subnet, trouble } = membersOf(one, balancing);
    const there = ours.find(({ balancer }) => balancer.tags.includes(exposureTag(tag, id)) && balancer.provisioning !== 'ERROR');
    const lacking = (why: string): void => void problems.push({ id, text: `${kind} ${name} has no load balancer: ${why}` });
    if (!isServed) {
      const has =
        providers === undefined ? 'the cloud has no Octavia' : `Octavia has no provider ${provider}, only ${providers.join(', ')}`;
      lacking(has);
    } else if (there === undefined) {
      if (one.refused !== undefined) lacking(one.refused);
      else if (subnet === undefined) lacking(trouble ?? 'nothing is known of its hosts');
      else changes.push({ type: 'make-balancer', id, request: requestOf(one, { balancing, subnet, members }) });
    } else {
      kept.add(there);
      found.set(id, there.balancer);
      for (const text of [trouble, one.refused]) if (text !== undefined) problems.push({ id, text: `${kind} ${name}: ${text}` });
      if (one.refused === undefined) changes.push(...changesOf(there, one, members));
      const host = `load balancer ${there.balancer.name}`;
      ports.set(host, there.balancer.portId);
      if (one.floating !== undefined)
        floating.push({ ...one.floating, id, kind, name, hosts: [{ host, address: there.balancer.address }] });
    }
  }
  const removals = ours.filter((one) => !kept.has(one)).map(({ balancer }): BalancerStep => ({ type: 'remove-balancer', balancer }));
  return { removals, changes, floating, ports, found, problems };
}

interface Members {
  readonly members: readonly Omit<MemberRequest, 'protocol_port'>[];
  /** Where the load balancer's own address is; undefined when nothing is known of any host. */
  readonly subnet: string | undefined;
  readonly trouble: string | undefined;
}

function membersOf(one: WishedBalancer, { portOf, routed }: Balancing): Members {
  const { kind, hosts, without = [] } = one;
  const members: Members['members'][number][] = [];
  const nowhere = kind === 'Service' ? 'no node has a pod of it' : 'its container is on no host';
  const lacking = `${without.join(', ')} cannot be led to for want of an address of its family: give the port one, and the interface the same`;
  let trouble = without.length > 0 ? lacking : hosts.length === 0 ? nowhere : undefined;
  for (const { host, address } of hosts) {
    const port = portOf(host);
    const subnet = typeof port === 'string' ? undefined : subnetOf(port, address);
    if (typeof port === 'string') trouble = port;
    else if (subnet !== undefined) members.push({ name: host, address, subnet_id: subnet });
  }
  const subnet = members[0]?.subnet_id;
  return { members, subnet, trouble: trouble ?? unanswered(one, subnet, routed) };
}

/** By IPv6 OVN has routers answer for the address of a load balancer; seen with ML2/OVN of 2025.1. */
function unanswered({ hosts, place }: WishedBalancer, ofHosts: string | undefined, routed: ReadonlySet<string>): string | undefined {
  const isSaid = place?.port !== undefined || (place?.network !== undefined && place.subnet === undefined);
  const subnet = place?.subnet ?? ofHosts;
  if (isSaid || subnet === undefined || routed.has(subnet) || hosts[0]?.address.includes(':') !== true) return undefined;
  return `no router that this login sees is on its subnet ${subnet}, and without one nobody answers for its address`;
}

function requestOf(
  one: WishedBalancer,
  { balancing, subnet, members }: { readonly balancing: Balancing; readonly subnet: string; readonly members: Members['members'] },
): LoadBalancerRequest {
  const { id, kind, name, place = {}, listeners } = one;
  const vip =
    place.port !== undefined
      ? { vip_port_id: place.port }
      : place.network !== undefined
        ? { vip_network_id: place.network, ...(place.subnet === undefined ? {} : { vip_subnet_id: place.subnet }) }
        : { vip_subnet_id: place.subnet ?? subnet };
  return {
    name: `${balancing.name}-${nameOf(name)}`,
    description: `${kind} ${name} of ${balancing.name}`,
    ...vip,
    ...(place.address === undefined ? {} : { vip_address: place.address }),
    provider,
    tags: [balancing.tag, exposureTag(balancing.tag, id)],
    listeners: listeners.map((listener) => listenerRequest(one, listener, members)),
  };
}

const nameOf = (name: string): string => name.replace('/', '-');

function listenerRequest({ name, listeners }: WishedBalancer, listener: WishedListener, members: Members['members']): ListenerRequest {
  const { protocol, port, hostPort } = listener;
  const monitor = monitorOf(listener);
  const kind = protocols[protocol];
  const called = listeners.length === 1 ? nameOf(name) : `${nameOf(name)}-${protocol}-${port}`;
  return {
    name: called,
    protocol: kind,
    protocol_port: port,
    default_pool: {
      name: called,
      protocol: kind,
      lb_algorithm: 'SOURCE_IP_PORT',
      members: members.map((member) => ({ ...member, protocol_port: hostPort })),
      ...(monitor === undefined ? {} : { healthmonitor: monitor }),
    },
  };
}

/** A host that has died is left out after this: two tries that fail. */
const usual: Required<MonitorWish> = { delay: 2, timeout: 1, retries: 1, retriesDown: 2 };

function monitorOf({ protocol, monitor }: WishedListener): MonitorRequest | undefined {
  if (monitor === undefined || protocol === 'sctp') return undefined;
  const { delay, timeout, retries, retriesDown } = { ...usual, ...monitor };
  const type = protocol === 'tcp' ? 'TCP' : 'UDP-CONNECT';
  return { type, delay, timeout, max_retries: retries, max_retries_down: retriesDown };
}

/** Ports that go before those that come: the one may be the other with another protocol. */
function changesOf({ balancer, listeners: there }: FoundBalancer, one: WishedBalancer, members: Members['members']): BalancerStep[] {
  const stays = new Map(
    one.listeners.flatMap((listener) => {
      const found = there.find((candidate) => isSame(candidate, listener));
      return found === undefined ? [] : [[listener, found] as const];
    }),
  );
  const kept = new Set(stays.values());
  return [
    ...there.filter((found) => !kept.has(found)).map(({ listener }): BalancerStep => ({ type: 'remove-listener', balancer, listener })),
    ...one.listeners
      .filter((listener) => !stays.has(listener))
      .map((listener): BalancerStep => ({ type: 'add-listener', id: one.id, balancer, request: listenerRequest(one, listener, members) })),
    ...[...stays].flatMap(([listener, found]) => stepsFor(balancer, found, { listener, members })),
  ];
}

/** What cannot be changed about one is the same, and it works. */
function isSame({ listener: found, monitor }: FoundListener, listener: WishedListener): boolean {
  if (found.pool === undefined || found.provisioning === 'ERROR') return false;
  const isProbed = monitorOf(listener) !== undefined;
  return found.protocol === protocols[listener.protocol] && found.port === listener.port && (monitor !== undefined) === isProbed;
}

function stepsFor(
  balancer: LoadBalancer,
  { listener: { pool }, members: there, monitor }: FoundListener,
  { listener, members }: { readonly listener: WishedListener; readonly members: Members['members'] },
): BalancerStep[] {
  const wanted = new Set(members.map(({ address }) => `${address} ${listener.hostPort}`));
  const isThere = wanted.symmetricDifference(new Set(there.map(({ address, port }) => `${address} ${port}`))).size === 0;
  const request = monitorOf(listener);
  const led = members.map((member) => ({ ...member, protocol_port: listener.hostPort }));
  return [
    ...(pool === undefined || isThere ? [] : [{ type: 'set-members' as const, balancer, pool, members: led }]),
    ...(monitor === undefined || request === undefined || isTimed(monitor, request)
      ? []
      : [{ type: 'set-monitor' as const, balancer, monitor, request }]),
  ];
}

const isTimed = ({ delay, timeout, retries, retriesDown }: HealthMonitor, request: MonitorRequest): boolean =>
  delay === request.delay &&
  timeout === request.timeout &&
  retries === request.max_retries &&
  retriesDown === (request.max_retries_down ?? retriesDown);
