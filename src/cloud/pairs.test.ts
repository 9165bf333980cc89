import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { type Cidr, cidrOf, coverage, formatIp, parseCidr, parseIp } from '#model/ip.ts';
import { applyWish } from './apply.ts';
import { readState } from './reading.ts';
import { fallbackOf } from './fallback.ts';
import { Neutron } from './neutron.ts';
import { FakeNeutron, servingNeutron } from './neutron.fixture.ts';
import type { NeutronPort } from './neutron-schemas.ts';
import { condensed, isPaired } from './pairs.ts';
import { type CloudPlan, type CloudState, planCloud } from './plan.ts';
import { carriedOut, portOf, stateOf } from './plan.fixture.ts';
import { cloudOf } from './server.fixture.ts';
import { CloudSession } from './session.ts';
import { type CloudFacts, type Wish, wishOf } from './wish.ts';

const cidrs = (...texts: readonly string[]): Cidr[] => texts.map((text) => parseCidr(text));

test('ranges are told with the fewest, and hold the same addresses', () => {
  assert.deepEqual(condensed(cidrs('10.0.1.0/24', '10.0.0.0/24', '10.0.2.0/23')), ['10.0.0.0/22']);
  assert.deepEqual(condensed(cidrs('10.0.1.0/24', '10.0.2.0/24')), ['10.0.1.0/24', '10.0.2.0/24']);
  assert.deepEqual(condensed(cidrs('10.0.0.0/16', '10.0.7.0/24', 'fd00::/65', 'fd00:0:0:0:8000::/65')), ['10.0.0.0/16', 'fd00::/64']);
  assert.deepEqual(condensed(cidrs('0.0.0.0/1', '128.0.0.0/1')), ['0.0.0.0/0']);
  const some = fc.array(fc.tuple(fc.nat({ max: 255 }), fc.integer({ min: 24, max: 32 })), { maxLength: 20 });
  fc.assert(
    fc.property(some, (drawn) => {
      const before = drawn.map(([last, length]) => cidrOf(parseIp(`10.0.0.${last}`), length));
      const [was, is] = [coverage(before), coverage(condensed(before))];
      for (let last = 0n; last < 256n; last++) {
        const ip = formatIp(0x0a000000n + last, 4);
        assert.equal(is(ip), was(ip), ip);
      }
      assert.deepEqual(condensed(condensed(before)), condensed(before));
    }),
  );
});

const plain = makeNetwork('plain', { model: 'flannel', carry: 'host-gateway' });
/** Networks of the hosts' containers with the ranges, one each. */
const factsOf = (ranges: readonly string[]): CloudFacts => ({
  hosts: [makeHost(1), makeHost(2)],
  networks: ranges.map((_, index) => ({ ...plain, id: `plain${index}`, name: `plain${index}` })),
  pools: ranges.map((range, index) => makePool(`plain${index}`, parseCidr(range), 24)),
  blocks: [],
  endpoints: [],
  exposures: [],
});
const wishFor = (ranges: readonly string[]): Wish => wishOf(factsOf(ranges), 'cw');
function settled(wish: Wish, start: CloudState): { state: CloudState; plan: CloudPlan } {
  let state = start;
  for (let round = 0; round < 5; round++) {
    const plan = planCloud(wish, state);
    if (plan.steps.length === 0) return { state, plan };
    state = carriedOut(wish, state);
  }
  return assert.fail('there is always something left to do');
}
const pairsOn = ({ ports }: CloudState, index = 0): string[] => (ports[index]?.pairs ?? []).map((pair) => pair.ip_address);
/** No two of which are neighbours. */
const apart = (count: number): string[] => Array.from({ length: count }, (_, index) => `10.${2 * index + 1}.0.0/16`);

test('an eleventh range is had where two are halves of one, in place of the two', () => {
  const ten = [...apart(9), '10.100.0.0/16'];
  const before = settled(wishFor(ten), stateOf()).state;
  assert.equal(pairsOn(before).length, 10);
  const { state, plan } = settled(wishFor([...ten, '10.101.0.0/16']), before);
  assert.deepEqual(plan.problems, []);
  assert.ok(plan.needs.every(({ isAllowed }) => isAllowed));
  assert.deepEqual(pairsOn(state).toSorted(), [...apart(9), '10.100.0.0/15'].toSorted());
  const back = settled(wishFor(ten), state).state;
  assert.deepEqual(pairsOn(back).toSorted(), ten.toSorted());
  assert.deepEqual(settled(wishFor([]), back).state.ports, stateOf().ports, 'and goes with all its tags');
});

test('where an eleventh cannot be had its port is named, and the ten that are there stay', () => {
  const before = settled(wishFor(apart(10)), stateOf()).state;
  const { state, plan } = settled(wishFor(apart(11)), before);
  assert.deepEqual(state.ports, before.ports);
  assert.match(
    plan.problems.join('\n'),
    /Port port-1 of host host-1 would need 11 allowed address pairs; a port takes 10\. Not allowed: 10\.21\.0\.0\/16\./,
  );
  assert.deepEqual(
    plan.needs.filter(({ isAllowed }) => !isAllowed).map(({ network }) => network),
    ['plain10'],
  );
});

test("others' pairs count, theirs stay, and of ours those that are there before those that come", () => {
  const theirs = Array.from({ length: 3 }, (_, index) => ({ ip_address: `192.168.${2 * index}.0/24` }));
  const crowded = (port: NeutronPort): NeutronPort => ({ ...port, pairs: [...theirs, ...port.pairs] });
  const before = settled(wishFor(apart(7).slice(1)), stateOf({ ports: [crowded(portOf(1)), portOf(2)] })).state;
  const { state, plan } = settled(wishFor(apart(9)), before);
  assert.deepEqual(pairsOn(state).slice(0, 3), ['192.168.0.0/24', '192.168.2.0/24', '192.168.4.0/24']);
  assert.deepEqual(pairsOn(state).slice(3).toSorted(), apart(7).toSorted());
  assert.equal(pairsOn(state, 1).length, 9, 'a port with room gets all of them');
  assert.match(plan.problems.join('\n'), /port-1 .* would need 9 .* and 3 are others'.* Not allowed: 10\.15\.0\.0\/16, 10\.17\.0\.0\/16\./);
});

test('what a larger range admits is not missing, so no network is carried otherwise for it', async () => {
  const ranges = [...apart(9), '10.100.0.0/16', '10.101.0.0/16'];
  const { state } = settled(wishFor(ranges), stateOf());
  assert.ok(state.ports.every((port) => isPaired(port, parseCidr('10.101.0.0/16'))));
  await using session = new CloudSession(cloudOf('http://127.0.0.1:1'));
  // It would have to ask the cloud, which is not there, for more.
  assert.equal(await fallbackOf({ neutron: new Neutron(session), facts: factsOf(ranges), name: 'cw' }, state), undefined);
});

test('a cloud that lets a port have fewer pairs is found out by its refusal: what fits is there, and the network is carried otherwise', async () => {
  const fake = new FakeNeutron(2);
  fake.mostPairs = 2;
  await using server = await servingNeutron(fake);
  await using session = new CloudSession(cloudOf(server.url));
  const neutron = new Neutron(session);
  const facts = factsOf(apart(3));
  const judging = { neutron, facts, name: 'cw' };
  const wish = wishFor(apart(3));
  assert.equal(await fallbackOf(judging, await readState(neutron, {}, wish)), undefined, 'nobody knows yet');
  const { plan } = await applyWish(neutron, wish, (sought) => readState(neutron, {}, sought));
  const told = /Port port-1 of host host-1 would need 3 allowed address pairs; a port takes 2\. Not allowed: 10\.5\.0\.0\/16/;
  assert.match(plan.problems.join(), told);
  assert.deepEqual(plan.steps, []);
  const state = await readState(neutron, {}, wish);
  assert.deepEqual([pairsOn(state), pairsOn(state, 1)], [apart(2), apart(2)]);
  const fallback = await fallbackOf(judging, state);
  assert.deepEqual(
    fallback?.networks.map(({ name }) => name),
    ['plain2'],
  );
  assert.match(fallback?.because ?? '', told);
  const again = new Neutron(session);
  fake.mostPairs = 10;
  const { plan: more } = await applyWish(again, wish, (sought) => readState(again, {}, sought));
  assert.deepEqual(more.problems, [], 'another process does not know it');
});
