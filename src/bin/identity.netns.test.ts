// An agent's certificate over the years: renewed in time, and after it was lost, revoked or expired replaced by joining again.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { type Identity, readIdentity, writeIdentity } from '#agent/identity.ts';
import { eventually } from '#agent/namespaces.fixture.ts';
import { makeIdentity, needsRotation, validityOf } from '#api/identity.ts';
import { recordCertificate, revokeAllOf } from '#controller/certificates.ts';
import { type Controller, openController } from '#controller/controller.ts';
import { silentLog } from '#controller/log.ts';
import { type RunningServer, startServer } from '#controller/server.ts';
import { createToken } from '#controller/tokens.ts';
import { MemoryStore } from '#store/memory.ts';

mustBeIsolated();

const day = 86_400_000;
const store = new MemoryStore();
let controller: Controller;
let server: RunningServer;

before(async () => {
  for (const line of ['link add eth0 type bridge', 'addr add 10.213.0.1/16 dev eth0', 'link set eth0 up']) spawnSync('ip', line.split(' '));
  controller = await openController({ store, log: silentLog, version: '0.0.0' });
  server = await startServer(controller, { host: '127.0.0.1', port: 0, names: [] });
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await controller[Symbol.asyncDispose]();
});

const token = async (): Promise<string> => (await createToken(controller.control, { type: 'join' })).token;

interface Site {
  readonly state: string;
  /** Starts the agent of host `a`, waits until it has said that, and stops it; the log. */
  run(until: string, secret?: string): Promise<string>;
}

function siteOf(t: TestContext): Site {
  const state = mkdtempSync(join(tmpdir(), 'causeway-identity-'));
  t.after(() => rmSync(state, { recursive: true, force: true }));
  const words = ['--state', state, '--run', join(state, 'run'), '--engine', 'none', '--port', '0', '--host', 'a'];
  const run = async (until: string, secret?: string): Promise<string> => {
    const joining = secret === undefined ? [] : ['--join', secret, '--controller', `https://127.0.0.1:${server.port}`];
    const program = join(import.meta.dirname, 'agent.ts');
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program, ...words, ...joining], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { PATH: process.env['PATH'] },
    });
    let output = '';
    child.stderr.on('data', (bytes) => (output += String(bytes)));
    const gone = once(child, 'close');
    try {
      await eventually(() => output.includes(until) || (child.exitCode !== null && assert.fail(output)), `the agent says: ${until}`);
    } finally {
      child.kill('SIGTERM');
      await gone;
    }
    return output;
  };
  return { state, run };
}

const known = ({ state }: Site): Identity => readIdentity(state) ?? assert.fail('there is no identity');

/** Puts a certificate of that age into the place of the one that the host has. */
async function age(site: Site, days: number): Promise<Identity> {
  const identity = known(site);
  const { key, csr } = await makeIdentity(identity.host);
  const { host, generation } = identity;
  const issued = await controller.control.authority.issueHost(csr, { host, generation, now: new Date(Date.now() - days * day) });
  await store.commit([recordCertificate(issued, host, generation)]);
  const aged = { ...identity, key, certificate: issued.certificate };
  writeIdentity(site.state, aged);
  return aged;
}

test('a certificate is left alone while it is young, and renewed when a third of its life is left', async (t) => {
  const site = siteOf(t);
  await site.run('following the controller', await token());
  const young = known(site);
  await site.run('following the controller');
  assert.deepEqual(known(site), young);
  const aged = await age(site, 25);
  assert.ok(needsRotation(aged.certificate, Date.now()));
  await site.run('certificate renewed');
  const renewed = known(site);
  assert.notEqual(renewed.key, aged.key);
  assert.ok(validityOf(renewed.certificate).to > Date.now() + 29 * day);
  assert.doesNotMatch(await site.run('following the controller'), /renew|joining/);
});

test('the token that it was made with may stay; another one joins again, a bad one changes nothing', async (t) => {
  const site = siteOf(t);
  const first = await token();
  await site.run('following the controller', first);
  const earlier = known(site);
  assert.doesNotMatch(await site.run('following the controller', first), /joining/);
  const bad = (await token()).replace(/_[0-9a-z]{6}([0-9a-z]*_[0-9a-f]{64})$/, '_000000$1');
  assert.match(await site.run('following the controller', bad), /going on as the host that joined before/);
  assert.deepEqual(known(site), earlier);
  await site.run('following the controller', await token());
  assert.deepEqual([known(site).host, known(site).generation], ['a', earlier.generation + 1]);
});

test('a host whose certificate has expired, was revoked, or cannot be read joins again with a new token', async (t) => {
  const site = siteOf(t);
  await site.run('following the controller', await token());
  await age(site, 31);
  await site.run('cannot renew the certificate yet');
  await site.run('following the controller', await token());
  await store.commit(revokeAllOf(controller.control, 'a'));
  await site.run('cannot report');
  await site.run('following the controller', await token());
  writeFileSync(join(site.state, 'identity.json'), readFileSync(join(site.state, 'identity.json'), 'utf8').slice(0, 100));
  await site.run('following the controller', await token());
});
