// The commands against a real controller over TLS, with its state in memory: what the fake client cannot show.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Client } from '#api/client.ts';
import { type Controller, openController } from '#controller/controller.ts';
import { silentLog } from '#controller/log.ts';
import { type RunningServer, startServer } from '#controller/server.ts';
import { createToken } from '#controller/tokens.ts';
import { MemoryStore } from '#store/memory.ts';
import { run, type Run } from './run.fixture.ts';
import type { Surroundings } from './session.ts';

let controller: Controller;
let server: RunningServer;
let token: string;

before(async () => {
  controller = await openController({ store: new MemoryStore(), log: silentLog, version: '0.1.0' });
  server = await startServer(controller, { host: '127.0.0.1', port: 0, names: [] });
  ({ token } = await createToken(controller.control, { type: 'api', role: 'admin' }));
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await controller[Symbol.asyncDispose]();
});

const connect: Surroundings['connect'] = async ({ url, others = [], ca, token: secret = '' }) =>
  new Client({ urls: [url, ...others], ca, credentials: { type: 'token', token: secret }, retries: others.length });

const causeway = (line: string | readonly string[], changes: { token?: string; input?: string } = {}): Promise<Run> =>
  run(line, {
    connect,
    now: () => new Date(),
    environment: { url: `https://127.0.0.1:${server.port}`, ca: controller.control.authority.certificate, token: changes.token ?? token },
    ...(changes.input === undefined ? {} : { input: changes.input }),
  });

test('commands go on while the first of several controllers is down', async () => {
  const environment = {
    // Nothing ever listens on port 1 of the loopback interface.
    url: `https://127.0.0.1:1,https://127.0.0.1:${server.port}`,
    ca: controller.control.authority.certificate,
    token,
  };
  const made = await run('tenant create several', { connect, environment });
  assert.deepEqual([made.status, made.err], [0, '']);
  const removed = await run('tenant rm several', { connect, environment });
  assert.deepEqual([removed.status, removed.err], [0, '']);
});

/** The answer as JSON; fails when the command does. */
async function json(line: string): Promise<unknown> {
  const { status, out, err } = await causeway(`${line} -o json`);
  assert.equal(err, '', line);
  assert.equal(status, 0, line);
  return JSON.parse(out);
}

async function fault(line: string, changes: { token?: string } = {}): Promise<readonly [number, string, string | undefined]> {
  const { status, err } = await causeway(`${line} -o json`, changes);
  const { error } = JSON.parse(err);
  return [status, error.code, error.field];
}

test('a network from its making to its removal', async () => {
  const made = (await json('network create life --label a=b')) as { id: string; pools: { cidr: string }[] };
  assert.match(made.pools[0]?.cidr ?? '', /^10\..*\/[0-9]+$/);
  assert.match((await causeway('network ls')).out, /^life +overlay +default +\d+ +no +10\./m);
  assert.match((await causeway('network show life')).out, /^Labels: +a=b$/m);
  assert.match((await causeway('network edit life --mtu 1300 --attachable')).out, /^Changed/);
  assert.match((await causeway('network show life')).out, /^MTU: +at most 1300$/m);
  assert.match((await causeway('network edit life --mtu none --name lives')).out, /^Changed network lives/);
  assert.match((await causeway('pool add lives 10.99.0.0/24 --reserve nas=10.99.0.9')).out, /^Added 10\.99\.0\.0\/24/);
  const pools = (await json('pool ls --network lives')) as { id: string; cidr: string }[];
  assert.equal(pools.length, 2);
  assert.match((await causeway(`pool rm ${pools.find(({ cidr }) => cidr === '10.99.0.0/24')?.id}`)).out, /^Removed/);
  assert.equal((await causeway('network rm lives')).out, 'Removed network lives\n');
  assert.deepEqual(await json('network ls'), []);
});

test('encrypted is carried by WireGuard, whatever way it is asked for', async () => {
  for (const line of ['network create secret --encrypted', 'network create secret --carry wireguard']) {
    const { choices, encrypted } = (await json(line)) as { choices: { carry: string }; encrypted: boolean };
    assert.deepEqual([choices.carry, encrypted], ['wireguard', true], line);
    assert.match((await causeway('explain network secret')).out, /WireGuard authentication tag/);
    await json('network rm secret');
  }
});

test('explanations hold for every model before any host has joined', async () => {
  for (const options of [
    '',
    '--model flannel',
    '--model flannel --carry host-gateway',
    '--model flannel --carry direct-routing',
    '--ipv6',
  ]) {
    await json(`network create explained ${options}`.trim());
    const { status, err } = await causeway('explain network explained --host');
    assert.deepEqual([status, err], [0, ''], options);
    await json('network rm explained');
  }
});

test('exposures', async () => {
  await json('network create open');
  assert.match(
    (await causeway('expose open front 80 --host-port 8080 --from 192.0.2.0/24')).out,
    /^Exposed front:80\/tcp of network open as port 8080/,
  );
  assert.match((await causeway('exposure ls')).out, /front-8080-tcp +open +front:80\/tcp +- +8080 +192\.0\.2\.0\/24/);
  assert.equal((await causeway('status')).status, 10, 'an exposure without a container is a problem');
  await json('exposure rm front-8080-tcp');
  await json('network rm open');
  assert.equal((await causeway('status')).status, 0);
});

test('what get prints apply takes, and what is so already stays', async () => {
  await json('tenant create shop');
  await json('network create front --tenant shop --subnet 10.77.0.0/16 --gateway 10.77.0.1 --reserve nas=10.77.0.9 --mtu 1400');
  await json('network create back --encrypted --ipv6');
  await json('network create flat --model flannel');
  await json('expose front web 80');
  const { out } = await causeway('get');
  const again = await causeway('apply -f -', { input: out });
  assert.equal(again.err, '');
  assert.ok(
    again.out
      .trim()
      .split('\n')
      .every((line) => line.endsWith(': unchanged')),
    again.out,
  );
  assert.match((await causeway('apply -f -', { input: out.replace('hostPort: 80', 'hostPort: 81') })).out, /exposure .*: changed/);
  assert.equal((await causeway('network rm front back flat')).status, 0);
  assert.equal((await causeway('apply -f -', { input: out })).status, 0);
  assert.equal((await causeway('get')).out, out);
  await causeway('network rm front back flat');
  await json('tenant rm shop');
});

test('tokens and roles', async () => {
  const { token: viewer, id } = (await json('token create --role viewer --ttl 1h --name x')) as { token: string; id: string };
  assert.equal((await causeway('network ls', { token: viewer })).status, 0);
  assert.deepEqual(await fault('network create nope', { token: viewer }), [5, 'forbidden', undefined]);
  assert.match((await causeway('token ls')).out, /viewer/);
  await json(`token rm ${id}`);
  assert.deepEqual((await fault('network ls', { token: viewer })).slice(0, 2), [5, 'unauthenticated']);
  const joining = await causeway('token create --join --host node-a');
  assert.match(joining.out, /For: +joining node-a\n/);
  assert.deepEqual(await json('certificate ls'), []);
});

test('what is refused says so with code, status and field', async () => {
  await json('network create taken --subnet 10.88.0.0/24');
  const rows: readonly (readonly [string, number, string, string | undefined])[] = [
    ['network create taken', 4, 'exists', 'name'],
    ['network create over --subnet 100.127.0.0/24', 4, 'overlap', 'pools[0].cidr'],
    ['network create twice --subnet 10.1.0.0/16 --subnet 10.1.2.0/24', 4, 'overlap', 'pools[1].cidr'],
    ['network create x --tenant nobody', 3, 'not-found', 'tenant'],
    ['network create x --vni 4096 --vni 5000 --carry host-gateway', 2, 'invalid', 'carry'],
    ['network create a/b', 2, 'invalid', 'name'],
    ['network show nope', 3, 'not-found', undefined],
    ['host remove nope', 3, 'not-found', undefined],
    ['tenant rm default', 5, 'forbidden', undefined],
    ['pool add taken 10.88.0.0/25', 4, 'overlap', 'cidr'],
  ];
  for (const [line, status, code, field] of rows) {
    const found = await fault(line);
    assert.deepEqual([found[0], found[1]], [status, code], line);
    if (field !== undefined) assert.equal(found[2], field, line);
  }
  await json('network rm taken');
});

test('version and completion', async () => {
  assert.match((await causeway('version')).out, /^Controller: +0\.1\.0 at https:/m);
  await json('network create complete-me');
  assert.equal((await causeway(['__complete', 'network', 'show', 'comp'])).out, 'complete-me\n');
  await json('network rm complete-me');
});

test('a controller that speaks another version of the protocol says which, whether it is older or newer', async (t) => {
  for (const spoken of ['0', '99']) {
    const { app } = controller;
    const fetch: typeof app.fetch = (request, env) => {
      const headers = new Headers(request.headers);
      // As the other side would see what this one speaks.
      headers.set('causeway-version', spoken);
      return app.fetch(new Request(request.url, { headers }), env);
    };
    const other = await startServer(
      { ...controller, app: Object.assign(Object.create(app) as typeof app, { fetch }) },
      { host: '127.0.0.1', port: 0, names: [] },
    );
    t.after(() => other[Symbol.asyncDispose]());
    const environment = { url: `https://127.0.0.1:${other.port}`, ca: controller.control.authority.certificate, token };
    for (const line of ['network ls', 'host ls', 'status', 'version']) {
      const { status, err, out } = await run(line, { connect, now: () => new Date(), environment });
      assert.deepEqual([line, status, out], [line, 7, '']);
      assert.match(err, /^Error \(version\): .*speaks version 1 .*\n(.*\n)?Try: .*same release/);
    }
  }
});

test('another authority is not trusted', async () => {
  const { status, err } = await run('network ls', { connect, environment: { url: `https://127.0.0.1:${server.port}`, token } });
  assert.equal(status, 5);
  assert.match(err, /^Error \(unauthenticated\)/);
});
