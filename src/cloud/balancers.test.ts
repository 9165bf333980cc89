import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeEndpoint, makeHost, makeNetwork } from '#drivers/cluster.fixture.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Endpoint, Exposure, Host } from '#model/resources.ts';
import type { ServiceBalancer } from '#model/cloud-services.ts';
import { exposureOf, made } from './balancers.fixture.ts';
import type { FoundListener } from './balancer-requests.ts';
import { isBalancerStep } from './balancer-steps.ts';
import { isFloatingStep, madeDescription } from './floating.ts';
import type { LoadBalancerRequest } from './octavia.ts';
import { type CloudState, planCloud, type Step } from './plan.ts';
import { floatingOf, portOf, routerOf, stateOf } from './plan.fixture.ts';
import { keyOfRule } from './rules.ts';
import { emptyWish, type Wish, wishOf } from './wish.ts';

const boxes = [1, 2].map((index) => ({ ...makeEndpoint('over', `host-${index}`, index, [parseIp(`10.0.0.${index}`)]), names: ['front'] }));
const exposure = (changes: Partial<Exposure> = {}): Exposure => exposureOf({ sources: [parseCidr('192.0.2.0/24')], ...changes });
function wished(changes: Partial<Exposure> = {}, endpoints: readonly Endpoint[] = boxes): Wish {
  const facts = { hosts: [makeHost(1), makeHost(2)], networks: [makeNetwork('over')], pools: [], blocks: [] };
  return wishOf({ ...facts, endpoints, exposures: [exposure(changes)] }, 'cw');
}

const withOctavia = (changes: Partial<CloudState> = {}): CloudState => stateOf({ providers: ['amphora', 'ovn'], ...changes });
const stepsOf = (wish: Wish, state: CloudState): Step[] =>
  planCloud(wish, state).steps.filter((step) => isBalancerStep(step) || isFloatingStep(step));
function request(wish: Wish): LoadBalancerRequest {
  const [step] = stepsOf(wish, withOctavia());
  return step?.type === 'make-balancer' ? step.request : assert.fail('no load balancer is made');
}

test('one is made whole, on the port of the container, with a member for each host, and hosts open their port to the sources', () => {
  const { listeners, vip_subnet_id: subnet, provider, tags } = request(wished());
  assert.deepEqual([subnet, provider, tags], ['subnet', 'ovn', ['causeway.cw', 'causeway.cw.exposure.a']]);
  const [listener] = listeners;
  assert.deepEqual([listener?.protocol, listener?.protocol_port, listener?.allowed_cidrs], ['TCP', 80, undefined]);
  assert.deepEqual(
    listener?.default_pool.members.map(({ address, protocol_port: port }) => `${address}:${port}`),
    ['10.213.0.1:8080', '10.213.0.2:8080'],
  );
  assert.equal(listener?.default_pool.healthmonitor, undefined, 'hosts would drop its probes');
  assert.equal(request(wished({ sources: [] })).listeners[0]?.default_pool.healthmonitor?.type, 'TCP');
  const own = wished().groups.filter(({ name }) => name.startsWith('cw-exposed'));
  assert.deepEqual(
    own.map(({ rules }) => rules.map(keyOfRule)),
    [['ingress IPv4 6 8080 192.0.2.0/24'], ['ingress IPv4 6 8080 192.0.2.0/24']],
  );
});

test('members follow by one step for all of them, and nothing else is touched', () => {
  const state = withOctavia({ balancers: [made(request(wished()))] });
  assert.deepEqual(stepsOf(wished(), state), []);
  const [step, ...rest] = stepsOf(wished({}, boxes.slice(1)), state);
  assert.deepEqual(rest, []);
  assert.ok(step?.type === 'set-members');
  assert.deepEqual([step.pool, step.members.map(({ address }) => address)], ['pool0', ['10.213.0.2']]);
  const moved = stepsOf(wished({ hostPort: 8081 }), state);
  assert.deepEqual(
    moved.map(({ type }) => type),
    ['set-members'],
  );
  const gone = planCloud(wished({}, []), state);
  assert.match(gone.problems.join(), /Exposure web: its container is on no host/);
  assert.deepEqual(
    stepsOf(wished({}, []), state).map((one) => one.type === 'set-members' && one.members),
    [[]],
  );
});

test('a port or protocol is exchanged while the address stays; one that came to nothing is made anew', () => {
  const found = made(request(wished()));
  for (const wish of [wished({ port: 81 }), wished({ protocol: 'udp' })]) {
    assert.deepEqual(
      stepsOf(wish, withOctavia({ balancers: [found] })).map(({ type }) => type),
      ['remove-listener', 'add-listener'],
    );
  }
  const broken = withOctavia({ balancers: [made(request(wished()), { provisioning: 'ERROR' })] });
  assert.deepEqual(
    stepsOf(wished(), broken).map(({ type }) => type),
    ['remove-balancer', 'make-balancer'],
  );
});

test('probes begin and end in place, by the cloud as well', () => {
  const open = wished({ sources: [] });
  const [add, ...more] = stepsOf(open, withOctavia({ balancers: [made(request(wished()))] }));
  assert.ok(add?.type === 'add-monitor');
  assert.deepEqual([add.pool, add.request.type, more], ['pool0', 'TCP', []]);
  const [remove, ...others] = stepsOf(wished(), withOctavia({ balancers: [made(request(open))] }));
  assert.ok(remove?.type === 'remove-monitor');
  assert.deepEqual([remove.monitor.id, others], ['monitor0', []]);
});

test('members and probes that came to nothing are asked for again', () => {
  const open = wished({ sources: [] });
  const found = made(request(open));
  const withParts = (changes: (one: FoundListener) => Partial<FoundListener>): CloudState =>
    withOctavia({ balancers: [{ ...found, listeners: found.listeners.map((one) => ({ ...one, ...changes(one) })) }] });
  const lost = withParts(({ members: [first, ...others] }) => ({
    members: [...(first === undefined ? [] : [{ ...first, provisioning: 'ERROR' }]), ...others],
  }));
  const [step, ...rest] = stepsOf(open, lost);
  assert.ok(step?.type === 'set-members');
  assert.deepEqual([step.pool, step.members.map(({ address }) => address), rest], ['pool0', ['10.213.0.1', '10.213.0.2'], []]);
  const unprobed = withParts(({ monitor }) => (monitor === undefined ? {} : { monitor: { ...monitor, provisioning: 'ERROR' } }));
  assert.deepEqual(
    stepsOf(open, unprobed).map(({ type }) => type),
    ['remove-monitor', 'add-monitor'],
  );
  const gone = stepsOf(wished({ sources: [] }, boxes.slice(1)), lost);
  assert.ok(
    gone.every((one) => one.type !== 'set-members' || one.again === undefined),
    'others are wanted anyway',
  );
});

test('what nothing wants goes, what is not ours stays', () => {
  const balancers = [made(request(wished()))];
  assert.deepEqual(
    stepsOf(emptyWish('cw'), withOctavia({ balancers })).map(({ type }) => type),
    ['remove-balancer'],
  );
  assert.deepEqual(stepsOf(emptyWish('other'), withOctavia({ balancers })), []);
});

test('from outside it is reached by a floating IP on its own address, once it has one', () => {
  const wish = wished({ loadBalancer: 'public', floatingIp: '203.0.113.7' });
  const floatingIps = [floatingOf('203.0.113.7')];
  assert.deepEqual(
    stepsOf(wish, withOctavia({ floatingIps })).map(({ type }) => type),
    ['make-balancer'],
  );
  const vip = portOf(7, { id: 'vip', owner: 'ovn-lb-vip:x', groups: [], addresses: [{ ip: '10.213.0.99', subnetId: 'subnet' }] });
  const there = withOctavia({ floatingIps, balancers: [made(request(wish))], ports: [portOf(1), portOf(2), vip] });
  const [step, ...rest] = stepsOf(wish, there);
  assert.deepEqual(rest, []);
  assert.ok(step?.type === 'change-floating-ip');
  assert.deepEqual(step.target, { port: 'vip', fixed: '10.213.0.99' });
});

test('a cloud that cannot serve it is named, and nothing is made', () => {
  for (const [state, words] of [
    [stateOf(), /the cloud has no Octavia/],
    [stateOf({ providers: [] }), /Octavia has no provider$/],
  ] as const) {
    assert.match(planCloud(wished(), state).problems.join(), words);
    assert.deepEqual(stepsOf(wished(), state), []);
  }
  assert.match(planCloud(wished({}, []), withOctavia()).problems.join(), /has no load balancer: its container is on no host/);
});

const service = (changes: Partial<ServiceBalancer> = {}): ServiceBalancer => ({
  id: 'a1b2',
  service: 'shop/web',
  ports: [
    { protocol: 'tcp', port: 80, nodePort: 30080 },
    { protocol: 'udp', port: 53, nodePort: 30053 },
  ],
  sources: [],
  place: {},
  monitor: {},
  ...changes,
});
const serviceWish = (changes: Partial<ServiceBalancer> = {}, hosts?: readonly Host[]): Wish => wishOfService(service(changes), hosts);
const wishOfService = (one: ServiceBalancer, hosts: readonly Host[] = [makeHost(1), makeHost(2)]): Wish =>
  wishOf({ hosts, networks: [makeNetwork('over')], pools: [], blocks: [], endpoints: [], exposures: [], services: [one] }, 'cw');

const nodePortRules = ({ groups }: Wish): string[][] =>
  groups.filter(({ name }) => name === 'cw-node-ports').map(({ rules }) => rules.map(keyOfRule));

test('a service has one load balancer for all its ports, and every host opens their node ports to its sources', () => {
  const { name, listeners, tags } = request(serviceWish());
  assert.deepEqual([name, tags], ['cw-shop-web', ['causeway.cw', 'causeway.cw.exposure.a1b2']]);
  assert.deepEqual(
    listeners.map(({ protocol, protocol_port: port, default_pool: pool }) => [
      `${protocol} ${port}`,
      pool.members.map((member) => `${member.address}:${member.protocol_port}`),
      pool.healthmonitor,
    ]),
    [
      ['TCP 80', ['10.213.0.1:30080', '10.213.0.2:30080'], { type: 'TCP', delay: 2, timeout: 1, max_retries: 1, max_retries_down: 2 }],
      [
        'UDP 53',
        ['10.213.0.1:30053', '10.213.0.2:30053'],
        { type: 'UDP-CONNECT', delay: 3, timeout: 1, max_retries: 1, max_retries_down: 2 },
      ],
    ],
  );
  assert.deepEqual(nodePortRules(serviceWish()), [['ingress IPv4 6 30080 anybody', 'ingress IPv4 17 30053 anybody']]);
  const few = serviceWish({ sources: [parseCidr('192.0.2.0/24')], monitor: {} });
  assert.deepEqual(nodePortRules(few), [['ingress IPv4 6 30080 192.0.2.0/24', 'ingress IPv4 17 30053 192.0.2.0/24']]);
  assert.ok(few.ports.every(({ groups }) => groups.includes('cw-node-ports')));
  assert.ok(request(few).listeners.every((listener) => listener.default_pool.healthmonitor === undefined));
});

const six = (index: number): string => `fd00:213::${index}`;

const dual = (...having: readonly number[]): Host[] =>
  [1, 2].map((index): Host => {
    const host = makeHost(index);
    const link = host.underlay.map((one) => ({ ...one, ip: parseIp(six(index)), subnet: parseCidr('fd00:213::/64') }));
    return having.includes(index) ? { ...host, underlay: [...host.underlay, ...link] } : host;
  });
const dualPorts = [1, 2].map((index) => {
  const port = portOf(index);
  return { ...port, addresses: [...port.addresses, { ip: six(index), subnetId: 'subnet6' }] };
});
const inside6 = portOf(8, {
  owner: 'network:router_interface',
  device: 'router',
  addresses: [{ ip: 'fd00:213::ff', subnetId: 'subnet6' }],
});
function requestOf6(wish: Wish): LoadBalancerRequest {
  const [step] = stepsOf(wish, withOctavia({ ports: dualPorts }));
  return step?.type === 'make-balancer' ? step.request : assert.fail('no load balancer is made');
}
const membersOf = ({ listeners }: LoadBalancerRequest): string[] =>
  listeners.flatMap(({ default_pool: pool }) => pool.members.map((one) => `${one.address}:${one.protocol_port} ${one.subnet_id}`));

test('a service of IPv6 has hosts, an address and open ports of that family', () => {
  const [one] = service().ports;
  const wish = serviceWish({ family: 6, ports: one === undefined ? [] : [one] }, dual(1, 2));
  const asked = requestOf6(wish);
  assert.deepEqual([asked.vip_subnet_id, membersOf(asked)], ['subnet6', ['fd00:213::1:30080 subnet6', 'fd00:213::2:30080 subnet6']]);
  assert.deepEqual(nodePortRules(wish), [['ingress IPv6 6 30080 anybody']]);
});

function exposed6(hosts: readonly Host[]): Wish {
  const facts = { hosts, networks: [makeNetwork('over')], pools: [], blocks: [], endpoints: boxes };
  return wishOf({ ...facts, exposures: [exposure({ family: 6, loadBalancer: 'public', sources: [] })] }, 'cw');
}

test('so has an exposure, which has no floating IP then and is reached by its own address', () => {
  const asked = requestOf6(exposed6(dual(1, 2)));
  assert.deepEqual([asked.vip_subnet_id, membersOf(asked)], ['subnet6', ['fd00:213::1:8080 subnet6', 'fd00:213::2:8080 subnet6']]);
  assert.equal(asked.listeners[0]?.default_pool.healthmonitor?.type, 'TCP');
  const there = withOctavia({ ports: [...dualPorts, inside6], balancers: [made(asked, { address: 'fd00:213::99', subnetId: 'subnet6' })] });
  const plan = planCloud(exposed6(dual(1, 2)), there);
  assert.deepEqual([stepsOf(exposed6(dual(1, 2)), there), plan.problems], [[], []]);
  assert.deepEqual(plan.reached, [{ id: 'a', exposure: 'web', host: 'load balancer cw-web', address: 'fd00:213::99' }]);
  const alone = planCloud(exposed6(dual(1, 2)), { ...there, ports: dualPorts });
  assert.deepEqual(alone.problems, [
    'Exposure web: no router that this login sees is on its subnet subnet6, and without one nobody answers for its address',
  ]);
  const few = planCloud(exposed6(dual(1)), there).problems;
  assert.deepEqual(few, [
    'Exposure web: host-2 cannot be led to for want of an address of its family: give the port one, and the interface the same',
  ]);
  assert.match(
    planCloud(exposed6(dual()), withOctavia()).problems.join(),
    /^Exposure web has no load balancer: host-1, host-2 cannot be led to/,
  );
});

test('ports of a service come and go one by one, probes are retimed in place, and only some hosts may be led to', () => {
  const state = withOctavia({ balancers: [made(request(serviceWish()))] });
  assert.deepEqual(stepsOf(serviceWish(), state), []);
  const [one] = service().ports;
  const fewer = serviceWish({ ports: one === undefined ? [] : [one] });
  assert.deepEqual(
    stepsOf(fewer, state).map((step) => step.type === 'remove-listener' && [step.listener.id, step.listener.pool]),
    [['listener1', 'pool1']],
  );
  const more = serviceWish({ ports: [...service().ports, { protocol: 'tcp', port: 443, nodePort: 30443 }] });
  assert.deepEqual(
    stepsOf(more, state).map((step) => step.type === 'add-listener' && [step.request.name, step.request.default_pool.members.length]),
    [['shop-web-tcp-443', 2]],
  );
  assert.deepEqual(
    stepsOf(serviceWish({ monitor: { delay: 7, timeout: 3 } }), state).map((step) => step.type === 'set-monitor' && step.request.delay),
    [7, 7],
  );
  assert.deepEqual(
    stepsOf(serviceWish({ hosts: ['host-2'] }), state).map((step) => step.type === 'set-members' && step.members.map(({ name }) => name)),
    [['host-2'], ['host-2']],
  );
  assert.match(planCloud(serviceWish({ hosts: [] }), withOctavia()).problems.join(), /Service shop\/web has no load balancer: no node has/);
});

test("nothing is probed by OVN while a member goes whose address another pool, or the same, still has: OVN's provider would forget the address", () => {
  const two: ServiceBalancer['ports'] = [
    { protocol: 'tcp', port: 80, nodePort: 30080 },
    { protocol: 'tcp', port: 443, nodePort: 30443 },
  ];
  const wish = (ports: ServiceBalancer['ports'], changes: Partial<ServiceBalancer> = {}): Wish => serviceWish({ ports, ...changes });
  const typesOf = (from: Wish, to: Wish, provider = 'ovn'): string[] =>
    stepsOf(to, withOctavia({ balancers: [made({ ...request(from), provider })] })).map((step) => step.type);
  assert.deepEqual(typesOf(wish(two), wish(two.slice(0, 1))), ['remove-monitor', 'remove-listener', 'add-monitor']);
  const moved = [{ protocol: 'tcp', port: 80, nodePort: 31080 }] as const;
  assert.deepEqual(typesOf(wish(two.slice(0, 1)), wish(moved)), ['remove-monitor', 'set-members', 'add-monitor']);
  const begun = made(request(wish(two.slice(0, 1))));
  const listeners = begun.listeners.map(({ listener, pool, members }) => ({ listener, pool, members }));
  const after = stepsOf(wish(two.slice(0, 1)), withOctavia({ balancers: [{ ...begun, listeners }] }));
  assert.deepEqual(
    after.map(({ type }) => type),
    ['add-monitor'],
    'which what ended in between leaves to be done',
  );
  assert.deepEqual(typesOf(wish(two), wish(two, { hosts: ['host-2'] })), ['set-members', 'set-members'], 'it is to be forgotten');
  const { monitor: __, ...unprobed } = service();
  assert.deepEqual(typesOf(wishOfService({ ...unprobed, ports: two }), wishOfService({ ...unprobed, ports: moved })), [
    'remove-listener',
    'set-members',
  ]);
  assert.deepEqual(typesOf(serviceWish(), wish(two.slice(0, 1))), ['remove-listener'], 'of another protocol');
  assert.deepEqual(
    typesOf(wish(two), wish(two.slice(0, 1)), 'amphora').filter((type) => type.endsWith('monitor')),
    [],
  );
});

function place(changes: ServiceBalancer['place']): object {
  const { name: _, description: __, provider: ___, tags: ____, listeners: _____, ...vip } = request(serviceWish({ place: changes }));
  return vip;
}

test('where its own address is may be said', () => {
  assert.deepEqual(place({}), { vip_subnet_id: 'subnet' });
  assert.deepEqual(place({ subnet: 's', address: parseIp('10.1.0.9') }), { vip_subnet_id: 's', vip_address: '10.1.0.9' });
  assert.deepEqual(place({ network: 'n' }), { vip_network_id: 'n' });
  assert.deepEqual(place({ network: 'n', subnet: 's' }), { vip_network_id: 'n', vip_subnet_id: 's' });
  assert.deepEqual(place({ port: 'p', subnet: 's' }), { vip_port_id: 'p' });
});

test('what has become of each is told, also of one that the cloud has refused, which is not asked for again', () => {
  const floating = { wanted: 'auto', isKept: false };
  assert.deepEqual(planCloud(serviceWish(), withOctavia({ balancers: [made(request(serviceWish()))] })).balanced, [
    { id: 'a1b2', name: 'shop/web', address: '10.213.0.99', balancer: 'cw-shop-web', provider: 'ovn', notes: [], problems: [] },
  ]);
  const [waiting] = planCloud(serviceWish({ floating }), withOctavia({ balancers: [made(request(serviceWish()))] })).balanced;
  assert.equal(waiting?.address, undefined, 'it is not reached from outside yet');
  const wish = serviceWish();
  const refused: Wish = { ...wish, balancers: wish.balancers.map((one) => ({ ...one, refused: 'no such subnet' })) };
  const plan = planCloud(refused, withOctavia());
  assert.deepEqual(
    plan.balanced.map(({ problems }) => problems),
    [['Service shop/web has no load balancer: no such subnet']],
  );
  assert.deepEqual(stepsOf(refused, withOctavia()), []);
});

test("a floating IP that is to be kept loses its tags only, and is the project's own", () => {
  const wish = serviceWish({ floating: { wanted: 'auto', isKept: true } });
  const vip = portOf(7, { id: 'vip', owner: 'ovn-lb-vip:x', groups: [], addresses: [{ ip: '10.213.0.99', subnetId: 'subnet' }] });
  const inside = portOf(8, {
    owner: 'network:router_interface',
    device: 'router',
    addresses: [{ ip: '10.213.0.254', subnetId: 'subnet' }],
  });
  const there = withOctavia({
    balancers: [made(request(wish))],
    ports: [portOf(1), portOf(2), vip, inside],
    routers: [routerOf({ externalNetwork: 'outside' })],
  });
  const [step] = stepsOf(wish, there);
  assert.ok(step?.type === 'make-floating-ip');
  assert.deepEqual(step.tags, ['causeway.cw', 'causeway.cw.kept', 'causeway.cw.exposure.a1b2']);
  const floatingIps = [
    floatingOf('203.0.113.9', { portId: 'vip', fixedAddress: '10.213.0.99', tags: step.tags, description: madeDescription('causeway.cw') }),
  ];
  assert.deepEqual(stepsOf(wish, { ...there, floatingIps }), []);
  const [release] = stepsOf(emptyWish('cw'), { ...there, balancers: [], floatingIps });
  assert.ok(release?.type === 'release-floating-ip');
  assert.deepEqual([release.isMade, release.isKept], [false, true]);
});
