import assert from 'node:assert/strict';
import test from 'node:test';
import * as fc from 'fast-check';
import { FairShare } from './fair-share.ts';

test('one alone may have all of it, and no more', () => {
  const share = new FairShare(10);
  assert.deepEqual(
    Array.from({ length: 12 }, () => share.take('a')),
    [...Array.from({ length: 10 }, () => true), false, false],
  );
  share.release('a');
  assert.deepEqual([share.take('a'), share.take('a')], [true, false]);
});

test('whatever others hold, each gets its equal part, at least one', () => {
  const names = ['a', 'b', 'c', 'd', 'e'] as const;
  const steps = fc.array(fc.tuple(fc.boolean(), fc.constantFrom(...names)), { maxLength: 200 });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 12 }), steps, (limit, taken) => {
      const share = new FairShare(limit);
      const held = new Map<string, number>();
      for (const [isTaking, who] of taken) {
        const has = held.get(who) ?? 0;
        if (!isTaking && has > 0) share.release(who);
        if (!isTaking && has > 0) held.set(who, has - 1);
        const sharing = [...held].filter(([name, count]) => count > 0 || name === who).length + (held.has(who) ? 0 : 1);
        if (!isTaking) continue;
        const isGiven = share.take(who);
        assert.equal(isGiven, has < Math.max(1, Math.floor(limit / sharing)), `${who} with ${has} of ${limit} among ${sharing}`);
        if (isGiven) held.set(who, has + 1);
      }
    }),
  );
});
