// Waiting for a condition of the outside world that announces itself in no better way.
import { setTimeout as sleep } from 'node:timers/promises';
import { Fault } from '#model/fault.ts';

export interface UntilOptions {
  readonly timeoutMs?: number;
  readonly intervalMs?: number;
  readonly signal?: AbortSignal;
}

/**
 * Asks `probe` again and again until it answers something other than undefined or false, and returns that. `what` completes
 * the sentence "Waited for …". Fault `timeout` after a minute or `timeoutMs`, which tells how often was looked and what `probe` threw
 * last, its cause: a probe that has seen something else than it looks for may throw that. Between looks it waits for `intervalMs`, and as
 * long as a look takes: programs that are started to look would keep the processors from what they look for.
 */
export async function until<T>(
  what: string,
  probe: () => T | Promise<T>,
  options: UntilOptions = {},
): Promise<NonNullable<Exclude<T, false>>> {
  const { timeoutMs = 60_000, intervalMs = 20 } = options;
  const deadline = performance.now() + timeoutMs;
  let cause: unknown;
  for (let looks = 1; ; looks += 1) {
    options.signal?.throwIfAborted();
    const begun = performance.now();
    try {
      const answer = await probe();
      if (answer !== undefined && answer !== null && answer !== false) return answer as NonNullable<Exclude<T, false>>;
    } catch (error) {
      cause = error;
    }
    if (performance.now() > deadline) {
      const reason = cause instanceof Error ? `: ${cause.message}` : '';
      throw new Fault('timeout', `Waited for ${what} in vain for ${timeoutMs} ms, ${looks} looks${reason}`, { cause });
    }
    await sleep(Math.max(intervalMs, performance.now() - begun));
  }
}
