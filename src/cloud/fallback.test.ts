import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeBlock, makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { parseCidr } from '#model/ip.ts';
import type { Network } from '#model/resources.ts';
import { asIfBoth, asIfFallen, fallbackOf, restorable } from './fallback.ts';
import { Neutron } from './neutron.ts';
import type { CloudState } from './plan.ts';
import { portOf, routerOf, stateOf } from './plan.fixture.ts';
import { cloudOf, json, keystone, serving } from './server.fixture.ts';
import { CloudSession } from './session.ts';
import { type CloudFacts, wishOf } from './wish.ts';

const plain = makeNetwork('plain', { model: 'flannel', carry: 'host-gateway' });
const over = makeNetwork('over');
const facts = (networks: readonly Network[], pools = 1): CloudFacts => ({
  hosts: [makeHost(1), makeHost(2)],
  networks,
  pools: Array.from({ length: pools }, (_, index) => makePool('plain', parseCidr(`10.${100 + 2 * index}.0.0/16`), 24)),
  blocks: [],
  endpoints: [],
  exposures: [],
});

/** A Neutron that lets address pairs be written, or does not. */
async function withRights<T>(may: boolean, work: (neutron: Neutron) => Promise<T>): Promise<T> {
  let url = '';
  const identity = keystone(() => url);
  await using server = await serving((request, response, body) => {
    if (request.url === '/v3/auth/tokens') return identity.answer(request, response, body);
    return may ? json(response, 412, { message: 'revision' }) : json(response, 403, { message: 'policy' });
  });
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url));
  return await work(new Neutron(session));
}

const fallback = (may: boolean, known: CloudFacts, state = stateOf()) =>
  withRights(may, (neutron) => fallbackOf({ neutron, facts: known, name: 'cw' }, state));

test('only networks whose packets travel as they are fall back, and only while something is missing', async () => {
  const found = await fallback(false, facts([plain, over]));
  assert.deepEqual([found?.networks, found?.because], [[plain], 'the login to the cloud may not write allowed address pairs']);
  assert.equal(await fallback(true, facts([plain, over])), undefined);
  assert.equal(await fallback(false, facts([over])), undefined);
  const paired = stateOf({ ports: [1, 2].map((index) => portOf(index, { pairs: [{ ip_address: '10.100.0.0/16' }] })) });
  assert.equal(await fallback(false, facts([plain]), paired), undefined, 'what works stays');
});

const pairedBy = (...pairs: readonly string[]): CloudState =>
  stateOf({ ports: [1, 2].map((index) => portOf(index, { pairs: pairs.map((ip) => ({ ip_address: ip })) })) });

test('a network of both families falls back as a whole for want of either pair; an encrypted one needs none, and stays', async () => {
  const sealed = makeNetwork('sealed', { model: 'flannel', carry: 'wireguard' });
  const ranges = [makePool('plain', parseCidr('10.100.0.0/16'), 24), makePool('plain', parseCidr('fd64::/64'), 112)];
  const others = [makePool('sealed', parseCidr('10.102.0.0/16'), 24), makePool('sealed', parseCidr('fd66::/64'), 112)];
  const known = { ...facts([plain, sealed]), pools: [...ranges, ...others] };
  for (const pairs of [[], ['10.100.0.0/16'], ['fd64::/64']]) {
    assert.deepEqual((await fallback(false, known, pairedBy(...pairs)))?.networks, [plain], pairs.join());
  }
  assert.equal(await fallback(false, known, pairedBy('10.100.0.0/16', 'fd64::/64')), undefined);
  const fallen = asIfFallen(known, { networks: [plain], because: '' });
  const needs = wishOf(fallen, 'cw').needs.map(({ network, what, pairs }) => `${network}: ${what}, ${pairs.length} pairs`);
  assert.deepEqual(needs, [
    'net-plain: UDP 8472 between hosts (VXLAN between hosts), 0 pairs',
    'net-sealed: UDP 51820 between hosts (WireGuard of network net-sealed between hosts), 0 pairs',
  ]);
});

test('of one that is carried in two ways while it changes only that falls back which needs a pair, and the other is needed on', async () => {
  const both = [plain, { ...plain, choices: { ...plain.choices, carry: 'wireguard' as const } }];
  const found = await fallback(false, facts(both));
  assert.deepEqual(found?.networks, [plain]);
  const needs = wishOf(asIfFallen(facts(both), found ?? assert.fail()), 'cw').needs.map(({ what }) => what);
  assert.deepEqual(needs, [
    'UDP 8472 between hosts (VXLAN between hosts)',
    'UDP 51820 between hosts (WireGuard of network net-plain between hosts)',
  ]);
});

test("a network by a router lacks a pair for a host's own blocks only", async () => {
  const byRouter = makeNetwork('plain', { model: 'flannel', carry: 'routes' });
  const known = facts([byRouter]);
  const blocks = known.pools.flatMap((pool) => [1, 2].map((index) => makeBlock(pool, index, `host-${index}`)));
  const found = await fallback(false, { ...known, blocks });
  assert.deepEqual(found?.networks, [byRouter]);
  const paired = stateOf({ ports: [1, 2].map((index) => portOf(index, { pairs: [{ ip_address: `10.100.${index}.0/24` }] })) });
  assert.equal(await fallback(false, { ...known, blocks }, paired), undefined);
});

test('one whose router the login may not write falls back, and not when it may or the router knows the ways', async () => {
  const byRouter = makeNetwork('plain', { model: 'routes' });
  const known = facts([byRouter, over]);
  const blocks = known.pools.flatMap((pool) => [1, 2].map((index) => makeBlock(pool, index, `host-${index}`)));
  const ports = [1, 2].map((index) => portOf(index, { pairs: [{ ip_address: `10.100.${index}.0/24` }] }));
  const routes = [1, 2].map((index) => ({ destination: `10.100.${index}.0/24`, nexthop: `10.213.0.${index}` }));
  const by = (...there: typeof routes): CloudState =>
    stateOf({ ports, routers: [routerOf({ name: 'main', routes: there })], target: 'router' });
  const found = await fallback(false, { ...known, blocks }, by());
  assert.deepEqual([found?.networks, found?.because], [[byRouter], 'the login to the cloud may not write routes of router main']);
  assert.equal(await fallback(true, { ...known, blocks }, by()), undefined);
  assert.equal(await fallback(false, { ...known, blocks }, by(...routes)), undefined, 'what works stays');
  assert.equal(await fallback(false, { ...known, blocks }, stateOf({ ports })), undefined, 'no router is named');
  const fallen = [
    { ...byRouter, choices: { ...byRouter.choices, carry: 'vxlan' as const }, instead: { carry: 'routes', because: '' } as const },
  ];
  for (const may of [true, false]) {
    const back = await withRights(may, (neutron) =>
      restorable({ neutron, facts: { ...known, networks: fallen, blocks }, name: 'cw' }, by()),
    );
    assert.deepEqual(back, may ? fallen : []);
  }
});

const small = (left: number) =>
  stateOf({ quotas: { security_group: { limit: 10, used: 1 }, security_group_rule: { limit: 4 + left, used: 4 } } });

test('more pairs than a port takes, and a quota of rules that VXLAN needs less of', async () => {
  assert.match((await fallback(true, facts([plain], 11)))?.because ?? '', /would need 11 allowed address pairs/);
  assert.match((await fallback(true, facts([plain]), small(3)))?.because ?? '', /quota of security group rules would not do: 8 needed, 7/);
  assert.equal(await fallback(true, facts([plain]), small(1)), undefined, 'VXLAN would not help');
});

const rules = (of: CloudFacts): number => wishOf(of, 'cw').groups[0]?.rules.length ?? 0;

test('as wanted again as soon as it may be, and both ways are allowed in between', async () => {
  const known = facts([plain]);
  const fallen = asIfFallen(known, { networks: [plain], because: '' }).networks.map((network) => ({
    ...network,
    instead: { carry: 'host-gateway', because: '' } as const,
  }));
  assert.equal(rules(facts(fallen)), 2);
  assert.equal(rules(asIfBoth(facts(fallen), fallen)), rules(known), 'every protocol between hosts holds VXLAN, too');
  assert.deepEqual(wishOf(asIfBoth(facts(fallen), fallen), 'cw').ports[0]?.pairs, ['10.100.0.0/16']);
  for (const may of [true, false]) {
    const found = await withRights(may, (neutron) => restorable({ neutron, facts: facts(fallen), name: 'cw' }, stateOf()));
    assert.deepEqual(found, may ? fallen : []);
  }
});
