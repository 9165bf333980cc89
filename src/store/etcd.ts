// The store for several controllers: an etcd cluster, version 3.4 or later. Keys lie below a prefix, so the cluster may be
// shared; a revision is etcd's own and grows with other users' writes too. etcd forgets history only when told: run it with
// --auto-compaction-mode=revision --auto-compaction-retention=100000, as the controllers do not compact by themselves.
import { Fault, isFault } from '#model/fault.ts';
import { type Answer, Gateway, type GatewayOptions, isAnswer } from './etcd-gateway.ts';
import { encode, headRevision, type Pair, pairsOf } from './etcd-pairs.ts';
import { watchKeys } from './etcd-watch.ts';
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

/** etcd need not be reachable yet. Fault `invalid` for an endpoint that is no http or https URL, or a bad prefix. */
export function openEtcdStore(options: EtcdOptions): Store {
  const { prefix = 'causeway/' } = options;
  checkPrefix(prefix);
  if (prefix === '') throw new Fault('invalid', 'The prefix of an etcd store is empty', { field: 'store' });
  return new EtcdStore(new Gateway(options), prefix);
}

class EtcdStore implements Store {
  readonly name = 'etcd';
  readonly isShared = true;
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
    const range = { from: `${this.#prefix}${prefix}`, to: `${this.#prefix}${prefixEnd(prefix)}` };
    for await (const { type, revision, ...pair } of watchKeys(this.#gateway, { ...range, since, signal })) {
      const key = pair.key.slice(this.#prefix.length);
      yield type === 'delete' ? { type, key, revision } : { type, key, value: parseValue(key, pair.text), revision };
    }
  }

  #toRequest({ type, key, text }: Change): Answer[] {
    if (type === 'check') return [];
    if (text === undefined) return [{ request_delete_range: { key: this.#encode(key) } }];
    return [{ request_put: { key: this.#encode(key), value: encode(text) } }];
  }

  #toEntry(pair: Pair): Entry {
    const key = pair.key.slice(this.#prefix.length);
    return { key, value: parseValue(key, pair.text), revision: pair.revision };
  }

  #encode(key: string): string {
    return encode(`${this.#prefix}${key}`);
  }

  async #call(path: string, body: Answer, options?: { once: boolean }): Promise<Answer> {
    if (this.#closing.signal.aborted) throw new Fault('unavailable', 'The store is closed');
    return this.#gateway.call(`/v3/${path}`, body, options);
  }
}

/** The first expectation that did not hold, from the look at every key that etcd took in the same transaction. */
function lostOf(expecting: readonly Change[], answer: Answer): Fault {
  const responses = Array.isArray(answer['responses']) ? answer['responses'].filter(isAnswer) : [];
  for (const [index, { key, expect = 0 }] of expecting.entries()) {
    const range = responses[index]?.['response_range'];
    const found = (isAnswer(range) ? pairsOf(range)[0]?.revision : undefined) ?? 0;
    if (found !== expect) return conflict(key, expect, found);
  }
  return new Fault('conflict', 'An expectation of the commit did not hold');
}
