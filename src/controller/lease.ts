// One of several controllers does what only one may do at a time: the one that holds the lease, a record of the store that it renews
// and that others leave alone as long as it changes. Clocks of machines are not compared: a lease has run out when its record has
// not changed for its duration by one's own clock.
import * as v from 'valibot';
import { isFault } from '#model/fault.ts';
import type { Store } from '#store/store.ts';
import type { Log } from './log.ts';
import { keys } from './records.ts';

export interface LeaseOptions {
  readonly store: Pick<Store, 'get' | 'commit'>;
  /** What it is for. */
  readonly name: string;
  /** Unlike for every process. */
  readonly holder: string;
  readonly log: Log;
  /** Milliseconds on a clock that only goes forward. */
  readonly now?: () => number;
}

export const leaseMs = 30_000;
export const renewMs = 8_000;
/** Whoever cannot renew stops this long before others may begin. */
const marginMs = 10_000;

const record = v.object({ holder: v.string() });

export class Lease {
  readonly #options: LeaseOptions;
  readonly #now: () => number;
  /** Which revision of it was last read, and when for the first time. */
  #seen: { readonly revision: number; readonly at: number } | undefined;
  #renewedAt: number | undefined;

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.#now = options.now ?? ((): number => performance.now());
  }

  get isHeld(): boolean {
    return this.#renewedAt !== undefined && this.#now() - this.#renewedAt < leaseMs - marginMs;
  }

  /** Takes or renews it if that can be; called every few seconds. Throws nothing: not to hold it is what failure means. */
  async step(): Promise<void> {
    const { log, holder, name } = this.#options;
    const was = this.isHeld;
    try {
      await this.#tryStep();
    } catch (error) {
      if (!isFault(error, 'conflict')) log.warn({ error, lease: name }, 'The lease can neither be renewed nor taken');
    }
    if (was !== this.isHeld) log.info({ lease: name, holder }, this.isHeld ? 'The lease is ours' : 'The lease is lost');
  }

  /** Lets another begin at once. */
  async release(): Promise<void> {
    if (this.#renewedAt === undefined) return;
    this.#renewedAt = undefined;
    const { store, holder, name, log } = this.#options;
    try {
      const entry = await store.get(keys.lease(name));
      if (holderOf(entry?.value) === holder) await store.commit([{ type: 'delete', key: keys.lease(name), expect: entry?.revision ?? 0 }]);
    } catch (error) {
      log.warn({ error, lease: name }, 'The lease cannot be given back; another takes it when it has run out');
    }
  }

  async #tryStep(): Promise<void> {
    const { store, name, holder } = this.#options;
    const began = this.#now();
    const entry = await store.get(keys.lease(name));
    if (entry !== undefined && holderOf(entry.value) !== holder) {
      this.#renewedAt = undefined;
      if (this.#seen?.revision !== entry.revision) this.#seen = { revision: entry.revision, at: began };
      if (began - this.#seen.at < leaseMs) return;
    }
    const value = { holder, renewedAt: new Date().toISOString() };
    await store.commit([{ type: 'put', key: keys.lease(name), value, expect: entry?.revision ?? 0 }]);
    this.#renewedAt = began;
  }
}

/** Undefined also for a record that nobody can read. */
function holderOf(value: unknown): string | undefined {
  const { success, output } = v.safeParse(record, value);
  return success ? output.holder : undefined;
}
