// For kernel tests: a packet each millisecond from somewhere, and how many came back.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type Counted, countedIn, everyMillisecond } from '#test/answered.ts';
import { inNetns } from '#kernel/netns.ts';
import type { Place } from './namespaces.fixture.ts';

export interface Stream {
  /** What has come back by now. */
  readonly counted: () => Counted;
  /** Ends it, and tells what has come back. Ended already is success. */
  readonly stop: () => Promise<Counted>;
}

const rawSockets = (): string => ['raw', 'raw6'].map((name) => readFileSync(`/proc/thread-self/net/${name}`, 'utf8')).join('');

/** Goes on until it is told to stop. */
export function streamFrom({ path }: Place, target: string): Stream {
  const [program = '', ...words] = everyMillisecond(target);
  const child = inNetns(path, () => spawn(program, words, { stdio: ['ignore', 'pipe', 'ignore'] }));
  const ended = once(child, 'close');
  let said = '';
  child.stdout.on('data', (bytes) => (said += String(bytes)));
  let sockets = '';
  const counted = (): Counted => countedIn(said, sockets);
  return {
    counted,
    async stop() {
      if (child.exitCode === null && child.signalCode === null) sockets = inNetns(path, rawSockets);
      child.kill('SIGINT');
      await ended;
      return counted();
    },
  };
}
