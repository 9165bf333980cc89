// The agent's loop, level-triggered: whoever changes facts calls kick(); the loop plans everything again and brings the
// kernel to it. Planning and kernel calls are synchronous, so a run is never interrupted and there is only ever one.
import type { Desired } from '#model/desired.ts';
import type { Outcome, Reconciler } from './reconcile.ts';

export interface LoopOptions {
  readonly reconciler: Pick<Reconciler, 'apply' | 'suspect' | 'forget'>;
  /** Undefined while too little is known to plan at all. */
  readonly plan: () => Desired | undefined;
  /** Whether every source has reported that it is in sync. */
  readonly maySweep: () => boolean;
  readonly done: (outcome: Outcome) => void;
  /** The kernel could not even be read. The loop tries again. */
  readonly failed: (error: unknown) => void;
  /** Kernel state is read again this often, for drift that nobody announced. */
  readonly fullReadMs?: number;
  /**
   * Kicked runs are at least this far apart; the first one after a rest comes at once. While many containers start here and on
   * other hosts, facts change without end, and what has to be in the kernel for an answer is run on demand anyway.
   */
  readonly restMs?: number;
  /** Milliseconds of a clock that never goes back, and of the processor that this process has used. */
  readonly clocks?: { now(): number; used(): number };
}

const coalesceMs = 5;
const usualRestMs = 100;
/** Of the processor's time that a run used, the rest after it when somebody is in a hurry: a fifth is the loop's at most. */
const hurriedRests = 4;
const usualClocks: NonNullable<LoopOptions['clocks']> = {
  now: () => performance.now(),
  used: () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  },
};
/**
 * A turn takes some microseconds when nothing has arrived. One turn accepts one connection, a later one reads the request (libuv
 * 1.46, "don't accept() connections in a loop").
 */
const quietTurns = 12;
/** Of twenty who are started at once the last comes some 40 ms after the first, and two runs take longer than one that waits for it. */
const mostGatheringMs = 50;
const firstRetryMs = 200;
const lastRetryMs = 30_000;

export class Loop implements Disposable {
  readonly #options: LoopOptions;
  readonly #fullRead: NodeJS.Timeout;
  #pending: NodeJS.Timeout | undefined;
  #resting: NodeJS.Timeout | undefined;
  /** Kicked while resting. */
  #isDue = false;
  #retry: NodeJS.Timeout | undefined;
  #retryMs = firstRetryMs;
  /** Until what lingers goes. */
  #lingering: NodeJS.Timeout | undefined;
  /** What the last run was refused. */
  #refused = '';
  #together: Promise<Outcome | undefined> | undefined;
  /** How many have asked for a run together. */
  #asked = 0;
  #isDisposed = false;
  #runs = 0;
  readonly #clocks: NonNullable<LoopOptions['clocks']>;
  /** When the last kicked run ended, and what it used. */
  #ran = { until: 0, used: 0 };

  constructor(options: LoopOptions) {
    this.#options = options;
    this.#clocks = options.clocks ?? usualClocks;
    this.#fullRead = setInterval(() => this.suspectAll(), options.fullReadMs ?? 60_000);
    this.#fullRead.unref();
  }

  /** Number of completed runs. */
  get runs(): number {
    return this.#runs;
  }

  /** Facts have changed: run soon. Many kicks make one run. */
  kick(): void {
    // The run that others wait for already comes at once, and plans from what is known by then.
    if (this.#together !== undefined) return;
    if (this.#resting === undefined) this.#pending ??= setTimeout(() => this.#runKicked(), coalesceMs);
    else this.#isDue = true;
  }

  /** As kick(), where packets wait for it: the rest is no longer than the loop needs to leave the machine to others. */
  hurry(): void {
    if (this.#resting !== undefined) this.#rest(Math.max(0, this.#ran.until + hurriedRests * this.#ran.used - this.#clocks.now()));
    this.kick();
  }

  #rest(ms: number): void {
    const most = Math.min(ms, this.#options.restMs ?? usualRestMs);
    clearTimeout(this.#resting);
    this.#resting = setTimeout(() => {
      this.#resting = undefined;
      if (this.#isDue) this.kick();
    }, most);
  }

  #runKicked(): void {
    this.#rest(Number.POSITIVE_INFINITY);
    const before = this.#clocks.used();
    this.run();
    this.#ran = { until: this.#clocks.now(), used: this.#clocks.used() - before };
  }

  /** Somebody else has been in the kernel. */
  suspect(netns: string): void {
    this.#options.reconciler.suspect(netns);
    this.kick();
  }

  suspectAll(): void {
    this.#options.reconciler.suspect();
    this.kick();
  }

  /** Runs now; on return the kernel is as planned, but for what the outcome names. Undefined when nothing can be planned yet. */
  run(): Outcome | undefined {
    clearTimeout(this.#pending);
    this.#pending = undefined;
    this.#isDue = false;
    const { reconciler, plan, maySweep, done, failed } = this.#options;
    try {
      const desired = plan();
      if (desired === undefined) return undefined;
      const outcome = reconciler.apply(desired, maySweep());
      this.#runs += 1;
      done(outcome);
      this.#runAfter(outcome.lingersMs);
      if (outcome.failing.length > 0) this.#later(outcome.failing.map(({ what }) => what).join('\n'));
      else this.#settled();
      return outcome;
    } catch (error) {
      failed(error);
      this.#later('');
      return undefined;
    }
  }

  /**
   * run() once for all who ask at the same time: where containers start or end at once, their links come and go in one batch,
   * and one grace period of the kernel is waited for instead of one each.
   */
  runTogether(): Promise<Outcome | undefined> {
    this.#asked += 1;
    this.#together ??= new Promise((resolve) => {
      this.#gather({ quiet: 0, asked: this.#asked, until: performance.now() + mostGatheringMs }, () => {
        this.#together = undefined;
        resolve(this.#isDisposed ? undefined : this.run());
      });
    });
    return this.#together;
  }

  /** What was to be run soon is run; nothing when nothing was. */
  async settle(): Promise<void> {
    if (this.#together !== undefined || this.#pending !== undefined || this.#isDue) await this.runTogether();
  }

  /** Calls `then` once several turns of the event loop have brought nobody else who asks. */
  #gather({ quiet, asked, until }: { quiet: number; asked: number; until: number }, then: () => void): void {
    setImmediate(() => {
      const turns = asked === this.#asked ? quiet + 1 : 0;
      if (turns >= quietTurns || performance.now() >= until) then();
      else this.#gather({ quiet: turns, asked: this.#asked, until }, then);
    });
  }

  #runAfter(ms: number | undefined): void {
    clearTimeout(this.#lingering);
    if (ms !== undefined) this.#lingering = setTimeout(() => this.kick(), ms);
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    clearTimeout(this.#lingering);
    clearInterval(this.#fullRead);
    clearTimeout(this.#pending);
    clearTimeout(this.#resting);
    clearTimeout(this.#retry);
  }

  #settled(): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#retryMs = firstRetryMs;
    this.#refused = '';
  }

  /**
   * Something was refused: what is remembered may be wrong, so read everything and try again, ever more slowly. What was
   * not refused before does not wait for what has been refused for long.
   */
  #later(refused: string): void {
    if (refused !== this.#refused) {
      clearTimeout(this.#retry);
      this.#retry = undefined;
      this.#retryMs = firstRetryMs;
      this.#refused = refused;
    }
    if (this.#retry !== undefined) return;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.#retryMs = Math.min(this.#retryMs * 2, lastRetryMs);
      this.#options.reconciler.forget();
      this.kick();
    }, this.#retryMs);
    this.#retry.unref();
  }
}
