// The embedded store: one SQLite file, any number of processes of one machine. A commit is acknowledged once it is on disk.
// What costs time is that wait (fsync), not the writing, so commits that arrive together share one transaction; each keeps
// its own revision and its own outcome. Other processes' commits are noticed by PRAGMA data_version, which is cheap to poll.
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { Fault } from '#model/fault.ts';
import { Database, type DatabaseOptions, type Row, type Statement } from './database.ts';
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

export interface SqliteOptions {
  /** Revisions of which the changes are kept for watches. */
  readonly historyLength?: number;
  readonly synchronous?: DatabaseOptions['synchronous'];
  /** Upper bound of the file; beyond it commits fail with `unavailable`. */
  readonly maxBytes?: number;
  /** How often a watch looks for commits of other processes. */
  readonly pollMs?: number;
  /** How long a call may wait for other processes before it fails with `unavailable`. */
  readonly busyMs?: number;
}

const applicationId = 0x63777374; // 'cwst'

const migrations = [
  `CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, floor INTEGER NOT NULL) STRICT;
   INSERT INTO head VALUES (1, 0, 0);
   CREATE TABLE entry (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL) STRICT;
   -- position = revision * 128 + index in the commit; value is null where the key was deleted
   CREATE TABLE history (position INTEGER PRIMARY KEY, key TEXT NOT NULL, value TEXT) STRICT;`,
];

/** The process is held while a group is written, so groups stay small enough for others to get their turn. */
const groupSize = 256;
const batchRows = 256;
const batchCharacters = 4_000_000;
/** A single attempt may hold the process this long; between attempts others run. */
const attemptMs = 20;

interface Pending {
  readonly changes: readonly Change[];
  readonly resolve: (answer: { revision: number }) => void;
  readonly reject: (reason: unknown) => void;
}

/** Faults: `corrupt`, `version`, `unavailable`. A missing file is created, readable for this user only. */
export async function openSqliteStore(path: string, options: SqliteOptions = {}): Promise<Store> {
  const { synchronous = 'FULL', maxBytes, busyMs = 5000 } = options;
  const database = await patiently(busyMs, () => {
    return new Database(path, {
      applicationId,
      migrations,
      synchronous,
      busyMs: attemptMs,
      ...(maxBytes === undefined ? {} : { maxBytes }),
      corruptHint: 'Stop the controller, move the file away and restore a backup, or try: sqlite3 FILE .recover',
    });
  });
  return new SqliteStore(database, options);
}

class SqliteStore implements Store, History {
  readonly name = 'sqlite';
  readonly isShared = false;
  readonly bell: Bell = new Bell();
  closed = false;
  readonly #database: Database;
  readonly #historyLength: number;
  readonly #busyMs: number;
  readonly #pollMs: number;
  readonly #sql: Readonly<Record<keyof typeof statements, Statement>>;
  #pending: Pending[] = [];
  #drained: Promise<void> | undefined;
  #watches = 0;
  #poll: NodeJS.Timeout | undefined;
  #seenVersion = 0;

  constructor(database: Database, { historyLength = 100_000, busyMs = 5000, pollMs = 25 }: SqliteOptions) {
    this.#database = database;
    this.#historyLength = historyLength;
    this.#busyMs = busyMs;
    this.#pollMs = pollMs;
    const names = Object.keys(statements) as (keyof typeof statements)[];
    this.#sql = Object.fromEntries(names.map((name) => [name, database.prepare(statements[name])])) as Record<
      keyof typeof statements,
      Statement
    >;
  }

  async get(key: string): Promise<Entry | undefined> {
    checkKey(key);
    const row = await this.#patiently(() => this.#sql.get.get(key));
    return row === undefined ? undefined : toEntry(row);
  }

  async list(
    prefix: string,
    page: { after?: string; limit?: number } = {},
  ): Promise<{ entries: Entry[]; revision: number; more: boolean }> {
    checkPrefix(prefix);
    checkPrefix(page.after ?? '', 'after');
    const limit = pageLimit(page.limit);
    const wanted = Number.isFinite(limit) ? limit + 1 : -1;
    return this.#patiently(() =>
      this.#database.read(() => {
        const entries = this.#sql.list.all(pageStart(prefix, page.after), prefixEnd(prefix), wanted).map(toEntry);
        return { entries: entries.slice(0, limit), revision: this.#head().revision, more: entries.length > limit };
      }),
    );
  }

  async commit(operations: readonly Operation[]): Promise<{ revision: number }> {
    const changes = checkOperations(operations);
    if (this.closed) throw new Fault('unavailable', 'The store is closed');
    const { promise, resolve, reject } = Promise.withResolvers<{ revision: number }>();
    this.#pending.push({ changes, resolve, reject });
    this.#drained ??= this.#drain();
    return promise;
  }

  watch(prefix: string, options: { since: number; signal: AbortSignal }): AsyncIterable<StoreEvent> {
    checkPrefix(prefix);
    checkRevision(options.since, 'since');
    return this.#follow(prefix, options);
  }

  async read(prefix: string, position: number): Promise<Batch> {
    return this.#patiently(() => this.#database.read(() => this.#readHistory(prefix, position)));
  }

  async compact(revision: number): Promise<void> {
    checkRevision(revision, 'revision');
    await this.#patiently(() =>
      this.#database.write(() => {
        const head = this.#head();
        const floor = Math.min(revision - 1, head.revision);
        if (floor > head.floor) this.#forget(floor);
      }),
    );
  }

  /** Commits that were already asked for are still written. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.closed = true;
    clearInterval(this.#poll);
    this.bell.ring();
    await this.#drained;
    this.#database[Symbol.dispose]();
  }

  async #drain(): Promise<void> {
    for (;;) {
      await nextTurn();
      const group = this.#pending.splice(0, groupSize);
      await this.#commitGroup(group);
      if (this.#pending.length === 0) break;
    }
    this.#drained = undefined;
  }

  async #commitGroup(group: readonly Pending[]): Promise<void> {
    let outcomes: readonly (number | Fault)[];
    try {
      outcomes = await this.#patiently(() => this.#database.write(() => this.#applyGroup(group)));
    } catch (error) {
      // One that is too large for the disk must not take the others down with it.
      if (group.length === 1) group[0]?.reject(error);
      else for (const pending of group) await this.#commitGroup([pending]);
      return;
    }
    this.bell.ring();
    for (const [index, { resolve, reject }] of group.entries()) {
      const outcome = outcomes[index];
      if (typeof outcome === 'number') resolve({ revision: outcome });
      else reject(outcome);
    }
  }

  #applyGroup(group: readonly Pending[]): (number | Fault)[] {
    const { revision: before, floor } = this.#head();
    let revision = before;
    const outcomes = group.map(({ changes }) => {
      const lost = this.#firstConflict(changes);
      if (lost === undefined && this.#apply(changes, revision + 1)) revision += 1;
      return lost ?? revision;
    });
    if (revision > before) this.#sql.setRevision.run(revision);
    // A little at a time, as forgetting holds the process too.
    if (revision - floor > this.#historyLength * 1.02) this.#forget(revision - this.#historyLength);
    return outcomes;
  }

  /** Every expectation is looked at before anything is written, so a commit that loses leaves nothing to undo. */
  #firstConflict(changes: readonly Change[]): Fault | undefined {
    for (const { key, expect } of changes) {
      if (expect === undefined) continue;
      const found = Number(this.#sql.revisionOf.get(key)?.['revision'] ?? 0);
      if (found !== expect) return conflict(key, expect, found);
    }
    return undefined;
  }

  /** Whether anything changed. */
  #apply(changes: readonly Change[], revision: number): boolean {
    let index = 0;
    for (const { type, key, text } of changes) {
      if (type === 'check') continue;
      if (text === undefined && this.#sql.delete.run(key) === 0) continue;
      if (text !== undefined) this.#sql.put.run(key, text, revision);
      this.#sql.record.run(revision * stride + index, key, text ?? null);
      index += 1;
    }
    return index > 0;
  }

  #forget(floor: number): void {
    this.#sql.forget.run(endOf(floor));
    this.#sql.setFloor.run(floor);
  }

  #head(): { revision: number; floor: number } {
    const row = this.#sql.head.get();
    return { revision: Number(row?.['revision']), floor: Number(row?.['floor']) };
  }

  #readHistory(prefix: string, position: number): Batch {
    const { revision, floor } = this.#head();
    if (position < endOf(floor)) throw compacted(revisionOf(position), floor);
    const events: StoreEvent[] = [];
    let characters = 0;
    for (const row of this.#sql.history.iterate(position, prefix, prefixEnd(prefix))) {
      events.push(toEvent(row));
      characters += textOf(row).length;
      if (events.length === batchRows || characters > batchCharacters) return { events, position: Number(row['position']) };
    }
    return { events, position: Math.max(position, endOf(revision)) };
  }

  async *#follow(prefix: string, options: { since: number; signal: AbortSignal }): AsyncGenerator<StoreEvent> {
    this.#watches += 1;
    this.#poll ??= setInterval(() => this.#lookAround(), this.#pollMs);
    try {
      yield* follow(this, prefix, options);
    } finally {
      this.#watches -= 1;
      if (this.#watches === 0) {
        clearInterval(this.#poll);
        this.#poll = undefined;
      }
    }
  }

  /** The number changes when another connection has committed. */
  #lookAround(): void {
    let version = Number.NaN;
    try {
      version = Number(this.#sql.dataVersion.get()?.['data_version']);
    } catch {
      // The watches, woken by the bell, read for themselves and report what is wrong to their readers.
    }
    if (version !== this.#seenVersion) this.bell.ring();
    this.#seenVersion = version;
  }

  async #patiently<T>(fn: () => T): Promise<T> {
    return patiently(this.#busyMs, fn);
  }
}

const statements = {
  head: 'SELECT revision, floor FROM head',
  get: 'SELECT key, value, revision FROM entry WHERE key = ?',
  list: 'SELECT key, value, revision FROM entry WHERE key >= ? AND key < ? ORDER BY key LIMIT ?',
  revisionOf: 'SELECT revision FROM entry WHERE key = ?',
  put: 'INSERT INTO entry VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision',
  delete: 'DELETE FROM entry WHERE key = ?',
  record: 'INSERT INTO history VALUES (?, ?, ?)',
  setRevision: 'UPDATE head SET revision = ?',
  setFloor: 'UPDATE head SET floor = ?',
  forget: 'DELETE FROM history WHERE position <= ?',
  history: 'SELECT position, key, value FROM history WHERE position > ? AND key >= ? AND key < ? ORDER BY position',
  dataVersion: 'PRAGMA data_version',
} as const;

function toEntry(row: Row): Entry {
  const key = String(row['key']);
  return { key, value: parseValue(key, textOf(row)), revision: Number(row['revision']) };
}

function toEvent(row: Row): StoreEvent {
  const [key, revision] = [String(row['key']), revisionOf(Number(row['position']))];
  return row['value'] === null ? { type: 'delete', key, revision } : { type: 'put', key, value: parseValue(key, textOf(row)), revision };
}

/** '' where a key was deleted. */
const textOf = ({ value }: Row): string => (typeof value === 'string' ? value : '');

/** Repeats what other processes' locks keep from succeeding, and lets this process work meanwhile. */
async function patiently<T>(busyMs: number, fn: () => T): Promise<T> {
  const deadline = performance.now() + busyMs;
  for (;;) {
    try {
      return fn();
    } catch (error) {
      if (!(error instanceof Fault && error.errno === 'SQLITE_BUSY') || performance.now() > deadline) throw error;
    }
    await sleep(5 + Math.random() * 10);
  }
}
