// Policy as a table of its own: the address of an endpoint leads by a verdict map to the chain of its combination of policies,
// so a packet costs the same however many policies others have, and packets of connections that stand cost one rule. Chains
// are the policies' structure; who is meant is elements of sets. Being let out (`egress`) and in (`ingress`) are two chains of
// the hook, since accepting ends one chain only. The node itself always reaches its endpoints and is reached by them, as the
// API says ("NetworkPolicy and the node"): that is not forwarded. Only where policies of Calico's have a word about what an endpoint
// sends, they have it about that, too (Felix: cali-wl-to-host). Forwarded packets have the endpoint's address as a service
// has translated it, and the client's own.
import type { Desired, NftElement } from '#model/desired.ts';
import { type Cidr, bitsOf, cidrBase, cidrLength, type Family, familyOf } from '#model/ip.ts';
import { policyTableName } from '#model/numbers.ts';
import { type Direction, type GuardedEndpoint, isBoundToHost, type PolicyFacts } from '#model/policy.ts';
import { type Carriers, planHostPolicy } from './host-policy.ts';
import { PolicyChains } from './policy-chains.ts';
import { namedSet, noBeginning, policyElement as element, setName } from './policy-rules.ts';

const families: readonly Family[] = [4, 6];
const directions: readonly Direction[] = ['egress', 'ingress'];
const mapOf: Readonly<Record<Direction, string>> = { egress: 'leaving', ingress: 'entering' };

/** nft prints a prefix of full length as an address. */
const spelled = (cidr: Cidr): string => (cidrLength(cidr) === bitsOf(familyOf(cidr)) ? cidrBase(cidr) : cidr);

/** Verdict for the first packet that goes that way; undefined: it is not known, so none. */
function verdict({ policies: keys }: GuardedEndpoint, direction: Direction, chains: PolicyChains): string | undefined {
  if (keys === undefined) return undefined;
  if (keys.length === 0) return 'accept';
  const name = chains.chain(`${direction}_of`, [direction, ...keys].join('\n'), () => [
    ...(chains.isEnforced(keys) ? [noBeginning] : []),
    ...chains.tiers({ keys, direction, stage: 'local' }),
  ]);
  return `goto ${name}`;
}

function declareSets({ policies, named }: PolicyFacts): string {
  const specs = new Map([...policies.values()].flatMap(({ sets }) => Object.entries(sets)));
  const sets = [...specs]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([id, { cidrs, labelled }]) => {
      const flags = cidrs.length === 0 && labelled !== true ? '' : ' flags interval;';
      return families.map((family) => `  set ${setName(id, family)} { type ipv${family}_addr;${flags} }\n`);
    });
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

const toHost = {
  maps: families.map((family) => `  map calling${family} { type ipv${family}_addr : verdict; }\n`).join(''),
  hook: `  chain to_host {
    type filter hook input priority filter + 2; policy accept;
    iifname != "cwe*" accept
    ct state established,related accept
    icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept
    ip saddr vmap @calling4
    ip6 saddr vmap @calling6
  }
`,
};

/** The same values for the same list, so that what has not changed need not be looked at one by one (see changedPart). */
const membersOf = new WeakMap<readonly Cidr[], { readonly id: string; readonly elements: readonly NftElement[] }>();

function members(id: string, cidrs: readonly Cidr[]): readonly NftElement[] {
  const known = membersOf.get(cidrs);
  if (known?.id === id) return known.elements;
  const elements = cidrs.map((cidr) => element(setName(id, familyOf(cidr)), spelled(cidr)));
  membersOf.set(cidrs, { id, elements });
  return elements;
}

/** Members of sets, then where endpoints' packets go. */
function elementsOf(facts: PolicyFacts, chains: PolicyChains): NftElement[] {
  const sets = [...facts.sets].flatMap(([id, cidrs]) => members(id, cidrs));
  const ports = [...facts.named].flatMap(([key, places]) =>
    [...new Map(places.map((place) => [`${place.ip} . ${place.port}`, place.ip]))].map(([text, ip]) =>
      element(namedSet(key, familyOf(ip)), text),
    ),
  );
  const ways = facts.endpoints.flatMap((endpoint) =>
    directions.flatMap((direction) => {
      const value = verdict(endpoint, direction, chains);
      if (value === undefined) return [];
      return endpoint.addresses.map((ip) => element(`${mapOf[direction]}${familyOf(ip)}`, ip, value));
    }),
  );
  const calls = facts.endpoints
    .filter((endpoint) => isBoundToHost(facts, endpoint))
    .flatMap((endpoint) => endpoint.addresses.map((ip) => element(`calling${familyOf(ip)}`, ip, verdict(endpoint, 'egress', chains))));
  const itself = facts.endpoints.flatMap(({ addresses }) => addresses.map((ip) => element(`itself${familyOf(ip)}`, `${ip} . ${ip}`)));
  return [...sets, ...ports, ...ways, ...calls, ...itself];
}

function render(facts: PolicyFacts, carriers: Carriers): Pick<Desired, 'table' | 'element'> {
  const chains = new PolicyChains(facts);
  const host = facts.host === undefined ? undefined : planHostPolicy(facts, facts.host, { chains, carriers });
  const elements = [...elementsOf(facts, chains), ...(host?.elements ?? [])];
  const maps = families.map(
    (family) => `  map leaving${family} { type ipv${family}_addr : verdict; }
  map entering${family} { type ipv${family}_addr : verdict; }
  set itself${family} { type ipv${family}_addr . ipv${family}_addr; }
`,
  );
  const isCalling = facts.endpoints.some((endpoint) => isBoundToHost(facts, endpoint));
  const text = [
    ...maps,
    isCalling ? toHost.maps : '',
    declareSets(facts),
    host?.sets ?? '',
    chains.text(),
    base('egress', 'saddr', 'iifname'),
    base('ingress', 'daddr', 'oifname'),
    isCalling ? toHost.hook : '',
    host?.hooks ?? '',
  ].join('');
  // Nothing may be open for the time between the table and its elements.
  return { table: [{ netns: '', family: 'inet', name: policyTableName, text, elements }], element: elements };
}

const rendered = new WeakMap<PolicyFacts, { readonly carriers: string; readonly part: Pick<Desired, 'table' | 'element'> }>();

/** Nothing without facts: where there is no policy, nothing is looked at. The same facts are rendered once. */
export function planPolicy(facts: PolicyFacts | undefined, carriers: Carriers): Partial<Desired> {
  if (facts === undefined) return {};
  const before = rendered.get(facts);
  if (before?.carriers === String(carriers)) return before.part;
  const part = render(facts, carriers);
  rendered.set(facts, { carriers: String(carriers), part });
  return part;
}
