// The reconciler on the fake kernel: what hangs on a link, what may be removed when.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Desired, emptyDesired, type VethLink, type VxlanLink } from '#model/desired.ts';
import { parseCidr, parseIp, parseMac } from '#model/ip.ts';
import { createFakeKinds } from '#kernel/fake.ts';
import { Reconciler } from './reconcile.ts';

const netns = 'cw-test';
const veth: VethLink = {
  type: 'veth',
  netns,
  name: 'cwe1',
  mtu: 1400,
  mac: parseMac('02:63:77:ff:ff:01'),
  alias: 'causeway test one',
  peer: { netns: '/sandbox', name: 'eth0', mac: parseMac('0a:63:0a:00:00:05'), mtu: 1400, up: false },
};
const vxlan: VxlanLink = {
  type: 'vxlan',
  netns,
  name: 'cwx1',
  mtu: 1400,
  mac: parseMac('02:63:77:00:00:01'),
  alias: 'causeway test',
  vni: 1,
  port: 8472,
  local: parseIp('192.0.2.1'),
  checksum: false,
};
const desired: Desired = {
  ...emptyDesired,
  netns: [{ name: netns }],
  link: [veth, vxlan],
  neigh: [
    { netns, link: 'cwe1', ip: parseIp('10.0.0.5'), mac: parseMac('0a:63:0a:00:00:05') },
    { netns, link: 'cwx1', ip: parseIp('100.126.0.2'), mac: parseMac('02:63:77:00:00:02') },
  ],
  route: [{ netns, destination: parseCidr('10.0.0.5/32'), link: 'cwe1', onlink: false, type: 'unicast' }],
  fdb: [{ netns, link: 'cwx1', mac: parseMac('02:63:77:00:00:02'), remote: parseIp('192.0.2.2') }],
};

test('a link that is made anew gets back what hung on it in the same run', () => {
  const kinds = createFakeKinds();
  const reconciler = new Reconciler(kinds);
  assert.equal(reconciler.apply(desired, true).changed, 7);
  const moved = { ...desired, link: [veth, { ...vxlan, local: parseIp('192.0.2.9') }] };
  assert.deepEqual(reconciler.apply(moved, true).failing, []);
  assert.equal(kinds.fdb.list(netns).length, 1);
  assert.equal(kinds.neigh.list(netns).length, 2);
  assert.equal(reconciler.apply(moved, true).changed, 0);
});

test('a new alias writes the link and nothing else, and is no reason to look into the container', () => {
  const kinds = createFakeKinds();
  const reconciler = new Reconciler(kinds);
  reconciler.apply(desired, true);
  const before = kinds.writes;
  const outcome = reconciler.apply({ ...desired, link: [{ ...veth, alias: 'causeway test two' }, vxlan] }, true);
  assert.equal(kinds.writes - before, 1);
  assert.deepEqual(outcome.remadeLinks, []);
});

test('a pair whose far end is in a container is told when it had to be made', () => {
  const kinds = createFakeKinds();
  const reconciler = new Reconciler(kinds);
  assert.deepEqual(reconciler.apply(desired, true).remadeLinks, [veth]);
  kinds.lose('link', kinds.link.key(veth));
  reconciler.suspect(netns);
  const { remadeLinks, failing } = reconciler.apply(desired, true);
  assert.deepEqual([remadeLinks, failing], [[veth], []]);
  assert.equal(kinds.route.list(netns).length, 1);
});

test('before every source is in sync only what this process wanted itself is removed', () => {
  const kinds = createFakeKinds();
  new Reconciler(kinds).apply(desired, true);
  const restarted = new Reconciler(kinds);
  const less = { ...desired, link: [veth], neigh: desired.neigh.slice(0, 1), fdb: [] };
  assert.equal(restarted.apply(less, false).changed, 0);
  assert.equal(restarted.apply({ ...less, route: [] }, false).changed, 1);
  assert.equal(restarted.apply(less, true).changed, 4);
  assert.deepEqual(kinds.fdb.list(netns), []);
});
