// Calico's Tier, NetworkSet and GlobalNetworkSet (projectcalico.org/v3): in which order groups of policies are weighed, and
// prefixes that have labels, so that selectors pick them as they pick pods.
import * as v from 'valibot';
import { texts } from '#api/fields.ts';
import type { Cidr } from '#model/ip.ts';
import type { NamedPort, Tier } from '#model/policy.ts';
import { netIn } from './calico-rule.ts';
import { type Problem, tiers, unreadable } from './policy-parts.ts';

const tier = v.object({
  metadata: v.object({ name: v.string() }),
  spec: v.nullish(v.object({ order: v.nullish(v.number()), defaultAction: v.nullish(v.picklist(['Deny', 'Pass'])) }), {}),
});

const words = { pass: 'Pass', deny: 'Deny' } as const;

export interface TierReading {
  readonly tier?: Tier;
  readonly problems: readonly Problem[];
}

/** Those that are always there stay as they are, whatever the object says. */
export function readTier(item: unknown): TierReading {
  const read = v.safeParse(tier, item);
  if (!read.success) return unreadable(read.issues[0]);
  const { metadata, spec } = read.output;
  const { order, defaultAction } = spec ?? {};
  const fixed = tiers.find(({ name }) => name === metadata.name);
  if (fixed === undefined) {
    return { tier: { name: metadata.name, order: order ?? Infinity, otherwise: defaultAction === 'Pass' ? 'pass' : 'deny' }, problems: [] };
  }
  const isSame = (order ?? fixed.order) === fixed.order && (defaultAction ?? words[fixed.otherwise]) === words[fixed.otherwise];
  const message = `stays as it always is: order ${fixed.order}, defaultAction ${words[fixed.otherwise]}`;
  return { problems: isSame ? [] : [{ field: 'spec', reason: 'Unsupported', message }] };
}

/** A port that has a name where it is. */
export interface PlacedPort extends NamedPort {
  readonly name: string;
  readonly protocol: number;
}

/** Prefixes with labels. */
export interface NetworkSet {
  /** Absent: of the whole cluster. */
  readonly namespace?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly nets: readonly Cidr[];
  /** Ports that have names there. */
  readonly places?: readonly PlacedPort[];
}

export interface SetReading {
  readonly set?: NetworkSet;
  readonly problems: readonly Problem[];
}

const networkSet = v.object({
  metadata: v.object({
    namespace: v.optional(v.string()),
    labels: v.nullish(texts, {}),
  }),
  spec: v.nullish(v.object({ nets: v.nullish(v.array(v.unknown()), []) }), {}),
});

/** A prefix that cannot be read is in no set, which is told. */
export function readNetworkSet(item: unknown): SetReading {
  const read = v.safeParse(networkSet, item);
  if (!read.success) return unreadable(read.issues[0]);
  const { metadata, spec } = read.output;
  const problems: Problem[] = [];
  const nets = (spec?.nets ?? []).flatMap((said, index) => {
    const found = typeof said === 'string' ? netIn(said) : undefined;
    if (found === undefined) problems.push({ field: `spec.nets[${index}]`, reason: 'Invalid', message: 'expected an address or a prefix' });
    return found ?? [];
  });
  return {
    set: { ...(metadata.namespace === undefined ? {} : { namespace: metadata.namespace }), labels: metadata.labels ?? {}, nets },
    problems,
  };
}
