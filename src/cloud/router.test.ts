// What a router is told, what hosts are told of it, and what becomes of everything else when it refuses, in Neutron's words
// (neutron_lib/exceptions/extraroute.py).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeBlock, makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { parseCidr } from '#model/ip.ts';
import type { Block } from '#model/resources.ts';
import { applyWish } from './apply.ts';
import type { Neutron } from './neutron.ts';
import { type CloudState, planCloud } from './plan.ts';
import { carriedOut, portOf, routerOf, stateOf } from './plan.fixture.ts';
import { type Refusal, refusalOf, withRefusals } from './refusing.fixture.ts';
import { mayWriteRoutes } from './rights.ts';
import { emptyWish, type Wish, wishOf } from './wish.ts';

const network = makeNetwork('pods', { model: 'flannel', carry: 'routes' });
const pool = makePool('pods', parseCidr('10.244.0.0/16'), 24);
const blocksOf = (count: number): Block[] => Array.from({ length: count }, (_, index) => makeBlock(pool, index + 1, `host-${index + 1}`));

function wished(count: number, changes: { readonly pools?: readonly (typeof pool)[]; readonly blocks?: readonly Block[] } = {}): Wish {
  const hosts = Array.from({ length: count }, (_, index) => makeHost(index + 1));
  const facts = { hosts, networks: [network], pools: [pool], blocks: blocksOf(count), endpoints: [], exposures: [] };
  return wishOf({ ...facts, ...changes }, 'cw');
}

const start = (count: number): CloudState =>
  stateOf({ ports: Array.from({ length: count }, (_, index) => portOf(index + 1)), routers: [routerOf()], target: 'router' });
const done = (wish: Wish, state: CloudState): CloudState => carriedOut(wish, state);

test('all hosts are led to by one change, and each is told its own', () => {
  const wish = wished(5);
  const { steps, routed } = planCloud(wish, start(5));
  assert.equal(steps.filter(({ type }) => type === 'change-routes').length, 1);
  assert.deepEqual(new Set(routed?.flatMap(({ to }) => to)), new Set());
  const after = done(wish, start(5));
  assert.deepEqual(
    after.routers[0]?.routes.map(({ destination, nexthop }) => `${destination} ${nexthop}`),
    [1, 2, 3, 4, 5].map((index) => `10.244.${index}.0/24 10.213.0.${index}`),
  );
  assert.deepEqual(
    after.ports.map(({ pairs }) => pairs.map(({ ip_address: ip }) => ip)),
    [1, 2, 3, 4, 5].map((index) => [`10.244.${index}.0/24`]),
  );
  const { routed: told, problems, needs } = planCloud(wish, after);
  assert.deepEqual(
    told,
    [1, 2, 3, 4, 5].map((index) => ({ host: `host-${index}`, to: [`10.244.${index}.0/24`] })),
  );
  assert.deepEqual([problems, needs.map(({ isAllowed }) => isAllowed)], [[], [true]]);
});

test('why a host is not led to is told to it: no router, no port, no pair, no address of the family', () => {
  const wish = wished(2);
  const after = done(wish, start(2));
  const problem = (state: CloudState, of = wish): (string | undefined)[] =>
    planCloud(of, state).routed?.map(({ to, problem: why }) => (to.length > 0 ? 'led to' : why)) ?? [];
  const [first, second] = problem({ ...after, target: undefined });
  assert.match(first ?? '', /^Network net-pods is carried by a router, and none is named/);
  assert.equal(second, first);
  const [gone] = problem({ ...after, target: undefined, noTarget: 'The cloud has no router edge' });
  assert.equal(gone, 'Network net-pods is carried by a router: The cloud has no router edge');
  const [, second2] = after.ports;
  assert.ok(second2 !== undefined);
  const lone = problem({ ...after, ports: [{ ...portOf(1), pairs: [] }, second2] });
  assert.deepEqual(lone, ['Port port-1 of host host-1 has no allowed address pair for 10.244.1.0/24', 'led to']);
  assert.match(problem({ ...after, ports: [second2] })[0] ?? '', /host-1/);
  const open = { ...after, ports: [portOf(1, { portSecurity: false }), second2] };
  assert.deepEqual(problem(open), ['led to', 'led to'], 'without port security no pairs are needed');
  const six = makePool('pods', parseCidr('fd44::/48'), 64);
  const both = wished(1, { pools: [pool, six], blocks: [...blocksOf(1), makeBlock(six, 1, 'host-1')] });
  const { routed, problems, needs } = planCloud(both, done(both, start(1)));
  const words = 'No router leads to fd44:0:0:1::/64: host host-1 has no address of IPv6';
  assert.deepEqual([routed, problems], [[{ host: 'host-1', to: ['10.244.1.0/24'], problem: words }], [words]]);
  assert.ok(needs.every(({ isAllowed }) => !isAllowed));
});

test('routes of others into ranges of containers stay, are told, and none of ours goes beside one to a block', () => {
  const [before, part, whole, beyond] = [
    { destination: '10.244.2.0/24', nexthop: '10.213.0.200' },
    { destination: '10.244.1.128/25', nexthop: '10.213.0.200' },
    { destination: '10.244.0.0/16', nexthop: '10.213.0.201' },
    { destination: '172.20.0.0/16', nexthop: '10.213.0.200' },
  ];
  const theirs = [before, part, beyond];
  const wish = wished(2);
  const first = { ...start(2), routers: [routerOf({ routes: theirs, tags: ['mine'] })] };
  const after = done(wish, first);
  const ours = { destination: '10.244.1.0/24', nexthop: '10.213.0.1' };
  assert.deepEqual(after.routers[0]?.routes, [...theirs, ours]);
  const { steps, problems, routed } = planCloud(wish, after);
  assert.deepEqual(steps, []);
  assert.equal(problems.length, 2);
  assert.match(
    problems[0] ?? '',
    /^Router main leads to 10\.244\.2\.0\/24, which containers have, by 10\.213\.0\.200: .*openstack router remove route/,
  );
  assert.deepEqual(
    routed?.map(({ to, problem }) => [to, problem]),
    [
      [['10.244.1.0/24'], undefined],
      [[], problems[0]],
    ],
  );
  const [router] = after.routers;
  assert.ok(router !== undefined);
  // One that somebody adds later, to what is no block.
  const later = done(wish, { ...after, routers: [{ ...router, routes: [...router.routes, whole] }] });
  assert.deepEqual(later.routers[0]?.routes, [...theirs, ours, whole]);
  const gone = done(emptyWish('cw'), later);
  assert.deepEqual(gone.routers, [routerOf({ routes: [...theirs, whole], tags: ['mine'] })]);
  const [, ...rest] = later.routers[0]?.routes ?? [];
  const mended = done(wish, { ...later, routers: [{ ...router, tags: later.routers[0]?.tags ?? [], routes: rest }] });
  assert.deepEqual(mended.routers[0]?.routes, [part, beyond, ours, whole, { destination: '10.244.2.0/24', nexthop: '10.213.0.2' }]);
  assert.deepEqual(done(wished(1, { blocks: [] }), mended).routers[0]?.routes, [part, beyond, whole], 'ours go with their blocks');
});

test('more routes than a router takes by default are doubted until they are there', () => {
  const wish = wished(31);
  assert.match(planCloud(wish, start(31)).problems.join(), /^Router main would have 31 extra routes, and takes 30 unless .* max_routes/);
  assert.deepEqual(planCloud(wish, done(wish, start(31))).problems, []);
  assert.deepEqual(planCloud(wished(30), start(30)).problems, []);
});

test('nothing is told of a router where nothing is carried by it', () => {
  const plain = makeNetwork('pods', { model: 'flannel', carry: 'host-gateway' });
  const facts = { hosts: [makeHost(1)], networks: [plain], pools: [pool], blocks: blocksOf(1), endpoints: [], exposures: [] };
  const wish = wishOf(facts, 'cw');
  const after = done(wish, start(1));
  assert.equal(after.routers[0]?.routes.length, 1);
  assert.equal(planCloud(wish, after).routed, undefined);
});

const withRouter = <T>(refusal: Refusal, work: (neutron: Neutron, asked: readonly string[]) => Promise<T>): Promise<T> =>
  withRefusals(
    { 'PUT routers/router': refusal },
    { 'routers/router': { router: { id: 'router', name: 'main', routes: [], tags: [], revision_number: 1 } } },
    work,
  );

const full = refusalOf(400, 'RoutesExhausted', 'Unable to complete operation for router. The number of routes exceeds the maximum 30.');
const denied = refusalOf(403, 'PolicyNotAuthorized', 'no');

test('what a router refuses is told, also to hosts, and keeps nothing else from being done', async () => {
  const wish = wished(2);
  const after = { ...done(wish, start(2)), routers: [routerOf()] };
  for (const [refusal, words] of [
    [full, /^Router main is not told the ways to hosts: Neutron refuses .*exceeds the maximum 30/],
    [denied, /^Router main is not told the ways to hosts: Neutron refuses PUT .*: no/],
  ] as const) {
    await withRouter(refusal, async (neutron, asked) => {
      const { steps, plan } = await applyWish(neutron, wish, () => Promise.resolve(after));
      assert.deepEqual(steps, []);
      assert.match(plan.problems.join(), words);
      assert.match(plan.routed?.[0]?.problem ?? '', words);
      assert.deepEqual([plan.steps, plan.needs.map(({ isAllowed }) => isAllowed)], [[], [false]]);
      assert.equal(asked.filter((one) => one === 'PUT routers/router').length, 1, 'it is not asked again');
    });
  }
});

test('whether routes may be written is tried with those that are there', async () => {
  assert.equal(await withRouter(denied, (neutron) => mayWriteRoutes(neutron, routerOf())), false);
  assert.equal(await withRouter({ status: 412, body: {} }, (neutron) => mayWriteRoutes(neutron, routerOf())), true);
});
