// From Pods, Namespaces and policies of a whole cluster to what one node needs of them (PolicyFacts). Sets of addresses are
// kept for as long as a policy of this node mentions them and follow each change pod by pod, so a change of labels costs a
// look at that pod for every set and not at every pod. Pure: no clock, no I/O.
import { type Cidr, coverage, hostPrefix, type Ip } from '#model/ip.ts';
import {
  type AddressSpec,
  type GuardedEndpoint,
  type NamedPort,
  namedPortKey,
  type OrderedPolicy,
  type OwnedAddresses,
  type PolicyFacts,
  type Rule,
} from '#model/policy.ts';
import { type Labels, type Selector, selects } from '#model/selector.ts';
import { asksNamespace, onlyNamespace, selectable } from './label-selector.ts';
import type { PodFacts } from './pods.ts';
import { tiers } from './policy-parts.ts';

class Members {
  readonly spec: AddressSpec;
  readonly pods = new Set<string>();
  #resolved: readonly Cidr[] | undefined;

  constructor(spec: AddressSpec) {
    this.spec = spec;
  }

  changed(): void {
    this.#resolved = undefined;
  }

  resolve(ipsOf: (pod: string) => readonly Ip[]): readonly Cidr[] {
    if (this.#resolved !== undefined) return this.#resolved;
    const isCovered = coverage(this.spec.cidrs);
    const ips = new Set([...this.pods].flatMap(ipsOf));
    this.#resolved = [...this.spec.cidrs, ...[...ips].filter((ip) => !isCovered(ip)).map(hostPrefix)].toSorted();
    return this.#resolved;
  }
}

export class PolicyIndex {
  readonly #pods = new Map<string, PodFacts>();
  readonly #podsIn = new Map<string, Set<string>>();
  readonly #namespaces = new Map<string, Labels>();
  /** What selectors look at, as long as it is the same. */
  readonly #selectable = new Map<string, Labels>();
  readonly #policies = new Map<string, OrderedPolicy>();
  readonly #sets = new Map<string, Members>();
  /** Where endpoints of this host are, which is known before the API says so. */
  #local: ReadonlyMap<string, readonly Ip[]> = new Map();
  /** Which policies select an endpoint of this host, as long as nothing has changed that decides it. */
  readonly #chosen = new Map<string, readonly string[] | undefined>();
  #facts: PolicyFacts | undefined;

  get policies(): ReadonlyMap<string, OrderedPolicy> {
    return this.#policies;
  }

  putPod(key: string, pod: PodFacts): void {
    const before = this.#pods.get(key);
    this.#pods.set(key, pod);
    const others = this.#podsIn.get(pod.namespace) ?? new Set();
    this.#podsIn.set(pod.namespace, others.add(key));
    const isSame = before !== undefined && String(before.ips) === String(pod.ips);
    this.#selectable.delete(key);
    this.#look(key, !isSame);
    this.#chosen.delete(key);
    this.#facts = undefined;
  }

  deletePod(key: string): void {
    const before = this.#pods.get(key);
    if (before === undefined) return;
    this.#pods.delete(key);
    this.#selectable.delete(key);
    this.#podsIn.get(before.namespace)?.delete(key);
    for (const members of this.#sets.values()) if (members.pods.delete(key)) members.changed();
    this.#chosen.delete(key);
    this.#facts = undefined;
  }

  putNamespace(name: string, labels: Labels): void {
    this.#namespaces.set(name, labels);
    this.#lookAtNamespace(name);
  }

  deleteNamespace(name: string): void {
    this.#namespaces.delete(name);
    this.#lookAtNamespace(name);
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

  /** Undefined without any policy in the cluster: nothing needs to be guarded then. The same value until something changes. */
  facts(local: readonly OwnedAddresses[], logDenied = false): PolicyFacts | undefined {
    this.#lookAtLocal(local);
    if (this.#policies.size === 0) {
      this.#sets.clear();
      return undefined;
    }
    return (this.#facts ??= { ...this.#gather(), ...(logDenied ? { logDenied } : {}) });
  }

  #lookAtLocal(local: readonly OwnedAddresses[]): void {
    const now = new Map(local.map(({ owner, addresses }) => [owner, addresses]));
    const moved = [...new Set([...now.keys(), ...this.#local.keys()])].filter(
      (key) => String(now.get(key)) !== String(this.#local.get(key)),
    );
    this.#local = now;
    for (const key of moved) {
      this.#look(key, true);
      this.#chosen.delete(key);
    }
    if (moved.length > 0) this.#facts = undefined;
  }

  #lookAtNamespace(name: string): void {
    for (const key of this.#podsIn.get(name) ?? []) {
      this.#selectable.delete(key);
      this.#look(key, false);
    }
    this.#chosen.clear();
    this.#facts = undefined;
  }

  /** Whether the pod is in each set, now. */
  #look(key: string, isElsewhere: boolean): void {
    for (const members of this.#sets.values()) {
      const was = members.pods.has(key);
      const is = members.spec.selectors.some((selector) => this.#isMeant(selector, key));
      if (is) members.pods.add(key);
      else members.pods.delete(key);
      if (is !== was || (is && isElsewhere)) members.changed();
    }
  }

  #isMeant(selector: Selector, key: string): boolean {
    const pod = this.#pods.get(key);
    if (pod === undefined) return false;
    const namespaceLabels = this.#namespaces.get(pod.namespace);
    // What is not known of a namespace must open nothing.
    if (namespaceLabels === undefined && asksNamespace(selector)) return false;
    let labels = this.#selectable.get(key);
    if (labels === undefined) this.#selectable.set(key, (labels = selectable(pod.namespace, pod.labels, namespaceLabels ?? {})));
    return selects(selector, labels);
  }

  #ipsOf(key: string): readonly Ip[] {
    const own = this.#local.get(key) ?? [];
    const told = this.#pods.get(key)?.ips ?? [];
    return own.length === 0 ? told : [...new Set([...own, ...told])];
  }

  #gather(): PolicyFacts {
    const endpoints = [...this.#local].map(([owner, addresses]): GuardedEndpoint => {
      if (!this.#chosen.has(owner)) this.#chosen.set(owner, this.#policiesFor(owner));
      return { owner, addresses, policies: this.#chosen.get(owner) };
    });
    const keys = new Set(endpoints.flatMap(({ policies }) => policies ?? []));
    const policies = new Map([...keys].toSorted().flatMap((key) => entryOf(this.#policies, key)));
    this.#keepSets([...policies.values()]);
    const sets = new Map([...this.#sets].map(([id, members]) => [id, members.resolve((pod) => this.#ipsOf(pod))]));
    return { tiers, policies, sets, named: this.#namedPorts([...policies.values()]), endpoints };
  }

  /** Undefined: the pod or its namespace is not known yet. What is no pod is nobody's subject. */
  #policiesFor(owner: string): readonly string[] | undefined {
    if (!owner.includes('/')) return [];
    const pod = this.#pods.get(owner);
    if (pod === undefined) return undefined;
    const isKnown = this.#namespaces.has(pod.namespace);
    const chosen = [...this.#policies.values()].filter(
      ({ subject }) => (isKnown || !asksNamespace(subject)) && this.#isMeant(subject, owner),
    );
    if (!isKnown && [...this.#policies.values()].some(({ subject }) => asksNamespace(subject))) return undefined;
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
      this.#sets.set(id, members);
    }
  }

  #candidates(selector: Selector): Iterable<string> {
    const within = onlyNamespace(selector);
    return within === undefined ? this.#pods.keys() : (this.#podsIn.get(within) ?? []);
  }

  #namedPorts(policies: readonly OrderedPolicy[]): Map<string, readonly NamedPort[]> {
    const named = new Map<string, readonly NamedPort[]>();
    for (const rule of policies.flatMap(({ ingress = [], egress = [] }) => [...ingress, ...egress]))
      for (const key of namedIn(rule)) if (!named.has(key)) named.set(key, []);
    if (named.size === 0) return named;
    const found = new Map<string, NamedPort[]>();
    for (const [key, pod] of this.#pods) {
      for (const { name, protocol, port } of pod.ports) {
        const id = namedPortKey(protocol, name);
        if (!named.has(id)) continue;
        const places = found.get(id) ?? [];
        found.set(id, places);
        for (const ip of this.#ipsOf(key)) places.push({ ip, port });
      }
    }
    for (const [id, places] of found)
      named.set(
        id,
        places.toSorted((a, b) => (a.ip < b.ip ? -1 : Number(a.ip > b.ip)) || a.port - b.port),
      );
    return named;
  }
}

function entryOf<T>(map: ReadonlyMap<string, T>, key: string): [string, T][] {
  const value = map.get(key);
  return value === undefined ? [] : [[key, value]];
}

function namedIn({ protocol, destination }: Rule): string[] {
  if (protocol === undefined) return [];
  return [...(destination.ports?.named ?? []), ...(destination.notPorts?.named ?? [])].map((name) => namedPortKey(protocol, name));
}
