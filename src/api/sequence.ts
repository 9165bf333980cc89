// Front ends take calls about one object one at a time: an engine or a runtime repeats a call that is still running.

/** Runs functions of the same name one after the other, in the order in which they came. */
export class Sequence {
  readonly #tails: Map<string, Promise<unknown>> = new Map();

  async run<T>(name: string, fn: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(name) ?? Promise.resolve();
    const result = (async () => {
      await before.catch(() => undefined);
      return fn();
    })();
    this.#tails.set(name, result);
    try {
      return await result;
    } finally {
      if (this.#tails.get(name) === result) this.#tails.delete(name);
    }
  }
}
