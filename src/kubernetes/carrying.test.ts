// What a node says of itself: nothing before it can be sent to, and that it is full as soon as no pod could have an address.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeBlock, makeHost, makePool, snapshotOf } from '#drivers/cluster.fixture.ts';
import { parseCidr } from '#model/ip.ts';
import { type Wished, wishFor } from './carrying.ts';
import { clusterNetwork, podNetwork } from './nodes.ts';

const podCidrs = [parseCidr('10.244.0.0/16')];
const pool = makePool(podNetwork.id, parseCidr('10.244.0.0/16'), 24);
const blocks = [makeBlock(pool, 1, 'host-1'), makeBlock(pool, 2, 'host-2')];
const { network } = clusterNetwork({ podCidrs }, blocks);
const hosts = [makeHost(1, { carrying: { wants: 'wireguard' } }), makeHost(2, { carrying: { wants: 'vxlan', receives: ['vxlan'] } })];

const wished = (change: Partial<Wished> = {}) => {
  const facts = snapshotOf({ hosts, networks: [network], pools: [pool], blocks });
  return wishFor('host-1', 'key', { facts, isInPlace: true, isExhausted: () => false, ...change });
};

test('what is in place is told with what is wanted and what is used meanwhile', () => {
  const { annotations, network: condition } = wished() ?? assert.fail();
  assert.deepEqual(
    ['carry', 'sends', 'receives'].map((key) => annotations[`causeway.dev/${key}`]),
    ['wireguard', 'vxlan', 'vxlan,wireguard'],
  );
  assert.equal(condition.isAvailable, true);
});

test('nothing is told while something is not in place, or the node has no range', () => {
  assert.deepEqual([wished({ isInPlace: false }), wished({ facts: snapshotOf({ hosts, networks: [network] }) })], [undefined, undefined]);
});
