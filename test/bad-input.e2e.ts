// What a running installation makes of things that are wrong around it: clocks, certificates, copied machines, full disks,
// damaged files, a lost store. Each is told clearly, with what to do; containers that run notice nothing; and when it is right
// again, everything goes on. host3 has no engine: it is the machine of whoever copies or steals.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { startAgent, startController, stopAgent, stopController } from '#lab/causeway.ts';
import type { Output } from '#lab/command.ts';
import { startDockerd } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import { boxImage, importImages } from '#lab/images.ts';
import { createLab, destroyLab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';
import { type AgentStatus, agentStatus, Bed, entering, healthy, reaches } from './bed.ts';

const name = 'e2e-badinput';
const patience = { timeoutMs: 120_000, intervalMs: 200 };
const state = '/var/lib/causeway';
const cli = join(import.meta.dirname, '..', 'src', 'bin', 'cli.ts');
/** Debian's package faketime. The program reads its clock's error from a file, so that it can change while it runs. */
const faketime = ['x86_64', 'aarch64'].map((cpu) => `/usr/lib/${cpu}-linux-gnu/faketime/libfaketime.so.1`).find((path) => existsSync(path));
const clockFile = '/run/clock-error';
const clock = {
  ...(faketime === undefined ? {} : { LD_PRELOAD: faketime }),
  FAKETIME_TIMESTAMP_FILE: clockFile,
  FAKETIME_CACHE_DURATION: '1',
  FAKETIME_DONT_FAKE_MONOTONIC: '1',
  FAKETIME_DISABLE_SHM: '1',
};
const needsFaketime = faketime === undefined ? 'no faketime' : false;

let bed: Bed;
/** Of the container on host2 that the one on host1 talks to. */
let there: string;

const controllerArguments = (): string[] => ['--san', bed.lab.controller.address];
const runController = async (): Promise<void> => {
  await startController(bed.lab.controller, { arguments: controllerArguments(), env: clock });
  await until('the controller to answer', () => bed.causeway('version').catch(() => undefined), patience);
};
const runAgent = (host: Host, ...words: string[]): Promise<void> =>
  startAgent(host, { arguments: ['--controller', bed.url, ...words], env: clock });
const setClock = (host: Host, error: string): Promise<string> => host.ask(['sh', '-c', `echo '${error}' >${clockFile}`]);

/** `causeway` on the controller's host or another, to whatever end. */
const causeway = (host: Host, ...argv: string[]): Promise<Output> =>
  host.exec([process.execPath, '--disable-warning=ExperimentalWarning', cli, ...argv], { anyStatus: true, env: clock });

const statusWhere = (host: Host, what: string, fits: (status: AgentStatus) => boolean): Promise<AgentStatus> =>
  until(
    `${host.name}: ${what}`,
    async () => {
      const status = await agentStatus(host);
      return fits(status) ? status : undefined;
    },
    patience,
  );
const alone = (host: Host, why: RegExp): Promise<AgentStatus> =>
  statusWhere(host, String(why), ({ connected, reason }) => !connected && why.test(reason ?? ''));

const endpoints = async (): Promise<string[]> =>
  (JSON.parse(await bed.causeway('endpoint', 'ls', '--output', 'json')) as { name: string }[]).map((item) => item.name).sort();
/** Removed, and no longer known to the cluster. */
async function remove(index: number, container: string): Promise<void> {
  await bed.docker(index, ['rm', '--force', container]);
  await until(`${container} to be forgotten`, async () => !(await endpoints()).includes(container), patience);
}
const known = (container: string): Promise<unknown> =>
  until(`${container} to be known`, async () => (await endpoints()).includes(container) || undefined, patience);
const talk = (): Promise<unknown> => reaches(bed.host(1), 'one', there);
const links = (host: Host): Promise<string> =>
  host.ask(['sh', '-c', 'ip -br link | cut -d" " -f1; for n in $(ls /run/netns); do ip -n $n -br link | cut -d" " -f1; done']);
const addressOf = (index: number, container: string): Promise<string> =>
  bed.docker(index, ['inspect', '--format', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}', container]);
const refusedRun = async (index: number, container: string): Promise<string> => {
  const failure = await bed.run(index, container, 'web').then(
    () => assert.fail(`${container} started`),
    (error: unknown) => (error instanceof Error ? error.message : ''),
  );
  await bed.docker(index, ['rm', '--force', container]);
  return failure;
};
const fill = (host: Host): Promise<Output> =>
  host.exec(['sh', '-c', `cat /dev/zero >${state}/filler 2>/dev/null; df ${state} | tail -1 | grep -q ' 0 *100%'`]);
const free = (host: Host): Promise<string> => host.ask(['rm', `${state}/filler`]);

before(async () => {
  await destroyLab(name);
  const lab = await createLab({ name, hosts: 3 });
  bed = new Bed(lab, { name });
  const [one, two] = [bed.host(1), bed.host(2)];
  for (const host of [lab.controller, one, two]) {
    await setClock(host, '+0');
    await host.ask(['mount', '-t', 'tmpfs', '-o', 'size=24m,mode=700', 'tmpfs', state]);
  }
  await Promise.all([
    runController(),
    ...[one, two].map(async (host) => {
      await startDockerd(host);
      await importImages(host, [boxImage]);
    }),
  ]);
  for (const host of [one, two]) await runAgent(host, '--join', await bed.token());
  await Promise.all([healthy(one), healthy(two)]);
  await bed.causeway('network', 'create', 'web');
  for (const index of [1, 2]) {
    await until('the network', async () => (await bed.docker(index, ['network', 'ls'])).includes(' web ') || undefined, patience);
    await bed.run(index, index === 1 ? 'one' : 'two', 'web');
  }
  there = await addressOf(2, 'two');
  await talk();
  await known('two');
});
after(() => bed[Symbol.asyncDispose]());
afterEach(() => talk());

async function restart(host: Host, ...words: string[]): Promise<void> {
  await stopAgent(host);
  await runAgent(host, ...words);
}

test('a clock that is wrong by half a minute harms nobody', { skip: needsFaketime }, async () => {
  for (const error of ['+30', '-30']) {
    await setClock(bed.host(1), error);
    await restart(bed.host(1));
    assert.deepEqual((await healthy(bed.host(1))).failing, []);
  }
});

test('a clock two days ahead is told on the host and by the controller, until it is right', { skip: needsFaketime }, async () => {
  const host = bed.host(1);
  await setClock(host, '+2d');
  await restart(host);
  const { connected, failing } = await statusWhere(host, 'the clock', (status) => status.failing.length > 0);
  assert.equal(connected, true);
  assert.match(failing.join(), /clock of this host is (2 d|1 d 23 h) ahead of the controller's.*timedatectl/);
  const told = await until(
    'the controller to tell',
    async () => {
      const { status, stdout } = await causeway(bed.lab.controller, 'status');
      return stdout.includes('clock') && status;
    },
    patience,
  );
  assert.equal(told, 10);
  await talk();
  await setClock(host, '+0');
  await healthy(host);
  assert.match(host.log('agent'), /the clock is wrong.*\n(.*\n)*.*the clock is right again/);
});

test('a clock two days behind makes certificates unbelievable, and is told to be the reason', { skip: needsFaketime }, async () => {
  const host = bed.host(1);
  await setClock(host, '-2d');
  await restart(host);
  await alone(host, /clock is (2 d|1 d 23 h) behind the controller's.*timedatectl/);
  assert.match(host.log('agent'), /cannot report to the controller.*|behind the controller's/);
  const asked = await causeway(host, 'host', 'ls');
  assert.equal(asked.status, 5);
  assert.match(asked.stderr, /clock is (2 d|1 d 23 h) behind.*\n.*timedatectl/);
  await talk();
  await setClock(host, '+0');
  await healthy(host);
});

test('a certificate that has expired is told as such, with the clock that says so', { skip: needsFaketime }, async () => {
  const [host, { controller }] = [bed.host(1), bed.lab];
  await setClock(controller, '+40d');
  await alone(host, /certificate has expired.*the clock of this controller says.*join again/);
  await bed.run(1, 'meanwhile', 'web');
  await talk();
  await setClock(controller, '+0');
  await healthy(host);
  await known('meanwhile');
  await remove(1, 'meanwhile');
});

/** Asks the controller as whoever has host1's certificate, from host3. The status and the problem's code. */
async function asThief(line: string, headers: Readonly<Record<string, string>> = {}, body?: unknown): Promise<string> {
  const [method = '', path = ''] = line.split(' ');
  const identity = JSON.parse(await bed.host(1).ask(['cat', `${state}/identity.json`])) as { key: string; certificate: string };
  await bed.host(3).ask(['sh', '-c', `umask 77; printf %s '${identity.certificate}' >/run/c.pem; printf %s '${identity.key}' >/run/k.pem`]);
  const words = Object.entries({ 'content-type': 'application/json', ...headers }).flatMap(([key, value]) => ['-H', `${key}: ${value}`]);
  const data = body === undefined ? [] : ['--data-binary', JSON.stringify(body)];
  const curl = ['curl', '-sk', '--cert', '/run/c.pem', '--key', '/run/k.pem', '-X', method, ...words, ...data, '-w', '\n%{http_code}'];
  const text = await bed.host(3).ask([...curl, `${bed.url}${path}`]);
  return `${text.split('\n').at(-1)} ${/"code":"([a-z-]+)"/.exec(text)?.[1] ?? ''}`.trim();
}

test('a stolen certificate opens nothing while its host runs, and the attempt is told', async () => {
  for (const line of ['GET /v1/networks', 'GET /v1/watch', 'PUT /v1/hosts/host1/report', 'DELETE /v1/endpoints/nothing0001']) {
    assert.equal(await asThief(line, {}, line.startsWith('GET') ? undefined : {}), '409 stale', line);
  }
  const address = bed.host(3).address;
  await until(
    'the attempt to be told',
    async () => {
      const { stdout } = await causeway(bed.lab.controller, 'status');
      return stdout.includes(`Another machine (${address})`) || undefined;
    },
    patience,
  );
});

test('a stolen certificate of a thief who also knows the boot id opens what is its host’s, and no more', async () => {
  const boot = { 'causeway-boot': await bed.host(1).ask(['cat', '/proc/sys/kernel/random/boot_id']) };
  const all = JSON.parse(await bed.causeway('endpoint', 'ls', '--output', 'json')) as { id: string; name: string; network: string }[];
  const [mine, other] = ['one', 'two'].map((title) => all.find((item) => item.name === title));
  assert.ok(mine !== undefined && other !== undefined);
  const { id: stolen, revision: _, createdAt: __, ...rest } = other as Record<string, unknown>;
  for (const [line, body, expected] of [
    ['GET /v1/networks', undefined, '200'],
    ['GET /v1/watch?host=host2', undefined, '403 forbidden'],
    ['GET /v1/tokens', undefined, '403 forbidden'],
    ['GET /v1/certificates', undefined, '403 forbidden'],
    ['POST /v1/tokens', { type: 'api', role: 'admin' }, '403 forbidden'],
    ['DELETE /v1/hosts/host2', undefined, '403 forbidden'],
    ['POST /v1/hosts/host2/certificate', { csr: '-----BEGIN ' }, '403 forbidden'],
    [`PUT /v1/endpoints/${other.id}`, { id: stolen, ...rest }, '403 forbidden'],
    [`PUT /v1/endpoints/${other.id}`, { id: stolen, ...rest, host: 'host1' }, '403 forbidden'],
    [`DELETE /v1/endpoints/${other.id}`, undefined, '403 forbidden'],
  ] as const) {
    assert.equal(await asThief(line, boot, body), expected, `${line} ${JSON.stringify(body)}`);
  }
  await healthy(bed.host(1));
  assert.deepEqual(await endpoints(), ['one', 'two']);
});

test('a revoked certificate cuts its host off from changes, not its containers; joining again repairs it', async () => {
  const host = bed.host(1);
  const held = JSON.parse(await bed.causeway('certificate', 'ls', '--output', 'json')) as { host: string; serial: string }[];
  for (const { serial } of held.filter((item) => item.host === 'host1')) await bed.causeway('certificate', 'revoke', serial, '--yes');
  await alone(host, /certificate has been revoked.*Join again with a new token/);
  assert.equal(await asThief('GET /v1/networks'), '401 unauthenticated');
  await until('its log to say it', () => host.log('agent').includes('certificate has been revoked') || undefined, patience);
  await bed.run(1, 'unknown', 'web');
  await talk();
  assert.deepEqual(await endpoints(), ['one', 'two']);
  await restart(host, '--join', await bed.token());
  await healthy(host);
  await known('unknown');
  await remove(1, 'unknown');
});

test('a copied machine is refused where it is started, and the first goes on untouched', async () => {
  const [first, copy] = [bed.host(1), bed.host(3)];
  const listed = await endpoints();
  await stopAgent(first);
  const files = await first.ask(['sh', '-c', `tar -C ${state} -cf - . | base64 -w0`]);
  await runAgent(first);
  const earlier = await healthy(first);
  await copy.ask(['sh', '-c', `base64 -d >/run/copy.tar && tar -C ${state} -xf /run/copy.tar`], { input: files });
  const engineless = ['--engine', 'none', '--plugin', '/run/none.sock'];
  await assert.rejects(runAgent(copy, ...engineless), /identity in \/var\/lib\/causeway is of another machine.*host1(.|\n)*Try: .*empty/);
  await stopAgent(copy);
  // A copy whose machine-id nobody has made anew.
  const id = await first.ask(['cat', '/etc/machine-id']);
  await copy.ask(['sh', '-c', `cp /etc/machine-id /run/own-id; echo ${id} >/etc/machine-id`]);
  await runAgent(copy, ...engineless);
  await alone(copy, /two machines have one identity.*empty its state directory/);
  await stopAgent(copy);
  const now = await healthy(first);
  assert.deepEqual([now.kernelWrites, await endpoints()], [earlier.kernelWrites, listed]);
  await copy.ask(['sh', '-c', `cat /run/own-id >/etc/machine-id; rm -rf ${state}/*`]);
});

test('a name that another machine has is refused, and the machine joins under another one', async () => {
  const [first, second] = [bed.host(1), bed.host(3)];
  const engineless = ['--engine', 'none', '--plugin', '/run/none.sock'];
  const token = await bed.token();
  await assert.rejects(
    runAgent(second, '--join', token, '--host', 'host1', ...engineless),
    /name host1 is taken by another machine(.|\n)*Try: .*--host NAME/,
  );
  await stopAgent(second);
  await healthy(first);
  await runAgent(second, '--join', token, ...engineless);
  await healthy(second);
  assert.deepEqual(
    (JSON.parse(await bed.causeway('host', 'ls', '--output', 'json')) as { name: string }[]).map((host) => host.name).sort(),
    ['host1', 'host2', 'host3'],
  );
  await stopAgent(second);
  await bed.causeway('host', 'remove', 'host3', '--yes');
});

test('who speaks another version is told which', async () => {
  for (const version of ['0', '2', '99', 'x'.repeat(200)]) {
    assert.equal(await asThief('GET /v1/networks', { 'causeway-version': version }), '426 version');
  }
});

test('an underlay address that is gone for a moment takes nothing down', async () => {
  const host = bed.host(1);
  const earlier = await links(host);
  const [address, route] = [
    await host.ask(['sh', '-c', "ip -o -4 addr show eth0 | awk '{print $4}'"]),
    await host.ask(['ip', 'route', 'show', 'default']),
  ];
  await host.ask(['ip', 'addr', 'del', address, 'dev', 'eth0']);
  await until('it to be noticed', () => host.log('agent').includes('the underlay has lost its address') || undefined, patience);
  assert.equal(await links(host), earlier);
  await host.ask(['ip', 'addr', 'add', address, 'dev', 'eth0']);
  if (route !== '') await host.ask(['ip', 'route', 'replace', ...route.split(/\s+/)]);
  await talk();
  await healthy(host);
  assert.equal(await links(host), earlier);
});

test('on a full disk a host takes no container and leaves nothing of it; with room it does', async () => {
  const host = bed.host(2);
  await restart(host);
  await healthy(host);
  const earlier = await links(host);
  await fill(host);
  assert.match(await refusedRun(2, 'crowded'), /disk|no room|full/i);
  assert.deepEqual([await links(host), await endpoints()], [earlier, ['one', 'two']]);
  await talk();
  await free(host);
  await bed.run(2, 'crowded', 'web');
  await known('crowded');
  await remove(2, 'crowded');
  await healthy(host);
});

test('a controller on a full disk says so, changes nothing, and goes on with room', async () => {
  const { controller } = bed.lab;
  await stopController(controller);
  await runController();
  await fill(controller);
  const refused = await until(
    'a refusal',
    async () => {
      const output = await causeway(controller, 'network', 'create', `crowded-${Date.now()}`);
      return output.status === 0 ? undefined : output;
    },
    patience,
  );
  assert.equal(refused.status, 6);
  assert.match(refused.stderr, /disk|no room|full/i);
  const listed = await bed.causeway('network', 'ls', '--output', 'json');
  await talk();
  await free(controller);
  await bed.causeway('network', 'create', 'roomy');
  const now = JSON.parse(await bed.causeway('network', 'ls', '--output', 'json')) as { name: string }[];
  assert.deepEqual(
    now
      .map((network) => network.name)
      .filter((title) => title !== 'roomy')
      .sort(),
    (JSON.parse(listed) as { name: string }[]).map((network) => network.name).sort(),
  );
  for (const { name: title } of now) if (title !== 'web') await bed.causeway('network', 'rm', '--yes', title);
  await healthy(bed.host(1));
});

const copyStore = (): Promise<string> => bed.lab.controller.ask(['sh', '-c', `mkdir -p /run/kept; cp ${state}/controller.db* /run/kept/`]);
async function restoreStore(folder = '/run/kept'): Promise<void> {
  const { controller } = bed.lab;
  await stopController(controller);
  await controller.ask(['sh', '-c', `rm -f ${state}/controller.db*; cp ${folder}/controller.db* ${state}/`]);
  await runController();
}

test('a damaged store keeps the controller from starting and says what to do; hosts go on', async () => {
  const { controller } = bed.lab;
  await stopController(controller);
  await copyStore();
  await controller.ask([
    'sh',
    '-c',
    `rm -f ${state}/controller.db-*; dd if=/dev/urandom of=${state}/controller.db bs=4096 seek=1 count=20 conv=notrunc`,
  ]);
  await startController(controller, { arguments: controllerArguments(), env: clock });
  await until('it to end', () => !controller.isRunning('controller') || undefined, patience);
  assert.match(controller.log('controller'), /^Error \(corrupt\): .*\nTry: .*restore a backup/m);
  await stopController(controller);
  await bed.run(1, 'meanwhile', 'web');
  await talk();
  await restoreStore();
  await known('meanwhile');
  await remove(1, 'meanwhile');
});

test('a store that was replaced by an empty one is not believed, and nothing is taken down', async () => {
  const { controller } = bed.lab;
  await stopController(controller);
  await copyStore();
  await controller.ask(['rm', '-f', `${state}/controller.db`, `${state}/controller.db-wal`, `${state}/controller.db-shm`]);
  await startController(controller, { arguments: controllerArguments(), env: clock });
  const writes = (await agentStatus(bed.host(1))).kernelWrites;
  await alone(bed.host(1), /certificate is not to be trusted.*store replaced, restore its store, or join the hosts again/);
  assert.equal((await agentStatus(bed.host(1))).kernelWrites, writes);
  await talk();
  await restoreStore();
  await healthy(bed.host(1));
});

test('a store restored from a backup that lacks a network takes nothing from its containers, and is told', async () => {
  const { controller } = bed.lab;
  await stopController(controller);
  await copyStore();
  await runController();
  await Promise.all([healthy(bed.host(1)), healthy(bed.host(2))]);
  await bed.causeway('network', 'create', 'newer');
  for (const index of [1, 2]) {
    await until('the network', async () => (await bed.docker(index, ['network', 'ls'])).includes(' newer ') || undefined, patience);
    await bed.run(index, `newer${index}`, 'newer');
  }
  const newer = await addressOf(2, 'newer2');
  const talkToo = (): Promise<unknown> => reaches(bed.host(1), 'newer1', newer);
  await talkToo();
  await controller.ask(['sh', '-c', `mv /run/kept /run/old; mkdir /run/kept`]);
  await stopController(controller);
  await copyStore();
  await restoreStore('/run/old');
  for (const host of [bed.host(1), bed.host(2)]) {
    const loss = /knows network newer .* no more.*restored from an old backup/;
    await statusWhere(host, 'the loss', ({ failing }) => loss.test(failing.join()));
  }
  await talkToo();
  await restart(bed.host(1));
  await statusWhere(bed.host(1), 'to be in step', ({ synced, runs }) => synced && runs > 1);
  await talkToo();
  await restoreStore();
  await Promise.all([healthy(bed.host(1)), healthy(bed.host(2))]);
  await talkToo();
  for (const index of [1, 2]) await bed.docker(index, ['rm', '--force', `newer${index}`]);
});

test('a damaged journal keeps the agent from starting and says what to do; recovered, no container has lost a packet', async () => {
  const [host, listed] = [bed.host(2), await endpoints()];
  await bed.run(2, 'web', 'web', '--publish', '8099:80', '--network-alias', 'front');
  await known('web');
  const stream = bed
    .host(1)
    .exec([...(await entering(bed.host(1), 'one')), 'ping', '-q', '-n', '-i', '0.01', '-c', '1000', there], { anyStatus: true });
  await stopAgent(host);
  await host.ask(['sh', '-c', `rm -f ${state}/agent.db-*; dd if=/dev/urandom of=${state}/agent.db bs=4096 seek=1 count=20 conv=notrunc`]);
  await assert.rejects(runAgent(host), /corrupt(.|\n)*Try: .*--recover/);
  await stopAgent(host);
  await talk();
  await runAgent(host, '--recover');
  await healthy(host);
  await until('endpoints to be taken up', () => host.log('agent').split('took up an endpoint').length > 2 || undefined, patience);
  await statusWhere(host, 'nothing to be wrong', (status) => status.connected && status.docker?.problems.length === 0);
  const { stdout } = await stream;
  assert.match(stdout, /1000 packets transmitted, 1000 received/);
  await until('all to be known', async () => (await endpoints()).join() === [...listed, 'web'].sort().join(), patience);
  const [found] = (JSON.parse(await bed.causeway('endpoint', 'ls', '--output', 'json')) as { name: string }[]).filter(
    (one) => one.name === 'web',
  );
  assert.match(JSON.stringify(found), /"front".*8099/);
  // An address that is in use is not given out again.
  await bed.run(2, 'later', 'web');
  assert.notEqual(await addressOf(2, 'later'), there);
  for (const container of ['web', 'later']) await bed.docker(2, ['rm', '--force', container]);
  await until('only the rest to be left', async () => (await endpoints()).join() === listed.join() || undefined, patience);
  await healthy(host);
});
