// Load balancers of exposures and of a cluster's services: one each, made whole by one call, whose members follow the containers by
// one call for all of them, and whose ports come and go while its address stays. Who makes it is chosen when it is made (providers.ts).
// One for which a machine has to start is busy for minutes: it is left alone until it is settled. Pure.
import { type Cidr, familyOf } from '#model/ip.ts';
import {
  clientsOf,
  fieldsOf,
  type FoundListener,
  isBalancing,
  isLedTo,
  isSame,
  isSet,
  listenerRequest,
  type Members,
  poolFields,
  requestOf,
} from './balancer-requests.ts';
import { exposureTag } from './floating.ts';
import { subnetOf } from './named.ts';
import type { NeutronPort, NeutronSubnet } from './neutron-schemas.ts';
import type { ListenerFields, ListenerRequest, LoadBalancerRequest, MemberRequest, MonitorRequest, PoolFields } from './octavia.ts';
import type { HealthMonitor, Listener, LoadBalancer } from './octavia-schemas.ts';
import { monitorChanges, type Staying } from './probes.ts';
import { choose, isPassing, type Providers, rangesOf, unfit } from './providers.ts';
import { ethertypes, fewest } from './rules.ts';
import type { Wish, WishedBalancer, WishedFloatingIp, WishedRule } from './wish.ts';

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
  | { readonly type: 'set-listener'; readonly balancer: LoadBalancer; readonly listener: Listener; readonly fields: ListenerFields }
  /** `pool`: its id. */
  | { readonly type: 'set-pool'; readonly balancer: LoadBalancer; readonly pool: string; readonly fields: PoolFields }
  | {
      readonly type: 'set-members';
      readonly balancer: LoadBalancer;
      /** Id. */
      readonly pool: string;
      readonly members: readonly MemberRequest[];
    }
  | {
      readonly type: 'add-monitor';
      /** Of what is exposed. */
      readonly id: string;
      readonly balancer: LoadBalancer;
      /** Id. */
      readonly pool: string;
      readonly request: MonitorRequest;
    }
  | { readonly type: 'remove-monitor'; readonly balancer: LoadBalancer; readonly monitor: HealthMonitor }
  | { readonly type: 'set-monitor'; readonly balancer: LoadBalancer; readonly monitor: HealthMonitor; readonly request: MonitorRequest }
  /** `id`: of what it exposes, where that is still wanted. */
  | { readonly type: 'remove-balancer'; readonly balancer: LoadBalancer; readonly id?: string };

const types: ReadonlySet<string> = new Set<BalancerStep['type']>([
  'make-balancer',
  'add-listener',
  'remove-listener',
  'set-listener',
  'set-pool',
  'set-members',
  'add-monitor',
  'remove-monitor',
  'set-monitor',
  'remove-balancer',
]);
export const isBalancerStep = (step: { readonly type: string }): step is BalancerStep => types.has(step.type);

export interface Balancing extends Providers {
  /** Of the installation. */
  readonly name: string;
  /** What every tag of the installation begins with. */
  readonly tag: string;
  /** A host's port, or why there is none. */
  readonly portOf: (host: string) => NeutronPort | string;
  /** Ids of subnets that routers are on. */
  readonly routed: ReadonlySet<string>;
  /** At least those that load balancers and hosts are on. */
  readonly subnets: readonly NeutronSubnet[];
}

/** What is in the way of something that is exposed. */
export interface Trouble {
  /** Of the exposed. */
  readonly id: string;
  readonly text: string;
}

/** One that is there. */
export interface Served {
  readonly balancer: LoadBalancer;
  /** It has been finished once, so that clients may be told of it. */
  readonly isMade: boolean;
  /** What of the wish it does not follow, one sentence each. */
  readonly notes: readonly string[];
}

/** Whom hosts let in for it: clients as they come, or it itself, from these ranges. */
export type Entrance = 'clients' | readonly Cidr[];

export interface BalancerPlan {
  /** To be taken first, as they close something. */
  readonly removals: readonly BalancerStep[];
  readonly changes: readonly BalancerStep[];
  /** Of those that are there. */
  readonly floating: readonly WishedFloatingIp[];
  /** By what stands in their place among the hosts of `floating`: ids of Neutron's ports. */
  readonly ports: ReadonlyMap<string, string>;
  /** By what they expose. */
  readonly found: ReadonlyMap<string, Served>;
  readonly entrances: ReadonlyMap<string, Entrance>;
  /** Those that Octavia is at work on: what they lack follows when they are settled. */
  readonly busy: readonly LoadBalancer[];
  readonly problems: readonly Trouble[];
}

/** OVN's are settled within seconds, which is waited for. */
const isBusy = ({ provider, provisioning }: LoadBalancer): boolean =>
  provisioning === going || (!isPassing(provider) && provisioning.startsWith('PENDING_'));
const going = 'PENDING_DELETE';

export function balancerPlan(wished: readonly WishedBalancer[], all: readonly FoundBalancer[], balancing: Balancing): BalancerPlan {
  const { tag } = balancing;
  const ours = all.filter(({ balancer }) => balancer.tags.includes(tag));
  const drafts = wished.map((one) => draftOf(one, ours, balancing));
  const kept = new Set(drafts.map(({ there }) => there));
  const ids = new Map(wished.map(({ id }) => [exposureTag(tag, id), id]));
  const left = ours.filter((one) => !kept.has(one)).map(({ balancer }) => balancer);
  const removals = left
    .filter((balancer) => !isBusy(balancer))
    .map((balancer): BalancerStep => {
      const id = balancer.tags.map((one) => ids.get(one)).find((one) => one !== undefined);
      return { type: 'remove-balancer', balancer, ...(id === undefined ? {} : { id }) };
    });
  return {
    removals,
    changes: drafts.flatMap(({ changes }) => changes),
    floating: drafts.flatMap(({ floating }) => floating ?? []),
    ports: new Map(drafts.flatMap(({ there }) => (there === undefined ? [] : [[placeOf(there.balancer), there.balancer.portId]]))),
    found: new Map(drafts.flatMap(({ id, served }) => (served === undefined ? [] : [[id, served]]))),
    entrances: new Map(drafts.flatMap(({ id, entrance }) => (entrance === undefined ? [] : [[id, entrance]]))),
    busy: [...left, ...drafts.flatMap(({ there }) => there?.balancer ?? [])].filter(isBusy),
    problems: drafts.flatMap(({ problems }) => problems),
  };
}

const placeOf = ({ name }: LoadBalancer): string => `load balancer ${name}`;

/** What is planned for one. */
interface Draft {
  readonly id: string;
  readonly there?: FoundBalancer;
  readonly changes: readonly BalancerStep[];
  readonly floating?: WishedFloatingIp;
  readonly served?: Served;
  readonly entrance?: Entrance;
  readonly problems: readonly Trouble[];
}

const isUsable = ({ provisioning }: LoadBalancer): boolean => provisioning !== 'ERROR' && provisioning !== going;

function draftOf(one: WishedBalancer, ours: readonly FoundBalancer[], balancing: Balancing): Draft {
  const { id, kind, name, refused } = one;
  const there = ours.find(({ balancer }) => balancer.tags.includes(exposureTag(balancing.tag, id)) && isUsable(balancer));
  if (there !== undefined) return draftOfFound(one, there, balancing);
  const choice = choose(one, balancing);
  const lacking = (why: string): Draft => ({
    id,
    changes: [],
    problems: [{ id, text: `${kind} ${name} has no load balancer: ${why}` }],
  });
  if ('trouble' in choice) return lacking(choice.trouble);
  const { provider } = choice;
  const { members, subnet, trouble } = membersOf(one, { ...balancing, provider });
  if (refused !== undefined) return lacking(refused);
  if (subnet === undefined) return lacking(trouble ?? 'nothing is known of its hosts');
  if (isClosed(one, provider)) return lacking(closed(one));
  const { name: installation, tag } = balancing;
  const request = requestOf(one, { name: installation, tag, provider, subnet, members });
  const vip = request.vip_port_id === undefined ? request.vip_subnet_id : undefined;
  return {
    id,
    changes: [{ type: 'make-balancer', id, request }],
    entrance: entranceOf(one, { provider, members, vip }, balancing),
    problems: [],
  };
}

/** One that is there keeps its provider. */
function draftOfFound(one: WishedBalancer, there: FoundBalancer, balancing: Balancing): Draft {
  const { id, kind, name, refused, notPassed = [] } = one;
  const { balancer } = there;
  const { provider } = balancer;
  const { members, trouble } = membersOf(one, { ...balancing, provider });
  const isShut = isClosed(one, provider);
  const troubles = [trouble, unfit(one, provider), isShut ? closed(one) : undefined, refused];
  const hosts = [{ host: placeOf(balancer), address: balancer.address }];
  return {
    id,
    there,
    changes: refused !== undefined || isBusy(balancer) ? [] : changesOf(there, isShut ? { ...one, listeners: [] } : one, members),
    ...(one.floating === undefined ? {} : { floating: { ...one.floating, id, kind, name, hosts } }),
    served: { balancer, isMade: balancer.provisioning !== 'PENDING_CREATE', notes: isPassing(provider) ? notPassed : [] },
    entrance: entranceOf(one, { provider, members, vip: balancer.subnetId }, balancing),
    problems: troubles.flatMap((text) => (text === undefined ? [] : [{ id, text: `${kind} ${name}: ${text}` }])),
  };
}

/** To Octavia no clients at all are all of them. */
const isClosed = (one: WishedBalancer, provider: string | undefined): boolean =>
  !isPassing(provider) && one.sources.length > 0 && clientsOf(one).length === 0;
const closed = ({ family }: WishedBalancer): string => `none of its sources is of IPv${family}, so nobody may come`;

interface Standing {
  readonly provider: string | undefined;
  readonly members: Members;
  /** Subnet of its own address, where that is known. */
  readonly vip: string | undefined;
}

/** It is on the subnet of its address and on those of its members. */
function entranceOf({ family }: WishedBalancer, { provider, members, vip }: Standing, { subnets }: Balancing): Entrance {
  if (isPassing(provider)) return 'clients';
  return rangesOf(new Set([vip, ...members.map((member) => member.subnet_id)]), subnets, family);
}

interface Located {
  readonly members: Members;
  /** Where the load balancer's own address is; undefined when nothing is known of any host. */
  readonly subnet: string | undefined;
  readonly trouble: string | undefined;
}

function membersOf(one: WishedBalancer, balancing: Balancing & { readonly provider: string | undefined }): Located {
  const { kind, hosts, without = [] } = one;
  const { portOf, routed, provider } = balancing;
  const members: Members[number][] = [];
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
  return { members, subnet, trouble: trouble ?? (isPassing(provider) ? unanswered(one, subnet, routed) : undefined) };
}

/** By IPv6 OVN has routers answer for the address of a load balancer; seen with ML2/OVN of 2025.1. */
function unanswered({ hosts, place }: WishedBalancer, ofHosts: string | undefined, routed: ReadonlySet<string>): string | undefined {
  const isSaid = place?.port !== undefined || (place?.network !== undefined && place.subnet === undefined);
  const subnet = place?.subnet ?? ofHosts;
  if (isSaid || subnet === undefined || routed.has(subnet) || hosts[0]?.address.includes(':') !== true) return undefined;
  return `no router that this login sees is on its subnet ${subnet}, and without one nobody answers for its address`;
}

/** Ports that go before those that come: the one may be the other with another protocol. */
function changesOf({ balancer, listeners: there }: FoundBalancer, one: WishedBalancer, members: Members): BalancerStep[] {
  const { provider } = balancer;
  const wanted = one.listeners.map((listener) => listenerRequest(one, listener, { provider, members }));
  const staying = wanted.flatMap((request): Staying[] => {
    const found = there.find((candidate) => isSame(candidate, request));
    return found === undefined ? [] : [{ found, request }];
  });
  const leaving = there.filter((found) => !staying.some((stays) => stays.found === found));
  const { gone, made, retimed } = monitorChanges(provider, staying, leaving);
  return [
    ...gone.map((monitor): BalancerStep => ({ type: 'remove-monitor', balancer, monitor })),
    ...leaving.map(({ listener }): BalancerStep => ({ type: 'remove-listener', balancer, listener })),
    ...wanted
      .filter((request) => !staying.some((stays) => stays.request === request))
      .map((request): BalancerStep => ({ type: 'add-listener', id: one.id, balancer, request })),
    ...staying.flatMap((stays) => stepsFor(balancer, stays, one)),
    ...retimed.map((change): BalancerStep => ({ type: 'set-monitor', balancer, ...change })),
    ...made.map((change): BalancerStep => ({ type: 'add-monitor', id: one.id, balancer, ...change })),
  ];
}

/** Who may come first, so that nobody is let in by what follows. */
function stepsFor(balancer: LoadBalancer, { found, request }: Staying, one: WishedBalancer): BalancerStep[] {
  const { provider } = balancer;
  const { listener, pool, members: there } = found;
  const fields = fieldsOf(one, provider);
  const wanted = poolFields(one, provider);
  const { members } = request.default_pool;
  const steps: BalancerStep[] = [];
  if (!isSet(listener, fields)) steps.push({ type: 'set-listener', balancer, listener, fields });
  if (pool !== undefined && !isPassing(provider) && !isBalancing(pool, wanted))
    steps.push({ type: 'set-pool', balancer, pool: pool.id, fields: { session_persistence: null, ...wanted } });
  if (pool !== undefined && !isLedTo(there, members)) steps.push({ type: 'set-members', balancer, pool: pool.id, members });
  return steps;
}

/** The wish with what hosts let in for load balancers, as far as that is known; nothing for those of which nothing is. */
export function entered(wish: Wish, { entrances }: BalancerPlan): Wish {
  const health = new Map(wish.balancers.map(({ id, proxy }) => [id, proxy?.healthPort]));
  const groups = wish.groups.map((group) => ({
    ...group,
    rules: fewest(
      group.rules.flatMap(({ balancer, ...rule }): WishedRule[] => {
        const entrance = balancer === undefined ? 'clients' : entrances.get(balancer);
        if (entrance === 'clients') return [rule];
        const ports = [rule, ...healthRules(rule, health.get(balancer ?? ''))];
        return ports.flatMap((one) =>
          (entrance ?? []).map((remote): WishedRule => ({ ...one, ethertype: ethertypes[familyOf(remote)], remote })),
        );
      }),
    ),
  }));
  return { ...wish, groups };
}

const tcp = 6;
const healthRules = (rule: WishedRule, port: number | undefined): WishedRule[] =>
  port === undefined ? [] : [{ ...rule, protocol: tcp, port }];
