import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countedIn } from './answered.ts';

const printed = (numbers: readonly number[]): string =>
  numbers.map((number) => `10.1.0.2 : [${number}], 64 bytes, 0.018 ms (0.018 avg, 0% loss)\n`).join('');

test('numbers that are missing among the answers are lost, in whatever order they come', () => {
  assert.deepEqual(countedIn(printed([0, 1, 3, 2, 5])), { sent: 6, lost: 1, inRow: 1 });
  assert.deepEqual(countedIn(printed([2, 9, 6, 4])), { sent: 10, lost: 6, inRow: 2 });
  assert.deepEqual(countedIn('10.1.0.2 : [0], timed out (NaN avg, 100% loss)\n'), { sent: 0, lost: 0, inRow: 0 });
  assert.deepEqual(countedIn(''), { sent: 0, lost: 0, inRow: 0 });
});

const head = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n';
const line = (drops: number): string =>
  `    1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 14 2 0000000000000000 ${drops}\n`;
const sockets = (drops: number): string => head + line(0) + line(drops) + head;

test('answers for which its socket had no room were not lost', () => {
  const text = printed([0, 1, 5, 6, 9]);
  assert.deepEqual(countedIn(text, sockets(0)), { sent: 10, lost: 5, inRow: 3 });
  assert.deepEqual(countedIn(text, sockets(2)), { sent: 10, lost: 3, inRow: 1 });
  assert.deepEqual(countedIn(text, sockets(7)), { sent: 10, lost: 0, inRow: 0 });
});
