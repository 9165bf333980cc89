// Policy as a table of its own: the address of an endpoint leads by a verdict map to the chain of its combination of policies,
// so a packet costs the same however many policies others have, and packets of connections that stand cost one rule. Chains
// are the policies' structure; who is meant is elements of sets. Being let out (`egress`) and in (`ingress`) are two chains of
// the hook, since accepting ends one chain only. The node itself always reaches its endpoints and is reached by them, as the
// API says ("NetworkPolicy and the node"): that is not forwarded. Forwarded packets have the endpoint's address as a service
// has translated it, and the client's own.
import type { Desired, NftElement } from '#model/desired.ts';
import { type Cidr, bitsOf, cidrBase, cidrLength, type Family, familyOf } from '#model/ip.ts';
import { policyTableName } from '#model/numbers.ts';
import {
  type AddressSpec,
  type Direction,
  type GuardedEndpoint,
  type OrderedPolicy,
  type PolicyFacts,
  type Rule,
  type Tier,
  tiersFor,
} from '#model/policy.ts';
import { ChainNames } from './policy-names.ts';
import { labelOf, logging, namedSet, renderRule, setName } from './policy-rules.ts';

const families: readonly Family[] = [4, 6];
const directions: readonly Direction[] = ['egress', 'ingress'];
const mapOf: Readonly<Record<Direction, string>> = { egress: 'leaving', ingress: 'entering' };

const element = (set: string, key: string, value?: string): NftElement => ({
  netns: '',
  table: policyTableName,
  set,
  key,
  ...(value === undefined ? {} : { value }),
});

/** nft prints a prefix of full length as an address. */
const spelled = (cidr: Cidr): string => (cidrLength(cidr) === bitsOf(familyOf(cidr)) ? cidrBase(cidr) : cidr);

class Rendering {
  readonly #facts: PolicyFacts;
  readonly #specs: ReadonlyMap<string, AddressSpec>;
  readonly #names = new ChainNames();
  readonly #chains = new Map<string, readonly string[]>();

  constructor(facts: PolicyFacts) {
    this.#facts = facts;
    this.#specs = new Map([...facts.policies.values()].flatMap(({ sets }) => Object.entries(sets)));
  }

  /** Verdict for the first packet that goes that way; undefined: it is not known, so none. */
  verdict({ policies }: GuardedEndpoint, direction: Direction): string | undefined {
    if (policies === undefined) return undefined;
    return policies.length === 0 ? 'accept' : `goto ${this.#combination(policies, direction)}`;
  }

  /** All chains that the verdicts need, in order of their names. */
  text(): string {
    return [...this.#chains]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, lines]) => `  chain ${name} {\n${lines.map((line) => `    ${line}\n`).join('')}  }\n`)
      .join('');
  }

  #combination(keys: readonly string[], direction: Direction): string {
    return this.#chain(`${direction}_of`, [direction, ...keys].join('\n'), () => [
      'tcp flags & (syn | ack) != syn counter drop comment "no beginning of a connection"',
      ...tiersFor(this.#facts, keys, direction).map(([tier, policies]) => `jump ${this.#tier(tier, policies, direction)}`),
    ]);
  }

  #tier(tier: Tier, policies: readonly OrderedPolicy[], direction: Direction): string {
    return this.#chain(`${direction}_tier`, [direction, tier.name, ...policies.map(({ key }) => key)].join('\n'), () => [
      ...policies.flatMap((policy) => this.#policy(policy, direction)),
      ...(tier.otherwise === 'deny' ? this.#denial(`${direction}: no policy of tier ${tier.name} allows it`) : []),
    ]);
  }

  /** A policy that may pass to the next tier has to return from the tier's own chain. */
  #policy(policy: OrderedPolicy, direction: Direction): string[] {
    const rules = policy[direction] ?? [];
    const lines = (): string[] => rules.flatMap((rule) => this.#rule(policy, rule));
    if (rules.some(({ action }) => action === 'pass')) return lines();
    return [`jump ${this.#chain(`${direction}_policy`, `${direction}\n${policy.key}`, lines)}`];
  }

  #rule(policy: OrderedPolicy, rule: Rule): string[] {
    const label = labelOf(policy.key, rule.name);
    const told = rule.action === 'deny' && this.#facts.logDenied === true ? renderRule({ ...rule, action: 'log' }, label, this.#specs) : [];
    return [...told, ...renderRule(rule, label, this.#specs)];
  }

  #denial(label: string): string[] {
    const told = this.#facts.logDenied === true ? [logging(label)] : [];
    return [...told, `counter drop comment "${label}"`];
  }

  #chain(prefix: string, meaning: string, lines: () => readonly string[]): string {
    const name = this.#names.of(prefix, meaning);
    if (!this.#chains.has(name)) {
      this.#chains.set(name, []);
      this.#chains.set(name, lines());
    }
    return name;
  }
}

function declareSets({ policies, named }: PolicyFacts): string {
  const specs = new Map([...policies.values()].flatMap(({ sets }) => Object.entries(sets)));
  const sets = [...specs]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([id, { cidrs }]) =>
      families.map((family) => `  set ${setName(id, family)} { type ipv${family}_addr;${cidrs.length === 0 ? '' : ' flags interval;'} }\n`),
    );
  const ports = [...named.keys()]
    .toSorted()
    .flatMap((key) => families.map((family) => `  set ${namedSet(key, family)} { type ipv${family}_addr . inet_service; }\n`));
  return [...sets, ...ports].join('');
}

const base = (direction: Direction, side: 'saddr' | 'daddr', link: 'iifname' | 'oifname'): string => `  chain ${direction} {
    type filter hook forward priority filter + ${direction === 'egress' ? 1 : 2}; policy accept;
    ct state established,related accept
    ip saddr . ip daddr @itself4 accept
    ip6 saddr . ip6 daddr @itself6 accept
    ip ${side} vmap @${mapOf[direction]}4
    ip6 ${side} vmap @${mapOf[direction]}6
    ${link} "cwe*" counter drop comment "whose labels are not known yet"
  }
`;

/** Members of sets, then where endpoints' packets go. */
function elementsOf(facts: PolicyFacts, rendering: Rendering): NftElement[] {
  const sets = [...facts.sets].flatMap(([id, cidrs]) => cidrs.map((cidr) => element(setName(id, familyOf(cidr)), spelled(cidr))));
  const ports = [...facts.named].flatMap(([key, places]) =>
    [...new Map(places.map((place) => [`${place.ip} . ${place.port}`, place.ip]))].map(([text, ip]) =>
      element(namedSet(key, familyOf(ip)), text),
    ),
  );
  const ways = facts.endpoints.flatMap((endpoint) =>
    directions.flatMap((direction) => {
      const verdict = rendering.verdict(endpoint, direction);
      if (verdict === undefined) return [];
      return endpoint.addresses.map((ip) => element(`${mapOf[direction]}${familyOf(ip)}`, ip, verdict));
    }),
  );
  const itself = facts.endpoints.flatMap(({ addresses }) => addresses.map((ip) => element(`itself${familyOf(ip)}`, `${ip} . ${ip}`)));
  return [...sets, ...ports, ...ways, ...itself];
}

function render(facts: PolicyFacts): Pick<Desired, 'table' | 'element'> {
  const rendering = new Rendering(facts);
  const elements = elementsOf(facts, rendering);
  const maps = families.map(
    (family) => `  map leaving${family} { type ipv${family}_addr : verdict; }
  map entering${family} { type ipv${family}_addr : verdict; }
  set itself${family} { type ipv${family}_addr . ipv${family}_addr; }
`,
  );
  const text = `${maps.join('')}${declareSets(facts)}${rendering.text()}${base('egress', 'saddr', 'iifname')}${base('ingress', 'daddr', 'oifname')}`;
  // Nothing may be open for the time between the table and its elements.
  return { table: [{ netns: '', family: 'inet', name: policyTableName, text, elements }], element: elements };
}

const rendered = new WeakMap<PolicyFacts, Pick<Desired, 'table' | 'element'>>();

/** Nothing without facts: where there is no policy, nothing is looked at. The same facts are rendered once. */
export function planPolicy(facts: PolicyFacts | undefined): Partial<Desired> {
  if (facts === undefined) return {};
  let part = rendered.get(facts);
  if (part === undefined) rendered.set(facts, (part = render(facts)));
  return part;
}
