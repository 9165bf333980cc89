// Waiting for a process that was just started or told to end. Blocks: kinds are synchronous, and this is rare.

export const pause = (ms: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

/** Whether the condition came true in time. */
export function waitFor(condition: () => boolean, timeoutMs: number): boolean {
  for (const end = Date.now() + timeoutMs; Date.now() < end; pause(2)) if (condition()) return true;
  return condition();
}
