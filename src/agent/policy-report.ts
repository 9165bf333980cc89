// What the agent says of policies on its own host: which are in force in which version, for how many endpoints, and how often
// each rule has let something pass or kept it from passing.
import { labelOf } from '#drivers/policy-rules.ts';
import type { RuleCount } from '#kernel/nft-counters.ts';
import type { Action, OrderedPolicy, PolicyFacts } from '#model/policy.ts';

export interface PolicyReport {
  readonly policy: string;
  readonly generation: number;
  /** Of this host, that it selects. 0: nothing of it is in the kernel here. */
  readonly endpoints: number;
  /** It only counts what it would decide. */
  readonly staged?: true;
  /** What of it cannot be served. */
  readonly problems: readonly string[];
  /** First packets of connections, since the rules were loaded last. */
  readonly rules: readonly (RuleCount & { readonly rule: string; readonly action: Action })[];
}

export interface KnownPolicy {
  readonly policy: OrderedPolicy;
  /** Which version of it: metadata.generation. */
  readonly generation: number;
  readonly problems: readonly string[];
}

/** Sorted by policy; rules in the order in which they are weighed. */
export function reportOf(
  known: readonly KnownPolicy[],
  facts: PolicyFacts | undefined,
  counts: ReadonlyMap<string, RuleCount>,
): PolicyReport[] {
  const selected = (facts?.endpoints ?? []).flatMap(({ policies }) => policies ?? []);
  return known
    .map(({ policy: said, generation, problems }): PolicyReport => {
      const policy = facts?.policies.get(said.key) ?? said;
      const endpoints = selected.filter((key) => key === policy.key).length;
      const actions = new Map([...(policy.ingress ?? []), ...(policy.egress ?? [])].map(({ name, action }) => [name, action]));
      const rules = [...actions].map(([rule, action]) => ({
        rule,
        action,
        ...(counts.get(labelOf(policy.key, rule)) ?? { packets: 0, bytes: 0 }),
      }));
      const staged = policy.staged === true ? { staged: policy.staged } : {};
      return { policy: policy.key, generation, endpoints, ...staged, problems, rules: endpoints === 0 ? [] : rules };
    })
    .toSorted((a, b) => (a.policy < b.policy ? -1 : 1));
}
