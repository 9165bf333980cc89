// The program itself, where what it prints cannot be written.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';

const program = [process.execPath, '--disable-warning=ExperimentalWarning', join(import.meta.dirname, 'cli.ts')] as const;
const [node, ...flags] = program;
const env = { HOME: '/nonexistent', CAUSEWAY_CONTEXTS: '/nonexistent/contexts.yaml' };

test('a full disk where the answer goes is an error of one kind, told without a stack', async () => {
  const full = openSync('/dev/full', 'w');
  const child = spawn(node, [...flags, 'explain', 'models'], { stdio: ['ignore', full, 'pipe'], env });
  closeSync(full);
  const ended = new Promise<number | null>((resolve) => void child.once('exit', resolve));
  const err = await text(child.stderr ?? Readable.from([]));
  assert.match(err, /^Error \(unavailable\): Cannot write the answer: .*ENOSPC.*\nTry: .*\n$/);
  assert.equal(await ended, 6);
});

test('an error that nobody reads any more still ends with its status', async () => {
  const child = spawn(node, [...flags, 'frobnicate'], { stdio: ['ignore', 'ignore', 'pipe'], env });
  child.stderr?.destroy();
  assert.equal(await new Promise<number | null>((resolve) => void child.once('exit', resolve)), 2);
});
