// What the controller writes of policies, on a server that keeps what it is given and says nothing by itself.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Fault } from '#model/fault.ts';
import { calicoPolicyKinds, policyKinds } from './policy-kinds.ts';
import { PolicyStatuses } from './policy-statuses.ts';
import { type Item, Server } from './stored.fixture.ts';

const group = '/apis/causeway.dev/v1alpha1';
const paths = {
  nodes: '/api/v1/nodes',
  np: '/apis/networking.k8s.io/v1/networkpolicies',
  cnp: '/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies',
  hosts: `${group}/hostpolicies`,
  statuses: `${group}/policystatuses`,
  clusterStatuses: `${group}/clusterpolicystatuses`,
  calico: '/apis/projectcalico.org/v3/networkpolicies',
  global: '/apis/projectcalico.org/v3/globalnetworkpolicies',
  staged: '/apis/projectcalico.org/v3/stagedglobalnetworkpolicies',
} as const;
type Kept = { [K in keyof typeof paths]?: Item[] };
const serverOf = (kept: Kept): Server =>
  new Server(Object.entries(paths).map(([kind, path]): [string, Item[]] => [path, kept[kind as keyof Kept] ?? []]));

const node = (name: string, labels: object = {}): Item => ({ metadata: { name, resourceVersion: '1', labels } });
const np = (name: string, resourceVersion: string, more: object = {}): Item => ({
  metadata: { namespace: 'shop', name, uid: `u-${name}`, generation: 1, resourceVersion, ...more },
  spec: { podSelector: {} },
});
const cnp = (name: string, spec: object): Item => ({
  metadata: { name, uid: `u-${name}`, generation: 1, resourceVersion: '50' },
  spec: { subject: { namespaces: {} }, ...spec },
});
const host = (name: string, at: number, inForce: object = {}): Item => ({
  metadata: { name, resourceVersion: '1' },
  inForce,
  known: { networkpolicies: `${at}`, clusternetworkpolicies: `${at}` },
});

function start(t: TestContext, server: Server, isLeading = () => true) {
  const stop = new AbortController();
  const warnings: string[] = [];
  const statuses = new PolicyStatuses({
    client: server.client,
    kinds: [...policyKinds, ...calicoPolicyKinds],
    log: { warn: (_, message) => warnings.push(message) },
    isLeading,
    date: () => new Date('2026-01-01T00:00:00.500Z'),
    pace: { passMs: 1, writeMs: 1 },
  });
  const running = statuses.run(stop.signal);
  const end = async (): Promise<void> => {
    stop.abort();
    await running;
  };
  t.after(end);
  return { statuses, warnings, end };
}
async function eventually(look: () => boolean): Promise<void> {
  for (const until = performance.now() + 10_000; !look(); await setTimeout(2))
    assert.ok(performance.now() < until, 'not within ten seconds');
}
/** As `kubectl get` shows them. */
const shown = (server: Server, path: string = paths.statuses): string[] =>
  server.of(path).map(({ metadata, status }) => {
    const { shown: hosts, generation, conditions } = status as { shown: string; generation: number; conditions: { reason: string }[] };
    return `${metadata.name} ${generation} ${hosts} ${conditions.map(({ reason }) => reason).join()}`;
  });
const becomes = (server: Server, wanted: readonly string[], path?: string): Promise<void> =>
  eventually(() => JSON.stringify(shown(server, path)) === JSON.stringify(wanted));

test('each policy has a status, which follows what hosts tell, and goes with it', async (t) => {
  const server = serverOf({
    nodes: [node('a'), node('b'), node('w', { 'kubernetes.io/os': 'windows' })],
    np: [np('one', '20')],
    hosts: [host('a', 20, { 'NetworkPolicy shop/one': 1 }), host('gone', 20, { 'NetworkPolicy shop/one': 1 })],
  });
  const { warnings } = start(t, server);
  await becomes(server, ['networkpolicy.one 1 1/2 Accepted,Pending']);
  server.put(paths.hosts, host('b', 20));
  await becomes(server, ['networkpolicy.one 1 1/1 Accepted,InForce']);
  const changed = server.put(paths.np, np('one', '0', { generation: 2 }));
  await becomes(server, ['networkpolicy.one 2 0/2 Accepted,Pending']);
  const now = Number(changed.metadata.resourceVersion);
  for (const name of ['a', 'b']) server.put(paths.hosts, host(name, now, { 'NetworkPolicy shop/one': 2 }));
  await becomes(server, ['networkpolicy.one 2 2/2 Accepted,InForce']);
  server.remove(paths.nodes, 'b');
  await becomes(server, ['networkpolicy.one 2 1/1 Accepted,InForce']);
  server.remove(paths.np, 'shop/one');
  await becomes(server, []);
  assert.deepEqual(warnings, []);
});

test('a controller that starts anew writes nothing, also where the policy has been touched since it was read', async (t) => {
  const server = serverOf({ nodes: [node('a')], np: [np('one', '20')], hosts: [host('a', 20)] });
  const first = start(t, server);
  await becomes(server, ['networkpolicy.one 1 0/0 Accepted,SelectsNothing']);
  await first.end();
  server.put(paths.np, np('one', '0', { labels: { a: 'b' } }));
  const before = server.writes.length;
  start(t, server);
  await setTimeout(20);
  // Something else happens, so that it is seen to have looked.
  server.put(paths.np, np('two', '0'));
  await eventually(() => shown(server).length === 2);
  assert.deepEqual(server.writes.slice(before), ['create /namespaces/shop/policystatuses']);
});

test('one of the same name that is made anew is another', async (t) => {
  const server = serverOf({ nodes: [node('a')], np: [np('one', '20')], hosts: [host('a', 20, { 'NetworkPolicy shop/one': 1 })] });
  start(t, server);
  await becomes(server, ['networkpolicy.one 1 1/1 Accepted,InForce']);
  server.put(paths.np, np('one', '0', { uid: 'other' }));
  await becomes(server, ['networkpolicy.one 1 0/1 Accepted,Pending']);
});

test('what is wrong is told, in the policy’s own conditions as well where it has some', async (t) => {
  const other = { type: 'Other', status: 'True' };
  const odd = { ...cnp('odd', { tier: 'Middle' }), status: { conditions: [other] } };
  const server = serverOf({ nodes: [node('a')], cnp: [odd], hosts: [host('a', 2000)] });
  start(t, server);
  await becomes(server, ['clusternetworkpolicy.odd 1 0/0 Invalid,NotAccepted'], paths.clusterStatuses);
  const conditions = (): { type: string; message?: string }[] =>
    server.of(paths.cnp).flatMap(({ status }) => (status as { conditions: { type: string; message?: string }[] }).conditions);
  assert.deepEqual(
    conditions().map(({ type }) => type),
    ['Other', 'causeway.dev/Accepted', 'causeway.dev/InForce'],
  );
  assert.match(conditions()[1]?.message ?? '', /^spec\.tier: /);
});

const calico = (kind: string, name: string, spec: object, namespace?: string): Item => ({
  apiVersion: 'projectcalico.org/v3',
  kind,
  metadata: { ...(namespace === undefined ? {} : { namespace }), name, uid: `u-${kind}`, generation: 4, resourceVersion: '20' },
  spec,
});

test('policies of Calico have one each, beside one of Kubernetes of the same name', async (t) => {
  const known = { 'calico-networkpolicies': '20', 'calico-globalnetworkpolicies': '20', 'calico-stagedglobalnetworkpolicies': '20' };
  const inForce = { 'Calico NetworkPolicy shop/one': 4, 'GlobalNetworkPolicy all': 4 };
  const server = serverOf({
    nodes: [node('a')],
    np: [np('one', '20')],
    calico: [calico('NetworkPolicy', 'one', { selector: 'all()' }, 'shop')],
    global: [calico('GlobalNetworkPolicy', 'all', { selector: 'all()' }), calico('GlobalNetworkPolicy', 'odd', { selector: 'all(' })],
    staged: [calico('StagedGlobalNetworkPolicy', 'all', { selector: 'all()' })],
    hosts: [{ metadata: { name: 'a', resourceVersion: '1' }, inForce, known: { ...known, networkpolicies: '20' } }],
  });
  start(t, server);
  await becomes(server, ['networkpolicy.one 1 0/0 Accepted,SelectsNothing', 'calico-networkpolicy.one 4 1/1 Accepted,InForce']);
  await becomes(
    server,
    [
      'globalnetworkpolicy.all 4 1/1 Accepted,InForce',
      'globalnetworkpolicy.odd 4 0/0 Invalid,NotAccepted',
      'stagedglobalnetworkpolicy.all 4 0/0 Accepted,Staged',
    ],
    paths.clusterStatuses,
  );
});

test('long names are cut, and stay different', async (t) => {
  const long = 'n'.repeat(250);
  const server = serverOf({ nodes: [], np: [np(`${long}aaa`, '1'), np(`${long}bbb`, '1')] });
  start(t, server);
  await eventually(() => shown(server).length === 2);
  const names = server.of(paths.statuses).map(({ metadata }) => metadata.name);
  assert.deepEqual([new Set(names).size, names.every((name) => name.length === 253)], [2, true]);
});

test('who does not lead writes nothing; what the server refuses is told once and tried again', async (t) => {
  const server = serverOf({ nodes: [node('a')], np: [np('one', '20'), np('two', '20')] });
  let leads = false;
  server.refuse = new Fault('forbidden', 'no');
  const { statuses, warnings } = start(t, server, () => leads);
  await setTimeout(30);
  assert.deepEqual(warnings, []);
  leads = true;
  statuses.kick();
  await eventually(() => warnings.length > 0);
  statuses.kick();
  await setTimeout(30);
  assert.equal(warnings.length, 1);
  server.refuse = undefined;
  statuses.kick();
  await eventually(() => shown(server).length === 2);
});
