// Load balancers that take connections themselves and make others to the hosts (Octavia's provider amphora), beside those that pass packets on.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeEndpoint, makeHost, makeNetwork } from '#drivers/cluster.fixture.ts';
import type { ProxyWish, ServiceBalancer } from '#model/cloud-services.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Exposure } from '#model/resources.ts';
import { exposureOf, made } from './balancers.fixture.ts';
import { isBalancerStep } from './balancer-steps.ts';
import type { ListenerRequest, LoadBalancerRequest } from './octavia.ts';
import { withPlace } from './placing.ts';
import { type CloudState, planCloud, type Step } from './plan.ts';
import { openings, perform, portOf, stateOf } from './plan.fixture.ts';
import { keyOfRule } from './rules.ts';
import { innerOf, type Wish, wishOf } from './wish.ts';

const subnets = [
  { id: 'subnet', name: 'hosts', networkId: 'net', cidr: '10.213.0.0/24', gateway: undefined, tags: [] },
  { id: 'vips', name: 'vips', networkId: 'net', cidr: '10.99.0.0/24', gateway: undefined, tags: [] },
];
const amphora = (changes: Partial<CloudState> = {}): CloudState => stateOf({ providers: ['amphora', 'octavia'], subnets, ...changes });
const sources = [parseCidr('192.0.2.0/24'), parseCidr('2001:db8::/32')];
const facts = { hosts: [makeHost(1), makeHost(2)], networks: [makeNetwork('over')], pools: [], blocks: [] };
function exposed(...all: readonly Partial<Exposure>[]): Wish {
  const endpoints = [{ ...makeEndpoint('over', 'host-1', 1, [parseIp('10.0.0.1')]), names: ['front'] }];
  return wishOf({ ...facts, endpoints, exposures: all.map(exposureOf) }, 'cw');
}
function served(changes: Partial<ServiceBalancer> = {}): Wish {
  const service = {
    id: 's',
    service: 'shop/web',
    ports: [{ protocol: 'tcp' as const, port: 80, nodePort: 30080 }],
    sources: [],
    place: {},
    monitor: {},
  };
  return wishOf({ ...facts, endpoints: [], exposures: [], services: [{ ...service, ...changes }] }, 'cw');
}
const proxied = (proxy: ProxyWish): Wish => served({ proxy });

const steps = (wish: Wish, state: CloudState): Step[] => planCloud(wish, state).steps.filter(isBalancerStep);
const types = (wish: Wish, state: CloudState): string[] => steps(wish, state).map(({ type }) => type);
function request(wish: Wish, state: CloudState = amphora()): LoadBalancerRequest {
  const [step] = steps(wish, state);
  return step?.type === 'make-balancer' ? step.request : assert.fail(planCloud(wish, state).problems.join());
}
const rules = (wish: Wish, state: CloudState): string[] =>
  planCloud(wish, state).steps.flatMap((step) =>
    step.type === 'add-rules' && step.group !== 'cw' ? step.rules.map((rule) => `${step.group} ${keyOfRule(rule)}`) : [],
  );
const there = (wish: Wish, changes: Parameters<typeof made>[1] = {}): CloudState => amphora({ balancers: [made(request(wish), changes)] });

/** The cloud after all but what is Octavia's; `during` sees each state in between. */
function after(wish: Wish, before: CloudState, during: (state: CloudState) => void = () => undefined): CloudState {
  let state = before;
  const plan = planCloud(wish, before);
  for (const step of plan.steps.filter((one) => !isBalancerStep(one))) {
    state = perform(plan.wish, state, step);
    during(state);
  }
  return state;
}

const choices: readonly (readonly [string, Wish, Partial<CloudState>, string | undefined | RegExp])[] = [
  ['OVN’s where there is it', exposed({}), { providers: ['amphora', 'ovn'] }, 'ovn'],
  ['amphora next', exposed({}), { providers: ['octavia', 'amphora', 'f5'] }, 'amphora'],
  ['the only one', exposed({}), { providers: ['f5'] }, 'f5'],
  ['whichever Octavia takes, of several', exposed({}), { providers: ['f5', 'a10'] }, undefined],
  ['that of the installation', exposed({}), { providers: ['amphora', 'ovn'], provider: 'amphora' }, 'amphora'],
  ['its own before that', exposed({ provider: 'ovn' }), { providers: ['amphora', 'ovn'], provider: 'amphora' }, 'ovn'],
  ['one that can do what is asked', proxied({ header: 'PROXY' }), { providers: ['amphora', 'ovn'] }, 'amphora'],
  [
    'none that there is not',
    exposed({ provider: 'f5' }),
    { providers: ['amphora', 'ovn'] },
    /has no load balancer: Octavia has no provider f5, only amphora, ovn/,
  ],
  ['none of the installation that there is not', exposed({}), { provider: 'f5' }, /Octavia has no provider f5, only amphora, octavia/],
  [
    'none that cannot',
    proxied({ header: 'PROXY' }),
    { providers: ['ovn'] },
    /provider ovn passes packets on with the client's address, and cannot/,
  ],
  ['one that can end TLS', proxied({ certificate: 'a' }), { providers: ['amphora', 'ovn'] }, 'amphora'],
  ['none that cannot end TLS', proxied({ certificate: 'a' }), { providers: ['ovn'] }, /provider ovn passes .*, and cannot end TLS/],
  [
    'not OVN’s against its nature',
    proxied({ header: 'PROXY' }),
    { providers: ['amphora', 'ovn'], provider: 'ovn' },
    /provider ovn passes packets on/,
  ],
];
for (const [what, wish, changes, expected] of choices) {
  test(`is chosen: ${what}`, () => {
    const state = amphora(changes);
    if (expected instanceof RegExp) {
      assert.match(planCloud(wish, state).problems.join(), expected);
      assert.deepEqual([steps(wish, state), rules(wish, state)], [[], []], 'and nothing is opened');
    } else assert.equal(request(wish, state).provider, expected);
  });
}

test('one that is there keeps its provider, whatever is usual by now', () => {
  const wish = exposed({});
  const state = amphora({ providers: ['amphora', 'ovn'], balancers: [made(request(wish))] });
  assert.deepEqual([types(wish, state), planCloud(wish, state).problems], [[], []]);
  const other = planCloud(exposed({ provider: 'ovn' }), state);
  assert.deepEqual(other.problems, [
    'Exposure web: it has the provider amphora, which stays as long as it is there: to have ovn remove the exposure and make it anew',
  ]);
});

test('hosts let in the subnets that it is on, and it lets in the clients', () => {
  const wish = exposed({ sources });
  const [listener] = request(wish).listeners;
  assert.deepEqual(listener?.allowed_cidrs, ['192.0.2.0/24'], 'of the family of its address');
  assert.deepEqual(
    [listener?.default_pool.lb_algorithm, listener?.default_pool.healthmonitor?.type],
    ['ROUND_ROBIN', 'TCP'],
    'which probes, as its own address is let in',
  );
  assert.deepEqual(rules(wish, amphora()), ['cw-exposed-1 ingress IPv4 6 8080 10.213.0.0/24']);
  const elsewhere = served({ sources, place: { subnet: 'vips' } });
  assert.deepEqual(rules(elsewhere, amphora()), [
    'cw-node-ports ingress IPv4 6 30080 10.213.0.0/24',
    'cw-node-ports ingress IPv4 6 30080 10.99.0.0/24',
  ]);
  assert.deepEqual(request(exposed({})).listeners[0]?.allowed_cidrs, undefined, 'everybody');
});

test('a host port that an exposure opens by itself as well stays open for its own sources', () => {
  const wish = exposed(
    { sources },
    { id: 'b', name: 'own', port: 81, loadBalancer: undefined as never, sources: [parseCidr('198.51.100.0/24')] },
  );
  assert.deepEqual(rules(wish, amphora()).toSorted(), [
    'cw-exposed-1 ingress IPv4 6 8080 10.213.0.0/24',
    'cw-exposed-1 ingress IPv4 6 8080 198.51.100.0/24',
  ]);
});

test('hosts are told by the exposure whom to let in', () => {
  const plan = planCloud(exposed({ sources }), amphora());
  const told = withPlace(exposureOf({ sources }), plan);
  assert.deepEqual(told.balancerRanges, ['10.213.0.0/24']);
  assert.equal(withPlace(told, plan), told);
  const ovn = planCloud(exposed({ sources }), amphora({ providers: ['ovn'] }));
  assert.deepEqual(withPlace(told, ovn), exposureOf({ sources }));
});

test('who may come is changed in place; where nobody could come any more the port goes', () => {
  const state = there(exposed({ sources }));
  assert.deepEqual(types(exposed({ sources }), state), []);
  const [step, ...rest] = steps(exposed({ sources: [parseCidr('198.51.100.0/24')] }), state);
  assert.deepEqual(rest, []);
  assert.ok(step?.type === 'set-listener');
  assert.deepEqual(step.fields.allowed_cidrs, ['198.51.100.0/24']);
  const open = steps(exposed({}), state).map((one) => one.type === 'set-listener' && one.fields.allowed_cidrs);
  assert.deepEqual(open, [[]]);
  const six = exposed({ sources: [parseCidr('2001:db8::/32')] });
  assert.deepEqual(types(six, state), ['remove-listener']);
  assert.match(planCloud(six, state).problems.join(), /none of its sources is of IPv4, so nobody may come/);
  assert.deepEqual(types(six, amphora()), []);
});

test('what it is to do with connections is asked of it, changed in place, and taken back', () => {
  const wish = proxied({
    algorithm: 'LEAST_CONNECTIONS',
    isSticky: true,
    connectionLimit: 100,
    timeouts: { clientData: 60_000, tcpInspect: 0 },
    flavor: 'big',
    zone: 'west',
  });
  const asked = request(wish);
  const [listener] = asked.listeners;
  assert.deepEqual([asked.flavor_id, asked.availability_zone], ['big', 'west']);
  assert.deepEqual(
    [listener?.connection_limit, listener?.timeout_client_data, listener?.timeout_tcp_inspect, listener?.timeout_member_data],
    [100, 60_000, 0, undefined],
  );
  assert.deepEqual(
    [listener?.default_pool.lb_algorithm, listener?.default_pool.session_persistence],
    ['LEAST_CONNECTIONS', { type: 'SOURCE_IP' }],
  );
  const state = there(wish);
  assert.deepEqual(types(wish, state), []);
  const [fields, pool, ...rest] = steps(served(), state);
  assert.deepEqual(rest, []);
  assert.ok(fields?.type === 'set-listener' && pool?.type === 'set-pool');
  assert.deepEqual([fields.fields.connection_limit, fields.fields.timeout_client_data, fields.fields.description], [null, null, '']);
  assert.deepEqual(pool.fields, { session_persistence: null, lb_algorithm: 'ROUND_ROBIN' });
  assert.deepEqual(types(served(), amphora({ providers: ['ovn'] })), ['make-balancer']);
});

test('clients are named before their words or by a header; a port that is to do otherwise is exchanged', () => {
  const [listener] = request(proxied({ header: 'PROXYV2' })).listeners;
  assert.deepEqual([listener?.protocol, listener?.default_pool.protocol], ['TCP', 'PROXYV2']);
  const [web] = request(proxied({ isForwardedFor: true })).listeners;
  assert.deepEqual([web?.protocol, web?.default_pool.protocol, web?.insert_headers], ['HTTP', 'HTTP', { 'X-Forwarded-For': 'true' }]);
  for (const proxy of [{ header: 'PROXY' }, { isForwardedFor: true }] as const) {
    assert.deepEqual(types(proxied(proxy), there(proxied(proxy))), []);
    assert.deepEqual(types(served(), there(proxied(proxy))), ['remove-listener', 'add-listener']);
  }
});

/** Listeners that come when it is there. */
const listenersOf = (wish: Wish): ListenerRequest[] =>
  steps(wish, there(wish)).flatMap((step) => (step.type === 'add-listener' ? [step.request] : []));
/** With all of them. */
const ended = (wish: Wish): CloudState => amphora({ balancers: [made({ ...request(wish), listeners: listenersOf(wish) })] });

test('TLS ends there by a certificate, which is exchanged in place; ports of UDP have nothing of it', () => {
  assert.deepEqual(
    request(proxied({ certificate: 'a' })).listeners,
    [],
    'Octavia is to read it when there is nothing to be refused but a port',
  );
  const [listener] = listenersOf(proxied({ certificate: 'a', isForwardedFor: true }));
  assert.deepEqual(
    [listener?.protocol, listener?.default_tls_container_ref, listener?.default_pool.protocol, listener?.insert_headers],
    ['TERMINATED_HTTPS', 'a', 'HTTP', { 'X-Forwarded-For': 'true' }],
  );
  const [told] = listenersOf(proxied({ certificate: 'a', header: 'PROXY' }));
  assert.deepEqual([told?.protocol, told?.default_pool.protocol], ['TERMINATED_HTTPS', 'PROXY']);
  const both = (certificate: string): Wish =>
    served({ ports: (['tcp', 'udp'] as const).map((protocol) => ({ protocol, port: 443, nodePort: 30443 })), proxy: { certificate } });
  assert.deepEqual(
    listenersOf(both('a')).map((one) => [one.protocol, one.default_tls_container_ref]),
    [
      ['UDP', undefined],
      ['TERMINATED_HTTPS', 'a'],
    ],
  );
  assert.deepEqual(types(both('a'), ended(both('a'))), []);
  const [step, ...rest] = steps(both('b'), ended(both('a')));
  assert.deepEqual(rest, []);
  assert.ok(step?.type === 'set-certificate');
  assert.deepEqual([step.listener.protocol, step.certificate], ['TERMINATED_HTTPS', 'b']);
  assert.deepEqual(types(served(), ended(proxied({ certificate: 'a' }))), ['remove-listener', 'add-listener']);
});

test('what may be refused for a certificate is last, and in whose place TLS is to end stays until that one has been read', () => {
  const ending = (changes: Partial<ServiceBalancer>): Wish => served({ proxy: { certificate: 'b' }, ...changes });
  const [removal, addition, ...rest] = steps(ending({}), there(served()));
  assert.ok(removal?.type === 'remove-listener' && addition?.type === 'add-listener');
  assert.deepEqual(rest, []);
  assert.deepEqual(removal.next, { id: addition.id, request: addition.request });
  const ports = [80, 81].map((port) => ({ protocol: 'tcp' as const, port, nodePort: 30000 + port }));
  assert.deepEqual(types(ending({ ports, sources }), there(served({ ports }))), [
    'set-listener',
    'remove-listener',
    'set-listener',
    'remove-listener',
    'add-listener',
    'add-listener',
  ]);
  const more = { ports: [{ protocol: 'tcp' as const, port: 80, nodePort: 30081 }], sources };
  assert.deepEqual(types(ending(more), ended(proxied({ certificate: 'a' }))), ['set-listener', 'set-members', 'set-certificate']);
});

test('where hosts tell whether they have a pod it asks them by HTTP, and they let that in', () => {
  const wish = proxied({ healthPort: 31000 });
  const [listener] = request(wish).listeners;
  const { healthmonitor: probe, members = [] } = listener?.default_pool ?? {};
  assert.deepEqual([probe?.type, probe?.url_path, members.map((one) => one.monitor_port)], ['HTTP', '/healthz', [31000, 31000]]);
  assert.deepEqual(rules(wish, amphora()), [
    'cw-node-ports ingress IPv4 6 30080 10.213.0.0/24',
    'cw-node-ports ingress IPv4 6 31000 10.213.0.0/24',
  ]);
  assert.deepEqual(types(wish, there(wish)), []);
  assert.deepEqual(rules(wish, amphora({ providers: ['ovn'] })), ['cw-node-ports ingress IPv4 6 30080 anybody']);
});

test('while it is at work nothing is asked of it, and clients are told of it when it is finished', () => {
  for (const [provisioning, address] of [
    ['PENDING_CREATE', undefined],
    ['PENDING_UPDATE', '10.213.0.99'],
    ['ACTIVE', '10.213.0.99'],
  ]) {
    const state = there(served(), { provisioning: provisioning ?? '' });
    const { balanced, busy, problems } = planCloud(served({ hosts: ['host-2'] }), state);
    const isBusy = provisioning !== 'ACTIVE';
    assert.deepEqual([types(served({ hosts: ['host-2'] }), state), busy.length], isBusy ? [[], 1] : [['set-members'], 0]);
    assert.deepEqual([balanced[0]?.address, problems], [address, []]);
    assert.equal(balanced[0]?.notes.join(), address === undefined ? 'Load balancer cw-shop-web is being made by amphora' : '');
  }
});

test('one that goes is gone on its own; what is wanted again is made beside it', () => {
  const going = there(served(), { provisioning: 'PENDING_DELETE' });
  assert.deepEqual(types(served(), going), ['make-balancer']);
  const empty = { ...served(), balancers: [], groups: [] };
  assert.deepEqual([types(empty, going), planCloud(empty, going).busy.length], [[], 1]);
  assert.deepEqual(types(empty, there(served(), { provisioning: 'PENDING_CREATE' })), [], 'Octavia would refuse it');
  assert.deepEqual(types(empty, there(served())), ['remove-balancer']);
});

test('as long as nobody has looked at load balancers, what hosts let in for them stays', () => {
  const wish = exposed({ sources });
  const whole = after(wish, amphora());
  assert.deepEqual(rules(wish, whole), []);
  const { balancers: _, providers: __, ...unread } = whole;
  const inner = planCloud(innerOf(wish), { ...unread, balancers: [] });
  assert.deepEqual(inner.steps, []);
  assert.deepEqual(
    planCloud(exposed({ loadBalancer: undefined as never, sources: [parseCidr('192.0.2.0/24')] }), whole)
      .steps.map(({ type }) => type)
      .filter((type) => type.endsWith('rules')),
    ['add-rules', 'remove-rules'],
  );
});

test('on the way from one to the other hosts never let in more than before and after together', () => {
  const [few, alone] = [exposed({ sources }), exposed({ loadBalancer: undefined as never, sources: [parseCidr('198.51.100.0/24')] })];
  for (const [from, to] of [
    [few, alone],
    [alone, few],
    [exposed({}), few],
  ] as const) {
    const before = after(from, amphora());
    const seen: Set<string>[] = [];
    const end = after(to, before, (state) => seen.push(openings(state)));
    const both = openings(before).union(openings(end));
    for (const one of seen) assert.deepEqual([...one.difference(both)], []);
  }
});

test('hosts that have several ports on it are members by the address of its family', () => {
  const dual = portOf(1, {
    addresses: [
      { ip: '10.213.0.1', subnetId: 'subnet' },
      { ip: 'fd00::1', subnetId: 'six' },
    ],
  });
  const [listener] = request(exposed({}), amphora({ ports: [dual, portOf(2)] })).listeners;
  assert.deepEqual(
    listener?.default_pool.members.map(({ address, subnet_id: subnet }) => [address, subnet]),
    [['10.213.0.1', 'subnet']],
  );
});
