// One SQLite file, opened the way everything of ours is: write-ahead log, STRICT tables, checked before use, every error a
// Fault. The only file that imports node:sqlite, whose class is being renamed (DatabaseSync to Database). The API is
// synchronous: a call holds the process for as long as the disk needs, 0.1 to 0.5 ms per durable write on a cloud volume.
import { closeSync, mkdirSync, openSync, renameSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { Fault, type FaultCode } from '#model/fault.ts';

export type Column = string | number | null;
export type Row = Readonly<Record<string, unknown>>;

export interface Statement {
  get(...values: Column[]): Row | undefined;
  all(...values: Column[]): Row[];
  /** Rows one by one; leaving the loop early is allowed. */
  iterate(...values: Column[]): Generator<Row>;
  /** Returns the number of rows changed. */
  run(...values: Column[]): number;
}

export interface DatabaseOptions {
  /** Marks the file as one of this sort (PRAGMA application_id); another one's file is refused. */
  readonly applicationId: number;
  /** SQL scripts; the file counts how many it has seen (PRAGMA user_version) and gets the rest. Append only. */
  readonly migrations: readonly string[];
  /** FULL: on disk when a write returns. NORMAL: a power cut may take the last writes, a crash of the process none. */
  readonly synchronous?: 'FULL' | 'NORMAL';
  /** Nobody else may have the file open. */
  readonly exclusive?: boolean;
  /** How long a call waits, holding the process, for another process's write. */
  readonly busyMs?: number;
  /** Upper bound of the file without its log. */
  readonly maxBytes?: number;
  /** What to do about a file that cannot be read, for the Fault. */
  readonly corruptHint?: string;
}

const pageSize = 4096;

/** Primary result codes, sqlite3.h. */
const resultCodes: Readonly<Record<number, readonly [name: string, code: FaultCode, hint?: string]>> = {
  5: ['SQLITE_BUSY', 'unavailable', 'Another process is writing; look who has the file open'],
  6: ['SQLITE_LOCKED', 'unavailable'],
  8: ['SQLITE_READONLY', 'unavailable', 'Make the file and its folder writable for this user'],
  10: ['SQLITE_IOERR', 'unavailable', 'Look for disk errors in the kernel log'],
  11: ['SQLITE_CORRUPT', 'corrupt'],
  13: ['SQLITE_FULL', 'unavailable', 'Free some disk space; nothing was written'],
  14: ['SQLITE_CANTOPEN', 'unavailable', 'Look whether the folder exists and this user may write there'],
  26: ['SQLITE_NOTADB', 'corrupt'],
};

export class Database implements Disposable {
  readonly path: string;
  readonly #raw: DatabaseSync;
  readonly #corruptHint: string | undefined;
  #depth = 0;

  /** Faults: `corrupt`, `unavailable` (no access, busy, full), `version` (written by a newer version of this program). */
  constructor(path: string, options: DatabaseOptions) {
    this.path = path;
    this.#corruptHint = options.corruptHint;
    makePrivate(path);
    this.#raw = this.#translate('open', () => new DatabaseSync(path, { timeout: options.busyMs ?? 5000 }));
    try {
      this.#setUp(options);
    } catch (error) {
      this.#raw.close();
      throw error;
    }
  }

  get isOpen(): boolean {
    return this.#raw.isOpen;
  }

  exec(sql: string): void {
    this.#translate('change', () => this.#raw.exec(sql));
  }

  prepare(sql: string): Statement {
    const statement: StatementSync = this.#translate('prepare a statement for', () => this.#raw.prepare(sql));
    const translate = this.#translate.bind(this);
    return {
      get: (...values) => translate('read', () => statement.get(...values)),
      all: (...values) => translate('read', () => statement.all(...values)),
      run: (...values) => translate('write', () => Number(statement.run(...values).changes)),
      *iterate(...values) {
        const rows = translate('read', () => statement.iterate(...values));
        try {
          for (let next = translate('read', () => rows.next()); next.done !== true; next = translate('read', () => rows.next()))
            yield next.value;
        } finally {
          rows.return?.();
        }
      },
    };
  }

  /** Everything `fn` reads is of one moment. */
  read<T>(fn: () => T): T {
    return this.#transaction('BEGIN', fn);
  }

  /** Everything `fn` writes is there when it returns, or nothing is when it throws. Inside another one it is a part of that. */
  write<T>(fn: () => T): T {
    return this.#transaction('BEGIN IMMEDIATE', fn);
  }

  [Symbol.dispose](): void {
    if (this.#raw.isOpen) this.#translate('close', () => this.#raw.close());
  }

  #transaction<T>(begin: string, fn: () => T): T {
    const level = this.#depth;
    this.exec(level === 0 ? begin : `SAVEPOINT level${level}`);
    this.#depth += 1;
    try {
      const result = fn();
      this.exec(level === 0 ? 'COMMIT' : `RELEASE level${level}`);
      return result;
    } catch (error) {
      // A full disk makes SQLite roll back by itself.
      if (this.#raw.isTransaction) this.#raw.exec(level === 0 ? 'ROLLBACK' : `ROLLBACK TO level${level}; RELEASE level${level}`);
      throw error;
    } finally {
      this.#depth = level;
    }
  }

  #setUp({ applicationId, migrations, synchronous = 'FULL', exclusive = false, maxBytes }: DatabaseOptions): void {
    if (exclusive) this.exec('PRAGMA locking_mode = EXCLUSIVE');
    this.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = ${synchronous}; PRAGMA trusted_schema = OFF`);
    if (maxBytes !== undefined) this.exec(`PRAGMA max_page_count = ${Math.ceil(maxBytes / pageSize)}`);
    const found = this.prepare('PRAGMA integrity_check(1)').get()?.['integrity_check'];
    if (found !== 'ok') throw this.#corrupt(String(found));
    this.write(() => {
      const owner = this.#pragma('application_id');
      const seen = this.#pragma('user_version');
      if (owner !== applicationId && (owner !== 0 || seen !== 0)) throw this.#corrupt('it belongs to another program');
      if (seen > migrations.length) {
        throw new Fault('version', `Cannot open ${this.path}: it was written by a newer version`, { hint: 'Install that version again' });
      }
      for (const sql of migrations.slice(seen)) this.exec(sql);
      if (seen < migrations.length) this.exec(`PRAGMA application_id = ${applicationId}; PRAGMA user_version = ${migrations.length}`);
    });
  }

  #pragma(name: string): number {
    return Number(this.prepare(`PRAGMA ${name}`).get()?.[name]);
  }

  #corrupt(why: string, cause?: unknown): Fault {
    return new Fault('corrupt', `Cannot read ${this.path}: ${why}`, { hint: this.#corruptHint, cause });
  }

  #translate<T>(verb: string, fn: () => T): T {
    try {
      return fn();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      if ('code' in error && error.code === 'ERR_INVALID_STATE') {
        throw new Fault('unavailable', `Cannot ${verb} ${this.path}: it is closed`, { cause: error });
      }
      if (!('errcode' in error) || typeof error.errcode !== 'number') throw error;
      const [name, code, hint] = resultCodes[error.errcode & 255] ?? ['SQLITE_ERROR', 'internal'];
      if (code === 'corrupt') throw this.#corrupt(error.message, error);
      throw new Fault(code, `Cannot ${verb} ${this.path}: ${error.message}`, { errno: name, hint, cause: error });
    }
  }
}

/** The file may hold keys and tokens, so only its owner may read it; SQLite gives its log the same mode. */
function makePrivate(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    closeSync(openSync(path, 'a', 0o600));
  } catch (error) {
    throw new Fault('unavailable', `Cannot open ${path}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

/** Renames a file and its log out of the way; returns the new path. The log goes first: beside a new file it would be replayed. */
export function moveAside(path: string, suffix: string): string {
  for (const part of ['-wal', '-shm', '']) {
    try {
      renameSync(`${path}${part}`, `${path}.${suffix}${part}`);
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
    }
  }
  return `${path}.${suffix}`;
}
