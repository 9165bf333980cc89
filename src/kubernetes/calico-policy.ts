// Calico's policies as its users write them (projectcalico.org/v3), in the one ordered form: NetworkPolicy and GlobalNetworkPolicy,
// and those that are staged. Rules are read in calico-rule.ts.
import * as v from 'valibot';
import type { Direction, HostStage, OrderedPolicy, Rule } from '#model/policy.ts';
import type { Selector } from '#model/selector.ts';
import { accountSelector, endpointSelector, namespaceSelector, readCalicoRule } from './calico-rule.ts';
import { both, inNamespace } from './label-selector.ts';
import { readNetworkPolicy } from './network-policy.ts';
import { type Problem, type Reading, Sets, unreadable } from './policy-parts.ts';

const rules = v.optional(v.array(v.unknown()), []);
const spec = {
  tier: v.optional(v.string(), ''),
  order: v.optional(v.number()),
  selector: v.optional(endpointSelector),
  serviceAccountSelector: v.optional(accountSelector),
  types: v.optional(v.array(v.picklist(['Ingress', 'Egress'])), []),
  ingress: rules,
  egress: rules,
  performanceHints: v.optional(v.unknown()),
};
const globalSpec = {
  ...spec,
  namespaceSelector: v.optional(namespaceSelector),
  doNotTrack: v.optional(v.boolean(), false),
  preDNAT: v.optional(v.boolean(), false),
  applyOnForward: v.optional(v.boolean(), false),
};
const staging = { stagedAction: v.optional(v.picklist(['Set', 'Delete', 'Learn', 'Ignore']), 'Set') };
const namespaced = v.object({ metadata: v.object({ namespace: v.string(), name: v.string() }), spec: v.object({ ...spec, ...staging }) });
const global = v.object({ metadata: v.object({ name: v.string() }), spec: v.object({ ...globalSpec, ...staging }) });
const anySpec = v.object({ spec: v.record(v.string(), v.unknown()) });

type SaidSpec = v.InferOutput<typeof namespaced>['spec'];
type SaidGlobal = v.InferOutput<typeof global>['spec'];

interface Whose {
  readonly kind: string;
  readonly name: string;
  /** Absent: of the whole cluster. */
  readonly namespace?: string;
}

export const defaultTier = 'default';

/** Calico's tools write the tier before the name, as its older servers do. */
const shortName = (name: string, tier: string): string => (name.startsWith(`${tier}.`) ? name.slice(tier.length + 1) : name);

/** Without types: for what there are rules, and for ingress where there are none at all. */
const isFor = ({ types, ingress, egress }: SaidSpec, direction: Direction): boolean => {
  if (types.length > 0) return types.includes(direction === 'ingress' ? 'Ingress' : 'Egress');
  return direction === 'egress' ? egress.length > 0 : ingress.length > 0 || egress.length === 0;
};

/** Everything but subject, staging and hosts. */
function policyFrom(said: SaidSpec, { kind, name, namespace }: Whose, subject: Selector): { policy: OrderedPolicy; problems: Problem[] } {
  const sets = new Sets();
  const problems: Problem[] = [];
  const of = (direction: Direction): Partial<Record<Direction, readonly Rule[]>> => {
    if (!isFor(said, direction)) return {};
    const context = { direction, sets, problems, ...(namespace === undefined ? {} : { namespace }) };
    return { [direction]: said[direction].flatMap((one, index) => readCalicoRule(one, index, context)) };
  };
  const tier = said.tier === '' ? defaultTier : said.tier;
  const policy = {
    key: `${kind} ${namespace === undefined ? '' : `${namespace}/`}${name}`,
    tier,
    order: said.order ?? Infinity,
    name: shortName(name, tier),
    bindsToHost: true as const,
    subject,
    ...of('ingress'),
    ...of('egress'),
    sets: sets.specs,
  };
  return { policy, problems };
}

/** Names of fields that are not known, which are told and change nothing. */
function unknownFields(item: unknown, known: object): Problem[] {
  const read = v.safeParse(anySpec, item);
  const names = read.success ? Object.keys(read.output.spec) : [];
  return names
    .filter((name) => !Object.hasOwn(known, name))
    .map((name) => ({ field: `spec.${name}`, reason: 'Unsupported', message: 'is not known here and not followed' }));
}

/** Without a policy: it cannot be read so far that one could say whom it is for. */
export function readCalicoPolicy(item: unknown, kind = 'Calico NetworkPolicy'): Reading {
  const read = v.safeParse(namespaced, item);
  if (!read.success) return unreadable(read.issues[0]);
  const { metadata, spec: said } = read.output;
  const subject = both(inNamespace(metadata.namespace), ...[said.selector, said.serviceAccountSelector].flatMap((one) => one ?? []));
  const { policy, problems } = policyFrom(said, { kind, ...metadata }, subject);
  return { policy, problems: [...unknownFields(item, spec), ...problems] };
}

function stageOf({ doNotTrack, preDNAT, applyOnForward }: SaidGlobal): HostStage {
  if (doNotTrack) return 'untracked';
  if (preDNAT) return 'untranslated';
  return applyOnForward ? 'forwarded' : 'local';
}

/** As readCalicoPolicy, for a policy of the whole cluster. */
export function readGlobalPolicy(item: unknown, kind = 'GlobalNetworkPolicy'): Reading {
  const read = v.safeParse(global, item);
  if (!read.success) return unreadable(read.issues[0]);
  const { metadata, spec: said } = read.output;
  const parts = [said.selector, said.namespaceSelector, said.serviceAccountSelector].flatMap((one) => one ?? []);
  const { policy, problems } = policyFrom(said, { kind, ...metadata }, both(...parts));
  return { policy: { ...policy, onHosts: stageOf(said) }, problems: [...unknownFields(item, globalSpec), ...problems] };
}

const stagedItem = v.object({ spec: v.object(staging) });

/** What only `Set` puts on the stage: there is nothing to be counted of the others. */
function staged(item: unknown, read: (item: unknown) => Reading): Reading {
  const action = v.safeParse(stagedItem, item);
  if (!action.success) return unreadable(action.issues[0]);
  const word = action.output.spec.stagedAction;
  if (word !== 'Set')
    return { problems: [{ field: 'spec.stagedAction', reason: 'Unsupported', message: `of ${word} nothing is counted` }] };
  const { policy, problems } = read(withoutStaging(item));
  return { ...(policy === undefined ? {} : { policy: { ...policy, staged: true } }), problems };
}

function withoutStaging(item: unknown): unknown {
  const read = v.safeParse(v.looseObject({ spec: v.record(v.string(), v.unknown()) }), item);
  if (!read.success) return item;
  return { ...read.output, spec: Object.fromEntries(Object.entries(read.output.spec).filter(([name]) => name !== 'stagedAction')) };
}

export const readStagedPolicy = (item: unknown): Reading => staged(item, (one) => readCalicoPolicy(one, 'StagedNetworkPolicy'));
export const readStagedGlobalPolicy = (item: unknown): Reading => staged(item, (one) => readGlobalPolicy(one, 'StagedGlobalNetworkPolicy'));

/** One of Kubernetes' own on the stage. */
export const readStagedKubernetesPolicy = (item: unknown): Reading =>
  staged(item, (one) => {
    const { policy, problems } = readNetworkPolicy(one);
    if (policy === undefined) return { problems };
    return { policy: { ...policy, key: policy.key.replace(/^NetworkPolicy /, 'StagedKubernetesNetworkPolicy ') }, problems };
  });
