import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ensurePackages, hasProgram } from './packages.ts';
import { silentProgress } from './progress.ts';

test('programs are found where Debian has them', () => {
  assert.equal(hasProgram('sh'), true);
  assert.equal(hasProgram('no-such-program'), false);
});

test('nothing is installed when all is there', async () => {
  await ensurePackages([{ program: 'sh', package: 'no-such-package', why: 'to see' }], silentProgress);
});
