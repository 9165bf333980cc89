import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { faults, keysOf, put, range, remove, Watcher } from './contract-fixture.ts';
import { storeContract } from './contract.ts';
import { isFault } from '#model/fault.ts';
import { openEtcdStore } from './etcd.ts';
import { openStore } from './open.ts';
import type { Store, StoreEvent } from './store.ts';
import { type EtcdCluster, eventually, hasEtcd, startCluster } from './testdata/etcd-process.ts';

mustBeIsolated();

const encode = (text: string): string => Buffer.from(text).toString('base64');

const skip = hasEtcd() ? false : 'no etcd on this machine';

async function started(size: number, options?: { flags?: string[]; scheme?: string }): Promise<EtcdCluster> {
  const cluster = await startCluster(size, options);
  await Promise.all(cluster.members.map((member) => member.start()));
  return cluster;
}

describe('one member', { skip }, () => {
  let cluster: EtcdCluster;
  let fixtures = 0;
  const open = (prefix: string, timeoutMs = 60_000): Store => {
    return openEtcdStore({ endpoints: cluster.members.map(({ endpoint }) => endpoint), prefix, timeoutMs });
  };

  before(async () => {
    cluster = await started(1);
    await using store = open('ready/');
    await eventually(() => store.get('a'));
  });
  after(() => cluster[Symbol.asyncDispose]());

  storeContract('etcd', async () => {
    const prefix = `t${(fixtures += 1)}/`;
    return { open: async () => open(prefix), [Symbol.asyncDispose]: async () => undefined };
  });

  it('prefixes keep installations apart, also where one begins like the other', async () => {
    await using a = open('p');
    await using b = open('pp');
    await a.commit([put('x', 'a')]);
    await b.commit([put('x', 'b')]);
    assert.deepEqual(keysOf((await b.list('')).entries), ['x']);
    assert.equal((await a.get('x'))?.value, 'a');
  });

  it('goes unavailable within its time limit when etcd is gone, and on when it is back', async () => {
    const [member] = cluster.members;
    const limitMs = 3000;
    await using store = open('restart/', limitMs);
    const { revision: since } = await store.commit([put('before', 1)]);
    await using watcher = new Watcher(store, '', since);
    await store.commit([put('a', 1), put('b', 1)]);
    await watcher.take(2);
    for (const round of range(2)) {
      await member?.stop();
      const start = performance.now();
      await faults(store.get('before'), 'unavailable');
      await faults(store.list(''), 'unavailable');
      await faults(store.commit([put('lost', 1)]), 'unavailable');
      // Three times, and what a busy machine needs besides.
      assert.ok(performance.now() - start < 3 * limitMs + 10_000);
      await member?.start();
      // A try that was given up may have taken effect all the same; its events come before those of the one that succeeded.
      const { revision } = await eventually(() => store.commit([put('a', round), remove('b'), put('c', round)]));
      const events: StoreEvent[] = [];
      const isLast = (event?: StoreEvent): boolean => event?.revision === revision && event.key === 'c';
      while (!isLast(events.at(-1))) events.push(...(await watcher.take(1)));
      assert.ok(events.some((event) => event.revision === revision && event.key === 'a'));
      assert.equal(events.filter(({ type, key }) => type === 'delete' && key === 'b').length, round === 0 ? 1 : 0);
    }
    assert.equal(await store.get('lost'), undefined);
  });

  it('a watch that etcd is restored under from an older backup ends, and one whose member is only started again goes on', async () => {
    await using own = await started(1);
    const [member] = own.members;
    const [data, backup] = [join(own.folder, 'm0'), join(own.folder, 'backup')];
    await using store = openEtcdStore({ endpoints: [member?.endpoint ?? ''], prefix: 'restored/', timeoutMs: 1000 });
    await eventually(() => store.commit([put('kept', 1)]));
    await member?.stop('SIGTERM');
    await cp(data, backup, { recursive: true });
    await member?.start();
    const { revision: since } = await eventually(() => store.commit([put('a', 1)]));
    await using watcher = new Watcher(store, '', since);
    await store.commit([put('lost', 1)]);
    await watcher.take(1);
    await member?.stop('SIGTERM');
    await member?.start();
    await eventually(() => store.commit([put('lost', 2)]));
    await watcher.take(1);
    await member?.stop('SIGTERM');
    await rm(data, { recursive: true });
    await cp(backup, data, { recursive: true });
    await member?.start();
    const error = await watcher.end();
    assert.ok(isFault(error, 'compacted'), String(error));
    assert.match(error.message, /restored from a backup/);
    assert.deepEqual(keysOf((await store.list('')).entries), ['kept']);
  });

  it('a member that hangs: a read is unavailable, of a write it is said that its outcome is unknown', async () => {
    const [member] = cluster.members;
    await using store = open('hang/', 3000);
    await store.commit([put('a', 1)]);
    await member?.stop('SIGSTOP');
    try {
      await faults(store.get('a'), 'unavailable');
      await faults(store.commit([put('a', 2)]), 'timeout');
    } finally {
      await member?.stop('SIGCONT');
    }
    await eventually(() => store.get('a'));
  });

  it('a value that is not JSON is corrupt and named', async () => {
    const [member] = cluster.members;
    await fetch(`${member?.endpoint}/v3/kv/put`, {
      method: 'POST',
      body: JSON.stringify({ key: encode('foreign/a'), value: encode('{') }),
    });
    await using store = open('foreign/');
    await assert.rejects(store.get('a'), /\ba\b/);
    await faults(store.get('a'), 'corrupt');
    await faults(store.list(''), 'corrupt');
  });

  it('a URL opens it', async () => {
    await using store = await openStore(`etcd:http://127.0.0.1:1,${cluster.members[0]?.endpoint}?prefix=url/&timeoutMs=10000`);
    await store.commit([put('a', 1)]);
    await using same = open('url/');
    assert.equal((await same.get('a'))?.value, 1);
  });
});

test('three members: the loss of any one, leader or not, loses no commit and no event', { skip }, async (t) => {
  await using cluster = await started(3);
  const endpoints = cluster.members.map(({ endpoint }) => endpoint);
  await using store = openEtcdStore({ endpoints, timeoutMs: 1500 });
  const { revision } = await eventually(() => store.list(''));
  await using watcher = new Watcher(store, '', revision);
  const acknowledged: string[] = [];
  const stopping = new AbortController();
  let longestMs = 0;
  const writing = (async () => {
    let last = performance.now();
    for (let index = 0; !stopping.signal.aborted; index += 1) {
      try {
        await store.commit([put(`w/${index}`, index, 0)]);
        acknowledged.push(`w/${index}`);
        longestMs = Math.max(longestMs, performance.now() - last);
        last = performance.now();
      } catch (error) {
        assert.match(String((error as { code?: unknown }).code), /^(unavailable|timeout)$/);
      }
    }
  })();
  for (const member of cluster.members) {
    const count = acknowledged.length;
    await eventually(async () => assert.ok(acknowledged.length > count + 20));
    await member.stop();
    const during = acknowledged.length;
    await eventually(async () => assert.ok(acknowledged.length > during + 20));
    await member.start();
  }
  stopping.abort();
  await writing;
  const { entries } = await store.list('w/');
  const events = await watcher.take(entries.length);
  t.diagnostic(`${acknowledged.length} acknowledged, longest gap ${longestMs.toFixed(0)} ms`);
  assert.deepEqual(keysOf(events).toSorted(), keysOf(entries));
  assert.deepEqual(
    acknowledged.filter((key) => !keysOf(entries).includes(key)),
    [],
  );
});

test('a watch whose member hangs goes on at another', { skip }, async () => {
  await using cluster = await started(3);
  const endpoints = cluster.members.map(({ endpoint }) => endpoint);
  await using writing = openEtcdStore({ endpoints, timeoutMs: 1500 });
  const { revision } = await eventually(() => writing.commit([put('a', 0)]));
  // Nobody asks this one anything.
  await using watching = openEtcdStore({ endpoints, timeoutMs: 1500 });
  await using watcher = new Watcher(watching, '', revision);
  await writing.commit([put('a', 1)]);
  await watcher.take(1);
  for (const [index, member] of cluster.members.entries()) {
    // The watch is at the member that answered last, whichever that is.
    await member.stop('SIGSTOP');
    try {
      await eventually(() => writing.commit([put(`b${index}`, 1)]));
      const keys: string[] = [];
      while (!keys.includes(`b${index}`)) keys.push(...keysOf(await watcher.take(1)));
    } finally {
      await member.stop('SIGCONT');
    }
  }
});

test('a minority refuses instead of serving what may be old', { skip }, async () => {
  await using cluster = await started(3);
  const [one, two, three] = cluster.members;
  await using all = openEtcdStore({ endpoints: cluster.members.map(({ endpoint }) => endpoint) });
  const { revision } = await eventually(() => all.commit([put('a', 1)]));
  await using cut = openEtcdStore({ endpoints: [one?.endpoint ?? ''], timeoutMs: 1500 });
  await eventually(() => cut.get('a'));
  await using watcher = new Watcher(cut, '', revision);
  await Promise.all([two?.stop(), three?.stop()]);
  await faults(cut.get('a'), 'unavailable');
  await assert.rejects(cut.commit([put('a', 2)]));
  await Promise.all([two?.start(), three?.start()]);
  await eventually(() => cut.commit([put('b', 1)]));
  assert.ok((await watcher.take(1)).length === 1);
});

const newKey = ['-x509', '-nodes', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-days', '2'];
const certify = (folder: string, name: string, ...more: string[]): number | null =>
  spawnSync('openssl', ['req', ...newKey, '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.pem`, ...more], {
    cwd: folder,
  }).status;

test('TLS: the member proves itself to us and we to it', { skip }, async (t) => {
  const flags = ['--client-cert-auth', '--trusted-ca-file=FOLDER/ca.pem', '--cert-file=FOLDER/both.pem', '--key-file=FOLDER/both.key'];
  await using cluster = await startCluster(1, { scheme: 'https', flags });
  const { folder, members } = cluster;
  const signed = [
    '-CA',
    'ca.pem',
    '-CAkey',
    'ca.key',
    '-addext',
    'subjectAltName=IP:127.0.0.1',
    '-addext',
    'extendedKeyUsage=serverAuth,clientAuth',
  ];
  if (certify(folder, 'ca') !== 0) {
    t.skip('no openssl on this machine');
    return;
  }
  assert.equal(certify(folder, 'both', ...signed), 0);
  assert.equal(certify(folder, 'stranger'), 0);
  await members[0]?.start();
  const open = (names: Record<string, string>): Promise<Store> => {
    const files = Object.entries(names).map(([name, file]) => `&${name}=${join(folder, file)}`);
    return openStore(`etcd:${members[0]?.endpoint}?timeoutMs=4000${files.join('')}`);
  };
  await using good = await open({ ca: 'ca.pem', cert: 'both.pem', key: 'both.key' });
  const { revision } = await eventually(() => good.commit([put('a', 1)]));
  await using watcher = new Watcher(good, '', revision);
  await good.commit([put('b', 1)]);
  assert.deepEqual(keysOf(await watcher.take(1)), ['b']);
  for (const names of [
    { ca: 'ca.pem' },
    { cert: 'both.pem', key: 'both.key' },
    { ca: 'ca.pem', cert: 'stranger.pem', key: 'stranger.key' },
  ]) {
    await using bad = await open(names);
    await faults(bad.get('a'), 'unavailable');
    await assert.rejects(bad.commit([put('a', 2)]));
  }
  assert.equal((await good.get('a'))?.value, 1);
  await rm(join(folder, 'ca.pem'));
  await faults(open({ ca: 'ca.pem' }), 'invalid');
});
