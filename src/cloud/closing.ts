// What of a plan only closes, which is done also while a quota is short of what the rest needs: nothing stays open that nobody needs. Nothing
// that is needed before and after goes with it, as what is to come in its place may not come. Pure.
import type { BalancerPlan } from './balancers.ts';
import type { FloatingPlan } from './floating.ts';
import type { SecurityGroup, SecurityGroupRule } from './neutron-schemas.ts';
import type { PortStep, Step } from './plan.ts';
import type { PooledStep } from './pools.ts';
import type { RouterPlan } from './router.ts';
import type { VirtualPlan } from './virtual.ts';
import type { WishedRule } from './wish.ts';

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
  readonly floating: FloatingPlan;
  readonly balancers: BalancerPlan;
  readonly ports: readonly PortStep[];
  readonly rules: readonly GroupRules[];
  readonly pooled: { readonly last: readonly PooledStep[] };
  readonly virtual: VirtualPlan;
  readonly router: RouterPlan;
  /** That nothing needs, without others' rules. */
  readonly unused: readonly SecurityGroup[];
}

export const removalOf = ({ group, old }: Pick<GroupRules, 'group' | 'old'>): Step[] =>
  old.length === 0 ? [] : [{ type: 'remove-rules', group, rules: old }];

export function closingsOf({ floating, balancers, ports, rules, pooled, virtual, router, unused }: Parts): Step[] {
  const staying = ports.filter((step) => !isLeaving(step));
  const isIn = ({ id }: SecurityGroup): boolean => staying.some(({ port }) => port.groups.includes(id));
  const growing = new Set(balancers.changes.flatMap((step) => (step.type === 'add-listener' ? [step.balancer.id] : [])));
  return [
    ...floating.releases,
    ...balancers.removals,
    ...ports.filter(isLeaving),
    ...rules.flatMap(({ group, missing, old }) =>
      removalOf({ group, old: old.filter((rule) => !missing.some((one) => isLike(one, rule))) }),
    ),
    ...pooled.last,
    // Nobody else is to get the address while a host may send with it.
    ...(staying.some(({ change }) => change.removePairs.length > 0) ? [] : virtual.left),
    ...router.changes.filter(({ change }) => change.add.length === 0).map((change): Step => ({ type: 'change-routes', ...change })),
    ...balancers.changes.filter((step) => step.type === 'remove-listener' && !growing.has(step.balancer.id)),
    ...unused.filter((group) => !isIn(group)).map((group): Step => ({ type: 'remove-group', group })),
  ];
}

/** What the one admits may be what the other does, whoever is at the other end. */
const isLike = (wished: WishedRule, found: SecurityGroupRule): boolean =>
  wished.direction === found.direction &&
  wished.ethertype === found.ethertype &&
  (wished.port === undefined || found.portMin === undefined || wished.port === found.portMin);
