import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { makeBlock, makeEndpoint, makePool } from '#drivers/cluster.fixture.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import { News } from './news.ts';

const block = makeBlock(makePool('aaaaaaaaaa', parseCidr('10.0.0.0/16'), 24), 0, 'host-2');
const covered = makeEndpoint('aaaaaaaaaa', 'host-2', 1, [parseIp('10.0.0.9')]);
const borrowed = makeEndpoint('aaaaaaaaaa', 'host-2', 2, [parseIp('10.0.7.9')]);

function listen(isGuarding = false): { news: News; told: { count: number } } {
  const told = { count: 0 };
  const news = new News({ host: 'host-1', blocks: () => new Map([[block.id, block]]), isGuarding, spread: () => (told.count += 1) });
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
    [joined, { ...joined, endpoint: { ...covered, owner: 'web' } }, false],
    [joined, slotted, false],
    [slotted, undefined, true],
  ] as const;
  for (const [before, after, isPlanned] of rows) {
    const { news } = listen();
    news.local({ before, after });
    assert.equal(news.isPlanned, isPlanned, JSON.stringify([before, after]));
  }
  const { news } = listen(true);
  news.local({ before: undefined, after: slotted });
  assert.equal(news.isPlanned, false, 'policies guard it already');
});
