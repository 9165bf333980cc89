// How a host's speaker is set from what controllers say, while they come and go.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeHost } from '#drivers/cluster.fixture.ts';
import { Fault } from '#model/fault.ts';
import type { BgpResource, Host, Secret } from '#model/resources.ts';
import { type BgpFacts, ClusterBgp } from './cluster-bgp.ts';
import { MemoryJournal } from './journal.ts';

const meta = (name: string, revision: number) => ({ id: name, name, revision, createdAt: '2026-01-01T00:00:00Z', labels: {} });
const peer: BgpResource = {
  ...meta('fabric', 1),
  id: 'bgppeer.fabric',
  sort: 'BGPPeer',
  spec: { peerIP: '10.213.1.1', asNumber: 64_600, password: { secretKeyRef: { name: 'fabric', key: 'password' } } },
};
const filter = (spec: BgpResource['spec']): BgpResource => ({ ...meta('some', 2), id: 'bgpfilter.some', sort: 'BGPFilter', spec });
const secret = (revision: number): Secret => ({ ...meta('fabric', revision), keys: ['password'] });

const of = <T extends { readonly id: string }>(list: readonly T[]): Map<string, T> => new Map(list.map((one) => [one.id, one]));

class Scene implements Disposable {
  readonly journal: MemoryJournal;
  readonly bgp: ClusterBgp;
  readonly warnings: unknown[] = [];
  readonly asked: string[] = [];
  text: string | undefined = 'first';
  changes = 0;
  facts: BgpFacts = { self: undefined, bgp: new Map(), secrets: new Map(), isSynced: false };

  constructor(journal: MemoryJournal = new MemoryJournal()) {
    this.journal = journal;
    this.bgp = new ClusterBgp({
      journal,
      facts: () => this.facts,
      texts: async (name) => {
        this.asked.push(name);
        if (this.text === undefined) throw new Fault('unavailable', 'No controller answers');
        return { password: this.text };
      },
      changed: () => void this.changes++,
      log: { warn: (fields) => this.warnings.push(fields) },
    });
  }

  async tell(resources: readonly BgpResource[], secrets: readonly Secret[], self: Host = makeHost(1)): Promise<void> {
    this.facts = { self, bgp: of(resources), secrets: of(secrets), isSynced: true };
    this.bgp.touch();
    await new Promise((resolve) => void setTimeout(resolve, 0));
  }

  passwords(): (string | undefined)[] | undefined {
    return this.bgp.current()?.peerings.map(({ password }) => password);
  }

  [Symbol.dispose](): void {
    this.bgp[Symbol.dispose]();
  }
}

test('nothing is planned before anything is known, and what is known comes with its passwords', async () => {
  using scene = new Scene();
  scene.bgp.start();
  assert.equal(scene.bgp.current(), undefined);
  assert.equal(scene.bgp.isSynced(), false);
  await scene.tell([peer], [secret(1)]);
  assert.deepEqual(scene.passwords(), ['first']);
  assert.equal(scene.bgp.isSynced(), true);
  assert.equal(scene.changes, 1);
  const settings = scene.bgp.current();
  await scene.tell([peer], [secret(1)]);
  assert.equal(scene.bgp.current(), settings, 'the same value while nothing has changed');
  assert.deepEqual(scene.asked, ['fabric']);
  scene.text = 'second';
  await scene.tell([peer], [secret(2)]);
  assert.deepEqual(scene.passwords(), ['second']);
});

test('an agent that starts while no controller answers goes on with the passwords it knew', async () => {
  using before = new Scene();
  await before.tell([peer], [secret(1)]);
  using after = new Scene(before.journal);
  after.text = undefined;
  after.facts = { ...before.facts, isSynced: false };
  after.bgp.start();
  assert.deepEqual(after.passwords(), ['first']);
  assert.equal(after.bgp.isSynced(), false);
});

test('a new password that cannot be had yet leaves the old one in place', async () => {
  using scene = new Scene();
  await scene.tell([peer], [secret(1)]);
  scene.text = undefined;
  await scene.tell([peer], [secret(2)]);
  assert.deepEqual(scene.passwords(), ['first']);
});

test('a journal that was lost: no speaker is planned without its passwords', async () => {
  using scene = new Scene();
  scene.facts = { self: makeHost(1), bgp: new Map([[peer.id, peer]]), secrets: new Map([['fabric', secret(1)]]), isSynced: false };
  scene.bgp.start();
  assert.equal(scene.bgp.current(), undefined);
  await new Promise((resolve) => void setTimeout(resolve, 0));
  assert.deepEqual(scene.passwords(), ['first']);
});

test('a peer without its secret is left out and told; hosts that a peer is not for ask for nothing', async () => {
  using scene = new Scene();
  await scene.tell([peer], []);
  assert.deepEqual(scene.passwords(), []);
  assert.match(scene.bgp.problems.join(), /^BGPPeer fabric: secret fabric has no password/);
  assert.equal(scene.warnings.length, 1);
  await scene.tell([{ ...peer, spec: { ...peer.spec, node: 'another' } }], [secret(1)]);
  assert.deepEqual(scene.asked, []);
});

test('a peer whose filter is missing or wrong is left out and told, and is there with it', async () => {
  using scene = new Scene();
  const filtered = { ...peer, spec: { peerIP: '10.213.1.1', asNumber: 64_600, filters: ['some'] } };
  for (const others of [[], [filter({ importV4: [{}] })]]) {
    await scene.tell([filtered, ...others], []);
    assert.deepEqual(scene.passwords(), []);
    assert.match(scene.bgp.problems.join(), /BGPPeer fabric: there is no BGPFilter some/);
  }
  await scene.tell([filtered, filter({})], []);
  assert.deepEqual([scene.passwords(), scene.bgp.problems], [[undefined], []]);
});
