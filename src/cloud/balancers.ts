// Load balancers of exposures and of a cluster's services: one each, made whole by one call, whose members follow the containers by
// one call for all of them, and whose ports come and go while its address stays. Who makes it is chosen when it is made (providers.ts).
// One that Octavia is at work on, for minutes where a machine has to start, is left alone until it is settled. Pure.
import { type Cidr, familyOf, parseIp } from '#model/ip.ts';
import { type Asked, changesOf, isOwn, isSharedWithOthers, listenersFor, othersOn, placeOn } from './balancer-changes.ts';
import { crowdedOut } from './balancer-room.ts';
import { membersOf } from './balancer-members.ts';
import { clientsOf, type FoundListener, listenerRequest, type Members, requestOf } from './balancer-requests.ts';
import type { BalancerStep, FoundBalancer } from './balancer-steps.ts';
import { exposureTag } from './floating.ts';
import type { FloatingIp, NeutronPort, NeutronSubnet } from './neutron-schemas.ts';
import type { ListenerRequest } from './octavia.ts';
import type { LoadBalancer } from './octavia-schemas.ts';
import { probedBeside } from './probes.ts';
import { choose, isPassing, type Providers, rangesOf, unfit } from './providers.ts';
import { ethertypes, fewest } from './rules.ts';
import type { Wish, WishedBalancer, WishedFloatingIp, WishedRule } from './wish.ts';

export interface Balancing extends Providers {
  /** Of the installation. */
  readonly name: string;
  /** Services on one load balancer. */
  readonly mostShared: number;
  /** What every tag of the installation begins with. */
  readonly tag: string;
  /** A host's port, or why there is none. */
  readonly portOf: (host: string) => NeutronPort | string;
  /** Ids of subnets that routers are on. */
  readonly routed: ReadonlySet<string>;
  /** At least those that load balancers and hosts are on. */
  readonly subnets: readonly NeutronSubnet[];
  readonly floatingIps: readonly FloatingIp[];
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
  /** By which clients outside reach one that is not its own. */
  readonly outside?: string | undefined;
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

/** Whoever changes one of OVN's waits until it is settled: one that is not is being changed by somebody else, or was left so by its provider. */
const isBusy = ({ provisioning }: LoadBalancer): boolean => provisioning.startsWith('PENDING_');

/** `all`: of the project. */
export function balancerPlan(wished: readonly WishedBalancer[], all: readonly FoundBalancer[], balancing: Balancing): BalancerPlan {
  const { tag, mostShared } = balancing;
  const drafts = withinRoom(
    wished.map((one) => ({ one, draft: draftOf(one, all, balancing) })),
    tag,
    mostShared,
  );
  const kept = new Set(drafts.map(({ there }) => there));
  const ids = new Map(wished.map(({ id }) => [exposureTag(tag, id), id]));
  const left = all.filter((one) => one.balancer.tags.includes(tag) && !kept.has(one) && !isSharedWithOthers(one, tag));
  const removals = left
    .filter(({ balancer }) => !isBusy(balancer))
    .map(({ balancer }): BalancerStep => {
      const id = balancer.tags.map((one) => ids.get(one)).find((one) => one !== undefined);
      return { type: 'remove-balancer', balancer, ...(id === undefined ? {} : { id }) };
    });
  const staying = all.filter((one) => !left.includes(one) && isUsable(one.balancer) && !isBusy(one.balancer));
  return {
    removals,
    changes: [
      ...drafts.flatMap(({ making }) => making ?? []),
      ...staying.flatMap((found) => {
        const asked = drafts.flatMap((draft) => (draft.there === found && draft.asked !== undefined ? [draft.asked] : []));
        return changesOf(found, asked, tag);
      }),
    ],
    floating: drafts.flatMap(({ floating }) => floating ?? []),
    ports: new Map(drafts.flatMap(({ there }) => (there === undefined ? [] : [[placeOf(there.balancer), there.balancer.portId]]))),
    found: new Map(drafts.flatMap(({ id, served }) => (served === undefined ? [] : [[id, served]]))),
    entrances: new Map(drafts.flatMap(({ id, entrance }) => (entrance === undefined ? [] : [[id, entrance]]))),
    busy: [...new Set([...left, ...drafts.flatMap(({ there }) => there ?? [])])].map(({ balancer }) => balancer).filter(isBusy),
    problems: drafts.flatMap(({ problems }) => problems),
  };
}

const placeOf = ({ name }: LoadBalancer): string => `load balancer ${name}`;

/** What is planned for one. */
interface Draft {
  readonly id: string;
  readonly there?: FoundBalancer;
  /** Of what is there. */
  readonly asked?: Asked;
  readonly making?: BalancerStep;
  readonly floating?: WishedFloatingIp;
  readonly served?: Served;
  readonly entrance?: Entrance;
  readonly problems: readonly Trouble[];
}

interface Drafted {
  readonly one: WishedBalancer;
  readonly draft: Draft;
}

function withinRoom(drafted: readonly Drafted[], tag: string, most: number): Draft[] {
  const out = crowdedOut(
    drafted.map(({ draft }) => draft),
    tag,
    most,
  );
  return drafted.map(({ one, draft }) =>
    draft.there === undefined || !out.has(draft.id)
      ? draft
      : lacking(one, `${calledBalancer(draft.there.balancer)} is shared by as many services as may, ${most} (max-shared-lb)`),
  );
}

const isUsable = ({ provisioning }: LoadBalancer): boolean => provisioning !== 'ERROR' && provisioning !== 'PENDING_DELETE';

const lacking = ({ id, kind, name }: WishedBalancer, why: string): Draft => ({
  id,
  problems: [{ id, text: `${kind} ${name} has no load balancer: ${why}` }],
});

function draftOf(one: WishedBalancer, all: readonly FoundBalancer[], balancing: Balancing): Draft {
  const { id, refused, shared } = one;
  const own = all.find(({ balancer }) => isOwn(balancer, balancing.tag, id) && isUsable(balancer));
  if (shared !== undefined && shared !== own?.balancer.id) {
    const there = all.find(({ balancer }) => balancer.id === shared);
    return there === undefined ? lacking(one, `the project has no load balancer ${shared}`) : draftOfShared(one, there, balancing);
  }
  if (own !== undefined) return draftOfFound(one, own, balancing);
  const choice = choose(one, balancing);
  if ('trouble' in choice) return lacking(one, choice.trouble);
  const { provider } = choice;
  const { members, subnet, trouble } = membersOf(one, { ...balancing, provider });
  if (refused !== undefined) return lacking(one, refused);
  if (subnet === undefined) return lacking(one, trouble ?? 'nothing is known of its hosts');
  if (isClosed(one, provider)) return lacking(one, closed(one));
  const { name: installation, tag } = balancing;
  const request = requestOf(one, { name: installation, tag, provider, subnet, members });
  const vip = request.vip_port_id === undefined ? request.vip_subnet_id : undefined;
  return {
    id,
    making: { type: 'make-balancer', id, request },
    entrance: entranceOf(one, { provider, members, vip }, balancing),
    problems: [],
  };
}

const calledBalancer = ({ name, id }: LoadBalancer): string => `load balancer ${name || id}`;

/** One that is there keeps its provider. */
function draftOfFound(one: WishedBalancer, there: FoundBalancer, balancing: Balancing): Draft {
  const { id, kind, name, refused, notPassed = [] } = one;
  const { balancer } = there;
  const { provider } = balancer;
  const { members, trouble } = membersOf(one, { ...balancing, provider });
  const isShut = isClosed(one, provider);
  const hosts = [{ host: placeOf(balancer), address: balancer.address }];
  const requests = isShut ? [] : one.listeners.map((each) => listenerRequest(one, each, { provider, members }));
  const own = listenersFor(there, balancing.tag, id);
  // Nothing is opened for one that has no ports, and nobody told of it.
  if (refused !== undefined && own.length === 0) return { ...lacking(one, refused), there };
  const { free, troubles: taken } = freeOf(requests, there, own);
  const probed = isPassing(provider) ? probedBeside(othersOn(there, balancing.tag), requests) : undefined;
  const beside = probed === undefined ? undefined : `${calledBalancer(balancer)}: ${probed}, ${forgetting}`;
  if (beside !== undefined && own.length === 0) return lacking(one, beside);
  const troubles = [trouble, unfit(one, provider), isShut ? closed(one) : undefined, refused, beside, ...taken];
  return {
    id,
    there,
    asked: { one, wanted: refused === undefined ? free : undefined },
    ...(one.floating === undefined ? {} : { floating: { ...one.floating, id, kind, name, hosts } }),
    served: { balancer, isMade: balancer.provisioning !== 'PENDING_CREATE', notes: isPassing(provider) ? notPassed : [] },
    entrance: entranceOf(one, { provider, members, vip: balancer.subnetId }, balancing),
    problems: troubles.flatMap((text) => (text === undefined ? [] : [{ id, text: `${kind} ${name}: ${text}` }])),
  };
}

const forgetting =
  "and OVN's provider leads nothing there any more as soon as a port of this service goes: take its health monitor away, or use another load balancer";

/** On one that is not its own it has listeners, and whatever floating IP is there: who else is on it may be for the inside only. */
function draftOfShared(one: WishedBalancer, there: FoundBalancer, balancing: Balancing): Draft {
  const { id, kind, name, floating, family } = one;
  const { balancer } = there;
  const { tag, floatingIps } = balancing;
  const called = calledBalancer(balancer);
  if (!isUsable(balancer)) return lacking(one, `${called} is in state ${balancer.provisioning}`);
  if (familyOf(parseIp(balancer.address)) !== family) return lacking(one, `${called} has no address of IPv${family}`);
  const choice = choose(one, { offered: [balancer.provider] });
  if ('trouble' in choice) return lacking(one, `${called}: ${choice.trouble}`);
  const { floating: _, ...draft } = draftOfFound(one, there, balancing);
  const outside = floatingIps.find(({ portId, fixedAddress }) => portId === balancer.portId && fixedAddress === balancer.address)?.address;
  const without = `${called} has no floating IP, and gets none for a service that it is not made for: give it one, or have the service be an internal one`;
  const tags = [tag, exposureTag(tag, id)];
  return {
    ...draft,
    asked: { one, wanted: draft.asked?.wanted?.map((request) => ({ ...request, tags })) },
    ...(draft.served === undefined ? {} : { served: { ...draft.served, outside } }),
    problems:
      floating === undefined || outside !== undefined ? draft.problems : [...draft.problems, { id, text: `${kind} ${name}: ${without}` }],
  };
}

/** Without those whose port a listener of others has. */
function freeOf(
  requests: readonly ListenerRequest[],
  { balancer, listeners }: FoundBalancer,
  own: readonly FoundListener[],
): { readonly free: readonly ListenerRequest[]; readonly troubles: readonly string[] } {
  const others = listeners.filter((one) => !own.includes(one));
  const taken = new Map(others.map(({ listener: { id, name, protocol, port } }) => [placeOn(protocol, port), name || id]));
  const takerOf = ({ protocol, protocol_port: port }: ListenerRequest): string | undefined => taken.get(placeOn(protocol, port));
  return {
    free: requests.filter((request) => takerOf(request) === undefined),
    troubles: requests.flatMap((request) => {
      const taker = takerOf(request);
      return taker === undefined ? [] : [`port ${request.protocol_port} of ${calledBalancer(balancer)} is taken by listener ${taker}`];
    }),
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
