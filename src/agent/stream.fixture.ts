// For kernel tests: a packet each millisecond from somewhere, and how many came back.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type Counted, countedIn, everyMillisecond } from '#test/answered.ts';
import { inNetns } from '#kernel/netns.ts';
import type { Place } from './namespaces.fixture.ts';

export interface Stream {
  /** What has come back by now. */
  readonly counted: () => Counted;
  /** Ends it, and tells what has come back. Ended already is success. */
  readonly stop: () => Promise<Counted>;
}

/** Goes on until it is told to stop. */
export function streamFrom({ path }: Place, target: string): Stream {
  const [program = '', ...words] = everyMillisecond(target);
  const child = inNetns(path, () => spawn(program, words, { stdio: ['ignore', 'pipe', 'ignore'] }));
  const ended = once(child, 'close');
  let said = '';
  child.stdout.on('data', (bytes) => (said += String(bytes)));
  const counted = (): Counted => countedIn(said);
  return {
    counted,
    async stop() {
      child.kill('SIGINT');
      await ended;
      return counted();
    },
  };
}
