import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeHost, makeNetwork } from '#drivers/cluster.fixture.ts';
import type { ServiceBalancer } from '#model/cloud-services.ts';
import { parseIp } from '#model/ip.ts';
import { bareListener, listenerOf, made } from './balancers.fixture.ts';
import { type BalancerStep, type FoundBalancer, isBalancerStep } from './balancer-steps.ts';
import { type CloudPlan, type CloudState, planCloud } from './plan.ts';
import { floatingOf, portOf, stateOf } from './plan.fixture.ts';
import { emptyWish, type Wish, wishOf } from './wish.ts';

const service = (id: string, port: number, changes: Partial<ServiceBalancer> = {}): ServiceBalancer => ({
  id,
  service: `shop/${id}`,
  ports: [{ protocol: 'tcp', port, nodePort: 30_000 + port }],
  sources: [],
  floating: { wanted: 'auto', isKept: false },
  place: {},
  monitor: {},
  shared: 'theirs',
  ...changes,
});
const wished = (...services: readonly ServiceBalancer[]): Wish =>
  wishOf(
    { hosts: [makeHost(1), makeHost(2)], networks: [makeNetwork('over')], pools: [], blocks: [], endpoints: [], exposures: [], services },
    'cw',
  );
/** Of somebody else, with a listener of theirs on port 80. */
const theirs: FoundBalancer = {
  ...made({ name: 'theirs', listeners: [], tags: ['kube_service_x'] }, { id: 'theirs' }),
  listeners: [{ listener: bareListener({ id: 'their-80', name: 'web', port: 80 }), members: [] }],
};
const inState = (balancers: readonly FoundBalancer[], changes: Partial<CloudState> = {}): CloudState =>
  stateOf({
    providers: ['ovn'],
    balancers,
    mostShared: 3,
    floatingIps: [floatingOf('203.0.113.7', { portId: 'vip', fixedAddress: '10.213.0.99' })],
    ...changes,
  });
const stepsOf = ({ steps }: CloudPlan): BalancerStep[] => steps.filter(isBalancerStep);
const brief = (plan: CloudPlan): string[] =>
  stepsOf(plan).map((step) => {
    if (step.type === 'add-listener') return `add ${step.request.protocol_port} to ${step.balancer.id}`;
    if (step.type === 'remove-listener') return `remove ${step.listener.id} of ${step.balancer.id}`;
    return step.type;
  });
/** As Octavia has it after these steps, which only add listeners. */
function after(found: FoundBalancer, plan: CloudPlan): FoundBalancer {
  const added = stepsOf(plan).flatMap((step) => (step.type === 'add-listener' ? [step.request] : []));
  return { ...found, listeners: [...found.listeners, ...added.map((request) => listenerOf(request, request.protocol_port))] };
}

test('a service on a load balancer that is there adds its ports, with its name in their tags, and is reached by what leads there', () => {
  const plan = planCloud(wished(service('a', 81)), inState([theirs]));
  const [step, ...rest] = stepsOf(plan);
  assert.ok(step?.type === 'add-listener');
  assert.deepEqual(
    [step.balancer.id, step.request.protocol_port, step.request.tags, rest],
    ['theirs', 81, ['causeway.cw', 'causeway.cw.exposure.a'], []],
  );
  assert.deepEqual(plan.balanced, [
    { id: 'a', name: 'shop/a', address: '203.0.113.7', balancer: 'theirs', provider: 'ovn', notes: [], problems: [] },
  ]);
  const again = planCloud(wished(service('a', 81)), inState([after(theirs, plan)]));
  assert.deepEqual([again.steps.filter(isBalancerStep), again.problems], [[], []]);
});

test('on one of OVN’s nothing is begun for a service that it cannot serve as it is meant', () => {
  const plan = planCloud(wished(service('a', 81, { proxy: { certificate: 'a' } })), inState([theirs]));
  assert.deepEqual(brief(plan), []);
  assert.match(plan.problems.join(), /load balancer theirs: provider ovn passes packets on as they are, and cannot end TLS/);
});

test('nobody is let in from outside who was not: without a floating IP there only an internal service has an address', () => {
  const bare = inState([theirs], { floatingIps: [] });
  const outer = planCloud(wished(service('a', 81)), bare);
  assert.match(outer.problems.join(), /Service shop\/a: load balancer theirs has no floating IP, and gets none/);
  assert.equal(outer.balanced[0]?.address, undefined);
  assert.ok(outer.steps.every(({ type }) => !type.endsWith('floating-ip')));
  const { floating: _, ...inner } = service('a', 81);
  const plan = planCloud(wished(inner), bare);
  assert.deepEqual([plan.problems, plan.balanced[0]?.address], [[], '10.213.0.99']);
});

test('a port that somebody has is told, and keeps the others from nothing', () => {
  const ports = [80, 81].map((port) => ({ protocol: 'tcp' as const, port, nodePort: 30_000 + port }));
  const udp = { protocol: 'udp' as const, port: 80, nodePort: 30_053 };
  const plan = planCloud(wished(service('a', 81, { ports: [...ports, udp] })), inState([theirs]));
  assert.deepEqual(plan.problems, ['Service shop/a: port 80 of load balancer theirs is taken by listener web']);
  assert.deepEqual(
    stepsOf(plan).map((step) => step.type === 'add-listener' && `${step.request.protocol} ${step.request.protocol_port}`),
    ['TCP 81', 'UDP 80'],
  );
});

test('with the service its ports go and nothing else; ports of another service on it are not probed meanwhile', () => {
  const both = wished(service('a', 81), service('b', 82));
  const there = inState([after(theirs, planCloud(both, inState([theirs])))]);
  assert.deepEqual(brief(planCloud(both, there)), []);
  assert.deepEqual(brief(planCloud(wished(service('b', 82)), there)), ['remove-monitor', 'remove listener81 of theirs', 'add-monitor']);
  assert.deepEqual(brief(planCloud(wished(service('a', 81), service('b', 82, { hosts: ['host-1'] })), there)), [
    'remove-monitor',
    'set-members',
    'add-monitor',
  ]);
  assert.deepEqual(brief(planCloud(emptyWish('cw'), there)), ['remove listener81 of theirs', 'remove listener82 of theirs']);
  assert.deepEqual(brief(planCloud(emptyWish('other'), there)), []);
});

test('beside what others have probed at an address of ours nothing is begun, as OVN would lead nothing there any more; who is there is told', () => {
  const probed = listenerOf({
    name: 'web',
    protocol: 'TCP',
    protocol_port: 80,
    default_pool: {
      name: 'web',
      protocol: 'TCP',
      lb_algorithm: 'SOURCE_IP_PORT',
      members: [{ address: '10.213.0.2', protocol_port: 8080 }],
      healthmonitor: { type: 'TCP', delay: 5, timeout: 3, max_retries: 1 },
    },
  });
  const told = /load balancer theirs: its listener listener0, which is somebody else's, has 10\.213\.0\.2 probed, and OVN's provider/;
  const beside = { ...theirs, listeners: [probed] };
  const plan = planCloud(wished(service('a', 81)), inState([beside]));
  assert.deepEqual(brief(plan), []);
  assert.match(plan.problems.join(), told);
  assert.equal(plan.balanced[0]?.address, undefined);
  const before = after(theirs, planCloud(wished(service('a', 81)), inState([theirs])));
  const there = { ...before, listeners: [...before.listeners.slice(1), probed] };
  const later = planCloud(wished(service('a', 81)), inState([there]));
  assert.deepEqual([brief(later), later.balanced[0]?.address], [[], '203.0.113.7']);
  assert.match(later.problems.join(), told);
  assert.deepEqual(brief(planCloud(emptyWish('cw'), inState([there]))), ['remove listener81 of theirs'], 'it closes all the same');
  const udp = { ...probed, listener: { ...probed.listener, protocol: 'UDP' } };
  for (const fine of [udp, { ...probed, members: [] }, { ...probed, pool: probed.pool && { ...probed.pool, monitor: undefined } }])
    assert.deepEqual(planCloud(wished(service('a', 81)), inState([{ ...theirs, listeners: [fine] }])).problems, []);
});

/** A load balancer that is made for one service, which another one is to be on, too. */
function ownWithGuest() {
  const { shared: _, ...own } = service('a', 80);
  const [make] = stepsOf(planCloud(wished(own), inState([])));
  assert.ok(make?.type === 'make-balancer');
  const balancer = made(make.request);
  const sharing = service('b', 82, { shared: balancer.balancer.id });
  const vip = portOf(7, { id: 'vip', owner: 'ovn-lb-vip:x', groups: [], addresses: [{ ip: '10.213.0.99', subnetId: 'subnet' }] });
  return { own, balancer, sharing, ports: [portOf(1), portOf(2), vip] };
}

test("one of Causeway's own stays as long as another service is on it, and goes with the last", () => {
  const { own, balancer, sharing, ports } = ownWithGuest();
  const whole = after(balancer, planCloud(wished(own, sharing), inState([balancer], { ports })));
  assert.deepEqual(brief(planCloud(wished(own, sharing), inState([whole], { ports }))), []);
  assert.deepEqual(brief(planCloud(wished(own), inState([whole], { ports }))), [
    'remove-monitor',
    `remove listener82 of ${balancer.balancer.id}`,
    'add-monitor',
  ]);
  assert.deepEqual(brief(planCloud(wished(sharing), inState([whole], { ports }))), [
    'remove-monitor',
    `remove listener0 of ${balancer.balancer.id}`,
    'add-monitor',
  ]);
  assert.deepEqual(brief(planCloud(emptyWish('cw'), inState([whole], { ports }))), ['remove-balancer']);
  const others = {
    ...whole,
    listeners: whole.listeners.map((one) => ({
      ...one,
      listener: { ...one.listener, tags: one.listener.tags.map((tag) => tag.replace('cw', 'other')) },
    })),
  };
  assert.deepEqual(brief(planCloud(emptyWish('cw'), inState([others], { ports }))), [`remove listener0 of ${balancer.balancer.id}`]);
  const more = { ...own, ports: [...own.ports, { protocol: 'tcp' as const, port: 82, nodePort: 31_000 }] };
  const crowded = planCloud(wished(more, sharing), inState([whole], { ports }));
  assert.deepEqual(
    [brief(crowded), crowded.problems.slice(0, 1)],
    [[], ['Service shop/a: port 82 of load balancer cw-shop-a is taken by listener listener82']],
  );
  const itself = { ...own, shared: balancer.balancer.id };
  assert.deepEqual(brief(planCloud(wished(itself), inState([balancer], { ports }))), [], 'its own is not shared');
});

test('as many share one as may: who is on it stays, and of others those find room who can be served', () => {
  const full = 'Service shop/b has no load balancer: load balancer theirs is shared by as many services as may, 2 (max-shared-lb)';
  const [a, b] = [service('a', 81), service('b', 82)];
  const two = { mostShared: 2 };
  const first = planCloud(wished(a, b), inState([theirs], two));
  assert.deepEqual([brief(first), first.problems], [['add 81 to theirs'], [full]]);
  const there = after(theirs, planCloud(wished(a), inState([theirs], two)));
  const later = planCloud(wished(b, a), inState([there], two));
  assert.deepEqual([brief(later), later.problems], [[], [full]]);
  assert.equal(later.balanced.find(({ id }) => id === 'b')?.address, undefined);
  const both = after(there, planCloud(wished(a, b), inState([there])));
  assert.deepEqual(brief(planCloud(wished(a, b), inState([both], { mostShared: 1 }))), [], 'who is on it stays');
  const unfit = planCloud(wished(service('a', 81, { family: 6 }), b), inState([theirs], two));
  assert.deepEqual(brief(unfit), ['add 82 to theirs'], 'who cannot be served takes no room');
  const left = planCloud(wished(b), inState([there], two));
  assert.deepEqual(brief(left), ['remove listener81 of theirs', 'add 82 to theirs'], 'who goes leaves room');
});

test('the service that one was made for counts, as long as there is that service', () => {
  const { own, balancer, sharing, ports } = ownWithGuest();
  const at = (mostShared: number): CloudState => inState([balancer], { ports, mostShared });
  assert.match(planCloud(wished(own, sharing), at(1)).problems.join(), /shop\/b .* is shared by as many services as may, 1/);
  assert.deepEqual(brief(planCloud(wished(own, sharing), at(2))), [`add 82 to ${balancer.balancer.id}`]);
  assert.deepEqual(planCloud(wished(sharing), at(1)).problems, []);
});

const told = (balancers: readonly FoundBalancer[], changes: Partial<ServiceBalancer> = {}): string =>
  planCloud(wished(service('a', 81, changes)), inState(balancers)).problems.join();

test('what cannot be is said: none of that id, one that has failed, or has an address of another family', () => {
  assert.match(told([]), /Service shop\/a has no load balancer: the project has no load balancer theirs/);
  const failed = { ...theirs, balancer: { ...theirs.balancer, provisioning: 'ERROR' } };
  assert.match(told([failed]), /has no load balancer: load balancer theirs is in state ERROR/);
  assert.match(told([theirs], { family: 6 }), /load balancer theirs has no address of IPv6/);
});

test('members are by addresses of the subnet that is named; hosts without one are told', () => {
  const first = portOf(1, {
    addresses: [
      { ip: '10.213.0.1', subnetId: 'subnet' },
      { ip: '10.214.0.1', subnetId: 'second' },
      { ip: 'fd00::1', subnetId: 'second' },
    ],
  });
  const { shared: _, ...own } = service('a', 80, { memberSubnet: 'second' });
  const plan = planCloud(wished(own), inState([], { ports: [first, portOf(2)] }));
  const [step] = stepsOf(plan);
  assert.ok(step?.type === 'make-balancer');
  assert.deepEqual(
    step.request.listeners[0]?.default_pool.members.map(({ address, subnet_id: subnet }) => [parseIp(address), subnet]),
    [['10.214.0.1', 'second']],
  );
  const there = planCloud(wished(own), inState([made(step.request)], { ports: [first, portOf(2)] }));
  assert.match(there.problems.join(), /Service shop\/a: the port of host-2 has no address of IPv4 in subnet second/);
});
