// What several followers say, as one stream for one reader.

export class LineQueue<T> {
  readonly #waiting: T[] = [];
  #failure: { readonly error: unknown } | undefined;
  #wake: () => void = () => undefined;

  push(...lines: readonly T[]): void {
    this.#waiting.push(...lines);
    this.#wake();
  }

  /** The reader gets what was said before, then this. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake();
  }

  /** Until `signal` aborts. Throws what fail() was told. */
  async *lines(signal: AbortSignal): AsyncGenerator<T, void> {
    signal.addEventListener('abort', () => this.#wake(), { once: true });
    while (!signal.aborted) {
      yield* this.#waiting.splice(0);
      // More may have come while those were read.
      if (this.#waiting.length > 0 || signal.aborted) continue;
      if (this.#failure !== undefined) throw this.#failure.error;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}
