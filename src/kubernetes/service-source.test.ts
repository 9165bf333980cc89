// Services followed: from a listing, by changes, after a restart, and with a server that has only the older slices.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { MemoryJournal } from '#agent/journal.ts';
import { parseCidr } from '#model/ip.ts';
import { type Answers, listOf, serve, type Server } from './api.fixture.ts';
import { KubernetesServices } from './service-source.ts';

const paths = {
  services: '/api/v1/services',
  slices: '/apis/discovery.k8s.io/v1/endpointslices',
  pools: '/apis/causeway.dev/v1alpha1/addresspools',
  olderSlices: '/apis/discovery.k8s.io/v1beta1/endpointslices',
} as const;

const service = (name: string, ip: string): object => ({
  metadata: { namespace: 'shop', name, resourceVersion: '7' },
  spec: { clusterIP: ip, ports: [{ port: 80 }] },
});
const slice = (name: string, of: string, ip: string): object => ({
  metadata: { namespace: 'shop', name, resourceVersion: '8', labels: { 'kubernetes.io/service-name': of } },
  addressType: 'IPv4',
  endpoints: [{ addresses: [ip] }],
  ports: [{ port: 8080 }],
});

function say({ api }: Server, answers: { readonly [K in keyof typeof paths]?: Partial<Answers> }): void {
  api.paths.clear();
  for (const [name, path] of Object.entries(paths)) {
    // No server of these tests knows of pools.
    const { lists = name === 'pools' ? [404] : [], watches = [] } = answers[name as keyof typeof paths] ?? {};
    api.paths.set(path, { lists, watches });
  }
}

function follow(t: TestContext, { client }: Server, journal: MemoryJournal) {
  let calls = 0;
  const source = new KubernetesServices({ client, node: 'one', journal, log: { warn: () => undefined }, changed: () => (calls += 1) });
  source.start();
  t.after(() => source[Symbol.asyncDispose]());
  return { source, calls: () => calls };
}
const seen = (source: KubernetesServices): string[] =>
  source.current().map(({ ip, backends }) => `${ip} ${backends.map((backend) => backend.ip).join(',')}`);

async function eventually(look: () => boolean): Promise<void> {
  for (const end = performance.now() + 10_000; !look(); await setTimeout(5)) assert.ok(performance.now() < end, 'not within ten seconds');
}

const changes = (...items: readonly (readonly [string, object])[]): object[] => items.map(([type, object]) => ({ type, object }));

test('what is listed, and then what changes', async (t) => {
  const server = await serve(t);
  say(server, {
    services: {
      lists: [listOf(5, [service('web', '10.96.0.5'), service('gone', '10.96.0.6')])],
      watches: [changes(['DELETED', service('gone', '10.96.0.6')], ['ADDED', service('new', '10.96.0.7')])],
    },
    slices: { lists: [listOf(6, [slice('a', 'web', '10.244.1.2')])], watches: [changes(['ADDED', slice('b', 'web', '10.244.2.3')])] },
  });
  const journal = new MemoryJournal();
  const { source } = follow(t, server, journal);
  await eventually(() => seen(source).toSorted().join(' | ') === '10.96.0.5 10.244.1.2,10.244.2.3 | 10.96.0.7 ');
  assert.equal(source.isSynced(), true);
  await source[Symbol.asyncDispose]();
  assert.deepEqual(
    journal.list('kubernetes/services/').map(({ key }) => key),
    ['kubernetes/services/shop/new', 'kubernetes/services/shop/web'],
  );
});

test('a service among the pods is found, and is not when it has gone', async (t) => {
  const server = await serve(t);
  const web = service('web', '10.244.3.1');
  const listed = { lists: [listOf(5, [web, service('other', '10.96.0.6')])] };
  const ranges = ['fd44::/64', '10.244.0.0/16'].map((text) => parseCidr(text));
  say(server, { services: listed, slices: { lists: [listOf(6, [])] } });
  const { source } = follow(t, server, new MemoryJournal());
  await eventually(() => source.isSynced());
  assert.equal(source.clash(ranges), 'Service shop/web has the address 10.244.3.1, which is in the range of pods 10.244.0.0/16');
  assert.equal(source.clash([parseCidr('10.245.0.0/16')]), undefined);
  await source[Symbol.asyncDispose]();
  const watches = [changes(['DELETED', web])];
  say(server, { services: { lists: [listOf(5, [web])], watches }, slices: { lists: [listOf(6, [])] } });
  const { source: later } = follow(t, server, new MemoryJournal());
  await eventually(() => later.isSynced() && seen(later).length === 0);
  assert.equal(later.clash(ranges), undefined);
});

test('after a restart the services that were known are there before the API answers, and what is gone goes then', async (t) => {
  const server = await serve(t);
  const journal = new MemoryJournal();
  say(server, {
    services: { lists: [listOf(5, [service('web', '10.96.0.5'), service('old', '10.96.0.6')])] },
    slices: { lists: [listOf(6, [slice('a', 'web', '10.244.1.2')])] },
  });
  const first = follow(t, server, journal);
  await eventually(() => first.source.current().length === 2);
  await first.source[Symbol.asyncDispose]();
  say(server, {
    services: { lists: [503, listOf(9, [service('web', '10.96.0.5')])] },
    slices: { lists: [listOf(9, [slice('a', 'web', '10.244.1.2')])] },
  });
  const { source, calls } = follow(t, server, journal);
  assert.deepEqual([seen(source).toSorted(), source.isSynced()], [['10.96.0.5 10.244.1.2', '10.96.0.6 '], false]);
  await eventually(() => source.isSynced() && calls() > 0);
  await source[Symbol.asyncDispose]();
  assert.deepEqual([seen(source), journal.list('kubernetes/services/').length], [['10.96.0.5 10.244.1.2'], 1]);
});

test('a server that has only the older version of slices', async (t) => {
  const server = await serve(t);
  say(server, {
    services: { lists: [listOf(5, [service('web', '10.96.0.5')])] },
    slices: { lists: [404] },
    olderSlices: { lists: [listOf(6, [slice('a', 'web', '10.244.1.2')])] },
  });
  const { source } = follow(t, server, new MemoryJournal());
  await eventually(() => seen(source).join() === '10.96.0.5 10.244.1.2');
});

const pool = (addresses: string): object => ({ metadata: { name: 'p', resourceVersion: '9' }, spec: { addresses: [addresses] } });
test('addresses of a pool that cannot be read any more are answered for as before, also by an agent that starts', async (t) => {
  const journal = new MemoryJournal();
  const spec = { type: 'LoadBalancer', clusterIP: '10.96.0.5', ports: [{ port: 80 }] };
  const web = { ...service('web', '10.96.0.5'), spec, status: { loadBalancer: { ingress: [{ ip: '203.0.113.1' }] } } };
  for (const pools of [
    { lists: [listOf(5, [pool('203.0.113.0/28')])], watches: [changes(['MODIFIED', pool('203.0.113.0/33')])] },
    { lists: [listOf(6, [pool('203.0.113.0/33')])], watches: [] },
  ]) {
    const server = await serve(t);
    say(server, { services: { lists: [listOf(5, [web])] }, slices: { lists: [listOf(6, [slice('a', 'web', '10.244.1.2')])] }, pools });
    const { source } = follow(t, server, journal);
    const announced = (): unknown[] =>
      source.current().flatMap(({ ip, announcers }) => (ip === '203.0.113.1' ? [announcers !== undefined] : []));
    await eventually(() => source.isSynced() && announced().length > 0 && pools.watches.length === 0);
    await setTimeout(50);
    assert.deepEqual([announced(), source.balanced()], [[true], ['203.0.113.0/28']]);
  }
});
