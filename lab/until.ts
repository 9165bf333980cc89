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
 * the sentence "Waited for …". Fault `timeout` after 10 s or `timeoutMs`; what `probe` throws last becomes its cause.
 */
export async function until<T>(
  what: string,
  probe: () => T | Promise<T>,
  options: UntilOptions = {},
): Promise<NonNullable<Exclude<T, false>>> {
  const { timeoutMs = 10_000, intervalMs = 20 } = options;
  const deadline = performance.now() + timeoutMs;
  let cause: unknown;
  for (;;) {
    options.signal?.throwIfAborted();
    try {
      const answer = await probe();
      if (answer !== undefined && answer !== null && answer !== false) return answer as NonNullable<Exclude<T, false>>;
      cause = undefined;
    } catch (error) {
      cause = error;
    }
    if (performance.now() > deadline) {
      const reason = cause instanceof Error ? `: ${cause.message}` : '';
      throw new Fault('timeout', `Waited for ${what} in vain for ${timeoutMs} ms${reason}`, { cause });
    }
    await sleep(intervalMs);
  }
}
