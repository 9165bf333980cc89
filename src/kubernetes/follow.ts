// Follows one sort of object of the Kubernetes API for as long as it is told to: list, then watch from there, and again from
// the beginning when the server says that a version is too old. What is known stays while the API is away, so nobody who
// follows may remove anything before the first listing is complete.
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { isFault } from '#model/fault.ts';
import type { KubernetesClient, Listing } from './client.ts';

/** One sort of object that is followed. */
export interface Followed {
  /** As people call it, in the log. */
  readonly name: string;
  /** Tried in order: a server has the first of these that it does not answer "not found" for. */
  readonly paths: readonly string[];
  /** `absent`: that the server has none of the paths counts as an empty listing, looked at again now and then. */
  readonly absent?: 'empty';
  /** Keys of what is known: `namespace/name`, or the name of what belongs to no namespace. */
  keys(): readonly string[];
  put(key: string, item: unknown): void;
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
}

const firstRetryMs = 200;
const lastRetryMs = 5_000;
/** How often it is looked whether a server has come to know a sort of object, as by a definition that was applied. */
const absentMs = 30_000;
const listMs = 60_000;

/** Resolves when `signal` has aborted; throws nothing. */
export async function followKind(kind: Followed, { client, signal, log }: FollowOptions): Promise<void> {
  let retryMs = firstRetryMs;
  while (!signal.aborted) {
    try {
      await watchKind(kind, client, { signal, connected: () => (retryMs = firstRetryMs) });
    } catch (error) {
      if (kind.absent === 'empty' && isFault(error, 'not-found')) {
        take(kind, []);
        retryMs = absentMs;
      }
      // A version that is too old is an everyday thing: list again.
      else if (!signal.aborted && !isFault(error, 'compacted'))
        log.warn({ error }, `cannot follow ${kind.name}; carrying on with what is known`);
    }
    await delay(retryMs * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
    retryMs = Math.min(retryMs * 2, lastRetryMs);
  }
}

interface Watching {
  readonly signal: AbortSignal;
  readonly connected: () => void;
}

async function watchKind(kind: Followed, client: KubernetesClient, { signal, connected }: Watching): Promise<void> {
  const { path, listing } = await listFirst(kind, client, signal);
  connected();
  take(kind, listing.items);
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

function take(kind: Followed, items: readonly unknown[]): void {
  const seen = new Map(items.flatMap((item) => keyed(item)));
  for (const key of kind.keys()) if (!seen.has(key)) kind.delete(key);
  for (const [key, item] of seen) kind.put(key, item);
  kind.listed();
}

/** All of one sort as it is now, by its keys. Faults as KubernetesClient.list. */
export async function listKind(
  kind: Pick<Followed, 'paths' | 'absent'>,
  client: KubernetesClient,
  signal: AbortSignal = AbortSignal.timeout(listMs),
): Promise<[string, unknown][]> {
  try {
    return (await listFirst(kind, client, signal)).listing.items.flatMap(keyed);
  } catch (error) {
    if (kind.absent === 'empty' && isFault(error, 'not-found')) return [];
    throw error;
  }
}

/** From the first path that the server has. */
async function listFirst(
  { paths }: Pick<Followed, 'paths'>,
  client: KubernetesClient,
  signal: AbortSignal,
): Promise<{ readonly path: string; readonly listing: Listing }> {
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

const named = v.object({ metadata: v.object({ namespace: v.optional(v.string()), name: v.string() }) });

/** Undefined for what is no object of the API. */
function keyed(item: unknown): [string, unknown][] {
  const read = v.safeParse(named, item);
  if (!read.success) return [];
  const { namespace, name } = read.output.metadata;
  return [[namespace === undefined ? name : `${namespace}/${name}`, item]];
}
