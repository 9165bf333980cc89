// What controllers have in common: sorts of objects are followed, and while this one leads, a pass looks at all that is known and
// writes what follows from it. Nothing is written before every sort has been listed, and a change is waited for a moment, as it
// seldom comes alone. What fails is tried again with the next change or pass.
import { setTimeout as delay } from 'node:timers/promises';
import { isFault } from '#model/fault.ts';
import type { KubernetesClient } from './client.ts';
import { followKind, type Followed } from './follow.ts';

/** One sort of object that is followed; `put` answers false when nothing of interest has changed. */
export interface Sort {
  readonly name: string;
  readonly path: string;
  readonly keys: () => Iterable<string>;
  readonly put: (key: string, item: unknown) => unknown;
  readonly delete: (key: string) => unknown;
}

/** Does one thing, and answers whether anything was written; nothing is done any more once another one leads. */
export type Attempt = (work: () => Promise<boolean>) => Promise<void>;

/** Milliseconds: waited before a pass, and after a write. */
export interface Pace {
  readonly passMs: number;
  readonly writeMs: number;
}
const usualPace: Pace = { passMs: 1_000, writeMs: 20 };

export interface PassesOptions {
  readonly client: KubernetesClient;
  readonly log: { warn(fields: object, message: string): void };
  readonly isLeading: () => boolean;
  readonly pace?: Pace;
}

export interface Passed {
  readonly sorts: readonly Sort[];
  readonly pass: (attempt: Attempt) => Promise<void>;
  /** What is said in the log when a write is refused. */
  readonly failure: string;
}

export class Passes {
  readonly #options: PassesOptions;
  readonly #passed: Passed;
  readonly #pace: Pace;
  readonly #unlisted: Set<string>;
  #failure = '';
  #wake: (() => void) | undefined;
  #isDue = false;

  constructor(options: PassesOptions, passed: Passed) {
    this.#options = options;
    this.#passed = passed;
    this.#pace = options.pace ?? usualPace;
    this.#unlisted = new Set(passed.sorts.map(({ name }) => name));
  }

  /** Resolves when `signal` has aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { client, log } = this.#options;
    const followed = this.#passed.sorts.map((sort) => this.#follow(sort));
    await Promise.all([...followed.map((kind) => followKind(kind, { client, log, signal })), this.#passes(signal)]);
  }

  /** Looks again at everything soon. */
  kick(): void {
    this.#isDue = true;
    this.#wake?.();
  }

  async #passes(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#wake?.(), { once: true });
    while (!signal.aborted) {
      if (!this.#isDue) await new Promise<void>((resolve) => (this.#wake = resolve));
      await delay(this.#pace.passMs, undefined, { signal }).catch(() => undefined);
      this.#isDue = false;
      if (!signal.aborted && this.#unlisted.size === 0 && this.#options.isLeading()) await this.#pass(signal);
    }
  }

  async #pass(signal: AbortSignal): Promise<void> {
    let hasFailed = false;
    await this.#passed.pass(async (work) => {
      if (signal.aborted || !this.#options.isLeading()) return;
      try {
        if (await work()) await delay(this.#pace.writeMs);
      } catch (error) {
        // Changed or deleted meanwhile: the watch tells, and it is looked at again.
        if (isFault(error, 'conflict') || isFault(error, 'not-found')) return;
        hasFailed = true;
        this.#complain(error);
      }
    });
    if (!hasFailed) this.#failure = '';
  }

  #complain(error: unknown): void {
    const text = error instanceof Error ? error.message : String(error);
    if (text !== this.#failure) this.#options.log.warn({ error }, this.#passed.failure);
    this.#failure = text;
  }

  #follow({ name, path, keys, put, delete: remove }: Sort): Followed {
    return {
      name,
      paths: [path],
      absent: 'empty',
      keys: () => [...keys()],
      put: (key, item) => {
        if (put(key, item) !== false) this.kick();
      },
      delete: (key) => {
        remove(key);
        this.kick();
      },
      listed: () => {
        this.#unlisted.delete(name);
        this.kick();
      },
    };
  }
}
