// The real program, the real agent, the real kernel: containers are network namespaces, as a runtime would have made them.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '#agent/namespaces.fixture.ts';
import { until } from '#lab/until.ts';
import { mustBeIsolated } from '#test/isolated.ts';
import { type Answer, CniBed, ip, ownLinks, pings } from '#test/cni-bed.ts';

mustBeIsolated();
let bed: CniBed;
before(async () => {
  bed = await CniBed.start();
});
after(() => bed[Symbol.asyncDispose]());

test('two containers reach each other and their host, by both families', async (t) => {
  const [one, two] = [bed.box(t, 'one'), bed.box(t, 'two')];
  const [first, second] = [await one.add(), await two.add()];
  assert.deepEqual([first.status, second.status, first.addresses.length], [0, 0, 2]);
  assert.deepEqual(second.addresses.map(one.pings), [true, true]);
  assert.deepEqual(first.addresses.map(pings), [true, true]);
  assert.equal(one.pings('10.213.0.1'), true);
});

test('a repeated ADD answers the same, also several at once; a CHECK agrees until something is missing', async (t) => {
  const one = bed.box(t, 'one');
  const { json } = await one.add();
  assert.deepEqual(
    (await Promise.all([one.add(), one.add()])).map((again) => again.json),
    [json, json],
  );
  const check = { command: 'CHECK', container: 'one', conf: { prevResult: json } };
  assert.equal((await bed.execute(check)).status, 0);
  ip('-n', 'one', 'route', 'del', 'default');
  assert.deepEqual((await bed.execute(check)).code, 5);
});

const versions = ['0.3.1', '0.4.0', '1.0.0', '1.1.0'];
for (const cniVersion of versions) {
  test(`a container's whole life in version ${cniVersion}`, async (t) => {
    const one = bed.box(t, 'one');
    const { status, json, ips, addresses, ...said } = await one.add({ cniVersion });
    assert.deepEqual([status, said.cniVersion], [0, cniVersion]);
    const families = cniVersion.startsWith('0') ? ['4', '6'] : [undefined, undefined];
    assert.deepEqual([ips.map(({ version }) => version), addresses.map(pings)], [families, [true, true]]);
    const later = { container: 'one', conf: { cniVersion, prevResult: json } };
    assert.equal((await bed.execute({ ...later, command: 'CHECK' })).code, cniVersion === '0.3.1' ? 1 : undefined);
    const since = cniVersion === '1.1.0' ? undefined : 1;
    assert.equal((await bed.execute({ command: 'STATUS', container: '', conf: { cniVersion } })).code, since);
    const valid = [{ containerID: 'one', ifname: 'eth0' }];
    assert.equal(
      (await bed.execute({ command: 'GC', container: '', conf: { cniVersion, 'cni.dev/valid-attachments': valid } })).code,
      since,
    );
    assert.deepEqual([(await bed.execute({ ...later, command: 'DEL' })).status, one.links()], [0, ['lo']]);
  });
}

test('VERSION tells those that are spoken; others are refused by their number', async (t) => {
  const { json } = await bed.execute({ command: 'VERSION', container: '' });
  assert.deepEqual(json, { cniVersion: '1.1.0', supportedVersions: versions });
  const one = bed.box(t, 'one');
  for (const cniVersion of ['0.2.0', '1.2.0', 'x']) assert.equal((await one.add({ cniVersion })).code, 1);
  assert.deepEqual(one.links(), ['lo']);
});

/** A plugin of Debian's, executed as the runtime executes ours. */
function others(type: string, command: string, conf: Readonly<Record<string, unknown>>): unknown {
  const env = { CNI_COMMAND: command, CNI_CONTAINERID: 'one', CNI_NETNS: '/run/netns/one', CNI_IFNAME: 'eth0', CNI_PATH: '/usr/lib/cni' };
  const input = JSON.stringify({ cniVersion: '1.0.0', name: 'flat', type, ...conf });
  const { status, stdout } = spawnSync(join('/usr/lib/cni', type), { env, input, encoding: 'utf8' });
  assert.equal(status, 0, stdout);
  return stdout === '' ? undefined : JSON.parse(stdout);
}
const skip = existsSync('/usr/lib/cni/tuning') ? false : 'missing: containernetworking-plugins';

test('before a plugin of others in a chain, and after one', { skip }, async (t) => {
  const one = bed.box(t, 'one');
  const conf = { cniVersion: '1.0.0' };
  const first = await one.add({ ...conf, prevResult: others('loopback', 'ADD', {}) });
  assert.deepEqual(
    [first.status, first.addresses.includes('127.0.0.1'), first.addresses.map(one.pings)],
    [0, true, [true, true, true, true]],
  );
  const sysctl = { 'net.ipv4.conf.eth0.log_martians': '1' };
  const whole = others('tuning', 'ADD', { sysctl, prevResult: first.json });
  assert.deepEqual(whole, first.json);
  assert.equal((await bed.execute({ command: 'CHECK', container: 'one', conf: { ...conf, prevResult: whole } })).status, 0);
  others('tuning', 'CHECK', { sysctl, prevResult: whole });
  others('tuning', 'DEL', { sysctl, prevResult: whole });
  assert.equal((await bed.execute({ command: 'DEL', container: 'one', conf: { ...conf, prevResult: whole } })).status, 0);
  assert.deepEqual(one.links(), ['lo']);
});

/** What answers at that port, asked from the host itself. */
const answered = (address: string, port: number): string =>
  spawnSync('socat', ['-u', `TCP:${address}:${port},connect-timeout=2`, 'STDOUT'], { encoding: 'utf8', timeout: 10_000 }).stdout.trim();

test('what a runtime asks by capabilities is in the container, on the host and in the result', async (t) => {
  const one = bed.box(t, 'one');
  const { addresses } = await one.add();
  await bed.execute({ command: 'DEL', container: 'one' });
  const wanted = (addresses[0] ?? '').replace(/\d+$/, '77');
  ip('addr', 'add', '10.213.0.2/16', 'dev', 'eth0');
  t.after(() => ip('addr', 'del', '10.213.0.2/16', 'dev', 'eth0'));
  const mapping = { hostPort: 18_080, containerPort: 8080, protocol: 'tcp', hostIP: '10.213.0.1' };
  const dns = { servers: ['10.96.0.10'], searches: ['shop.svc'], options: ['ndots:5'] };
  const runtimeConfig = { ips: [`${wanted}/16`], mac: '0a:00:00:00:00:07', portMappings: [mapping], aliases: ['web'], dns };
  const answer = await one.add({ runtimeConfig });
  assert.deepEqual([answer.msg, answer.addresses], ['', [wanted]]);
  assert.match(ip('-n', 'one', '-o', 'link', 'show', 'eth0'), /link\/ether 0a:00:00:00:00:07/);
  assert.match(JSON.stringify(answer.json), /"dns":\{"nameservers":\["10\.96\.0\.10"\],"search":\["shop\.svc"\],"options":\["ndots:5"\]\}/);
  const server = spawn('ip', ['netns', 'exec', 'one', 'socat', 'TCP-LISTEN:8080,fork,reuseaddr', 'SYSTEM:echo here']);
  t.after(() => server.kill('SIGKILL'));
  await eventually(() => answered(wanted, 8080) === 'here', 'the container to answer');
  assert.deepEqual([answered('10.213.0.1', 18_080), answered('10.213.0.2', 18_080)], ['here', '']);
});

test('a pod in a user namespace of its own (hostUsers: false) is attached as any other', async (t) => {
  const [two, other] = ['owned', bed.box(t, 'other')];
  const owner = spawn('unshare', ['--user', '--map-root-user', '--net', 'sh', '-c', 'echo there; exec sleep 600']);
  t.after(() => owner.kill('SIGKILL'));
  await once(owner.stdout, 'data');
  ip('netns', 'attach', two, String(owner.pid));
  t.after(() => ip('netns', 'del', two));
  const { addresses } = await other.add();
  const answer = await bed.execute({ command: 'ADD', container: two });
  assert.deepEqual([answer.msg, answer.status, answer.addresses.length], ['', 0, 2]);
  assert.deepEqual([...answer.addresses.map(other.pings), ...answer.addresses.map(pings)], [true, true, true, true]);
  const inside = ['--target', String(owner.pid), '--user', '--net', 'ping', '-n', '-c', '1', '-i', '0.2', '-w', '5'];
  for (const address of addresses) assert.equal(spawnSync('nsenter', [...inside, address]).status, 0, address);
  assert.equal((await bed.execute({ command: 'CHECK', container: two, conf: { prevResult: answer.json } })).status, 0);
  assert.equal((await bed.execute({ command: 'DEL', container: two })).status, 0);
  assert.deepEqual(ip('-n', two, '-br', 'link').match(/^eth0/m), null);
});

test('DEL takes the link away before it answers, and succeeds as often as it is asked', async (t) => {
  const one = bed.box(t, 'one');
  await one.add();
  assert.deepEqual(one.links(), ['lo', 'eth0']);
  const del = { command: 'DEL', container: 'one' };
  assert.equal((await bed.execute(del)).status, 0);
  assert.deepEqual([one.links(), ownLinks()], [['lo'], []]);
  assert.equal((await bed.execute(del)).status, 0);
  const { status, addresses } = await one.add();
  assert.deepEqual([status, addresses.map(pings)], [0, [true, true]]);
  ip('netns', 'del', 'one');
  assert.equal((await bed.execute(del)).status, 0);
});

test('where it cannot attach it says so and leaves nothing', async (t) => {
  assert.equal((await bed.execute({ command: 'ADD', container: 'nowhere' })).code, 5);
  const one = bed.box(t, 'one');
  ip('-n', 'one', 'link', 'add', 'eth0', 'type', 'bridge');
  assert.equal((await one.add()).code, 5);
  assert.equal((await one.add({ network: 'nobody' })).code, 3);
  assert.deepEqual([one.links(), ownLinks()], [['lo', 'eth0'], []]);
});

test('a namespace that goes in the middle of an ADD: it says so or is in time, and DEL leaves nothing either way', async (t) => {
  const codes = new Set<number | undefined>();
  for (let round = 0; round < 12; round++) {
    ip('netns', 'add', 'fleeting');
    const adding = bed.execute({ command: 'ADD', container: 'fleeting' });
    await delay(round * 2);
    ip('netns', 'del', 'fleeting');
    codes.add((await adding).code);
    assert.equal((await bed.execute({ command: 'DEL', container: 'fleeting' })).status, 0);
    assert.deepEqual([ownLinks(), bed.status().addresses], [[], 0]);
  }
  assert.deepEqual(
    [...codes].filter((code) => code !== undefined && code !== 5),
    [],
  );
  assert.equal((await bed.box(t, 'one').add()).status, 0);
});

test('a network whose addresses are all given says so by STATUS, until one is given back', async (t) => {
  const conf = { name: 'small' };
  const status = () => bed.execute({ command: 'STATUS', container: '', conf });
  const boxes = [];
  for (let number = 0; ; number++) {
    const { code } = await bed.box(t, `small${number}`).add(conf);
    if (code === 101) break;
    assert.deepEqual([code, (await status()).status], [undefined, 0]);
    boxes.push(`small${number}`);
  }
  assert.ok(boxes.length > 0);
  const { code, msg } = await status();
  assert.equal(code, 50);
  assert.match(msg, /^Network small has no free address on \w+ \(10\.78\.0\.0\/29\)$/);
  assert.equal((await bed.execute({ command: 'DEL', container: boxes[0] ?? '', conf })).status, 0);
  assert.equal((await status()).status, 0);
  for (const container of boxes) await bed.execute({ command: 'DEL', container, conf });
});

test('GC detaches what the runtime no longer names', async (t) => {
  const [one, two] = [bed.box(t, 'one'), bed.box(t, 'two')];
  await Promise.all([one.add(), two.add()]);
  const valid = [{ containerID: 'two', ifname: 'eth0' }];
  assert.equal((await bed.execute({ command: 'GC', container: '', conf: { 'cni.dev/valid-attachments': valid } })).status, 0);
  assert.deepEqual([one.links(), two.links(), ownLinks().length], [['lo'], ['lo', 'eth0'], 1]);
});

test('an isolated network: its containers reach each other, the host does not reach them', async (t) => {
  const [one, two] = [bed.box(t, 'one'), bed.box(t, 'two')];
  const conf = { name: 'apart' };
  const both = [await one.add(conf), await two.add(conf)];
  assert.deepEqual(
    [both.map(({ status }) => status), one.pings(both[1]?.addresses[0]), pings(both[1]?.addresses[0])],
    [[0, 0], true, false],
  );
  for (const name of ['one', 'two']) await bed.execute({ command: 'DEL', container: name, conf });
});

/** As if no STATUS had gone well for longer than that counts. */
function forgetReadiness(): void {
  const longAgo = Date.now() / 1000 - 121;
  utimesSync('/run/causeway/cni.ready', longAgo, longAgo);
}

test('an agent that does not answer holds no runtime up that asks for STATUS', async (t) => {
  const status = () => bed.execute({ command: 'STATUS', container: '' });
  await until('the agent to be ready', async () => (await status()).status === 0, { timeoutMs: 60_000 });
  bed.signalAgent('SIGSTOP');
  t.after(() => bed.signalAgent('SIGCONT'));
  assert.equal((await status()).status, 0);
  forgetReadiness();
  const { code, msg } = await status();
  assert.deepEqual([code, msg], [50, 'The Causeway agent has not answered in time']);
  bed.signalAgent('SIGCONT');
  // What was asked before is answered first, to nobody.
  await until('the agent to answer', async () => (await status()).status === 0, { timeoutMs: 60_000 });
});

test('an agent that is away: STATUS says so at once when it has been for long, and ADD waits for it to come back', async (t) => {
  const [one, two] = [bed.box(t, 'one'), bed.box(t, 'two')];
  const { addresses } = await one.add();
  assert.equal((await bed.execute({ command: 'STATUS', container: '' })).status, 0);
  await bed.stopAgent('SIGKILL');
  assert.equal((await bed.execute({ command: 'STATUS', container: '' })).status, 0, 'one that is replaced is no reason');
  forgetReadiness();
  assert.equal((await bed.execute({ command: 'STATUS', container: '' })).code, 50);
  // Where an agent needs longer than it is waited for, runtimes are told to try again later (11).
  const adding = async (): Promise<Answer> => {
    const answer = await two.add();
    return answer.code === 11 ? await adding() : answer;
  };
  const waiting = adding();
  await bed.startAgent();
  assert.deepEqual([(await waiting).status, two.pings(addresses[0])], [0, true]);
});
