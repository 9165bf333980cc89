// Keeps the view in step with a controller: one watch stream, resumed where it broke, begun anew when the controller no
// longer knows that revision. Facts stay as they are while no controller answers.
import { isFault } from '#model/fault.ts';
import type { WatchLine } from '#api/answers.ts';
import type { View } from './view.ts';

export interface FollowerOptions {
  readonly view: View;
  readonly watch: (options: { since?: number; epoch?: string; signal: AbortSignal }) => AsyncIterable<WatchLine>;
  readonly signal: AbortSignal;
  /** Told when the stream opens and when it breaks, with the reason. */
  readonly state: (connected: boolean, reason?: unknown) => void;
  /** Told after every attempt to keep the view in the journal why it failed, if it did; the next attempt comes soon. */
  readonly saved: (failure?: unknown) => void;
}

const firstRetryMs = 200;
const lastRetryMs = 5_000;
const saveMs = 500;

const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });

/** Runs until `signal` aborts; never rejects. Many agents reconnecting spread out by the random part of the pause. */
export async function follow({ view, watch, signal, state, saved }: FollowerOptions): Promise<void> {
  const save = (): void => {
    try {
      view.save();
      saved();
    } catch (error) {
      saved(error);
    }
  };
  const saving = setInterval(save, saveMs);
  let retryMs = firstRetryMs;
  while (!signal.aborted) {
    const { epoch } = view;
    const since = view.isSynced ? view.revision : 0;
    const place = since === 0 ? {} : { since, ...(epoch === undefined ? {} : { epoch }) };
    try {
      view.begin();
      for await (const line of watch({ ...place, signal })) {
        if (retryMs !== 0) state(true);
        retryMs = 0;
        view.apply(line);
      }
      if (!signal.aborted) state(false);
    } catch (error) {
      if (!signal.aborted) state(false, error);
      if (isFault(error, 'compacted')) view.forgetRevision();
    }
    retryMs = Math.min(Math.max(retryMs * 2, firstRetryMs), lastRetryMs);
    if (!signal.aborted) await pause(retryMs * (0.5 + Math.random() / 2), signal);
  }
  clearInterval(saving);
  save();
}
