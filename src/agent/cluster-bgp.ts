// How this host's speaker is set, as the controllers say: Calico's resources come with the watch, texts of secrets are asked
// for, those only that this host needs. Kept in the journal (it is root's alone), so that an agent which starts while no
// controller answers does not send its peers away.
import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';
import { secretsFor } from '#api/calico-bgp.ts';
import type { Journal } from '#api/local.ts';
import { type BgpSettings, defaultBgp } from '#model/bgp.ts';
import { isFault } from '#model/fault.ts';
import type { BgpResource, Host, Secret } from '#model/resources.ts';
import { BgpReader } from './bgp-reader.ts';
import type { BgpSource } from './bgp-source.ts';
import type { View } from './view.ts';

export interface BgpFacts {
  /** Of this host; absent while nothing is known of it. */
  readonly self: Host | undefined;
  readonly bgp: ReadonlyMap<string, BgpResource>;
  readonly secrets: ReadonlyMap<string, Secret>;
  /** As a controller has listed them. */
  readonly isSynced: boolean;
}

export function bgpFacts({ snapshot, isSynced }: View, host: string): BgpFacts {
  const { hosts, bgp, secrets } = snapshot;
  return { self: hosts.get(host), bgp, secrets, isSynced };
}

export interface ClusterBgpOptions {
  readonly journal: Journal;
  /** The same maps for as long as nothing in them has changed. */
  readonly facts: () => BgpFacts;
  /** Of a secret, by key. Faults: `not-found`, `unavailable`. */
  readonly texts: (secret: string) => Promise<Readonly<Record<string, string>>>;
  /** The settings are others now. */
  readonly changed: () => void;
  readonly log: { warn(fields: object, message: string): void };
}

const journalKey = 'bgp/secrets';
const retryMs = 5_000;
const known = v.record(v.string(), v.object({ revision: v.number(), texts: v.record(v.string(), v.string()) }));
type Known = Readonly<Record<string, { readonly revision: number; readonly texts: Readonly<Record<string, string>> }>>;

export class ClusterBgp implements BgpSource, Disposable {
  readonly #options: ClusterBgpOptions;
  readonly #reader: BgpReader;
  #secrets: Known = {};
  #seen: readonly unknown[] = [];
  #current: BgpSettings | undefined;
  #isSynced = false;
  #isBusy = false;
  #isOutdated = false;
  #retry: NodeJS.Timeout | undefined;

  constructor(options: ClusterBgpOptions) {
    this.#options = options;
    this.#reader = new BgpReader((problem) => options.log.warn({ problem }, 'cannot use a resource of BGP'));
    const kept = v.safeParse(known, options.journal.get(journalKey));
    if (kept.success) this.#secrets = kept.output;
  }

  current(): BgpSettings | undefined {
    return this.#current;
  }

  isSynced(): boolean {
    return this.#isSynced;
  }

  /** What of the resources this host cannot follow, one sentence each. */
  get problems(): readonly string[] {
    return this.#reader.problems;
  }

  /** Before the first plan: what the disk knows. */
  start(): void {
    const { self, bgp, secrets } = this.#options.facts();
    const isKnown = (name: string): boolean => this.#secrets[name] !== undefined || !secrets.has(name);
    if (self !== undefined && [...secretsFor(self, bgp.values())].every(isKnown)) this.#settle();
    this.touch();
  }

  /** Facts have changed, these or others. */
  touch(): void {
    const { self, bgp, secrets, isSynced } = this.#options.facts();
    const seen = [JSON.stringify(self?.labels), bgp, secrets, isSynced];
    if (self === undefined || seen.every((one, index) => one === this.#seen[index])) return;
    this.#seen = seen;
    void this.#follow();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#retry);
  }

  /** One at a time; what changes meanwhile is looked at afterwards. */
  async #follow(): Promise<void> {
    this.#isOutdated = true;
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      while (this.#isOutdated) {
        this.#isOutdated = false;
        await this.#ask();
        const before = [this.#current, this.#isSynced];
        this.#settle();
        this.#isSynced = this.#options.facts().isSynced;
        if (this.#current !== before[0] || this.#isSynced !== before[1]) this.#options.changed();
      }
    } finally {
      this.#isBusy = false;
    }
  }

  /** Brings what is known of secrets up to date. One that cannot be had now is asked for again, and its last texts go on until then. */
  async #ask(): Promise<void> {
    const { journal, facts, texts } = this.#options;
    const { self, bgp, secrets } = facts();
    if (self === undefined) return;
    clearTimeout(this.#retry);
    const needed = secretsFor(self, bgp.values());
    const next: Record<string, Known[string]> = {};
    for (const name of [...needed].toSorted()) {
      const now = this.#secrets[name];
      if (now !== undefined) next[name] = now;
      const record = secrets.get(name);
      if (record === undefined || now?.revision === record.revision) continue;
      try {
        next[name] = { revision: record.revision, texts: await texts(name) };
      } catch (error) {
        if (!isFault(error)) throw error;
        this.#retry = setTimeout(() => void this.#follow(), retryMs).unref();
      }
    }
    if (JSON.stringify(next) === JSON.stringify(this.#secrets)) return;
    this.#secrets = next;
    try {
      journal.put(journalKey, next);
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#options.log.warn({ error }, 'cannot keep secrets of BGP');
    }
  }

  #settle(): void {
    const { bgp } = this.#options.facts();
    const of = (sort: BgpResource['sort']): Record<string, unknown> =>
      Object.fromEntries([...bgp.values()].flatMap((one) => (one.sort === sort ? [[one.name, one.spec]] : [])));
    const written = { configurations: of('BGPConfiguration'), peers: of('BGPPeer'), filters: of('BGPFilter') };
    const read = this.#reader.read(written, ({ name, key }) => this.#secrets[name]?.texts[key]);
    // Docker hosts have no services to announce.
    const next = { ...defaultBgp, ...read, services: [] };
    if (!isDeepStrictEqual(next, this.#current)) this.#current = next;
  }
}
