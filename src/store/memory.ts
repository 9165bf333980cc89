// The store without a disk: for tests, for a controller that is tried out, and as the plainest statement of what a store
// does. Values are kept as text, so nobody can change what is stored through an object they still hold.
import { Fault } from '#model/fault.ts';
import { Bell, compacted, endOf, follow, revisionOf, stride, type Batch, type History } from './follow.ts';
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

interface Fact {
  readonly text: string;
  readonly revision: number;
}

interface Occurrence {
  readonly position: number;
  readonly key: string;
  /** Absent: deleted. */
  readonly text: string | undefined;
}

const batchSize = 256;

/** What several MemoryStores may share, as several processes share a file. */
export class MemoryFacts {
  readonly entries: Map<string, Fact> = new Map();
  readonly bell: Bell = new Bell();
  readonly historyLength: number;
  history: Occurrence[] = [];
  revision = 0;
  /** Changes after this revision are all known. */
  floor = 0;

  /** `historyLength`: revisions of which the changes are kept for watches. */
  constructor(historyLength = 100_000) {
    this.historyLength = historyLength;
  }

  commit(changes: readonly Change[]): number {
    for (const { key, expect } of changes) {
      const found = this.entries.get(key)?.revision ?? 0;
      if (expect !== undefined && expect !== found) throw conflict(key, expect, found);
    }
    const effective = changes.filter(({ type, key }) => type === 'put' || (type === 'delete' && this.entries.has(key)));
    if (effective.length === 0) return this.revision;
    this.revision += 1;
    for (const [index, { key, text }] of effective.entries()) {
      this.history.push({ position: this.revision * stride + index, key, text });
      if (text === undefined) this.entries.delete(key);
      else this.entries.set(key, { text, revision: this.revision });
    }
    if (this.revision - this.floor > this.historyLength * 1.02) this.forget(this.revision - this.historyLength);
    this.bell.ring();
    return this.revision;
  }

  forget(floor: number): void {
    if (floor <= this.floor) return;
    this.floor = Math.min(floor, this.revision);
    this.history = this.history.slice(this.indexAfter(endOf(this.floor)));
  }

  /** Index of the first occurrence after `position`. */
  indexAfter(position: number): number {
    let low = 0;
    let high = this.history.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.history[middle]?.position ?? 0) > position) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

const toEvent = ({ position, key, text }: Occurrence): StoreEvent =>
  text === undefined
    ? { type: 'delete', key, revision: revisionOf(position) }
    : { type: 'put', key, value: parseValue(key, text), revision: revisionOf(position) };

export class MemoryStore implements Store, History {
  readonly name = 'memory';
  readonly isShared: boolean = false;
  readonly #facts: MemoryFacts;
  closed = false;

  constructor(facts: MemoryFacts = new MemoryFacts()) {
    this.#facts = facts;
  }

  get bell(): Bell {
    return this.#facts.bell;
  }

  async get(key: string): Promise<Entry | undefined> {
    this.#mustBeOpen();
    checkKey(key);
    const fact = this.#facts.entries.get(key);
    return fact === undefined ? undefined : { key, value: parseValue(key, fact.text), revision: fact.revision };
  }

  async list(
    prefix: string,
    page: { after?: string; limit?: number } = {},
  ): Promise<{ entries: Entry[]; revision: number; more: boolean }> {
    this.#mustBeOpen();
    checkPrefix(prefix);
    checkPrefix(page.after ?? '', 'after');
    const limit = pageLimit(page.limit);
    const [start, end] = [pageStart(prefix, page.after), prefixEnd(prefix)];
    const found = [...this.#facts.entries].filter(([key]) => key >= start && key < end).sort(([a], [b]) => (a < b ? -1 : 1));
    const entries = found.slice(0, limit).map(([key, { text, revision }]) => ({ key, value: parseValue(key, text), revision }));
    return { entries, revision: this.#facts.revision, more: found.length > limit };
  }

  async commit(operations: readonly Operation[]): Promise<{ revision: number }> {
    this.#mustBeOpen();
    return { revision: this.#facts.commit(checkOperations(operations)) };
  }

  watch(prefix: string, options: { since: number; signal: AbortSignal }): AsyncIterable<StoreEvent> {
    checkPrefix(prefix);
    checkRevision(options.since, 'since');
    return follow(this, prefix, options);
  }

  read(prefix: string, position: number): Batch {
    const { floor, history, revision } = this.#facts;
    if (position < endOf(floor)) throw compacted(revisionOf(position), floor);
    const events: StoreEvent[] = [];
    for (let index = this.#facts.indexAfter(position); index < history.length; index += 1) {
      const occurrence = history[index];
      if (occurrence?.key.startsWith(prefix) !== true) continue;
      events.push(toEvent(occurrence));
      if (events.length === batchSize) return { events, position: occurrence.position };
    }
    return { events, position: Math.max(position, endOf(revision)) };
  }

  async compact(revision: number): Promise<void> {
    this.#mustBeOpen();
    checkRevision(revision, 'revision');
    this.#facts.forget(revision - 1);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.closed = true;
    this.#facts.bell.ring();
  }

  #mustBeOpen(): void {
    if (this.closed) throw new Fault('unavailable', 'The store is closed');
  }
}
