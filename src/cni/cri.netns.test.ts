// Against a real containerd, which has no sandboxes here: the call itself, its two versions, and who is no runtime of Kubernetes.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createServer } from 'node:net';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { until } from '#lab/until.ts';
import { mustBeIsolated } from '#test/isolated.ts';
import { isFault } from '#model/fault.ts';
import { listSandboxes } from './cri.ts';

mustBeIsolated();

async function folderOf(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'causeway-cri-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** The socket of a containerd that is up. Ended after the test. */
async function containerd(t: TestContext, disabled: readonly string[]): Promise<string> {
  const folder = await folderOf(t);
  const [socket, file] = [join(folder, 'c.sock'), join(folder, 'config.toml')];
  const lines = [
    'version = 2',
    `root = "${folder}/root"`,
    `state = "${folder}/state"`,
    `disabled_plugins = ${JSON.stringify(disabled)}`,
    `[grpc]\n  address = "${socket}"`,
    `[plugins."io.containerd.grpc.v1.cri"]\n  stream_server_port = "0"`,
    `[plugins."io.containerd.internal.v1.opt"]\n  path = "${folder}/opt"`,
  ];
  await writeFile(file, lines.join('\n'));
  const child = spawn('containerd', ['--config', file, '--log-level', 'error'], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  t.after(async () => {
    child.kill('SIGTERM');
    await ended;
  });
  await until('containerd', async () => (await answers(socket)) && child.exitCode === null, { timeoutMs: 60_000 });
  return socket;
}

const refuses = (socket: string): Promise<void> => assert.rejects(listSandboxes(socket), (error) => isFault(error, 'unavailable'));

async function answers(socket: string): Promise<boolean> {
  try {
    await listSandboxes(socket);
    return true;
  } catch (error) {
    if (!isFault(error, 'unavailable')) throw error;
    return false;
  }
}

const isMissing = spawnSync('containerd', ['--version']).status !== 0;
const skip = isMissing ? 'containerd is not installed' : false;

test('containerd tells its sandboxes, and one without its Kubernetes part is no runtime of Kubernetes', { skip }, async (t) => {
  assert.deepEqual(await listSandboxes(await containerd(t, [])), new Set());
  assert.equal(await listSandboxes(await containerd(t, ['io.containerd.grpc.v1.cri'])), undefined);
});

test('whoever is away, hangs up or speaks something else cannot be asked', async (t) => {
  const folder = await folderOf(t);
  await refuses(join(folder, 'nobody.sock'));
  for (const words of ['', 'HTTP/1.1 400 Bad Request\r\n\r\n']) {
    const socket = join(folder, `${words.length}.sock`);
    const server = createServer((connection) => void connection.on('error', () => undefined).end(words)).listen(socket);
    t.after(() => server.close());
    await refuses(socket);
  }
});
