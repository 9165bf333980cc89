// Follows a cluster's Services and EndpointSlices for as long as the agent runs. Kept in the journal by service, so that an
// agent that starts while the API is away plans the services that it knew, and one that starts with it writes nothing.
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { Journal } from '#api/local.ts';
import { protocol } from '#api/schemas.ts';
import type { ServiceSource } from '#agent/agent.ts';
import { isFault } from '#model/fault.ts';
import type { Service } from '#model/resources.ts';
import type { KubernetesClient, Listing } from './client.ts';
import { joinService, keyOf, readService, readSlice, type ServiceFacts, type SliceFacts } from './services.ts';

export interface ServicesOptions {
  readonly client: KubernetesClient;
  readonly journal: Journal;
  readonly log: { warn(fields: object, message: string): void };
  /** Called after changes, at most once per turn of the event loop. */
  readonly changed: () => void;
}

const services = '/api/v1/services';
/** Servers before 1.21 have only the second, servers since 1.25 only the first. */
const sliceVersions = ['/apis/discovery.k8s.io/v1/endpointslices', '/apis/discovery.k8s.io/v1beta1/endpointslices'] as const;
const prefix = 'kubernetes/services/';
const firstRetryMs = 200;
const lastRetryMs = 5_000;

const kept: v.GenericSchema<unknown, readonly Service[]> = v.array(
  v.object({
    key: v.string(),
    ip: field.ip,
    protocol,
    port: field.port,
    backends: v.array(v.object({ ip: field.ip, port: field.port })),
  }),
);

/** One sort of object that is followed. */
interface Kind {
  readonly name: string;
  /** Tried in order. */
  readonly paths: readonly string[];
  /** Keys of what is known. */
  keys(): readonly string[];
  put(key: string, item: unknown): void;
  delete(key: string): void;
}

export class KubernetesServices implements ServiceSource, AsyncDisposable {
  readonly #options: ServicesOptions;
  readonly #stop = new AbortController();
  #running: readonly Promise<void>[] = [];
  /** By `namespace/name`. */
  readonly #services = new Map<string, ServiceFacts>();
  readonly #slices = new Map<string, SliceFacts>();
  readonly #slicesOf = new Map<string, Map<string, SliceFacts>>();
  /** What is planned, by the service's key. */
  readonly #joined = new Map<string, readonly Service[]>();
  readonly #dirty = new Set<string>();
  readonly #listed = new Set<string>();
  #current: readonly Service[] | undefined;
  #turning = false;

  constructor(options: ServicesOptions) {
    this.#options = options;
    for (const { key, value } of options.journal.list(prefix)) {
      const read = v.safeParse(kept, value);
      if (read.success) this.#joined.set(key.slice(prefix.length), read.output);
    }
  }

  start(): void {
    const { signal } = this.#stop;
    this.#running = [this.#serviceKind(), this.#sliceKind()].map((kind) => this.#follow(kind, signal));
  }

  current(): readonly Service[] {
    return (this.#current ??= [...this.#joined.values()].flat());
  }

  isSynced(): boolean {
    return this.#listed.size === 2;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#running);
  }

  #serviceKind(): Kind {
    return {
      name: 'services',
      paths: [services],
      keys: () => [...this.#services.keys()],
      put: (key, item) => {
        const facts = readService(item);
        if (facts === undefined) this.#services.delete(key);
        else this.#services.set(key, facts);
        this.#touch(key);
      },
      delete: (key) => {
        this.#services.delete(key);
        this.#touch(key);
      },
    };
  }

  #sliceKind(): Kind {
    const remove = (key: string): void => {
      const before = this.#slices.get(key);
      if (before === undefined) return;
      this.#slices.delete(key);
      this.#slicesOf.get(before.service)?.delete(key);
      this.#touch(before.service);
    };
    return {
      name: 'endpoint slices',
      paths: sliceVersions,
      keys: () => [...this.#slices.keys()],
      put: (key, item) => {
        remove(key);
        const facts = readSlice(item);
        if (facts === undefined) return;
        this.#slices.set(key, facts);
        const others = this.#slicesOf.get(facts.service) ?? new Map<string, SliceFacts>();
        this.#slicesOf.set(facts.service, others.set(key, facts));
        this.#touch(facts.service);
      },
      delete: remove,
    };
  }

  /** Lists and watches until told to stop; what is known stays while the API is away. */
  async #follow(kind: Kind, signal: AbortSignal): Promise<void> {
    const { log } = this.#options;
    let retryMs = firstRetryMs;
    while (!signal.aborted) {
      try {
        await this.#watch(kind, signal, () => (retryMs = firstRetryMs));
      } catch (error) {
        // A version that is too old is an everyday thing: list again.
        if (!signal.aborted && !isFault(error, 'compacted'))
          log.warn({ error }, `cannot follow ${kind.name}; carrying on with what is known`);
      }
      await delay(retryMs * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
      retryMs = Math.min(retryMs * 2, lastRetryMs);
    }
  }

  async #watch(kind: Kind, signal: AbortSignal, connected: () => void): Promise<void> {
    const { client } = this.#options;
    const { path, listing } = await this.#list(kind, signal);
    connected();
    const seen = new Map(listing.items.flatMap((item) => keyed(item)));
    for (const key of kind.keys()) if (!seen.has(key)) kind.delete(key);
    for (const [key, item] of seen) kind.put(key, item);
    this.#listedAll(kind);
    for (let since = listing.revision; !signal.aborted;) {
      for await (const change of client.watch(path, since, signal)) {
        since = change.revision;
        if (change.type === 'bookmark') continue;
        for (const [key, item] of keyed(change.item)) {
          if (change.type === 'put') kind.put(key, item);
          else kind.delete(key);
        }
      }
    }
  }

  /** From the first path that the server has. */
  async #list({ paths }: Kind, signal: AbortSignal): Promise<{ readonly path: string; readonly listing: Listing }> {
    const { client } = this.#options;
    for (const path of paths.slice(0, -1)) {
      try {
        return { path, listing: await client.list(path, signal) };
      } catch (error) {
        if (!isFault(error, 'not-found')) throw error;
      }
    }
    const path = paths.at(-1) ?? '';
    return { path, listing: await client.list(path, signal) };
  }

  #listedAll({ name }: Kind): void {
    if (this.#listed.has(name)) return;
    this.#listed.add(name);
    // What the journal knows and the cluster does not goes now.
    for (const key of [...this.#services.keys(), ...this.#joined.keys()]) this.#touch(key);
  }

  #touch(key: string): void {
    this.#dirty.add(key);
    if (this.#turning) return;
    this.#turning = true;
    setImmediate(() => {
      this.#turning = false;
      if (!this.#stop.signal.aborted && this.isSynced()) this.#settle();
    });
  }

  /** Joins again what has changed, notes it in the journal and tells. */
  #settle(): void {
    const { journal, log, changed } = this.#options;
    const news = new Map<string, readonly Service[]>();
    for (const key of this.#dirty) {
      const facts = this.#services.get(key);
      const joined = facts === undefined ? [] : joinService(facts, [...(this.#slicesOf.get(key)?.values() ?? [])]);
      if (JSON.stringify(joined) !== JSON.stringify(this.#joined.get(key) ?? [])) news.set(key, joined);
    }
    this.#dirty.clear();
    for (const [key, joined] of news) {
      if (joined.length === 0) this.#joined.delete(key);
      else this.#joined.set(key, joined);
    }
    this.#current = undefined;
    try {
      journal.transaction(() => {
        for (const [key, joined] of news) {
          if (joined.length === 0) journal.delete(prefix + key);
          else journal.put(prefix + key, joined);
        }
      });
    } catch (error) {
      if (!isFault(error)) throw error;
      log.warn({ error }, 'cannot keep what is known of services');
    }
    // Also without news: only now may be removed what an earlier process left.
    changed();
  }
}

const keyed = (item: unknown): [string, unknown][] => {
  const key = keyOf(item);
  return key === undefined ? [] : [[key, item]];
};
