// Gives memory that the agent has freed back to the system. After a burst V8 keeps the pages of what it has collected, and
// malloc its own, in case there is another one: with ten thousand remote endpoints 50 MB, for as long as the agent runs.
// Collecting so that pages are returned takes the processor for some 75 ms, of which the process is held for 20, so it waits for a
// quiet moment of the agent and of the machine, but not for ever.
import { readFileSync } from 'node:fs';
import { flushCompileCache } from 'node:module';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { trimAllocations } from '#kernel/libc.ts';

export interface MemoryOptions {
  /** Bytes that are resident now. */
  readonly resident: () => number;
  readonly giveBack: () => void;
  /** Whether others wait for the processor; what the kernel says of that unless given. */
  readonly isPressed?: () => boolean;
  /** Nothing happened for this long: a quiet moment. */
  readonly quietMs?: number;
  /** At most this long is waited for one. */
  readonly patienceMs?: number;
}

/** Less than this is not worth a collection. */
const worthBytes = 4 * 2 ** 20;

export class Memory implements Disposable {
  readonly #options: MemoryOptions;
  readonly #timer: NodeJS.Timeout;
  readonly #patience: number;
  #isBusy = true;
  /** Looks in a row at which it was busy. */
  #waited = 0;
  /** What was resident after the last time; what cannot be given back is not tried again and again. */
  #least = 0;

  constructor(options: MemoryOptions) {
    const { quietMs = 10_000, patienceMs = 120_000 } = options;
    this.#options = options;
    this.#patience = patienceMs / quietMs;
    this.#timer = setInterval(() => this.#look(), quietMs);
    this.#timer.unref();
  }

  /** Something is happening that needs memory. */
  busy(): void {
    this.#isBusy = true;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const { resident, giveBack, isPressed = isProcessorPressed } = this.#options;
    this.#waited = this.#isBusy || isPressed() ? this.#waited + 1 : 0;
    this.#isBusy = false;
    if ((this.#waited > 0 && this.#waited < this.#patience) || resident() < this.#least + worthBytes) return;
    giveBack();
    this.#waited = 0;
    this.#least = resident();
  }
}

/** Per cent of the last ten seconds in which somebody waited for a processor. */
const mostPressure = 10;

/** By what the kernel says of the last ten seconds (Documentation/accounting/psi.rst); where it says nothing nobody waits. */
export function isProcessorPressed(file = '/proc/pressure/cpu'): boolean {
  try {
    return Number(/^some avg10=([\d.]+)/.exec(readFileSync(file, 'utf8'))?.[1] ?? 0) > mostPressure;
  } catch {
    return false; // built without it, or switched off: reading it is refused
  }
}

/**
 * Collects everything and returns the pages, V8's and malloc's; what has been compiled goes to the disk, which Node else does when a
 * process ends, and one that is killed has to compile all of it again. To be made once.
 */
export function collector(): () => void {
  setFlagsFromString('--expose-gc');
  const collect: NodeJS.GCFunction = runInNewContext('gc');
  setFlagsFromString('--no-expose-gc');
  return () => {
    flushCompileCache();
    collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
    trimAllocations();
  };
}
