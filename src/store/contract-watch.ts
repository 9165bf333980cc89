// The part of the contract of stores that is about time: watches, compaction, restart.
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { type Body, faults, keysOf, put, range, remove, type StoreFixture, storeTest, Watcher } from './contract-fixture.ts';
import type { StoreEvent } from './store.ts';

export function watchContract(name: string, make: () => Promise<StoreFixture>): void {
  const test = (title: string, body: Body): void => storeTest(make, title, body);

  describe(`${name}: watches`, () => {
    test('brings every change below the prefix after a revision, in order', async (store) => {
      await store.commit([put('w/before', 1)]);
      const { revision } = await store.list('');
      await using watcher = new Watcher(store, 'w/', revision);
      const one = await store.commit([put('w/a', { n: 1 })]);
      await store.commit([put('wx', 1), put('v/a', 1)]);
      const two = await store.commit([put('w/a', { n: 2 })]);
      const three = await store.commit([remove('w/a'), remove('w/absent')]);
      assert.deepEqual(await watcher.take(3), [
        { type: 'put', key: 'w/a', value: { n: 1 }, revision: one.revision },
        { type: 'put', key: 'w/a', value: { n: 2 }, revision: two.revision },
        { type: 'delete', key: 'w/a', revision: three.revision },
      ]);
    });

    test('events of one commit carry its revision, in the order of its operations', async (store) => {
      const { revision: since } = await store.commit([put('w/gone', 1)]);
      await using watcher = new Watcher(store, 'w/', since);
      const { revision } = await store.commit([put('w/c', 1), remove('w/gone'), put('other', 1), put('w/a', 1)]);
      assert.deepEqual(
        (await watcher.take(3)).map((event) => [event.type, event.key, event.revision]),
        [
          ['put', 'w/c', revision],
          ['delete', 'w/gone', revision],
          ['put', 'w/a', revision],
        ],
      );
    });

    test('starts in the past, and a commit that lost leaves no event', async (store) => {
      const { revision: since } = await store.list('');
      await store.commit([put('w/1')]);
      await faults(store.commit([put('w/2'), put('w/1', 1, 0)]), 'conflict');
      await store.commit([put('w/3')]);
      await using watcher = new Watcher(store, 'w/', since);
      assert.deepEqual(keysOf(await watcher.take(2)), ['w/1', 'w/3']);
    });

    test('another store notices within a tenth of a second', async (store, fixture, t) => {
      await using second = await fixture.open();
      const { revision } = await store.list('');
      await using watcher = new Watcher(second, '', revision);
      await store.commit([put('warm')]);
      await watcher.take(1);
      const medianOfFive = async (): Promise<number> => {
        const delays: number[] = [];
        for (const index of range(5)) {
          const start = performance.now();
          await store.commit([put(`k/${index}`)]);
          await watcher.take(1);
          delays.push(performance.now() - start);
        }
        return delays.toSorted((a, b) => a - b)[2] ?? Number.NaN;
      };
      // A machine that is busy makes everybody late; one that is so all the while is none to measure on.
      let median = await medianOfFive();
      for (let tries = 0; median >= 100 && tries < 20; tries++) median = await medianOfFive();
      t.diagnostic(`median delay ${median.toFixed(1)} ms`);
      assert.ok(median < 100, `median delay ${median} ms`);
    });

    test('resumes again and again without loss or duplicate while others write', async (store, fixture) => {
      await using second = await fixture.open();
      const { revision: start } = await store.list('');
      const total = 60;
      const writing = (async () => {
        for (const index of range(total)) {
          await (index % 2 === 0 ? store : second).commit([put(`r/${index}/a`, index), put('aside', index), put(`r/${index}/b`, index)]);
        }
      })();
      const keys: string[] = [];
      let since = start;
      while (keys.length < total * 2) {
        const abort = new AbortController();
        const take = 1 + Math.floor(Math.random() * 9);
        const events: StoreEvent[] = [];
        for await (const event of store.watch('r/', { since, signal: abort.signal })) {
          events.push(event);
          if (events.length > take || keys.length + events.length === total * 2) break;
        }
        // Only whole commits count: the last one may have been cut.
        const last = events.at(-1)?.revision ?? since;
        const whole = keys.length + events.length === total * 2 ? events : events.filter(({ revision }) => revision < last);
        keys.push(...keysOf(whole));
        since = whole.at(-1)?.revision ?? since;
      }
      await writing;
      assert.deepEqual(
        keys,
        range(total).flatMap((index) => [`r/${index}/a`, `r/${index}/b`]),
      );
    });

    test('a slow reader loses nothing and keeps the order', async (store) => {
      const { revision } = await store.list('');
      const abort = new AbortController();
      const watch = store.watch('s/', { since: revision, signal: abort.signal })[Symbol.asyncIterator]();
      const first = watch.next();
      const padding = 'x'.repeat(2000);
      for (const batch of range(20)) await Promise.all(range(50).map((index) => store.commit([put(`s/${batch}-${index}`, padding)])));
      await first;
      let seen = 1;
      let last = 0;
      while (seen < 1000) {
        const { value } = await watch.next();
        const event = value as StoreEvent;
        assert.ok(event.revision > last);
        last = event.revision;
        seen += 1;
      }
      assert.equal(last, (await store.list('')).revision);
      abort.abort();
      assert.equal((await watch.next()).done, true);
    });

    test('many large values are listed and watched together', async (store) => {
      const { revision: since } = await store.list('');
      const value = 'x'.repeat(1_000_000);
      for (const index of range(16)) await store.commit([put(`large/${index}`, value)]);
      const { entries } = await store.list('large/');
      await using watcher = new Watcher(store, 'large/', since);
      const events = await watcher.take(16);
      assert.equal(entries.length, 16);
      assert.ok([...entries, ...events].every((each) => 'value' in each && each.value === value));
    });

    test('many watches see the same', async (store) => {
      const { revision } = await store.list('');
      const watchers = range(20).map(() => new Watcher(store, 'm/', revision));
      await Promise.all(range(20).map((index) => store.commit([put(`m/${index}`)])));
      const seen = await Promise.all(watchers.map((watcher) => watcher.take(20)));
      for (const events of seen) assert.deepEqual(events, seen[0]);
      await Promise.all(watchers.map((watcher) => watcher[Symbol.asyncDispose]()));
    });

    test('abort ends the iterable without an error: before, while waiting, and in between', async (store) => {
      const { revision } = await store.list('');
      const before = new AbortController();
      before.abort();
      for await (const event of store.watch('', { since: revision, signal: before.signal })) assert.fail(event.key);
      const waiting = new Watcher(store, 'x/', revision);
      await store.commit([put('x/1'), put('x/2')]);
      await waiting.take(2);
      await waiting[Symbol.asyncDispose]();
      assert.equal(await waiting.end(), undefined);
      const between = new AbortController();
      const seen: string[] = [];
      for await (const event of store.watch('x/', { since: revision, signal: between.signal })) {
        seen.push(event.key);
        between.abort();
      }
      assert.deepEqual(seen, ['x/1']);
    });

    test('closing the store ends its watches', async (_store, fixture) => {
      const other = await fixture.open();
      const { revision } = await other.list('');
      const watcher = new Watcher(other, '', revision);
      await other.commit([put('a')]);
      await watcher.take(1);
      await other[Symbol.asyncDispose]();
      assert.equal(await watcher.end(), undefined);
      await faults(other.get('a'), 'unavailable');
      await faults(other.commit([put('a')]), 'unavailable');
      await faults(other.list(''), 'unavailable');
    });
  });

  describe(`${name}: compaction and restart`, () => {
    test('a watch from before a compaction gets compacted, one from after it does not', async (store) => {
      const { revision: first } = await store.commit([put('a', 1)]);
      await store.commit([put('a', 2)]);
      const { revision: third } = await store.commit([put('a', 3), put('b', 1)]);
      const { revision: fourth } = await store.commit([remove('b')]);
      await store.compact(fourth);
      await using old = new Watcher(store, '', first);
      await faults(Promise.reject(await old.end()), 'compacted');
      await using recent = new Watcher(store, '', third);
      assert.deepEqual(await recent.take(1), [{ type: 'delete', key: 'b', revision: fourth }]);
      assert.deepEqual(
        (await store.list('')).entries.map(({ key, value }) => [key, value]),
        [['a', 3]],
      );
    });

    test('a deletion forgotten by a compaction is not passed over in silence', async (store) => {
      const { revision: since } = await store.commit([put('a', 1)]);
      const { revision } = await store.commit([remove('a')]);
      await store.commit([put('b', 1)]);
      await store.compact(revision + 1);
      await using watcher = new Watcher(store, '', since);
      await faults(Promise.reject(await watcher.end()), 'compacted');
    });

    test('a watch that is up to date survives a compaction', async (store) => {
      const { revision } = await store.list('');
      await using watcher = new Watcher(store, '', revision);
      await store.commit([put('a', 1)]);
      await watcher.take(1);
      await store.compact((await store.commit([put('a', 2)])).revision);
      await store.commit([put('a', 3)]);
      assert.deepEqual(keysOf(await watcher.take(2)), ['a', 'a']);
    });

    test('compaction may be repeated, go back, and name the future', async (store) => {
      const { revision } = await store.commit([put('a', 1)]);
      for (const target of [revision, revision, 0, 1, revision + 1000]) await store.compact(target);
      assert.equal((await store.get('a'))?.value, 1);
      await using watcher = new Watcher(store, '', revision);
      await store.commit([put('b', 1)]);
      assert.deepEqual(keysOf(await watcher.take(1)), ['b']);
      await faults(store.compact(-1), 'invalid');
    });

    test('after closing and opening again everything is as it was, and a watch from before goes on', async (_store, fixture) => {
      const before = await fixture.open();
      const { revision: since } = await before.commit([put('a', 1), put('b', { x: [1] })]);
      await before.commit([put('a', 2), remove('b')]);
      const list = await before.list('');
      await before[Symbol.asyncDispose]();
      await using after = await fixture.open();
      assert.deepEqual(await after.list(''), list);
      await using watcher = new Watcher(after, '', since);
      const { revision } = await after.commit([put('c', 1, 0)]);
      assert.ok(revision > list.revision);
      assert.deepEqual(
        (await watcher.take(3)).map((event) => [event.type, event.key, event.revision]),
        [
          ['put', 'a', list.revision],
          ['delete', 'b', list.revision],
          ['put', 'c', revision],
        ],
      );
    });

    test('closing waits for what was asked before', async (store, fixture) => {
      const other = await fixture.open();
      const commits = range(10).map((index) => other.commit([put(`k/${index}`)]));
      await Promise.all(commits);
      await other[Symbol.asyncDispose]();
      assert.equal((await store.list('k/')).entries.length, 10);
    });
  });
}
