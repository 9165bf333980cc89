import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findForbidden } from './forbidden.ts';

const cases: readonly (readonly [string, number])[] = [
  [`FROM ${['ghcr', 'io'].join('.')}/somebody/image`, 1],
  [`path: ${['', 'home', 'somebody'].join('/')}`, 1],
  ['apt-get install docker.io', 0],
  ['see /var/lib/causeway/home/work', 0],
  ['#homework/file.ts', 0],
];

for (const [line, count] of cases) {
  test(`${count} complaints about ${line}`, () => assert.equal(findForbidden('x.md', line).length, count));
}
