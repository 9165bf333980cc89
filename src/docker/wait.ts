// Waiting for another process's record to arrive, within a limit.
import { setTimeout as sleep } from 'node:timers/promises';

/** What `look` finally gives, or undefined after `limitMs`. */
export async function eventually<T>(limitMs: number, look: () => Promise<T | undefined>): Promise<T | undefined> {
  const end = performance.now() + limitMs;
  for (let pause = 10; ; pause = Math.min(pause * 2, 500)) {
    const found = await look();
    if (found !== undefined || performance.now() >= end) return found;
    await sleep(pause);
  }
}
