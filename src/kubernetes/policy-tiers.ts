// Policies in the tiers that the cluster has, and what becomes of those whose tier it has not.
import { type Action, byTierOrder, type Direction, type OrderedPolicy, type Rule, type Tier } from '#model/policy.ts';

export interface Placed {
  readonly tiers: readonly Tier[];
  readonly policies: ReadonlyMap<string, OrderedPolicy>;
}

/**
 * A policy of a tier that is not there is weighed before all others, so that what it denies is denied wherever it may come to
 * stand, and what it would allow is left to the others.
 */
export function placedInTiers(chosen: readonly OrderedPolicy[], known: ReadonlyMap<string, Tier>): Placed {
  const missing = new Set(chosen.map(({ tier }) => tier).filter((name) => !known.has(name)));
  const before = [...missing].map((name): Tier => ({ name, order: -Infinity, otherwise: 'deny' }));
  const placed = (policy: OrderedPolicy): OrderedPolicy => {
    const otherwise = known.get(policy.tier)?.otherwise;
    if (policy.staged === true) return rewritten(policy, (rules, direction) => [...rules, atLast(direction, otherwise ?? 'deny')]);
    return otherwise === undefined ? rewritten(policy, closed) : policy;
  };
  return {
    tiers: [...known.values(), ...before].toSorted(byTierOrder),
    policies: new Map(chosen.map((policy) => [policy.key, placed(policy)])),
  };
}

const closed = (rules: readonly Rule[]): Rule[] => rules.map((rule) => (rule.action === 'allow' ? { ...rule, action: 'pass' } : rule));

/** What a staged policy leaves to the others of its tier, and to the tier's own word when it is the only one. */
const atLast = (direction: Direction, action: Action): Rule => ({ name: `${direction} otherwise`, action, source: {}, destination: {} });

function rewritten(policy: OrderedPolicy, change: (rules: readonly Rule[], direction: Direction) => Rule[]): OrderedPolicy {
  const { ingress, egress, ...rest } = policy;
  return {
    ...rest,
    ...(ingress === undefined ? {} : { ingress: change(ingress, 'ingress') }),
    ...(egress === undefined ? {} : { egress: change(egress, 'egress') }),
  };
}
