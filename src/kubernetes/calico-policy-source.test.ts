// Calico's policies followed: what they speak of is known before they count, services from when one names a service on, and all
// of it after a restart with the API away.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { MemoryJournal } from '#agent/journal.ts';
import { parseIp } from '#model/ip.ts';
import { listOf, serve, type Server } from './api.fixture.ts';
import { KubernetesPolicies } from './policy-source.ts';

const calico = '/apis/projectcalico.org/v3';
const slices = '/apis/discovery.k8s.io/v1/endpointslices';
const paths = [
  '/api/v1/namespaces',
  '/api/v1/pods',
  '/api/v1/serviceaccounts',
  slices,
  '/apis/networking.k8s.io/v1/networkpolicies',
  '/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies',
  ...['tiers', 'networkpolicies', 'globalnetworkpolicies', 'networksets', 'globalnetworksets', 'hostendpoints', 'felixconfigurations'].map(
    (name) => `${calico}/${name}`,
  ),
  ...['stagednetworkpolicies', 'stagedglobalnetworkpolicies', 'stagedkubernetesnetworkpolicies'].map((name) => `${calico}/${name}`),
];

const local = [{ owner: 'shop/web', addresses: [parseIp('10.44.0.1')] }];
const metadata = (name: string, more: object = {}): object => ({ name, resourceVersion: '2', generation: 1, ...more });
const namespace = { metadata: metadata('shop') };
const account = { metadata: metadata('web', { namespace: 'shop', labels: { level: 'high' } }) };
const pod = {
  metadata: metadata('web', { namespace: 'shop', labels: { app: 'web' } }),
  spec: { serviceAccountName: 'web', containers: [{}] },
  status: { phase: 'Running', podIP: '10.44.0.1' },
};
const slice = (ip: string): object => ({
  metadata: metadata('back-1', { namespace: 'shop', labels: { 'kubernetes.io/service-name': 'back' } }),
  addressType: 'IPv4',
  endpoints: [{ addresses: [ip] }],
  ports: [{ protocol: 'TCP', port: 80 }],
});
const policy = (name: string, spec: object): object => ({ metadata: metadata(name), spec });

/** Whatever is not said the server does not have. */
function say({ api }: Server, lists: Readonly<Record<string, (object | number)[]>>): void {
  for (const path of paths) api.paths.set(path, { lists: lists[path] ?? [404], watches: [] });
}
const said = (policies: readonly object[]): Record<string, (object | number)[]> => ({
  '/api/v1/namespaces': [listOf(1, [namespace])],
  '/api/v1/pods': [listOf(1, [pod])],
  '/api/v1/serviceaccounts': [listOf(1, [account])],
  '/apis/networking.k8s.io/v1/networkpolicies': [listOf(1, [])],
  [`${calico}/globalnetworkpolicies`]: [listOf(1, policies)],
  [`${calico}/globalnetworksets`]: [
    listOf(1, [{ metadata: metadata('far', { labels: { role: 'far' } }), spec: { nets: ['192.0.2.0/24', 'x'] } }]),
  ],
  [`${calico}/tiers`]: [listOf(1, [{ metadata: metadata('first'), spec: { order: 5 } }])],
  [slices]: [listOf(1, [slice('10.44.0.9')])],
});

function follow(t: TestContext, { client }: Server, journal: MemoryJournal) {
  const warnings: object[] = [];
  let calls = 0;
  const source = new KubernetesPolicies({
    client,
    journal,
    log: { warn: (fields) => warnings.push(fields) },
    changed: () => (calls += 1),
    hosts: { node: 'here', apiPort: 6443, pods: [], links: () => new Map() },
  });
  source.start();
  t.after(() => source[Symbol.asyncDispose]());
  return { source, warnings, isSettled: () => source.isSynced() && calls > 0 };
}
async function eventually(look: () => boolean): Promise<void> {
  for (const end = performance.now() + 10_000; !look(); await setTimeout(5)) assert.ok(performance.now() < end, 'not within ten seconds');
}
const seen = (source: KubernetesPolicies): unknown => {
  const facts = source.current(local);
  const named = [...(facts?.named ?? [])].map(([key, places]) => [key, places.map(({ ip, port }) => `${ip}:${port}`)]);
  return facts && [facts.endpoints.map(({ policies }) => policies), [...facts.sets.values()], named, facts.tiers.map(({ name }) => name)];
};

const high = policy('high', {
  tier: 'first',
  serviceAccountSelector: "level == 'high'",
  ingress: [{ action: 'Allow', source: { selector: "role == 'far'" } }],
});
const back = policy('back', {
  selector: "app == 'web'",
  egress: [{ action: 'Allow', protocol: 'TCP', destination: { services: { name: 'back', namespace: 'shop' } } }],
});

test('service accounts, sets and tiers are known with the policies that speak of them; slices are not followed for nothing', async (t) => {
  const server = await serve(t);
  say(server, said([high]));
  const { source, warnings, isSettled } = follow(t, server, new MemoryJournal());
  await eventually(isSettled);
  const known = [[['GlobalNetworkPolicy high']], [['192.0.2.0/24']], [], ['first', 'kube-admin', 'default', 'kube-baseline']];
  assert.deepEqual(seen(source), known);
  assert.deepEqual(warnings, [{ globalnetworksets: 'far', problems: ['spec.nets[1]: expected an address or a prefix'] }]);
  assert.ok(server.api.asked.every(({ pathname }) => pathname !== slices));
});

test('a policy that names a service counts when its endpoints are listed, also after a restart with the API away', async (t) => {
  const server = await serve(t);
  say(server, { ...said([back]), [slices]: [503, listOf(1, [slice('10.44.0.9')])] });
  const journal = new MemoryJournal();
  const first = follow(t, server, journal);
  await eventually(first.isSettled);
  const known = [
    [['GlobalNetworkPolicy back']],
    [],
    [['6 service shop/back', ['10.44.0.9:80']]],
    ['first', 'kube-admin', 'default', 'kube-baseline'],
  ];
  assert.deepEqual(seen(first.source), known);
  await first.source[Symbol.asyncDispose]();
  say(server, Object.fromEntries(paths.map((path) => [path, [503]])));
  const second = follow(t, server, journal);
  assert.deepEqual([seen(second.source), second.source.isSynced()], [known, false]);
});

test('a tier that has gone is told of with the policies that are in it', async (t) => {
  const server = await serve(t);
  say(server, { ...said([high]), [`${calico}/tiers`]: [404] });
  const { source, isSettled } = follow(t, server, new MemoryJournal());
  await eventually(isSettled);
  const [known] = source.policies();
  assert.match(known?.problems[0] ?? '', /^spec\.tier: there is no tier first/);
  assert.equal(source.current(local)?.tiers[0]?.order, -Infinity);
});
