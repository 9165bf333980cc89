import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeBlock, makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { parseCidr } from '#model/ip.ts';
import { planCloud } from './plan.ts';
import { perform, portOf, stateOf } from './plan.fixture.ts';
import { type CloudFacts, emptyWish, keyOfRule, type Wish, wishOf } from './wish.ts';

const network = { ...makeNetwork('ports', { model: 'neutron' }), neutron: { network: 'net', subnet: 'subnet' } };
const pool = { ...makePool('ports', parseCidr('10.213.0.0/16'), 30), range: parseCidr('10.213.128.0/17') };
const block = makeBlock(pool, 8192, 'host-1');
const facts: CloudFacts = {
  hosts: [makeHost(1), makeHost(2)],
  networks: [network],
  pools: [pool],
  blocks: [block],
  endpoints: [],
  exposures: [],
};
const addresses = ['10.213.128.0', '10.213.128.1', '10.213.128.2', '10.213.128.3'];

function reached(wish: Wish, state = stateOf()): ReturnType<typeof stateOf> {
  const after = planCloud(wish, state).steps.reduce((now, step) => perform(wish, now, step), state);
  assert.deepEqual(planCloud(wish, after).steps, [], 'a second plan has nothing to do');
  return after;
}

test('a block is a pool of ports, made at once, and each of its addresses a pair of its host', () => {
  const wish = wishOf(facts, 'cw');
  const made = planCloud(wish, stateOf()).steps.filter((step) => step.type === 'make-ports');
  assert.deepEqual(
    made.map(({ host, ports }) => [host, ports.map(({ ip }) => ip)]),
    [['host-1', addresses]],
  );
  const [one, two, ...pooled] = reached(wish).ports;
  assert.deepEqual(
    one?.pairs.map((pair) => pair.ip_address),
    addresses,
  );
  assert.deepEqual(two?.pairs, []);
  assert.deepEqual(
    pooled.map(({ device }) => device),
    Array.from({ length: 4 }, () => 'causeway.cw.host-1'),
  );
  assert.ok(planCloud(wish, reached(wish)).needs.every(({ isAllowed }) => isAllowed));
});

test('rules are those between members of the group, however many blocks there are, and no router is told of them', () => {
  const { groups, routes } = wishOf({ ...facts, blocks: [block, makeBlock(pool, 8193, 'host-2')] }, 'cw');
  assert.deepEqual(
    groups.flatMap(({ rules }) => rules.map(keyOfRule)),
    ['ingress IPv4 any all hosts', 'egress IPv4 any all hosts'],
  );
  assert.deepEqual(routes, { ranges: [], routes: [] });
});

test('what nothing needs any more goes; pairs and ports of others stay', () => {
  const theirs = portOf(3, {
    owner: 'causeway:container',
    device: 'causeway.other.host-1',
    addresses: [{ ip: '10.213.9.9', subnetId: 'subnet' }],
  });
  const start = stateOf({ ports: [portOf(1, { pairs: [{ ip_address: '10.213.200.1' }] }), portOf(2), theirs] });
  const full = reached(wishOf(facts, 'cw'), start);
  assert.equal(full.ports.length, 7);
  const moved = reached(wishOf({ ...facts, blocks: [makeBlock(pool, 8193, 'host-2')] }, 'cw'), full);
  assert.deepEqual(
    moved.ports.slice(0, 2).map(({ pairs }) => pairs.length),
    [1, 4],
  );
  const left = reached(emptyWish('cw'), moved);
  assert.deepEqual(left.ports, start.ports);
});

test('quotas of ports are foretold, and more pairs than a port takes', () => {
  const quotas = { port: { limit: 5, used: 2 } };
  const { quotas: uses, problems } = planCloud(wishOf(facts, 'cw'), stateOf({ quotas }));
  assert.deepEqual(
    uses.find(({ name }) => name === 'port'),
    { name: 'port', limit: 5, before: 2, after: 6, most: 6 },
  );
  assert.match(problems.join(), /quota of ports is exhausted: 6 are needed, 5 allowed/);
  const large = makeBlock({ ...pool, blockLength: 28 }, 2048, 'host-1');
  assert.match(planCloud(wishOf({ ...facts, blocks: [large] }, 'cw'), stateOf()).problems.join(), /would need 16 allowed address pairs/);
});
