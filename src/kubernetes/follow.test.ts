// Following one sort of object: of no namespace, by the first path that the server has, and one that it does not have at all.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { type Answers, Api, listOf } from './api.fixture.ts';
import { KubernetesClient } from './client.ts';
import { followKind } from './follow.ts';

const api = new Api();
let client: KubernetesClient;
/** Waits for a word no longer than some milliseconds. */
let hasty: KubernetesClient;
before(async () => {
  const server = await api.listen();
  client = new KubernetesClient({ server });
  hasty = new KubernetesClient({ server }, 100);
});
after(async () => {
  await client[Symbol.asyncDispose]();
  await hasty[Symbol.asyncDispose]();
  api.close();
});

const tier = (name: string): object => ({ metadata: { name, resourceVersion: '9' } });

let runs = 0;

/**
 * What is known in the end, how often a listing was complete, and what was complained of. Each run has paths of its own: a
 * question that was given up may still reach the server, and would take an answer away from the next run.
 */
async function follow(
  paths: Record<string, Answers>,
  until: (known: ReadonlySet<string>, listings: number) => boolean,
  by: KubernetesClient = client,
) {
  runs += 1;
  const own = new Map(Object.entries(paths).map(([path, answers]) => [`/run${runs}${path}`, answers]));
  for (const [path, answers] of own) api.paths.set(path, answers);
  const stop = new AbortController();
  const known = new Set<string>();
  const warnings: string[] = [];
  let listings = 0;
  const running = followKind(
    {
      name: 'tiers',
      paths: [...own.keys()],
      absent: 'empty',
      keys: () => [...known],
      put: (key) => known.add(key),
      delete: (key) => known.delete(key),
      listed: () => (listings += 1),
    },
    { client: by, signal: stop.signal, doubtMs: 500, log: { warn: (_, message) => warnings.push(message) } },
  );
  try {
    for (const end = performance.now() + 10_000; !until(known, listings); await setTimeout(5)) assert.ok(performance.now() < end);
  } finally {
    stop.abort();
    await running;
  }
  return { known: [...known].toSorted(), listings, warnings };
}

test('objects of no namespace, from the second path, and what changes', async () => {
  const watches = [
    [
      { type: 'ADDED', object: tier('c') },
      { type: 'DELETED', object: tier('a') },
    ],
  ];
  const paths = { '/new': { lists: [404], watches: [] }, '/old': { lists: [listOf(5, [tier('a'), tier('b')])], watches } };
  const result = await follow(paths, (known) => known.has('c') && !known.has('a'));
  assert.deepEqual(result, { known: ['b', 'c'], listings: 1, warnings: [] });
});

test('a sort of object that the server does not have is an empty listing', async () => {
  const result = await follow(
    { '/new': { lists: [404], watches: [] }, '/old': { lists: [404], watches: [] } },
    (_, listings) => listings > 0,
  );
  assert.deepEqual(result, { known: [], listings: 1, warnings: [] });
});

test('what there was stays when a server does not know its sort for a moment, and goes when that lasts', async () => {
  const lists = [listOf(5, [tier('a'), tier('b')]), 404, listOf(7, [tier('a'), tier('c')])];
  const seen: string[] = [];
  const result = await follow({ '/only': { lists, watches: [404] } }, (known) => {
    seen.push([...known].toSorted().join(' '));
    return known.has('c');
  });
  assert.deepEqual(result.known, ['a', 'c']);
  assert.deepEqual([...new Set(seen)], ['', 'a b', 'a c']);
  const gone = [listOf(5, [tier('a')]), ...Array.from({ length: 100 }, () => 404)];
  assert.deepEqual(
    (await follow({ '/only': { lists: gone, watches: [404] } }, (known, listings) => listings > 1 && known.size === 0)).known,
    [],
  );
});

test('a server that has not started yet is not believed that it does not know a sort of object', async () => {
  api.isReady = false;
  const lists = [404, 404, listOf(5, [tier('a')])];
  const result = await follow({ '/only': { lists, watches: [] } }, (_, listings) => listings > 0);
  api.isReady = true;
  assert.deepEqual([result.known, result.listings], [['a'], 1]);
});

test('an object without a name is passed over', async () => {
  const lists = [listOf(5, [tier('a'), { metadata: {} }, { kind: 'Tier' }])];
  assert.deepEqual((await follow({ '/only': { lists, watches: [] } }, (_, listings) => listings > 0)).known, ['a']);
});

test('a server that was restored from a backup is listed again', async () => {
  const lists = [listOf(50, [tier('a')]), listOf(7, []), listOf(7, [tier('b')])];
  const result = await follow({ '/only': { lists, watches: [[]] } }, (_, listings) => listings === 2);
  assert.deepEqual(result, { known: ['b'], listings: 2, warnings: [] });
});

test('a watch that says nothing for long is begun again where it was, without a listing and without a complaint', async () => {
  const lists = [listOf(5, [tier('a')]), listOf(5, []), listOf(5, [])];
  const watches = [undefined, undefined, [{ type: 'ADDED', object: tier('b') }]];
  const followed = await follow({ '/tiers': { lists, watches } }, (known) => known.has('b'), hasty);
  assert.deepEqual(followed, { known: ['a', 'b'], listings: 1, warnings: [] });
});
