// Networks of ours in the model `calico`: nodes claim blocks of their subnets.
import assert from 'node:assert/strict';
import { after, beforeEach, test } from 'node:test';
import { AddressBook } from '#agent/address-book.ts';
import { MemoryJournal } from '#agent/journal.ts';
import type { Journal } from '#api/local.ts';
import { isFault } from '#model/fault.ts';
import { contains, parseCidr, parseIp } from '#model/ip.ts';
import type { Block, Pool, Snapshot } from '#model/resources.ts';
import { BlocksApi } from './blocks.fixture.ts';
import { KubernetesBlocks, ownPoolName, poolId, readBlock } from './blocks.ts';
import { KubernetesClient } from './client.ts';
import { podNetwork } from './nodes.ts';
import { claimedFacts, claimedPool } from './own-blocks.ts';
import { type OwnNetwork, readOwnNetwork } from './own-network.ts';

const networkOf = (key: string, ...subnets: readonly string[]): OwnNetwork => {
  const config = JSON.stringify({ type: 'causeway', subnets });
  const network = readOwnNetwork(key, { metadata: { creationTimestamp: '2026-01-01T00:00:00Z' }, spec: { config } });
  assert.ok(network !== undefined);
  return network;
};
const blue = networkOf('shop/blue', '10.60.0.0/24', 'fd60::/48');
const four = `${blue.id}p4`;

const api = new BlocksApi();
const client = new KubernetesClient({ server: await api.listen() });
after(async () => {
  await client[Symbol.asyncDispose]();
  api.close();
});
beforeEach(() => {
  api.objects = new Map();
});

const ippool: Pool = { ...firstPool(), id: poolId('main'), name: 'main', network: podNetwork.id, cidr: parseCidr('10.50.0.0/24') };
function firstPool(): Pool {
  const [pool] = claimedFacts(blue, 'bgp').pools;
  assert.ok(pool !== undefined);
  return pool;
}

const blocksOf = (host: string, networks: readonly OwnNetwork[] = [blue], journal: Journal = new MemoryJournal()): KubernetesBlocks =>
  new KubernetesBlocks({
    client,
    host,
    journal,
    pool: (id) => (id === ippool.id ? { name: 'main', pool: ippool, mostBlocks: 1 } : claimedPool(id, networks)),
    wrote: () => undefined,
    now: () => 0,
  });
const claim = (host: KubernetesBlocks, pool = four): Promise<Block> => host.claimBlock({ network: blue.id, pool });
const stored = (): Block[] => [...api.objects.values()].map((item) => readBlock(item));

for (const [subnet, length] of [
  ['10.60.0.0/16', 28],
  ['10.60.0.0/22', 28],
  ['10.60.0.0/23', 29],
  ['10.60.0.0/24', 30],
  ['10.60.0.0/29', 30],
  ['10.60.0.0/30', 30],
  ['10.60.0.0/31', 31],
  ['fd60::/48', 124],
  ['fd60::/120', 126],
] as const)
  test(`nodes claim /${length} of ${subnet}`, () =>
    assert.deepEqual(
      claimedFacts(networkOf('shop/x', subnet), 'bgp').pools.map(({ cidr, blockLength }) => [cidr, blockLength]),
      [[subnet, length]],
    ));

test('they are carried by VXLAN, and encrypted where pods are', () => {
  const carried = (['bgp', 'bgp-cross-subnet', 'vxlan', 'wireguard'] as const).map((carry) => {
    const { network } = claimedFacts(blue, carry);
    return [network.choices.carry, network.encrypted, network.choices.domain, network.choices.address.borrow];
  });
  assert.deepEqual(carried, [
    ['vxlan', false, 'host', true],
    ['vxlan', false, 'host', true],
    ['vxlan', false, 'host', true],
    ['wireguard', true, 'host', true],
  ]);
});

test('two nodes that claim at once get blocks of their own, of both families', async () => {
  const hosts = ['one', 'two'].map((name) => blocksOf(name));
  const claimed = await Promise.all(hosts.flatMap((host) => [claim(host), claim(host, `${blue.id}p6`)]));
  assert.equal(new Set(claimed.map(({ cidr }) => cidr)).size, 4);
  for (const { network, pool, cidr } of claimed) {
    assert.equal(network, blue.id);
    assert.equal(pool, cidr.includes(':') ? `${blue.id}p6` : four);
  }
  // A host has as many as it needs; how many it may have of an IPPool is no matter.
  const one = blocksOf('one');
  await claim(one, ippool.id);
  await assert.rejects(claim(one, ippool.id), (error) => isFault(error, 'exhausted'));
  assert.equal((await claim(one)).host, 'one');
});

test('an IPPool that is called as a pool of such a network is another one', async () => {
  const [one] = [blocksOf('one')];
  assert.ok(one !== undefined);
  await claim(one);
  const [block] = stored();
  assert.ok(block !== undefined);
  const written = api.objects.get(block.name);
  assert.deepEqual(written?.spec, { pool: `${four}/shop/blue`, cidr: block.cidr, host: 'one', loans: [] });
  const odd = readBlock({ ...written, spec: { ...Object(written?.spec), pool: four } });
  assert.deepEqual([odd.network, odd.pool], [podNetwork.id, poolId(four)]);
  assert.ok(ownPoolName(four, `n/${'x'.repeat(253)}`).length <= 253);
});

test('a loan of a network that this host knows no more keeps the name of its pool', async () => {
  const [owner, borrower] = [blocksOf('owner'), blocksOf('borrower')];
  const block = await claim(owner);
  await borrower.askLoan(block, { id: 'loan', endpoint: 'e' });
  const later = blocksOf('owner', []);
  await later.settleLoan(block.id, 'loan', { state: 'granted', ip: parseIp('10.60.0.1') });
  assert.equal((await later.blocksOf(blue.id, four))[0]?.loans[0]?.state, 'granted');
});

const byId = <T extends { readonly id: string }>(items: readonly T[]): Map<string, T> => new Map(items.map((item) => [item.id, item]));
const snapshotOf = (blocks: readonly Block[]): Snapshot => {
  const { network, pools } = claimedFacts(blue, 'bgp');
  return {
    hosts: new Map(),
    networks: byId([network]),
    pools: byId(pools),
    blocks: byId(blocks),
    endpoints: new Map(),
    exposures: new Map(),
  };
};
const clock = { now: () => 0, after: () => () => undefined };

test('an agent that starts again has the addresses that it had, and its blocks also when the API has lost them', async () => {
  const journal = new MemoryJournal();
  const cluster = blocksOf('one', [blue], journal);
  let loans = 0;
  const start = (): AddressBook => new AddressBook({ journal, cluster, clock, host: 'one', newId: () => `loan${++loans}` });
  const first = start();
  first.blocksChanged({ snapshot: snapshotOf([]), revision: api.revision, live: true });
  const ips = [await first.request(four, 'a'), await first.request(four, 'b')];
  await first.reconcile(['a', 'b']);
  first[Symbol.dispose]();
  api.objects = new Map();
  const again = blocksOf('one', [blue], journal);
  assert.ok((await again.assert([])).some(({ cidr, network }) => network === blue.id && ips.every((ip) => contains(cidr, ip))));
  using second = start();
  second.blocksChanged({ snapshot: snapshotOf(stored()), revision: api.revision, live: true });
  assert.deepEqual([await second.request(four, 'a'), await second.request(four, 'b')], ips);
  assert.ok(!ips.includes(await second.request(four, 'c')));
  await second.reconcile(['a', 'b', 'c']);
});
