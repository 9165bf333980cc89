// NetworkPolicy of networking.k8s.io/v1 as ordered rules. It only ever allows; what it selects and no rule of any of them lets
// through is refused. A peer or port that cannot be read therefore allows nothing, which is told.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { Cidr } from '#model/ip.ts';
import type { Direction, Rule } from '#model/policy.ts';
import { subtract } from '#model/ranges.ts';
import type { Selector } from '#model/selector.ts';
import { both, inNamespace, type LabelSelector, labelSelector, selectorOf } from './label-selector.ts';
import { cidrIn, numberOf, type Ports, type Reading, rulesOf, Sets, type TransportName } from './policy-parts.ts';

const peer = v.object({
  podSelector: v.optional(v.nullable(labelSelector)),
  namespaceSelector: v.optional(v.nullable(labelSelector)),
  ipBlock: v.optional(v.nullable(v.object({ cidr: v.string(), except: v.optional(v.nullable(v.array(v.string()))) }))),
});
const port = v.object({
  protocol: v.optional(v.nullable(v.picklist(['TCP', 'UDP', 'SCTP']))),
  port: v.optional(v.nullable(v.union([field.port, v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,63}$/))]))),
  endPort: v.optional(v.nullable(field.port)),
});
const parts = v.optional(v.nullable(v.array(v.unknown())));
const rule = v.object({ from: parts, to: parts, ports: parts });
const policy = v.object({
  metadata: v.object({ namespace: v.string(), name: v.string() }),
  spec: v.object({
    podSelector: v.optional(v.nullable(labelSelector)),
    policyTypes: v.optional(v.nullable(v.array(v.picklist(['Ingress', 'Egress'])))),
    ingress: parts,
    egress: parts,
  }),
});

class Reader {
  readonly sets = new Sets();
  readonly problems: string[] = [];
  readonly #namespace: string;

  constructor(namespace: string) {
    this.#namespace = namespace;
  }

  /** Absent or empty: anybody. */
  rules(items: readonly unknown[], direction: Direction): Rule[] {
    return items.flatMap((item, index) => {
      const name = `${direction} ${index + 1}`;
      const read = v.safeParse(rule, item);
      if (!read.success) return this.#refuse(name, 'is no rule');
      const peers = (direction === 'ingress' ? read.output.from : read.output.to) ?? [];
      const ports = read.output.ports ?? [];
      const readable = ports.flatMap((one) => this.#port(one, name));
      return rulesOf({
        name,
        action: 'allow',
        direction,
        ...(peers.length === 0 ? {} : { peers: this.#peers(peers, name) }),
        ...(ports.length === 0 ? {} : { ports: readable }),
      });
    });
  }

  #refuse(name: string, what: string): [] {
    this.problems.push(`${name} ${what} and allows nothing`);
    return [];
  }

  #peers(peers: readonly unknown[], name: string): string {
    const selectors: Selector[] = [];
    const cidrs: Cidr[] = [];
    for (const item of peers) {
      const read = v.safeParse(peer, item);
      const { podSelector, namespaceSelector, ipBlock } = read.success ? read.output : {};
      if (ipBlock !== undefined && ipBlock !== null) cidrs.push(...this.#block(ipBlock.cidr, ipBlock.except ?? [], name));
      else if ((podSelector ?? namespaceSelector ?? undefined) === undefined) this.#refuse(name, 'has a peer of an unknown sort');
      else selectors.push(both(this.#namespaces(namespaceSelector), selectorOf(podSelector ?? {}, 'endpoint')));
    }
    return this.sets.add(selectors, cidrs);
  }

  /** Without a selector of namespaces, the policy's own. */
  #namespaces(selector: LabelSelector | null | undefined): Selector {
    return selector === undefined || selector === null ? inNamespace(this.#namespace) : selectorOf(selector, 'namespace');
  }

  #block(text: string, except: readonly string[], name: string): Cidr[] {
    const [cidr, ...exceptions] = [text, ...except].map(cidrIn);
    // An exception that cannot be read might be any.
    if (cidr === undefined || exceptions.includes(undefined)) return this.#refuse(name, 'has an ipBlock that is no prefix');
    return subtract(
      [cidr],
      exceptions.flatMap((one) => one ?? []),
    );
  }

  #port(item: unknown, name: string): Ports[] {
    const read = v.safeParse(port, item);
    if (!read.success) return this.#refuse(name, 'has a port that cannot be read');
    const transport: TransportName = read.output.protocol ?? 'TCP';
    const protocol = numberOf[transport];
    const { port: first, endPort } = read.output;
    if (first === undefined || first === null) return endPort ? this.#refuse(name, 'has an endPort without port') : [{ protocol }];
    if (typeof first === 'string')
      return endPort ? this.#refuse(name, 'has an endPort beside a name') : [{ protocol, ports: { ranges: [], named: [first] } }];
    if (endPort && endPort < first) return this.#refuse(name, 'has an endPort below its port');
    return [{ protocol, ports: { ranges: [[first, endPort ?? first]], named: [] } }];
  }
}

/** Without a policy: it cannot be read so far that one could say whom it is for. */
export function readNetworkPolicy(item: unknown): Reading {
  const read = v.safeParse(policy, item);
  if (!read.success) return { problems: [`cannot be read: ${read.issues[0].message}`] };
  const { metadata, spec } = read.output;
  const reader = new Reader(metadata.namespace);
  // "If this field is not specified, it will default based on the existence of ingress or egress rules."
  const types = spec.policyTypes ?? [];
  const isFor = {
    ingress: types.length === 0 || types.includes('Ingress'),
    egress: types.length === 0 ? (spec.egress ?? []).length > 0 : types.includes('Egress'),
  };
  const ingress = isFor.ingress ? { ingress: reader.rules(spec.ingress ?? [], 'ingress') } : {};
  const egress = isFor.egress ? { egress: reader.rules(spec.egress ?? [], 'egress') } : {};
  return {
    policy: {
      key: `NetworkPolicy ${metadata.namespace}/${metadata.name}`,
      tier: 'default',
      order: 1000,
      subject: both(inNamespace(metadata.namespace), selectorOf(spec.podSelector ?? {}, 'endpoint')),
      ...ingress,
      ...egress,
      sets: reader.sets.specs,
    },
    problems: reader.problems,
  };
}
