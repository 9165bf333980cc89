import assert from 'node:assert/strict';
import { test } from 'node:test';
import { age, facts, type Look, table } from './table.ts';

const look: Look = { color: false, now: new Date('2026-01-10T00:00:00Z') };
const columns = [
  { title: 'NAME', value: (row: { name: string; size: string }) => row.name },
  { title: 'SIZE', value: (row: { size: string }) => row.size, style: () => 'red' as const },
];

test('columns are as wide as their widest cell, the last one is not padded', () => {
  const text = table(
    look,
    [
      { name: 'a-long-name', size: '1' },
      { name: 'b', size: '' },
    ],
    columns,
  );
  assert.equal(text, 'NAME         SIZE\na-long-name  1\nb            -\n');
});

test('no rows is one sentence', () => {
  assert.equal(table(look, [], columns, 'Nothing yet.'), 'Nothing yet.\n');
});

test('colour is added only where it is wanted, and does not change widths', () => {
  const row = { name: 'a', size: '1' };
  assert.ok(table({ ...look, color: true }, [row], columns).includes('\u001b[31m1'));
  assert.ok(!table(look, [row], columns).includes('\u001b'));
});

test('control characters in a cell become question marks', () => {
  assert.equal(
    table(look, [{ name: 'a\u001b[2J\nb', size: '1' }], columns),
    'NAME      SIZE\na?[2J?b  1\n'.replace('NAME      ', 'NAME     '),
  );
});

test('facts leave out what has no value', () => {
  assert.equal(
    facts(look, [
      ['Name', 'a'],
      ['Mtu', undefined],
      ['State', 'ready'],
    ]),
    'Name:   a\nState:  ready\n',
  );
});

test('ages are told in the largest unit that fits', () => {
  const since = (seconds: number): string => age(look, new Date(look.now.getTime() - seconds * 1000).toISOString());
  assert.deepEqual([0, 119, 120, 7199, 7200, 172_799, 172_800].map(since), ['0s', '119s', '2m', '119m', '2h', '47h', '2d']);
  assert.equal(age(look, 'x'), 'unknown');
  assert.equal(age(look, '2027-01-01T00:00:00Z'), '0s');
});
