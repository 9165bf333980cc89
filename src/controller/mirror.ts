// A copy of the store's facts in memory, kept up to date by one watch per controller process: what lists, filters and a
// thousand watching agents are served from. It may lag; whoever decides something checks it in the commit.
import { Fault, isFault } from '#model/fault.ts';
import { type ResourceKind, resourceKinds, type Resources } from '#model/resources.ts';
import type { Entry, Store, StoreEvent } from '#store/store.ts';
import { fromEntry, listAll } from './records.ts';
import type { Log } from './log.ts';

export interface Changed<K extends ResourceKind> {
  readonly kind: K;
  readonly id: string;
  readonly before?: Resources[K];
  /** Absent: it was deleted. */
  readonly after?: Resources[K];
  readonly revision: number;
}
export type Change = { readonly [K in ResourceKind]: Changed<K> }[ResourceKind];

type Tables = { readonly [K in ResourceKind]: Map<string, Resources[K]> };
const privateKinds = ['tokens', 'certificates', 'incarnations', 'speakers', 'routes', 'epochs'] as const;
export type PrivateKind = (typeof privateKinds)[number];

export interface MirrorListener {
  changed(change: Change): void;
  /** Something that is no resource: a token, a certificate, an incarnation, a speaker, a host's routes, an epoch. */
  privateChanged(kind: PrivateKind, id: string): void;
  /** History is broken at `revision`: changes between were only seen as differences. */
  restarted(revision: number): void;
}

export class Mirror implements AsyncDisposable {
  readonly #store: Store;
  readonly #log: Log;
  readonly #tables: Tables = {
    tenants: new Map(),
    hosts: new Map(),
    networks: new Map(),
    pools: new Map(),
    blocks: new Map(),
    endpoints: new Map(),
    exposures: new Map(),
    bgp: new Map(),
    secrets: new Map(),
  };
  readonly #private = new Map<string, Entry>();
  readonly #listeners = new Set<MirrorListener>();
  readonly #waiting = new Set<{ revision: number; done: () => void }>();
  readonly #stop = new AbortController();
  readonly #lost = Promise.withResolvers<Fault>();
  #running: Promise<void> = Promise.resolve();
  #revision = 0;

  private constructor(store: Store, log: Log) {
    this.#store = store;
    this.#log = log;
  }

  /** Reads everything, then follows. Fault `unavailable` when the store cannot be read. */
  static async open(store: Store, log: Log): Promise<Mirror> {
    const mirror = new Mirror(store, log);
    await mirror.#load();
    mirror.#running = mirror.#follow();
    return mirror;
  }

  /** Everything before this revision has been seen, and at least a part of it itself. */
  get revision(): number {
    return this.#revision;
  }

  /** Settles when the store has been restored from a backup under this process, which then knows what never was: it has to start anew. */
  get lost(): Promise<Fault> {
    return this.#lost.promise;
  }

  all<K extends ResourceKind>(kind: K): ReadonlyMap<string, Resources[K]> {
    return this.#tables[kind];
  }

  get<K extends ResourceKind>(kind: K, id: string): Resources[K] | undefined {
    return this.#tables[kind].get(id);
  }

  /** An entry that is no resource, for example `tokens/…`. */
  entry(key: string): Entry | undefined {
    return this.#private.get(key);
  }

  entries(kind: PrivateKind): Entry[] {
    return [...this.#private.values()].filter(({ key }) => key.startsWith(`${kind}/`));
  }

  listen(listener: MirrorListener): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** Waits until everything before `revision` has been seen; gives up quietly after `timeoutMs`. Returns whether it was. */
  async reached(revision: number, timeoutMs = 5000): Promise<boolean> {
    if (this.#revision >= revision) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const waiter = { revision, done: (): void => resolve(true) };
    this.#waiting.add(waiter);
    const timer = setTimeout(() => resolve(false), timeoutMs);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(waiter);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #load(): Promise<void> {
    const { revision } = await this.#store.list('tenants/', { limit: 1 });
    if (revision < this.#revision) {
      const message = `The store is at revision ${revision}, and was at ${this.#revision}: it has been restored from a backup`;
      this.#lost.resolve(new Fault('corrupt', message, { hint: 'Start the controller again; stop it before the store is restored.' }));
      return;
    }
    const seen = new Set<string>();
    for (const prefix of [...resourceKinds, ...privateKinds]) {
      for (const entry of await listAll(this.#store, `${prefix}/`)) {
        seen.add(entry.key);
        this.#apply({ type: 'put', ...entry });
      }
    }
    for (const kind of resourceKinds) {
      for (const id of this.#tables[kind].keys()) {
        if (!seen.has(`${kind}/${id}`)) this.#apply({ type: 'delete', key: `${kind}/${id}`, revision });
      }
    }
    for (const key of this.#private.keys()) if (!seen.has(key)) this.#apply({ type: 'delete', key, revision });
    this.#advance(revision);
    for (const listener of this.#listeners) listener.restarted(this.#revision);
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stop;
    for (let delayMs = 100; !signal.aborted; delayMs = Math.min(delayMs * 2, 5000)) {
      try {
        // One revision back: an interrupted commit may have been seen in part. Seeing an event twice does no harm.
        for await (const event of this.#store.watch('', { since: Math.max(0, this.#revision - 1), signal })) {
          this.#apply(event);
          this.#advance(event.revision);
          delayMs = 100;
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#log.warn({ error }, 'The watch on the store has ended, beginning again');
        if (isFault(error, 'compacted'))
          await this.#load().catch((failed: unknown) => this.#log.warn({ error: failed }, 'Cannot read the store'));
      }
      if (!signal.aborted) await pause(delayMs, signal);
    }
  }

  #advance(revision: number): void {
    if (revision <= this.#revision) return;
    this.#revision = revision;
    for (const waiter of this.#waiting) {
      // Let the other events of this commit in first.
      if (revision >= waiter.revision) setImmediate(waiter.done);
    }
  }

  #apply(event: StoreEvent): void {
    const slash = event.key.indexOf('/');
    const prefix = event.key.slice(0, slash);
    const id = event.key.slice(slash + 1);
    const kind = resourceKinds.find((one) => one === prefix);
    if (kind !== undefined) {
      this.#applyResource(kind, id, event);
      return;
    }
    const hidden = privateKinds.find((one) => one === prefix);
    if (hidden === undefined || (this.#private.get(event.key)?.revision ?? -1) >= event.revision) return;
    if (event.type === 'put') this.#private.set(event.key, { key: event.key, value: event.value, revision: event.revision });
    else this.#private.delete(event.key);
    for (const listener of this.#listeners) listener.privateChanged(hidden, id);
  }

  #applyResource(kind: ResourceKind, id: string, event: StoreEvent): void {
    const change = this.#replace[kind](id, event);
    if (change === undefined) return;
    for (const listener of this.#listeners) listener.changed(change);
  }

  #replacer<K extends ResourceKind>(kind: K): (id: string, event: StoreEvent) => Changed<K> | undefined {
    return (id, event) => {
      const table = this.#tables[kind];
      const before = table.get(id);
      if (before !== undefined && before.revision >= event.revision) return undefined;
      const past = before === undefined ? {} : { before };
      if (event.type === 'delete') {
        if (!table.delete(id)) return undefined;
        return { kind, id, ...past, revision: event.revision };
      }
      const after = this.#read(kind, event);
      if (after === undefined) return undefined;
      table.set(id, after);
      return { kind, id, ...past, after, revision: event.revision };
    };
  }

  readonly #replace: { readonly [K in ResourceKind]: (id: string, event: StoreEvent) => Changed<K> | undefined } = {
    tenants: this.#replacer('tenants'),
    hosts: this.#replacer('hosts'),
    networks: this.#replacer('networks'),
    pools: this.#replacer('pools'),
    blocks: this.#replacer('blocks'),
    endpoints: this.#replacer('endpoints'),
    exposures: this.#replacer('exposures'),
    bgp: this.#replacer('bgp'),
    secrets: this.#replacer('secrets'),
  };

  #read<K extends ResourceKind>(kind: K, entry: Entry): Resources[K] | undefined {
    try {
      return fromEntry(kind, entry);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      this.#log.error({ error }, 'A record in the store cannot be read and is left out');
      return undefined;
    }
  }
}

export function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}
