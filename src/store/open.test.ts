import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { faults, put } from './contract-fixture.ts';
import { openStore } from './open.ts';

test('each scheme opens its store', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'causeway-store-'));
  for (const [url, name] of [
    ['memory:', 'memory'],
    [`sqlite:${folder}/store.db`, 'sqlite'],
    [`sqlite:${folder}/store.db?maxBytes=10000000&historyLength=50`, 'sqlite'],
    ['etcd:http://127.0.0.1:1', 'etcd'],
    ['etcd:http://127.0.0.1:1,https://[::1]:2379/?prefix=a/b/&timeoutMs=100', 'etcd'],
  ] as const) {
    await using store = await openStore(url);
    assert.equal(store.name, name);
  }
  await rm(folder, { recursive: true });
});

test('what is no store URL is refused', async () => {
  const bad = [
    '',
    'memory',
    'memory:x',
    'memory:?a=1',
    'sqlite:',
    'sqlite:relative/path',
    'sqlite:/tmp/x?maxbytes=1',
    'sqlite:/tmp/x?maxBytes=many',
    'redis://127.0.0.1',
    'etcd:',
    'etcd:127.0.0.1:2379',
    'etcd:http://127.0.0.1:2379/path',
    'etcd:http://user:secret@127.0.0.1:2379',
    'etcd:http://127.0.0.1:2379,',
    'etcd:http://127.0.0.1:2379?prefix=',
    'etcd:http://127.0.0.1:2379?prefix=%C3%A4',
    'etcd:http://127.0.0.1:2379?ca=/nonexistent',
    'etcd:http://127.0.0.1:2379?timeoutMs=-1',
  ];
  for (const url of bad) await faults(openStore(url), 'invalid');
});

test('an etcd that nobody answers for is unavailable at once, closing included', async () => {
  await using store = await openStore('etcd:http://127.0.0.1:1,http://127.0.0.1:2?timeoutMs=1000');
  await faults(store.get('a'), 'unavailable');
  await faults(store.list(''), 'unavailable');
  await faults(store.commit([put('a', 1)]), 'unavailable');
  await faults(store.compact(1), 'unavailable');
});
