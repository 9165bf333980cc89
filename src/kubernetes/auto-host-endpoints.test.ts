// Host endpoints that are made by themselves: which there are for which settings and nodes, and what is left alone.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { AutoHostEndpoints, readAutoEndpoints, readLabelledNode, wantedEndpoints } from './auto-host-endpoints.ts';
import { type Item, Server } from './stored.fixture.ts';

const group = '/apis/projectcalico.org/v3';
const paths = { nodes: '/api/v1/nodes', endpoints: `${group}/hostendpoints`, settings: `${group}/kubecontrollersconfigurations` } as const;
const createdBy = { 'projectcalico.org/created-by': 'calico-kube-controllers' };
const profiles = ['projectcalico-default-allow'];

const node = (name: string, ip: string, labels: object = {}): Item => ({
  metadata: { name, resourceVersion: '1', labels, annotations: { 'causeway.dev/carry': 'vxlan', 'causeway.dev/receives': 'vxlan' } },
  spec: { podCIDRs: ['10.244.1.0/24'] },
  status: {
    addresses: [
      { type: 'InternalIP', address: ip },
      { type: 'Hostname', address: name },
    ],
  },
});
const settings = (hostEndpoint: object, name = 'default'): Item => ({
  metadata: { name, resourceVersion: '1' },
  spec: { controllers: { node: { hostEndpoint } } },
});
const nodesOf = (...items: readonly unknown[]) => items.flatMap((item) => readLabelledNode(item) ?? []);

test('one for every link of each node, and one for each template that picks the node and an address', () => {
  const templates = [
    { generateName: 'front', nodeSelector: "role == 'edge'", interfaceCIDRs: ['192.0.2.0/24'], labels: { side: 'front', role: 'wall' } },
    { generateName: 'none', interfaceCIDRs: ['198.51.100.0/24'] },
  ];
  const { auto, problems } = readAutoEndpoints(settings({ autoCreate: 'Enabled', templates }));
  assert.deepEqual(problems, []);
  assert.ok(auto);
  const nodes = nodesOf(
    node('a', '192.0.2.1', { role: 'edge' }),
    node('b', '192.0.2.2'),
    node('w', '192.0.2.3', { 'kubernetes.io/os': 'windows' }),
  );
  assert.deepEqual(Object.fromEntries(wantedEndpoints(auto, nodes)), {
    'a-auto-hep': {
      metadata: { name: 'a-auto-hep', labels: { role: 'edge', ...createdBy } },
      spec: { node: 'a', interfaceName: '*', expectedIPs: ['192.0.2.1', '10.244.1.0'], profiles },
    },
    'a-front-auto-hep': {
      metadata: { name: 'a-front-auto-hep', labels: { role: 'wall', side: 'front', ...createdBy } },
      spec: { node: 'a', expectedIPs: ['192.0.2.1'], profiles },
    },
    'b-auto-hep': {
      metadata: { name: 'b-auto-hep', labels: createdBy },
      spec: { node: 'b', interfaceName: '*', expectedIPs: ['192.0.2.2', '10.244.1.0'], profiles },
    },
  });
  const only = readAutoEndpoints(settings({ autoCreate: 'Enabled', createDefaultHostEndpoint: 'Disabled', templates }));
  assert.deepEqual([...wantedEndpoints(only.auto ?? assert.fail(), nodes).keys()], ['a-front-auto-hep']);
});

test('a name that is too long is a digest', () => {
  const long = 'n'.repeat(250);
  const auto = { everywhere: true, templates: [] };
  const [name = ''] = wantedEndpoints(auto, [{ name: long, labels: {}, ips: [] }]).keys();
  assert.match(name, /^[a-z0-9]{30,43}-auto-hep$/);
});

const field = 'spec.controllers.node.hostEndpoint';
for (const [what, item, place] of [
  ['another word', settings({ autoCreate: 'Yes' }), `${field}.autoCreate`],
  ['a template without a name', settings({ templates: [{}] }), `${field}.templates.0.generateName`],
  ['a selector that is none', settings({ templates: [{ generateName: 'x', nodeSelector: 'a = b' }] }), `${field}.templates.0.nodeSelector`],
  [
    'a pattern of links',
    settings({ autoCreate: 'Enabled', templates: [{ generateName: 'x', interfacePattern: 'eth.*' }] }),
    `${field}.templates[0].interfacePattern`,
  ],
  ['another name', settings({ autoCreate: 'Enabled' }, 'other'), 'metadata.name'],
] as const) {
  test(`told by its field: ${what}`, () => {
    const { auto, problems } = readAutoEndpoints(item);
    assert.deepEqual([auto?.templates ?? [], problems.map((problem) => problem.field)], [[], [place]]);
  });
}

async function eventually(look: () => boolean): Promise<void> {
  for (const until = performance.now() + 10_000; !look(); await setTimeout(2))
    assert.ok(performance.now() < until, 'not within ten seconds');
}
function start(t: TestContext, server: Server): void {
  const stop = new AbortController();
  const auto = new AutoHostEndpoints({
    client: server.client,
    log: { warn: (_, message) => assert.fail(message) },
    isLeading: () => true,
    pace: { passMs: 1, writeMs: 1 },
  });
  const running = auto.run(stop.signal);
  t.after(async () => {
    stop.abort();
    await running;
  });
}
const names = (server: Server): string[] =>
  server
    .of(paths.endpoints)
    .map(({ metadata }) => metadata.name)
    .toSorted();

test('they follow nodes and settings; what others have made stays, and profiles that somebody has changed', async (t) => {
  const foreign = { metadata: { name: 'b-auto-hep', resourceVersion: '1', labels: {} }, spec: { node: 'b', interfaceName: 'eth0' } };
  const gone = { metadata: { name: 'gone-auto-hep', resourceVersion: '1', labels: createdBy }, spec: { node: 'gone' } };
  const server = new Server([
    [paths.nodes, [node('a', '192.0.2.1'), node('b', '192.0.2.2')]],
    [paths.endpoints, [foreign, gone]],
    [paths.settings, [settings({ autoCreate: 'Enabled' })]],
  ]);
  start(t, server);
  await eventually(() => names(server).join() === 'a-auto-hep,b-auto-hep');
  assert.deepEqual(server.writes.toSorted(), ['create /hostendpoints', 'remove /hostendpoints/gone-auto-hep']);
  const of = (name: string) =>
    server.of(paths.endpoints).find(({ metadata }) => metadata.name === name) as unknown as {
      readonly metadata: { readonly labels: object };
      readonly spec: { readonly expectedIPs: string[]; readonly profiles: string[] };
    };
  server.put(paths.endpoints, { ...of('a-auto-hep'), spec: { ...of('a-auto-hep').spec, profiles: [] } });
  server.put(paths.nodes, node('a', '192.0.2.1', { role: 'edge' }));
  await eventually(() => JSON.stringify(of('a-auto-hep').metadata.labels).includes('edge'));
  server.put(paths.settings, settings({ autoCreate: 'Sometimes' }));
  server.remove(paths.nodes, 'a');
  await setTimeout(50);
  assert.deepEqual(names(server), ['a-auto-hep', 'b-auto-hep']);
  server.put(paths.settings, settings({ autoCreate: 'Disabled' }));
  await eventually(() => names(server).join() === 'b-auto-hep');
});
