// What is wrong, hostile or contradictory in policies: nothing is opened by it, it is told, and nothing breaks.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planPolicy } from '#drivers/policy.ts';
import { parseIp } from '#model/ip.ts';
import { type Packet, Verdicts } from '#model/policy.ts';
import { readClusterNetworkPolicy } from './cluster-network-policy.ts';
import { readNetworkPolicy } from './network-policy.ts';
import { PolicyIndex } from './policy-index.ts';
import type { Reading } from './policy-parts.ts';
import { readNamespace, readPod } from './pods.ts';

const [web, client] = [parseIp('10.44.0.1'), parseIp('10.44.0.2')];
const packet = (destinationPort = 80): Packet => ({ source: client, destination: web, protocol: 6, sourcePort: 40_000, destinationPort });

/** Web and client in one namespace, with these policies. */
function factsOf(readings: readonly Reading[]) {
  const index = new PolicyIndex();
  index.putNamespace('shop', { team: 'shop' });
  index.putPod('shop/web', { namespace: 'shop', labels: { app: 'web' }, account: 'default', ips: [web], ports: [] });
  index.putPod('shop/client', { namespace: 'shop', labels: { app: 'client' }, account: 'default', ips: [client], ports: [] });
  for (const { policy } of readings) if (policy !== undefined) index.putPolicy(policy);
  return index.facts([
    { owner: 'shop/web', addresses: [web] },
    { owner: 'shop/client', addresses: [client] },
  ]);
}
function allows(readings: readonly Reading[], port?: number): boolean {
  const facts = factsOf(readings);
  return facts === undefined || new Verdicts(facts).allows(packet(port));
}
const own = (spec: object, name = 'one'): Reading => readNetworkPolicy({ metadata: { namespace: 'shop', name }, spec });
const cluster = (spec: object, name = 'all'): Reading =>
  readClusterNetworkPolicy({ metadata: { name }, spec: { tier: 'Admin', priority: 1, subject: { namespaces: {} }, ...spec } });
const everybody = [{ namespaces: {} }];

/** What is wrong, and where; the last is not wrong at all. */
const closing: readonly (readonly [string, object, string?])[] = [
  ['a peer of an unknown sort', { ingress: [{ from: [{ serviceSelector: {} }] }] }, 'spec.ingress[0].from[0]'],
  ['a peer that is no object', { ingress: [{ from: ['everybody'] }] }, 'spec.ingress[0].from[0]'],
  [
    'an operator that is none',
    { ingress: [{ from: [{ podSelector: { matchExpressions: [{ key: 'a', operator: 'Like' }] } }] }] },
    'spec.ingress[0].from[0].podSelector.matchExpressions.0.operator',
  ],
  ['a block that is no prefix', { ingress: [{ from: [{ ipBlock: { cidr: '10.44.0.0/33' } }] }] }, 'spec.ingress[0].from[0].ipBlock.cidr'],
  [
    'an exception that is no prefix',
    { ingress: [{ from: [{ ipBlock: { cidr: '0.0.0.0/0', except: ['all'] } }] }] },
    'spec.ingress[0].from[0].ipBlock.except[0]',
  ],
  ['an exception that is everything', { ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['0.0.0.0/0'] } }] }] }],
  ['a protocol that is none', { ingress: [{ ports: [{ protocol: 'ICMP', port: 80 }] }] }, 'spec.ingress[0].ports[0].protocol'],
  ['a port out of range', { ingress: [{ ports: [{ port: 65_536 }] }] }, 'spec.ingress[0].ports[0].port'],
  ['a port of another type', { ingress: [{ ports: [{ port: {} }] }] }, 'spec.ingress[0].ports[0].port'],
  ['an end without a beginning', { ingress: [{ ports: [{ endPort: 90 }] }] }, 'spec.ingress[0].ports[0].endPort'],
  ['an end before its beginning', { ingress: [{ ports: [{ port: 80, endPort: 79 }] }] }, 'spec.ingress[0].ports[0].endPort'],
  ['an end beside a name', { ingress: [{ ports: [{ port: 'http', endPort: 90 }] }] }, 'spec.ingress[0].ports[0].endPort'],
  ['a rule that is no object', { ingress: [7] }, 'spec.ingress[0]'],
];
for (const [what, spec, field] of closing) {
  test(`NetworkPolicy: ${what} allows nothing`, () => {
    const reading = own({ podSelector: {}, ...spec });
    assert.equal(allows([reading]), false);
    assert.deepEqual(
      reading.problems.map((problem) => problem.field),
      field === undefined ? [] : [field],
    );
  });
}

const failingClosed: readonly (readonly [string, object, string])[] = [
  ['a peer of an unknown sort', { from: [{ planets: {} }] }, 'spec.ingress[0].from[0]'],
  ['a peer of two sorts', { from: [{ namespaces: {}, pods: { namespaceSelector: {}, podSelector: {} } }] }, 'spec.ingress[0].from[0]'],
  ['an empty peer', { from: [{}] }, 'spec.ingress[0].from[0]'],
  ['no peer at all', { from: [] }, 'spec.ingress[0].from'],
  ['a protocol of an unknown sort', { from: everybody, protocols: [{ icmp: {} }] }, 'spec.ingress[0].protocols[0]'],
  [
    'a port of an unknown sort',
    { from: everybody, protocols: [{ tcp: { destinationPort: { name: 'web' } } }] },
    'spec.ingress[0].protocols[0]',
  ],
];
for (const [what, rule, field] of failingClosed) {
  test(`ClusterNetworkPolicy: ${what} accepts nothing, and denies everything`, () => {
    const deny = { action: 'Deny', from: everybody };
    assert.equal(allows([cluster({ ingress: [{ action: 'Accept', ...rule }, deny] })]), false);
    assert.deepEqual(
      cluster({ ingress: [{ action: 'Accept', ...rule }] }).problems.map((problem) => [problem.field, problem.reason]),
      [[field, 'Unsupported']],
    );
    for (const action of ['Deny', 'Pass', 'Shrug']) assert.equal(allows([cluster({ ingress: [{ action, ...rule }] })]), false);
  });
}

const unreadable: readonly (readonly [string, Reading])[] = [
  ['no object', readNetworkPolicy('policy')],
  ['no name', readNetworkPolicy({ metadata: { namespace: 'shop' }, spec: {} })],
  ['a subject that is none', own({ podSelector: { matchExpressions: 'app' } })],
  ['a tier that is none', cluster({ tier: 'Middle' })],
  ['a priority out of range', cluster({ priority: 1001 })],
  ['a subject of two sorts', cluster({ subject: { namespaces: {}, pods: {} } })],
];
for (const [what, reading] of unreadable) {
  test(`${what}: nobody can be said to be meant, which is told`, () => {
    assert.deepEqual([reading.policy, reading.problems.map(({ reason }) => reason)], [undefined, ['Invalid']]);
  });
}

test('policies that name nothing change nothing, and cost no rule', () => {
  const reading = own({ podSelector: { matchLabels: { app: 'nobody' } } });
  assert.equal(allows([reading]), true);
  const facts = factsOf([reading]);
  assert.deepEqual([facts?.policies.size, facts?.sets.size], [0, 0]);
});

test('of conflicting policies the earlier one in order wins; equal priorities go by name', () => {
  const deny = { ingress: [{ action: 'Deny', from: everybody }] };
  const accept = { ingress: [{ action: 'Accept', from: everybody }] };
  assert.equal(allows([cluster({ ...deny, priority: 2 }, 'a'), cluster({ ...accept, priority: 1 }, 'b')]), true);
  assert.equal(allows([cluster(deny, 'a'), cluster(accept, 'b')]), false);
  assert.equal(allows([own({ podSelector: {} }), own({ podSelector: {}, ingress: [{}] }, 'two')]), true);
});

test('hostile sizes: a thousand rules with a hundred labels, names of every character', () => {
  const labels = Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`label-${index}`, 'x']));
  const ingress = Array.from({ length: 1000 }, (_, index) => ({
    from: [{ podSelector: { matchLabels: { ...labels, own: `${index}` } } }],
  }));
  const names = ['"; drop', 'x'.repeat(200), '\n}\nflush ruleset\n', '日本', '\\'];
  const rules = names.map((name) => ({ name, action: 'Accept', from: everybody }));
  const facts = factsOf([own({ podSelector: {}, ingress }), cluster({ ingress: rules })]);
  const [table] = planPolicy(facts, []).table ?? [];
  const comments = (table?.text ?? '').split('\n').filter((line) => line.includes('comment'));
  assert.ok(comments.length > 1000);
  assert.ok(comments.every((line) => /^ *.*comment "[ !#-[\]-~]{1,120}"$/.test(line)));
  assert.ok(!/^\s*flush/m.test(table?.text ?? ''));
});

test('pods and namespaces that cannot be read are as if they were not there', () => {
  for (const item of [undefined, {}, { metadata: { name: 'x' } }, { metadata: { namespace: 'a', name: 'x' }, spec: { containers: 7 } }])
    assert.equal(readPod(item), undefined);
  assert.equal(readNamespace({ metadata: {} }), undefined);
  const odd = readPod({
    metadata: { namespace: 'a', name: 'x' },
    spec: { containers: [{ ports: [{ name: 'a', containerPort: 0 }, 7] }] },
    status: { podIPs: [{ ip: 'x' }] },
  });
  assert.deepEqual([odd?.ips, odd?.ports], [[], []]);
});

test('a label of a pod does not make it look like one of another namespace', () => {
  const index = new PolicyIndex();
  index.putNamespace('shop', { team: 'shop' });
  const forged = { 'namespace team': 'admins', 'in namespace': 'admins', team: 'admins' };
  index.putPod('shop/web', { namespace: 'shop', labels: {}, account: 'default', ips: [web], ports: [] });
  index.putPod('shop/client', { namespace: 'shop', labels: forged, account: 'default', ips: [client], ports: [] });
  const { policy } = own({ podSelector: {}, ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: 'admins' } } }] }] });
  index.putPolicy(policy ?? assert.fail());
  const facts = index.facts([{ owner: 'shop/web', addresses: [web] }]) ?? assert.fail();
  assert.deepEqual([...facts.sets.values()], [[]]);
});

const podOf = (name: string, podIP: string, labels: object) =>
  readPod({ metadata: { namespace: 'shop', name, labels }, spec: { containers: [] }, status: { phase: 'Running', podIP } }) ??
  assert.fail();

test('labels of any name choose', () => {
  for (const key of ['prototype', 'constructor']) {
    const matchLabels = { [key]: 'yes' };
    const { policy } = own({ podSelector: {}, ingress: [{ from: [{ podSelector: { matchLabels } }] }] });
    for (const [labels, chosen] of [
      [matchLabels, ['10.44.0.2/32']],
      [{}, []],
    ] as const) {
      const index = new PolicyIndex();
      index.putNamespace('shop', {});
      index.putPod('shop/web', podOf('web', web, {}));
      index.putPod('shop/client', podOf('client', client, labels));
      index.putPolicy(policy ?? assert.fail());
      const facts = index.facts([{ owner: 'shop/web', addresses: [web] }]) ?? assert.fail();
      assert.deepEqual([...facts.sets.values()], [chosen]);
    }
  }
});
