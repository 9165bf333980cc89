// NetworkPolicy of networking.k8s.io/v1 as ordered rules. It only ever allows; what it selects and no rule of any of them lets
// through is refused. A peer or port that cannot be read therefore allows nothing, which is told.
import * as v from 'valibot';
import { port as portNumber } from '#api/fields.ts';
import type { Cidr } from '#model/ip.ts';
import type { Direction, Rule } from '#model/policy.ts';
import { subtract } from '#model/ranges.ts';
import type { Selector } from '#model/selector.ts';
import { both, inNamespace, type LabelSelector, labelSelector, selectorOf } from './label-selector.ts';
import { cidrIn, numberOf, type Ports, type Problem, type Reading, rulesOf, Sets, type TransportName, unreadable } from './policy-parts.ts';

const peer = v.object({
  podSelector: v.optional(v.nullable(labelSelector)),
  namespaceSelector: v.optional(v.nullable(labelSelector)),
  ipBlock: v.optional(v.nullable(v.object({ cidr: v.string(), except: v.optional(v.nullable(v.array(v.string()))) }))),
});
const port = v.object({
  protocol: v.optional(v.nullable(v.picklist(['TCP', 'UDP', 'SCTP']))),
  port: v.optional(v.nullable(v.union([portNumber, v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,63}$/))]))),
  endPort: v.optional(v.nullable(portNumber)),
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
  readonly problems: Problem[] = [];
  readonly #namespace: string;

  constructor(namespace: string) {
    this.#namespace = namespace;
  }

  /** Absent or empty: anybody. */
  rules(items: readonly unknown[], direction: Direction): Rule[] {
    return items.flatMap((item, index) => {
      const field = `spec.${direction}[${index}]`;
      const read = v.safeParse(rule, item);
      if (!read.success) return this.#refuse(field, 'This is no rule');
      const side = direction === 'ingress' ? 'from' : 'to';
      const peers = read.output[side] ?? [];
      const ports = read.output.ports ?? [];
      const readable = ports.flatMap((one, place) => this.#port(one, `${field}.ports[${place}]`));
      return rulesOf({
        name: `${direction} ${index + 1}`,
        action: 'allow',
        direction,
        ...(peers.length === 0 ? {} : { peers: this.#peers(peers, `${field}.${side}`) }),
        ...(ports.length === 0 ? {} : { ports: readable }),
      });
    });
  }

  #refuse(field: string, what: string, reason: Problem['reason'] = 'Invalid'): [] {
    this.problems.push({ field, reason, message: `${what}; it allows nothing` });
    return [];
  }

  #peers(peers: readonly unknown[], field: string): string {
    const selectors: Selector[] = [];
    const cidrs: Cidr[] = [];
    for (const [place, item] of peers.entries()) {
      const where = `${field}[${place}]`;
      const read = v.safeParse(peer, item);
      const { podSelector, namespaceSelector, ipBlock } = read.success ? read.output : {};
      if (!read.success) this.#refuse([where, v.getDotPath(read.issues[0])].filter(Boolean).join('.'), 'This peer cannot be read');
      else if (ipBlock !== undefined && ipBlock !== null) cidrs.push(...this.#block(ipBlock.cidr, ipBlock.except ?? [], where));
      else if ((podSelector ?? namespaceSelector ?? undefined) === undefined)
        this.#refuse(where, 'This peer is of an unknown sort', 'Unsupported');
      else selectors.push(both(this.#namespaces(namespaceSelector), selectorOf(podSelector ?? {}, 'endpoint')));
    }
    return this.sets.add(selectors, cidrs);
  }

  /** Without a selector of namespaces, the policy's own. */
  #namespaces(selector: LabelSelector | null | undefined): Selector {
    return selector === undefined || selector === null ? inNamespace(this.#namespace) : selectorOf(selector, 'namespace');
  }

  #block(text: string, except: readonly string[], field: string): Cidr[] {
    const [cidr, ...exceptions] = [text, ...except].map(cidrIn);
    if (cidr === undefined) return this.#refuse(`${field}.ipBlock.cidr`, 'This is no prefix');
    // An exception that cannot be read might be any.
    const odd = exceptions.indexOf(undefined);
    if (odd !== -1) return this.#refuse(`${field}.ipBlock.except[${odd}]`, 'This is no prefix');
    return subtract(
      [cidr],
      exceptions.flatMap((one) => one ?? []),
    );
  }

  #port(item: unknown, field: string): Ports[] {
    const read = v.safeParse(port, item);
    if (!read.success) return this.#refuse([field, v.getDotPath(read.issues[0])].filter(Boolean).join('.'), 'This cannot be read');
    const transport: TransportName = read.output.protocol ?? 'TCP';
    const protocol = numberOf[transport];
    const { port: first, endPort } = read.output;
    const refuseEnd = (what: string): [] => this.#refuse(`${field}.endPort`, what);
    if (first === undefined || first === null) return endPort ? refuseEnd('There is no port that it could be the end of') : [{ protocol }];
    if (typeof first === 'string') return endPort ? refuseEnd('The port is a name') : [{ protocol, ports: { ranges: [], named: [first] } }];
    if (endPort && endPort < first) return refuseEnd('It is below the port');
    return [{ protocol, ports: { ranges: [[first, endPort ?? first]], named: [] } }];
  }
}

/** Without a policy: it cannot be read so far that one could say whom it is for. */
export function readNetworkPolicy(item: unknown): Reading {
  const read = v.safeParse(policy, item);
  if (!read.success) return unreadable(read.issues[0]);
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
      // As Calico names it among its own.
      name: `knp.default.${metadata.name}`,
      subject: both(inNamespace(metadata.namespace), selectorOf(spec.podSelector ?? {}, 'endpoint')),
      ...ingress,
      ...egress,
      sets: reader.sets.specs,
    },
    problems: reader.problems,
  };
}
