// Facts with compare-and-swap and watch: the only interface between Causeway and where it keeps its state. Memory, SQLite
// and etcd pass one contract suite (contract.ts). Keys are `/`-separated printable ASCII, values are JSON.

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

export interface Entry {
  readonly key: string;
  readonly value: Json;
  /** Store-wide revision of the last change of this key; revisions grow by at least one per commit. */
  readonly revision: number;
}

/** `expect`: the revision the key must have now; 0 = it must not exist; absent = whatever. */
export type Operation =
  | { readonly type: 'put'; readonly key: string; readonly value: Json; readonly expect?: number }
  | { readonly type: 'delete'; readonly key: string; readonly expect?: number }
  | { readonly type: 'check'; readonly key: string; readonly expect: number };

export type StoreEvent =
  | { readonly type: 'put'; readonly key: string; readonly value: Json; readonly revision: number }
  | { readonly type: 'delete'; readonly key: string; readonly revision: number };

export interface Store extends AsyncDisposable {
  readonly name: string;
  /** Others may keep something of theirs there, whose history would be forgotten with ours. */
  readonly isShared: boolean;
  get(key: string): Promise<Entry | undefined>;
  /**
   * Entries whose key starts with `prefix`, in key order, as of one revision, which is returned. `after` (a key,
   * exclusive) and `limit` page through them; a page is consistent in itself only, `more` says that there is another.
   */
  list(prefix: string, page?: { after?: string; limit?: number }): Promise<{ entries: Entry[]; revision: number; more: boolean }>;
  /**
   * All operations or none, at one new revision; a commit that changes nothing (checks, deletions of absent keys) answers
   * with the present one. A key may appear once; limits are in operations.ts. Faults: `conflict` when an `expect` does not
   * hold (message names the key); `invalid`; `unavailable` when the store cannot be reached or its disk is full (nothing was
   * written); `timeout` when the connection was lost meanwhile (etcd only: it may have been written or not, read again).
   */
  commit(operations: readonly Operation[]): Promise<{ revision: number }>;
  /**
   * Every change below `prefix` after revision `since`, in order, none left out, none twice; events of one commit carry
   * one revision. Ends when `signal` aborts or the store is closed; waits and reconnects by itself while etcd is away. Throws
   * a Fault `compacted` when `since` is no longer known, or not yet: somebody has restored etcd from an older backup meanwhile.
   */
  watch(prefix: string, options: { since: number; signal: AbortSignal }): AsyncIterable<StoreEvent>;
  /** Forgets history before `revision`; watches that need it get `compacted`. */
  compact(revision: number): Promise<void>;
}
