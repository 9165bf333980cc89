// What may be committed: the limits that hold for every store, so that what works on one works on all. They come from etcd
// (--max-txn-ops 128, --max-request-bytes 1.5 MiB), the strictest of the three. Keys are ASCII, so byte order, JavaScript's
// string order and SQLite's BINARY order are the same.
import { Fault } from '#model/fault.ts';
import type { Json, Operation } from './store.ts';

export const maxOperations = 128;
export const maxKeyLength = 512;
/** Sum of the JSON texts of one commit's values, in UTF-8 bytes. */
export const maxCommitBytes = 1_048_576;

const keyPattern = /^[\u0020-\u007e]+$/;
const prefixPattern = /^[\u0020-\u007e]*$/;

/** An operation that was checked, its value as text. */
export interface Change {
  readonly type: Operation['type'];
  readonly key: string;
  readonly text: string | undefined;
  readonly expect: number | undefined;
}

const shown = (text: unknown): string => (JSON.stringify(text) ?? String(text)).slice(0, 80);

/** Fault `invalid` unless `key` is printable ASCII in non-empty segments, at most maxKeyLength long. */
export function checkKey(key: string): void {
  if (typeof key !== 'string' || key.length > maxKeyLength || !keyPattern.test(key) || key.split('/').includes('')) {
    throw new Fault('invalid', `Not a key: ${shown(key)}`, {
      field: 'key',
      hint: `Keys are segments of printable ASCII between single slashes, at most ${maxKeyLength} characters`,
    });
  }
}

/** Fault `invalid` unless `prefix` could begin a key. A prefix need not end at a slash; '' stands for everything. */
export function checkPrefix(prefix: string, field = 'prefix'): void {
  if (typeof prefix !== 'string' || prefix.length > maxKeyLength || !prefixPattern.test(prefix)) {
    throw new Fault('invalid', `Not a key prefix: ${shown(prefix)}`, { field });
  }
}

/** Lowest string above every key that starts with `prefix`: no key holds the character DEL. */
export const prefixEnd = (prefix: string): string => `${prefix}\u007f`;

/** First key of a page: after `after`, never before `prefix`. */
export const pageStart = (prefix: string, after: string | undefined): string =>
  after === undefined || after < prefix ? prefix : `${after}\u0000`;

/** Number of entries a page may hold; Fault `invalid` for anything but a positive integer. */
export function pageLimit(limit: number | undefined): number {
  if (limit === undefined) return Number.POSITIVE_INFINITY;
  if (!Number.isInteger(limit) || limit < 1) throw new Fault('invalid', `Not a page size: ${limit}`, { field: 'limit' });
  return limit;
}

export function checkRevision(revision: number, field: string): void {
  if (!Number.isSafeInteger(revision) || revision < 0) throw new Fault('invalid', `Not a revision: ${revision}`, { field });
}

function textOf(value: Json, field: string): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    throw new Fault('invalid', 'Value is not JSON', { field, cause: error });
  }
  if (text === undefined) throw new Fault('invalid', `Value is not JSON: ${typeof value}`, { field });
  return text;
}

/** Checks a commit as a whole; Fault `invalid` names the place. The result no longer refers to the caller's objects. */
export function checkOperations(operations: readonly Operation[]): Change[] {
  if (operations.length > maxOperations) {
    throw new Fault('invalid', `A commit holds ${operations.length} operations, at most ${maxOperations} are possible`, {
      field: 'operations',
    });
  }
  const seen = new Set<string>();
  let bytes = 0;
  const changes = operations.map((operation, index): Change => {
    checkKey(operation.key);
    if (seen.has(operation.key)) {
      throw new Fault('invalid', `Key ${operation.key} appears twice in one commit`, { field: `operations[${index}].key` });
    }
    seen.add(operation.key);
    if (operation.expect !== undefined) checkRevision(operation.expect, `operations[${index}].expect`);
    const text = operation.type === 'put' ? textOf(operation.value, `operations[${index}].value`) : undefined;
    bytes += text === undefined ? 0 : Buffer.byteLength(text);
    return { type: operation.type, key: operation.key, text, expect: operation.expect };
  });
  if (bytes > maxCommitBytes) {
    throw new Fault('invalid', `The values of a commit hold ${bytes} bytes, at most ${maxCommitBytes} are possible`, {
      field: 'operations',
    });
  }
  return changes;
}

/** A stored value; Fault `corrupt` when it is not JSON, which only somebody else can have written. */
export function parseValue(key: string, text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch (error) {
    throw new Fault('corrupt', `Value of ${key} is not JSON`, { cause: error, hint: 'Remove the key, or repair it by hand' });
  }
}

export const conflict = (key: string, expect: number, found: number): Fault =>
  new Fault('conflict', `Key ${key} has revision ${found}, not ${expect}`, { hint: 'Read it again and repeat the change' });
