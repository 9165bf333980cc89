// Takes turns over a name: who holds it keeps the others waiting, but never longer than a limit, because the holder is a
// conversation with another process, which may have ended without a word.

export class Turns {
  readonly #limitMs: number;
  readonly #queues: Map<string, (() => void)[]> = new Map();
  readonly #timers: Map<string, NodeJS.Timeout> = new Map();

  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** Resolves when the turn is the caller's; it ends with done(), or by itself after the limit. */
  async take(name: string): Promise<void> {
    const queue = this.#queues.get(name);
    if (queue === undefined) {
      this.#queues.set(name, []);
      this.#arm(name);
      return;
    }
    await new Promise<void>((resolve) => {
      queue.push(resolve);
    });
  }

  /** Ends the present turn of `name`, if there is one. */
  done(name: string): void {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
    const next = this.#queues.get(name)?.shift();
    if (next === undefined) this.#queues.delete(name);
    else {
      this.#arm(name);
      next();
    }
  }

  #arm(name: string): void {
    this.#timers.set(name, setTimeout(() => this.done(name), this.#limitMs).unref());
  }
}
