// `causeway lab` with command lines that nobody can follow: told in a line, with nothing built.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';

const lab = (...words: readonly string[]): { readonly status: number | null; readonly stderr: string } =>
  spawnSync(process.execPath, ['--disable-warning=ExperimentalWarning', join(import.meta.dirname, 'cli.ts'), ...words], {
    encoding: 'utf8',
  });

test('an option that there is none of is told with how it is used, without a stack', () => {
  const { status, stderr } = lab('create', 'unit-test', '--bogus');
  assert.equal(status, 2);
  assert.match(stderr, /^causeway lab: Unknown option '--bogus'/);
  assert.match(stderr, /\nUsage: causeway lab COMMAND\n/);
  assert.doesNotMatch(stderr, /\n +at /);
});

test('what is absent is told, with what to do', () => {
  const { status, stderr } = lab('show', 'unit-test');
  assert.deepEqual([status, stderr], [1, 'causeway lab: Cannot find lab unit-test\ncauseway lab create unit-test\n']);
});
