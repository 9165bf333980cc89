import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { WatchLine } from '#api/answers.ts';
import { makeNetwork } from '#drivers/cluster.fixture.ts';
import { Fault } from '#model/fault.ts';
import { follow, type FollowerOptions } from './follower.ts';
import { MemoryJournal } from './journal.ts';
import { View } from './view.ts';

type Watch = {
  readonly since: number | undefined;
  readonly epoch: string | undefined;
  say(line: WatchLine): void;
  end(error?: unknown): void;
};

const asleep = (): void => undefined;

/** A controller whose streams say what the test says. */
function controller() {
  const watches: Watch[] = [];
  async function* watch({ since, epoch, signal }: Parameters<FollowerOptions['watch']>[0]): AsyncGenerator<WatchLine> {
    const lines: WatchLine[] = [];
    const ending: { is?: true; error?: unknown } = {};
    let wake = asleep;
    watches.push({
      since,
      epoch,
      say(line) {
        lines.push(line);
        wake();
      },
      end(error) {
        Object.assign(ending, { is: true, error });
        wake();
      },
    });
    signal.addEventListener('abort', () => wake());
    for (;;) {
      for (let line = lines.shift(); line !== undefined; line = lines.shift()) yield line;
      if (signal.aborted) return;
      if (ending.is === true) {
        if (ending.error === undefined) return;
        // oxlint-disable-next-line typescript/only-throw-error -- as the test says
        throw ending.error;
      }
      await new Promise<void>((resolve) => (wake = resolve));
    }
  }
  return { watch, watches, last: () => watches.at(-1) };
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 6; turn++) await setImmediate();
}

function bed(t: TestContext, options: Partial<FollowerOptions> = {}) {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const journal = new MemoryJournal();
  const view = new View({ journal, changed: () => undefined });
  const stop = new AbortController();
  const server = controller();
  const states: string[] = [];
  const failures: unknown[] = [];
  const following = follow({
    view,
    watch: server.watch,
    signal: stop.signal,
    state: (connected, reason) => states.push(connected ? 'connected' : reason instanceof Error ? reason.message : 'away'),
    saved: (failure) => {
      if (failure !== undefined) failures.push(failure);
    },
    ...options,
  });
  t.after(async () => {
    stop.abort();
    await following;
  });
  const tick = async (ms: number): Promise<void> => {
    t.mock.timers.tick(ms);
    await settle();
  };
  return { ...server, view, journal, stop, states, failures, following, tick };
}

const synced = (revision: number, whole = true): WatchLine => ({ type: 'synced', revision, whole });
const network = (revision: number): WatchLine => ({
  type: 'put',
  kind: 'networks',
  item: { ...makeNetwork('aaaaaaaaaa'), name: 'net', revision },
  revision,
});

test('a stream that breaks is resumed from where it was, after a moment', async (t) => {
  const { watches, last, view, states, tick } = bed(t);
  await settle();
  last()?.say(network(4));
  last()?.say({ type: 'synced', revision: 5, epoch: 'one', whole: true });
  await settle();
  last()?.say({ type: 'bookmark', revision: 8, epoch: 'two' });
  await settle();
  last()?.end(new Fault('unavailable', 'gone'));
  await settle();
  assert.deepEqual([watches.length, view.revision, states], [1, 8, ['connected', 'gone']]);
  await tick(200);
  assert.deepEqual(
    watches.map(({ since, epoch }) => [since, epoch]),
    [
      [undefined, undefined],
      [8, 'two'],
    ],
  );
  last()?.say(synced(8, false));
  await settle();
  assert.deepEqual([states, [...view.snapshot.networks.keys()]], [['connected', 'gone', 'connected'], ['aaaaaaaaaa']]);
});

test('a revision that the controller no longer has leads to a whole listing', async (t) => {
  const { watches, last, tick } = bed(t);
  await settle();
  last()?.say(synced(5));
  await settle();
  last()?.end(new Fault('compacted', 'too old'));
  await settle();
  await tick(5000);
  assert.deepEqual(
    watches.map(({ since }) => since),
    [undefined, undefined],
  );
});

test('a view that was only taken up from the disk is not resumed from', async (t) => {
  const { watches } = bed(t);
  await settle();
  assert.equal(watches[0]?.since, undefined);
});

test('while no controller answers it asks ever more slowly, and facts stay', async (t) => {
  const asked: number[] = [];
  let now = 0;
  const state: string[] = [];
  const { view, tick } = bed(t, {
    // oxlint-disable-next-line require-yield -- a stream that breaks before its first line
    async *watch() {
      asked.push(now);
      await setImmediate();
      throw new Fault('unavailable', 'No controller answers');
    },
    state: (connected) => state.push(String(connected)),
  });
  view.learn('networks', { ...makeNetwork('aaaaaaaaaa'), name: 'net', revision: 2 });
  await settle();
  for (; now < 60_000; now += 100) await tick(100);
  const early = asked.filter((at) => at < 3000).length;
  assert.ok(early >= 3 && early <= 7, `${early} in three seconds`);
  assert.ok(asked.length - early >= 11 && asked.length - early <= 24, `${asked.length - early} in the rest of the minute`);
  assert.deepEqual([new Set(state), view.snapshot.networks.size], [new Set(['false']), 1]);
});

test('a controller of another version is told as such', async (t) => {
  const { last, states, tick } = bed(t);
  await settle();
  last()?.end(new Fault('version', 'The controller speaks 2, this agent 1'));
  await settle();
  await tick(200);
  assert.deepEqual(states, ['The controller speaks 2, this agent 1']);
});

test('what changes is on the disk within the second, and at the end', async (t) => {
  const { last, journal, stop, following, tick } = bed(t);
  await settle();
  last()?.say(synced(5));
  await settle();
  await tick(500);
  assert.equal(journal.get('view/revision'), 5);
  last()?.say({ type: 'bookmark', revision: 8 });
  await settle();
  stop.abort();
  await following;
  assert.equal(journal.get('view/revision'), 8);
});

test('a disk that is full stops nothing; it is told, and made up for', async (t) => {
  const { last, journal, view, failures, tick } = bed(t);
  const full = t.mock.method(journal, 'transaction', () => {
    throw new Fault('unavailable', 'The disk is full');
  });
  await settle();
  last()?.say(network(4));
  last()?.say(synced(5));
  await settle();
  await tick(1000);
  assert.deepEqual([failures.length > 0, view.isSynced, journal.get('view/revision')], [true, true, undefined]);
  full.mock.restore();
  await tick(500);
  assert.equal(journal.get('view/revision'), 5);
});

test('it ends at once when told to, connected or waiting', async (t) => {
  const one = bed(t);
  await settle();
  one.stop.abort();
  await one.following;
  assert.deepEqual(one.states, []);
});
