// One sort of kernel object. The loop knows nothing of the kernel but this interface; the real kinds and the fake ones in
// fake.ts pass the same contract suite (contract.ts).
import type { Fault } from '#model/fault.ts';
import type { Comparison } from '#model/diff.ts';
import type { Desired, KindName, Netns } from '#model/desired.ts';

/** An item that could not be added or removed, and why. The rest of the batch was still tried. */
export interface Failure<T> {
  readonly item: T;
  readonly fault: Fault;
}

export interface Kind<T> extends Comparison<T> {
  readonly name: KindName;
  /**
   * What is in the kernel of that namespace and ours by ownership.ts, and nothing else; an absent namespace holds nothing.
   * Synchronous. Throws a Fault `kernel` when the kernel cannot be read.
   */
  list(netns: Netns): T[];
  /**
   * Whether list() would give what it gave before, and what was written since: nobody else has changed anything. Absent, or in
   * doubt, false: then only listing can tell.
   */
  isTold?(netns: Netns): boolean;
  /** Whether add() of that very item, which did not fail, also put in place all that came with it (NftTable.renewed). Absent: it never does. */
  tookAlong?(item: T): boolean;
  /**
   * Makes each item exist exactly as given, whatever was there under its key before (so it also serves a change). `changed` says in
   * whose place which of them come, as far as the caller knows: it may save a try, and a row of elements is only then replaced whole.
   */
  add(items: readonly T[], changed?: ReadonlyMap<T, T | undefined>): Failure<T>[];
  /** Whether add() of the item is to wait until packets are led to it. Absent: never. */
  isAfterRoutes?(item: T): boolean;
  /**
   * remove() and add() as one, so that no packet meets what is in between. Failures are told as theirs are. Absent: there is nothing that
   * could be met.
   */
  exchange?(removed: readonly T[], added: readonly T[], changed: ReadonlyMap<T, T | undefined>): Failure<T>[];
  /** Absent already is success. Never touches what is not ours. */
  remove(items: readonly T[]): Failure<T>[];
}

/** With kinds that have it: runs several writes and lists as one, which saves the kernel and its messages some looks. */
export interface Together {
  readonly together?: <T>(fn: () => T) => T;
}

export type Kinds = { readonly [K in KindName]: Kind<Desired[K][number]> };
