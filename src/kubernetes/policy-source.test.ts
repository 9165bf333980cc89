// Policies followed: what is told before everything is listed, after a restart with the API away, and of servers that lack a sort.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { MemoryJournal } from '#agent/journal.ts';
import { hostPrefix, type Ip, parseIp } from '#model/ip.ts';
import { type Answers, listOf, serve, type Server } from './api.fixture.ts';
import { KubernetesPolicies } from './policy-source.ts';

const paths = {
  namespaces: '/api/v1/namespaces',
  pods: '/api/v1/pods',
  policies: '/apis/networking.k8s.io/v1/networkpolicies',
  clusterPolicies: '/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies',
} as const;

const local = [{ owner: 'shop/web', addresses: [parseIp('10.44.0.1')] }];
const namespace = { metadata: { name: 'shop', resourceVersion: '2' } };
const pod = (name: string, ip: string, labels: object = {}): object => ({
  metadata: { namespace: 'shop', name, resourceVersion: '3', labels },
  spec: { containers: [{ ports: [{ name: 'http', containerPort: 80 }] }] },
  status: { phase: 'Running', podIP: ip },
});
const policy = (name: string, from: object = {}): object => ({
  metadata: { namespace: 'shop', name, resourceVersion: '4', generation: 3 },
  spec: { podSelector: {}, ingress: [{ from: [{ podSelector: from }] }] },
});

function say({ api }: Server, answers: { readonly [K in keyof typeof paths]?: Partial<Answers> }): void {
  api.paths.clear();
  // What Calico has is not there.
  api.lists = Array.from({ length: 50 }, () => 404);
  for (const [name, path] of Object.entries(paths)) {
    const { lists = [], watches = [] } = answers[name as keyof typeof paths] ?? {};
    api.paths.set(path, { lists, watches });
  }
}
const whole = () => ({ namespaces: { lists: [listOf(1, [namespace])] }, clusterPolicies: { lists: [404] } });

const noHosts = { node: 'here', apiPort: 6443, pods: [], links: () => new Map<Ip, string>() };
function follow(t: TestContext, { client }: Server, journal: MemoryJournal) {
  const warnings: string[] = [];
  let calls = 0;
  const log = { warn: (_: object, message: string) => warnings.push(message) };
  const source = new KubernetesPolicies({ client, journal, log, hosts: noHosts, changed: () => (calls += 1) });
  source.start();
  t.after(() => source[Symbol.asyncDispose]());
  return { source, warnings, calls: () => calls };
}
const seen = (source: KubernetesPolicies): unknown => {
  const facts = source.current(local);
  return facts && [facts.endpoints.map(({ policies }) => policies), [...facts.sets.values()]];
};
async function eventually(look: () => boolean): Promise<void> {
  for (const end = performance.now() + 10_000; !look(); await setTimeout(5)) assert.ok(performance.now() < end, 'not within ten seconds');
}

test('a further network of a pod is open, also before anything is known', async (t) => {
  const server = await serve(t);
  const own = [...local, { owner: 'shop/web', addresses: [parseIp('10.60.0.1')], isFree: true as const }];
  const policiesOf = (from: KubernetesPolicies): unknown => from.current(own)?.endpoints.map(({ policies }) => policies);
  say(server, { ...whole(), pods: { lists: [listOf(1, [pod('web', '10.44.0.1')])] }, policies: { lists: [listOf(1, [policy('all')])] } });
  const { source } = follow(t, server, new MemoryJournal());
  assert.deepEqual(policiesOf(source), [undefined, []]);
  await eventually(() => source.isSynced());
  await eventually(() => JSON.stringify(policiesOf(source)) === JSON.stringify([['NetworkPolicy shop/all'], []]));
});

test('closed until everything is listed, then as policies say, and changes are followed', async (t) => {
  const server = await serve(t);
  const watches = [[{ type: 'MODIFIED', object: pod('far', '10.44.1.9', { app: 'friend' }) }]];
  say(server, {
    ...whole(),
    pods: { lists: [listOf(1, [pod('web', '10.44.0.1'), pod('far', '10.44.1.9')])], watches },
    policies: { lists: [503, listOf(1, [policy('one', { matchLabels: { app: 'friend' } })])] },
  });
  const { source } = follow(t, server, new MemoryJournal());
  assert.deepEqual([seen(source), source.isSynced()], [[[undefined], []], false]);
  await eventually(() => source.isSynced() && JSON.stringify(seen(source)).includes('10.44.1.9/32'));
  assert.deepEqual(seen(source), [[['NetworkPolicy shop/one']], [['10.44.1.9/32']]]);
  assert.deepEqual(
    source.policies().map(({ generation }) => generation),
    [3],
  );
});

test('after a restart what was known holds before the API answers; what has gone goes when all is listed', async (t) => {
  const server = await serve(t);
  const journal = new MemoryJournal();
  const pods = { lists: [listOf(1, [pod('web', '10.44.0.1'), pod('far', '10.44.1.9')])] };
  say(server, { ...whole(), pods, policies: { lists: [listOf(1, [policy('one'), policy('two')])] } });
  const first = follow(t, server, journal);
  await eventually(() => first.source.isSynced() && first.calls() > 0);
  const known = seen(first.source);
  await first.source[Symbol.asyncDispose]();
  say(server, { namespaces: { lists: [503] }, policies: { lists: [listOf(2, [policy('two')])] } });
  const second = follow(t, server, journal);
  assert.deepEqual([seen(second.source), second.source.isSynced()], [known, false]);
  await second.source[Symbol.asyncDispose]();
  // One of the policies has gone, which counts together with everything else and not before.
  assert.deepEqual(seen(second.source), known);
  say(server, { ...whole(), pods: { lists: [listOf(2, [pod('web', '10.44.0.1')])] }, policies: { lists: [listOf(2, [policy('two')])] } });
  const third = follow(t, server, journal);
  await eventually(() => third.source.isSynced() && third.calls() > 0);
  assert.deepEqual(seen(third.source), [[['NetworkPolicy shop/two']], [['10.44.0.1/32']]]);
  await third.source[Symbol.asyncDispose]();
  assert.deepEqual(
    journal.list('kubernetes/policy/').map(({ key }) => key),
    ['known', 'namespaces/shop', 'networkpolicies/shop/two', 'pods/shop/web'].map((key) => `kubernetes/policy/${key}`),
  );
});

const called = (name: string, metadata: object): object => ({
  ...pod(name, '10.44.0.1'),
  metadata: { namespace: 'shop', name, resourceVersion: '3', labels: { app: 'friend' }, ...metadata },
});
/** Policies of an endpoint, and whether its address is in a set. */
const placed = (source: KubernetesPolicies, owner: string, ownerId?: string): unknown => {
  const ip = parseIp('10.44.0.2');
  const found = source.current([{ owner, addresses: [ip], ...(ownerId === undefined ? {} : { ownerId }) }]);
  return [found?.endpoints.map(({ policies }) => policies), [...(found?.sets.values() ?? [])].flat().includes(hostPrefix(ip))];
};

test('a pod is not taken for an earlier one of its name, nor a static one for another than its copy in the API', async (t) => {
  const server = await serve(t);
  const journal = new MemoryJournal();
  const pods = [called('web', { uid: 'first' }), called('fixed', { uid: 'copy', annotations: { 'kubernetes.io/config.mirror': 'own' } })];
  const friends = policy('friends', { matchLabels: { app: 'friend' } });
  say(server, { ...whole(), pods: { lists: [listOf(1, pods)] }, policies: { lists: [listOf(1, [friends])] } });
  const known = follow(t, server, journal);
  const asKnown = [[['NetworkPolicy shop/friends']], true];
  const closed = [[undefined], false];
  await eventually(() => known.source.isSynced() && known.calls() > 0);
  await known.source[Symbol.asyncDispose]();
  // An agent that starts while the API is away goes by what was kept.
  say(server, { pods: { lists: [503] } });
  const { source } = follow(t, server, journal);
  assert.deepEqual(
    [placed(source, 'shop/web', 'first'), placed(source, 'shop/web'), placed(source, 'shop/fixed', 'own')],
    [asKnown, asKnown, asKnown],
  );
  assert.deepEqual([placed(source, 'shop/web', 'second'), placed(source, 'shop/fixed', 'copy')], [closed, closed]);
  // One that is being removed beside the one that the API has.
  const both = ['second', 'first', 'third'].map((ownerId, number) => ({
    owner: 'shop/web',
    ownerId,
    addresses: [parseIp(`10.44.0.${number + 7}`)],
  }));
  assert.deepEqual(
    source.current(both)?.endpoints.map(({ addresses, policies }) => [addresses, policies]),
    [[['10.44.0.8'], ['NetworkPolicy shop/friends']]],
  );
});

test('without any policy nothing is guarded; a policy that cannot be read is told', async (t) => {
  const server = await serve(t);
  const odd = { metadata: { namespace: 'shop', name: 'odd' }, spec: { podSelector: 7 } };
  say(server, { ...whole(), pods: { lists: [listOf(1, [pod('web', '10.44.0.1')])] }, policies: { lists: [listOf(1, [odd])] } });
  const { source, warnings, calls } = follow(t, server, new MemoryJournal());
  await eventually(() => source.isSynced() && calls() > 0);
  assert.deepEqual([seen(source), warnings], [undefined, ['cannot serve all of a policy']]);
});

test('a pod that says the same again, with another status of no interest, changes nothing', async (t) => {
  const server = await serve(t);
  const again = { ...pod('web', '10.44.0.1'), status: { phase: 'Running', podIP: '10.44.0.1', conditions: [{ type: 'Ready' }] } };
  const other = pod('other', '10.44.0.2');
  const watches = [
    [
      { type: 'MODIFIED', object: again },
      { type: 'ADDED', object: other },
    ],
  ];
  say(server, {
    ...whole(),
    pods: { lists: [listOf(1, [pod('web', '10.44.0.1')])], watches },
    policies: { lists: [listOf(1, [policy('one')])] },
  });
  const journal = new MemoryJournal();
  const { calls } = follow(t, server, journal);
  await eventually(() => journal.get('kubernetes/policy/pods/shop/other') !== undefined);
  assert.ok(calls() <= 2);
});
