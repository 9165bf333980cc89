// ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2 as ordered rules (network-policy-api, clusternetworkpolicy_types.go).
// A peer, protocol or action that is not known here must "fail closed": a rule that accepts then matches nothing, and one that
// denies or passes denies everything.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { Cidr } from '#model/ip.ts';
import { type Action, type Direction, type PortSpec, protocols, type Rule } from '#model/policy.ts';
import type { Selector } from '#model/selector.ts';
import { both, labelSelector, selectorOf } from './label-selector.ts';
import { cidrIn, type Ports, type Problem, type Reading, rulesOf, Sets, unreadable } from './policy-parts.ts';

const pods = v.object({ namespaceSelector: v.optional(v.nullable(labelSelector)), podSelector: v.optional(v.nullable(labelSelector)) });
/** Strict: a field that is not known makes the peer unknown. */
const someone = v.union([v.strictObject({ namespaces: labelSelector }), v.strictObject({ pods })]);
const peer = v.union([someone, v.strictObject({ networks: v.array(v.string()) })]);
const number = v.strictObject({ number: field.port });
const range = v.strictObject({ range: v.object({ start: field.port, end: field.port }) });
const transport = v.nullish(v.strictObject({ destinationPort: v.optional(v.union([number, range])) }), {});
const protocol = v.union([
  v.strictObject({ tcp: transport }),
  v.strictObject({ udp: transport }),
  v.strictObject({ sctp: transport }),
  v.strictObject({ destinationNamedPort: v.string() }),
]);
const rules = v.optional(v.nullable(v.array(v.unknown())));
const policy = v.object({
  metadata: v.object({ name: v.string() }),
  spec: v.object({
    tier: v.picklist(['Admin', 'Baseline']),
    priority: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(1000)),
    subject: someone,
    ingress: rules,
    egress: rules,
  }),
});
const rule = v.object({
  name: v.optional(v.nullable(v.string()), ''),
  action: v.string(),
  from: v.optional(v.array(v.unknown())),
  to: v.optional(v.array(v.unknown())),
  protocols: v.optional(v.nullable(v.array(v.unknown()))),
});
const unknownRule: v.InferOutput<typeof rule> = { name: '', action: '' };
const actions: Readonly<Record<string, Action>> = { Accept: 'allow', Deny: 'deny', Pass: 'pass' };

function selectorFor(whom: v.InferOutput<typeof someone>): Selector {
  if ('namespaces' in whom) return selectorOf(whom.namespaces, 'namespace');
  return both(selectorOf(whom.pods.namespaceSelector ?? {}, 'namespace'), selectorOf(whom.pods.podSelector ?? {}, 'endpoint'));
}

type PortChoice = v.InferOutput<typeof number> | v.InferOutput<typeof range> | undefined;
const specOf = (choice: PortChoice): { readonly ports?: PortSpec } => {
  if (choice === undefined) return {};
  const ends: [number, number] = 'number' in choice ? [choice.number, choice.number] : [choice.range.start, choice.range.end];
  return { ports: { ranges: [ends], named: [] } };
};

function portsOf(item: v.InferOutput<typeof protocol>): Ports[] {
  if ('tcp' in item) return [{ protocol: protocols.tcp, ...specOf(item.tcp?.destinationPort) }];
  if ('udp' in item) return [{ protocol: protocols.udp, ...specOf(item.udp?.destinationPort) }];
  if ('sctp' in item) return [{ protocol: protocols.sctp, ...specOf(item.sctp?.destinationPort) }];
  const named = { ranges: [], named: [item.destinationNamedPort] };
  return [protocols.tcp, protocols.udp, protocols.sctp].map((one) => ({ protocol: one, ports: named }));
}

/** Undefined: some are unknown, and `unknown` gets their places. */
function peersOf(items: readonly unknown[], at: string, { sets, unknown }: { sets: Sets; unknown: string[] }): string | undefined {
  const selectors: Selector[] = [];
  const cidrs: Cidr[] = [];
  const before = unknown.length;
  for (const [place, item] of items.entries()) {
    const read = v.safeParse(peer, item);
    if (!read.success) unknown.push(`${at}[${place}]`);
    else if ('networks' in read.output) {
      const some = read.output.networks.map(cidrIn);
      if (some.includes(undefined)) unknown.push(`${at}[${place}].networks[${some.indexOf(undefined)}]`);
      cidrs.push(...some.flatMap((one) => one ?? []));
    } else selectors.push(selectorFor(read.output));
  }
  if (items.length === 0) unknown.push(at);
  return unknown.length === before ? sets.add(selectors, cidrs) : undefined;
}

function portsIn(items: readonly unknown[], at: string, unknown: string[]): Ports[] {
  return items.flatMap((item, place) => {
    const read = v.safeParse(protocol, item);
    if (!read.success) unknown.push(`${at}[${place}]`);
    return read.success ? portsOf(read.output) : [];
  });
}

interface Into {
  readonly direction: Direction;
  readonly sets: Sets;
  readonly problems: Problem[];
}

function readRule(item: unknown, index: number, { direction, sets, problems }: Into): Rule[] {
  const read = v.safeParse(rule, item);
  const { name: own, action: word, protocols: listed, from, to } = read.success ? read.output : unknownRule;
  const name = (own ?? '') || `${direction} ${index + 1}`;
  const action = actions[word];
  const at = `spec.${direction}[${index}]`;
  const unknown = action === undefined ? [`${at}.action`] : [];
  const [side, items = []] = direction === 'ingress' ? ['from', from] : ['to', to];
  const peers = peersOf(items, `${at}.${side}`, { sets, unknown });
  const ports = portsIn(listed ?? [], `${at}.protocols`, unknown);
  if (action !== undefined && peers !== undefined && unknown.length === 0)
    return rulesOf({ name, action, direction, peers, ...(ports.length === 0 ? {} : { ports }) });
  const message = `This is not known here; the rule ${action === 'allow' ? 'accepts nothing' : 'denies everything'}`;
  problems.push(...unknown.map((where): Problem => ({ field: where, reason: 'Unsupported', message })));
  return action === 'allow' ? [] : rulesOf({ name, action: 'deny', direction });
}

/** Without a policy: it cannot be read so far that one could say whom it is for. */
export function readClusterNetworkPolicy(item: unknown): Reading {
  const read = v.safeParse(policy, item);
  if (!read.success) return unreadable(read.issues[0]);
  const { metadata, spec } = read.output;
  const sets = new Sets();
  const problems: Problem[] = [];
  // "CNPs with no ingress rules do not affect ingress traffic."
  const of = (direction: Direction): Partial<Record<Direction, readonly Rule[]>> => {
    const items = spec[direction] ?? [];
    if (items.length === 0) return {};
    return { [direction]: items.flatMap((one, index) => readRule(one, index, { direction, sets, problems })) };
  };
  return {
    policy: {
      key: `ClusterNetworkPolicy ${metadata.name}`,
      tier: spec.tier === 'Admin' ? 'kube-admin' : 'kube-baseline',
      order: spec.priority,
      name: metadata.name,
      subject: selectorFor(spec.subject),
      ...of('ingress'),
      ...of('egress'),
      sets: sets.specs,
    },
    problems,
  };
}
