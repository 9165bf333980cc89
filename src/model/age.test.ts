import assert from 'node:assert/strict';
import { test } from 'node:test';
import { byAge } from './age.ts';

test('the older is first, what is of no known age before everything, and names tell apart what is of one moment', () => {
  const [early, late] = ['2026-01-01T00:00:00Z', '2026-01-01T00:00:01Z'];
  const all = [
    { name: 'a', createdAt: late },
    { name: 'c', createdAt: early },
    { name: 'b', createdAt: early },
    { name: 'd', createdAt: '' },
  ];
  for (const given of [all, all.toReversed()])
    assert.deepEqual(
      given.toSorted(byAge(({ name }) => name)).map(({ name }) => name),
      ['d', 'b', 'c', 'a'],
    );
});
