// Makes a cloud as a wish has it: reads, plans, takes the steps, and reads again until there is nothing left to do. When somebody
// else changes the same things meanwhile (a revision that has moved on), it begins anew from what is there then.
import { Fault, isFault } from '#model/fault.ts';
import { askingFor, type BalancerStep, futileAmong, isBalancerStep } from './balancer-steps.ts';
import { changeBalancer, wasNothing } from './balancing.ts';
import { type FloatingStep, isFloatingStep, isFloatingTag, madeDescription } from './floating.ts';
import { inLanes } from './lanes.ts';
import type { Neutron } from './neutron.ts';
import type { NeutronPort, NeutronRouter, SecurityGroup } from './neutron-schemas.ts';
import { Octavia } from './octavia.ts';
import {
  changeOfPort,
  type CloudPlan,
  type CloudState,
  ourGroups,
  planCloud,
  portAfter,
  type PortStep,
  type Step,
  unfinished,
} from './plan.ts';
import { pairsToldIn, tagOf } from './pairs.ts';
import { changePool, isPooledStep } from './pools.ts';
import { groupsOf, type ReadState } from './reading.ts';
import { isShort, quotaName, type QuotaUse } from './quotas.ts';
import { isRefusal, lessFor, withoutPart } from './refused.ts';
import { changeOfRoutes } from './router.ts';
import { describeRule } from './rules.ts';
import { isVirtualStep, virtualDevice, virtualOwner, type VirtualStep } from './virtual.ts';
import type { Wish, WishedGroup, WishedRule } from './wish.ts';

const mostRounds = 5;

export interface Applied {
  /** Steps that were taken, in order. */
  readonly steps: readonly Step[];
  /** How it is now: without steps. */
  readonly plan: CloudPlan;
  /** What was wished for, with what the cloud has refused of it. */
  readonly wish: Wish;
}

/**
 * Faults: `exhausted` when a quota would not do for what hosts need, after what only closes was done and before anything else;
 * `conflict` when others keep changing the same; and as Neutron's. What only closes is done then all the same, and whatever was done is
 * taken up or undone by the next run.
 */
export async function applyWish(neutron: Neutron, wanted: Wish, read: ReadState): Promise<Applied> {
  const taken: Step[] = [];
  let wish = wanted;
  for (let round = 1; ;) {
    const state = await read(wish);
    const { plan, ...possible } = planWithin(wish, state, taken);
    ({ wish } = possible);
    if (plan.steps.length === 0) return { steps: taken, plan, wish };
    if (round > mostRounds) {
      throw new Fault('conflict', `The cloud is not as wished after ${mostRounds} rounds: somebody else changes it, too`, {
        hint: 'Find out who else writes to these ports and security groups, then repeat the command',
      });
    }
    try {
      await take({ neutron, wish: plan.wish, target: state.target }, possible.steps, (step) => taken.push(step));
      round++;
    } catch (error) {
      // What is refused of one exposure or router keeps nothing else from being done, and takes no round.
      if (error instanceof Refused) {
        wish = error.without(wish);
        continue;
      }
      round++;
      const isRace = isFault(error, 'conflict') || isFault(error, 'exists') || isFault(error, 'not-found') || isFault(error, 'in-use');
      if (isRace && round <= mostRounds) continue;
      const closings = plan.closings.filter((step) => !taken.includes(step));
      await closeAnyway({ neutron, wish: plan.wish, target: state.target }, closings, (step) => taken.push(step));
      throw error;
    }
  }
}

/** Nothing stays open that nobody needs because something else cannot be opened. What is told is why that cannot be. */
async function closeAnyway(doing: Doing, closings: readonly Step[], done: (step: Step) => void): Promise<void> {
  try {
    await take(doing, closings, done);
  } catch (error) {
    if (!isFault(error) && !(error instanceof Refused)) throw error;
  }
}

/** The cloud does not let a part of the wish be. */
class Refused extends Error {
  /** The rest of the wish. */
  readonly without: (wish: Wish) => Wish;

  constructor(message: string, without: (wish: Wish) => Wish) {
    super(message);
    this.without = without;
  }
}

async function changeExposed(octavia: Octavia, step: BalancerStep): Promise<void> {
  try {
    await changeBalancer(octavia, step);
    if (step.type === 'remove-balancer' && step.id !== undefined && wasNothing(step.balancer)) {
      const { id, balancer } = step;
      const why = `load balancer ${balancer.name} came to nothing (state ERROR) and is removed; another is made at the next look`;
      throw new Refused(why, (wish) => withoutBalancer(wish, id, why));
    }
  } catch (error) {
    if (error instanceof Refused) throw error;
    const id = askingFor(step);
    throw id !== undefined && isRefusal(error) ? new Refused(error.message, (wish) => withoutBalancer(wish, id, error.message)) : error;
  }
}

const withoutBalancer = (wish: Wish, id: string, refused: string): Wish => ({
  ...wish,
  balancers: wish.balancers.map((one) => (one.id === id ? { ...one, refused } : one)),
});

interface Possible {
  readonly plan: CloudPlan;
  /** Those of its steps that are to be taken now. */
  readonly steps: readonly Step[];
  /** What the plan is for. */
  readonly wish: Wish;
}

/** What came to nothing again has its turn at the next look, and is in nobody's way. */
function withoutFutile(plan: CloudPlan, taken: readonly Step[]): CloudPlan {
  const futile = futileAmong(plan.steps, taken);
  if (futile.length === 0) return plan;
  const names = new Set(futile.map(({ balancer }) => balancer.name));
  const troubles = [...names].map(
    (name) => `Load balancer ${name}: members or probes came to nothing (state ERROR), also when they were asked for again`,
  );
  const isLeft = (step: Step): boolean => !futile.some((one) => one === step);
  return { ...plan, steps: plan.steps.filter(isLeft), closings: plan.closings.filter(isLeft), problems: [...plan.problems, ...troubles] };
}

/**
 * While a quota is short only what closes is done, which may be all that it needs. What is lacking then is told of exposures, of which there
 * are less; what hosts need is never done by halves.
 */
function planWithin(wanted: Wish, state: CloudState, taken: readonly Step[]): Possible {
  for (let wish = wanted; ;) {
    const plan = withoutFutile(planCloud(wish, state), taken);
    const short = plan.quotas.filter(isShort);
    const [first] = short;
    if (first === undefined) return { plan, steps: plan.steps, wish };
    if (plan.closings.length > 0) return { plan, steps: plan.closings, wish };
    const less = short.map((use) => lessFor(wish, plan.steps, use)).find((one) => one !== undefined);
    if (less === undefined) throw exhausted(first, taken);
    wish = less;
  }
}

function exhausted(short: QuotaUse, taken: readonly Step[]): Fault {
  const name = quotaName(short);
  const done = taken.length === 0 ? 'Nothing was changed' : 'Only what nothing needs any more was removed';
  return new Fault('exhausted', `The quota of ${name}s would not do: ${short.most} needed, ${short.limit} allowed. ${done}`, {
    hint: `Remove ${name}s that are not needed, or ask the operator of the cloud for more`,
  });
}

/**
 * In the plan's order; ports that follow each other beside each other. Whose address pairs may not be written is left as it is from then on; what
 * else is forbidden of a port is told after all other steps.
 */
async function take(doing: Doing, steps: readonly Step[], done: (step: Step) => void): Promise<void> {
  const forbidden: Fault[] = [];
  const unpaired = new Map<string, string>();
  const { neutron, wish } = doing;
  const groups = new Map<string, SecurityGroup>();
  for (const [name, group] of ourGroups(wish, await groupsOf(neutron)).kept) groups.set(name, group);
  for (let index = 0; index < steps.length;) {
    const rest = steps.slice(index);
    const end = rest.findIndex(({ type }) => type !== 'change-port');
    const ports = rest.slice(0, end < 0 ? undefined : end).filter((step) => step.type === 'change-port');
    const [step] = rest;
    if (ports.length > 0) {
      const all = await groupsOf(neutron);
      await inLanes(ports, async (one) => {
        try {
          const why = await changePort(neutron, wish, { ...one, groups: all });
          if (why === undefined) done(one);
          else unpaired.set(one.port.id, why);
        } catch (error) {
          if (!isFault(error, 'forbidden')) throw error;
          forbidden.push(error);
        }
      });
      const [why] = unpaired.values();
      if (why !== undefined) throw new Refused(why, (left) => withoutPart(left, 'pairs', unpaired));
    } else if (step !== undefined && step.type !== 'change-port') {
      await takeOne(doing, { step, groups });
      done(step);
    }
    index += Math.max(ports.length, 1);
  }
  const [first] = forbidden;
  if (first !== undefined) throw first;
}

interface Doing {
  readonly neutron: Neutron;
  readonly wish: Wish;
  readonly target: string | undefined;
}
interface Taking {
  readonly step: Exclude<Step, { type: 'change-port' }>;
  readonly groups: Map<string, SecurityGroup>;
}

async function takeOne({ neutron, wish, target }: Doing, { step, groups }: Taking): Promise<void> {
  if (isBalancerStep(step)) return changeExposed(new Octavia(neutron.session), step);
  if (isPooledStep(step)) return changePool(neutron, step, { name: wish.name, group: () => idOf(groups, wish.name) });
  if (isVirtualStep(step)) {
    const keys = step.type === 'make-virtual-port' ? [step.wished.key] : [];
    return orWithout(() => changeVirtual(neutron, step, wish.name), 'virtual', keys);
  }
  if (isFloatingStep(step)) {
    const ids = step.type === 'release-floating-ip' ? [] : step.exposures;
    return orWithout(() => changeFloatingIp(neutron, tagOf(wish.name), step), 'floating', ids);
  }
  switch (step.type) {
    case 'make-group':
      groups.set(step.group.name, await makeGroup(neutron, wish.name, step.group));
      return;
    case 'add-rules':
      await neutron.createAll(
        'security-group-rules',
        step.rules.map((rule) => bodyOf(rule, idOf(groups, step.group), () => idOf(groups, wish.name))),
      );
      return;
    case 'change-routes':
      await changeRoutes({ neutron, wish, target }, step.router);
      return;
    case 'remove-rules':
      for (const rule of step.rules) await neutron.remove('security-group-rules', rule);
      return;
    case 'remove-group':
      await neutron.remove('security-groups', { id: step.group.id });
      return;
  }
}

/** What the cloud refuses of these exposures it is not asked for again. */
async function orWithout(work: () => Promise<void>, part: 'floating' | 'virtual', keys: readonly string[]): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw isRefusal(error) && keys.length > 0
      ? new Refused(error.message, (wish) => withoutPart(wish, part, new Map(keys.map((key) => [key, error.message]))))
      : error;
  }
}

/** Without groups: what passes is decided by those of the host that has the address. */
async function changeVirtual(neutron: Neutron, step: VirtualStep, name: string): Promise<void> {
  if (step.type === 'remove-virtual-port') return neutron.remove('ports', { id: step.port.id });
  const { wished, network, subnet } = step;
  await neutron.create('ports', {
    name: `${name}-virtual-${wished.what.replaceAll(' ', '-')}`.slice(0, 255),
    network_id: network,
    fixed_ips: [{ subnet_id: subnet }],
    security_groups: [],
    device_owner: virtualOwner,
    device_id: virtualDevice(name, wished),
    description: `Address that moves between the hosts of ${wished.what}`.slice(0, 255),
  });
}

function idOf(groups: ReadonlyMap<string, SecurityGroup>, name: string): string {
  const id = groups.get(name)?.id;
  if (id === undefined) throw new Fault('conflict', `Security group ${name} has gone meanwhile`);
  return id;
}

/**
 * Neutron gives every new group rules that let everything out. They go first; only a group that has its description and tag
 * counts as ours, and an unfinished one is removed by the next plan.
 */
async function makeGroup(neutron: Neutron, name: string, group: WishedGroup): Promise<SecurityGroup> {
  const made = await neutron.create('security-groups', { name: group.name, description: unfinished(name) });
  try {
    for (const rule of made.rules) await neutron.remove('security-group-rules', rule);
    await neutron.setTags('security-groups', made.id, [tagOf(name)]);
    return await neutron.update('security-groups', { id: made.id }, { description: group.description });
  } catch (error) {
    // A cloud that fails again and again is not to fill up with them. What cannot be removed now is by the next plan.
    await neutron.remove('security-groups', { id: made.id }).catch(() => undefined);
    throw error;
  }
}

function bodyOf(rule: WishedRule, group: string, hosts: () => string): object {
  const { direction, ethertype, protocol, port, remote } = rule;
  return {
    security_group_id: group,
    direction,
    ethertype,
    description: describeRule(rule),
    ...(protocol === undefined ? {} : { protocol: String(protocol) }),
    ...(port === undefined ? {} : { port_range_min: port, port_range_max: port }),
    ...(remote === undefined ? {} : remote === 'hosts' ? { remote_group_id: hosts() } : { remote_ip_prefix: remote }),
  };
}

/**
 * Tags before what they tell of, and longer than it: a pair of ours is never without its tag. Why its pairs may not be written, where the cloud
 * refuses that and nothing was changed.
 */
async function changePort(
  neutron: Neutron,
  wish: Wish,
  { port, wish: wished, groups }: PortStep & { readonly groups: readonly SecurityGroup[] },
): Promise<string | undefined> {
  const { kept } = ourGroups(wish, groups);
  const tagging = changeOfPort(wish, wished, { port, groups });
  for (const tag of tagging?.addTags ?? []) await neutron.addTag('ports', port.id, tag);
  const fresh: NeutronPort = await neutron.get('ports', port.id);
  const change = changeOfPort(wish, wished, { port: fresh, groups });
  if (change === undefined) return undefined;
  if ([change.joins, change.leaves, change.addPairs, change.removePairs].some(({ length }) => length > 0)) {
    const after = portAfter(fresh, change, (name) => idOf(kept, name));
    const hasNewPairs = change.addPairs.length + change.removePairs.length > 0;
    const fields = { security_groups: after.groups, ...(hasNewPairs ? { allowed_address_pairs: after.pairs } : {}) };
    try {
      await neutron.update('ports', fresh, fields);
    } catch (error) {
      if (isFault(error)) learnPairs(neutron, error);
      if (!hasNewPairs || !isFault(error, 'forbidden')) throw error;
      for (const tag of tagging?.addTags ?? []) await neutron.removeTag('ports', port.id, tag);
      return `${error.message}. Your login may not write allowed address pairs`;
    }
  }
  for (const tag of change.removeTags) await neutron.removeTag('ports', port.id, tag);
  return undefined;
}

/** A plan that knows it leaves out what is too much, so another one is made. Fault `conflict` where the cloud has told it now. */
function learnPairs(neutron: Neutron, cause: Fault): void {
  const told = isFault(cause, 'exhausted') ? pairsToldIn(cause.message) : undefined;
  if (told === undefined) return;
  neutron.mostPairs = told;
  throw new Fault('conflict', cause.message, { cause });
}

/** Tags of one of the user's before it is put anywhere, so that it is known whence it came; it loses them last. */
async function changeFloatingIp(neutron: Neutron, tag: string, step: FloatingStep): Promise<void> {
  if (step.type === 'make-floating-ip') {
    const { network, subnet, port, fixed, tags } = step;
    const place = { floating_network_id: network, ...(subnet === undefined ? {} : { subnet_id: subnet }) };
    const fields = { ...place, port_id: port.id, fixed_ip_address: fixed, description: madeDescription(tag) };
    const { id } = await neutron.create('floatingips', fields);
    await neutron.setTags('floatingips', id, tags);
    return;
  }
  const { id, tags } = step.floating;
  if (step.type === 'change-floating-ip') {
    for (const one of step.addTags) await neutron.addTag('floatingips', id, one);
    if (step.target !== undefined) {
      await neutron.update('floatingips', { id }, { port_id: step.target.port, fixed_ip_address: step.target.fixed });
    }
    for (const one of step.removeTags) await neutron.removeTag('floatingips', id, one);
    return;
  }
  if (step.type === 'detach-floating-ip') {
    await neutron.update('floatingips', { id }, { port_id: null });
    return;
  }
  if (step.isMade) return neutron.remove('floatingips', { id });
  const fields = { ...(step.isOurs ? { port_id: null } : {}), ...(step.isKept ? { description: '' } : {}) };
  if (Object.keys(fields).length > 0) await neutron.update('floatingips', step.floating, fields);
  for (const one of tags.filter((found) => isFloatingTag(tag, found))) await neutron.removeTag('floatingips', id, one);
}

async function changeRoutes({ neutron, wish, target }: Doing, { id, name }: NeutronRouter): Promise<void> {
  const tagging = changeOfRoutes(wish, await neutron.get('routers', id), target);
  try {
    for (const tag of tagging?.addTags ?? []) await neutron.addTag('routers', id, tag);
    const fresh = await neutron.get('routers', id);
    const change = changeOfRoutes(wish, fresh, target);
    if (change === undefined) return;
    if (change.add.length + change.remove.length > 0) {
      const kept = fresh.routes.filter((route) => !change.remove.includes(route));
      await neutron.setRoutes(fresh, [...kept, ...change.add]);
    }
    for (const tag of change.removeTags) await neutron.removeTag('routers', id, tag);
  } catch (error) {
    if (id !== target || !isRefusal(error)) throw error;
    const refused = `Router ${name || id} is not told the ways to hosts: ${error.message}`;
    throw new Refused(refused, (all) => ({ ...all, routes: { ...all.routes, refused } }));
  }
}
