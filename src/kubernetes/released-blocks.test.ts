// Blocks go back when their network has gone from the node, or their node from the cluster, and no sooner.
import assert from 'node:assert/strict';
import { after, beforeEach, test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { AddressBook } from '#agent/address-book.ts';
import { MemoryJournal } from '#agent/journal.ts';
import { type Cidr, parseCidr, parseIp } from '#model/ip.ts';
import type { Block, Pool, Snapshot } from '#model/resources.ts';
import { BlocksApi } from './blocks.fixture.ts';
import { borrowerQuestionId, KubernetesBlocks, poolId, questionId, readBlock } from './blocks.ts';
import { KubernetesClient } from './client.ts';
import { podNetwork } from './nodes.ts';
import { claimedFacts, claimedPool } from './own-blocks.ts';
import { type OwnNetwork, readOwnNetwork } from './own-network.ts';
import { ReleasedBlocks } from './released-blocks.ts';

const blue = network();
function network(): OwnNetwork {
  const config = JSON.stringify({ type: 'causeway', subnets: ['10.60.0.0/24'] });
  return (
    readOwnNetwork('shop/blue', { metadata: { creationTimestamp: '2026-01-01T00:00:00Z' }, spec: { config } }) ?? assert.fail('no network')
  );
}
const facts = claimedFacts(blue, 'bgp');
const [four = assert.fail('no pool')] = facts.pools;
const ippool: Pool = { ...four, id: poolId('main'), name: 'main', network: podNetwork.id, cidr: parseCidr('10.50.0.0/24') };

const api = new BlocksApi();
const client = new KubernetesClient({ server: await api.listen() });
after(async () => {
  await client[Symbol.asyncDispose]();
  api.close();
});
beforeEach(() => {
  api.objects = new Map();
  api.nodes.clear();
  api.pods.clear();
});

const blocksOf = (host: string): KubernetesBlocks =>
  new KubernetesBlocks({
    client,
    host,
    journal: new MemoryJournal(),
    pool: (id) => (id === ippool.id ? { name: 'main', pool: ippool, mostBlocks: 0 } : claimedPool(id, [blue])),
    wrote: () => undefined,
    now: () => 0,
  });
const claim = (host: KubernetesBlocks, { id, network: of }: Pool = four): Promise<Block> => host.claimBlock({ network: of, pool: id });
const stored = (): Block[] => [...api.objects.values()].map((item) => readBlock(item));

interface Bed {
  readonly needed: Set<string>;
  readonly hosts: Map<string, unknown>;
  readonly released: ReleasedBlocks;
}
/** `host` with what the API has, as its watch would tell. */
function follow(t: TestContext, host: string, absentMs = 0): Bed {
  const needed = new Set([blue.id]);
  const hosts = new Map<string, unknown>(['one', 'two'].map((name) => [name, {}]));
  const released = new ReleasedBlocks({
    host,
    client,
    blocks: blocksOf(host),
    isNeeded: (id) => needed.has(id),
    hosts,
    pauseMs: 1,
    absentMs,
    now: () => performance.now(),
  });
  const seen = new Map<string, Block>();
  const watching = setInterval(() => {
    const now = new Map(stored().map((block) => [block.id, block]));
    for (const id of seen.keys()) if (!now.has(id) && seen.delete(id)) released.gone(id);
    for (const block of now.values()) {
      if (seen.get(block.id)?.revision !== block.revision) released.see(block);
      seen.set(block.id, block);
    }
  }, 1);
  t.after(() => {
    clearInterval(watching);
    released[Symbol.dispose]();
  });
  return { needed, hosts, released };
}
const cidrs = (): Cidr[] => stored().map(({ cidr }) => cidr);
async function until(what: string, isTrue: () => boolean): Promise<void> {
  for (let tries = 0; !isTrue(); tries++) {
    assert.ok(tries < 1000, `${what} did not happen: ${cidrs().join(' ')}`);
    await delay(5);
  }
}

test("a node gives its blocks back when their network has gone from it, and nobody's else", async (t) => {
  const [mine, theirs, pods] = [await claim(blocksOf('one')), await claim(blocksOf('two')), await claim(blocksOf('one'), ippool)];
  const { needed, released } = follow(t, 'one');
  released.settle();
  await delay(20);
  assert.equal(cidrs().length, 3, 'while the network is there');
  needed.clear();
  released.settle();
  await until('the block to go back', () => !cidrs().includes(mine.cidr));
  assert.deepEqual(new Set(cidrs()), new Set([theirs.cidr, pods.cidr]));
});

test('a block of which an address is lent stays until it comes back', async (t) => {
  const [owner, borrower] = [blocksOf('one'), blocksOf('two')];
  const block = await claim(owner);
  await borrower.askLoan(block, { id: 'loan', endpoint: 'e' });
  await owner.settleLoan(block.id, 'loan', { state: 'granted', ip: parseIp('10.60.0.1') });
  const { needed, released } = follow(t, 'one');
  needed.clear();
  released.settle();
  await delay(20);
  assert.equal(cidrs().length, 1);
  await borrower.returnLoan(block.id, 'loan');
  await until('the block to go back', () => cidrs().length === 0);
});

for (const [what, pool] of [
  ['a network of ours', four],
  ['an IPPool', ippool],
] as const)
  test(`blocks of ${what} of a node that has gone are given back by one of the others`, async (t) => {
    const [gone, here] = [await claim(blocksOf('gone'), pool), await claim(blocksOf('two'), pool)];
    api.nodes.add('gone');
    api.pods.add('gone');
    const others = ['two', 'one'].map((host) => follow(t, host).released);
    for (const one of others) one.settle();
    await delay(30);
    assert.equal(cidrs().length, 2, 'a Node that is there although it cannot be read');
    api.nodes.clear();
    await delay(30);
    assert.equal(cidrs().length, 2, 'a pod that is bound to it');
    api.pods.clear();
    await until('the block to go back', () => !cidrs().includes(gone.cidr));
    assert.deepEqual(cidrs(), [here.cidr]);
    for (const one of others) one[Symbol.dispose]();
    // A node that was away for a moment keeps its own.
    await claim(blocksOf('gone'), pool);
    follow(t, 'one', 3_600_000).released.settle();
    await delay(30);
    assert.equal(cidrs().length, 2);
  });

const byId = <T extends { readonly id: string }>(items: readonly T[]): Map<string, T> => new Map(items.map((item) => [item.id, item]));
const snapshot = (): Snapshot => ({
  hosts: new Map(),
  networks: byId([facts.network]),
  pools: byId(facts.pools),
  blocks: byId(stored()),
  endpoints: new Map(),
  exposures: new Map(),
});

/** The address book of a node, told of what the API has. */
function addressBook(t: TestContext, host: string): { readonly book: AddressBook; readonly end: () => void } {
  const clock = { now: () => performance.now(), after: () => () => undefined };
  const book = new AddressBook({ journal: new MemoryJournal(), cluster: blocksOf(host), clock, host, newId: () => `loan-of-${host}` });
  const tell = (): void => book.blocksChanged({ snapshot: snapshot(), revision: api.revision, live: true });
  // Of a block that it finds at first it gives no address for a while: it may have known of some.
  tell();
  const agent = setInterval(tell, 2);
  t.after(() => clearInterval(agent));
  t.after(() => book[Symbol.dispose]());
  return { book, end: () => clearInterval(agent) };
}

/** Versions of blocks that had the question. */
function heard(t: TestContext, question: string): ReadonlySet<number> {
  const revisions = new Set<number>();
  const listening = setInterval(() => {
    for (const { revision, loans } of stored()) if (loans.some(({ id }) => id === question)) revisions.add(revision);
  }, 1);
  t.after(() => clearInterval(listening));
  return revisions;
}

test('what a node had borrowed that has gone goes back to its owner, not while its agent answers', async (t) => {
  const owner = addressBook(t, 'one');
  const borrower = addressBook(t, 'lost');
  const block = await claim(blocksOf('one'));
  const ip = parseIp('10.60.0.2');
  await until('the owner to know its block', () => owner.book.room(four.id).capacity > 0);
  assert.equal(await borrower.book.request(four.id, 'e1', ip), ip);
  const isLent = (): boolean => stored().some(({ loans }) => loans.some((loan) => loan.ip === ip && loan.state === 'granted'));
  const questions = heard(t, borrowerQuestionId('lost'));
  api.nodes.add('lost');
  const { released } = follow(t, 'one', 100);
  released.settle();
  await delay(150);
  assert.equal(questions.size, 0, 'a Node that is there although it cannot be read');
  api.nodes.clear();
  await until('several questions', () => questions.size > 3);
  assert.ok(isLent());
  borrower.end();
  await until('the loan to end', () => !isLent());
  // Its owner has taken it back.
  await until('no trace of it', () => stored().every(({ loans }) => loans.length === 0));
  assert.deepEqual(cidrs(), [block.cidr]);
});

test('a block of which only a node that has gone had an address goes back with its network', async (t) => {
  const owner = addressBook(t, 'one');
  const borrower = addressBook(t, 'lost');
  await claim(blocksOf('one'));
  await until('the owner to know its block', () => owner.book.room(four.id).capacity > 0);
  await borrower.book.request(four.id, 'e1', parseIp('10.60.0.2'));
  borrower.end();
  const { needed, released } = follow(t, 'one', 20);
  needed.clear();
  released.settle();
  await until('the block to go back', () => cidrs().length === 0);
});

test('a node whose agent answers keeps its blocks, whatever has become of its Node, until it does not any more', async (t) => {
  const agent = addressBook(t, 'lost');
  const block = await claim(blocksOf('lost'));
  const questions = heard(t, questionId);
  follow(t, 'one', 100).released.settle();
  await until('several questions', () => questions.size > 3);
  assert.deepEqual(cidrs(), [block.cidr]);
  agent.end();
  await until('the block to go back', () => cidrs().length === 0);
});
