// The real program, the real agent, the real kernel: containers are network namespaces, as a runtime would have made them.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, test, type TestContext } from 'node:test';
import * as v from 'valibot';
import { mustBeIsolated } from '#test/isolated.ts';
import { eventually } from '#agent/namespaces.fixture.ts';
import { type Controller, openController } from '#controller/controller.ts';
import { silentLog } from '#controller/log.ts';
import { createNetwork } from '#controller/networks.ts';
import { type RunningServer, startServer } from '#controller/server.ts';
import { createToken } from '#controller/tokens.ts';
import { buildCni } from '#lab/cni.ts';
import { parseCidr } from '#model/ip.ts';
import { MemoryStore } from '#store/memory.ts';

mustBeIsolated();

const program = join(import.meta.dirname, '..', 'bin', 'agent.ts');
const folder = mkdtempSync(join(tmpdir(), 'causeway-cni-'));
const admin = { type: 'role', role: 'admin', token: 'test' } as const;
let controller: Controller;
let server: RunningServer;
let plugin = '';
let agent: ChildProcess;
let said = '';

function ip(...words: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync('ip', words, { encoding: 'utf8' });
  assert.equal(status, 0, `ip ${words.join(' ')}: ${stderr}`);
  return stdout;
}

/** Starts an agent, and waits until it follows the controller. */
async function startAgent(...more: readonly string[]): Promise<void> {
  const words = ['--state', folder, '--engine', 'none', '--port', '0', '--host', 'a', ...more];
  said = '';
  agent = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program, ...words], { stdio: ['ignore', 'ignore', 'pipe'] });
  agent.stderr?.on('data', (bytes) => (said += String(bytes)));
  await eventually(() => said.includes('agent is running') && said.includes('following the controller'), 'the agent to run', 20_000);
}

async function stopAgent(signal: NodeJS.Signals): Promise<void> {
  const gone = once(agent, 'close');
  agent.kill(signal);
  await gone;
}

before(async () => {
  plugin = await buildCni();
  ip('link', 'add', 'eth0', 'type', 'bridge');
  ip('addr', 'add', '10.213.0.1/16', 'dev', 'eth0');
  ip('link', 'set', 'eth0', 'up');
  controller = await openController({ store: new MemoryStore(), log: silentLog, version: '0.0.0' });
  server = await startServer(controller, { host: '127.0.0.1', port: 0, names: [] });
  const pools = [
    { family: 4 as const, cidr: parseCidr('10.244.0.0/16') },
    { family: 6 as const, cidr: parseCidr('fd44::/64') },
  ];
  await createNetwork(controller.control, admin, { name: 'flat', model: 'flannel', pools });
  await createNetwork(controller.control, admin, { name: 'apart', pools: [{ family: 4, cidr: parseCidr('10.77.0.0/24') }] });
  const { token } = await createToken(controller.control, { type: 'join' });
  await startAgent('--join', token, '--controller', `https://127.0.0.1:${server.port}`);
});
after(async () => {
  await stopAgent('SIGKILL');
  await server[Symbol.asyncDispose]();
  await controller[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const reply = v.object({
  cniVersion: v.optional(v.string()),
  code: v.optional(v.number()),
  ips: v.optional(v.array(v.object({ address: v.string(), version: v.optional(v.string()) })), []),
});

interface Execution {
  readonly command: string;
  readonly container: string;
  readonly netns?: string;
  readonly conf?: Readonly<Record<string, unknown>>;
}

/** Executes the plugin as a runtime does. */
async function execute({ command, container, netns = `/run/netns/${container}`, conf }: Execution) {
  const env = { CNI_COMMAND: command, CNI_CONTAINERID: container, CNI_IFNAME: 'eth0', CNI_NETNS: netns, CNI_PATH: '/opt/cni/bin' };
  const child = spawn(plugin, { env, stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  child.stdin.end(JSON.stringify({ cniVersion: '1.1.0', name: 'flat', type: 'causeway', ...conf }));
  const output = await text(child.stdout);
  const [status]: unknown[] = await ended;
  const json: unknown = output === '' ? {} : JSON.parse(output);
  const { code, ips, cniVersion } = v.parse(reply, json);
  return { status, json, code, cniVersion, ips, addresses: ips.map(({ address }) => address.replace(/\/.*/, '')) };
}

/** An empty network namespace, gone with the test, and what of it. */
function box(t: TestContext, name: string) {
  ip('netns', 'add', name);
  ip('-n', name, 'link', 'set', 'lo', 'up');
  t.after(async () => {
    await execute({ command: 'DEL', container: name });
    spawnSync('ip', ['netns', 'del', name]);
  });
  return {
    add: (conf?: Execution['conf']) => execute({ command: 'ADD', container: name, ...(conf === undefined ? {} : { conf }) }),
    pings: (target: string | undefined): boolean =>
      spawnSync('ip', ['netns', 'exec', name, 'ping', '-n', '-c', '1', '-W', '1', target ?? '']).status === 0,
    links: (): string[] =>
      v.parse(v.array(v.object({ ifname: v.string() })), JSON.parse(ip('-n', name, '-j', 'link'))).map(({ ifname }) => ifname),
  };
}

const pings = (target: string | undefined): boolean => spawnSync('ping', ['-n', '-c', '1', '-W', '1', target ?? '']).status === 0;
const ownLinks = (): string[] => ip('-br', 'link').match(/^cwe\w+/gm) ?? [];

test('two containers reach each other and their host, by both families', async (t) => {
  const [one, two] = [box(t, 'one'), box(t, 'two')];
  const [first, second] = [await one.add(), await two.add()];
  assert.deepEqual([first.status, second.status, first.addresses.length], [0, 0, 2]);
  assert.deepEqual(second.addresses.map(one.pings), [true, true]);
  assert.deepEqual(first.addresses.map(pings), [true, true]);
  assert.equal(one.pings('10.213.0.1'), true);
});

test('a repeated ADD answers the same, also several at once; a CHECK agrees until something is missing', async (t) => {
  const one = box(t, 'one');
  const { json } = await one.add();
  assert.deepEqual(
    (await Promise.all([one.add(), one.add()])).map((again) => again.json),
    [json, json],
  );
  const check = { command: 'CHECK', container: 'one', conf: { prevResult: json } };
  assert.equal((await execute(check)).status, 0);
  ip('-n', 'one', 'route', 'del', 'default');
  assert.deepEqual((await execute(check)).code, 5);
});

test('results in every version', async (t) => {
  const one = box(t, 'one');
  for (const version of ['0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
    const { cniVersion, ips } = await one.add({ cniVersion: version });
    assert.deepEqual(
      [cniVersion, ips.map((address) => address.version)],
      [version, version.startsWith('0') ? ['4', '6'] : [undefined, undefined]],
    );
  }
  assert.equal((await one.add({ cniVersion: '0.2.0' })).code, 1);
});

test('DEL takes the link away before it answers, and succeeds as often as it is asked', async (t) => {
  const one = box(t, 'one');
  await one.add();
  assert.deepEqual(one.links(), ['lo', 'eth0']);
  const del = { command: 'DEL', container: 'one' };
  assert.equal((await execute(del)).status, 0);
  assert.deepEqual([one.links(), ownLinks()], [['lo'], []]);
  assert.equal((await execute(del)).status, 0);
  const { status, addresses } = await one.add();
  assert.deepEqual([status, addresses.map(pings)], [0, [true, true]]);
  ip('netns', 'del', 'one');
  assert.equal((await execute(del)).status, 0);
});

test('where it cannot attach it says so and leaves nothing', async (t) => {
  assert.equal((await execute({ command: 'ADD', container: 'nowhere' })).code, 5);
  const one = box(t, 'one');
  ip('-n', 'one', 'link', 'add', 'eth0', 'type', 'bridge');
  assert.equal((await one.add()).code, 5);
  assert.equal((await one.add({ network: 'nobody' })).code, 3);
  assert.deepEqual([one.links(), ownLinks()], [['lo', 'eth0'], []]);
});

test('GC detaches what the runtime no longer names', async (t) => {
  const [one, two] = [box(t, 'one'), box(t, 'two')];
  await Promise.all([one.add(), two.add()]);
  const valid = [{ containerID: 'two', ifname: 'eth0' }];
  assert.equal((await execute({ command: 'GC', container: '', conf: { 'cni.dev/valid-attachments': valid } })).status, 0);
  assert.deepEqual([one.links(), two.links(), ownLinks().length], [['lo'], ['lo', 'eth0'], 1]);
});

test('an isolated network: its containers reach each other, the host does not reach them', async (t) => {
  const [one, two] = [box(t, 'one'), box(t, 'two')];
  const conf = { name: 'apart' };
  const both = [await one.add(conf), await two.add(conf)];
  assert.deepEqual(
    [both.map(({ status }) => status), one.pings(both[1]?.addresses[0]), pings(both[1]?.addresses[0])],
    [[0, 0], true, false],
  );
  for (const name of ['one', 'two']) await execute({ command: 'DEL', container: name, conf });
});

test('an agent that is away: STATUS says so at once, and ADD waits for it to come back', async (t) => {
  const [one, two] = [box(t, 'one'), box(t, 'two')];
  const { addresses } = await one.add();
  assert.equal((await execute({ command: 'STATUS', container: '' })).status, 0);
  await stopAgent('SIGKILL');
  assert.equal((await execute({ command: 'STATUS', container: '' })).code, 50);
  const waiting = two.add();
  await startAgent();
  assert.deepEqual([(await waiting).status, two.pings(addresses[0])], [0, true]);
});
