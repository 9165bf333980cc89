import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr, parseIp } from '#model/ip.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from './cluster.fixture.ts';
import { plan } from './plan.ts';

test('a host answers for its containers on its own subnet, and hides no part of it that is not its own', () => {
  const network = { ...makeNetwork('ports', { model: 'neutron' }), neutron: { network: 'net', subnet: 'subnet' } };
  const pool = makePool('ports', parseCidr('10.213.0.0/16'), 29);
  const self = makeHost(1);
  const endpoint = makeEndpoint('ports', 'host-1', 1, [parseIp('10.213.128.2')]);
  const snapshot = snapshotOf({
    hosts: [self, makeHost(2)],
    networks: [network],
    pools: [pool],
    blocks: [makeBlock(pool, 4096, 'host-1'), makeBlock(pool, 4097, 'host-2')],
    endpoints: [endpoint],
  });
  const { proxy, route, element } = plan(snapshot, [{ endpoint, slot: 1, sandbox: '/run/docker/netns/1', order: 1 }], self);
  assert.deepEqual(proxy, [{ netns: '', link: 'eth0', ip: '10.213.128.2' }]);
  assert.deepEqual(
    route.map(({ destination, type }) => [destination, type]),
    [
      ['10.213.128.0/29', 'unreachable'],
      ['10.213.128.2/32', 'unicast'],
    ],
  );
  // Of these sets packets are masqueraded and kept apart.
  assert.deepEqual(
    element.filter(({ set }) => /^(?:own|ranges)/.test(set)),
    [],
  );
  assert.deepEqual(plan(snapshot, [], self).proxy, []);
  // Where there are services, by which addresses its own are told on their way to pods of other hosts.
  const web = { key: 'web', ip: parseIp('10.96.0.5'), protocol: 'tcp' as const, port: 80, backends: [] };
  const served = plan(snapshot, [{ endpoint, slot: 1, sandbox: '/run/docker/netns/1', order: 1 }], self, { services: [web] });
  assert.deepEqual(
    served.element.flatMap(({ set, key }) => (set === 'guests4' ? [key] : [])),
    ['10.213.128.0/29'],
  );
});

test('addresses that are sub-ports are tagged on the link of their subnet, and nobody answers for them; the others are as ever', () => {
  const network = { ...makeNetwork('ports', { model: 'neutron' }), neutron: { network: 'net', subnet: 'subnet' } };
  const pool = makePool('ports', parseCidr('10.213.0.0/16'), 29);
  const self = makeHost(1);
  const endpoints = ['10.213.128.2', '10.213.128.10'].map((ip, index) => makeEndpoint('ports', 'host-1', index + 1, [parseIp(ip)]));
  const snapshot = snapshotOf({
    hosts: [self, makeHost(2)],
    networks: [network],
    pools: [pool],
    blocks: [
      { ...makeBlock(pool, 4096, 'host-1'), vlan: 100 },
      makeBlock(pool, 4097, 'host-1'),
      { ...makeBlock(pool, 4098, 'host-2'), vlan: 200 },
    ],
    endpoints,
  });
  const local = endpoints.map((endpoint, index) => ({ endpoint, slot: index + 1, sandbox: `/run/docker/netns/${index}`, order: 1 }));
  const { proxy, trunk } = plan(snapshot, local, self);
  assert.deepEqual(proxy, [{ netns: '', link: 'eth0', ip: '10.213.128.10' }]);
  assert.deepEqual(trunk, [{ netns: '', link: 'eth0', blocks: [{ cidr: '10.213.128.0/29', vlan: 100 }] }]);
  assert.deepEqual(plan(snapshot, [], self).trunk, []);
});

const inCloud = (id: string, network: string) => ({ ...makeNetwork(id, { model: 'neutron' }), neutron: { network, subnet: network } });
const apart = (id: string, range: string) => ({
  ...makePool(id, parseCidr('10.30.0.0/24'), 29),
  gateway: parseIp('10.30.0.1'),
  range: parseCidr(range),
});

test('of a network that the host is not in, one of its addresses asks for all on that subnet, and the gateways lead everywhere else', () => {
  const near = { ...makePool('ports', parseCidr('10.213.0.0/16'), 29), gateway: parseIp('10.213.0.1') };
  const pools = [near, apart('web', '10.30.0.0/25'), apart('db', '10.30.0.128/25')] as const;
  const blocks = [
    { ...makeBlock(pools[0], 4096, 'host-1'), vlan: 100 },
    { ...makeBlock(pools[1], 0, 'host-1'), vlan: 108 },
    { ...makeBlock(pools[2], 16, 'host-1'), vlan: 116 },
  ];
  const self = makeHost(1);
  const endpoints = [
    makeEndpoint('ports', 'host-1', 1, [parseIp('10.213.128.2')]),
    makeEndpoint('web', 'host-1', 2, [parseIp('10.30.0.2')]),
    makeEndpoint('db', 'host-1', 3, [parseIp('10.30.0.130')]),
  ];
  const networks = [inCloud('ports', 'hosts'), inCloud('web', 'apart'), inCloud('db', 'apart')];
  const snapshot = snapshotOf({ hosts: [self], networks, pools, blocks, endpoints });
  const local = endpoints.map((endpoint, index) => ({ endpoint, slot: index + 1, sandbox: `/run/docker/netns/${index}`, order: 1 }));
  const [trunk, ...more] = plan(snapshot, local, self).trunk;
  assert.deepEqual(more, []);
  assert.deepEqual(
    trunk?.blocks.map(({ cidr, vlan }) => [cidr, vlan]),
    [
      ['10.30.0.128/29', 116],
      ['10.213.128.0/29', 100],
      ['10.30.0.0/29', 108],
    ],
  );
  assert.deepEqual(trunk?.gateways, ['10.213.0.1']);
  assert.deepEqual(trunk?.outside, [{ subnet: '10.30.0.0/24', gateway: '10.30.0.1', asker: '10.30.0.128', beside: [] }]);
  const [, web] = local;
  assert.ok(web !== undefined);
  // The network address is nobody's.
  assert.deepEqual(
    plan(snapshot, [web], self).trunk.map(({ outside }) => outside?.map(({ asker }) => asker)),
    [['10.30.0.2']],
  );
});
