import assert from 'node:assert/strict';
import { test } from 'node:test';
import { columns, folded, shownEvidence } from './demo-screen.ts';

const evidence = [
  { where: 'host1', command: 'ping web', seen: '1 received' },
  { where: 'host1 box', command: 'true', seen: 'nothing' },
];

test('evidence stands in columns where there is room, and below its command where there is not', () => {
  assert.deepEqual(
    shownEvidence(evidence, 80).map(({ command, seen }) => `${command}|${seen}`),
    ['host1 $ ping web|1 received', 'host1 box $ true|nothing'],
  );
  assert.deepEqual(
    shownEvidence(evidence, 20).map(({ command, seen }) => `${command}|${seen}`),
    ['host1 $ ping web|', '  |1 received', 'host1 box $ true|', '  |nothing'],
  );
});

test('long text breaks at spaces, and a word that is too long stays whole', () => {
  assert.deepEqual(folded('one two three', 7), ['one two', 'three']);
  assert.deepEqual(folded('a incomprehensibilities b', 5), ['a', 'incomprehensibilities', 'b']);
  assert.deepEqual(folded('', 5), ['']);
});

test('columns are as wide as their widest cell', () => {
  assert.deepEqual(
    columns([
      ['a', 'bcd', 'e'],
      ['long', 'b'],
    ]),
    ['a     bcd  e', 'long  b'],
  );
});
