// The host's own small memory: which addresses it gave out, which endpoints it has, what it last knew of the cluster. A
// container's start waits for these writes, and an address that is given out and then forgotten would be given out twice,
// so they survive a power cut: SQLite, write-ahead log, synchronous=FULL, 0.15 ms each on a cloud volume. The file belongs
// to one agent at a time: two agents with one journal would give one address to two containers.
import { closeSync, fdatasync, openSync } from 'node:fs';
import { promisify } from 'node:util';
import type { Journal } from '#api/local.ts';
import { Fault, isFault } from '#model/fault.ts';
import { Database, moveAside, type Statement } from '#store/database.ts';
import { checkKey, checkPrefix, parseValue, prefixEnd } from '#store/operations.ts';

export interface JournalOptions {
  /** Moves a file that cannot be read to FILE.corrupt-<time> and starts with an empty one. */
  readonly recover?: boolean;
  readonly now?: () => Date;
  /** How long to wait for another agent to let go of the file, holding the process. */
  readonly busyMs?: number;
}

const applicationId = 0x63776a6f; // 'cwjo'

const sync = promisify(fdatasync);

const migrations = ['CREATE TABLE fact (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT'];

/**
 * Faults: `corrupt` (unless `recover`), `unavailable` (another agent has it, no access, disk full), `version`. A missing
 * file is created, readable for this user only.
 */
export function openJournal(path: string, options: JournalOptions = {}): SqliteJournal {
  const { recover = false, now = () => new Date() } = options;
  try {
    return new SqliteJournal(path, options.busyMs);
  } catch (error) {
    if (!recover || !isFault(error, 'corrupt')) throw error;
  }
  const aside = moveAside(path, `corrupt-${now().toISOString().replaceAll(':', '')}`);
  return new SqliteJournal(path, options.busyMs, aside);
}

/** Keys as in the store: segments of printable ASCII between slashes (Fault `invalid`). A full disk is `unavailable`. */
export class SqliteJournal implements Journal, Disposable {
  /** Where the file that could not be read lies now. */
  readonly movedAside: string | undefined;
  readonly #database: Database;
  readonly #get: Statement;
  readonly #keys: Statement;
  readonly #list: Statement;
  readonly #put: Statement;
  readonly #delete: Statement;
  /** Of the write-ahead log, which is the same file as long as the database is open. */
  readonly #log: number;
  #syncing: Promise<void> = Promise.resolve();
  /** The next one, of all who have asked since the last one began. */
  #waiting: Promise<void> | undefined;

  constructor(path: string, busyMs = 3000, movedAside?: string) {
    this.movedAside = movedAside;
    const corruptHint = 'Start it with --recover: the file is moved aside, and what runs is taken up from the engine and the controller';
    this.#database = new Database(path, { applicationId, migrations, exclusive: true, busyMs, corruptHint });
    this.#get = this.#database.prepare('SELECT value FROM fact WHERE key = ?');
    this.#keys = this.#database.prepare('SELECT key FROM fact WHERE key >= ? AND key < ? ORDER BY key');
    this.#list = this.#database.prepare('SELECT key, value FROM fact WHERE key >= ? AND key < ? ORDER BY key');
    this.#put = this.#database.prepare('INSERT INTO fact VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value');
    this.#delete = this.#database.prepare('DELETE FROM fact WHERE key = ?');
    this.#log = openSync(`${path}-wal`, 'r');
  }

  get(key: string): unknown {
    checkKey(key);
    const row = this.#get.get(key);
    return row === undefined ? undefined : parseValue(key, String(row['value']));
  }

  keys(prefix: string): string[] {
    checkPrefix(prefix);
    return this.#keys.all(prefix, prefixEnd(prefix)).map((row) => String(row['key']));
  }

  list(prefix: string): { key: string; value: unknown }[] {
    checkPrefix(prefix);
    return this.#list.all(prefix, prefixEnd(prefix)).map((row) => {
      const key = String(row['key']);
      return { key, value: parseValue(key, String(row['value'])) };
    });
  }

  put(key: string, value: unknown): void {
    checkKey(key);
    this.#put.run(key, toText(key, value));
  }

  delete(key: string): void {
    checkKey(key);
    this.#delete.run(key);
  }

  transaction<T>(fn: () => T): T {
    return this.#database.write(() => synchronous(fn()));
  }

  /** With NORMAL the write-ahead log is not synced at a commit, and with FULL all of it is (sqlite.org/pragma.html). */
  soon<T>(fn: () => T): T {
    this.#database.exec('PRAGMA synchronous = NORMAL');
    try {
      return synchronous(fn());
    } finally {
      this.#database.exec('PRAGMA synchronous = FULL');
    }
  }

  /** One that is under way may have begun before the last write. */
  durable(): Promise<void> {
    this.#waiting ??= this.#afterwards(this.#syncing);
    return this.#waiting;
  }

  async #afterwards(before: Promise<void>): Promise<void> {
    await Promise.allSettled([before]);
    this.#waiting = undefined;
    if (!this.#database.isOpen) throw new Fault('unavailable', 'The journal is closed');
    this.#syncing = sync(this.#log).catch((error: unknown) => {
      throw new Fault('unavailable', 'Cannot write the journal', { cause: error });
    });
    await this.#syncing;
  }

  [Symbol.dispose](): void {
    if (this.#database.isOpen) closeSync(this.#log);
    this.#database[Symbol.dispose]();
  }
}

/** For tests: the same behaviour without a file. */
export class MemoryJournal implements Journal {
  #facts = new Map<string, string>();

  get(key: string): unknown {
    checkKey(key);
    const text = this.#facts.get(key);
    return text === undefined ? undefined : parseValue(key, text);
  }

  keys(prefix: string): string[] {
    checkPrefix(prefix);
    return [...this.#facts.keys()].filter((key) => key.startsWith(prefix)).sort();
  }

  list(prefix: string): { key: string; value: unknown }[] {
    checkPrefix(prefix);
    const found = [...this.#facts].filter(([key]) => key.startsWith(prefix)).sort(([a], [b]) => (a < b ? -1 : 1));
    return found.map(([key, text]) => ({ key, value: parseValue(key, text) }));
  }

  put(key: string, value: unknown): void {
    checkKey(key);
    this.#facts.set(key, toText(key, value));
  }

  delete(key: string): void {
    checkKey(key);
    this.#facts.delete(key);
  }

  transaction<T>(fn: () => T): T {
    const before = new Map(this.#facts);
    try {
      return synchronous(fn());
    } catch (error) {
      this.#facts = before;
      throw error;
    }
  }

  soon<T>(fn: () => T): T {
    return synchronous(fn());
  }

  durable(): Promise<void> {
    return Promise.resolve();
  }
}

function toText(key: string, value: unknown): string {
  const text: string | undefined = JSON.stringify(value);
  if (text === undefined) throw new Fault('invalid', `Value of ${key} is not JSON: ${typeof value}`, { field: 'value' });
  return text;
}

/** What is around a promise would end before its work. */
function synchronous<T>(result: T): T {
  if (result instanceof Promise) throw new TypeError('Writes of a journal are synchronous');
  return result;
}
