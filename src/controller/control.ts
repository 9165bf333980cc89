// What every decision of the controller is made with, and how one is written down: read, decide, commit, and when somebody
// else was faster, the same again from the beginning.
import { isFault } from '#model/fault.ts';
import type { Operation, Store } from '#store/store.ts';
import { Refusal } from '#api/faults.ts';
import type { Authority } from './ca.ts';
import type { Contents } from './contents.ts';
import type { Log } from './log.ts';
import type { Mirror } from './mirror.ts';
import type { PortPools } from './neutron.ts';
import type { Speakers } from './speakers.ts';

export interface Control {
  readonly store: Store;
  readonly mirror: Mirror;
  /** What belongs to which network, and which hosts take part in it; fed by the mirror. */
  readonly contents: Contents;
  readonly authority: Authority;
  readonly speakers: Speakers;
  /** What a cloud that is kept can do for networks; filled in by whoever keeps it. */
  readonly cloud: { ports?: PortPools };
  readonly log: Log;
  /** Of the program. */
  readonly version: string;
  readonly now: () => Date;
  /** Until then, in milliseconds since 1970, hosts may still have to claim again what the store lacks because it was restored. */
  readonly unsureUntil: number;
  /** A fresh identifier: 12 lower-case letters and digits. */
  readonly newId: () => string;
  /** Runs decisions about one thing of this process one after the other, which spares them losing against each other. */
  readonly serially: <T>(what: string, decide: () => Promise<T>) => Promise<T>;
}

export interface Decision<T> {
  readonly operations: readonly Operation[];
  /** The answer, given the revision at which it was written. */
  readonly answer: (revision: number) => T;
}

const attempts = 12;

/** A compare-and-swap that somebody else won, as opposed to an asker's own If-Match that does not hold. */
const hasLost = (error: unknown): boolean => isFault(error, 'conflict') && !(error instanceof Refusal);

/**
 * Commits what `decide` returns; when that is overtaken, lets the mirror catch up and decides anew. `decide` throws the Fault
 * that says why not. No operations: nothing is written and the answer gets revision 0.
 */
export async function transact<T>(control: Control, decide: () => Promise<Decision<T>>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    const { operations, answer } = await decide();
    if (operations.length === 0) return answer(0);
    try {
      const { revision } = await control.store.commit(operations);
      return answer(revision);
    } catch (error) {
      if (!hasLost(error) || attempt === attempts) throw error;
      const { revision } = await control.store.list('guards/', { limit: 1 });
      await control.mirror.reached(revision, 200);
    }
  }
}

/** etcd takes at most 128 operations in one transaction unless told otherwise. */
export const operationLimit = 100;

/** Commits in pieces; for operations whose order and togetherness do not matter. */
export async function commitAll(store: Store, operations: readonly Operation[]): Promise<void> {
  for (let from = 0; from < operations.length; from += operationLimit) await store.commit(operations.slice(from, from + operationLimit));
}

/** A `serially` of its own. */
export function serializer(): Control['serially'] {
  const tails = new Map<string, Promise<unknown>>();
  return async (what, decide) => {
    const mine = (tails.get(what) ?? Promise.resolve()).then(decide, decide);
    tails.set(what, mine);
    try {
      return await mine;
    } finally {
      if (tails.get(what) === mine) tails.delete(what);
    }
  };
}
