// Follows one sort of object of the Kubernetes API for as long as it is told to: list, then watch from there, and again from
// the beginning when the server says that a version is too old. What is known stays while the API is away, so nobody who
// follows may remove anything before the first listing is complete.
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { isFault } from '#model/fault.ts';
import type { KubernetesClient, Listing } from './client.ts';
import { Definition } from './definition.ts';

/** One sort of object that is followed. */
export interface Followed {
  /** As people call it, in the log. */
  readonly name: string;
  /** Tried in order: a server has the first of these that it does not answer "not found" for. */
  readonly paths: readonly string[];
  /** That the server has none of the paths counts as an empty listing, until the definition of the last one comes. */
  readonly absent?: 'empty';
  /** Keys of what is known: `namespace/name`, or the name of what belongs to no namespace. */
  keys(): readonly string[];
  put(key: string, item: unknown): void;
  /** For what there are very many of: the first half of put(), page by page while a listing comes; what it answers is the second. */
  prepare?(key: string, item: unknown): () => void;
  delete(key: string): void;
  /** After every whole listing, when all of it has been put. */
  listed(): void;
  /** After every listing and every change: all changes up to this resource version have been told. */
  reached?(revision: number): void;
}

export interface FollowOptions {
  readonly client: KubernetesClient;
  readonly signal: AbortSignal;
  readonly log: { warn(fields: object, message: string): void };
  /** Milliseconds: how long a server must not know a sort of object of which there were some before they are gone. */
  readonly doubtMs?: number;
}

const firstRetryMs = 200;
const lastRetryMs = 5_000;
const listMs = 60_000;
const usualDoubtMs = 60_000;

/** Resolves when `signal` has aborted; throws nothing. */
export async function followKind(kind: Followed, options: FollowOptions): Promise<void> {
  const { client, signal, log, doubtMs = usualDoubtMs } = options;
  const absence = new Absence(kind, { client, signal, doubtMs });
  const definition = new Definition(kind.paths.at(-1) ?? '', { client, signal });
  let retryMs = firstRetryMs;
  const connected = (): void => {
    retryMs = firstRetryMs;
    absence.ends();
  };
  while (!signal.aborted) {
    try {
      await watchKind(kind, client, { signal, connected });
    } catch (error) {
      if (kind.absent === 'empty' && isFault(error, 'not-found') && (await absence.isCertain())) {
        take(kind, []);
        retryMs = await definition.news();
      }
      // A version that is too old is an everyday thing: list again.
      else if (!signal.aborted && !isFault(error, 'compacted'))
        log.warn({ error }, `cannot follow ${kind.name}; carrying on with what is known`);
    }
    await delay(retryMs * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
    retryMs = Math.min(retryMs * 2, lastRetryMs);
  }
}

/**
 * That a server does not know a sort of object. One that is just starting may not know it yet, nor one that another server has to answer
 * for; and where a definition is deleted its objects have gone before. So what there is stays for a while.
 */
class Absence {
  readonly #kind: Followed;
  readonly #options: Required<Omit<FollowOptions, 'log'>>;
  #since: number | undefined;
  #isCertain = false;

  constructor(kind: Followed, options: Required<Omit<FollowOptions, 'log'>>) {
    this.#kind = kind;
    this.#options = options;
  }

  ends(): void {
    this.#since = undefined;
    this.#isCertain = false;
  }

  async isCertain(): Promise<boolean> {
    if (this.#isCertain) return true;
    const { client, signal, doubtMs } = this.#options;
    this.#since ??= performance.now();
    if (!(await client.isReady(signal).catch(() => false))) return false;
    if (this.#kind.keys().length > 0 && performance.now() - this.#since < doubtMs) {
      this.#kind.listed();
      return false;
    }
    this.#isCertain = true;
    return true;
  }
}

interface Watching {
  readonly signal: AbortSignal;
  readonly connected: () => void;
}

async function watchKind(kind: Followed, client: KubernetesClient, { signal, connected }: Watching): Promise<void> {
  const { path, listing } = await listFirst(kind.paths, (item) => taking(kind, item), { client, signal });
  connected();
  take(kind, listing.items.flat());
  kind.reached?.(listing.revision);
  for (let since = listing.revision; !signal.aborted;) {
    for await (const change of client.watch(path, since, signal)) {
      since = change.revision;
      if (change.type === 'bookmark') continue;
      for (const [key, item] of keyed(change.item)) {
        if (change.type === 'put') kind.put(key, item);
        else kind.delete(key);
      }
      kind.reached?.(change.revision);
    }
    await client.checkReached(path, since, signal);
  }
}

/** Key of an object, and what takes it in. */
type Taking = readonly [string, () => void];

const taking = (kind: Followed, item: unknown): Taking[] =>
  keyed(item).map(([key, one]) => [key, kind.prepare?.(key, one) ?? (() => kind.put(key, one))]);

function take(kind: Followed, items: readonly Taking[]): void {
  const seen = new Map(items);
  for (const key of kind.keys()) if (!seen.has(key)) kind.delete(key);
  for (const put of seen.values()) put();
  kind.listed();
}

/** All of one sort as it is now, by its keys. Faults as KubernetesClient.list. */
export async function listKind(
  kind: Pick<Followed, 'paths' | 'absent'>,
  client: KubernetesClient,
  signal: AbortSignal = AbortSignal.timeout(listMs),
): Promise<[string, unknown][]> {
  try {
    return (await listFirst(kind.paths, keyed, { client, signal })).listing.items.flat();
  } catch (error) {
    if (kind.absent === 'empty' && isFault(error, 'not-found')) return [];
    throw error;
  }
}

/** From the first path that the server has, each item as `read` takes it. */
async function listFirst<T>(
  paths: readonly string[],
  read: (item: unknown) => T,
  { client, signal }: Pick<FollowOptions, 'client' | 'signal'>,
): Promise<{ readonly path: string; readonly listing: Listing<T> }> {
  for (const path of paths.slice(0, -1)) {
    try {
      return { path, listing: await client.listRead(path, signal, read) };
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
    }
  }
  const path = paths.at(-1) ?? '';
  return { path, listing: await client.listRead(path, signal, read) };
}

const named = v.object({ metadata: v.object({ namespace: v.optional(v.string()), name: v.string() }) });

/** Undefined for what is no object of the API. */
function keyed(item: unknown): [string, unknown][] {
  const read = v.safeParse(named, item);
  if (!read.success) return [];
  const { namespace, name } = read.output.metadata;
  return [[namespace === undefined ? name : `${namespace}/${name}`, item]];
}
