// The agent's program on bad ground: each row a clear error that says what to do, and nothing half made.
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import * as v from 'valibot';
import { askSocket } from '#lab/unix-http.ts';
import { until } from '#lab/until.ts';
import { mustBeIsolated } from '#test/isolated.ts';
import { openController, type Controller } from '#controller/controller.ts';
import { createNetwork } from '#controller/networks.ts';
import { silentLog } from '#controller/log.ts';
import { type RunningServer, startServer } from '#controller/server.ts';
import { createToken } from '#controller/tokens.ts';
import { MemoryStore } from '#store/memory.ts';
import { eventually } from './namespaces.fixture.ts';

mustBeIsolated();

const program = join(import.meta.dirname, '..', 'bin', 'agent.ts');
const folder = mkdtempSync(join(tmpdir(), 'causeway-start-'));
const store = new MemoryStore();
let controller: Controller;
let server: RunningServer;
/** The same controller, as one of a later version: it refuses what this agent speaks. */
let later: RunningServer;
let places = 0;

before(async () => {
  spawnSync('ip', ['link', 'add', 'eth0', 'type', 'bridge']);
  spawnSync('ip', ['addr', 'add', '10.213.0.1/16', 'dev', 'eth0']);
  spawnSync('ip', ['link', 'set', 'eth0', 'up']);
  controller = await openController({ store, log: silentLog, version: '0.0.0' });
  server = await startServer(controller, { host: '127.0.0.1', port: 0, names: [] });
  const { app } = controller;
  const fetch: typeof app.fetch = (request, env) => {
    const headers = new Headers(request.headers);
    headers.set('causeway-version', '99');
    const body = request.method === 'GET' ? {} : { body: request.body, duplex: 'half' as const };
    return app.fetch(new Request(request.url, { method: request.method, headers, ...body }), env);
  };
  later = await startServer(
    { ...controller, app: Object.assign(Object.create(app) as typeof app, { fetch }) },
    { host: '127.0.0.1', port: 0, names: [] },
  );
});
after(async () => {
  await later[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  await controller[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

interface Ground {
  readonly state: string;
  readonly run: string;
}
function ground(): Ground {
  places += 1;
  return { state: join(folder, String(places), 'state'), run: join(folder, String(places), 'run') };
}

const url = (of: RunningServer): string => `https://127.0.0.1:${of.port}`;
const token = async (): Promise<string> => (await createToken(controller.control, { type: 'join' })).token;

class Program {
  readonly child: ChildProcess;
  output = '';

  constructor({ state, run }: Ground, words: readonly string[]) {
    const own = ['--state', state, '--run', run, '--engine', 'none', '--port', '0', '--host', 'a'];
    this.child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program, ...own, ...words], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { PATH: process.env['PATH'] },
    });
    this.child.stderr?.on('data', (bytes) => (this.output += String(bytes)));
  }

  /** Exit status and the error it ends with. */
  async ended(): Promise<{ readonly status: unknown; readonly code: string | undefined; readonly text: string }> {
    const [status] = this.child.exitCode === null ? await once(this.child, 'close') : [this.child.exitCode];
    const text = this.output
      .split('\n')
      .filter((line) => !line.startsWith('{'))
      .join('\n');
    return { status, code: /^Error \((.+?)\)/m.exec(text)?.[1], text };
  }

  async says(what: string): Promise<void> {
    await eventually(
      () => this.output.includes(what) || (this.child.exitCode !== null && assert.fail(this.output)),
      `the agent says: ${what}`,
    );
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const gone = once(this.child, 'close');
    this.child.kill('SIGTERM');
    await gone;
  }
}

const start = (t: TestContext, where: Ground, ...words: readonly string[]): Program => {
  const started = new Program(where, words);
  t.after(() => started.stop());
  return started;
};

/** An agent that has joined and been stopped. */
async function joined(t: TestContext): Promise<Ground> {
  const where = ground();
  const agent = start(t, where, '--join', await token(), '--controller', url(server));
  await agent.says('agent is running');
  await agent.stop();
  return where;
}

const status = v.object({ connected: v.boolean(), synced: v.boolean(), reason: v.optional(v.string()), failing: v.array(v.string()) });
const ask = async ({ run }: Ground, path: string): Promise<unknown> =>
  JSON.parse((await askSocket(join(run, 'agent.sock'), { path, timeoutMs: 30_000 })).text);

/** No namespace, link or table of ours. */
function assertNothingMade(): void {
  const found = ['ip -br link', 'nft list tables', 'ip netns'].map((line) => spawnSync('sh', ['-c', line], { encoding: 'utf8' }).stdout);
  assert.doesNotMatch(found.join(''), /\bcw|causeway/);
}

const hasIdentity = ({ state }: Ground): boolean => existsSync(join(state, 'identity.json'));

test('without a token, a controller or an identity it says how to join', async (t) => {
  const where = ground();
  const { status: exit, code, text } = await start(t, where).ended();
  assert.deepEqual([exit, code, /--join TOKEN --controller URL/.test(text)], [5, 'unauthenticated', true]);
  const second = await start(t, where, '--join', await token()).ended();
  assert.deepEqual([second.status, second.code, hasIdentity(where)], [2, 'invalid', false]);
  assertNothingMade();
});

const tokens: readonly (readonly [string, () => Promise<string>, string, number])[] = [
  ['that is none', () => Promise.resolve('nonsense'), 'invalid', 2],
  ['of another cluster', async () => (await token()).replace(/.{6}$/, '000000'), 'unauthenticated', 5],
  ['with another secret', async () => (await token()).replace(/_[0-9a-z]{6}([0-9a-z]*_[0-9a-f]{64})$/, '_000000$1'), 'unauthenticated', 5],
];
for (const [what, make, code, exit] of tokens) {
  test(`a token ${what} is refused, and there is no identity`, async (t) => {
    const where = ground();
    const end = await start(t, where, '--join', await make(), '--controller', url(server)).ended();
    assert.deepEqual([end.status, end.code, hasIdentity(where)], [exit, code, false], end.text);
  });
}

test('a controller that is not there is unavailable, and joining can be repeated with the same token', async (t) => {
  const where = ground();
  const secret = await token();
  const end = await start(t, where, '--join', secret, '--controller', 'https://127.0.0.1:9').ended();
  assert.deepEqual([end.status, end.code, hasIdentity(where)], [6, 'unavailable', false]);
  const again = start(t, where, '--join', secret, '--controller', url(server));
  await again.says('agent is running');
});

test('a controller of another version is told as such: joining is refused, and the token stays good', async (t) => {
  const where = ground();
  const secret = await token();
  const end = await start(t, where, '--join', secret, '--controller', url(later)).ended();
  assert.deepEqual([end.status, end.code, hasIdentity(where)], [7, 'version', false]);
  const again = start(t, where, '--join', secret, '--controller', url(server));
  await again.says('agent is running');
});

test('an agent that has joined runs on beside a controller of another version, and says why it is alone', async (t) => {
  const where = await joined(t);
  const agent = start(t, where, '--controller', url(later));
  await agent.says('cannot report');
  const said = await until('it to say why', async () => {
    const now = v.parse(status, await ask(where, '/status'));
    return /version/.test(now.reason ?? '') && now;
  });
  assert.deepEqual([said.connected, said.synced, said.failing], [false, false, []]);
});

test('a second agent on one state directory is refused, and the first goes on', async (t) => {
  const where = await joined(t);
  const first = start(t, where);
  await first.says('agent is running');
  const end = await start(t, { ...where, run: `${where.run}-2` }).ended();
  assert.deepEqual([end.status, end.code], [6, 'unavailable']);
  assert.match(end.text, /Try: /);
  assert.equal(first.child.exitCode, null);
  assert.ok(v.is(status, await ask(where, '/status')));
});

test('a corrupt identity is told, with what to do, and stays as it is', async (t) => {
  const where = await joined(t);
  const file = join(where.state, 'identity.json');
  writeFileSync(file, readFileSync(file, 'utf8').slice(0, 100));
  const end = await start(t, where).ended();
  assert.deepEqual([end.status, end.code, readFileSync(file).length], [9, 'corrupt', 100]);
  assert.match(end.text, /Try: .*--join/);
});

const identityOf = ({ state }: Ground): Record<string, unknown> =>
  JSON.parse(readFileSync(join(state, 'identity.json'), 'utf8')) as Record<string, unknown>;

test('an identity of another machine is refused, with what to do', async (t) => {
  const where = await joined(t);
  if (identityOf(where)['machine'] === undefined) {
    t.skip('this machine has no machine-id');
    return;
  }
  writeFileSync(join(where.state, 'identity.json'), JSON.stringify({ ...identityOf(where), machine: 'another' }));
  const end = await start(t, where).ended();
  assert.deepEqual([end.status, end.code], [4, 'stale']);
  assert.match(end.text, /Try: .*empty .*--join TOKEN --host NAME/);
});

test('another token joins again under the same name; the one that was used is not looked at again', async (t) => {
  const where = ground();
  const secret = await token();
  const first = start(t, where, '--join', secret, '--controller', url(server));
  await first.says('agent is running');
  await first.stop();
  const { generation } = identityOf(where);
  const again = start(t, where, '--join', secret);
  await again.says('agent is running');
  await again.stop();
  assert.equal(identityOf(where)['generation'], generation);
  const anew = start(t, where, '--join', await token());
  await anew.says('following the controller');
  await anew.stop();
  assert.equal(identityOf(where)['generation'], Number(generation) + 1);
  const renamed = await start(t, where, '--join', await token(), '--host', 'b').ended();
  assert.deepEqual([renamed.status, renamed.code], [2, 'invalid']);
});

test('a corrupt journal is told, with what to do; --recover sets it aside and goes on', async (t) => {
  const where = await joined(t);
  writeFileSync(join(where.state, 'agent.db'), 'no database, but long enough to be taken for one'.repeat(200));
  const end = await start(t, where).ended();
  assert.deepEqual([end.status, end.code], [9, 'corrupt']);
  assert.match(end.text, /Try: /);
  const agent = start(t, where, '--recover');
  await agent.says('moved aside');
  await agent.says('agent is running');
  assert.equal(readdirSync(where.state).filter((name) => name.startsWith('agent.db.corrupt-')).length, 1);
});

test('a corrupt WireGuard key is told, with what to do, and never overwritten', async (t) => {
  const where = await joined(t);
  const key = join(where.state, 'wireguard.key');
  if (!existsSync(key)) {
    t.skip('neither WireGuard in this kernel nor wireguard-go');
    return;
  }
  writeFileSync(key, 'not a key');
  const end = await start(t, where).ended();
  assert.deepEqual([end.status, end.code, readFileSync(key, 'utf8')], [9, 'corrupt', 'not a key']);
});

/** Writes a file until the disk takes no more, whatever else is written there meanwhile. */
function fill(path: string): void {
  const [fd, block] = [openSync(path, 'w'), Buffer.alloc(4096)];
  try {
    for (;;) writeSync(fd, block);
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
  } finally {
    closeSync(fd);
  }
}

/** Puts the agent's state on a disk of a mebibyte; false, and the test skipped, where nothing may be mounted. */
function giveSmallDisk(t: TestContext, { state }: Ground): boolean {
  mkdirSync(state, { recursive: true });
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', state]).status !== 0) {
    t.skip('may not mount');
    return false;
  }
  t.after(() => spawnSync('umount', ['-l', state]));
  return true;
}

test('on a full disk it does not start, uses up no token, and starts once there is room', async (t) => {
  const where = ground();
  if (!giveSmallDisk(t, where)) return;
  const filler = join(where.state, 'filler');
  fill(filler);
  const secret = await token();
  const end = await start(t, where, '--join', secret, '--controller', url(server)).ended();
  assert.deepEqual([end.status, end.code, hasIdentity(where)], [6, 'unavailable', false], end.text);
  assert.match(end.text, /Try: /);
  rmSync(filler);
  const agent = start(t, where, '--join', secret, '--controller', url(server));
  await agent.says('agent is running');
  await agent.stop();
  assertNothingMade();
});

test('a disk that fills up later stops nothing that runs, and is told', async (t) => {
  const where = ground();
  if (!giveSmallDisk(t, where)) return;
  const agent = start(t, where, '--join', await token(), '--controller', url(server));
  await agent.says('following the controller');
  fill(join(where.state, 'filler'));
  // Enough news to need another page of the journal.
  for (let index = 0; index < 40; index++)
    await createNetwork(controller.control, { type: 'role', role: 'admin', token: 'test' }, { name: `net-${index}` });
  await agent.says('cannot keep what is known of the cluster');
  assert.ok(v.is(status, await ask(where, '/status')));
  rmSync(join(where.state, 'filler'));
});
