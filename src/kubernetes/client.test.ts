// What the client makes of a server that has no time.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { Busy, listOf, serve } from './api.fixture.ts';

const path = '/api/v1/nodes';
const isBusy = (error: unknown): boolean => isFault(error, 'unavailable') && error.message === 'The Kubernetes API refuses: busy';
const soon = (): AbortSignal => AbortSignal.timeout(20_000);

test('a server that is too busy, or just starting, is asked again when it says, by any method', async (t) => {
  const { api, client } = await serve(t);
  api.lists = [new Busy('0'), new Busy('0', 503), listOf(7, [{ metadata: { name: 'a' } }])];
  assert.deepEqual(await client.list(path, soon()), { items: [{ metadata: { name: 'a' } }], revision: 7 });
  api.lists = [new Busy('0'), { kind: 'Node' }];
  assert.deepEqual(await client.patch(`${path}/a/status`, { metadata: {} }), { kind: 'Node' });
  api.watches = [new Busy('0'), [{ type: 'BOOKMARK', object: { metadata: { resourceVersion: '9' } } }]];
  const changes = [];
  for await (const change of client.watch(path, 7, soon())) changes.push(change);
  assert.deepEqual([changes, api.asked.length], [[{ type: 'bookmark', revision: 9 }], 7]);
});

test('not for ever, and not where it does not say when', async (t) => {
  const { api, client } = await serve(t);
  api.lists = Array.from({ length: 10 }, () => new Busy('0'));
  await assert.rejects(client.list(path, soon()), isBusy);
  assert.equal(api.lists.length, 4);
  for (const answer of [new Busy('Wed, 21 Oct 2026 07:28:00 GMT'), new Busy(''), new Busy('0', 500)]) {
    api.lists = [answer, listOf(7, [])];
    await assert.rejects(client.list(path, soon()), isBusy);
  }
});

test('whoever gives up is not kept waiting', async (t) => {
  const { api, client } = await serve(t);
  const stop = new AbortController();
  api.lists = [new Busy('5'), listOf(7, [])];
  const asking = client.list(path, stop.signal);
  while (api.asked.length === 0) await new Promise(setImmediate);
  stop.abort();
  await assert.rejects(asking, (error) => isFault(error, 'unavailable'));
  assert.equal(api.asked.length, 1);
});

test('a way to the server that has gone without a word is noticed within half a minute', async (t) => {
  const { api, client, port } = await serve(t);
  const stop = new AbortController();
  const watching = client.watch(path, 7, stop.signal).next();
  while (api.asked.length === 0) await new Promise(setImmediate);
  // The kernel's list (proc_net_tcp): where to, what it waits for (2: to ask whether the other is there) and hundredths of a second.
  const to = new RegExp(`:[0-9A-F]{4} [0-9A-F]+:${port.toString(16).toUpperCase().padStart(4, '0')} 01 \\S+ 02:([0-9A-F]+)`);
  const [, hundredths = ''] = to.exec(readFileSync('/proc/net/tcp', 'utf8')) ?? [];
  stop.abort();
  await assert.rejects(watching);
  assert.ok(Number.parseInt(hundredths, 16) <= 1500, `asked again in ${hundredths} (hexadecimal) hundredths of a second`);
});
