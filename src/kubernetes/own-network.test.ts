// Networks of ours from definitions: what is read, what is refused, and which part of one each node has.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { cidrLast, cidrBase, familyOf, overlaps, parseCidr } from '#model/ip.ts';
import type { NodeFacts } from './nodes.ts';
import { blocksOf, conflictOf, factsOf, fallbackBlocksOf, type OwnNetwork, nodePlace, readOwnNetwork } from './own-network.ts';

const definition = (config: unknown): object => ({
  metadata: { name: 'blue', creationTimestamp: '2026-01-01T00:00:00Z' },
  spec: { config: typeof config === 'string' ? config : JSON.stringify(config) },
});
const read = (config: object, key = 'shop/blue'): OwnNetwork => {
  const network = readOwnNetwork(key, definition({ type: 'causeway', ...config }));
  assert.ok(network !== undefined);
  return network;
};
const pods = [parseCidr('10.244.0.0/16'), parseCidr('fd44::/56')];
const node = (...cidrs: readonly string[]): NodeFacts => ({
  blocks: cidrs.map((cidr) => ({
    id: 'x',
    name: 'x',
    revision: 1,
    createdAt: '',
    labels: {},
    network: 'kubernetespods',
    pool: 'p',
    cidr: parseCidr(cidr),
    host: 'a',
    loans: [],
  })),
});

for (const [what, config] of [
  ['no configuration', ''],
  ['no JSON', '{'],
  ['a list', '[]'],
  ['a plugin of others', { type: 'macvlan' }],
  ['plugins of others', { plugins: [{ type: 'bridge' }, 1, null] }],
] as const)
  test(`describes no network of ours: ${what}`, () => assert.equal(readOwnNetwork('shop/blue', definition(config)), undefined));

for (const [what, config, pattern] of [
  ['no range', { type: 'causeway' }, /spec\.config: it lacks subnets/],
  ['an empty list', { type: 'causeway', subnets: [] }, /subnets: expected a range/],
  ['an address', { type: 'causeway', subnets: ['10.1.0.1'] }, /subnets\[0\]/],
  ['host bits', { type: 'causeway', subnets: ['10.1.0.1/16'] }, /subnets\[0\]/],
  ['two ranges of a family', { type: 'causeway', subnets: ['10.1.0.0/16', '10.2.0.0/16'] }, /one range per family/],
  ['a VNI that is none', { type: 'causeway', subnets: ['10.1.0.0/16'], vni: 0 }, /vni: expected/],
  ['an MTU that is none', { type: 'causeway', subnets: ['10.1.0.0/16'], mtu: '1400' }, /mtu/],
  ['a VNI in the cloud', { type: 'causeway', subnets: ['10.20.0.0/24'], neutron: { network: 'hosts' }, vni: 7 }, /vni is for networks/],
  ['ports of no cloud', { type: 'causeway', subnets: ['10.20.0.0/24'], ports: 8 }, /name it by neutron/],
  [
    'three ports',
    { type: 'causeway', subnets: ['10.20.0.0/24'], neutron: { network: 'hosts' }, ports: 3 },
    /ports: expected a power of two/,
  ],
  ['no network of the cloud', { type: 'causeway', subnets: ['10.20.0.0/24'], neutron: {} }, /it lacks neutron\.network/],
  [
    'a range elsewhere',
    { type: 'causeway', subnets: ['10.20.0.0/24'], neutron: { network: 'hosts' }, ranges: ['10.21.0.0/25'] },
    /ranges: expected a part of each subnet/,
  ],
  [
    'a fallback of a family that it does not have',
    { type: 'causeway', subnets: ['fd20::/64'], neutron: { network: 'hosts', fallback: '10.70.0.0/16' } },
    /neutron\.fallback: expected "overlay", .* of a family of the subnets/,
  ],
  [
    'a fallback that is too small',
    { type: 'causeway', subnets: ['10.20.0.0/24'], neutron: { network: 'hosts', fallback: '10.70.0.0/25' } },
    /neutron\.fallback: expected "overlay", or a range of IPv4 of at least \/24 or of IPv6 of at least \/112/,
  ],
  ['a fallback of no cloud', { type: 'causeway', subnets: ['10.20.0.0/24'], fallback: 'overlay', ports: 8 }, /name it by neutron/],
  ['two of ours', { plugins: [{ type: 'causeway' }, { type: 'causeway' }] }, /plugins\[1\]: there is a plugin causeway before/],
  ['in a list', { plugins: [{ type: 'tuning' }, { type: 'causeway' }] }, /plugins\[1\]: it lacks subnets/],
] as const)
  test(`refuses a description with ${what}`, () =>
    assert.throws(
      () => readOwnNetwork('shop/blue', definition(config)),
      (error) => isFault(error, 'invalid') && pattern.test(error.message),
    ));

test('what makes it another network makes another id; what is worked out is the same everywhere', () => {
  const one = read({ subnets: ['10.1.0.0/16'] });
  assert.deepEqual(one, read({ subnets: ['10.1.0.0/16'] }));
  assert.ok(one.vni > 4096);
  const others = [
    read({ subnets: ['10.1.0.0/17'] }),
    read({ subnets: ['10.1.0.0/16'], vni: 7 }),
    read({ subnets: ['10.1.0.0/16'] }, 'shop/red'),
  ];
  assert.equal(new Set([one, ...others].map(({ id }) => id)).size, 4);
  assert.equal(read({ subnets: ['10.1.0.0/16'], mtu: 1300 }).id, one.id);
});

test('networks that would take packets from each other, or from pods, are not beside each other', () => {
  const blue = read({ subnets: ['10.1.0.0/16'], vni: 7 });
  const surroundings = { podCidrs: pods, hosts: [parseCidr('10.213.0.0/24')] };
  const conflict = (config: object): string | undefined => conflictOf(read(config, 'shop/red'), [blue], surroundings);
  assert.equal(conflict({ subnets: ['10.2.0.0/16', 'fd01::/48'], vni: 8 }), undefined);
  assert.match(conflict({ subnets: ['10.1.128.0/24'], vni: 8 }) ?? '', /overlaps that of shop\/blue/);
  assert.match(conflict({ subnets: ['10.0.0.0/8'], vni: 8 }) ?? '', /overlaps that of pods/);
  assert.match(conflict({ subnets: ['10.212.0.0/15'], vni: 8 }) ?? '', /overlaps that of hosts, 10\.213\.0\.0\/24/);
  assert.match(conflict({ subnets: ['10.2.0.0/16'], vni: 7 + 4096 }) ?? '', /vni/);
  assert.match(conflict({ subnets: ['10.2.0.0/16'], vni: 1 }) ?? '', /vni/);
});

test('networks of the cloud are on the subnet of hosts, several beside each other in ranges of their own', () => {
  const surroundings = { podCidrs: pods, hosts: [parseCidr('10.20.0.0/24')] };
  const hosts = { subnets: ['10.20.0.0/24'], neutron: { network: 'hosts' } };
  const one = read(hosts);
  assert.deepEqual([one.ranges, one.ports], [['10.20.0.128/25'], 8]);
  assert.equal(conflictOf(one, [], surroundings), undefined);
  const conflict = (more: object): string | undefined => conflictOf(read({ ...hosts, ...more }, 'shop/red'), [one], surroundings);
  assert.match(conflict({}) ?? '', /overlaps that of shop\/blue/);
  assert.equal(conflict({ ranges: ['10.20.0.64/26'] }), undefined);
  assert.match(conflictOf(read({ subnets: ['10.20.0.0/26'] }, 'shop/red'), [one], { ...surroundings, hosts: [] }) ?? '', /shop\/blue/);
  assert.notEqual(read({ ...hosts, ranges: ['10.20.0.64/26'] }).id, one.id);
});

test('pods without ports have a range of their own, of which each node has a part, and the other half is of nodes', () => {
  const hosts = { subnets: ['10.20.0.0/24'], ranges: ['10.20.0.128/26'] };
  const one = read({ ...hosts, neutron: { network: 'hosts', fallback: '10.70.0.0/16' } });
  const places = ['10.244.0.0/24', '10.244.255.0/24'].map((cidr) => nodePlace(node(cidr), pods) ?? assert.fail());
  assert.deepEqual(
    places.flatMap((place) => fallbackBlocksOf(one, 'a', place).map(({ cidr }) => cidr)),
    ['10.70.0.0/25', '10.70.127.128/25'],
  );
  const overlay = { network: 'hosts', fallback: 'overlay' };
  const chosen = read({ ...hosts, neutron: overlay });
  assert.match(chosen.fallback ?? '', /^10\.(19[2-9]|2[01]\d|22[0-3])\.0\.0\/16$/);
  assert.equal(read({ ...hosts, neutron: overlay }).fallback, chosen.fallback);
  const six = read({ subnets: ['10.20.0.0/24', 'fd00:20::/64'], neutron: { network: 'hosts', fallback: 'fd00:70::/64' } });
  assert.match(`${six.fallback} ${six.fallback6}`, /^10\..*\/16 fd00:70::\/64$/);
  const [place = assert.fail()] = places;
  assert.deepEqual(
    fallbackBlocksOf(six, 'a', place).map(({ cidr, pool }) => [familyOf(cidr), pool]),
    [
      [4, `${six.id}o4`],
      [6, `${six.id}o6`],
    ],
  );
  const alone = read({ subnets: ['fd00:20::/64'], neutron: overlay });
  assert.equal(alone.fallback, undefined);
  assert.match(alone.fallback6 ?? '', /^fd63:7704:.*::\/64$/);
  const surroundings = { podCidrs: pods, hosts: [parseCidr('10.20.0.0/24')] };
  const conflict = (config: object, beside = one): string | undefined => conflictOf(read(config, 'shop/red'), [beside], surroundings);
  const beside = { ...hosts, ranges: ['10.20.0.192/26'] };
  const within = (fallback: string): object => ({ ...beside, neutron: { network: 'hosts', fallback } });
  assert.equal(conflict(within('10.71.0.0/16')), undefined);
  assert.match(conflict(within('10.70.4.0/22')) ?? '', /its fallback 10\.70\.4\.0\/22 overlaps 10\.70\.0\.0\/16/);
  assert.match(conflict(within('10.244.0.0/20')) ?? '', /its fallback 10\.244\.0\.0\/20 overlaps 10\.244\.0\.0\/16/);
  assert.match(conflict(within('10.20.0.0/16')) ?? '', /its fallback/);
  const sixth = { ...beside, subnets: ['10.20.0.0/24', 'fd00:20::/64'], neutron: { network: 'hosts', fallback: 'fd00:70::/48' } };
  assert.match(conflict(sixth, { ...six, ranges: [] }) ?? '', /its fallback fd00:70::\/48 overlaps fd00:70::\/64/);
  assert.match(conflict({ subnets: ['10.70.8.0/24'] }) ?? '', /its range overlaps the fallback of shop\/blue/);
});

test('each node has the part that is as far along as its podCIDR, of each family', () => {
  const network = read({ subnets: ['10.1.0.0/20', 'fd01::/48'] });
  const place = nodePlace(node('10.244.7.0/24', 'fd44:0:0:7::/64'), pods);
  assert.deepEqual(place, { number: 7n, bits: 8 });
  const own = blocksOf(network, 'a', place ?? { number: 0n, bits: 0 });
  assert.deepEqual(
    own.map(({ cidr, host, pool }) => [cidr, host, pool]),
    [
      ['10.1.0.112/28', 'a', `${network.id}p4`],
      ['fd01:0:0:700::/56', 'a', `${network.id}p6`],
    ],
  );
  const { network: made, pools } = factsOf(network, { own });
  assert.deepEqual(
    pools.map(({ cidr, reserved, blockLength }) => [cidr, reserved, blockLength]),
    [
      ['10.1.0.0/20', { node: '10.1.0.112' }, 28],
      ['fd01::/48', { node: 'fd01:0:0:700::' }, 56],
    ],
  );
  assert.deepEqual([made.internal, made.present, made.choices.domain, made.vni], [true, undefined, 'host', network.vni]);
});

test('no two of all nodes share an address, and none leaves the range', () => {
  const network = read({ subnets: ['10.1.0.0/18'] });
  const parts = Array.from({ length: 256 }, (_, index) => {
    const place = nodePlace(node(`10.244.${index}.0/24`), pods);
    return blocksOf(network, String(index), place ?? { number: 0n, bits: 0 })[0]?.cidr ?? parseCidr('0.0.0.0/0');
  });
  assert.equal(cidrBase(parts[0] ?? parseCidr('0.0.0.0/0')), '10.1.0.0');
  assert.equal(cidrLast(parts[255] ?? parseCidr('0.0.0.0/0')), '10.1.63.255');
  assert.ok(parts.slice(1).every((part, index) => !overlaps(part, parts[index] ?? part)));
});

test('a range that is too small for the number of nodes has no part for any; a node without a range has none', () => {
  const place = nodePlace(node('10.244.7.0/24'), pods) ?? { number: 0n, bits: 0 };
  assert.deepEqual(blocksOf(read({ subnets: ['10.1.0.0/23'] }), 'a', place), []);
  assert.equal(blocksOf(read({ subnets: ['10.1.0.0/22'] }), 'a', place)[0]?.cidr, '10.1.0.28/30');
  assert.equal(nodePlace(node(), pods), undefined);
  assert.equal(nodePlace(node('10.9.0.0/24'), pods), undefined);
});
