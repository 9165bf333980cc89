// The store for several controllers: an etcd cluster, version 3.4 or later. Keys lie below a prefix, so the cluster may be
// shared; a revision is etcd's own and grows with other users' writes too. etcd forgets history only when told: run it with
// --auto-compaction-mode=revision --auto-compaction-retention=100000, as the controllers do not compact by themselves.
import { setTimeout as sleep } from 'node:timers/promises';
import { Fault, isFault } from '#model/fault.ts';
import { type Answer, Gateway, type GatewayOptions, isAnswer } from './etcd-gateway.ts';
import {
  type Change,
  checkKey,
  checkOperations,
  checkPrefix,
  checkRevision,
  conflict,
  pageLimit,
  pageStart,
  parseValue,
  prefixEnd,
} from './operations.ts';
import type { Entry, Operation, Store, StoreEvent } from './store.ts';

export interface EtcdOptions extends GatewayOptions {
  /** Every key begins with it; default `causeway/`. */
  readonly prefix?: string;
}

/** Entries per request of a long list. */
const pageSize = 500;
const reconnectMs = { first: 50, most: 2000 } as const;

/** etcd need not be reachable yet. Fault `invalid` for an endpoint that is no http or https URL, or a bad prefix. */
export function openEtcdStore(options: EtcdOptions): Store {
  const { prefix = 'causeway/' } = options;
  checkPrefix(prefix);
  if (prefix === '') throw new Fault('invalid', 'The prefix of an etcd store is empty', { field: 'store' });
  return new EtcdStore(new Gateway(options), prefix);
}

class EtcdStore implements Store {
  readonly name = 'etcd';
  readonly #gateway: Gateway;
  readonly #prefix: string;
  readonly #closing = new AbortController();

  constructor(gateway: Gateway, prefix: string) {
    this.#gateway = gateway;
    this.#prefix = prefix;
  }

  async get(key: string): Promise<Entry | undefined> {
    checkKey(key);
    const [pair] = pairsOf(await this.#call('kv/range', { key: this.#encode(key) }));
    return pair === undefined ? undefined : this.#toEntry(pair);
  }

  async list(
    prefix: string,
    page: { after?: string; limit?: number } = {},
  ): Promise<{ entries: Entry[]; revision: number; more: boolean }> {
    checkPrefix(prefix);
    checkPrefix(page.after ?? '', 'after');
    const limit = pageLimit(page.limit);
    // Compaction may take away the revision that a long list is read at.
    for (let attempt = 0; attempt < 3; attempt += 1) {
      try {
        return await this.#listOnce(prefix, page.after, limit);
      } catch (error) {
        if (!isFault(error, 'compacted')) throw error;
      }
    }
    throw new Fault('unavailable', `Cannot list ${prefix}: etcd compacts faster than it is read`);
  }

  async commit(operations: readonly Operation[]): Promise<{ revision: number }> {
    const changes = checkOperations(operations);
    const expecting = changes.filter(({ expect }) => expect !== undefined);
    const answer = await this.#call(
      'kv/txn',
      {
        compare: expecting.map(({ key, expect }) => {
          return { key: this.#encode(key), target: 'MOD', result: 'EQUAL', mod_revision: String(expect) };
        }),
        success: changes.flatMap((change) => this.#toRequest(change)),
        failure: expecting.map(({ key }) => ({ request_range: { key: this.#encode(key), keys_only: true } })),
      },
      { once: true },
    );
    if (answer['succeeded'] !== true) throw lostOf(expecting, answer);
    return { revision: headRevision(answer) };
  }

  watch(prefix: string, { since, signal }: { since: number; signal: AbortSignal }): AsyncIterable<StoreEvent> {
    checkPrefix(prefix);
    checkRevision(since, 'since');
    return this.#follow(prefix, since, AbortSignal.any([signal, this.#closing.signal]));
  }

  async compact(revision: number): Promise<void> {
    checkRevision(revision, 'revision');
    const head = headRevision(await this.#call('kv/range', { key: this.#encode(''), limit: '1', keys_only: true }));
    const target = Math.min(revision - 1, head);
    if (target < 1) return;
    try {
      await this.#call('kv/compaction', { revision: String(target) });
    } catch (error) {
      // Somebody else compacted further already.
      if (!isFault(error, 'compacted')) throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#gateway[Symbol.asyncDispose]();
  }

  async #listOnce(
    prefix: string,
    after: string | undefined,
    limit: number,
  ): Promise<{ entries: Entry[]; revision: number; more: boolean }> {
    const entries: Entry[] = [];
    let [revision, more, start] = [0, true, pageStart(prefix, after)];
    while (more && entries.length < limit) {
      const answer = await this.#call('kv/range', {
        key: this.#encode(start),
        range_end: this.#encode(prefixEnd(prefix)),
        limit: String(Math.min(pageSize, limit - entries.length)),
        ...(revision === 0 ? {} : { revision: String(revision) }),
      });
      if (revision === 0) revision = headRevision(answer);
      entries.push(...pairsOf(answer).map((pair) => this.#toEntry(pair)));
      more = answer['more'] === true;
      start = pageStart(prefix, entries.at(-1)?.key);
    }
    return { entries, revision, more };
  }

  async *#follow(prefix: string, since: number, signal: AbortSignal): AsyncGenerator<StoreEvent> {
    const place: Place = { revision: since, seen: Number.POSITIVE_INFINITY };
    let waitMs: number = reconnectMs.first;
    while (!signal.aborted) {
      const endpoint = this.#gateway.endpoint;
      const counted = { revision: 0, events: 0 };
      try {
        for await (const answer of this.#gateway.stream(endpoint, '/v3/watch', this.#toWatch(prefix, place), signal)) {
          waitMs = reconnectMs.first;
          for (const event of this.#newEvents(answer, place, counted)) {
            if (signal.aborted) return;
            yield event;
          }
        }
      } catch (error) {
        if (signal.aborted) return;
        if (isFault(error) && error.code !== 'unavailable') throw error;
      }
      this.#gateway.giveUpOn(endpoint);
      await sleep(waitMs, undefined, { signal }).catch(() => undefined);
      waitMs = Math.min(waitMs * 2, reconnectMs.most);
    }
  }

  /**
   * The watch starts at the revision that was already seen, not after it, and what was seen is left out again. So it can go
   * on in the middle of a commit; and etcd answers `compacted` already at the first revision whose deletions it may have
   * forgotten, which it does not for a watch that starts right after a compaction.
   */
  #toWatch(prefix: string, { revision }: Place): Answer {
    return {
      create_request: {
        key: this.#encode(prefix),
        range_end: this.#encode(prefixEnd(prefix)),
        start_revision: String(Math.max(1, revision)),
        progress_notify: true,
        fragment: true,
      },
    };
  }

  /** Moves `place` past each event before it is handed out. `counted`: what this connection brought of one revision. */
  *#newEvents(answer: Answer, place: Place, counted: { revision: number; events: number }): Generator<StoreEvent> {
    if (answer['canceled'] === true) {
      const floor = Number(answer['compact_revision'] ?? 0);
      if (floor === 0) throw new Fault('unavailable', `etcd ended the watch: ${String(answer['cancel_reason'])}`);
      throw new Fault('compacted', `Changes after revision ${place.revision} are no longer known, only those after ${floor}`, {
        hint: 'List again and watch from the revision of that list',
      });
    }
    const events = Array.isArray(answer['events']) ? answer['events'].filter(isAnswer) : [];
    if (events.length === 0 && answer['created'] !== true) {
      // A notice of progress: everything up to this revision has been sent.
      const revision = headRevision(answer);
      if (revision > place.revision) Object.assign(place, { revision, seen: Number.POSITIVE_INFINITY });
    }
    for (const raw of events) {
      const event = this.#toEvent(raw);
      if (event.revision !== counted.revision) Object.assign(counted, { revision: event.revision, events: 0 });
      counted.events += 1;
      if (event.revision < place.revision || (event.revision === place.revision && counted.events <= place.seen)) continue;
      Object.assign(place, { revision: event.revision, seen: counted.events });
      yield event;
    }
  }

  #toRequest({ type, key, text }: Change): Answer[] {
    if (type === 'check') return [];
    if (text === undefined) return [{ request_delete_range: { key: this.#encode(key) } }];
    return [{ request_put: { key: this.#encode(key), value: Buffer.from(text).toString('base64') } }];
  }

  #toEntry(pair: Answer): Entry {
    const key = this.#decode(pair['key']);
    return { key, value: parseValue(key, fromBase64(pair['value'])), revision: Number(pair['mod_revision']) };
  }

  #toEvent(raw: Answer): StoreEvent {
    const pair = isAnswer(raw['kv']) ? raw['kv'] : {};
    if (raw['type'] !== 'DELETE') return { type: 'put', ...this.#toEntry(pair) };
    return { type: 'delete', key: this.#decode(pair['key']), revision: Number(pair['mod_revision']) };
  }

  #encode(key: string): string {
    return Buffer.from(`${this.#prefix}${key}`).toString('base64');
  }

  #decode(key: unknown): string {
    return fromBase64(key).slice(this.#prefix.length);
  }

  async #call(path: string, body: Answer, options?: { once: boolean }): Promise<Answer> {
    if (this.#closing.signal.aborted) throw new Fault('unavailable', 'The store is closed');
    return this.#gateway.call(`/v3/${path}`, body, options);
  }
}

/** How far a watch has come: `seen` events of `revision` were handed out, and all before it. */
interface Place {
  revision: number;
  seen: number;
}

const fromBase64 = (text: unknown): string => Buffer.from(typeof text === 'string' ? text : '', 'base64').toString('utf8');

const pairsOf = (answer: Answer): Answer[] => (Array.isArray(answer['kvs']) ? answer['kvs'].filter(isAnswer) : []);

function headRevision(answer: Answer): number {
  const header = answer['header'];
  const revision = isAnswer(header) ? Number(header['revision'] ?? 0) : Number.NaN;
  if (Number.isNaN(revision)) throw new Fault('unavailable', 'An answer of etcd has no revision');
  return revision;
}

/** The first expectation that did not hold, from the look at every key that etcd took in the same transaction. */
function lostOf(expecting: readonly Change[], answer: Answer): Fault {
  const responses = Array.isArray(answer['responses']) ? answer['responses'].filter(isAnswer) : [];
  for (const [index, { key, expect = 0 }] of expecting.entries()) {
    const range = responses[index]?.['response_range'];
    const found = Number((isAnswer(range) ? pairsOf(range)[0]?.['mod_revision'] : undefined) ?? 0);
    if (found !== expect) return conflict(key, expect, found);
  }
  return new Fault('conflict', 'An expectation of the commit did not hold');
}
