// What a node says of itself: nothing before it can be sent to, and that it is full as soon as no pod could have an address.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeBlock, makeHost, makePool, snapshotOf } from '#drivers/cluster.fixture.ts';
import { type Cidr, hostPrefix, parseCidr, parseIp } from '#model/ip.ts';
import type { Carrying, Host } from '#model/resources.ts';
import { type Wished, wishFor } from './carrying.ts';
import { clusterNetwork, podNetwork } from './nodes.ts';

const podCidrs = [parseCidr('10.244.0.0/16')];
const pool = makePool(podNetwork.id, parseCidr('10.244.0.0/16'), 24);
const blocks = [makeBlock(pool, 1, 'host-1'), makeBlock(pool, 2, 'host-2')];
const { network } = clusterNetwork({ podCidrs }, blocks);
const hosts = [makeHost(1, { carrying: { wants: 'wireguard' } }), makeHost(2, { carrying: { wants: 'vxlan', receives: ['vxlan'] } })];

const wished = (change: Partial<Wished> = {}) => {
  const facts = snapshotOf({ hosts, networks: [network], pools: [pool], blocks });
  return wishFor('host-1', 'key', { facts, underlay: hosts[0]?.underlay ?? [], isInPlace: true, isExhausted: () => false, ...change });
};

test('what is in place is told with what is wanted and what is used meanwhile', () => {
  const { annotations, network: condition } = wished() ?? assert.fail();
  assert.deepEqual(
    ['carry', 'sends', 'receives'].map((key) => annotations[`causeway.dev/${key}`]),
    ['wireguard', 'vxlan', 'vxlan,wireguard'],
  );
  assert.equal(condition.isAvailable, true);
});

/** What is told of the address to send to, where the Node said these before. */
const publicIp = (...said: readonly string[]): unknown => {
  const self = makeHost(1, { carrying: { wants: 'vxlan' } });
  const [own] = self.underlay;
  const underlay = said.map((text) => ({ ...(own ?? assert.fail()), ip: parseIp(text) }));
  const facts = snapshotOf({ hosts: [{ ...self, underlay }], networks: [network], pools: [pool], blocks });
  return wished({ facts, underlay: self.underlay })?.annotations['flannel.alpha.coreos.com/public-ip'];
};

test('others are sent to an address that the host has, whatever its Node said before', () => {
  assert.equal(publicIp('192.0.2.1', '10.213.0.1'), '10.213.0.1');
  assert.equal(publicIp('10.213.0.1', '192.0.2.1'), '10.213.0.1');
  assert.equal(publicIp('192.0.2.1'), '192.0.2.1', 'behind another address');
});

test('nothing is told while something is not in place, or the node has no range', () => {
  assert.deepEqual([wished({ isInPlace: false }), wished({ facts: snapshotOf({ hosts, networks: [network] }) })], [undefined, undefined]);
});

/** As its Node tells. */
const crossing = (index: number): Host => {
  const host = makeHost(index, { carrying: { wants: 'bgp-cross-subnet', receives: ['bgp-cross-subnet', 'vxlan'] } });
  return { ...host, underlay: host.underlay.map((one) => ({ ...one, subnet: hostPrefix(one.ip) })) };
};

test('a neighbour is sent to by BGP from when its way is learned on, although Nodes do not tell of subnets', () => {
  const { underlay } = makeHost(1);
  const facts = snapshotOf({ hosts: [crossing(1), crossing(2)], networks: [network], pools: [pool], blocks });
  const says = (learned: readonly Cidr[]): unknown[] => {
    const { annotations } = wished({ facts, underlay, learned: new Set(learned) }) ?? assert.fail();
    return ['sends', 'receives'].map((key) => annotations[`causeway.dev/${key}`]);
  };
  // Its tunnel stays in place until then.
  assert.deepEqual(says([]), ['vxlan', 'bgp-cross-subnet,vxlan']);
  assert.deepEqual(says([parseCidr('10.244.2.0/24')]), ['bgp-cross-subnet', 'bgp-cross-subnet']);
});

/** What it sends by and takes, and its condition. */
const told = (own: Carrying, other: Carrying): string[] => {
  const facts = snapshotOf({
    hosts: [own, other].map((carrying, index) => makeHost(index + 1, { carrying })),
    networks: [network],
    pools: [pool],
    blocks,
  });
  const { annotations, network: condition } = wished({ facts }) ?? assert.fail();
  const { isAvailable, reason, message } = condition;
  return [annotations['causeway.dev/sends'] ?? '', annotations['causeway.dev/receives'] ?? '', `${isAvailable} ${reason}: ${message}`];
};

test('a node whose cloud does not let be what it was told to carry by says so, goes over, and takes pods', () => {
  const refused = { carries: ['host-gateway'], because: 'it may not be' } as const;
  const own = { wants: 'vxlan', sends: ['host-gateway'], insteadOf: 'host-gateway', refused } as const;
  const word = 'true CarriedByVxlan: Pods can be attached. They are carried by vxlan instead of host-gateway, as it may not be';
  assert.deepEqual(told(own, { wants: 'host-gateway', receives: ['host-gateway'] }), ['host-gateway', 'host-gateway,vxlan', word]);
  assert.deepEqual(told(own, { wants: 'host-gateway', receives: ['host-gateway', 'vxlan'] }), ['vxlan', 'host-gateway,vxlan', word]);
});

test('by the router a node is sent to once its router leads to it, and takes no pods before where there is no other way', () => {
  const routed = { to: [parseCidr('10.244.1.0/24')] };
  const [ready, unready] = [{ wants: 'routes', receives: ['routes'] } as const, { wants: 'routes', receives: [] } as const];
  const [sends, receives, word] = told({ wants: 'routes' }, unready);
  assert.deepEqual([sends, receives], ['routes', '']);
  assert.match(
    word ?? '',
    /^false NoRouteCreated: The router does not lead to 10\.244\.1\.0\/24: nobody who keeps the cloud has told it yet/,
  );
  const why = told({ wants: 'routes', routed: { to: [], problem: 'it is full' } }, ready);
  assert.equal(why[2], 'false NoRouteCreated: The router does not lead to 10.244.1.0/24: it is full');
  assert.deepEqual(told({ wants: 'routes', routed }, ready), [
    'routes',
    'routes',
    'true RouteCreated: Pods can be attached, and the router leads to them',
  ]);
  // While the carriage is changed the tunnel serves.
  const before = { wants: 'vxlan', receives: ['vxlan'] } as const;
  assert.deepEqual(told({ wants: 'routes', sends: ['vxlan'] }, before).slice(0, 2), ['vxlan', 'vxlan']);
  assert.match(told({ wants: 'routes', sends: ['vxlan'] }, before)[2] ?? '', /^true RouteAwaited: The router does not lead to /);
  assert.deepEqual(told({ wants: 'routes', sends: ['vxlan'], routed }, before).slice(0, 2), ['vxlan', 'routes,vxlan']);
  assert.match(told({ wants: 'vxlan', routed }, before)[2] ?? '', /^true CausewayIsUp: /);
});
