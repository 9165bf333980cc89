// What the contract suite of stores and their own tests need: operations in short, expected faults, and a watch that runs in
// the background. A fixture is one set of facts, empty at first, on which any number of stores can be opened.
import assert from 'node:assert/strict';
import { it, type TestContext } from 'node:test';
import type { FaultCode } from '#model/fault.ts';
import type { Json, Operation, Store, StoreEvent } from './store.ts';

export interface StoreFixture extends AsyncDisposable {
  /** One more store on the same facts. */
  open(): Promise<Store>;
}

export const put = (key: string, value: Json = null, expect?: number): Operation => ({
  type: 'put',
  key,
  value,
  ...(expect === undefined ? {} : { expect }),
});
export const remove = (key: string, expect?: number): Operation => ({ type: 'delete', key, ...(expect === undefined ? {} : { expect }) });

export const faults = (work: Promise<unknown>, code: FaultCode): Promise<void> =>
  assert.rejects(work, (error: unknown) => {
    assert.equal((error as { code?: unknown }).code, code, String(error));
    return true;
  });

const patienceMs = 60_000;

/** A watch that runs in the background; `take` waits for so many further events. */
export class Watcher implements AsyncDisposable {
  readonly events: StoreEvent[] = [];
  readonly #abort = new AbortController();
  readonly #done: Promise<unknown>;
  #wake: () => void = () => undefined;
  #taken = 0;
  #failure: { error: unknown } | undefined;
  #ended = false;

  constructor(store: Store, prefix: string, since: number) {
    this.#done = this.#run(store.watch(prefix, { since, signal: this.#abort.signal }));
  }

  async take(count: number): Promise<StoreEvent[]> {
    const until = this.#taken + count;
    const timer = setTimeout(() => {
      this.#failure = { error: new Error(`${this.events.length - this.#taken} of ${count} events came`) };
      this.#wake();
    }, patienceMs);
    try {
      while (this.events.length < until) {
        if (this.#failure !== undefined) throw this.#failure.error;
        if (this.#ended) throw new Error('the watch has ended');
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      clearTimeout(timer);
    }
    const events = this.events.slice(this.#taken, until);
    this.#taken = until;
    return events;
  }

  /** Resolves when the iterable has ended, with what it threw, if anything. */
  async end(): Promise<unknown> {
    await this.#done;
    return this.#failure?.error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort();
    await this.#done;
  }

  async #run(watch: AsyncIterable<StoreEvent>): Promise<void> {
    try {
      for await (const event of watch) {
        this.events.push(event);
        this.#wake();
      }
    } catch (error) {
      this.#failure = { error };
    }
    this.#ended = true;
    this.#wake();
  }
}

export const keysOf = (events: readonly { key: string }[]): string[] => events.map(({ key }) => key);
export const range = (length: number): number[] => Array.from({ length }, (_, index) => index);

export type Body = (store: Store, fixture: StoreFixture, t: TestContext) => Promise<void>;

/** One test on new facts with one store open. */
export function storeTest(make: () => Promise<StoreFixture>, title: string, body: Body): void {
  it(title, async (t) => {
    await using fixture = await make();
    await using store = await fixture.open();
    await body(store, fixture, t);
  });
}

/** Reads, adds one and writes if nobody was faster, until it works. */
export async function increment(store: Store, key: string): Promise<void> {
  for (;;) {
    const entry = await store.get(key);
    try {
      await store.commit([put(key, Number(entry?.value ?? 0) + 1, entry?.revision ?? 0)]);
      return;
    } catch (error) {
      if ((error as { code?: unknown }).code !== 'conflict') throw error;
    }
  }
}
