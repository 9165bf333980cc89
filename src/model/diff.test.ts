import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { changedPart, diff } from './diff.ts';

interface Thing {
  readonly name: number;
  readonly size: number;
}
const comparison = { key: ({ name }: Thing) => String(name), same: (a: Thing, b: Thing) => a.size === b.size };
const things = fc.array(fc.record({ name: fc.integer({ min: 0, max: 9 }), size: fc.integer({ min: 0, max: 2 }) }), { maxLength: 15 });
const byName = (list: readonly Thing[]) => new Map(list.map((thing) => [thing.name, thing.size]));

test('a difference applied to what is gives what should be, and nothing twice', () => {
  fc.assert(
    fc.property(things, things, (wanted, found) => {
      const { add, change, remove } = diff(wanted, found, comparison);
      const state = byName(found);
      for (const { name } of remove) assert.ok(state.delete(name), 'removed what was there');
      for (const { wanted: item, found: before } of change) {
        assert.equal(state.get(item.name), before.size);
        assert.notEqual(item.size, before.size);
        state.set(item.name, item.size);
      }
      for (const { name, size } of add) {
        assert.ok(!state.has(name), 'added what was not there');
        state.set(name, size);
      }
      assert.deepEqual(Object.fromEntries(state), Object.fromEntries(byName(wanted)));
    }),
  );
});

test('equal lists differ in nothing, in whatever order', () => {
  fc.assert(
    fc.property(things, (list) => {
      const one = [...byName(list)].map(([name, size]) => ({ name, size }));
      assert.deepEqual(diff(one.toReversed(), one, comparison), { add: [], change: [], remove: [] });
    }),
  );
});

test('of two wishes with one key the later counts', () => {
  const [early, late] = [
    { name: 1, size: 1 },
    { name: 1, size: 2 },
  ];
  assert.deepEqual(diff([early, late], [], comparison).add, [late]);
  assert.deepEqual(diff([early, late], [late], comparison), { add: [], change: [], remove: [] });
});

test('the cost grows with the lengths, not with their product', () => {
  const many = Array.from({ length: 50_000 }, (_, name) => ({ name, size: 0 }));
  let calls = 0;
  const counted: typeof comparison = {
    key: (item) => {
      calls += 1;
      return comparison.key(item);
    },
    same: (wanted, found) => {
      calls += 1;
      return comparison.same(wanted, found);
    },
  };
  assert.equal(diff(many, many.toReversed(), counted).add.length, 0);
  assert.ok(calls >= 100_000 && calls <= 500_000, `${calls} calls for ${many.length} items on each side`);
});

const list = (text: string): [string, number][] =>
  text.split('').map((name, index) => [name.toLowerCase(), name === name.toLowerCase() ? 0 : index + 1]);
const names = (items: readonly (readonly [string, number])[]): string => items.map(([name]) => name).join('');

test('only the part between what two lists have in common is left, also of lists with nothing or everything in common', () => {
  const pairs = {
    key: ([name]: readonly [string, number]) => name,
    same: (a: readonly [string, number], b: readonly [string, number]) => a[1] === b[1],
  };
  for (const [wanted, before, left] of [
    ['abc', 'abc', ''],
    ['abxc', 'abc', 'x-'],
    ['ac', 'abc', '-b'],
    ['aBc', 'abc', 'b-b'],
    ['aa', 'a', 'a-'],
    ['xyz', 'abc', 'xyz-abc'],
    ['', 'abc', '-abc'],
  ] as const) {
    const part = changedPart(list(wanted), list(before), pairs);
    assert.equal(`${names(part.wanted)}-${names(part.before)}`, left === '' ? '-' : left, `${wanted} ${before}`);
  }
});
