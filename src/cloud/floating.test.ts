import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeEndpoint, makeHost, makeNetwork } from '#drivers/cluster.fixture.ts';
import type { SubnetChoice } from '#model/cloud-services.ts';
import { parseIp } from '#model/ip.ts';
import type { Endpoint, Exposure } from '#model/resources.ts';
import { floatingPlan } from './floating.ts';
import { type CloudState, planCloud } from './plan.ts';
import { carriedOut, floatingOf, networkOf, plainExposure, portOf, routedState } from './plan.fixture.ts';
import { emptyWish, type Wish, wishOf } from './wish.ts';

const boxes = [1, 2].map((index) => makeEndpoint('over', `host-${index}`, index, [parseIp(`10.0.0.${index}`)]));
const exposure = (id: string, floatingIp: string, box = 0): Exposure => plainExposure(id, { endpoint: boxes[box]?.name ?? '', floatingIp });

function wished(exposures: readonly Exposure[], endpoints: readonly Endpoint[] = boxes): Wish {
  const networks = [makeNetwork('over')];
  return wishOf({ hosts: [makeHost(1), makeHost(2)], networks, pools: [], blocks: [], endpoints, exposures }, 'cw');
}

const open = (changes: Partial<CloudState> = {}): CloudState =>
  routedState({ networks: [networkOf('net', false), networkOf('outside', true), networkOf('far', true)], ...changes });

function settle(wish: Wish, state: CloudState): CloudState {
  const now = carriedOut(wish, state);
  assert.deepEqual(planCloud(wish, now).steps, [], 'a second plan has nothing to do');
  return now;
}
const places = ({ floatingIps }: CloudState): string[] => floatingIps.map(({ address, portId }) => `${address} ${portId}`);

test('one is made, taken along to another host, and given back', () => {
  const first = settle(wished([exposure('a', 'auto')]), open());
  assert.deepEqual(places(first), ['203.0.113.100 port-1']);
  assert.equal(first.floatingIps[0]?.networkId, 'outside');
  const moved = settle(wished([exposure('a', 'auto', 1)]), first);
  assert.deepEqual(places(moved), ['203.0.113.100 port-2']);
  assert.deepEqual(planCloud(wished([exposure('a', 'auto', 1)]), moved).reached, [
    { id: 'a', exposure: 'a', host: 'host-2', address: '203.0.113.100' },
  ]);
  assert.deepEqual(settle(wished([exposure('a', '')].slice(1)), moved).floatingIps, []);
});

test('exposures on one host share it, and it goes with the last of them', () => {
  const both = settle(wished([exposure('a', 'auto'), exposure('b', 'outside')]), open());
  assert.equal(both.floatingIps.length, 1);
  const one = settle(wished([exposure('b', 'outside')]), both);
  assert.deepEqual([one.floatingIps[0]?.tags, one.floatingIps.length], [['causeway.cw', 'causeway.cw.exposure.b'], 1]);
  const wish = wished([exposure('b', 'far'), exposure('a', 'auto')]);
  assert.equal(settle(wish, one).floatingIps.length, 2, 'of another external network there is another');
});

test("a user's is borrowed and stays the user's, one that is there already is left as it is", () => {
  const address = '203.0.113.7';
  const theirs = floatingOf(address);
  const wish = wished([exposure('a', address)]);
  const used = settle(wish, open({ floatingIps: [theirs] }));
  assert.deepEqual(places(used), [`${address} port-1`]);
  assert.deepEqual(settle(emptyWish('cw'), used).floatingIps, [theirs]);
  const attached = floatingOf(address, { portId: 'port-1', fixedAddress: portOf(1).addresses[0]?.ip });
  for (const floatingIp of [address, 'auto']) {
    const state = settle(wished([exposure('a', floatingIp)]), open({ floatingIps: [attached] }));
    assert.deepEqual(state.floatingIps, [attached]);
    assert.deepEqual(settle(emptyWish('cw'), state).floatingIps, [attached]);
  }
});

test('one that its user has since put elsewhere is not taken from there', () => {
  const elsewhere = floatingOf('203.0.113.7', { portId: 'port-theirs', fixedAddress: '10.9.9.9', tags: ['causeway.cw', 'mine'] });
  assert.deepEqual(places(settle(emptyWish('cw'), open({ floatingIps: [elsewhere] }))), ['203.0.113.7 port-theirs']);
});

test('why there can be none is said', () => {
  const cases: readonly (readonly [string, RegExp, Partial<CloudState>])[] = [
    ['203.0.113.9', /the project has none with the address 203\.0\.113\.9/, {}],
    ['203.0.113.9', /in use by port other/, { floatingIps: [floatingOf('203.0.113.9', { portId: 'other', fixedAddress: '10.1.1.1' })] }],
    ['auto', /no router of the project leads from the network of host host-1/, { routers: [] }],
    ['nowhere', /no external network nowhere; there is outside, far/, {}],
    [
      '203.0.113.9',
      /has 203\.0\.113\.8 of the same external network already/,
      {
        floatingIps: [floatingOf('203.0.113.9'), floatingOf('203.0.113.8', { portId: 'port-1', fixedAddress: portOf(1).addresses[0]?.ip })],
      },
    ],
  ];
  for (const [wanted, words, changes] of cases) {
    const { problems, steps } = planCloud(wished([exposure('a', wanted)]), open(changes));
    assert.match(problems.join(), words);
    assert.ok(!steps.some(({ type }) => type.endsWith('floating-ip')));
  }
  assert.match(planCloud(wished([exposure('a', 'auto')], []), open()).problems.join(), /its container is on no host/);
});

test('the quota of floating IPs counts', () => {
  const quotas = { floatingip: { limit: 1, used: 1 } };
  const { problems } = planCloud(wished([exposure('a', 'auto')]), open({ quotas }));
  assert.match(problems.join(), /quota of floating IPs is exhausted: 2 are needed, 1 allowed/);
});

test('of containers that share an alias each host is opened, and the address stays where it is', () => {
  const pair = boxes.map((box) => ({ ...box, names: ['front'] }));
  const shared = { ...exposure('a', 'auto'), endpoint: 'front' };
  const wish = wished([shared], pair);
  assert.deepEqual(wish.groups.map(({ name }) => name).slice(1), ['cw-exposed-host-1', 'cw-exposed-host-2']);
  const moved = settle(wished([shared], pair.slice(1)), settle(wish, open()));
  assert.deepEqual(places(moved), ['203.0.113.100 port-2']);
  assert.deepEqual(places(settle(wish, moved)), ['203.0.113.100 port-2']);
});

const subnetOf = (id: string, networkId: string, tags: readonly string[] = [], cidr = '203.0.113.0/24') => ({
  id,
  name: `name-${id}`,
  networkId,
  cidr,
  gateway: undefined,
  tags,
});

test('one is made of the subnet that is named or has a tag; where there is none that is told', () => {
  const subnets = [
    subnetOf('b', 'outside', ['fast']),
    subnetOf('a', 'outside'),
    subnetOf('c', 'far', ['slow']),
    subnetOf('six', 'outside', ['six'], 'fd00::/64'),
  ];
  const port = portOf(1);
  const planOf = (subnet: SubnetChoice, changes: Partial<CloudState> = {}) => {
    const hosts = [{ host: 'host-1', address: port.addresses[0]?.ip ?? '' }];
    const one = { id: 'a', kind: 'Service', name: 'shop/web', wanted: 'auto', hosts, subnet } as const;
    return floatingPlan([one], open({ subnets, ...changes }), { tag: 'cw', portOf: () => port, isOurs: () => false, refused: new Map() });
  };
  const made = (subnet: SubnetChoice) => planOf(subnet).changes.map((step) => step.type === 'make-floating-ip' && step.subnet);
  assert.deepEqual(made({ named: 'name-a' }), ['a']);
  assert.deepEqual(made({ named: 'b' }), ['b']);
  assert.deepEqual(made({ tagged: ['none', 'fast'] }), ['b']);
  for (const choice of [{ named: 'name-c' }, { tagged: ['slow'] }, { named: 'six' }]) {
    const { changes, problems } = planOf(choice);
    assert.deepEqual(changes, []);
    assert.match(
      problems[0]?.text ?? '',
      /^Service shop\/web has no floating IP: the external network outside has no subnet .* of IPv4; there is name-b, name-a$/,
    );
  }
  const there = [floatingOf('203.0.113.7', { tags: ['cw', 'cw.exposure.a'], portId: port.id, fixedAddress: port.addresses[0]?.ip })];
  assert.deepEqual(planOf({ named: 'gone' }, { floatingIps: there }).problems, [], 'one that is there stays');
});
