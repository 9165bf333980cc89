// What of a plan only closes, which is done also while a quota is short of what the rest needs: nothing stays open that nobody needs. Nothing
// that is needed before and after goes with it, as what is to come in its place may not come. Pure.
import type { BalancerPlan } from './balancers.ts';
import type { FloatingPlan } from './floating.ts';
import type { SecurityGroup, SecurityGroupRule } from './neutron-schemas.ts';
import type { PortStep, Step } from './plan.ts';
import type { PooledStep } from './pools.ts';
import type { RouterPlan } from './router.ts';
import { isOurRule } from './rules.ts';
import type { VirtualPlan } from './virtual.ts';
import type { Wish, WishedRule } from './wish.ts';

/** Such a port must not see what the group that it leaves is about to get. */
export const isLeaving = ({ change }: PortStep): boolean => change.joins.length === 0 && change.addPairs.length === 0;

/** What becomes of the rules of a group. */
export interface GroupRules {
  readonly group: string;
  readonly missing: readonly WishedRule[];
  /** Of ours, that nothing needs. */
  readonly old: readonly SecurityGroupRule[];
}

export interface Parts {
  readonly wish: Wish;
  readonly floating: FloatingPlan;
  readonly balancers: BalancerPlan;
  readonly ports: readonly PortStep[];
  readonly rules: readonly GroupRules[];
  readonly pooled: { readonly last: readonly PooledStep[] };
  readonly virtual: VirtualPlan;
  readonly router: RouterPlan;
  /** That nothing needs. */
  readonly spare: readonly SecurityGroup[];
  /** Those of them that hold no rules of others. */
  readonly unused: readonly SecurityGroup[];
}

export const removalOf = ({ group, old }: Pick<GroupRules, 'group' | 'old'>): Step[] =>
  old.length === 0 ? [] : [{ type: 'remove-rules', group, rules: old }];

export function closingsOf(parts: Parts): Step[] {
  const { floating, balancers, ports, rules, pooled, virtual, router, unused } = parts;
  const staying = ports.filter((step) => !isLeaving(step));
  const gone = unused.filter(({ id }) => !staying.some(({ port }) => port.groups.includes(id)));
  const growing = new Set(
    balancers.changes.flatMap((step) => (step.type === 'add-listener' || step.type === 'add-monitor' ? [step.balancer.id] : [])),
  );
  return [
    ...floating.releases,
    ...balancers.removals,
    ...ports.filter(isLeaving),
    ...rules.flatMap(({ group, missing, old }) => removalOf({ group, old: unlike(old, missing) })),
    ...narrowed(parts, staying, gone),
    ...pooled.last,
    // Nobody else is to get the address while a host may send with it.
    ...(staying.some(({ change }) => change.removePairs.length > 0) ? [] : virtual.left),
    ...router.changes.filter(({ change }) => change.add.length === 0).map((change): Step => ({ type: 'change-routes', ...change })),
    ...balancers.changes.filter((step) => step.type === 'remove-listener' && !growing.has(step.balancer.id)),
    ...gone.map((group): Step => ({ type: 'remove-group', group })),
  ];
}

/** Who is in such a group yet joins another one in its place, which may not come: rules that that one is to have stay. */
function narrowed({ wish, spare }: Parts, staying: readonly PortStep[], gone: readonly SecurityGroup[]): Step[] {
  const wished = new Map(wish.groups.map(({ name, rules }) => [name, rules]));
  return spare
    .filter((group) => !gone.includes(group))
    .flatMap(({ id, name, rules }) => {
      const inside = staying.filter(({ port }) => port.groups.includes(id));
      const needed = inside.flatMap(({ change }) => change.joins.flatMap((join) => wished.get(join) ?? []));
      return removalOf({ group: name, old: unlike(rules.filter(isOurRule), needed) });
    });
}

const unlike = (rules: readonly SecurityGroupRule[], needed: readonly WishedRule[]): SecurityGroupRule[] =>
  rules.filter((rule) => !needed.some((one) => isLike(one, rule)));

/** What the one admits may be what the other does, whoever is at the other end. */
const isLike = (wished: WishedRule, found: SecurityGroupRule): boolean =>
  wished.direction === found.direction &&
  wished.ethertype === found.ethertype &&
  (wished.port === undefined || found.portMin === undefined || wished.port === found.portMin);
