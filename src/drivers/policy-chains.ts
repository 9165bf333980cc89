// Chains of the policies of one table: one for each combination that occurs, in it the tiers, in those the policies. Names
// follow from what a chain means, so that whoever has the same combination shares it, and chains stay when others come and go.
import {
  type AddressSpec,
  type HostStage,
  type OrderedPolicy,
  type PolicyFacts,
  type Rule,
  type Tier,
  tiersFor,
  type Way,
} from '#model/policy.ts';
import { ChainNames } from './policy-names.ts';
import { labelOf, logging, renderRule } from './policy-rules.ts';

/** Of stages that come early: allowing ends them, and is remembered for the chains behind. Undecided packets go on. */
const allowing: Readonly<Record<HostStage, string | undefined>> = {
  untracked: 'goto allowed_untracked',
  untranslated: 'goto allowed_early',
  local: undefined,
  forwarded: undefined,
};
const wordOf: Readonly<Record<HostStage, string>> = { untracked: 'untracked_', untranslated: 'early_', local: '', forwarded: '' };

export class PolicyChains {
  readonly #facts: PolicyFacts;
  readonly #specs: ReadonlyMap<string, AddressSpec>;
  readonly #names = new ChainNames();
  readonly #chains = new Map<string, readonly string[]>();

  constructor(facts: PolicyFacts) {
    this.#facts = facts;
    this.#specs = new Map([...facts.policies.values()].flatMap(({ sets }) => Object.entries(sets)));
  }

  /** All that were asked for, and those that they lead to, in order of their names. */
  text(): string {
    return [...this.#chains]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, lines]) => `  chain ${name} {\n${lines.map((line) => `    ${line}\n`).join('')}  }\n`)
      .join('');
  }

  /** One jump for each tier that has a policy on that way. */
  tiers({ keys, direction, stage }: Way): string[] {
    return tiersFor(this.#facts, keys, direction).map(([tier, policies]) => `jump ${this.#tier(tier, policies, { direction, stage })}`);
  }

  /** Whether any of them decides. */
  isEnforced(keys: readonly string[]): boolean {
    return keys.some((key) => this.#facts.policies.get(key)?.staged !== true);
  }

  /** What ends a packet that nothing allows. */
  denial(label: string): string[] {
    const told = this.#facts.logDenied === true ? [logging(label)] : [];
    return [...told, `counter drop comment "${label}"`];
  }

  /** Name of the chain for what `meaning` says; `lines` are only asked for once. */
  chain(prefix: string, meaning: string, lines: () => readonly string[]): string {
    const name = this.#names.of(prefix, meaning);
    if (!this.#chains.has(name)) {
      this.#chains.set(name, []);
      this.#chains.set(name, lines());
    }
    return name;
  }

  #tier(tier: Tier, policies: readonly OrderedPolicy[], way: Omit<Way, 'keys'>): string {
    const { direction, stage } = way;
    const isLast = allowing[stage] === undefined && tier.otherwise === 'deny' && this.isEnforced(policies.map(({ key }) => key));
    const meaning = [direction, tier.name, ...policies.map(({ key }) => key)].join('\n');
    return this.chain(`${direction}_${wordOf[stage]}tier`, meaning, () => [
      ...policies.flatMap((policy) => this.#policy(policy, way)),
      ...(isLast ? this.denial(`${direction}: no policy of tier ${tier.name} allows it`) : []),
    ]);
  }

  /** A policy that may pass to the next tier has to return from the tier's own chain. */
  #policy(policy: OrderedPolicy, { direction, stage }: Omit<Way, 'keys'>): string[] {
    const rules = policy[direction] ?? [];
    if (policy.staged === true) {
      return [`jump ${this.chain(`${direction}_staged`, `${direction}\n${policy.key}`, () => this.#counted(policy, rules))}`];
    }
    const lines = (): string[] => rules.flatMap((rule) => this.#rule(policy, rule, stage));
    if (rules.some(({ action }) => action === 'pass')) return lines();
    return [`jump ${this.chain(`${direction}_${wordOf[stage]}policy`, `${direction}\n${policy.key}`, lines)}`];
  }

  /** The first rule of a staged policy that matches counts, and the tier goes on. */
  #counted(policy: OrderedPolicy, rules: readonly Rule[]): string[] {
    const deciding = rules.filter(({ action }) => action !== 'log');
    return deciding.flatMap((rule) =>
      renderRule({ ...rule, action: 'pass' }, { label: labelOf(policy.key, rule.name), specs: this.#specs, allow: undefined }),
    );
  }

  #rule(policy: OrderedPolicy, rule: Rule, stage: HostStage): string[] {
    const context = { label: labelOf(policy.key, rule.name), specs: this.#specs, allow: allowing[stage] };
    const told = rule.action === 'deny' && this.#facts.logDenied === true ? renderRule({ ...rule, action: 'log' }, context) : [];
    return [...told, ...renderRule(rule, context)];
  }
}
