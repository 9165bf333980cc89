// Which pools had no address to give when one was asked for. Where a host may claim further blocks, or borrow, only asking shows
// that nothing is left: others do not say how much room their blocks have. What was found so is believed until an address of the
// pool is given or given back on this host, and for a minute at most, as addresses become free elsewhere, too.
import { isFault } from '#model/fault.ts';

const believedMs = 60_000;

export interface ShortageOptions {
  /** Milliseconds. */
  readonly now: () => number;
  /** Told when a pool was found exhausted that was not before. */
  readonly found: () => void;
}

export class AddressShortage {
  readonly #options: ShortageOptions;
  /** By pool, when it was last found exhausted. */
  readonly #foundAt = new Map<string, number>();

  constructor(options: ShortageOptions) {
    this.#options = options;
  }

  /** What `ask` comes to, which asks the pool for any address. */
  async noting<T>(pool: string, ask: () => Promise<T>): Promise<T> {
    try {
      const given = await ask();
      this.#foundAt.delete(pool);
      return given;
    } catch (error) {
      if (isFault(error, 'exhausted')) this.#note(pool);
      throw error;
    }
  }

  freed(pool: string): void {
    this.#foundAt.delete(pool);
  }

  has(pool: string): boolean {
    const at = this.#foundAt.get(pool);
    return at !== undefined && this.#options.now() - at < believedMs;
  }

  #note(pool: string): void {
    const isNews = !this.has(pool);
    this.#foundAt.set(pool, this.#options.now());
    if (isNews) this.#options.found();
  }
}
