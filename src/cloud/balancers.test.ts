import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeEndpoint, makeHost, makeNetwork } from '#drivers/cluster.fixture.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Endpoint, Exposure } from '#model/resources.ts';
import type { FoundBalancer } from './balancers.ts';
import type { LoadBalancerRequest } from './octavia.ts';
import { type CloudState, planCloud, type Step } from './plan.ts';
import { floatingOf, portOf, stateOf } from './plan.fixture.ts';
import { emptyWish, keyOfRule, type Wish, wishOf } from './wish.ts';

const boxes = [1, 2].map((index) => ({ ...makeEndpoint('over', `host-${index}`, index, [parseIp(`10.0.0.${index}`)]), names: ['front'] }));
const exposure = (changes: Partial<Exposure> = {}): Exposure => ({
  id: 'a',
  name: 'web',
  revision: 1,
  createdAt: '',
  labels: {},
  network: 'over',
  endpoint: 'front',
  protocol: 'tcp',
  port: 80,
  hostPort: 8080,
  sources: [parseCidr('192.0.2.0/24')],
  loadBalancer: 'internal',
  ...changes,
});
function wished(changes: Partial<Exposure> = {}, endpoints: readonly Endpoint[] = boxes): Wish {
  const facts = { hosts: [makeHost(1), makeHost(2)], networks: [makeNetwork('over')], pools: [], blocks: [] };
  return wishOf({ ...facts, endpoints, exposures: [exposure(changes)] }, 'cw');
}

/** As Octavia makes it. */
const made = (
  { name, tags = [], listeners: [listener] }: LoadBalancerRequest,
  changes: Partial<FoundBalancer['balancer']> = {},
): FoundBalancer => ({
  balancer: {
    id: `id of ${name}`,
    name,
    description: '',
    projectId: 'project',
    provider: 'ovn',
    address: '10.213.0.99',
    portId: 'vip',
    subnetId: 'subnet',
    provisioning: 'ACTIVE',
    operating: 'ONLINE',
    tags,
    listeners: ['listener'],
    pools: ['pool'],
    ...changes,
  },
  listener: {
    id: 'listener',
    name: '',
    protocol: listener?.protocol ?? '',
    port: listener?.protocol_port ?? 0,
    allowedCidrs: [],
    pool: 'pool',
    loadBalancers: [],
    provisioning: 'ACTIVE',
  },
  hasMonitor: listener?.default_pool.healthmonitor !== undefined,
  members: (listener?.default_pool.members ?? []).map(({ address, protocol_port: port }) => ({
    id: address,
    name: '',
    address,
    port,
    provisioning: 'ACTIVE',
    operating: 'ONLINE',
  })),
});
const withOctavia = (changes: Partial<CloudState> = {}): CloudState => stateOf({ providers: ['amphora', 'ovn'], ...changes });
const stepsOf = (wish: Wish, state: CloudState): Step[] =>
  planCloud(wish, state).steps.filter(({ type }) => type.endsWith('balancer') || type === 'set-members' || type.endsWith('floating-ip'));
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
  assert.deepEqual([step.pool, step.members.map(({ address }) => address)], ['pool', ['10.213.0.2']]);
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

test('another port or protocol, or one that came to nothing, is made anew; what nothing wants goes, what is not ours stays', () => {
  const found = made(request(wished()));
  for (const [wish, balancers] of [
    [wished({ port: 81 }), [found]],
    [wished({ sources: [] }), [found]],
    [wished({ protocol: 'udp' }), [found]],
    [wished(), [made(request(wished()), { provisioning: 'ERROR' })]],
  ] as const) {
    assert.deepEqual(
      stepsOf(wish, withOctavia({ balancers })).map(({ type }) => type),
      ['remove-balancer', 'make-balancer'],
    );
  }
  assert.deepEqual(
    stepsOf(emptyWish('cw'), withOctavia({ balancers: [found] })).map(({ type }) => type),
    ['remove-balancer'],
  );
  assert.deepEqual(stepsOf(emptyWish('other'), withOctavia({ balancers: [found] })), []);
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
    [stateOf({ providers: ['amphora'] }), /Octavia has no provider ovn, only amphora/],
  ] as const) {
    assert.match(planCloud(wished(), state).problems.join(), words);
    assert.deepEqual(stepsOf(wished(), state), []);
  }
  assert.match(planCloud(wished({}, []), withOctavia()).problems.join(), /has no load balancer: its container is on no host/);
});
