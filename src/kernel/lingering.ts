// Netfilter sockets, kept open for a moment after their last use. Reason: closing any socket of this sort waits until the
// kernel has destroyed everything that nft transactions removed so far (nf_tables_api.c, nft_rcv_nl_event), a grace period
// of RCU, measured at 8 to 16 ms; the removal itself takes 0.1 ms. A moment later there is nothing left to wait for. Kept
// for good they would keep their namespaces alive, and with those the links in them.
import { netnsIdentity } from './netns.ts';

const lingerMs = 100;

interface Kept<T> {
  readonly thing: T;
  usedAt: number;
}

export class Lingering<T> {
  readonly #open: () => T;
  readonly #close: (thing: T) => void;
  readonly #kept = new Map<number, Kept<T>>();
  #timer: NodeJS.Timeout | undefined;

  constructor(open: () => T, close: (thing: T) => void) {
    this.#open = open;
    this.#close = close;
  }

  /** Runs `fn` with the thing that belongs to the calling thread's namespace. When `fn` throws, the thing is not used again. */
  use<R>(fn: (thing: T) => R): R {
    const key = netnsIdentity('/proc/thread-self/ns/net') ?? 0;
    const kept = this.#kept.get(key) ?? { thing: this.#open(), usedAt: 0 };
    this.#kept.delete(key);
    try {
      const result = fn(kept.thing);
      kept.usedAt = performance.now();
      this.#kept.set(key, kept);
      return result;
    } finally {
      if (!this.#kept.has(key)) this.#close(kept.thing);
      this.#schedule();
    }
  }

  #schedule(): void {
    if (this.#kept.size === 0 || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const before = performance.now() - lingerMs;
      for (const [key, { thing, usedAt }] of this.#kept) {
        if (usedAt > before) continue;
        this.#kept.delete(key);
        this.#close(thing);
      }
      this.#schedule();
    }, lingerMs);
    // The process may end meanwhile: the kernel closes what is open.
    this.#timer.unref();
  }
}
