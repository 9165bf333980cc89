import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeBlock, makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { parseCidr } from '#model/ip.ts';
import type { Block } from '#model/resources.ts';
import type { NeutronPort } from './neutron-schemas.ts';
import { planCloud } from './plan.ts';
import { bodyOfPooled, chooseVlan } from './pools.ts';
import { carriedOut, portOf, stateOf } from './plan.fixture.ts';
import { keyOfRule } from './rules.ts';
import { type CloudFacts, emptyWish, type Wish, wishOf } from './wish.ts';

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
  const after = carriedOut(wish, state);
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

test('a port is known by the address that it was made for, whatever Neutron puts before it', () => {
  const wish = wishOf(facts, 'cw');
  const after = reached(wish);
  const ports = after.ports.map((port) =>
    port.device === 'causeway.cw.host-1' ? { ...port, addresses: [{ ip: '1001:db8::1', subnetId: 'slaac' }, ...port.addresses] } : port,
  );
  assert.deepEqual(planCloud(wish, { ...after, ports }).steps, []);
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
  const roomy = stateOf({ quotas: { port: { limit: 100, used: 80 } } });
  assert.deepEqual(planCloud(wishOf(facts, 'cw'), roomy).forecast, { left: 16, poolSize: 4, pools: 4 });
  const full = planCloud(wishOf({ ...facts, blocks: [] }, 'cw'), stateOf({ quotas: { port: { limit: 5, used: 3 } } }));
  assert.deepEqual(full.forecast, { left: 2, poolSize: 4, pools: 0 });
  assert.match(full.problems.join(), /2 left, and a pool takes 4/);
  const large = makeBlock({ ...pool, blockLength: 28 }, 2048, 'host-1');
  assert.match(planCloud(wishOf({ ...facts, blocks: [large] }, 'cw'), stateOf()).problems.join(), /would need 16 allowed address pairs/);
});

const withTrunk = (subPorts: readonly { readonly id: string; readonly vlan: number }[] = []): NeutronPort =>
  portOf(1, { trunk: { id: 'trunk', subPorts } });
const tagged = { ...block, vlan: 100 };

test('where the host is the parent of a trunk its ports are sub-ports, with groups of their own and nothing open for them', () => {
  const grouped = { ...network, neutron: { ...network.neutron, groups: ['web'] } };
  const wish = wishOf({ ...facts, networks: [grouped], blocks: [tagged] }, 'cw');
  assert.deepEqual(wish.groups, []);
  const start = stateOf({ ports: [withTrunk(), portOf(2)] });
  const [only, ...more] = planCloud(wish, start).steps;
  assert.deepEqual(more, []);
  assert.ok(only?.type === 'make-ports');
  assert.deepEqual([only.trunk, only.ports.map(({ ip, vlan }) => [ip, vlan])], ['trunk', addresses.map((ip, index) => [ip, 100 + index])]);
  assert.deepEqual(
    planCloud(wish, start).needs.map(({ isAllowed }) => isAllowed),
    [false],
  );
  const [host, , ...pooled] = reached(wish, start).ports;
  assert.deepEqual(host?.pairs, []);
  assert.deepEqual(
    host?.trunk?.subPorts.map(({ vlan }) => vlan),
    [100, 101, 102, 103],
  );
  assert.deepEqual(
    new Set(pooled.map(({ description, groups }) => `${description} ${groups.join()}`)),
    new Set(['causeway.cw.host-1 web']),
  );
  assert.ok(planCloud(wish, reached(wish, start)).needs.every(({ isAllowed }) => isAllowed));
  const { ports } = reached(emptyWish('cw'), reached(wish, start));
  assert.deepEqual(ports, start.ports);
});

test('what was interrupted is attached, what is in another VLAN is made anew, and a trunk that has gone is told', () => {
  const wish = wishOf({ ...facts, blocks: [tagged] }, 'cw');
  const full = reached(wish, stateOf({ ports: [withTrunk(), portOf(2)] }));
  const change = (subPorts: readonly { readonly id: string; readonly vlan: number }[]) => ({
    ...full,
    ports: full.ports.map((port) => (port.trunk === undefined ? port : withTrunk(subPorts))),
  });
  const all = full.ports[0]?.trunk?.subPorts ?? [];
  const typesAfter = (subPorts: typeof all): string[] => planCloud(wish, change(subPorts)).steps.map(({ type }) => type);
  assert.deepEqual(typesAfter(all.slice(1)), ['attach-ports']);
  assert.deepEqual(typesAfter([{ id: all[0]?.id ?? '', vlan: 7 }, ...all.slice(1)]), ['remove-ports', 'make-ports']);
  reached(wish, change([{ id: all[0]?.id ?? '', vlan: 7 }, ...all.slice(1)]));
  const gone = planCloud(wish, { ...full, ports: full.ports.map((port) => (port.id === 'port-1' ? portOf(1) : port)) });
  assert.match(gone.problems.join(), /host-1 is no parent of a trunk any more/);
  assert.deepEqual([gone.steps, gone.needs.map(({ isAllowed }) => isAllowed)], [[], [false]]);
});

const chosen = (subPorts: readonly number[], blocks: readonly Block[] = []): number =>
  chooseVlan(parseCidr('10.0.0.0/30'), { id: 'trunk', subPorts: subPorts.map((one) => ({ id: `${one}`, vlan: one })) }, blocks);

test('VLANs are the first in a row that neither others nor our own blocks use', () => {
  assert.equal(chosen([]), 2);
  assert.equal(chosen([3, 9]), 4);
  assert.equal(chosen([3, 9], [{ ...block, vlan: 4 }]), 10);
  const most = Array.from({ length: 1365 }, (_, index) => 3 * index);
  assert.throws(() => chosen(most), { code: 'exhausted' });
});

test('an address of IPv6 has a port of its own, on its own subnet', () => {
  const pool6 = { ...makePool('ports', parseCidr('fd00:213::/64'), 126), id: 'pool-6' };
  const six = { ...makeBlock(pool6, 4, 'host-1'), vlan: 104 };
  const dual = { ...network, neutron: { ...network.neutron, subnet6: 'subnet6' } };
  const wish = wishOf({ ...facts, networks: [dual], pools: [pool, pool6], blocks: [tagged, six] }, 'cw');
  const start = stateOf({ ports: [withTrunk(), portOf(2)] });
  const made = planCloud(wish, start).steps.flatMap((step) => (step.type === 'make-ports' ? step.ports : []));
  assert.deepEqual(
    made.map(({ vlan }) => vlan),
    [100, 101, 102, 103, 104, 105, 106, 107],
  );
  const bodies = [made[0], made[4]].map((port) => port && bodyOfPooled({ name: 'cw', group: () => 'none' }, port));
  assert.deepEqual(bodies, [
    {
      name: 'causeway-host-1',
      network_id: 'net',
      fixed_ips: [{ subnet_id: 'subnet', ip_address: '10.213.128.0' }],
      mac_address: '0a:63:0a:d5:80:00',
      description: 'causeway.cw.host-1',
    },
    {
      name: 'causeway-host-1',
      network_id: 'net',
      fixed_ips: [{ subnet_id: 'subnet6', ip_address: 'fd00:213::10' }],
      mac_address: '0a:63:00:00:00:10',
      description: 'causeway.cw.host-1',
    },
  ]);
  reached(wish, start);
});

test("a sub-port is in the groups that its container has asked for, and back in its network's afterwards; what others change stays", () => {
  const grouped = { ...network, neutron: { ...network.neutron, groups: ['web'] } };
  const wishFor = (groups?: Block['groups']): Wish =>
    wishOf({ ...facts, networks: [grouped], blocks: [groups === undefined ? tagged : { ...tagged, groups }] }, 'cw');
  const start = reached(wishFor(), stateOf({ ports: [withTrunk(), portOf(2)] }));
  const second = (state: typeof start): NeutronPort | undefined => state.ports.find(({ addresses: [one] }) => one?.ip === addresses[1]);
  const asked = reached(wishFor({ '10.213.128.1': ['db', 'ssh'] }), start);
  assert.deepEqual(second(asked)?.groups, ['db', 'ssh']);
  assert.deepEqual(reached(wishFor({ '10.213.128.1': ['db', 'ssh'] }), stateOf({ ports: [withTrunk(), portOf(2)] })), asked);
  const left = { ...asked, ports: asked.ports.map((port) => (port === second(asked) ? { ...port, groups: ['db'] } : port)) };
  assert.deepEqual(second(reached(wishFor({ '10.213.128.1': ['db', 'ssh'] }), left))?.groups, ['db', 'ssh']);
  assert.deepEqual(reached(wishFor(), asked), start);
  const theirs = { ...start, ports: start.ports.map((port) => (port === second(start) ? { ...port, groups: ['mine'] } : port)) };
  assert.deepEqual(second(reached(wishFor(), theirs))?.groups, ['mine']);
});

test('containers without ports need VXLAN between hosts, and their blocks none of the cloud', () => {
  const besides = { ...makePool('ports', parseCidr('10.64.0.0/16'), 29), id: 'besides', fallback: true as const };
  const falling = { ...network, neutron: { ...network.neutron, fallback: true as const } };
  const blocks = [tagged, makeBlock(besides, 0, 'host-1')];
  const wish = wishOf({ ...facts, networks: [falling], pools: [pool, besides], blocks }, 'cw');
  assert.deepEqual(
    wish.groups.flatMap(({ rules }) => rules.map(keyOfRule)),
    ['ingress IPv4 17 8472 hosts', 'egress IPv4 17 8472 hosts'],
  );
  const { ports } = reached(wish, stateOf({ ports: [withTrunk(), portOf(2)] }));
  assert.deepEqual(
    ports.slice(2).flatMap((port) => port.addresses.map(({ ip }) => ip)),
    addresses,
  );
});

const needed = (pools: CloudFacts['pools']): string[] => wishOf({ ...facts, pools, blocks: [] }, 'cw').needs.map(({ what }) => what);
test("that a network is not the hosts' own is told, and that its ports are sub-ports before there are any", () => {
  const elsewhere = { ...makePool('ports', parseCidr('10.30.0.0/24'), 29), range: parseCidr('10.30.0.128/25') };
  assert.deepEqual(needed([elsewhere]), ["a sub-port of its host's trunk for each of 0 addresses of 10.30.0.128/25, in which no host is"]);
  assert.deepEqual(needed([pool]), ['a port and an address pair for each of 0 addresses of 10.213.128.0/17']);
});
