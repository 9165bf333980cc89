// Load balancers of exposures: one each, made whole by one call, whose members follow the containers by one call for all of them.
// OVN's provider only: it passes packets on with the client's address, so hosts' security groups know whom to let in, and no machine
// is needed; what it cannot do (allowed CIDRs of a listener, HTTP) is not asked of it (ovn-octavia-provider, driver.py). Pure.
import { exposureTag } from './floating.ts';
import type { NeutronPort } from './neutron-schemas.ts';
import type { LoadBalancerRequest, MemberRequest, MonitorRequest } from './octavia.ts';
import type { Listener, LoadBalancer, Member } from './octavia-schemas.ts';
import type { WishedBalancer, WishedFloatingIp } from './wish.ts';

/** A load balancer of ours with what belongs to it. */
export interface FoundBalancer {
  readonly balancer: LoadBalancer;
  readonly listener: Listener | undefined;
  readonly members: readonly Member[];
  readonly hasMonitor: boolean;
}

export type BalancerStep =
  | { readonly type: 'make-balancer'; readonly request: LoadBalancerRequest }
  | {
      readonly type: 'set-members';
      readonly balancer: LoadBalancer;
      /** Id. */
      readonly pool: string;
      readonly members: readonly MemberRequest[];
    }
  | { readonly type: 'remove-balancer'; readonly balancer: LoadBalancer };

export const isBalancerStep = (step: { readonly type: string }): step is BalancerStep =>
  step.type.endsWith('balancer') || step.type === 'set-members';

export interface Balancing {
  /** Of the installation. */
  readonly name: string;
  /** What every tag of the installation begins with. */
  readonly tag: string;
  /** A host's port, or why there is none. */
  readonly portOf: (host: string) => NeutronPort | string;
  /** Of Octavia; undefined: the cloud has none. */
  readonly providers: readonly string[] | undefined;
}

export interface BalancerPlan {
  /** To be taken first, as they close something. */
  readonly removals: readonly BalancerStep[];
  readonly changes: readonly BalancerStep[];
  /** Of those that are there. */
  readonly floating: readonly WishedFloatingIp[];
  /** By what stands in their place among the hosts of `floating`: ids of Neutron's ports. */
  readonly ports: ReadonlyMap<string, string>;
  readonly problems: readonly string[];
}

export const provider = 'ovn';
const protocols = { tcp: 'TCP', udp: 'UDP', sctp: 'SCTP' } as const;

export function balancerPlan(wished: readonly WishedBalancer[], all: readonly FoundBalancer[], balancing: Balancing): BalancerPlan {
  const { tag, providers } = balancing;
  const found = all.filter(({ balancer }) => balancer.tags.includes(tag));
  const isServed = providers?.includes(provider) === true;
  const changes: BalancerStep[] = [];
  const floating: WishedFloatingIp[] = [];
  const ports = new Map<string, string>();
  const problems: string[] = [];
  const kept = new Set<FoundBalancer>();
  for (const one of wished) {
    const { members, subnet, trouble } = membersOf(one, balancing);
    const there = found.find((candidate) => candidate.balancer.tags.includes(exposureTag(tag, one.id)) && isSame(candidate, one));
    if (!isServed) {
      const has =
        providers === undefined ? 'the cloud has no Octavia' : `Octavia has no provider ${provider}, only ${providers.join(', ')}`;
      problems.push(`Exposure ${one.name} has no load balancer: ${has}`);
    } else if (there === undefined) {
      if (subnet === undefined) problems.push(`Exposure ${one.name} has no load balancer: ${trouble}`);
      else changes.push({ type: 'make-balancer', request: requestOf(one, { balancing, subnet, members }) });
    } else {
      kept.add(there);
      if (trouble !== undefined) problems.push(`Exposure ${one.name}: ${trouble}`);
      changes.push(...memberSteps(there, members));
      const host = `load balancer ${there.balancer.name}`;
      ports.set(host, there.balancer.portId);
      if (one.floatingIp !== undefined) {
        floating.push({ id: one.id, name: one.name, wanted: one.floatingIp, hosts: [{ host, address: there.balancer.address }] });
      }
    }
  }
  const removals = found.filter((one) => !kept.has(one)).map(({ balancer }): BalancerStep => ({ type: 'remove-balancer', balancer }));
  return { removals, changes, floating, ports, problems };
}

/** What cannot be changed about one is the same, and it works. */
function isSame({ balancer, listener, hasMonitor }: FoundBalancer, { protocol, port, isProbed }: WishedBalancer): boolean {
  if (balancer.provisioning === 'ERROR' || listener?.pool === undefined) return false;
  return listener.protocol === protocols[protocol] && listener.port === port && hasMonitor === isProbed;
}

interface Members {
  readonly members: readonly MemberRequest[];
  /** Where the load balancer's own address is; undefined when nothing is known of any host. */
  readonly subnet: string | undefined;
  readonly trouble: string | undefined;
}

function membersOf({ hosts, hostPort }: WishedBalancer, { portOf }: Balancing): Members {
  const members: MemberRequest[] = [];
  let trouble = hosts.length === 0 ? 'its container is on no host' : undefined;
  for (const { host, address } of hosts) {
    const port = portOf(host);
    const subnet = typeof port === 'string' ? undefined : port.addresses.find(({ ip }) => ip === address)?.subnetId;
    if (typeof port === 'string') trouble = port;
    else if (subnet !== undefined) members.push({ name: host, address, protocol_port: hostPort, subnet_id: subnet });
  }
  return { members, subnet: members[0]?.subnet_id, trouble };
}

function requestOf(
  { id, name, protocol, port, isProbed }: WishedBalancer,
  { balancing, subnet, members }: { balancing: Balancing; subnet: string; members: readonly MemberRequest[] },
): LoadBalancerRequest {
  const kind = protocols[protocol];
  const monitor = isProbed ? monitors[protocol] : undefined;
  const pool = {
    name,
    protocol: kind,
    lb_algorithm: 'SOURCE_IP_PORT',
    members,
    ...(monitor === undefined ? {} : { healthmonitor: monitor }),
  };
  return {
    name: `${balancing.name}-${name}`,
    description: `Exposure ${name} of ${balancing.name}`,
    vip_subnet_id: subnet,
    provider,
    tags: [balancing.tag, exposureTag(balancing.tag, id)],
    listeners: [{ name, protocol: kind, protocol_port: port, default_pool: pool }],
  };
}

/** A host that has died is left out after this: two tries that fail. */
const timing = { delay: 2, timeout: 1, max_retries: 1, max_retries_down: 2 };
const monitors: Readonly<Record<WishedBalancer['protocol'], MonitorRequest | undefined>> = {
  tcp: { type: 'TCP', ...timing },
  udp: { type: 'UDP-CONNECT', ...timing },
  sctp: undefined,
};

function memberSteps({ balancer, listener, members: found }: FoundBalancer, members: readonly MemberRequest[]): BalancerStep[] {
  const pool = listener?.pool;
  const wanted = new Set(members.map(({ address, protocol_port: port }) => `${address} ${port}`));
  const there = new Set(found.map(({ address, port }) => `${address} ${port}`));
  if (pool === undefined || wanted.symmetricDifference(there).size === 0) return [];
  return [{ type: 'set-members', balancer, pool, members }];
}
