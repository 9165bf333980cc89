// The programs themselves: what they print and end with where they cannot go on, or what they print cannot be written.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { after, test } from 'node:test';

const folder = mkdtempSync(join(tmpdir(), 'causeway-programs-'));
after(() => rmSync(folder, { recursive: true }));
const env = { HOME: folder, CAUSEWAY_CONTEXTS: join(folder, 'contexts.yaml') };

function start(program: string, words: readonly string[], stdout: number | 'ignore' = 'ignore'): ChildProcess {
  const argv = ['--disable-warning=ExperimentalWarning', join(import.meta.dirname, `${program}.ts`), ...words];
  return spawn(process.execPath, argv, { stdio: ['ignore', stdout, 'pipe'], env });
}

async function ended(child: ChildProcess): Promise<{ readonly status: unknown; readonly err: string }> {
  const [err, [status]] = await Promise.all([text(child.stderr ?? Readable.from([])), once(child, 'close')]);
  return { status, err };
}

test('a full disk where the answer goes is an error of one kind, told without a stack', async () => {
  const full = openSync('/dev/full', 'w');
  const child = start('cli', ['explain', 'models'], full);
  closeSync(full);
  const { status, err } = await ended(child);
  assert.match(err, /^Error \(unavailable\): Cannot write the answer: .*ENOSPC.*\nTry: .*\n$/);
  assert.equal(status, 6);
});

test('an error that nobody reads any more still ends with its status', async () => {
  const child = start('cli', ['frobnicate']);
  child.stderr?.destroy();
  const [status] = await once(child, 'close');
  assert.equal(status, 2);
});

test('daemons that cannot begin say why as every command does, with its exit status', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1');
  t.after(() => taken.close());
  await once(taken, 'listening');
  const address = taken.address();
  const port = typeof address === 'object' && address !== null ? address.port : assert.fail();
  const contexts = ['--contexts-file', join(folder, 'first.yaml')];
  const rows: readonly [program: string, words: readonly string[], status: number, err: RegExp][] = [
    ['controller', ['--bogus'], 2, /^Error \(invalid\): unknown option '--bogus'\nTry: causeway controller --help\n$/],
    ['controller', ['--listen', '1:2:3'], 2, /^Error \(invalid\): option '--listen .*\nTry: /],
    ['controller', ['--store', 'foo:'], 2, /^Error \(invalid\): Not a store URL: foo:\nField: store\nTry: Write memory:/],
    ['controller', ['--store', 'memory:', '--listen', `127.0.0.1:${port}`, ...contexts], 6, /^Error \(unavailable\): Cannot listen on /],
    ['controller', ['--help'], 0, /^$/],
    ['agent', ['--bogus'], 2, /^Error \(invalid\): Unknown option '--bogus'\nTry: See causeway agent --help\n$/],
    ['agent', ['--port', '99999'], 2, /^Error \(invalid\): Not a port: 99999\nField: --port\nTry: /],
  ];
  for (const [program, words, status, err] of rows) {
    const end = await ended(start(program, words));
    assert.match(end.err, err, words.join(' '));
    assert.equal(end.status, status, words.join(' '));
  }
});
