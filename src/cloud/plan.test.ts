import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Network } from '#model/resources.ts';
import { type CloudState, planCloud, unfinished } from './plan.ts';
import { openings, perform, plainExposure, portOf, routedState, routerOf, ruleOf, stateOf } from './plan.fixture.ts';
import { type CloudFacts, emptyWish, type Wish, wishOf } from './wish.ts';

const over = makeNetwork('over');
const plain = makeNetwork('plain', { model: 'flannel', carry: 'host-gateway' });
const secret = makeNetwork('secret', { carry: 'wireguard' });

function wished(networks: readonly Network[], changes: Partial<CloudFacts> = {}): Wish {
  const pools = networks.map((network, index) => makePool(network.id, parseCidr(`10.${index}.0.0/16`), 24));
  const facts = { hosts: [makeHost(1), makeHost(2)], networks, pools, blocks: [], endpoints: [], exposures: [] };
  return wishOf({ ...facts, ...changes }, 'cw');
}

/** Every state on the way, the first and the last included. Fails unless the last needs nothing more. */
function walk(wish: Wish, state: CloudState): CloudState[] {
  const states = [state];
  const plan = planCloud(wish, state);
  for (const step of plan.steps) states.push(perform(plan.wish, states.at(-1) ?? state, step));
  assert.deepEqual(planCloud(wish, states.at(-1) ?? state).steps, [], 'a second plan has nothing to do');
  return states;
}
const last = (states: readonly CloudState[]): CloudState => states.at(-1) ?? stateOf();

/** What is done to floating IPs. */
const moved = (from: Wish, to: Wish): string[] =>
  planCloud(to, last(walk(from, routedState())))
    .steps.map(({ type }) => type)
    .filter((type) => type.endsWith('floating-ip'));

test('on the way from any wish to any other, stopped anywhere, nothing is open that neither needs', () => {
  const box = makeEndpoint('over', 'host-1', 1, [parseIp('10.0.0.9')]);
  const exposures = [plainExposure('e', { endpoint: box.name })];
  /** The one exposure has a floating IP. */
  const outside = (on: readonly [number, number]): Wish =>
    wished([over], {
      endpoints: on.map((host, index) => makeEndpoint('over', `host-${host}`, index + 1, [parseIp(`10.0.0.${index + 1}`)])),
      exposures: [
        plainExposure('f', { endpoint: 'box-1', floatingIp: 'auto' }),
        plainExposure('g', { endpoint: 'box-2', hostPort: 8081, sources: [parseCidr('192.0.2.0/24')] }),
      ],
    });
  const wishes = [
    emptyWish('cw'),
    wished([over]),
    wished([plain]),
    wished([plain, secret]),
    wished([over], { endpoints: [box], exposures }),
    wished([over], { hosts: [makeHost(1)] }),
    outside([1, 1]),
    outside([1, 2]),
    outside([2, 1]),
    outside([2, 2]),
  ];
  for (const from of wishes) {
    for (const to of wishes) {
      const start = last(walk(from, routedState()));
      const states = walk(to, start);
      const [before, after] = [openings(start), openings(last(states))];
      const union = before.union(after);
      for (const state of states) {
        assert.deepEqual([...openings(state).difference(union)], []);
        // Nor is anything closed in between that both need.
        assert.deepEqual([...before.intersection(after).difference(openings(state))], []);
        // A plan made anew from where it stopped ends the same.
        assert.deepEqual(openings(last(walk(to, state))), after);
      }
    }
  }
  assert.deepEqual(moved(outside([1, 2]), outside([2, 1])), ['detach-floating-ip', 'change-floating-ip']);
  assert.deepEqual(
    moved(outside([1, 1]), outside([2, 1])),
    ['change-floating-ip'],
    'by one step where nothing opens on the host that it leaves',
  );
});

test('what others have made stays: groups, rules, pairs, routes, tags', () => {
  const pair = { ip_address: '10.9.0.0/16' };
  const theirs = ruleOf('theirs', { description: 'opened by hand' });
  const start = stateOf({
    ports: [portOf(1, { pairs: [pair, { ip_address: '10.0.0.0/16', mac_address: portOf(1).mac }], tags: ['mine'] }), portOf(2)],
    routers: [routerOf({ routes: [{ destination: '172.20.0.0/16', nexthop: '10.213.0.200' }] })],
    target: 'router',
  });
  const pool = makePool('plain', parseCidr('10.0.0.0/16'), 24);
  const wish = wished([plain], { blocks: [makeBlock(pool, 1, 'host-2')] });
  const made = last(walk(wish, start));
  assert.deepEqual(made.routers[0]?.routes, [...(start.routers[0]?.routes ?? []), { destination: '10.0.1.0/24', nexthop: '10.213.0.2' }]);
  assert.deepEqual(made.ports[0]?.pairs, start.ports[0]?.pairs, 'a pair that was there is not made again');
  assert.deepEqual(made.ports[1]?.pairs, [{ ip_address: '10.0.0.0/16' }]);
  const withRule = {
    ...made,
    groups: made.groups.map((group) => (group.name === 'cw' ? { ...group, rules: [...group.rules, theirs] } : group)),
  };
  assert.deepEqual(planCloud(wish, withRule).steps, [], "others' rules in our group are no business of ours");
  const gone = last(walk(emptyWish('cw'), made));
  assert.deepEqual({ ...gone, target: 'router' }, start);
  const kept = planCloud(emptyWish('cw'), withRule);
  assert.match(kept.problems.join(), /cw stays/);
  assert.ok(!kept.steps.some(({ type }) => type === 'remove-group'));
});

test('groups that were never finished, and second ones of the same name, are removed', () => {
  const group = { revision: 1, rules: [ruleOf('all')], name: 'cw' };
  const start = stateOf();
  const states = walk(wished([over]), {
    ...start,
    groups: [
      ...start.groups,
      { ...group, id: '1', description: unfinished('cw'), tags: [] },
      { ...group, id: '2', description: '', tags: ['causeway.cw'], rules: [] },
      { ...group, id: '3', description: '', tags: ['causeway.cw'], rules: [] },
    ],
  });
  assert.deepEqual(
    last(states).groups.map(({ id }) => id),
    ['theirs', '2'],
  );
});

test('what is in the way is said, and the rest is done', () => {
  const many = Array.from({ length: 10 }, (_, index) => ({ ip_address: `10.9.${index}.0/24` }));
  const cases: readonly (readonly [string, Partial<CloudState>, RegExp])[] = [
    ['no port', { ports: [portOf(1)] }, /host-2 is left out: no port .* 10\.213\.0\.2/],
    ['two ports', { ports: [portOf(1), portOf(2), portOf(2, { id: 'other' })] }, /host-2 is left out: ports port-2 and other/],
    ['no pair left', { ports: [portOf(1, { pairs: many }), portOf(2)] }, /port-1 .* 10 are others'; a port takes 10/],
    [
      'no rule left',
      { quotas: { security_group_rule: { limit: 5, used: 4 } } },
      /security group rules is exhausted: 8 are needed, 5 allowed/,
    ],
  ];
  for (const [name, changes, problem] of cases) {
    const plan = planCloud(wished([plain]), stateOf(changes));
    assert.match(plan.problems.join('\n'), problem, name);
    assert.ok(
      plan.steps.some(({ type }) => type === 'change-port'),
      name,
    );
    assert.ok(plan.needs.every(({ isAllowed }) => !isAllowed));
  }
});

test('hosts whose packets are too large for their network are named', () => {
  const [net] = stateOf().networks;
  assert.ok(net !== undefined);
  for (const [mtu, problems] of [
    [1450, 0],
    [1449, 2],
    // Told once, whichever hosts are there.
    [0, 1],
  ] as const) {
    const plan = planCloud(wished([over]), stateOf({ networks: [{ ...net, mtu }] }));
    assert.equal(plan.problems.length, problems);
    if (problems > 1) assert.match(plan.problems[0] ?? '', /Host host-1 sends packets of up to 1450 bytes, but its network net takes 1449/);
  }
});

test('a port without port security needs nothing', () => {
  const plan = planCloud(wished([plain]), stateOf({ ports: [portOf(1, { portSecurity: false, groups: [] }), portOf(2)] }));
  assert.deepEqual(
    plan.steps.flatMap((step) => (step.type === 'change-port' ? [step.port.id] : [])),
    ['port-2'],
  );
  assert.deepEqual(plan.problems, []);
});

test('quotas are told before and after', () => {
  const { quotas } = planCloud(wished([over]), stateOf());
  assert.deepEqual(quotas, [
    { name: 'security_group', limit: 10, before: 1, after: 2, most: 2 },
    { name: 'security_group_rule', limit: 100, before: 4, after: 6, most: 6 },
  ]);
});

test('a network by a router is allowed once a router is named and knows all blocks, of all hosts by one step', () => {
  const byRouter = makeNetwork('plain', { model: 'flannel', carry: 'routes' });
  const pool = makePool('plain', parseCidr('10.0.0.0/16'), 24);
  const wish = wished([byRouter], { blocks: [makeBlock(pool, 1, 'host-1'), makeBlock(pool, 2, 'host-2')] });
  const nowhere = planCloud(wish, last(walk(wish, stateOf())));
  assert.match(nowhere.problems.join(), /Network net-plain is carried by a router, and none is named/);
  assert.equal(nowhere.needs[0]?.isAllowed, false);
  const start = stateOf({ routers: [routerOf()], target: 'router' });
  const { steps } = planCloud(wish, start);
  assert.equal(steps.filter(({ type }) => type === 'change-routes').length, 1);
  const states = walk(wish, start);
  assert.equal(last(states).routers[0]?.routes.length, 2);
  assert.equal(planCloud(wish, last(states)).needs[0]?.isAllowed, true);
  const forgotten = { ...last(states), routers: last(states).routers.map((router) => ({ ...router, routes: router.routes.slice(1) })) };
  assert.equal(planCloud(wish, forgotten).needs[0]?.isAllowed, false);
});
