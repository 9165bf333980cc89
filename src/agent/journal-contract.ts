// What every journal promises; journal.test.ts runs it on the real one and the one in memory.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Journal } from '#api/local.ts';
import { isFault } from '#model/fault.ts';

const refuses = (fn: () => unknown): void => assert.throws(fn, (error) => isFault(error, 'invalid'));

export function journalContract(name: string, make: () => Journal & Partial<Disposable>): void {
  const test = (title: string, body: (journal: Journal) => void | Promise<void>): void => {
    it(title, async () => {
      const journal = make();
      await body(journal);
      journal[Symbol.dispose]?.();
    });
  };

  describe(`${name}: contract`, () => {
    test('what was put is there, replaced by what is put later, and gone when deleted', (journal) => {
      assert.equal(journal.get('a/b'), undefined);
      journal.put('a/b', { n: [1, null, 'ü'] });
      assert.deepEqual(journal.get('a/b'), { n: [1, null, 'ü'] });
      journal.put('a/b', null);
      assert.equal(journal.get('a/b'), null);
      journal.delete('a/b');
      journal.delete('a/b');
      assert.equal(journal.get('a/b'), undefined);
    });

    test('a list is in key order and ends with its prefix', (journal) => {
      for (const key of ['a/2', 'b', 'a/10', 'a', 'a0', 'a/1', 'A/1']) journal.put(key, key);
      assert.deepEqual(journal.list('a/'), [
        { key: 'a/1', value: 'a/1' },
        { key: 'a/10', value: 'a/10' },
        { key: 'a/2', value: 'a/2' },
      ]);
      assert.deepEqual(journal.keys('a/'), ['a/1', 'a/10', 'a/2']);
      assert.deepEqual(
        journal.list('').map(({ key }) => key),
        ['A/1', 'a', 'a/1', 'a/10', 'a/2', 'a0', 'b'],
      );
    });

    test('what was handed in or out can be changed without changing the journal', (journal) => {
      const value = { list: [1] };
      journal.put('a', value);
      value.list.push(2);
      assert.deepEqual(journal.get('a'), { list: [1] });
    });

    test('bad keys and values are refused', (journal) => {
      for (const key of ['', '/a', 'a/', 'a//b', 'ä', 'a\nb', 'k'.repeat(600)]) {
        refuses(() => journal.put(key, 1));
        refuses(() => journal.get(key));
        refuses(() => journal.delete(key));
      }
      refuses(() => journal.put('a', undefined));
      assert.deepEqual(journal.list(''), []);
    });

    test('a large value fits', (journal) => {
      const value = 'x'.repeat(4_000_000);
      journal.put('large', value);
      assert.equal(journal.get('large'), value);
    });

    test('a transaction returns what its function returns and sees its own writes', (journal) => {
      journal.put('a', 1);
      const seen = journal.transaction(() => {
        journal.put('b', 2);
        journal.delete('a');
        return journal.list('').map(({ key }) => key);
      });
      assert.deepEqual(seen, ['b']);
      assert.deepEqual(journal.list(''), [{ key: 'b', value: 2 }]);
    });

    test('a transaction that throws leaves nothing behind, whatever it throws', (journal) => {
      journal.put('a', 1);
      const error = new Error('no');
      assert.throws(
        () =>
          journal.transaction(() => {
            journal.put('a', 2);
            journal.put('b', 2);
            throw error;
          }),
        error,
      );
      refuses(() =>
        journal.transaction(() => {
          journal.delete('a');
          journal.put('', 1);
        }),
      );
      assert.deepEqual(journal.list(''), [{ key: 'a', value: 1 }]);
      journal.transaction(() => journal.put('c', 3));
      assert.equal(journal.get('c'), 3);
    });

    test('a transaction inside another one is undone with it, or alone', (journal) => {
      journal.transaction(() => {
        journal.put('a', 1);
        assert.throws(() =>
          journal.transaction(() => {
            journal.put('b', 1);
            throw new Error('inner');
          }),
        );
        journal.transaction(() => journal.put('c', 1));
      });
      assert.throws(() =>
        journal.transaction(() => {
          journal.transaction(() => journal.put('d', 1));
          throw new Error('outer');
        }),
      );
      assert.deepEqual(
        journal.list('').map(({ key }) => key),
        ['a', 'c'],
      );
    });

    test('what is written soon is there at once, in order with the rest, and up to what threw', (journal) => {
      assert.equal(
        journal.soon(() => {
          journal.put('a', 1);
          journal.transaction(() => journal.put('b', 1));
          return journal.get('a');
        }),
        1,
      );
      journal.put('a', 2);
      assert.throws(() =>
        journal.soon(() => {
          journal.delete('b');
          throw new Error('no');
        }),
      );
      assert.deepEqual(journal.list(''), [{ key: 'a', value: 2 }]);
      assert.throws(() => void journal.soon(() => Promise.resolve()), TypeError);
    });

    test('all who ask at the same time, and while a sync is under way, are told when it is durable', async (journal) => {
      journal.soon(() => journal.put('a', 1));
      const first = Promise.all([journal.durable(), journal.durable()]);
      journal.soon(() => journal.put('a', 2));
      await Promise.all([first, journal.durable()]);
      await journal.durable();
      assert.deepEqual(journal.list(''), [{ key: 'a', value: 2 }]);
    });

    test('a transaction around a promise is a programming error and writes nothing', (journal) => {
      assert.throws(() => {
        void journal.transaction(() => {
          journal.put('a', 1);
          return Promise.resolve();
        });
      }, TypeError);
      assert.deepEqual(journal.list(''), []);
    });
  });
}
