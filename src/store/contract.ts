// What every store promises, as tests: memory.test.ts, sqlite.test.ts and etcd.netns.test.ts run the same suite.
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { type Body, faults, increment, keysOf, put, range, remove, type StoreFixture, storeTest } from './contract-fixture.ts';
import { watchContract } from './contract-watch.ts';
import { maxCommitBytes, maxKeyLength, maxOperations } from './operations.ts';
import type { Json } from './store.ts';

const longKey = (index: number): string => `${'k'.repeat(maxKeyLength - 4)}/${String(index).padStart(3, '0')}`;

export function storeContract(name: string, make: () => Promise<StoreFixture>): void {
  const test = (title: string, body: Body): void => storeTest(make, title, body);

  describe(`${name}: entries`, () => {
    test('an absent key is undefined', async (store) => {
      assert.equal(await store.get('a/b'), undefined);
    });

    test('a put can be read with the revision of its commit', async (store) => {
      const value = { text: 'ü€😀', list: [1, 2.5, -0.25, null, true], nested: { '': 'empty' } };
      const { revision } = await store.commit([put('a/b', value)]);
      assert.deepEqual(await store.get('a/b'), { key: 'a/b', value, revision });
    });

    test('what was handed in or out can be changed without changing the store', async (store) => {
      const value = { list: [1] };
      await store.commit([put('a', value)]);
      value.list.push(2);
      const first = (await store.get('a'))?.value as { list: number[] };
      first.list.push(3);
      assert.deepEqual((await store.get('a'))?.value, { list: [1] });
    });

    test('every kind of JSON value comes back', async (store) => {
      const values: Json[] = [null, true, false, 0, 1e21, Number.MAX_SAFE_INTEGER, '', 'x'.repeat(5000), [], {}];
      await store.commit(values.map((value, index) => put(`v/${index}`, value)));
      assert.deepEqual(
        (await store.list('v/')).entries.map(({ value }) => value),
        values,
      );
    });

    test('revisions grow with every commit that changes something and stay otherwise', async (store) => {
      const one = await store.commit([put('a', 1)]);
      const two = await store.commit([put('a', 1)]);
      assert.ok(two.revision > one.revision);
      assert.equal((await store.commit([{ type: 'check', key: 'a', expect: two.revision }])).revision, two.revision);
      assert.equal((await store.commit([remove('absent')])).revision, two.revision);
      assert.equal((await store.commit([])).revision, two.revision);
      assert.equal((await store.list('')).revision, two.revision);
    });

    test('a value of one mebibyte fits and no more', async (store) => {
      const value = 'x'.repeat(maxCommitBytes - 2);
      await store.commit([put('large', value)]);
      assert.equal((await store.get('large'))?.value, value);
      await faults(store.commit([put('larger', `${value}x`)]), 'invalid');
      await faults(store.commit([put('a', value), put('b', value)]), 'invalid');
    });

    test('the largest commit fits: as many operations as allowed, on the longest keys, one mebibyte together', async (store) => {
      const value = '"'.padEnd(maxCommitBytes / maxOperations - 3, 'x');
      const { revision } = await store.commit(range(maxOperations).map((index) => put(longKey(index), value, 0)));
      const { entries } = await store.list('');
      assert.equal(entries.length, maxOperations);
      assert.ok(entries.every((entry) => entry.revision === revision && entry.value === value));
      await faults(store.commit(range(maxOperations).map((index) => put(longKey(index), value, 0))), 'conflict');
    });

    test('odd but allowed keys are kept apart', async (store) => {
      const keys = [
        '%',
        '_',
        "'",
        '"',
        '\\',
        'a b',
        ' ',
        '~',
        '*',
        '[a]',
        'a%b/_',
        'A',
        'a',
        '-',
        '..',
        'fd00::/64',
        '$&',
        'k'.repeat(maxKeyLength),
      ];
      await store.commit(keys.map((key) => put(key, key)));
      for (const key of keys) assert.equal((await store.get(key))?.value, key);
      assert.deepEqual(keysOf((await store.list('')).entries), keys.toSorted());
      assert.deepEqual(keysOf((await store.list('%')).entries), ['%']);
    });

    test('bad keys, prefixes and values are refused', async (store) => {
      const bad = ['', '/', '/a', 'a/', 'a//b', 'ä', 'a\n', 'a\u0000', '\u007f', 'k'.repeat(maxKeyLength + 1)];
      for (const key of bad) {
        await faults(store.get(key), 'invalid');
        await faults(store.commit([put('good'), put(key)]), 'invalid');
      }
      await faults(store.list('ä'), 'invalid');
      await faults(store.list('', { limit: 0 }), 'invalid');
      await faults(store.list('', { limit: 1.5 }), 'invalid');
      await faults(store.commit([{ type: 'put', key: 'a', value: undefined as unknown as Json }]), 'invalid');
      await faults(store.commit([put('a', 1n as unknown as Json)]), 'invalid');
      await faults(store.commit([put('a'), remove('a')]), 'invalid');
      await faults(store.commit([put('a', 1, -1)]), 'invalid');
      await faults(store.commit(range(maxOperations + 1).map((index) => put(`k/${index}`))), 'invalid');
      assert.deepEqual((await store.list('')).entries, []);
    });
  });

  describe(`${name}: lists`, () => {
    test('a list is in key order and holds exactly what begins with the prefix', async (store) => {
      const keys = ['a', 'a-b', 'a/', 'a/1', 'a/10', 'a/2', 'a0', 'ab/1', 'b/1'].filter((key) => !key.endsWith('/'));
      await store.commit(keys.toReversed().map((key) => put(key)));
      assert.deepEqual(keysOf((await store.list('a/')).entries), ['a/1', 'a/10', 'a/2']);
      assert.deepEqual(keysOf((await store.list('a')).entries), ['a', 'a-b', 'a/1', 'a/10', 'a/2', 'a0', 'ab/1']);
      assert.deepEqual(keysOf((await store.list('a/1')).entries), ['a/1', 'a/10']);
      assert.deepEqual((await store.list('c')).entries, []);
    });

    test('pages join to the whole list', async (store) => {
      await store.commit(range(100).map((index) => put(`p/${String(index).padStart(3, '0')}`, index)));
      const collected: Json[] = [];
      let after: string | undefined;
      for (;;) {
        const page = await store.list('p/', { limit: 33, ...(after === undefined ? {} : { after }) });
        collected.push(...page.entries.map(({ value }) => value));
        after = page.entries.at(-1)?.key;
        if (!page.more) break;
        assert.equal(page.entries.length, 33);
      }
      assert.deepEqual(collected, range(100));
      assert.equal((await store.list('p/', { limit: 100 })).more, false);
    });

    test('a page may begin at a key that is absent, before the prefix or behind it', async (store) => {
      await store.commit(['m/1', 'm/3', 'n/1'].map((key) => put(key)));
      assert.deepEqual(keysOf((await store.list('m/', { after: 'm/2' })).entries), ['m/3']);
      assert.deepEqual(keysOf((await store.list('m/', { after: 'a' })).entries), ['m/1', 'm/3']);
      assert.deepEqual(await store.list('m/', { after: 'n/1' }), { entries: [], revision: (await store.list('')).revision, more: false });
    });

    test('a list longer than any internal page is whole and of one revision', async (store) => {
      for (const batch of range(10)) await store.commit(range(128).map((index) => put(`l/${batch}-${index}`, 0)));
      const { entries, revision, more } = await store.list('l/');
      assert.deepEqual([entries.length, more], [1280, false]);
      assert.ok(entries.every((entry) => entry.revision <= revision));
    });
  });

  describe(`${name}: commits`, () => {
    test('all operations get one revision', async (store) => {
      await store.commit([put('old', 1)]);
      const { revision } = await store.commit([put('a', 1), put('b', 2), remove('old')]);
      const { entries } = await store.list('');
      assert.deepEqual(entries, [
        { key: 'a', value: 1, revision },
        { key: 'b', value: 2, revision },
      ]);
    });

    test('one expectation that does not hold undoes all, whatever its place', async (store) => {
      await store.commit([put('taken', 1)]);
      const before = await store.list('');
      await faults(store.commit([put('a', 1), remove('taken'), put('b', 1, 5)]), 'conflict');
      await faults(store.commit([put('taken', 2, 0), put('a', 1)]), 'conflict');
      assert.deepEqual(await store.list(''), before);
    });

    test('expect 0 means absent, a revision means exactly that one', async (store) => {
      const { revision } = await store.commit([put('a', 1, 0)]);
      await faults(store.commit([put('a', 2, 0)]), 'conflict');
      await faults(store.commit([put('a', 2, revision + 1)]), 'conflict');
      const next = await store.commit([put('a', 2, revision)]);
      await faults(store.commit([remove('a', revision)]), 'conflict');
      await faults(store.commit([remove('absent', revision)]), 'conflict');
      await store.commit([remove('a', next.revision)]);
      await store.commit([remove('a', 0)]);
      await store.commit([put('a', 3, 0)]);
      assert.equal((await store.get('a'))?.value, 3);
    });

    test('a conflict names the key', async (store) => {
      await store.commit([put('a', 1)]);
      await assert.rejects(store.commit([put('b', 1, 0), put('a', 1, 0)]), /\ba\b/);
    });

    test('check holds a commit to a key that it does not write', async (store) => {
      const { revision } = await store.commit([put('guard', 1)]);
      await store.commit([{ type: 'check', key: 'guard', expect: revision }, { type: 'check', key: 'none', expect: 0 }, put('a', 1)]);
      assert.equal((await store.get('guard'))?.revision, revision);
      await store.commit([put('guard', 2)]);
      await faults(store.commit([{ type: 'check', key: 'guard', expect: revision }, put('a', 2)]), 'conflict');
      await faults(store.commit([{ type: 'check', key: 'none', expect: revision }, put('a', 2)]), 'conflict');
      assert.equal((await store.get('a'))?.value, 1);
    });

    test('fifty writers increment one counter and none is lost', async (store) => {
      await store.commit([put('counter', 0)]);
      await Promise.all(range(50).map(() => increment(store, 'counter')));
      assert.equal((await store.get('counter'))?.value, 50);
    });

    test('several stores on the same facts see each other and lose nothing', async (store, fixture) => {
      await using second = await fixture.open();
      await using third = await fixture.open();
      await store.commit([put('counter', 0)]);
      await Promise.all(range(30).map((index) => increment([store, second, third][index % 3] ?? store, 'counter')));
      for (const each of [store, second, third]) assert.equal((await each.get('counter'))?.value, 30);
    });

    test('exactly one of many creates a key', async (store, fixture) => {
      await using second = await fixture.open();
      const attempts = range(20).map((index) => (index % 2 === 0 ? store : second).commit([put('one', index, 0)]));
      const settled = await Promise.allSettled(attempts);
      assert.equal(settled.filter(({ status }) => status === 'fulfilled').length, 1);
    });
  });

  watchContract(name, make);
}
