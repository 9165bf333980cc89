import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import type { WatchLine } from '#api/answers.ts';
import { makeBlock, makeCluster, makeEndpoint, makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { Fault } from '#model/fault.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Endpoint, Network, Snapshot } from '#model/resources.ts';
import { MemoryJournal } from './journal.ts';
import { View } from './view.ts';

const network = (revision: number, more: Partial<Network> = {}): Network => ({
  ...makeNetwork('aaaaaaaaaa'),
  name: 'net',
  ...more,
  revision,
});
const endpoint = (number: number, revision: number): Endpoint => ({
  ...makeEndpoint('aaaaaaaaaa', 'host-1', number, [parseIp(`10.0.0.${number + 2}`)]),
  revision,
});
const put = (kind: 'networks' | 'endpoints', item: Network | Endpoint, revision = item.revision): WatchLine =>
  ({ type: 'put', kind, item, revision }) as WatchLine;
const gone = (kind: 'networks' | 'endpoints', id: string, revision: number): WatchLine => ({ type: 'delete', kind, id, revision });
const synced = (revision: number, whole: boolean): WatchLine => ({ type: 'synced', revision, whole });

function bed(journal = new MemoryJournal()) {
  const changes = { count: 0 };
  return { view: new View({ journal, changed: () => (changes.count += 1) }), journal, changes };
}

function listed(...items: Network[]): ReturnType<typeof bed> {
  const all = bed();
  all.view.begin();
  for (const item of items) all.view.apply(put('networks', item));
  all.view.apply(synced(Math.max(0, ...items.map(({ revision }) => revision)), true));
  return all;
}

const shown = ({ networks, endpoints }: Snapshot) => [
  [...networks.values()].map(({ id, revision }) => `${id} ${revision}`),
  [...endpoints.values()].map(({ owner, revision }) => `${owner} ${revision}`),
];

test('what a new stream says counts when it has said everything', () => {
  const { view, changes } = bed();
  view.begin();
  view.apply(put('networks', network(3)));
  view.apply(put('endpoints', endpoint(1, 4)));
  view.apply({ type: 'bookmark', revision: 9 });
  assert.deepEqual([shown(view.snapshot), view.isSynced, view.revision, changes.count], [[[], []], false, 0, 0]);
  view.apply(synced(5, true));
  assert.deepEqual([shown(view.snapshot), view.isSynced, view.revision, changes.count], [[['aaaaaaaaaa 3'], ['box-1 4']], true, 5, 1]);
});

test('a whole listing replaces everything, a resumed one adds to it', () => {
  const { view } = listed(network(3));
  view.begin();
  view.apply(put('endpoints', endpoint(1, 6)));
  view.apply(gone('networks', 'aaaaaaaaaa', 7));
  view.apply(put('endpoints', endpoint(2, 8)));
  view.apply(synced(8, false));
  assert.deepEqual([shown(view.snapshot), view.revision], [[[], ['box-1 6', 'box-2 8']], 8]);
  view.begin();
  view.apply(put('endpoints', endpoint(2, 8)));
  view.apply(synced(12, true));
  assert.deepEqual([shown(view.snapshot), view.revision], [[[], ['box-2 8']], 12]);
});

test('a stream that breaks before it was complete has changed nothing, also not where the next begins', () => {
  const { view } = listed(network(3));
  view.begin();
  view.apply(gone('networks', 'aaaaaaaaaa', 7));
  view.apply({ type: 'bookmark', revision: 8 });
  view.begin();
  view.apply(synced(3, false));
  assert.deepEqual([shown(view.snapshot), view.revision], [[['aaaaaaaaaa 3'], []], 3]);
});

test('after that every line counts at once, and may come twice', () => {
  const { view } = listed(network(3));
  for (const line of [put('endpoints', endpoint(1, 6)), put('endpoints', endpoint(1, 6)), gone('endpoints', endpoint(1, 6).id, 7)])
    view.apply(line);
  view.apply(gone('endpoints', endpoint(1, 6).id, 7));
  assert.deepEqual([shown(view.snapshot), view.revision], [[['aaaaaaaaaa 3'], []], 7]);
  view.apply({ type: 'bookmark', revision: 11 });
  assert.equal(view.revision, 11);
});

test('a snapshot that somebody holds does not change', () => {
  const { view } = listed(network(3));
  const before = view.snapshot;
  view.apply(put('networks', network(5)));
  view.learn('endpoints', endpoint(1, 6));
  view.forget('networks', 'aaaaaaaaaa');
  assert.deepEqual(shown(before), [['aaaaaaaaaa 3'], []]);
});

test('what an answer has brought is known ahead of the watch, and the watch does not take it back', () => {
  const { view, changes } = listed(network(3));
  const before = changes.count;
  view.learn('networks', network(9));
  view.learn('networks', network(8));
  assert.equal(changes.count - before, 1);
  view.apply(put('networks', network(5)));
  assert.deepEqual(shown(view.snapshot), [['aaaaaaaaaa 9'], []]);
  assert.equal(view.revision, 5);
  view.apply(gone('networks', 'aaaaaaaaaa', 6));
  assert.deepEqual(shown(view.snapshot), [['aaaaaaaaaa 9'], []], 'an older deletion is of something else');
  view.apply(put('networks', network(9)));
  view.apply(gone('networks', 'aaaaaaaaaa', 10));
  assert.deepEqual(shown(view.snapshot), [[], []]);
});

test('a listing by a controller that is behind does not lose what was learned; one that is not does', () => {
  const { view } = listed(network(3));
  view.learn('endpoints', endpoint(1, 9));
  view.begin();
  view.apply(put('networks', network(3)));
  view.apply(synced(7, true));
  assert.deepEqual(shown(view.snapshot), [['aaaaaaaaaa 3'], ['box-1 9']]);
  view.begin();
  view.apply(put('networks', network(3)));
  view.apply(synced(9, true));
  assert.deepEqual(shown(view.snapshot), [['aaaaaaaaaa 3'], []]);
});

test('what is forgotten ahead of the watch stays so when the watch tells of it', () => {
  const { view } = listed(network(3));
  view.forget('networks', 'aaaaaaaaaa');
  view.apply(gone('networks', 'aaaaaaaaaa', 6));
  assert.deepEqual([shown(view.snapshot), view.revision], [[[], []], 6]);
});

test('kinds that a host does not keep are passed over', () => {
  const { view } = listed(network(3));
  const tenant = { id: 'red', name: 'red', revision: 6, createdAt: '2026-01-01T00:00:00.000Z', labels: {}, description: '' };
  view.apply({ type: 'put', kind: 'tenants', item: tenant, revision: 6 });
  view.apply({ type: 'delete', kind: 'tenants', id: 'red', revision: 7 });
  assert.deepEqual([shown(view.snapshot), view.revision], [[['aaaaaaaaaa 3'], []], 7]);
});

test('a controller that does not know the revision any more is asked for everything', () => {
  const { view } = listed(network(3));
  view.forgetRevision();
  assert.deepEqual([view.revision, view.isSynced], [0, true]);
});

test('another process takes up what was saved, but is not in sync by that', () => {
  const { view, journal } = listed(network(3));
  view.apply(put('endpoints', endpoint(1, 4)));
  view.apply(put('endpoints', endpoint(2, 5)));
  view.save();
  view.apply(gone('endpoints', endpoint(1, 4).id, 6));
  view.save();
  const later = bed(journal).view;
  later.load();
  assert.deepEqual([later.snapshot, later.revision, later.isSynced], [view.snapshot, 6, false]);
});

test('what a whole listing no longer has is not taken up again', () => {
  const { view, journal } = listed(network(3));
  view.save();
  view.begin();
  view.apply(synced(9, true));
  view.save();
  const later = bed(journal).view;
  later.load();
  assert.deepEqual([shown(later.snapshot), later.revision], [[[], []], 9]);
});

test('what was learned without ever having had a listing is not taken up, and does not come back later', () => {
  const first = bed();
  first.view.learn('networks', network(3));
  first.view.save();
  const second = bed(first.journal).view;
  second.load();
  assert.deepEqual(shown(second.snapshot), [[], []]);
  second.begin();
  second.apply(synced(9, true));
  second.save();
  const third = bed(first.journal).view;
  third.load();
  assert.deepEqual([shown(third.snapshot), third.revision], [[[], []], 9]);
});

test('saving writes nothing when nothing has changed, and all of it later when it failed', () => {
  class FullJournal extends MemoryJournal {
    isFull = false;
    writes = 0;
    override put(key: string, value: unknown): void {
      if (this.isFull) throw new Fault('unavailable', 'The disk is full');
      this.writes += 1;
      super.put(key, value);
    }
  }
  const journal = new FullJournal();
  const { view } = bed(journal);
  view.begin();
  view.apply(put('networks', network(3)));
  view.apply(synced(3, true));
  view.save();
  const { writes } = journal;
  view.save();
  assert.equal(journal.writes, writes);
  journal.isFull = true;
  view.apply(put('endpoints', endpoint(1, 4)));
  assert.throws(() => view.save(), { code: 'unavailable' });
  view.apply(put('endpoints', endpoint(2, 5)));
  assert.throws(() => view.save(), { code: 'unavailable' });
  journal.isFull = false;
  view.save();
  const later = bed(journal).view;
  later.load();
  assert.deepEqual(later.snapshot, view.snapshot);
});

const damages: readonly { readonly what: string; readonly key: string; readonly value: unknown }[] = [
  { what: 'a record that is a number', key: 'view/networks/aaaaaaaaaa', value: 5 },
  { what: 'a record that lacks a field', key: 'view/networks/aaaaaaaaaa', value: { ...network(3), vni: undefined } },
  { what: 'an address that is none', key: `view/endpoints/${endpoint(1, 4).id}`, value: { ...endpoint(1, 4), addresses: ['10.0.0.999'] } },
  { what: "a record under another's key", key: 'view/networks/bbbbbbbbbb', value: network(3) },
  { what: 'a revision that is a text', key: 'view/revision', value: '5' },
];
for (const { what, key, value } of damages) {
  test(`of damaged records nothing is taken up, and the next listing puts everything right: ${what}`, () => {
    const { view, journal } = listed(network(3));
    view.apply(put('endpoints', endpoint(1, 4)));
    view.save();
    journal.put(key, value);
    const second = bed(journal).view;
    assert.throws(() => second.load(), { code: 'corrupt' });
    assert.deepEqual([shown(second.snapshot), second.revision], [[[], []], 0]);
    second.begin();
    second.apply(put('networks', network(3)));
    second.apply(synced(8, true));
    second.save();
    const third = bed(journal).view;
    third.load();
    assert.deepEqual([shown(third.snapshot), third.revision], [[['aaaaaaaaaa 3'], []], 8]);
  });
}

test('fields that a newer version has written are passed over', () => {
  const { view, journal } = listed(network(3));
  view.save();
  journal.put('view/networks/aaaaaaaaaa', { ...network(3), colour: 'red' });
  const later = bed(journal).view;
  later.load();
  assert.deepEqual(later.snapshot, view.snapshot);
});

test('a whole cluster is kept and taken up', () => {
  const { snapshot } = makeCluster(20, 5);
  const { view, journal } = bed();
  view.begin();
  for (const kind of ['hosts', 'networks', 'endpoints'] as const)
    for (const item of snapshot[kind].values()) {
      const named = kind === 'hosts' ? { ...makeHost(1), ...item, wireguard: { publicKey: Buffer.alloc(32).toString('base64') } } : item;
      view.apply({ type: 'put', kind, item: named, revision: 1 } as WatchLine);
    }
  view.apply(synced(1, true));
  view.save();
  const later = bed(journal).view;
  later.load();
  assert.deepEqual(later.snapshot, view.snapshot);
});

test('however streams break and are resumed, the view ends as the cluster is', () => {
  const action = fc.oneof(
    fc.record({ do: fc.constantFrom('put' as const, 'delete' as const), number: fc.integer({ min: 1, max: 4 }) }),
    fc.record({
      do: fc.constantFrom('line' as const, 'break' as const, 'compact' as const, 'restart' as const, 'learn' as const),
      number: fc.constant(1),
    }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const journal = new MemoryJournal();
      const cluster = new Map<string, Endpoint>();
      const log: WatchLine[] = [];
      let [revision, compacted] = [0, 0];
      let view = bed(journal).view;
      let stream: WatchLine[] = [];
      let told = 0;
      const open = () => {
        view.begin();
        const since = view.isSynced ? view.revision : 0;
        const isWhole = since === 0 || since < compacted;
        const past = isWhole ? [...cluster.values()].map((item) => put('endpoints', item)) : log.filter((line) => line.revision > since);
        stream = [...past, synced(revision, isWhole)];
        told = revision;
      };
      const refill = () => {
        stream.push(...log.filter((line) => line.revision > told));
        told = revision;
      };
      open();
      for (const { do: what, number } of actions) {
        if (what === 'put') {
          const item = endpoint(number, (revision += 1));
          cluster.set(item.id, item);
          log.push(put('endpoints', item));
        } else if (what === 'delete') {
          const { id } = endpoint(number, 0);
          if (cluster.delete(id)) log.push(gone('endpoints', id, (revision += 1)));
        } else if (what === 'line') {
          refill();
          const line = stream.shift();
          if (line !== undefined) view.apply(line);
        } else if (what === 'learn') {
          const [item] = cluster.values();
          if (item !== undefined) view.learn('endpoints', item);
        } else if (what === 'restart') {
          view.save();
          view = bed(journal).view;
          view.load();
          open();
        } else {
          if (what === 'compact') compacted = revision;
          open();
        }
      }
      refill();
      for (const line of stream) view.apply(line);
      assert.deepEqual(Object.fromEntries(view.snapshot.endpoints), Object.fromEntries(cluster));
      assert.equal(view.revision, revision);
    }),
    { numRuns: 200 },
  );
});

test('pools and blocks come and go like the rest', () => {
  const pool = makePool('aaaaaaaaaa', parseCidr('10.0.0.0/24'), 27);
  const { view } = listed(network(3));
  view.learn('pools', pool);
  view.learn('blocks', makeBlock(pool, 1, 'host-1'));
  assert.deepEqual([[...view.snapshot.pools.keys()], [...view.snapshot.blocks.keys()]], [['aaaaaaaaaa-pool-4'], ['aaaaaaaaaa-pool-4-1']]);
});

test('a listing that tells of what is known keeps it as it is and writes only what differs', () => {
  const journal = new (class extends MemoryJournal {
    readonly written: string[] = [];
    override put(key: string, value: unknown): void {
      this.written.push(key);
      super.put(key, value);
    }
  })();
  const { view } = bed(journal);
  const list = (...items: Endpoint[]): Map<string, Endpoint> => {
    view.begin();
    for (const item of items) view.apply(put('endpoints', item));
    view.apply(synced(9, true));
    journal.written.length = 0;
    view.save();
    return new Map(view.snapshot.endpoints);
  };
  const before = list(endpoint(1, 4), endpoint(2, 5), endpoint(3, 6));
  const [same, sameRevision, newer] = [endpoint(1, 4), { ...endpoint(2, 5), owner: 'other' }, endpoint(3, 7)];
  const after = list(structuredClone(same), sameRevision, newer);
  assert.equal(after.get(same.id), before.get(same.id));
  assert.deepEqual([...after.values()], [same, sameRevision, newer]);
  assert.deepEqual(journal.written, [`view/endpoints/${sameRevision.id}`, `view/endpoints/${newer.id}`, 'view/revision']);
});
