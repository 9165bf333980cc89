// Hosts that claim blocks through the Kubernetes API, against a server that keeps objects and their versions as that one does.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { MemoryJournal } from '#agent/journal.ts';
import type { Journal } from '#api/local.ts';
import { isFault } from '#model/fault.ts';
import { contains, parseCidr, parseIp } from '#model/ip.ts';
import type { Block, Pool } from '#model/resources.ts';
import { BlocksApi } from './blocks.fixture.ts';
import { blockName, KubernetesBlocks, type NamedPool, poolId } from './blocks.ts';
import { KubernetesClient } from './client.ts';

const pool: Pool = {
  id: poolId('default'),
  name: 'default',
  revision: 1,
  createdAt: '2026-01-01T00:00:00Z',
  labels: {},
  network: 'pods',
  cidr: parseCidr('10.50.0.0/24'),
  reserved: {},
  blockLength: 26,
};
const api = new BlocksApi();
const client = new KubernetesClient({ server: await api.listen() });
after(async () => {
  await client[Symbol.asyncDispose]();
  api.close();
});
let now = 0;
const hostWith = (host: string, journal: Journal, poolBy: (id: string) => NamedPool | undefined): KubernetesBlocks =>
  new KubernetesBlocks({ client, host, journal, pool: poolBy, wrote: () => undefined, now: () => now });
const hostOf = (host: string, journal: Journal = new MemoryJournal(), most = 0): KubernetesBlocks =>
  hostWith(host, journal, (id) => (id === pool.id ? { name: 'default', pool, mostBlocks: most } : undefined));
const request = { network: 'pods', pool: pool.id };
const listed = async (host: KubernetesBlocks): Promise<readonly Block[]> => await host.blocksOf('pods', pool.id);
function reset(): void {
  api.objects = new Map();
  api.revision += 10_000;
}

/** For which the pool is another by now. */
const laterHost = (host: string, changes: Partial<Pool>): KubernetesBlocks =>
  hostWith(host, new MemoryJournal(), () => ({ name: 'default', pool: { ...pool, ...changes }, mostBlocks: 0 }));

test('blocks stay as large as those that there are, and none has an address of another, whatever a pool is said to be since', async () => {
  reset();
  const first = await hostOf('one').claimBlock(request);
  const smaller = laterHost('two', { blockLength: 28 });
  assert.deepEqual([first.cidr, (await smaller.claimBlock(request)).cidr], ['10.50.0.0/26', '10.50.0.64/26']);
  assert.equal((await smaller.claimBlock({ ...request, ip: parseIp('10.50.0.17') })).host, 'one');
  // Of a pool of another name, as when an older one that overlaps has gone.
  const other = laterHost('three', { id: poolId('other'), blockLength: 28 });
  assert.equal((await other.claimBlock(request)).cidr, '10.50.0.128/28');
  await assert.rejects(laterHost('four', { blockLength: 25 }).claimBlock({ ...request, ip: parseIp('10.50.0.150') }), (error) =>
    isFault(error, 'exhausted'),
  );
  // A range that has none of its blocks.
  const moved = laterHost('five', { cidr: parseCidr('10.51.0.0/24'), blockLength: 28 });
  assert.equal((await moved.claimBlock(request)).cidr, '10.51.0.0/28');
  const within = laterHost('six', { cidr: parseCidr('10.50.0.0/27'), blockLength: 28 });
  await assert.rejects(within.claimBlock(request), (error) => isFault(error, 'exhausted'));
});

test('hosts that claim at once get blocks of their own, until there are none', async () => {
  reset();
  const hosts = ['one', 'two', 'three', 'four'].map((name) => hostOf(name));
  const blocks = await Promise.all(hosts.map((host) => host.claimBlock(request)));
  assert.equal(new Set(blocks.map(({ cidr }) => cidr)).size, 4);
  assert.deepEqual(
    blocks.map(({ host }) => host),
    ['one', 'two', 'three', 'four'],
  );
  await assert.rejects(hostOf('five').claimBlock(request), (error) => isFault(error, 'exhausted'));
  const holder = await hostOf('five').claimBlock({ ...request, ip: parseIp('10.50.0.70') });
  assert.ok(contains(holder.cidr, parseIp('10.50.0.70')), 'the block around an address is answered, whosever it is');
});

test('a host gets no more blocks than it may have, and gives back what is empty', async () => {
  reset();
  const one = hostOf('one', new MemoryJournal(), 1);
  const block = await one.claimBlock(request);
  await assert.rejects(one.claimBlock(request), (error) => isFault(error, 'exhausted'));
  await hostOf('two').releaseBlock(block);
  assert.equal((await listed(one)).length, 1, 'only its host gives it back');
  await assert.rejects(one.releaseBlock({ ...block, revision: 1 }), (error) => isFault(error, 'conflict'));
  await one.releaseBlock(block);
  await one.releaseBlock(block);
  assert.deepEqual(await listed(one), []);
});

test('a loan is asked for, granted, returned and forgotten, also by many at once', async () => {
  reset();
  const [owner, borrower] = [hostOf('owner'), hostOf('borrower')];
  const block = await owner.claimBlock(request);
  const ids = Array.from({ length: 8 }, (_, index) => `loan${index}`);
  await Promise.all(ids.map((id) => borrower.askLoan(block, { id, endpoint: id })));
  await assert.rejects(owner.releaseBlock(block), (error) => isFault(error, 'conflict'));
  const ip = parseIp('10.50.0.9');
  await owner.settleLoan(block.id, 'loan0', { state: 'granted', ip });
  await assert.rejects(owner.settleLoan(block.id, 'loan1', { state: 'granted', ip }), (error) => isFault(error, 'exists'));
  await owner.settleLoan(block.id, 'loan1', { state: 'refused', reason: 'full' });
  await borrower.returnLoan(block.id, 'loan0');
  for (const id of ids.slice(1)) await borrower.returnLoan(block.id, id);
  const [left] = await listed(owner);
  assert.deepEqual(
    left?.loans.map(({ id, state }) => [id, state]),
    [['loan0', 'returned']],
  );
  await owner.settleLoan(block.id, 'loan0', { state: 'closed' });
  await owner.releaseBlock((await listed(owner))[0] ?? assert.fail());
});

test('an API that was restored from an older backup gives no block twice: hosts say again what is theirs', async () => {
  reset();
  const journals = [new MemoryJournal(), new MemoryJournal()] as const;
  const [one, two] = [hostOf('one', journals[0]), hostOf('two', journals[1])];
  await one.assert([]);
  const backup = { objects: new Map(api.objects), revision: api.revision };
  const block = await one.claimBlock(request);
  // What happened since: more than a host notes at once.
  api.revision += 500;
  await listed(two);
  await listed(one);
  Object.assign(api, backup);
  // A host that sees it does not claim before the others had their time.
  await assert.rejects(two.claimBlock(request), (error) => isFault(error, 'unavailable'));
  const restarted = hostOf('one', journals[0]);
  const again = await restarted.assert(await listed(restarted));
  assert.deepEqual(
    again.map(({ cidr, host }) => [cidr, host]),
    [[block.cidr, 'one']],
  );
  now += 61_000;
  assert.notEqual((await two.claimBlock(request)).cidr, block.cidr);
  assert.deepEqual(await restarted.assert(await listed(restarted)), [], 'once is enough');
});

test('an answer that a watch or another answer has overtaken is none of an API that was restored', async () => {
  reset();
  const one = hostOf('one');
  const claim = one.claimBlock(request);
  // A change that was told while the listing was on its way.
  one.passed(api.revision + 1);
  assert.equal((await claim).host, 'one');
  // Nor is a watch that is behind.
  api.revision += 10;
  await listed(one);
  one.passed(api.revision - 5);
  assert.equal((await one.claimBlock(request)).host, 'one');
});

test('a host that restarts meanwhile has noted how far the API was', async () => {
  reset();
  const journal = new MemoryJournal();
  await hostOf('one', journal).claimBlock(request);
  const { revision } = api;
  api.revision = revision - 200;
  await assert.rejects(hostOf('one', journal).claimBlock(request), (error) => isFault(error, 'unavailable'));
});

test('names of blocks are unlike for unlike ranges, and names that Kubernetes takes', () => {
  const ranges = ['10.0.0.0/26', '10.0.0.64/26', '::/122', 'fd00::/122', 'fd00::40/122', 'fd00:40::/122', 'fd00:0:40::/122'];
  const names = ranges.map((range) => blockName(parseCidr(range)));
  assert.equal(new Set(names).size, ranges.length);
  for (const name of names) assert.match(name, /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/);
});
