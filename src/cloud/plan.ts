// The difference between a wish and what a cloud has, as steps in an order that is safe to stop after any of them. Ports that leave
// go first, then a group gets its new rules and loses its old ones, and only then do ports join it: at no moment more is open for any
// port than before and after together, and nothing that both need is interrupted. Only what is recognised as ours is changed or removed: groups by their tag, rules in them by their description,
// address pairs of a port and routes of a router by a tag that names them. Pure.
import type { Fault } from '#model/fault.ts';
import { type Cidr, covers, type Ip, parseCidr } from '#model/ip.ts';
import { type Balanced, balancedAlone, balancedOf } from './balanced.ts';
import { usualShare } from './balancer-room.ts';
import type { BalancerStep, FoundBalancer } from './balancer-steps.ts';
import { type BalancerPlan, balancerPlan, entered } from './balancers.ts';
import { type FloatingPlan, floatingPlan, type FloatingStep, type Reached } from './floating.ts';
import { closingsOf, type GroupRules, isLeaving, removalOf } from './closing.ts';
import { detachments } from './detaching.ts';
import { findPort, type Instances, instanceOf } from './instances.ts';
import { isOfRouter } from './named.ts';
import type {
  AddressPair,
  ExtraRoute,
  FloatingIp,
  NeutronNetwork,
  NeutronPort,
  NeutronRouter,
  NeutronSubnet,
  Quota,
  SecurityGroup,
  SecurityGroupRule,
} from './neutron-schemas.ts';
import type { LoadBalancer } from './octavia-schemas.ts';
import { fitted, holding, isPlain, isTag, isUnpaired, pairingOf, pairText, tagOf, unpaired } from './pairs.ts';
import { isPooled, poolSteps, type PooledStep } from './pools.ts';
import { forecastOf, isShort, type PortForecast, quotaName, quotasOf, type QuotaUse } from './quotas.ts';
import { nothingRefused } from './refused.ts';
import { planRouters, type PortOf, type RouteChange, type RoutedHost, type Routers } from './router.ts';
import { isOurRule, keyOfFound, keyOfRule } from './rules.ts';
import { shared } from './sharing.ts';
import { carriedOnly, isVirtual, type PlacedVirtual, type VirtualPlan, virtualPlan, type VirtualStep } from './virtual.ts';
import { isForNeed } from './ways.ts';
import type { Need, Wish, WishedGroup, WishedPort, WishedRule } from './wish.ts';

/** What of a cloud matters here. */
export interface CloudState extends Routers {
  readonly groups: readonly SecurityGroup[];
  readonly ports: readonly NeutronPort[];
  readonly instances: Instances;
  /** At least those of the ports. */
  readonly networks: readonly NeutronNetwork[];
  readonly quotas: Readonly<Record<string, Quota>>;
  readonly floatingIps: readonly FloatingIp[];
  /** Address pairs that a port takes, where the cloud has told it. */
  readonly mostPairs?: number | undefined;
  /** Of ours. */
  readonly balancers: readonly FoundBalancer[];
  /** Of load balancers; absent: the cloud has no Octavia. */
  readonly providers?: readonly string[];
  /** The one that makes those which name none. Absent: the first of the usual ones. */
  readonly provider?: string;
  /** Services on one load balancer; absent: as usual. */
  readonly mostShared?: number;
  /** Why there are no load balancers to be seen: the login may not use Octavia. */
  readonly unread?: Fault;
  /** Needed where load balancers speak to hosts themselves; otherwise they may be left out. */
  readonly subnets?: readonly NeutronSubnet[];
}

export type Step =
  | { readonly type: 'make-group'; readonly group: WishedGroup }
  | { readonly type: 'add-rules'; readonly group: string; readonly rules: readonly WishedRule[] }
  | PortStep
  | FloatingStep
  | BalancerStep
  | PooledStep
  | VirtualStep
  | { readonly type: 'change-routes'; readonly router: NeutronRouter; readonly change: RouteChange }
  | { readonly type: 'remove-rules'; readonly group: string; readonly rules: readonly SecurityGroupRule[] }
  | { readonly type: 'remove-group'; readonly group: SecurityGroup };

export interface PortStep {
  readonly type: 'change-port';
  readonly port: NeutronPort;
  readonly wish: WishedPort;
  readonly change: PortChange;
  /** Name of the instance that has the port, where Nova tells. */
  readonly instance?: string | undefined;
}
export interface PortChange {
  /** Names. */
  readonly joins: readonly string[];
  /** Ids. */
  readonly leaves: readonly string[];
  readonly addPairs: readonly Cidr[];
  readonly removePairs: readonly Cidr[];
  readonly addTags: readonly string[];
  readonly removeTags: readonly string[];
}

export interface CloudPlan {
  /** What was wished for, with security groups as they are there or are to be made. */
  readonly wish: Wish;
  readonly steps: readonly Step[];
  /** Those of the steps, or parts of them, that only close, and are done while a quota is short. */
  readonly closings: readonly Step[];
  readonly needs: readonly (Need & { readonly isAllowed: boolean })[];
  readonly quotas: readonly QuotaUse[];
  /** Absent where there is no such network, or no limit. */
  readonly forecast?: PortForecast | undefined;
  /** Exposures that have a floating IP, or a load balancer without one, or are about to. */
  readonly reached: readonly Reached[];
  /** Addresses that move between hosts, as far as the cloud has them: for the hosts to know. */
  readonly placed: readonly PlacedVirtual[];
  /** Absent: nothing is carried by a router. */
  readonly routed?: readonly RoutedHost[];
  /** Every load balancer that is wished for. */
  readonly balanced: readonly Balanced[];
  /** Load balancers that Octavia is at work on for minutes, as machines start for them: what they lack follows. */
  readonly busy: readonly LoadBalancer[];
  /** By exposure: from where its load balancer speaks to hosts, where that is not with the addresses of clients. For the hosts to know. */
  readonly ranges: ReadonlyMap<string, readonly Cidr[]>;
  /** What is in the way of a part of the wish, one sentence each. */
  readonly problems: readonly string[];
}

/** `blocks`: which needs are not met because of it. */
interface Problem {
  readonly text: string;
  readonly blocks: 'all' | 'pairs' | 'sub-ports' | 'routes' | 'nothing';
  /** Of pairs: ranges that are not allowed. */
  readonly left?: readonly Cidr[];
}

/** A group with this description is still without its rules and tag, and no use to anybody. */
export const unfinished = (name: string): string => `${name}: being made`;

/** Groups of ours by name; of several with one name, as two that began at once may leave, the first by id counts. */
export function ourGroups(wish: Wish, groups: readonly SecurityGroup[]): { kept: Map<string, SecurityGroup>; spare: SecurityGroup[] } {
  const kept = new Map<string, SecurityGroup>();
  const spare: SecurityGroup[] = [];
  const wanted = new Set(wish.groups.map(({ name }) => name));
  for (const group of groups.toSorted((a, b) => (a.id < b.id ? -1 : 1))) {
    const isOurs = group.tags.includes(tagOf(wish.name));
    if (isOurs && wanted.has(group.name) && !kept.has(group.name)) kept.set(group.name, group);
    else if (isOurs || group.description === unfinished(wish.name)) spare.push(group);
  }
  return { kept, spare };
}

/** Fault `forbidden` where load balancers are wished for, and the login may not use Octavia. */
export function planCloud(asked: Wish, state: CloudState): CloudPlan {
  const problems: Problem[] = unreadTroubles(asked, state);
  const portOf = hostPorts(asked, state);
  const { balancers, floating, virtual } = exposedBy(asked, state, portOf);
  const wish = shared(carriedOnly(entered(asked, balancers), virtual), state, portOf);
  const { kept, spare } = ourGroups(wish, state.groups);
  const hosts = kept.get(wish.name)?.id;
  const made = wish.groups.filter(({ name }) => !kept.has(name));
  const rules = wish.groups.map((group) => rulesOf(group, kept.get(group.name), hosts));
  const ports = portSteps(withPairs(wish, virtual), { ...state, portOf }, problems);
  const troubles = [...balancers.problems, ...floating.problems];
  for (const text of [...virtual.problems, ...troubles.map((one) => one.text)]) problems.push({ text, blocks: 'nothing' });
  const stays = spare.filter(({ rules: found, tags }) => tags.length > 0 && found.some((rule) => !isOurRule(rule)));
  for (const { name } of stays)
    problems.push({ text: `Security group ${name} stays: it holds rules that are not Causeway's`, blocks: 'nothing' });
  const unused = spare.filter((group) => !stays.includes(group));
  const router = planRouters(wish, state, portOf);
  for (const text of router.problems) problems.push({ text, blocks: 'routes' });
  for (const text of router.doubts) problems.push({ text, blocks: 'nothing' });
  const isHeld = holding(wish, state.ports);
  const pooled = poolSteps({ name: wish.name, ports: wish.ports, trunkOf: (host) => trunkOf(portOf(host)), isHeld }, state.ports);
  for (const text of trunkTroubles(wish, portOf)) problems.push({ text, blocks: 'sub-ports' });
  const steps: Step[] = [
    ...floating.releases,
    ...detachments(floating.changes, { wish, hosts, state, portOf }),
    ...balancers.removals,
    ...ports.filter(isLeaving),
    // Before the pairs, and before anything that is for them alone: the cloud may refuse it.
    ...virtual.made,
    ...made.map((group): Step => ({ type: 'make-group', group })),
    ...rules.filter(({ missing }) => missing.length > 0).map(({ group, missing }): Step => ({ type: 'add-rules', group, rules: missing })),
    ...rules.flatMap(removalOf),
    // Before the pairs: a port that is made finds its host's, and a pair finds its port.
    ...pooled.first,
    ...ports.filter((step) => !isLeaving(step)),
    ...pooled.last,
    ...virtual.left,
    ...router.changes.map((change): Step => ({ type: 'change-routes', ...change })),
    ...balancers.changes,
    ...floating.changes,
    ...unused.map((group): Step => ({ type: 'remove-group', group })),
    ...stays
      .filter(({ rules: found }) => found.some(isOurRule))
      .map(({ name, rules: found }): Step => ({ type: 'remove-rules', group: name, rules: found.filter(isOurRule) })),
  ];
  const poolSize = Math.max(0, ...wish.needs.map((need) => need.poolSize ?? 0));
  const quotas = quotasOf(steps, state.quotas, poolSize > 0);
  const forecast = forecastOf(quotas, poolSize);
  for (const use of quotas.filter(isShort)) {
    const text = `The quota of ${quotaName(use)}s is exhausted: ${use.most} are needed, ${use.limit} allowed`;
    problems.push({ text, blocks: use.name === 'floatingip' ? 'nothing' : 'all' });
  }
  if (forecast?.pools === 0) {
    const text = `The quota of ports has ${forecast.left} left, and a pool takes ${forecast.poolSize}: a host whose ports are used up gets no more`;
    problems.push({ text, blocks: 'nothing' });
  }
  return {
    wish,
    steps,
    closings: closingsOf({ wish, floating, balancers, ports, rules, pooled, virtual, router, spare, unused }),
    forecast,
    needs: wish.needs.map((need) => ({ ...need, isAllowed: isAllowed(need, steps, problems) })),
    quotas,
    reached: [...floating.reached, ...balancedAlone(wish, balancers)],
    placed: virtual.placed,
    ...(router.routed === undefined ? {} : { routed: router.routed }),
    balanced: balancedOf(wish, balancers, floating),
    busy: balancers.busy,
    ranges: rangesOfAll(balancers),
    problems: problems.map(({ text }) => text),
  };
}

/** Who takes everything back is told that this may not be all. */
function unreadTroubles(asked: Wish, { unread }: CloudState): Problem[] {
  if (unread === undefined) return [];
  if (asked.balancers.length > 0) throw unread;
  return asked.ports.length > 0 ? [] : [{ text: `Whether there are load balancers was not seen: ${unread.message}`, blocks: 'nothing' }];
}

const rangesOfAll = ({ entrances }: BalancerPlan): CloudPlan['ranges'] =>
  new Map([...entrances].flatMap(([id, entrance]) => (entrance === 'clients' ? [] : [[id, entrance] as const])));

/** Rules that are missing and rules of ours that nothing needs. Others' rules with the same meaning do as well. */
function rulesOf(wished: WishedGroup, found: SecurityGroup | undefined, hosts: string | undefined): GroupRules {
  const wanted = new Map(wished.rules.map((rule) => [keyOfRule(rule), rule]));
  const there = new Set((found?.rules ?? []).map((rule) => keyOfFound(rule, hosts)));
  return {
    group: wished.name,
    missing: [...wanted].filter(([key]) => !there.has(key)).map(([, rule]) => rule),
    old: wished.isPartial ? [] : (found?.rules ?? []).filter((rule) => isOurRule(rule) && !wanted.has(keyOfFound(rule, hosts))),
  };
}

function portSteps(wish: Wish, state: CloudState & { readonly portOf: PortOf }, problems: Problem[]): PortStep[] {
  const { kept, spare } = ourGroups(wish, state.groups);
  const ids = new Set([...kept.values(), ...spare].map(({ id }) => id));
  const steps: PortStep[] = [];
  const used = new Set<string>();
  for (const wished of wish.ports) {
    const found = state.portOf(wished.host);
    if (typeof found === 'string') {
      problems.push({ text: found, blocks: 'all' });
      continue;
    }
    used.add(found.id);
    const network = state.networks.find(({ id }) => id === found.networkId);
    for (const text of network === undefined ? [] : networkTroubles(wished, network))
      if (problems.every((one) => one.text !== text)) problems.push({ text, blocks: 'nothing' });
    const {
      wished: fitting,
      left,
      trouble,
    } = isUnpaired(wish, found) ? { wished, left: [] } : fitted(wished, found, { name: wish.name, most: state.mostPairs });
    if (trouble !== undefined) problems.push({ text: trouble, blocks: 'pairs', left });
    // Without port security a port has no groups and needs no pairs: everything passes.
    push(found, found.portSecurity ? fitting : { ...wished, groups: [], pairs: [], blocks: [] });
  }
  for (const port of state.ports) {
    const isTouched = port.groups.some((id) => ids.has(id)) || port.tags.some((tag) => isTag(wish.name, tag));
    if (isTouched && !used.has(port.id) && !isPooled(wish.name, port))
      push(port, { host: port.name || port.id, addresses: [], groups: [], pairs: [], blocks: [] });
  }
  return steps;

  function push(port: NeutronPort, wished: WishedPort): void {
    const { trouble: text, left } = unpaired(wish, wished, port);
    if (text !== undefined) problems.push({ text, blocks: 'pairs', left });
    const change = changeOfPort(wish, wished, { port, groups: state.groups });
    if (change !== undefined) steps.push({ type: 'change-port', port, wish: wished, change, instance: instanceOf(port, state.instances) });
  }
}

/** Load balancers, addresses that move, and floating IPs, also those that lead to either. */
function exposedBy(
  wish: Wish,
  state: CloudState,
  portOf: PortOf,
): { balancers: BalancerPlan; floating: FloatingPlan; virtual: VirtualPlan } {
  const tag = tagOf(wish.name);
  const { name, ports: wished } = wish;
  const ofRouters = state.ports.filter(isOfRouter);
  const routed = new Set(ofRouters.flatMap(({ addresses }) => addresses.map(({ subnetId }) => subnetId)));
  const { providers: offered, provider: usual, mostShared = usualShare, subnets = [], floatingIps } = state;
  const balancing = { name, tag, portOf, offered, wanted: usual, mostShared, routed, subnets, floatingIps };
  const balancers = balancerPlan(wish.balancers, state.balancers, balancing);
  const refused = wish.refused ?? nothingRefused;
  const isHeld = holding(wish, state.ports);
  const virtual = virtualPlan(wish.virtual, { name, wished, ports: state.ports, portOf, refused, isHeld, most: state.mostPairs });
  const portOfAny = (host: string): NeutronPort | string => {
    const id = balancers.ports.get(host) ?? virtual.ports.get(host);
    if (id === undefined) return portOf(host);
    return state.ports.find((port) => port.id === id) ?? `port ${id} of ${host} is not among the project's`;
  };
  const isOurs = (port: NeutronPort): boolean => port.tags.includes(tag) || isVirtual(name, port);
  const wanted = [...wish.floating, ...balancers.floating, ...virtual.floating];
  return { balancers, virtual, floating: floatingPlan(wanted, state, { tag, isOurs, portOf: portOfAny, refused: refused.floating }) };
}

const withPairs = (wish: Wish, { pairs }: VirtualPlan): Wish => ({
  ...wish,
  ports: wish.ports.map((port) => ({ ...port, blocks: [...port.blocks, ...(pairs.get(port.host) ?? [])] })),
});

/** Each is looked for once, among all that the project has. */
export function hostPorts({ ports }: Wish, state: Pick<CloudState, 'ports' | 'instances'>): PortOf {
  const wished = new Map(ports.map((one) => [one.host, one]));
  const known = new Map<string, NeutronPort | string>();
  return (host) => {
    const one = wished.get(host);
    const found = known.get(host) ?? (one === undefined ? `host ${host} is not known` : findPort(one, state));
    known.set(host, found);
    return found;
  };
}

/** Undefined also where the host's port is not found, which is told elsewhere. */
export const trunkOf = (port: NeutronPort | string): NeutronPort['trunk'] => (typeof port === 'string' ? undefined : port.trunk);

function trunkTroubles(wish: Wish, portOf: PortOf): string[] {
  return wish.ports
    .filter(({ host, tagged = [] }) => tagged.length > 0 && trunkOf(portOf(host)) === undefined)
    .map(
      ({ host }) =>
        `The port of host ${host} is no parent of a trunk any more, and its containers' ports were sub-ports: make it one again`,
    );
}

/** Neutron drops what is larger than its network takes, without a word; 0 is said by clouds that do not know. */
function networkTroubles({ host, mtu }: WishedPort, network: NeutronNetwork): string[] {
  const name = network.name || network.id;
  const lacking =
    network.subnets.length > 0
      ? []
      : [
          `The hosts' network ${name} has no subnet, so hosts have no addresses there: make one (openstack subnet create --network ${name})`,
        ];
  if (network.mtu === 0)
    return [
      ...lacking,
      `The cloud does not tell the MTU of the hosts' network ${name}, so whether their packets fit into it is not known: ask the cloud's operator, and have it set (openstack network set --mtu BYTES ${name})`,
    ];
  if (mtu === undefined || mtu <= network.mtu) return lacking;
  return [
    ...lacking,
    `Host ${host} sends packets of up to ${mtu} bytes, but its network ${name} takes ${network.mtu}: set the MTU of its interface, or large packets are lost`,
  ];
}

/** Why some port could not have all the pairs that are wished for. */
export function pairsTrouble(wish: Wish, state: CloudState): string | undefined {
  for (const wished of wish.ports) {
    const port = findPort(wished, state);
    const trouble = typeof port === 'string' ? undefined : fitted(wished, port, { name: wish.name, most: state.mostPairs }).trouble;
    if (trouble !== undefined) return trouble;
  }
  return undefined;
}

/** What to do to a port as it is; undefined when nothing is. Also asked again just before the change is made. */
export function changeOfPort(
  wish: Wish,
  wished: WishedPort,
  { port, groups }: { readonly port: NeutronPort; readonly groups: readonly SecurityGroup[] },
): PortChange | undefined {
  const { kept, spare } = ourGroups(wish, groups);
  const wanted = new Set(wished.groups);
  const joins = wished.groups.filter((name) => !port.groups.includes(kept.get(name)?.id ?? ''));
  const leaves = [...kept.values(), ...spare].filter(
    (group) => port.groups.includes(group.id) && !(wanted.has(group.name) && kept.get(group.name) === group),
  );
  const pairing = pairingOf(wish, wished, port);
  const tags = [...(wished.groups.length > 0 || pairing.tags.length > 0 ? [tagOf(wish.name)] : []), ...pairing.tags];
  const change: PortChange = {
    joins,
    leaves: leaves.map(({ id }) => id),
    addPairs: pairing.add,
    removePairs: pairing.remove,
    addTags: tags.filter((tag) => !port.tags.includes(tag)),
    removeTags: port.tags.filter((tag) => isTag(wish.name, tag) && !tags.includes(tag)),
  };
  return Object.values(change).every(({ length }) => length === 0) ? undefined : change;
}

/** The port's groups and pairs after a change, others' as they are. `idOf`: of our groups by name. */
export function portAfter(
  port: NeutronPort,
  change: PortChange,
  idOf: (name: string) => string,
): { groups: string[]; pairs: AddressPair[] } {
  const groups = port.groups.filter((id) => !change.leaves.includes(id));
  const removed: readonly string[] = change.removePairs.map(pairText);
  const pairs = port.pairs.filter((pair) => !(isPlain(pair, port) && removed.includes(pair.ip_address)));
  return {
    groups: [...new Set([...groups, ...change.joins.map(idOf)])],
    pairs: [...pairs, ...change.addPairs.map((range) => ({ ip_address: pairText(range) }))],
  };
}

function isAllowed(need: Need, steps: readonly Step[], problems: readonly Problem[]): boolean {
  const isBlocked = ({ blocks, left = [] }: Problem): boolean =>
    blocks === 'all' ||
    (blocks === 'pairs' && left.some((one) => isForNeed(need, one))) ||
    (blocks === 'sub-ports' && need.subPorts !== undefined) ||
    (blocks === 'routes' && need.isByRouter === true);
  if (problems.some(isBlocked)) return false;
  const isMissing = ({ destination }: ExtraRoute): boolean =>
    need.isByRouter === true && need.pairs.some((range) => covers(range, parseCidr(destination)));
  const keys = new Set(need.rules.map(keyOfRule));
  const isLacking = ({ ip }: { readonly ip: Ip }): boolean => need.subPorts?.includes(ip) === true;
  return !steps.some(
    (step) =>
      ((step.type === 'make-ports' || step.type === 'attach-ports') && step.ports.some(isLacking)) ||
      (step.type === 'change-routes' && step.change.add.some(isMissing)) ||
      (step.type === 'add-rules' && step.rules.some((rule) => keys.has(keyOfRule(rule)))) ||
      (step.type === 'change-port' && (step.change.joins.length > 0 || step.change.addPairs.some((added) => isForNeed(need, added)))),
  );
}
