// Certificates on a real TLS socket: good, rotated, expired, revoked, of another authority ("stolen" name), of an older
// generation. What is refused is refused with a reason, and the connection is no way around it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { MemoryStore } from '#store/memory.ts';
import { Client } from '#api/client.ts';
import { makeIdentity, needsRotation, validityOf } from '#api/identity.ts';
import { fetchCa, joinCluster, type Joined } from '#api/join-cluster.ts';
import { openBed } from './bed.ts';
import { hostLifeMs, openAuthority } from './ca.ts';
import { listCertificates, revokeCertificate } from './certificates.ts';
import { openController } from './controller.ts';
import { join } from './join.ts';
import { silentLog } from './log.ts';
import { startServer } from './server.ts';
import { createToken } from './tokens.ts';

const clientOf = (urls: readonly string[], joined: Pick<Joined, 'ca' | 'certificate' | 'key'>): Client =>
  new Client({ urls, ca: joined.ca, credentials: { type: 'certificate', certificate: joined.certificate, key: joined.key }, retries: 0 });

test('only certificates of the own authority, of the present generation, neither expired nor revoked', async (t) => {
  await using store = new MemoryStore();
  await using controller = await openController({ store, log: silentLog, version: '0.0.0' });
  await using server = await startServer(controller, { host: '127.0.0.1', port: 0, names: ['controller.example'] });
  const urls = [`https://127.0.0.1:${server.port}`];
  const { control } = controller;
  const newToken = async (): Promise<string> => (await createToken(control, { type: 'join' })).token;
  const joinOver = async (host: string): Promise<Joined> => joinCluster({ urls, token: await newToken(), host, version: '0.0.0' });
  const refused = async (joined: Pick<Joined, 'ca' | 'certificate' | 'key'>, code: 'unauthenticated' | 'stale'): Promise<void> => {
    await using client = clientOf(urls, joined);
    await assert.rejects(client.get('hosts', 'a'), (error) => isFault(error, code));
  };
  const first = await joinOver('a');

  await t.test('a good one, also on a resumed TLS session', async () => {
    for (let round = 0; round < 3; round++) {
      await using client = clientOf(urls, first);
      assert.equal((await client.get('hosts', 'a')).generation, 1);
    }
  });
  await t.test('one that was rotated, and the old one until it ends', async () => {
    await using client = clientOf(urls, first);
    const { key, csr } = await makeIdentity('a');
    const { certificate } = await client.rotate('a', csr);
    client.useCredentials({ type: 'certificate', certificate, key });
    assert.equal((await client.get('hosts', 'a')).name, 'a');
    const { from, to } = validityOf(certificate);
    assert.ok(!needsRotation(certificate, Date.now()) && needsRotation(certificate, from + (to - from) * 0.7));
  });
  await t.test('one that expired', async () => {
    const { key, csr } = await makeIdentity('a');
    const past = new Date(Date.now() - hostLifeMs - 60_000);
    const { certificate } = await control.authority.issueHost(csr, { host: 'a', generation: 1, now: past });
    await refused({ ca: first.ca, certificate, key }, 'unauthenticated');
  });
  await t.test('one of another authority under the same name', async () => {
    await using elsewhere = new MemoryStore();
    const { key, csr } = await makeIdentity('a');
    const foreign = await (await openAuthority(elsewhere, new Date())).issueHost(csr, { host: 'a', generation: 1, now: new Date() });
    await refused({ ca: first.ca, certificate: foreign.certificate, key }, 'unauthenticated');
  });
  await t.test("the controller's own", async () => {
    const own = await control.authority.issueServer(['localhost'], new Date());
    await refused({ ca: first.ca, certificate: own.certificate, key: own.key }, 'unauthenticated');
  });
  await t.test('one that was revoked, on a connection that is open', async () => {
    const joined = await joinOver('b');
    await using client = clientOf(urls, joined);
    assert.equal((await client.get('hosts', 'b')).name, 'b');
    const { token } = await createToken(control, { type: 'api', role: 'admin' });
    await using admin = new Client({ urls, ca: joined.ca, credentials: { type: 'token', token } });
    const held = (await admin.certificates()).find(({ host }) => host === 'b');
    await admin.revokeCertificate(held?.serial ?? '');
    await assert.rejects(
      (async () => {
        for (;;) await client.get('hosts', 'b');
      })(),
      (error) => isFault(error, 'unauthenticated'),
    );
  });
  await t.test('one of an older generation: two machines with one name', async () => {
    const second = await joinOver('a');
    assert.equal(second.host.generation, 2);
    assert.equal(second.host.index, first.host.index);
    await refused(first, 'stale');
    await using client = clientOf(urls, second);
    assert.equal((await client.get('hosts', 'a')).generation, 2);
  });
  await t.test('one of a removed host, also after the name has joined again', async () => {
    const joined = await joinOver('c');
    const { token } = await createToken(control, { type: 'api', role: 'operator' });
    await using operator = new Client({ urls, ca: joined.ca, credentials: { type: 'token', token } });
    await operator.remove('hosts', 'c');
    await refused(joined, 'unauthenticated');
    assert.equal((await joinOver('c')).host.generation, 2);
    await refused(joined, 'stale');
  });
  await t.test('a client that trusts another authority refuses the controller', async () => {
    await using elsewhere = new MemoryStore();
    const other = await openAuthority(elsewhere, new Date());
    await using client = new Client({ urls, ca: other.certificate, retries: 0 });
    await assert.rejects(client.version(), (error) => isFault(error, 'unauthenticated'));
    await assert.rejects(fetchCa(urls[0] ?? '', other.fingerprint), (error) => isFault(error, 'unauthenticated'));
  });
  await t.test('a name that the controller was told by option', async () => {
    assert.ok((await control.authority.issueServer(['controller.example'], new Date())).certificate.length > 0);
    assert.equal(
      (await fetchCa(`https://localhost:${server.port}`, control.authority.fingerprint)).replaceAll('\n', ''),
      first.ca.replaceAll('\n', ''),
    );
  });
});

const refuses = (attempt: Promise<unknown>, code: 'unauthenticated' | 'forbidden'): Promise<void> =>
  assert.rejects(attempt, (error) => isFault(error, code));

test('a join token makes one host, once, in time, and only the one it names', async () => {
  let now = Date.now();
  await using store = new MemoryStore();
  await using controller = await openController({ store, log: silentLog, version: '0.0.0', now: () => new Date(now) });
  const { control } = controller;
  const ask = async (token: string, host: string, csr?: string): Promise<number> =>
    (await join(control, { token, host, csr: csr ?? (await makeIdentity(host)).csr, version: '0.0.0' })).host.generation;
  const { token } = await createToken(control, { type: 'join' });
  const { csr } = await makeIdentity('a');
  assert.equal(await ask(token, 'a', csr), 1);
  assert.equal(await ask(token, 'a', csr), 1, 'the same request again, because the answer got lost');
  await refuses(ask(token, 'a'), 'unauthenticated');
  await refuses(ask(token, 'b'), 'unauthenticated');
  assert.equal(await ask((await createToken(control, { type: 'join' })).token, 'a'), 2);
  await refuses(ask(token, 'a', csr), 'unauthenticated');
  const bound = await createToken(control, { type: 'join', host: 'b' });
  await refuses(ask(bound.token, 'c'), 'forbidden');
  assert.equal(await ask(bound.token, 'b'), 1);
  const late = await createToken(control, { type: 'join', ttlSeconds: 60 });
  now += 61_000;
  await refuses(ask(late.token, 'c'), 'unauthenticated');
  const contested = await createToken(control, { type: 'join' });
  const outcomes = await Promise.allSettled([ask(contested.token, 'x'), ask(contested.token, 'y')]);
  assert.deepEqual(outcomes.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected']);
});

test('a used join token brings back no certificate that was revoked', async () => {
  await using bed = await openBed();
  const { control } = bed.controller;
  const { token } = await createToken(control, { type: 'join' });
  const { csr } = await makeIdentity('a');
  const again = (): ReturnType<typeof join> => join(control, { token, host: 'a', csr, version: '0.0.0' });
  await again();
  await bed.settled();
  await revokeCertificate(control, listCertificates(control)[0]?.serial ?? '');
  await bed.settled();
  await refuses(again(), 'unauthenticated');
});
