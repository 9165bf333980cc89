// From Pods, Namespaces and policies of a whole cluster to what one node needs of them (PolicyFacts). Sets of addresses are
// kept for as long as a policy of this node mentions them and follow each change pod by pod, so a change of labels costs a
// look at that pod for every set and not at every pod. Pure: no clock, no I/O.
import { type Cidr, coverage, hostPrefix, type Ip } from '#model/ip.ts';
import {
  type AddressSpec,
  type GuardedEndpoint,
  type HostGuard,
  type NamedPort,
  namedPortKey,
  type OrderedPolicy,
  type OwnedAddresses,
  type PolicyFacts,
  type Rule,
  type Tier,
} from '#model/policy.ts';
import { disjoint } from '#model/ranges.ts';
import { type Labels, type Selector, selects } from '#model/selector.ts';
import { serviceOf } from './calico-rule.ts';
import type { NetworkSet, PlacedPort } from './calico-tier.ts';
import type { LabelledHost } from './host-endpoints.ts';
import { asks, onlyNamespace, selectable } from './label-selector.ts';
import type { PodFacts } from './pods.ts';
import { tiers } from './policy-parts.ts';
import { placedInTiers } from './policy-tiers.ts';
import { ServicePlaces } from './service-places.ts';
import type { SliceFacts } from './services.ts';

interface Places {
  readonly ofPod: (key: string) => readonly Ip[];
  readonly ofSet: (key: string) => readonly Cidr[];
  readonly ofService: (key: string) => readonly Ip[];
}

class Members {
  readonly spec: AddressSpec;
  readonly pods = new Set<string>();
  readonly sets = new Set<string>();
  #resolved: readonly Cidr[] | undefined;

  constructor(spec: AddressSpec) {
    this.spec = spec;
  }

  changed(): void {
    this.#resolved = undefined;
  }

  resolve({ ofPod, ofSet, ofService }: Places): readonly Cidr[] {
    if (this.#resolved !== undefined) return this.#resolved;
    const nets = [...this.sets].flatMap(ofSet);
    const cidrs = nets.length === 0 ? this.spec.cidrs : disjoint([...this.spec.cidrs, ...nets]);
    const isCovered = coverage(cidrs);
    const ips = new Set([...[...this.pods].flatMap(ofPod), ...(this.spec.services ?? []).flatMap(ofService)]);
    this.#resolved = [...cidrs, ...[...ips].filter((ip) => !isCovered(ip)).map(hostPrefix)].toSorted();
    return this.#resolved;
  }
}

export class PolicyIndex {
  readonly #pods = new Map<string, PodFacts>();
  readonly #podsIn = new Map<string, Set<string>>();
  readonly #namespaces = new Map<string, Labels>();
  /** By `namespace/name`. */
  readonly #accounts = new Map<string, Labels>();
  readonly #networkSets = new Map<string, NetworkSet>();
  readonly #services = new ServicePlaces();
  readonly #tiers = new Map<string, Tier>(tiers.map((tier) => [tier.name, tier]));
  /** What selectors look at, as long as it is the same. */
  readonly #selectable = new Map<string, Labels>();
  readonly #policies = new Map<string, OrderedPolicy>();
  readonly #sets = new Map<string, Members>();
  /** Where endpoints of this host are, which is known before the API says so. */
  #local: ReadonlyMap<string, OwnedAddresses> = new Map();
  /** Those of them that no policy is for. */
  #free: readonly OwnedAddresses[] = [];
  /** Which policies select an endpoint of this host, as long as nothing has changed that decides it. */
  readonly #chosen = new Map<string, readonly string[] | undefined>();
  #host: LabelledHost | undefined;
  #facts: PolicyFacts | undefined;

  get policies(): ReadonlyMap<string, OrderedPolicy> {
    return this.#policies;
  }

  putPod(key: string, pod: PodFacts): void {
    const before = this.#pods.get(key);
    this.#pods.set(key, pod);
    const others = this.#podsIn.get(pod.namespace) ?? new Set();
    this.#podsIn.set(pod.namespace, others.add(key));
    const isSame = before !== undefined && before.id === pod.id && String(before.ips) === String(pod.ips);
    this.#selectable.delete(key);
    const isMember = this.#look(key, !isSame);
    this.#chosen.delete(key);
    // Most pods of a cluster are nothing to one host.
    if (isMember || this.#local.has(key) || this.#isNamed(pod, before)) this.#facts = undefined;
  }

  /** Whether a port of the pod, as it was or is, may be one that a policy of this host names. */
  #isNamed(pod: PodFacts, before: PodFacts | undefined): boolean {
    return (this.#facts?.named.size ?? 0) > 0 && pod.ports.length + (before?.ports.length ?? 0) > 0;
  }

  deletePod(key: string): void {
    const before = this.#pods.get(key);
    if (before === undefined) return;
    this.#pods.delete(key);
    this.#selectable.delete(key);
    this.#podsIn.get(before.namespace)?.delete(key);
    let isMember = false;
    for (const members of this.#sets.values()) {
      if (!members.pods.delete(key)) continue;
      members.changed();
      isMember = true;
    }
    this.#chosen.delete(key);
    if (isMember || this.#local.has(key) || this.#isNamed(before, undefined)) this.#facts = undefined;
  }

  /** Whether facts() is going to give something else than before; unknown without policies. */
  get isChanged(): boolean {
    return this.#facts === undefined;
  }

  putNamespace(name: string, labels: Labels): void {
    this.#namespaces.set(name, labels);
    this.#lookAtNamespace(name);
  }

  deleteNamespace(name: string): void {
    this.#namespaces.delete(name);
    this.#lookAtNamespace(name);
  }

  putAccount(key: string, labels: Labels): void {
    this.#accounts.set(key, labels);
    this.#lookAtAccount(key);
  }

  deleteAccount(key: string): void {
    this.#accounts.delete(key);
    this.#lookAtAccount(key);
  }

  /** Keys of sets of the whole cluster and of those of a namespace are never alike. */
  putNetworkSet(key: string, set: NetworkSet): void {
    this.#networkSets.set(key, set);
    this.#lookAtSet(key);
  }

  deleteNetworkSet(key: string): void {
    this.#networkSets.delete(key);
    this.#lookAtSet(key);
  }

  putSlice(key: string, slice: SliceFacts): void {
    this.#lookAtServices(this.#services.put(key, slice));
  }

  deleteSlice(key: string): void {
    this.#lookAtServices(this.#services.delete(key));
  }

  /** Not one of those that are always there. */
  putTier(tier: Tier): void {
    this.#tiers.set(tier.name, tier);
    this.#facts = undefined;
  }

  deleteTier(name: string): void {
    if (tiers.every((tier) => tier.name !== name)) this.#tiers.delete(name);
    this.#facts = undefined;
  }

  hasTier(name: string): boolean {
    return this.#tiers.has(name);
  }

  putPolicy(policy: OrderedPolicy): void {
    this.#policies.set(policy.key, policy);
    this.#chosen.clear();
    this.#facts = undefined;
  }

  deletePolicy(key: string): void {
    this.#policies.delete(key);
    this.#chosen.clear();
    this.#facts = undefined;
  }

  /** Which of the node's own links are under policy. Undefined: none. */
  setHost(host: LabelledHost | undefined): void {
    if (JSON.stringify(host) === JSON.stringify(this.#host)) return;
    this.#host = host;
    this.#facts = undefined;
  }

  /** Undefined where there is neither a policy nor a link under policy: nothing needs to be guarded then. The same value until something changes. */
  facts(local: readonly OwnedAddresses[], logDenied = false): PolicyFacts | undefined {
    this.#lookAtLocal(local);
    if (this.#policies.size === 0 && this.#host === undefined) {
      this.#sets.clear();
      return undefined;
    }
    return (this.#facts ??= { ...this.#gather(), ...(logDenied ? { logDenied } : {}) });
  }

  #lookAtLocal(local: readonly OwnedAddresses[]): void {
    const [free, bound] = [local.filter(({ isFree }) => isFree === true), local.filter(({ isFree }) => isFree !== true)];
    const isSame = JSON.stringify(free) === JSON.stringify(this.#free);
    this.#free = free;
    const now = this.#byOwner(bound);
    const moved = [...new Set([...now.keys(), ...this.#local.keys()])].filter((key) => !isSameOwned(now.get(key), this.#local.get(key)));
    this.#local = now;
    for (const key of moved) {
      this.#look(key, true);
      this.#chosen.delete(key);
    }
    if (moved.length > 0 || !isSame) this.#facts = undefined;
  }

  /** While one is being removed there may be two of a name: the one that the API has counts. */
  #byOwner(local: readonly OwnedAddresses[]): Map<string, OwnedAddresses> {
    const byOwner = new Map<string, OwnedAddresses>();
    for (const one of local) if (!byOwner.has(one.owner) || !this.#isAnother(one)) byOwner.set(one.owner, one);
    return byOwner;
  }

  /** Whether the pod of its name that the API has told of is one before it or after it. */
  #isAnother({ owner, ownerId }: OwnedAddresses): boolean {
    const told = this.#pods.get(owner)?.id;
    return ownerId !== undefined && told !== undefined && told !== ownerId;
  }

  #lookAtNamespace(name: string): void {
    this.#lookAtPods(this.#podsIn.get(name) ?? []);
    for (const [key, { namespace }] of this.#networkSets) if (namespace === name) this.#lookAtSet(key);
  }

  #lookAtAccount(account: string): void {
    const [namespace = '', name] = account.split('/');
    this.#lookAtPods([...(this.#podsIn.get(namespace) ?? [])].filter((key) => this.#pods.get(key)?.account === name));
  }

  #lookAtPods(keys: Iterable<string>): void {
    for (const key of keys) {
      this.#selectable.delete(key);
      this.#look(key, false);
    }
    this.#chosen.clear();
    this.#facts = undefined;
  }

  /** Also when only its prefixes are others. */
  #lookAtSet(key: string): void {
    for (const members of this.#sets.values()) {
      const was = members.sets.delete(key);
      const is = this.#isSetMeant(members.spec, key);
      if (is) members.sets.add(key);
      if (is || was) members.changed();
    }
    this.#facts = undefined;
  }

  #lookAtServices(services: readonly string[]): void {
    for (const members of this.#sets.values()) if (members.spec.services?.some((one) => services.includes(one))) members.changed();
    this.#facts = undefined;
  }

  #isSetMeant({ labelled, selectors }: AddressSpec, key: string): boolean {
    const set = this.#networkSets.get(key);
    if (labelled !== true || set === undefined) return false;
    const { namespace, labels } = set;
    const namespaceLabels = namespace === undefined ? {} : this.#namespaces.get(namespace);
    const seen = selectable({ labels, ...(namespace === undefined ? {} : { namespace }), namespaceLabels: namespaceLabels ?? {} });
    return selectors.some((selector) => (namespaceLabels !== undefined || !asks(selector, 'namespace')) && selects(selector, seen));
  }

  /** Whether the pod is in each set, now; whether that changes any. */
  #look(key: string, isElsewhere: boolean): boolean {
    let isChange = false;
    for (const members of this.#sets.values()) {
      const was = members.pods.has(key);
      const is = members.spec.selectors.some((selector) => this.#isMeant(selector, key));
      if (is) members.pods.add(key);
      else members.pods.delete(key);
      if (is === was && !(is && isElsewhere)) continue;
      members.changed();
      isChange = true;
    }
    return isChange;
  }

  #isMeant(selector: Selector, key: string): boolean {
    const pod = this.#pods.get(key);
    if (pod === undefined) return false;
    const namespaceLabels = this.#namespaces.get(pod.namespace);
    const accountLabels = this.#accounts.get(`${pod.namespace}/${pod.account}`);
    // What is not known of a namespace or an account must open nothing.
    if (namespaceLabels === undefined && asks(selector, 'namespace')) return false;
    if (accountLabels === undefined && asks(selector, 'service account')) return false;
    let labels = this.#selectable.get(key);
    if (labels === undefined) {
      labels = selectable({ ...pod, namespaceLabels: namespaceLabels ?? {}, accountLabels: accountLabels ?? {} });
      this.#selectable.set(key, labels);
    }
    return selects(selector, labels);
  }

  #ipsOf(key: string): readonly Ip[] {
    const own = this.#local.get(key);
    const told = this.#pods.get(key)?.ips ?? [];
    return own === undefined || this.#isAnother(own) ? told : [...new Set([...own.addresses, ...told])];
  }

  #gather(): PolicyFacts {
    const bound = [...this.#local.values()].map((one): GuardedEndpoint => {
      if (!this.#chosen.has(one.owner)) this.#chosen.set(one.owner, this.#policiesFor(one));
      return { owner: one.owner, addresses: one.addresses, policies: this.#chosen.get(one.owner) };
    });
    const endpoints = [...bound, ...this.#free.map((one): GuardedEndpoint => ({ ...one, policies: [] }))];
    const host = this.#host === undefined ? undefined : this.#guardOf(this.#host);
    const keys = new Set([...endpoints, ...(host?.links ?? [])].flatMap(({ policies }) => policies ?? []));
    const chosen = [...keys].toSorted().flatMap((key) => this.#policies.get(key) ?? []);
    const { tiers: all, policies } = placedInTiers(chosen, this.#tiers);
    this.#keepSets([...policies.values()]);
    const places: Places = {
      ofPod: (key) => this.#ipsOf(key),
      ofSet: (key) => this.#networkSets.get(key)?.nets ?? [],
      ofService: (key) => this.#services.ips(key),
    };
    const sets = new Map([...this.#sets].map(([id, members]) => [id, members.resolve(places)]));
    const named = this.#namedPorts([...policies.values()]);
    return { tiers: all, policies, sets, named, endpoints, ...(host === undefined ? {} : { host }) };
  }

  #guardOf({ links, ...more }: LabelledHost): HostGuard {
    const policies = [...this.#policies.values()].filter(({ onHosts }) => onHosts !== undefined);
    const keysFor = (labels: Labels): string[] => {
      const seen = selectable({ labels });
      return policies.flatMap(({ key, subject }) => (selects(subject, seen) ? [key] : [])).toSorted();
    };
    return { ...more, links: links.map(({ labels, ...link }) => ({ ...link, policies: keysFor(labels) })) };
  }

  /** Undefined: the pod or its namespace is not known yet. What is no pod is nobody's subject. */
  #policiesFor(local: OwnedAddresses): readonly string[] | undefined {
    const { owner } = local;
    if (!owner.includes('/')) return [];
    const pod = this.#isAnother(local) ? undefined : this.#pods.get(owner);
    const policies = [...this.#policies.values()].filter(isForEndpoints);
    const enforced = policies.filter(({ staged }) => staged !== true);
    if (pod === undefined) return enforced.length === 0 ? [] : undefined;
    const isUnknown = (of: 'namespace' | 'service account'): boolean => enforced.some(({ subject }) => asks(subject, of));
    if (!this.#namespaces.has(pod.namespace) && isUnknown('namespace')) return undefined;
    if (!this.#accounts.has(`${pod.namespace}/${pod.account}`) && isUnknown('service account')) return undefined;
    const chosen = policies.filter(({ subject }) => this.#isMeant(subject, owner));
    return chosen.map(({ key }) => key).toSorted();
  }

  /** Exactly those that are mentioned; a new one looks at every pod that it may mean. */
  #keepSets(policies: readonly OrderedPolicy[]): void {
    const wanted = new Map(policies.flatMap(({ sets }) => Object.entries(sets)));
    for (const id of this.#sets.keys()) if (!wanted.has(id)) this.#sets.delete(id);
    for (const [id, spec] of wanted) {
      if (this.#sets.has(id)) continue;
      const members = new Members(spec);
      for (const selector of spec.selectors)
        for (const key of this.#candidates(selector)) if (this.#isMeant(selector, key)) members.pods.add(key);
      for (const key of this.#networkSets.keys()) if (this.#isSetMeant(spec, key)) members.sets.add(key);
      this.#sets.set(id, members);
    }
  }

  #candidates(selector: Selector): Iterable<string> {
    const within = onlyNamespace(selector);
    return within === undefined ? this.#pods.keys() : (this.#podsIn.get(within) ?? []);
  }

  /** Of those names that are of services. */
  #servicePorts(ids: Iterable<string>): Map<string, NamedPort[]> {
    return new Map(
      [...ids].flatMap((id): [string, NamedPort[]][] => {
        const [protocol = '', name = ''] = id.split(/ (.*)/);
        const service = serviceOf(name);
        return service === undefined ? [] : [[id, this.#services.ports(service, Number(protocol))]];
      }),
    );
  }

  *#placesWithNames(): Iterable<PlacedPort> {
    for (const [key, pod] of this.#pods) for (const port of pod.ports) for (const ip of this.#ipsOf(key)) yield { ...port, ip };
    for (const { places = [] } of this.#networkSets.values()) yield* places;
  }

  #namedPorts(policies: readonly OrderedPolicy[]): Map<string, readonly NamedPort[]> {
    const named = new Map<string, readonly NamedPort[]>();
    for (const rule of policies.flatMap(({ ingress = [], egress = [] }) => [...ingress, ...egress]))
      for (const key of namedIn(rule)) if (!named.has(key)) named.set(key, []);
    if (named.size === 0) return named;
    const found = this.#servicePorts(named.keys());
    for (const { protocol, name, ...place } of this.#placesWithNames()) {
      const id = namedPortKey(protocol, name);
      if (!named.has(id)) continue;
      const places = found.get(id) ?? [];
      found.set(id, places);
      places.push(place);
    }
    for (const [id, places] of found)
      named.set(
        id,
        places.toSorted((a, b) => (a.ip < b.ip ? -1 : Number(a.ip > b.ip)) || a.port - b.port),
      );
    return named;
  }
}

const isSameOwned = (a: OwnedAddresses | undefined, b: OwnedAddresses | undefined): boolean =>
  a?.ownerId === b?.ownerId && String(a?.addresses) === String(b?.addresses);

/** Before services are translated, and before connections are tracked, policies are for hosts alone. */
const isForEndpoints = ({ onHosts }: OrderedPolicy): boolean => onHosts !== 'untranslated' && onHosts !== 'untracked';

function namedIn({ protocol, source, destination }: Rule): string[] {
  if (protocol === undefined) return [];
  const specs = [source.ports, source.notPorts, destination.ports, destination.notPorts];
  return specs.flatMap((spec) => spec?.named ?? []).map((name) => namedPortKey(protocol, name));
}
