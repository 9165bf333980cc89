import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeEndpoint, makeHost, makeNetwork } from '#drivers/cluster.fixture.ts';
import { type Cidr, parseCidr, parseIp } from '#model/ip.ts';
import type { Exposure, Host } from '#model/resources.ts';
import type { NeutronPort } from './neutron-schemas.ts';
import { type CloudPlan, type CloudState, planCloud } from './plan.ts';
import { carriedOut, plainExposure, portOf, routedState } from './plan.fixture.ts';
import { openingsTo } from './reach.ts';
import { sentence } from './sentences.ts';
import { emptyWish, type Wish, wishOf } from './wish.ts';

const exposure = (id: string, changes: Partial<Exposure> = {}): Exposure => plainExposure(id, { virtualIp: { hosts: [] }, ...changes });

/** A container with the alias on each of those hosts, of six. */
function wished(exposures: readonly Exposure[], on: readonly number[], hosts = [1, 2, 3, 4, 5, 6].map((index) => makeHost(index))): Wish {
  const endpoints = on.map((index) => ({ ...makeEndpoint('over', `host-${index}`, index, [parseIp(`10.0.0.${index}`)]), names: ['web'] }));
  return wishOf({ hosts, networks: [makeNetwork('over')], pools: [], blocks: [], endpoints, exposures }, 'cw');
}

const open = (changes: (port: NeutronPort) => NeutronPort = (port) => port): CloudState =>
  routedState({
    ports: [
      ...[1, 2, 3, 4, 5, 6].map((index) => changes(portOf(index))),
      portOf(9, { id: 'inside', owner: 'network:router_interface', device: 'router', groups: [] }),
    ],
    quotas: { port: { limit: 20, used: 7 }, floatingip: { limit: 2, used: 0 } },
  });

/** What is found in later rounds is done in later rounds. */
function settle(wish: Wish, state: CloudState): { state: CloudState; plan: CloudPlan } {
  let now = state;
  for (let round = 0; round < 4; round++) {
    const plan = planCloud(wish, now);
    if (plan.steps.length === 0) return { state: now, plan };
    now = carriedOut(wish, now);
  }
  return assert.fail('it does not come to rest');
}

const pairs = ({ ports }: CloudState): string[] => ports.flatMap(({ id, pairs: own }) => own.map((pair) => `${id} ${pair.ip_address}`));
/** Of the exposure `a`. */
const address = ({ plan }: { plan: CloudPlan }): string =>
  plan.placed.find(({ exposure: id }) => id === 'a')?.ip ?? assert.fail('no address');

test('a port is made, its address is a pair of the ports of all hosts that have the container, and the floating IP leads there', () => {
  const wish = wished([exposure('a', { floatingIp: 'auto' })], [1, 3]);
  const first = planCloud(wish, open());
  assert.ok(first.steps.map(sentence).includes('add virtual address of web of net-over: moves between host-1, host-3'));
  assert.deepEqual(
    first.quotas.map(({ name, after }) => `${name} ${after}`),
    ['floatingip 1', 'port 8'],
  );
  const settled = settle(wish, open());
  const ip = address(settled);
  assert.deepEqual(pairs(settled.state), [`port-1 ${ip}`, `port-3 ${ip}`]);
  assert.deepEqual(settled.plan.placed, [{ exposure: 'a', ip, hosts: ['host-1', 'host-3'] }]);
  assert.deepEqual(settled.plan.problems, []);
  const [floating] = settled.state.floatingIps;
  assert.deepEqual([floating?.fixedAddress, floating?.networkId], [ip, 'outside']);
  assert.deepEqual(settled.plan.reached, [
    { id: 'a', exposure: 'a', host: 'virtual address of web of net-over', address: floating?.address },
  ]);
});

/** Groups of exposures, their ports, and on how many ports they are. */
const opened = ({ state: { groups, ports } }: { state: CloudState }): string[] =>
  groups
    .filter(({ name }) => name.startsWith('cw-exposed'))
    .map(
      ({ id, name, rules: own }) =>
        `${name} ${own.map(({ portMin }) => portMin).join()} ${ports.filter((one) => one.groups.includes(id)).length}`,
    );

test('of many hosts with the container only those that may have the address open the port', () => {
  const all = settle(wished([exposure('a')], [1, 2, 3, 4, 5, 6]), open());
  assert.deepEqual(opened(all), ['cw-exposed-1 8080 4']);
  assert.equal(all.plan.placed[0]?.hosts.length, 4);
  const plain = exposure('b', { port: 443, hostPort: 8443 });
  const { virtualIp: _, ...b } = plain;
  const both = settle(wished([exposure('a'), b], [1, 2, 3, 4, 5, 6]), all.state);
  assert.deepEqual(opened(both), ['cw-exposed-1 8080,8443 4', 'cw-exposed-2 8443 2']);
  const less = settle(wished([exposure('a')], [1, 3, 5]), both.state);
  assert.deepEqual(opened(less), ['cw-exposed-3 8080 3']);
});

/** Of the hosts' group. */
const rules = (wish: Wish): string[] =>
  wish.groups
    .filter(({ name }) => name === 'cw')
    .flatMap((group) => group.rules.map(({ direction, port, remote }) => `${direction} ${port} ${remote}`));

test('hosts admit what tells them of each other, and only while there is such an address', () => {
  assert.ok(rules(wished([exposure('a')], [1, 2])).includes('ingress 7482 hosts'));
  assert.ok(!rules(wished([], [1, 2])).some((rule) => rule.includes('7482')));
});

test('exposures of one container share the address and the floating IP; others have one of their own', () => {
  const two = [exposure('a', { floatingIp: 'auto' }), exposure('b', { floatingIp: 'auto', port: 443, hostPort: 443 })];
  const settled = settle(wished(two, [1, 2]), open());
  assert.deepEqual(
    settled.plan.placed.map(({ exposure: id, ip }) => [id, ip === address(settled)]),
    [
      ['a', true],
      ['b', true],
    ],
  );
  assert.equal(settled.state.floatingIps.length, 1);
  const other = settle(wished([...two, exposure('c', { endpoint: 'box-1' })], [1, 2]), settled.state);
  assert.equal(new Set(other.plan.placed.map(({ ip }) => ip)).size, 2);
  assert.equal(address(other), address(settled), 'the address stays');
});

test('it is taken from hosts that have no such container any more, given to others, and all of it is given back', () => {
  const settled = settle(wished([exposure('a', { floatingIp: 'auto' })], [1, 2]), open());
  const moved = settle(wished([exposure('a', { floatingIp: 'auto' })], [2, 4]), settled.state);
  assert.deepEqual(pairs(moved.state), [`port-2 ${address(settled)}`, `port-4 ${address(settled)}`]);
  assert.deepEqual(moved.plan.placed[0]?.hosts, ['host-2', 'host-4']);
  for (const gone of [wished([], [2, 4]), emptyWish('cw')]) {
    const { state } = settle(gone, moved.state);
    assert.deepEqual([pairs(state), state.floatingIps, state.ports.length], [[], [], 7]);
    assert.ok(state.ports.every(({ tags }) => !tags.some((tag) => tag.includes('.each.'))));
  }
});

test('while a host may not be deprived of its pair nobody else gets the address', () => {
  const settled = settle(wished([exposure('a')], [1, 2]), open());
  const ip = address(settled);
  const stuck = { floating: new Map(), virtual: new Map(), pairs: new Map([['port-1', 'Neutron refuses']]) };
  for (const gone of [wished([], [1, 2]), emptyWish('cw')]) {
    const { state, plan } = settle({ ...gone, refused: stuck }, settled.state);
    assert.deepEqual([pairs(state), state.ports.some(({ addresses }) => addresses.some((own) => own.ip === ip))], [[`port-1 ${ip}`], true]);
    assert.match(plan.problems.join(), new RegExp(`port port-1 of .* keeps ${ip}/32: Neutron refuses`));
    assert.equal(settle(gone, state).state.ports.length, 7);
  }
});

test('of many hosts four have it, and keep it when others come', () => {
  const settled = settle(wished([exposure('a')], [2, 3, 4, 5, 6]), open());
  assert.deepEqual(settled.plan.placed[0]?.hosts, ['host-2', 'host-3', 'host-4', 'host-5']);
  const more = settle(wished([exposure('a')], [1, 2, 3, 4, 5, 6]), settled.state);
  assert.deepEqual(more.plan.placed[0]?.hosts, ['host-2', 'host-3', 'host-4', 'host-5']);
});

test('a port with ten pairs has no room for it, which is said; one without port security needs none', () => {
  const ten = Array.from({ length: 10 }, (_, index) => ({ ip_address: `192.0.2.${index}` }));
  const full = open((port) =>
    port.id === 'port-1' ? { ...port, pairs: ten } : port.id === 'port-2' ? { ...port, portSecurity: false } : port,
  );
  const { state, plan } = settle(wished([exposure('a')], [1, 2, 3]), full);
  assert.deepEqual(plan.placed[0]?.hosts, ['host-2', 'host-3']);
  assert.deepEqual(
    pairs(state).filter((one) => !one.startsWith('port-1')),
    [`port-3 ${plan.placed[0]?.ip}`],
  );
  assert.match(plan.problems.join(), /Exposures of web of net-over: Port port-1 of host host-1 would need 1 allowed address pairs, and 10/);
});

test('what is open by it is what the groups of its hosts admit', () => {
  const { state } = settle(
    wished([exposure('a', { floatingIp: 'auto', sources: [parseCidr('192.0.2.0/24')] satisfies Cidr[] })], [1, 2]),
    open(),
  );
  const own = openingsTo({ ...state, balancers: [] }).find(({ scope, because }) => scope === 'outside' && because === 'exposure a');
  assert.deepEqual([own?.portRange, own?.from, own?.isOurs, own?.ports.length], ['8080', '192.0.2.0/24', true, 1]);
});

/** Hosts of both families, of which those have IPv6. */
const dual = (having: readonly number[], preferred: 4 | 6 = 4): Host[] =>
  [1, 2, 3, 4, 5, 6].map((index): Host => {
    const host = makeHost(index);
    const six = host.underlay.map((one) => ({ ...one, ip: parseIp(`fd00:213::${index}`), subnet: parseCidr('fd00:213::/64') }));
    const all = [...host.underlay, ...six];
    return having.includes(index) ? { ...host, underlay: preferred === 4 ? all : six } : host;
  });
const openDual = (having: readonly number[], changes: (port: NeutronPort, index: number) => NeutronPort = (port) => port): CloudState => {
  const state = open();
  const ports = state.ports.map((port, at) => {
    const index = at + 1;
    const own = [...port.addresses, { ip: `fd00:213::${index}`, subnetId: 'subnet6' }];
    return changes(having.includes(index) && index < 7 ? { ...port, addresses: own } : port, index);
  });
  return { ...state, ports };
};
const six = (id: string, changes: Partial<Exposure> = {}): Exposure => exposure(id, { family: 6, ...changes });

test("by IPv6 it is an address of the hosts' subnet of IPv6, a pair without a length, and its rule is of IPv6", () => {
  const both = [exposure('b', { hostPort: 8081 }), six('a')];
  const settled = settle(wished(both, [1, 3], dual([1, 3])), openDual([1, 3]));
  const ip = address(settled);
  assert.match(ip, /^fd00:213::9:/);
  const four = settled.plan.placed.find(({ exposure: id }) => id === 'b')?.ip ?? '';
  assert.deepEqual(
    pairs(settled.state).toSorted(),
    ['port-1', 'port-3'].flatMap((port) => [`${port} ${four}`, `${port} ${ip}`]).toSorted(),
  );
  const made = settled.state.ports.filter(({ owner }) => owner === 'causeway:virtual');
  assert.deepEqual(
    made.map(({ addresses }) => addresses.at(-1)?.subnetId),
    ['subnet', 'subnet6'],
  );
  const rulesOf = settled.state.groups.find(({ name }) => name === 'cw-exposed-1')?.rules ?? [];
  assert.deepEqual(rulesOf.map(({ ethertype, portMin }) => `${ethertype} ${portMin}`).toSorted(), ['IPv4 8081', 'IPv6 8080']);
  assert.deepEqual(settled.plan.problems, []);
  const { state } = settle(emptyWish('cw'), settled.state);
  assert.deepEqual([pairs(state), state.ports.length], [[], 7]);
});

test('hosts that have no address of the family, or that their port has not, or on another network, are named and left out', () => {
  const none = settle(wished([six('a')], [1, 2], dual([])), openDual([]));
  assert.deepEqual([none.plan.placed, pairs(none.state)], [[], []]);
  assert.match(
    none.plan.problems.join('\n'),
    /^Exposures of web of net-over by IPv6: host host-1 has no address of IPv6: give its port one/,
  );
  assert.equal(none.plan.problems.length, 2);
  const foreign = openDual([1, 2], (port, index) => (index === 2 ? { ...port, networkId: 'else' } : port));
  const two = settle(wished([six('a')], [1, 2, 3], dual([1, 2, 3])), foreign);
  assert.deepEqual(two.plan.placed[0]?.hosts, ['host-1']);
  assert.deepEqual(two.plan.problems, [
    'Exposures of web of net-over by IPv6: host host-3 has the address fd00:213::3, and its port port-3 has not (10.213.0.3), so nothing is known of its subnet',
    'Exposures of web of net-over by IPv6: host host-2 is on another network of the cloud than host host-1, and cannot have its addresses',
  ]);
});

/** Rules by which hosts talk of it. */
const talk = (preferred: 4 | 6): string[] =>
  wished([six('a')], [1, 2], dual([1, 2, 3, 4, 5, 6], preferred))
    .groups.flatMap((group) => group.rules)
    .filter(({ port }) => port === 7482)
    .map(({ ethertype, direction }) => `${ethertype} ${direction}`);

test('hosts settle it by the family of the address that they prefer', () => {
  assert.deepEqual(
    [talk(4), talk(6)],
    [
      ['IPv4 ingress', 'IPv4 egress'],
      ['IPv6 ingress', 'IPv6 egress'],
    ],
  );
});
