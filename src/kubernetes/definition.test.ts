// A sort of object whose definition comes while it is followed.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { listOf, serve } from './api.fixture.ts';
import { Definition, definitionOf } from './definition.ts';
import { followKind } from './follow.ts';

const definitions = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
const tiers = '/apis/example.com/v1/tiers';
const news = (type: string, revision: number): object => ({ type, object: { metadata: { resourceVersion: String(revision) } } });
const asWord = ({ pathname, searchParams }: URL): string =>
  pathname === tiers
    ? `tiers${searchParams.has('watch') ? ' watched' : ''}`
    : `definition since ${searchParams.get('resourceVersion') ?? ''}`;

test('names of definitions', () => {
  assert.equal(definitionOf(tiers), 'tiers.example.com');
  assert.equal(definitionOf('/api/v1/nodes'), undefined);
});

test('what a definition brings is followed as soon as it has come and the server serves it', async (t) => {
  const { api, client } = await serve(t);
  api.paths.set(definitions, { lists: [], watches: [[news('BOOKMARK', 8), news('ADDED', 9)]] });
  api.paths.set(tiers, { lists: [404, 404, listOf(12, [{ metadata: { name: 'a' } }])], watches: [] });
  const known = new Set<string>();
  const stop = new AbortController();
  const running = followKind(
    {
      name: 'tiers',
      paths: [tiers],
      absent: 'empty',
      keys: () => [...known],
      put: (key) => known.add(key),
      delete: (key) => known.delete(key),
      listed: () => undefined,
    },
    { client, signal: stop.signal, log: { warn: () => undefined } },
  );
  for (const end = performance.now() + 14_000; !known.has('a'); await setTimeout(5))
    assert.ok(performance.now() < end, 'not known in time');
  stop.abort();
  await running;
  assert.deepEqual(api.asked.map(asWord).slice(0, 4), ['tiers', 'definition since 0', 'tiers', 'tiers']);
});

test('it is watched by its name alone, and from where it was heard of last', async (t) => {
  const { api, client } = await serve(t);
  const stop = new AbortController();
  const definition = new Definition(tiers, { client, signal: stop.signal });
  api.watches = [[news('ADDED', 9)], [news('DELETED', 11)], 410, 500, [news('ADDED', 3)]];
  const waits = [];
  for (let wait = 1; wait <= 9; wait++) waits.push(await definition.news());
  // Three looks after each news; each watch that ends without any is one.
  assert.deepEqual(waits, [2_000, 2_000, 2_000, 5_000, 5_000, 5_000, 2_000, 2_000, 2_000]);
  assert.deepEqual(
    api.asked.map(asWord),
    [0, 9, 11, 0, 0].map((since) => `definition since ${since}`),
  );
  assert.equal(api.asked[0]?.searchParams.get('fieldSelector'), 'metadata.name=tiers.example.com');
});

test('where it may not be watched one looks now and then', async (t) => {
  const { api, client } = await serve(t);
  const definition = new Definition(tiers, { client, signal: AbortSignal.timeout(20_000) });
  api.watches = [403];
  assert.deepEqual([await definition.news(), await definition.news(), api.asked.length], [30_000, 30_000, 1]);
});
