// For tests of controllers: a server that keeps what it is given and says nothing by itself.
import assert from 'node:assert/strict';
import { Fault } from '#model/fault.ts';
import type { Change, KubernetesClient, Listing } from './client.ts';

export interface Item {
  readonly metadata: {
    readonly namespace?: string;
    readonly name: string;
    readonly resourceVersion: string;
    readonly [field: string]: unknown;
  };
  readonly status?: unknown;
  readonly [field: string]: unknown;
}

/** A client's two ways to list, of a server that has started and gets no definitions. */
export const listings = (
  list: (path: string) => Promise<Listing>,
): Pick<KubernetesClient, 'list' | 'listRead' | 'isReady' | 'watchOne'> => ({
  list,
  // oxlint-disable-next-line require-yield -- a stream of changes in which nothing changes
  watchOne: async function* (_, __, { signal }) {
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  },
  isReady: () => Promise.resolve(true),
  listRead: async <T>(path: string, _: AbortSignal, read: (item: unknown) => T): Promise<Listing<T>> => {
    const { items, revision } = await list(path);
    return { items: items.map(read), revision };
  },
});

/** Objects by kind and name; a watch tells of what is put or removed. */
export class Server {
  version = 1000;
  readonly writes: string[] = [];
  readonly #items = new Map<string, Map<string, Item>>();
  readonly #heard: ((path: string, change: Change) => void)[] = [];
  readonly #history: { readonly path: string; readonly change: Change }[] = [];
  refuse: Fault | undefined;

  /** By path of the sort; others are not there. */
  constructor(kept: readonly (readonly [path: string, items: readonly Item[]])[]) {
    for (const [path, items] of kept) this.#items.set(path, new Map(items.map((item) => [keyOf(item), item])));
  }

  of(path: string): Item[] {
    return [...(this.#items.get(path)?.values() ?? [])];
  }

  put(path: string, item: object): Item {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- tests put what is one
    const { metadata, ...more } = item as Item;
    const next = { ...more, metadata: { ...metadata, resourceVersion: String((this.version += 1)) } };
    this.#items.get(path)?.set(keyOf(next), next);
    this.#tell(path, { type: 'put', item: next, revision: this.version });
    return next;
  }

  #tell(path: string, change: Change): void {
    this.#history.push({ path, change });
    for (const hear of this.#heard) hear(path, change);
  }

  remove(path: string, key: string): void {
    const item = this.#items.get(path)?.get(key);
    this.#items.get(path)?.delete(key);
    this.#tell(path, { type: 'delete', item, revision: (this.version += 1) });
  }

  #collectionOf(path: string): string {
    const whole = path.replace(/namespaces\/[^/]+\//, '');
    return [...this.#items.keys()].find((one) => whole === one || whole.startsWith(`${one}/`)) ?? assert.fail(path);
  }

  #itemAt(path: string): Item | undefined {
    return this.of(this.#collectionOf(path)).find(({ metadata: { name } }) => path.endsWith(`/${name}`));
  }

  #statusAt(path: string): object {
    const status = this.#itemAt(path)?.status;
    return status === undefined ? {} : { status };
  }

  get client(): KubernetesClient {
    const write = (what: string, path: string, item: object): Promise<unknown> => {
      if (this.refuse !== undefined) return Promise.reject(this.refuse);
      this.writes.push(`${what} ${path.replace(/^\/apis\/[^/]+\/[^/]+/, '')}`);
      return Promise.resolve(this.put(this.#collectionOf(path), item));
    };
    const client = {
      ...listings((path) => Promise.resolve(this.#items.has(path) ? { items: this.of(path), revision: this.version } : noItems)),
      watch: async function* (this: void, path: string, since: number, signal: AbortSignal): AsyncGenerator<Change, void> {
        const changes = history.filter((one) => one.path === path && one.change.revision > since).map(({ change }) => change);
        let wake: (() => void) | undefined;
        heard.push((at, change) => {
          if (at === path) changes.push(change);
          wake?.();
        });
        signal.addEventListener('abort', () => wake?.());
        while (!signal.aborted) {
          // While one is taken in there may come more.
          for (let change = changes.shift(); change !== undefined; change = changes.shift()) yield change;
          if (!signal.aborted) await new Promise<void>((resolve) => (wake = resolve));
        }
      },
      get: (path: string) => {
        const item = this.#itemAt(path);
        return item === undefined ? Promise.reject(new Fault('not-found', path)) : Promise.resolve(item);
      },
      create: (path: string, item: object) => write('create', path, item),
      // Whoever replaces an object without its status leaves that as it is.
      replace: (path: string, item: object) => write('replace', path, { ...this.#statusAt(path), ...item }),
      remove: (path: string) => {
        this.writes.push(`remove ${path.replace(/^\/apis\/[^/]+\/[^/]+/, '')}`);
        const [, namespace, name = ''] = /(?:namespaces\/([^/]+)\/)?[^/]+\/([^/]+)$/.exec(path) ?? [];
        this.remove(this.#collectionOf(path), namespace === undefined ? name : `${namespace}/${name}`);
        return Promise.resolve();
      },
      checkReached: () => Promise.resolve(),
    };
    const [heard, history] = [this.#heard, this.#history];
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what is asked of it here
    return client as unknown as KubernetesClient;
  }
}
const noItems = { items: [], revision: 1 };
const keyOf = ({ metadata: { namespace, name } }: Item): string => (namespace === undefined ? name : `${namespace}/${name}`);
