import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isAlive, parseStat, refOf } from './process.ts';

test('a program name with spaces and parentheses does not shift the fields', () => {
  const fields = ['S', '41', ...Array.from({ length: 17 }, () => '0'), '987654', '0'].join(' ');
  assert.deepEqual(parseStat(`42 (a) b (c) ${fields}`), { pid: 42, state: 'S', parent: 41, startTime: '987654' });
});

test('a process is alive by number and start time together', () => {
  const self = refOf(process.pid);
  assert.ok(self !== undefined && isAlive(self));
  assert.equal(isAlive({ ...self, startTime: '1' }), false);
});
