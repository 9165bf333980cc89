// What a follower of the API has heard, taken in once per turn of the event loop and kept in the journal in one transaction. The
// API can say it again, and packets wait for what follows: it is kept afterwards, and need not be on the disk before anybody goes on.
import type { Journal } from '#api/local.ts';
import { isFault } from '#model/fault.ts';

export interface KeptNewsOptions {
  readonly journal: Journal;
  /** Of every key in the journal. */
  readonly prefix: string;
  readonly log: { warn(fields: object, message: string): void };
  /** What is kept, for the log. */
  readonly what: string;
  /** Takes in what was heard; called after kick(), unless there is nothing yet that may be taken in. */
  readonly settle: () => void;
  readonly maySettle: () => boolean;
}

/** A run of the loop that has been asked for has begun by then, and what it holds up comes when it has ended. */
const keepMs = 20;

export class KeptNews implements Disposable {
  readonly #options: KeptNewsOptions;
  /** By key without the prefix; undefined: to be gone. */
  readonly #unkept = new Map<string, unknown>();
  #isTurning = false;
  #keeping: NodeJS.Timeout | undefined;

  constructor(options: KeptNewsOptions) {
    this.#options = options;
  }

  /** There is something to take in, at the end of this turn. */
  kick(): void {
    if (this.#isTurning) return;
    this.#isTurning = true;
    setImmediate(() => {
      this.#isTurning = false;
      if (this.#options.maySettle()) this.#options.settle();
    });
  }

  /** Part of what keep() writes. */
  note(key: string, value: unknown): void {
    this.#unkept.set(key, value);
  }

  /** Writes what was noted, after a moment; what cannot be written then is with the next. */
  keep(): void {
    if (this.#unkept.size > 0) this.#keeping ??= setTimeout(() => this.#write(), keepMs);
  }

  /** Writes what has not been written yet. */
  [Symbol.dispose](): void {
    if (this.#keeping !== undefined) this.#write();
  }

  #write(): void {
    const { journal, prefix, log, what } = this.#options;
    clearTimeout(this.#keeping);
    this.#keeping = undefined;
    try {
      journal.soon(() =>
        journal.transaction(() => {
          for (const [key, value] of this.#unkept) {
            if (value === undefined) journal.delete(prefix + key);
            else journal.put(prefix + key, value);
          }
        }),
      );
      this.#unkept.clear();
    } catch (error) {
      if (!isFault(error)) throw error;
      log.warn({ error }, `cannot keep what is known of ${what}`);
    }
  }
}
