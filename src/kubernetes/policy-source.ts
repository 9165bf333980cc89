// Follows Pods, Namespaces and policies of the cluster for as long as the agent runs, and tells what of them this node needs.
// All of it is in the journal: an agent that starts while the API is away goes on with what was known, and one that starts
// with it writes nothing. Nothing that is heard counts before every sort of object has been listed, so that no policy is
// weighed against the pods of another time. A pod that is not known yet is closed, and an agent that has never known the
// cluster's policies closes all; both end as soon as the API has said the word.
import type { Journal } from '#api/local.ts';
import type { PolicySource } from '#agent/policies.ts';
import type { KnownPolicy } from '#agent/policy-report.ts';
import type { OwnedAddresses, PolicyFacts } from '#model/policy.ts';
import type { KubernetesClient } from './client.ts';
import { followKind, type Followed } from './follow.ts';
import { HostEndpoints, type HostEndpointsOptions } from './host-endpoints.ts';
import { hostKinds } from './host-kinds.ts';
import { KeptNews } from './kept-news.ts';
import { namesServices } from './calico-rule.ts';
import { podNetwork } from './nodes.ts';
import { accountKind, calicoKinds, clusterKinds, type FactKind, sliceKind, type Tell } from './policy-facts.ts';
import { PolicyIndex } from './policy-index.ts';
import { calicoPolicyKinds, type PolicyKind, policyKinds } from './policy-kinds.ts';
import { problemText, type Reading, tiers } from './policy-parts.ts';
import { generationOf, keptPolicy } from './policy-objects.ts';
import type { PolicyWord } from './policy-teller.ts';

export interface PoliciesOptions {
  readonly client: KubernetesClient;
  readonly journal: Journal;
  readonly log: { warn(fields: object, message: string): void };
  /** Whether the kernel's log tells of what is denied. */
  readonly logDenied?: boolean;
  readonly hosts: HostEndpointsOptions;
  /** Called after changes, at most once per turn of the event loop. */
  readonly changed: () => void;
}

const prefix = 'kubernetes/policy/';
/** Key of whether the cluster's policies have ever been known. */
const knownKey = 'known';

export class KubernetesPolicies implements PolicySource, AsyncDisposable {
  readonly network: string = podNetwork.id;
  readonly #options: PoliciesOptions;
  readonly #index = new PolicyIndex();
  readonly #hosts: HostEndpoints;
  readonly #kinds: FactKind[];
  readonly #stop = new AbortController();
  /** Absent: nothing is followed yet. */
  #running: Promise<void>[] | undefined;
  /** Names of the sorts that are followed only for who speaks of them. */
  readonly #asked = new Set<string>();
  readonly #listed = new Set<string>();
  /** By `kind/key`, the text of what is kept. */
  readonly #texts = new Map<string, string>();
  readonly #policies = new Map<string, KnownPolicy>();
  /** What was heard before every sort of object was listed. */
  #waiting: (() => void)[] = [];
  readonly #news: KeptNews;
  #isKnown: boolean;
  /** How far each kind of policy has been heard, and how far of that has been taken in. */
  readonly #heard = new Map<string, number>();
  #known: Readonly<Record<string, number>> = {};
  /** How often policies have changed in what they say. */
  #changes = 0;
  #word: PolicyWord | undefined;
  #wordFor: PolicyFacts | undefined;

  constructor(options: PoliciesOptions) {
    this.#options = options;
    this.#news = new KeptNews({
      ...options,
      prefix,
      what: 'policies',
      maySettle: () => !this.#stop.signal.aborted && this.isSynced(),
      settle: () => this.#settle(),
    });
    const useless = (hostEndpoint: string, problem: string): void =>
      options.log.warn({ hostEndpoint, problem }, 'a host endpoint has no effect here');
    this.#hosts = new HostEndpoints(options.hosts, useless);
    const tell: Tell = (name, key, problems) => options.log.warn({ [name]: key, problems }, 'cannot serve all of an object of policy');
    this.#kinds = [
      ...clusterKinds(this.#index),
      ...calicoKinds(this.#index, tell),
      ...hostKinds(this.#hosts, this.#index, tell),
      ...policyKinds.map((kind) => this.#policyKind(kind)),
      ...calicoPolicyKinds.map((kind) => this.#policyKind(kind, () => this.#ask(accountKind(this.#index)))),
    ];
    this.#isKnown = options.journal.get(prefix + knownKey) === true;
    for (const kind of this.#kinds.slice()) this.#load(kind);
  }

  start(): void {
    this.#running = this.#kinds.map((kind) => this.#follow(kind));
  }

  #follow(kind: FactKind): Promise<void> {
    const { client, log } = this.#options;
    return followKind(this.#followed(kind), { client, log, signal: this.#stop.signal });
  }

  current(local: readonly OwnedAddresses[]): PolicyFacts | undefined {
    if (this.#isKnown) {
      this.#index.setHost(this.#hosts.current());
      return this.#index.facts(local, this.#options.logDenied);
    }
    const endpoints = local.map((endpoint) => ({ ...endpoint, policies: endpoint.isFree === true ? [] : undefined }));
    return { tiers, policies: new Map(), sets: new Map(), named: new Map(), endpoints };
  }

  isSynced(): boolean {
    return this.#listed.size === this.#kinds.length;
  }

  /** Whether packets may wait for what has changed. */
  get isInUse(): boolean {
    return this.#policies.size > 0;
  }

  /** In force or about to be, by key. */
  policies(): readonly KnownPolicy[] {
    return [...this.#policies.values()].map((known) => {
      const { tier } = known.policy;
      if (this.#index.hasTier(tier)) return known;
      const problem = `spec.tier: there is no tier ${tier}; what the policy denies is denied, what it allows is left to others`;
      return { ...known, problems: [...known.problems, problem] };
    });
  }

  /**
   * What is to be told of a kernel that has `facts` in it, which current() gave last. Undefined before everything is listed. The
   * same value for as long as nothing has changed.
   */
  word(facts: PolicyFacts | undefined): PolicyWord | undefined {
    if (!this.isSynced()) return undefined;
    const { words: hostEndpoints } = this.#hosts;
    if (this.#word?.hostEndpoints === hostEndpoints && this.#wordFor === facts) return this.#word;
    const inForce = [...(facts?.policies.keys() ?? [])].map((key): [string, number] => [key, this.#policies.get(key)?.generation ?? 0]);
    this.#wordFor = facts;
    this.#word = { inForce: Object.fromEntries(inForce), known: this.#known, hostEndpoints, changes: this.#changes };
    return this.#word;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#running ?? []);
    this.#news[Symbol.dispose]();
  }

  /** `met`: called when there is one. */
  #policyKind({ name, path, read }: PolicyKind, met?: () => void): FactKind {
    const keys = new Map<string, string>();
    const drop = (key: string): void => {
      const policy = keys.get(key);
      if (policy === undefined) return;
      keys.delete(key);
      this.#policies.delete(policy);
      this.#changes += 1;
      this.#index.deletePolicy(policy);
    };
    const put = (key: string, { policy, problems: found }: Reading, generation: number): void => {
      const problems = found.map(problemText);
      this.#changes += 1;
      if (problems.length > 0) this.#options.log.warn({ [name]: key, problems }, 'cannot serve all of a policy');
      if (policy === undefined) return drop(key);
      keys.set(key, policy.key);
      this.#policies.set(policy.key, { policy, generation, problems });
      return this.#index.putPolicy(policy);
    };
    return {
      name,
      paths: [path],
      absent: 'empty',
      isPolicy: true,
      take: (key, item) => {
        const reading = read(item);
        met?.();
        if (reading.policy !== undefined && namesServices(reading.policy)) this.#ask(sliceKind(this.#index));
        return { kept: keptPolicy(item), put: () => put(key, reading, generationOf(item)) };
      },
      drop,
    };
  }

  /** From when a policy may speak of one on: most clusters' policies do not, and there may be very many. */
  #ask(kind: FactKind): void {
    if (this.#asked.has(kind.name)) return;
    this.#asked.add(kind.name);
    this.#kinds.push(kind);
    this.#load(kind);
    this.#running?.push(this.#follow(kind));
  }

  /** What the journal has, as if the API had said it. */
  #load(kind: FactKind): void {
    const start = `${prefix}${kind.name}/`;
    for (const { key, value } of this.#options.journal.list(start)) {
      const name = key.slice(start.length);
      const taken = kind.take(name, value);
      if (taken === undefined) continue;
      this.#texts.set(`${kind.name}/${name}`, JSON.stringify(taken.kept));
      taken.put();
    }
  }

  #followed(kind: FactKind): Followed {
    const { name } = kind;
    const start = `${name}/`;
    const remove = (key: string): void => {
      if (this.#texts.delete(start + key)) this.#note(start + key, undefined, () => kind.drop(key));
    };
    return {
      name,
      paths: kind.paths,
      ...(kind.absent === undefined ? {} : { absent: kind.absent }),
      keys: () => [...this.#texts.keys()].filter((text) => text.startsWith(start)).map((text) => text.slice(start.length)),
      put: (key, item) => {
        const taken = kind.take(key, item);
        if (taken === undefined) return remove(key);
        const text = JSON.stringify(taken.kept);
        // Nodes touch their pods every few seconds.
        if (this.#texts.get(start + key) === text) return undefined;
        this.#texts.set(start + key, text);
        return this.#note(start + key, taken.kept, taken.put);
      },
      delete: remove,
      listed: () => {
        if (this.#listed.has(name)) return;
        this.#listed.add(name);
        this.#news.kick();
      },
      ...(kind.isPolicy === undefined ? {} : { reached: (revision: number) => this.#reached(name, revision) }),
    };
  }

  #reached(name: string, revision: number): void {
    this.#heard.set(name, revision);
    // What is waiting has to be taken in first.
    if (this.#waiting.length === 0) this.#takeIn();
  }

  #takeIn(): void {
    this.#known = Object.fromEntries(this.#heard);
    this.#word = undefined;
  }

  #note(key: string, kept: unknown, effect: () => void): void {
    this.#news.note(key, kept);
    this.#waiting.push(effect);
    this.#news.kick();
  }

  /** Takes in what was heard, keeps it and tells. */
  #settle(): void {
    const effects = this.#waiting;
    this.#waiting = [];
    for (const effect of effects) effect();
    this.#takeIn();
    const isFirst = !this.#isKnown;
    if (isFirst) this.#news.note(knownKey, true);
    this.#news.keep();
    this.#isKnown = true;
    if (isFirst || this.#index.isChanged || this.#hosts.isChanged) this.#options.changed();
  }
}
