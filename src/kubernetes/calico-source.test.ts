// What an agent of the model `calico` hears of a cluster, from an API server that says what it was told to say.
import assert from 'node:assert/strict';
import { after, test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Controller } from '#agent/controller.ts';
import { MemoryJournal } from '#agent/journal.ts';
import type { WatchLine } from '#api/answers.ts';
import { defaultBgp } from '#model/bgp.ts';
import type { Pool } from '#model/resources.ts';
import { Api, listOf, serve } from './api.fixture.ts';
import { CalicoBgp } from './calico-bgp.ts';
import { ownPoolName, readBlock } from './blocks.ts';
import { readPool } from './calico.ts';
import { calicoController, type CalicoOptions } from './calico-controller.ts';
import { CalicoFacts } from './calico-facts.ts';
import { KubernetesClient } from './client.ts';
import { podNetwork } from './nodes.ts';
import { readOwnNetwork } from './own-network.ts';

const group = '/apis/projectcalico.org/v3';
const api = new Api();
const client = new KubernetesClient({ server: await api.listen() });
after(async () => {
  await client[Symbol.asyncDispose]();
  api.close();
});

const meta = (name: string, more: object = {}): object => ({
  name,
  resourceVersion: '7',
  creationTimestamp: '2026-01-01T00:00:00Z',
  ...more,
});
const node = (name: string, address: string, labels: object = {}, annotations: object = {}): object => ({
  metadata: meta(name, { labels, annotations }),
  status: { addresses: [{ type: 'InternalIP', address }] },
});
const spec = (name: string, said: object): object => ({ metadata: meta(name), spec: said });
const answer = (path: string, items: readonly object[], ...watches: readonly object[][]): void =>
  void api.paths.set(path, { lists: [listOf(10, items)], watches: [...watches] });

/** As the agent of the node `one`. */
const follow = (by: KubernetesClient, options: Pick<CalicoOptions, 'facts'> & Partial<CalicoOptions>): Controller =>
  calicoController(by, {
    host: 'one',
    further: { current: [], isNeeded: () => true, onChange: () => undefined, whenListed: () => Promise.resolve() },
    journal: new MemoryJournal(),
    log: { warn: () => undefined },
    now: () => 0,
    poolsChanged: () => undefined,
    saw: () => undefined,
    ...options,
  });

test('nodes, pools and blocks are told as one stream, and odd ones are left out', async () => {
  const warnings: unknown[] = [];
  const network = readOwnNetwork('shop/blue', {
    metadata: { creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: { config: '{"type":"causeway","subnets":["10.60.0.0/16","fd60::/48"]}' },
  });
  assert.ok(network !== undefined);
  answer('/api/v1/nodes', [
    node(
      'one',
      '10.213.0.1',
      { rack: 'a' },
      { 'projectcalico.org/ASNumber': '64513', 'causeway.dev/carry': 'bgp', 'causeway.dev/sends': 'bgp' },
    ),
    node('none', 'no address'),
  ]);
  answer(`${group}/ippools`, [spec('main', { cidr: '10.50.0.0/16', vxlanMode: 'CrossSubnet' }), spec('odd', { cidr: 'x' })]);
  answer(`${group}/ipreservations`, [spec('some', { reservedCIDRs: ['10.50.0.1', '10.60.0.0/16'] })]);
  answer(`${group}/ipamconfigurations`, [spec('default', { strictAffinity: true, maxBlocksPerHost: 3 })]);
  const block = { ...spec('10-50-0-64-26', { cidr: '10.50.0.64/26', host: 'one', pool: 'main' }) };
  answer(
    '/apis/causeway.dev/v1alpha1/blocks',
    [block, spec('10-60-0-0-28', { cidr: '10.60.0.0/28', host: 'two', pool: ownPoolName(`${network.id}p4`, network.key) })],
    [{ type: 'DELETED', object: { ...block, metadata: meta('10-50-0-64-26', { resourceVersion: '12' }) } }],
  );
  const facts = new CalicoFacts(undefined);
  const further = { current: [network], isNeeded: () => true, onChange: () => undefined, whenListed: () => Promise.resolve() };
  const controller = follow(client, { facts, further, log: { warn: (fields) => warnings.push(fields) } });
  const lines: WatchLine[] = [];
  const stop = new AbortController();
  for await (const line of controller.watch({ signal: stop.signal })) {
    lines.push(line);
    if (line.type === 'delete') break;
  }
  stop.abort();
  const seen = lines.map((line) => ('kind' in line ? `${line.type} ${line.kind}` : line.type));
  const networks = ['put networks', 'put networks', 'put pools', 'put pools', 'put pools'];
  assert.deepEqual(seen, [...networks, 'put hosts', 'put blocks', 'put blocks', 'synced', 'delete blocks']);
  const items = lines.flatMap((line) => (line.type === 'put' ? [line.item] : []));
  const [pods, blue, pool, four, six, host, , theirs] = items;
  assert.ok(
    pods !== undefined && 'choices' in pods && pool !== undefined && 'blockLength' in pool && host !== undefined && 'underlay' in host,
  );
  assert.deepEqual([pods.choices.carry, pods.choices.address.borrow, pods.choices.address.blocksPerHost], ['bgp-cross-subnet', false, 3]);
  assert.deepEqual(
    [pool.cidr, pool.blockLength, Object.values(pool.reserved), pool.keepsSender],
    ['10.50.0.0/16', 26, ['10.50.0.1/32'], true],
  );
  // Whatever the cluster's own network is carried by, and however many blocks a host may have of that.
  assert.ok(
    blue !== undefined && 'choices' in blue && four !== undefined && 'blockLength' in four && six !== undefined && 'blockLength' in six,
  );
  assert.deepEqual(
    [blue.choices.carry, blue.choices.domain, blue.choices.address.blocksPerHost, blue.internal, blue.present],
    ['vxlan', 'host', 0, true, undefined],
  );
  assert.deepEqual([four.cidr, four.blockLength, six.cidr, six.blockLength], ['10.60.0.0/16', 28, 'fd60::/48', 124]);
  assert.ok(theirs !== undefined && 'cidr' in theirs && 'pool' in theirs);
  assert.deepEqual([theirs.network, theirs.pool, theirs.host], [blue.id, four.id, 'two']);
  assert.deepEqual(host.labels, { rack: 'a', 'projectcalico.org/ASNumber': '64513' });
  // What it wants itself, and what it said last that it sends by.
  assert.deepEqual(host.carrying, { wants: 'bgp-cross-subnet', sends: ['bgp'] });
  assert.equal(warnings.length, 1);
  assert.deepEqual([...facts.pools.keys()], ['main']);
});

/** What an agent with this journal knows of pools once they have been listed, and pool `first` has gone if it was there. */
async function poolsKnown(t: TestContext, journal: MemoryJournal, pools: readonly object[], changes: readonly object[]): Promise<string[]> {
  const server = await serve(t);
  const say = (path: string, items: readonly object[], ...watches: readonly (readonly object[])[]): void =>
    void server.api.paths.set(path, { lists: [listOf(10, items)], watches: [...watches] });
  for (const path of ['/api/v1/nodes', `${group}/ipreservations`, `${group}/ipamconfigurations`, '/apis/causeway.dev/v1alpha1/blocks'])
    say(path, []);
  say(`${group}/ippools`, pools, changes);
  const facts = new CalicoFacts(undefined);
  const stop = new AbortController();
  const controller = follow(server.client, { facts, journal });
  for await (const line of controller.watch({ signal: stop.signal })) {
    if (line.type !== 'synced') continue;
    for (const end = performance.now() + 10_000; facts.pools.has('first'); await delay(5))
      assert.ok(performance.now() < end, 'nothing has changed');
    break;
  }
  stop.abort();
  return [...facts.pools.values()].map(({ name, cidr }) => `${name} ${cidr}`);
}

test('a pool that is edited to what cannot be read stays as it was, also for an agent that starts, until it is deleted', async (t) => {
  const journal = new MemoryJournal();
  const [first, main] = [spec('first', { cidr: '10.70.0.0/16' }), spec('main', { cidr: '10.50.0.0/16' })];
  const odd = spec('main', { cidr: '10.50.0.0/16', nodeSelector: 'has(a' });
  const known = (pools: readonly object[], changes: readonly object[] = [], of = journal): Promise<string[]> =>
    poolsKnown(t, of, pools, changes);
  const changes = [
    { type: 'MODIFIED', object: odd },
    { type: 'DELETED', object: first },
  ];
  assert.deepEqual(await known([first, main], changes), ['main 10.50.0.0/16']);
  assert.deepEqual(await known([odd, spec('new', { cidr: 'x' })]), ['main 10.50.0.0/16']);
  assert.deepEqual(await known([odd], [], new MemoryJournal()), [], 'one that has never been read');
  assert.deepEqual(await known([]), []);
  assert.deepEqual(await known([odd]), [], 'another one of its name');
});

test('ranges of blocks that no pool has any more stay those of pods as long as there are such blocks', async (t) => {
  const server = await serve(t);
  const say = (path: string, items: readonly object[], ...watches: readonly (readonly object[])[]): void =>
    void server.api.paths.set(path, { lists: [listOf(10, items)], watches: [...watches] });
  for (const path of ['/api/v1/nodes', `${group}/ipreservations`, `${group}/ipamconfigurations`]) say(path, []);
  const block = (name: string, said: object): object => spec(name, { host: 'one', ...said });
  const last = block('10-70-0-0-26', { cidr: '10.70.0.0/26', pool: 'old' });
  const moved = ['10.50.0.0/26', '10.50.0.64/26'].map((cidr) => block(cidr.replaceAll(/[./]/g, '-'), { cidr, pool: 'main' }));
  say(`${group}/ippools`, [spec('main', { cidr: '10.60.0.0/16', natOutgoing: true, disableBGPExport: true })]);
  const deleted = { type: 'DELETED', object: { ...last, metadata: meta('10-70-0-0-26', { resourceVersion: '12' }) } };
  say('/apis/causeway.dev/v1alpha1/blocks', [...moved, last], [deleted]);
  const facts = new CalicoFacts(undefined);
  let changes = 0;
  const controller = follow(server.client, { facts, poolsChanged: () => (changes += 1) });
  const pools = new Map<string, Pool>();
  const stop = new AbortController();
  for await (const line of controller.watch({ signal: stop.signal })) {
    if (line.type === 'put' && line.kind === 'pools' && 'blockLength' in line.item) pools.set(line.item.id, line.item);
    if (line.type === 'synced') {
      assert.deepEqual(
        [...pools.values()].map(({ cidr, network, keepsSender }) => [cidr, network, keepsSender]),
        [
          ['10.60.0.0/16', podNetwork.id, undefined],
          ['10.50.0.0/25', podNetwork.id, undefined],
          ['10.70.0.0/26', podNetwork.id, undefined],
        ],
      );
      changes = 0;
    }
    if (line.type !== 'delete' || line.kind !== 'pools') continue;
    assert.equal(pools.get(line.id)?.cidr, '10.70.0.0/26');
    break;
  }
  stop.abort();
  assert.deepEqual([facts.ranges, changes], [['10.60.0.0/16', '10.50.0.0/25'], 1]);
  assert.deepEqual(facts.silent(), ['10.60.0.0/16', '10.50.0.0/25'], 'as its pool says');
});

test('a block of which a pool has only a part any more is left with all of its addresses', () => {
  const facts = new CalicoFacts(undefined);
  facts.pools.set('main', readPool('main', { cidr: '10.50.0.0/27', blockSize: 28 }));
  const block = readBlock(spec('10-50-0-0-26', { cidr: '10.50.0.0/26', host: 'one', pool: 'main' }));
  facts.blocks.set(block.id, block);
  facts.arePoolsKnown = true;
  assert.deepEqual(facts.ranges, ['10.50.0.0/27', '10.50.0.0/26']);
});

test('settings of BGP are kept for an agent that starts while the API is away; what cannot be used is told once', async () => {
  const journal = new MemoryJournal();
  const warnings: unknown[] = [];
  answer(`${group}/bgpconfigurations`, [spec('default', { asNumber: 64_600 }), spec('node.one', { asNumber: 1 })]);
  answer(`${group}/bgpfilters`, []);
  answer(`${group}/bgppeers`, [
    spec('tor', { peerIP: '10.213.0.9', asNumber: 65_001, password: { secretKeyRef: { name: 'bgp', key: 'password' } } }),
    spec('odd', { peerIP: '10.213.0.9' }),
  ]);
  api.paths.set('/api/v1/namespaces/kube-system/secrets/bgp', {
    lists: [{ data: { password: Buffer.from('hello\n').toString('base64') } }],
    watches: [],
  });
  const told = Promise.withResolvers<void>();
  const log = { warn: (fields: object) => warnings.push(fields) };
  const source = new CalicoBgp({ client, journal, log, changed: () => told.resolve(), silent: () => [] });
  assert.equal(source.current(), undefined);
  source.start();
  await told.promise;
  const settings = source.current();
  assert.ok(source.isSynced());
  assert.deepEqual(
    [settings?.asn, settings?.mesh, settings?.peerings.map(({ name, password }) => [name, password])],
    [64_600, defaultBgp.mesh, [['tor', 'hello']]],
  );
  assert.equal(warnings.length, 1);
  await source[Symbol.asyncDispose]();
  const later = new CalicoBgp({ client, journal, log, changed: () => undefined, silent: () => [] });
  assert.deepEqual(later.current(), settings);
  assert.equal(later.isSynced(), false);
});
