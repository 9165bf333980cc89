// What the agent says of policies on its own host: which are in force in which version, for how many endpoints, and how often
// each rule has let something pass or kept it from passing.
import { labelOf } from '#drivers/policy-rules.ts';
import type { RuleCount } from '#kernel/nft-counters.ts';
import type { Action, OrderedPolicy, PolicyFacts } from '#model/policy.ts';

export interface PolicyReport {
  readonly policy: string;
  readonly generation: number;
  /** Of this host, that it selects, and links of the host itself. 0: nothing of it is in the kernel here. */
  readonly endpoints: number;
  /** It only counts what it would decide. */
  readonly staged?: true;
  /** What of it cannot be served. */
  readonly problems: readonly string[];
  /** On all hosts, where the cluster says it. */
  readonly cluster?: ClusterView;
  /** First packets of connections, since the rules were loaded last. */
  readonly rules: readonly (RuleCount & { readonly rule: string; readonly action: Action })[];
}

/** What has become of a policy on all hosts. */
export interface ClusterView {
  readonly generation: number;
  /** Hosts that have it in the kernel and where it selects somebody. */
  readonly inForce: number;
  /** These, and those that have not confirmed yet. */
  readonly needed: number;
  /** What is not as it should be. */
  readonly problems: readonly string[];
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
  { counts, cluster }: { readonly counts: ReadonlyMap<string, RuleCount>; readonly cluster: ReadonlyMap<string, ClusterView> },
): PolicyReport[] {
  const here = new Set(known.map(({ policy }) => policy.key));
  // Those that cannot be read are nowhere but in what the cluster says.
  const others = [...cluster].flatMap(([policy, view]): PolicyReport[] =>
    here.has(policy) ? [] : [{ policy, generation: view.generation, endpoints: 0, problems: [], cluster: view, rules: [] }],
  );
  const selected = [...(facts?.endpoints ?? []), ...(facts?.host?.links ?? [])].flatMap(({ policies }) => policies ?? []);
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
      const everywhere = cluster.get(policy.key);
      return {
        policy: policy.key,
        generation,
        endpoints,
        ...staged,
        problems,
        ...(everywhere === undefined ? {} : { cluster: everywhere }),
        rules: endpoints === 0 ? [] : rules,
      };
    })
    .concat(others)
    .toSorted((a, b) => (a.policy < b.policy ? -1 : 1));
}
