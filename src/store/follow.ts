// A watch over a history that lies in memory or in a table: read on from a position, and wait for a bell when there is
// nothing more. Nothing is queued per watch, so a slow reader costs no memory; it may only be overtaken by compaction.
import { Fault } from '#model/fault.ts';
import type { StoreEvent } from './store.ts';

/** Room for the events of one commit between two revisions: positions are `revision * stride + index`. */
export const stride = 128;

/** The position after every event of `revision`. */
export const endOf = (revision: number): number => revision * stride + stride - 1;
export const revisionOf = (position: number): number => Math.floor(position / stride);

export interface Batch {
  readonly events: readonly StoreEvent[];
  /** Where to read on. */
  readonly position: number;
}

export interface History {
  /** Events below `prefix` after `position`, as many as fit one batch. Fault `compacted` when some of them are forgotten. */
  read(prefix: string, position: number): Batch | Promise<Batch>;
  readonly bell: Bell;
  readonly closed: boolean;
}

/** Wakes everybody who waits at that moment. */
export class Bell {
  #next = Promise.withResolvers<void>();

  /** Take it before looking whether there is work, so that no ring is lost in between. */
  get next(): Promise<void> {
    return this.#next.promise;
  }

  ring(): void {
    const rung = this.#next;
    this.#next = Promise.withResolvers<void>();
    rung.resolve();
  }
}

export const compacted = (since: number, floor: number): Fault =>
  new Fault('compacted', `Changes after revision ${since} are no longer known, only those after ${floor}`, {
    hint: 'List again and watch from the revision of that list',
  });

/** Ends when `signal` aborts or the history closes. */
export async function* follow(
  history: History,
  prefix: string,
  { since, signal }: { since: number; signal: AbortSignal },
): AsyncGenerator<StoreEvent> {
  const wake = (): void => history.bell.ring();
  signal.addEventListener('abort', wake);
  try {
    let position = endOf(since);
    while (!signal.aborted && !history.closed) {
      const rung = history.bell.next;
      const batch = await history.read(prefix, position);
      for (const event of batch.events) {
        if (signal.aborted || history.closed) return;
        yield event;
      }
      position = batch.position;
      if (batch.events.length === 0) await rung;
    }
  } finally {
    signal.removeEventListener('abort', wake);
  }
}
