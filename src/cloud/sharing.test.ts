// Security groups for exposures: as many as there are different openings, whatever the number of hosts, and nothing is opened for a host, or
// closed, on the way from any exposures to any others.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { makeEndpoint, makeHost, makeNetwork } from '#drivers/cluster.fixture.ts';
import { ipAdd, parseCidr, parseIp } from '#model/ip.ts';
import type { NeutronPort, SecurityGroup } from './neutron-schemas.ts';
import { type CloudState, planCloud } from './plan.ts';
import { carriedOut, openings, perform, plainExposure, portOf, ruleOf, stateOf } from './plan.fixture.ts';
import { emptyWish, innerOf, type Wish, wishOf } from './wish.ts';

/** Of an exposure: hosts that have its container, by number. */
type Places = readonly (readonly number[])[];

/** Of `count` hosts. Every second exposure is for some clients only. */
function wished(places: Places, count: number): Wish {
  const endpoints = places.flatMap((on, index) =>
    on.map((host) => ({
      ...makeEndpoint('over', `host-${host}`, 100 * index + host, [ipAdd(parseIp('10.0.0.0'), 100 * index + host)]),
      names: [`alias-${index}`],
    })),
  );
  const exposures = places.map((_, index) =>
    plainExposure(`e${index}`, {
      endpoint: `alias-${index}`,
      hostPort: 8080 + index,
      sources: index % 2 === 0 ? [] : [parseCidr('192.0.2.0/24')],
    }),
  );
  const hosts = Array.from({ length: count }, (_, index) => makeHost(index + 1));
  return wishOf({ hosts, networks: [makeNetwork('over')], pools: [], blocks: [], endpoints, exposures }, 'cw');
}

const cloud = (count: number): CloudState => stateOf({ ports: Array.from({ length: count }, (_, index) => portOf(index + 1)), quotas: {} });
const exposing = ({ groups }: CloudState): SecurityGroup[] => groups.filter(({ name }) => name.startsWith('cw-exposed-'));
const members = ({ ports }: CloudState, { id }: SecurityGroup): NeutronPort[] => ports.filter(({ groups }) => groups.includes(id));
/** Hosts have a group each, as there were before they shared them. */
function apart(state: CloudState): CloudState {
  const own = exposing(state).flatMap((group) =>
    members(state, group).map((port) => {
      const id = `of ${port.id}`;
      const rules = group.rules.map((rule) => ({ ...rule, groupId: id }));
      return { port, group: { ...group, id, name: `cw-exposed-host-${port.id.slice(5)}`, rules } };
    }),
  );
  const shared = new Set(exposing(state).map(({ id }) => id));
  return {
    ...state,
    groups: [...state.groups.filter(({ id }) => !shared.has(id)), ...own.map(({ group }) => group)],
    ports: state.ports.map((port) => {
      const mine = own.filter((one) => one.port === port).map(({ group }) => group.id);
      return { ...port, groups: [...port.groups.filter((id) => !shared.has(id)), ...mine] };
    }),
  };
}
const differing = (places: Places): number => {
  const on = new Set(places.flat());
  return new Set([...on].map((host) => places.map((hosts) => hosts.includes(host)).join())).size;
};

/** Groups and rules that are made. */
const counted = (count: number): number[] => {
  const all = Array.from({ length: count }, (_, index) => index + 1);
  const { steps } = planCloud(wished([all, all, [1]], count), cloud(count));
  return [
    steps.filter(({ type }) => type === 'make-group').length,
    steps.flatMap((step) => (step.type === 'add-rules' ? step.rules : [])).length,
  ];
};

test('as many groups and rules are made for a hundred hosts as for two', () => {
  assert.deepEqual([counted(2), counted(100)], [counted(2), counted(2)]);
  assert.deepEqual(counted(100), [3, 7]);
});

const hosts = 4;
const somewhere = fc.array(fc.uniqueArray(fc.integer({ min: 1, max: hosts }), { maxLength: hosts }), { maxLength: 3 });

test('from any exposures to any others hosts let in no more than before and after, nor less than both, wherever it stops', () => {
  fc.assert(
    fc.property(somewhere, somewhere, fc.boolean(), fc.nat(), (from, to, wasApart, stop) => {
      const [first, second] = [wished(from, hosts), wished(to, hosts)];
      const made = carriedOut(first, cloud(hosts));
      assert.deepEqual(planCloud(first, made).steps, []);
      assert.equal(exposing(made).length, differing(from));
      const start = wasApart ? apart(made) : made;
      const [before, after] = [openings(start), openings(carriedOut(second, cloud(hosts)))];
      const { steps, wish } = planCloud(second, start);
      const between = steps.reduce((states, step) => [...states, perform(wish, states.at(-1) ?? start, step)], [start]);
      for (const state of between) {
        assert.deepEqual([...openings(state).difference(before.union(after))], []);
        assert.deepEqual([...before.intersection(after).difference(openings(state))], []);
      }
      const done = between.at(-1) ?? start;
      assert.deepEqual([planCloud(second, done).steps, openings(done)], [[], after]);
      assert.equal(exposing(done).length, differing(to));
      const resumed = carriedOut(second, between[stop % between.length] ?? start);
      assert.deepEqual([planCloud(second, resumed).steps, openings(resumed)], [[], after]);
      assert.deepEqual(carriedOut(emptyWish('cw'), resumed), cloud(hosts), 'and nothing is left');
    }),
    { numRuns: 300, includeErrorInReport: true },
  );
});

test('while no group can be made each exposure that has gone is closed all the same, and what stays is open', () => {
  fc.assert(
    fc.property(somewhere, fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }), (from, stays) => {
      const start = carriedOut(wished(from, hosts), cloud(hosts));
      const less = wished(
        from.map((on, index) => (stays[index] === true ? on : [])),
        hosts,
      );
      let state = start;
      for (let round = 0; round < 3; round++) {
        const { closings, wish } = planCloud(less, state);
        for (const step of closings) state = perform(wish, state, step);
      }
      assert.deepEqual(openings(state), openings(carriedOut(less, start)));
    }),
  );
});

test('a group with rules of others stays with its hosts, and no other host comes in', () => {
  const made = carriedOut(wished([[1]], hosts), cloud(hosts));
  const theirs = ruleOf('theirs', { description: 'opened by hand' });
  const start = {
    ...made,
    groups: made.groups.map((group) => (group.name === 'cw-exposed-1' ? { ...group, rules: [...group.rules, theirs] } : group)),
  };
  const done = carriedOut(wished([[1, 2]], hosts), start);
  assert.deepEqual(
    exposing(done).map((group) => [
      group.name,
      group.rules.length,
      members(done, group)
        .map(({ id }) => id)
        .join(),
    ]),
    [
      ['cw-exposed-1', 2, 'port-1'],
      ['cw-exposed-2', 1, 'port-2'],
    ],
  );
});

test('what is done for containers alone leaves hosts in the groups that they are in', () => {
  const made = carriedOut(wished([[1, 2], [2]], hosts), cloud(hosts));
  for (const places of [[], [[1], [2, 3]]]) assert.deepEqual(planCloud(innerOf(wished(places, hosts)), made).steps, []);
});
