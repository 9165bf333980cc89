import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { makeBlock, makeEndpoint, makePool } from '#drivers/cluster.fixture.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import { endpointMac } from '#model/numbers.ts';
import type { Exposure } from '#model/resources.ts';
import { News } from './news.ts';

const block = makeBlock(makePool('aaaaaaaaaa', parseCidr('10.0.0.0/16'), 24), 0, 'host-2');
const covered = makeEndpoint('aaaaaaaaaa', 'host-2', 1, [parseIp('10.0.0.9')]);
const borrowed = makeEndpoint('aaaaaaaaaa', 'host-2', 2, [parseIp('10.0.7.9')]);

function listen({ isGuarding = false, exposures = [] as readonly Exposure[] } = {}): {
  news: News;
  told: { count: number; renamed: number };
} {
  const told = { count: 0, renamed: 0 };
  const news = new News({
    host: 'host-1',
    view: () => ({ blocks: new Map([[block.id, block]]), exposures: new Map(exposures.map((exposure) => [exposure.id, exposure])) }),
    isGuarding,
    renamed: () => (told.renamed += 1),
    spread: () => (told.count += 1),
  });
  news.planning();
  return { news, told };
}

test('an endpoint that its host has a block for is told, and needs no plan', async () => {
  const { news, told } = listen();
  news.endpoint({ before: undefined, after: covered });
  news.endpoint({ before: covered, after: undefined });
  news.endpoint({ before: undefined, after: { ...borrowed, host: 'host-1' } });
  await setImmediate();
  assert.deepEqual([news.isPlanned, told.count], [true, 1]);
});

test('one outside of the blocks of its host needs a plan, when it comes and when it goes', () => {
  const coming = listen().news;
  coming.endpoint({ before: covered, after: borrowed });
  const going = listen().news;
  going.endpoint({ before: borrowed, after: undefined });
  assert.deepEqual([coming.isPlanned, going.isPlanned], [false, false]);
});

test('what else changes needs a plan, and one plan has all of it in it', async () => {
  const { news, told } = listen();
  news.changed();
  news.changed();
  assert.equal(news.isPlanned, false);
  news.planning();
  await setImmediate();
  assert.deepEqual([news.isPlanned, told.count], [true, 1]);
});

test('an endpoint of this host needs a plan when it is in a container, but not for what its link is called in there', () => {
  const slotted = { endpoint: covered, slot: 1 };
  const joined = { ...slotted, sandbox: '/run/netns/a', order: 1 };
  const rows = [
    [undefined, slotted, true],
    [slotted, joined, false],
    [joined, { ...joined, ifname: 'eth0' }, true],
    [joined, { ...joined, endpoint: { ...covered, mac: endpointMac(parseIp('10.0.0.1')) } }, false],
    [joined, slotted, false],
    [slotted, undefined, true],
  ] as const;
  for (const [before, after, isPlanned] of rows) {
    const { news } = listen();
    news.local({ before, after });
    assert.equal(news.isPlanned, isPlanned, JSON.stringify([before, after]));
  }
  const { news } = listen({ isGuarding: true });
  news.local({ before: undefined, after: slotted });
  assert.equal(news.isPlanned, false, 'policies guard it already');
});

const exposure: Exposure = {
  id: 'shop',
  name: 'shop',
  revision: 1,
  createdAt: '2026-01-01T00:00:00.000Z',
  labels: {},
  network: covered.network,
  endpoint: 'web',
  protocol: 'tcp',
  port: 80,
  hostPort: 8080,
  sources: [],
};

test('what an endpoint of this host is called has time, unless something is exposed by its name', () => {
  const joined = { endpoint: covered, slot: 1, sandbox: '/run/netns/a', order: 1 };
  const renamed = { ...joined, endpoint: { ...covered, owner: 'web', name: 'web', names: ['www'], sequence: covered.sequence + 1 } };
  const usual = listen();
  usual.news.local({ before: joined, after: renamed });
  assert.deepEqual([usual.news.isPlanned, usual.told.renamed], [true, 1]);
  usual.news.local({ before: undefined, after: { endpoint: covered, slot: 1 } });
  assert.equal(usual.told.renamed, 1, 'a new one is called nothing else');
  const exposed = listen({ exposures: [exposure] });
  exposed.news.local({ before: joined, after: renamed });
  assert.deepEqual([exposed.news.isPlanned, exposed.told.renamed], [false, 0]);
});
