// What a cloud lacks or refuses keeps nothing from being closed, and no exposure from being reached but the one that it is for.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeEndpoint, makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { isFault } from '#model/fault.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Exposure } from '#model/resources.ts';
import { applyWish } from './apply.ts';
import { readState } from './reading.ts';
import { Neutron } from './neutron.ts';
import { FakeNeutron, servingNeutron } from './neutron.fixture.ts';
import { type CloudPlan, type CloudState, planCloud } from './plan.ts';
import { carriedOut, floatingOf, openings, perform, plainExposure, routedState } from './plan.fixture.ts';
import { withoutPart } from './refused.ts';
import { refusalOf, withRefusals } from './refusing.fixture.ts';
import { cloudOf } from './server.fixture.ts';
import { CloudSession } from './session.ts';
import { emptyWish, type Wish, wishOf } from './wish.ts';

const exposure = (id: string, hostPort: number, more: Partial<Exposure> = {}): Exposure => plainExposure(id, { hostPort, ...more });
const names = ['over', 'plain', 'secret'] as const;
type Name = (typeof names)[number];
const networks = {
  over: makeNetwork('over'),
  plain: makeNetwork('plain', { model: 'flannel', carry: 'host-gateway' }),
  secret: makeNetwork('secret', { carry: 'wireguard' }),
};
/** A container `web` on each of those hosts, of two. */
function wished(exposures: readonly Exposure[], { on = [1, 2], of = ['over'] }: { on?: number[]; of?: readonly Name[] } = {}): Wish {
  const endpoints = on.map((index) => ({ ...makeEndpoint('over', `host-${index}`, index, [parseIp(`10.0.0.${index}`)]), names: ['web'] }));
  const pools = of.map((name) => makePool(name, parseCidr(`10.${names.indexOf(name)}.0.0/16`), 24));
  const hosts = [makeHost(1), makeHost(2)];
  return wishOf({ hosts, networks: of.map((name) => networks[name]), pools, blocks: [], endpoints, exposures }, 'cw');
}
function settle(wish: Wish, state: CloudState): CloudState {
  let now = state;
  for (let round = 0; round < 5; round++) now = carriedOut(wish, now);
  assert.deepEqual(planCloud(wish, now).steps, []);
  return now;
}

const wishes: readonly Wish[] = [
  emptyWish('cw'),
  wished([]),
  wished([], { of: ['plain'] }),
  wished([], { of: names }),
  wished([exposure('a', 8080)]),
  wished([exposure('a', 8080), exposure('b', 8081)]),
  wished([exposure('b', 8081, { sources: [parseCidr('192.0.2.0/24')] }), exposure('c', 8082)], { on: [2] }),
  wished([exposure('a', 8080, { virtualIp: { hosts: [] }, floatingIp: 'auto' })]),
];

test('what only closes opens nothing, and closes nothing that is needed before and after', () => {
  for (const from of wishes)
    for (const to of wishes) {
      const start = settle(from, routedState());
      const [before, after] = [openings(start), openings(settle(to, start))];
      let state = start;
      const { closings, wish } = planCloud(to, start);
      for (const step of closings) {
        state = perform(wish, state, step);
        assert.deepEqual([...openings(state).difference(before)], []);
        assert.deepEqual([...before.intersection(after).difference(openings(state))], []);
      }
      assert.deepEqual(openings(settle(to, state)), after, 'and what remains is done afterwards');
    }
});

test('while a quota of rules or groups is short what nothing needs is removed, and nothing else is changed', async () => {
  const two = [exposure('a', 8080), exposure('b', 8081)];
  const was = wished(two);
  const less = wished(two.slice(1), { of: names });
  for (const short of [
    { security_group_rule: { limit: 9, used: 9 } },
    { security_group_rule: { limit: 9, used: 9 }, security_group: { limit: 2, used: 2 } },
  ]) {
    const fake = new FakeNeutron(2);
    await using server = await servingNeutron(fake);
    await using session = new CloudSession(cloudOf(server.url));
    const neutron = new Neutron(session);
    const apply = (wish: Wish) => applyWish(neutron, wish, () => readState(neutron, {}));
    await apply(was);
    const before = fake.openings();
    fake.quotas = short;
    await assert.rejects(apply(less), (error) => {
      assert.ok(isFault(error, 'exhausted'));
      assert.match(error.message, /quota of security group rules would not do: \d+ needed, 9 allowed\. Only what nothing needs any more/);
      return true;
    });
    const closed = ['port-1', 'port-2'].map((port) => `${port} ingress 6 8080`);
    assert.deepEqual([...before.difference(fake.openings())].toSorted(), closed);
    await assert.rejects(apply(less), /Nothing was changed/);
    assert.deepEqual([...fake.openings().difference(before)], []);
  }
});

const told = (index: number, what: string): RegExp =>
  new RegExp(`port port-${index} of \\S+ ${what} 10\\.\\S+/16: .*policy\\. Your login may not write allowed address pairs`);

test('who may not write address pairs is told so of each port, and all else is done, by one more look', async () => {
  const fake = new FakeNeutron(2);
  await using server = await servingNeutron(fake);
  await using session = new CloudSession(cloudOf(server.url));
  const neutron = new Neutron(session);
  let looks = 0;
  const apply = (wish: Wish) => applyWish(neutron, wish, () => ((looks += 1), readState(neutron, {})));
  await apply(wished([exposure('a', 8080)]));
  fake.mayPair = false;
  looks = 0;
  const { plan } = await apply(wished([], { of: ['over', 'plain'] }));
  for (const index of [1, 2]) assert.match(plan.problems[index - 1] ?? '', told(index, 'lacks'));
  assert.deepEqual([plan.problems.length, plan.steps, looks], [2, [], 3]);
  assert.deepEqual(
    plan.needs.map(({ network, isAllowed }) => [network, isAllowed]),
    [
      ['net-over', true],
      ['net-plain', false],
    ],
  );
  assert.deepEqual(
    fake.groups.map(({ fields }) => fields['name']),
    ['cw'],
  );
  assert.deepEqual(
    [...fake.openings()].filter((one) => one.includes('8080') || one.includes('pair')),
    [],
  );
  fake.mayPair = true;
  await apply(wished([], { of: ['over', 'plain'] }));
  fake.mayPair = false;
  const gone = await apply(emptyWish('cw'));
  for (const index of [1, 2]) assert.match(gone.plan.problems[index - 1] ?? '', told(index, 'keeps'));
  assert.deepEqual(
    [fake.groups, fake.ports.map(({ tags }) => tags.length)],
    [[], [2, 2]],
    'they are known as ours as long as they are there',
  );
  fake.mayPair = true;
  await apply(emptyWish('cw'));
  assert.deepEqual([...fake.openings(), ...fake.ports.flatMap(({ tags }) => tags)], []);
});

const reached = ['a', 'b'].map((id, index) => exposure(id, 8080 + index, { endpoint: `box-${index + 1}`, floatingIp: 'auto' }));
const quotas = { floatingip: { limit: 1, used: 1 }, port: { limit: 3, used: 3 } };
/** Fails unless the wish is found to be fulfilled but for what is refused; problems and what was written then. */
const refused = (
  [wish, state]: readonly [Wish, CloudState],
  refusals: Parameters<typeof withRefusals>[0] = {},
  found: Parameters<typeof withRefusals>[1] = {},
): Promise<{ problems: string; written: readonly string[]; plan: CloudPlan }> =>
  withRefusals(refusals, found, async (neutron, asked) => {
    const { plan, steps } = await applyWish(neutron, wish, () => Promise.resolve(state));
    assert.deepEqual([plan.steps, steps], [[], []]);
    return { problems: plan.problems.join('\n'), written: asked.filter((one) => !one.startsWith('GET')), plan };
  });

test('a floating IP that a quota or the cloud does not allow is told of its exposure, and is not asked for again', async () => {
  const whole = settle(wished(reached), routedState());
  const lacking = { ...whole, floatingIps: whole.floatingIps.slice(0, 1) };
  const short = await refused([wished(reached), { ...lacking, quotas }]);
  assert.equal(short.problems, 'Exposure b has no floating IP: the quota of floating IPs would not do: 2 needed, 1 allowed');
  assert.deepEqual([short.written, short.plan.reached.map(({ id }) => id)], [[], ['a']]);
  for (const [status, type, message] of [
    [409, 'OverQuota', "Quota exceeded for resources: ['floatingip']."],
    [409, 'IpAddressGenerationFailure', 'No more IP addresses available on network outside.'],
    [404, 'ExternalGatewayForFloatingIPNotFound', 'External network outside is not reachable from subnet subnet.'],
  ] as const) {
    const { problems, written } = await refused([wished(reached), lacking], { 'POST floatingips': refusalOf(status, type, message) });
    assert.match(problems, /^Exposure b has no floating IP: Neutron refuses POST .*floatingips: /);
    assert.ok(problems.includes(message.slice(0, -1)));
    assert.deepEqual(written, ['POST floatingips']);
  }
  const alone = settle(wished(reached.slice(0, 1)), routedState());
  const elsewhere = { ...alone, floatingIps: [floatingOf('203.0.113.9', { tags: alone.floatingIps[0]?.tags ?? [] })] };
  const denied = refusalOf(403, 'PolicyNotAuthorized', 'no');
  const stays = await refused([wished(reached.slice(0, 1)), elsewhere], { 'PUT floatingips/floating%20203.0.113.9': denied });
  assert.match(stays.problems, /Exposure a has no floating IP/);
  assert.deepEqual(stays.written, ['PUT floatingips/floating%20203.0.113.9'], 'one that may not go elsewhere is not given back');
});

const moving = [exposure('a', 8080, { virtualIp: { hosts: [] }, floatingIp: 'auto' })];

test('an address that moves is not made where a quota or the cloud does not allow it, and nothing is opened for it', async () => {
  const wish = wished(moving);
  const without = settle(withoutPart(wish, 'virtual', new Map([['over.web', 'refused']])), routedState());
  assert.deepEqual(
    [...openings(without)].filter((one) => one.includes(' 8080 ')),
    [],
  );
  for (const [state, refusals, words] of [
    [{ ...without, quotas }, {}, /^Exposures of web of net-over have no address: the quota of ports would not do: 4 needed, 3 allowed$/],
    [without, { 'POST ports': refusalOf(409, 'OverQuota', 'Quota exceeded.') }, /have no address: Neutron refuses POST .*Quota exceeded/],
  ] as const) {
    assert.match((await refused([wish, state], refusals)).problems, words);
  }
});

test('a host whose port does not get the pair of an address that moves is told, and the others have it', async () => {
  const wish = wished(moving);
  const whole = settle(wish, routedState());
  const theirs = [1, 2, 3, 4, 5].map((index) => ({ ip_address: `10.9.${index}.0/24` }));
  const lacking = { ...whole, ports: whole.ports.map((port) => (port.id === 'port-2' ? { ...port, pairs: theirs, tags: [] } : port)) };
  const shown = { ...new FakeNeutron(2).shown[1], security_groups: lacking.ports[1]?.groups, allowed_address_pairs: theirs, tags: [] };
  const groups = lacking.groups.map((group) => ({ ...group, revision_number: 1, security_group_rules: [] }));
  for (const [refusal, words] of [
    [refusalOf(403, 'PolicyNotAuthorized', 'no'), /host-2 cannot have their address: .* Your login may not write allowed address pairs/],
    [
      refusalOf(400, 'AllowedAddressPairExhausted', 'The number of allowed address pair exceeds the maximum 5.'),
      /host-2 would need 1 allowed address pairs, and 5 are others'; a port takes 5/,
    ],
  ] as const) {
    const found = { 'ports/port-2': { port: shown }, 'security-groups': { security_groups: groups } };
    await withRefusals({ 'PUT ports/port-2': refusal }, found, async (neutron, asked) => {
      let looks = 0;
      // What the refusal leaves is that the host lets nobody in any more.
      const left = settle(wished(moving, { on: [1] }), lacking);
      const read = (): Promise<CloudState> => Promise.resolve({ ...(looks++ === 0 ? lacking : left), mostPairs: neutron.mostPairs });
      const { plan } = await applyWish(neutron, wish, read);
      assert.match(plan.problems.join(), words);
      assert.deepEqual(plan.placed[0]?.hosts, ['host-1']);
      assert.equal(asked.filter((one) => one === 'PUT ports/port-2').length, 1);
    });
  }
});
