import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countedIn } from './answered.ts';

const printed = (numbers: readonly number[]): string => numbers.map((number) => `64 bytes: icmp_seq=${number % 65_536} ttl=63\n`).join('');

test('numbers that are missing among the answers are lost, in whatever order they come', () => {
  assert.deepEqual(countedIn(printed([1, 2, 4, 3, 6])), { sent: 6, lost: 1 });
  assert.deepEqual(countedIn(''), { sent: 0, lost: 0 });
});

test('numbers begin anew after 16 bits', () => {
  const all = Array.from({ length: 70_000 }, (_, index) => index + 1);
  assert.deepEqual(countedIn(printed(all.filter((number) => number !== 5 && number !== 65_541))), { sent: 70_000, lost: 2 });
});
