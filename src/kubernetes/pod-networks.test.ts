// A pod's further networks by the API's objects: the definitions that users write and those that nobody should, and what becomes of
// networks of ours as their definitions come and go.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { MemoryJournal } from '#agent/journal.ts';
import { Fault, isFault } from '#model/fault.ts';
import { type Cidr, parseCidr, parseIp } from '#model/ip.ts';
import { listOf, serve, type Server } from './api.fixture.ts';
import { defaultAnnotation, networksAnnotation } from './network-selection.ts';
import { readOwnNetwork } from './own-network.ts';
import { definitionsPath, OwnNetworks } from './own-networks.ts';
import { OwnPorts } from './own-ports.ts';
import { PodNetworks } from './pod-networks.ts';
import { portPoolsPath } from './port-pools.ts';

const pod = (networks: string, more: object = {}) => ({
  namespace: 'shop',
  pod: 'web-0',
  podUid: '7',
  annotations: { [networksAnnotation]: networks, ...more },
});

const withoutPort = (ip: string): string | undefined => (ip === '10.70.0.5' ? 'the quota would not do' : undefined);

const own = { networkOf: () => Promise.resolve({ key: '', id: 'further1', vni: 7, subnets: [], createdAt: '' }) };

function bed(t: TestContext, definitions: Readonly<Record<string, unknown>>) {
  const folder = mkdtempSync(join(tmpdir(), 'causeway-networks-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const patches: unknown[] = [];
  const client = {
    get: (path: string): Promise<unknown> => {
      const [, namespace, name] = /namespaces\/([^/]+)\/network-attachment-definitions\/([^/]+)$/.exec(path) ?? [];
      const config = definitions[`${namespace}/${name}`];
      if (config === undefined) return Promise.reject(new Fault('not-found', 'no'));
      return Promise.resolve({ metadata: {}, ...(config === null ? {} : { spec: { config } }) });
    },
    patch: (path: string, change: object) => Promise.resolve(patches.push([path, change])),
  };
  return { folder, patches, networks: new PodNetworks({ client, folder, withoutPort, own }) };
}

test('definitions of the own namespace and of others, in the order of the annotation', async (t) => {
  const lan = { cniVersion: '1.0.0', name: 'office', type: 'macvlan' };
  const { networks } = bed(t, { 'shop/lan': JSON.stringify(lan), 'other/wan': '{"cniVersion":"0.3.1","type":"bridge"}' });
  assert.deepEqual(
    (await networks.of(pod('lan,other/wan@up0'))).map(({ place, name, ifname, configuration }) => [place, name, ifname, configuration]),
    [
      [`Annotation ${networksAnnotation}[0], definition shop/lan`, 'shop/lan', 'net1', lan],
      [
        `Annotation ${networksAnnotation}[1], definition other/wan`,
        'other/wan',
        'up0',
        { name: 'wan', cniVersion: '0.3.1', type: 'bridge' },
      ],
    ],
  );
  assert.deepEqual(await networks.of(pod('')), []);
  assert.deepEqual(await networks.of({ ...pod(''), annotations: {} }), []);
});

test('an empty definition is the configuration of its name on the disk', async (t) => {
  const { networks, folder } = bed(t, { 'shop/lan': '', 'shop/wan': null });
  writeFileSync(join(folder, '10-a.conf'), '{"name":"lan"');
  writeFileSync(join(folder, '20-lan.conflist'), '{"cniVersion":"1.0.0","name":"lan","plugins":[{"type":"bridge"}]}');
  writeFileSync(join(folder, '30-wan.txt'), '{"name":"wan","type":"x"}');
  assert.equal((await networks.of(pod('lan')))[0]?.configuration['name'], 'lan');
  await assert.rejects(
    networks.of(pod('wan')),
    (error) => isFault(error, 'not-found') && /shop\/wan: spec\.config is empty/.test(error.message),
  );
});

for (const [config, code, pattern] of [
  [undefined, 'not-found', /no such NetworkAttachmentDefinition/],
  ['{', 'invalid', /spec\.config is no JSON object/],
  ['[]', 'invalid', /spec\.config is no JSON object/],
  ['"x"', 'invalid', /spec\.config is no JSON object/],
] as const)
  test(`refuses the definition ${config ?? 'that is not there'}`, async (t) => {
    const { networks } = bed(t, { 'shop/lan': config });
    await assert.rejects(
      networks.of(pod('lan')),
      (error) =>
        isFault(error, code) &&
        error.message.startsWith(`Annotation ${networksAnnotation}[0], definition shop/lan`) &&
        pattern.test(error.message),
    );
  });

test("the report is of the pod that was asked for, in the contract's words", async (t) => {
  const { networks, patches } = bed(t, {});
  const first = {
    name: 'pods',
    ifname: 'eth0',
    ips: [parseIp('10.244.1.2')],
    mac: '0a:63:0a:f4:01:02',
    isFirst: true,
    dns: {},
    gateways: [],
  };
  const second = { ...first, name: 'shop/lan', ifname: 'net1', mtu: 1400, isFirst: false, gateways: [parseIp('10.1.0.1')] };
  await networks.tell(pod('lan'), [first, second]);
  await networks.tell(pod('lan', { 'kubernetes.io/config.source': 'file' }), []);
  const status = JSON.stringify(
    [
      { name: 'pods', interface: 'eth0', ips: ['10.244.1.2'], mac: '0a:63:0a:f4:01:02', default: true, dns: {} },
      { name: 'shop/lan', interface: 'net1', ips: ['10.244.1.2'], mac: '0a:63:0a:f4:01:02', mtu: 1400, dns: {}, gateway: ['10.1.0.1'] },
    ],
    undefined,
    4,
  );
  const path = '/api/v1/namespaces/shop/pods/web-0/status';
  assert.deepEqual(patches, [
    [path, { metadata: { uid: '7', annotations: { 'k8s.v1.cni.cncf.io/network-status': status } } }],
    [path, { metadata: { annotations: { 'k8s.v1.cni.cncf.io/network-status': '[]' } } }],
  ]);
});

test('a pod without a port of the cloud is told why', async (t) => {
  const { networks, patches } = bed(t, {});
  const ips = [parseIp('10.70.0.5')];
  await networks.tell(pod(''), [{ name: 'shop/ports', ifname: 'eth0', ips, isFirst: true, dns: {}, gateways: [] }]);
  assert.match(
    JSON.stringify(patches),
    /"causeway\.dev\/without-port":"10\.70\.0\.5 of shop\/ports is carried by an overlay, without a port of the cloud: the quota would not do"/,
  );
});

test('a plugin of ours is told the network that its definition describes', async (t) => {
  const config = {
    cniVersion: '1.0.0',
    plugins: [{ type: 'causeway', subnets: ['10.1.0.0/16'], vni: 7, mtu: 1300, dns: {} }, { type: 'tuning' }],
  };
  const { networks } = bed(t, { 'shop/blue': JSON.stringify(config) });
  assert.deepEqual((await networks.of(pod('blue')))[0]?.configuration, {
    name: 'blue',
    cniVersion: '1.0.0',
    plugins: [{ type: 'causeway', dns: {}, network: 'further1' }, { type: 'tuning' }],
  });
});

for (const [key, value] of [
  ['default-route', ['10.1.0.1']],
  ['portMappings', [{ hostPort: 80, containerPort: 80 }]],
] as const)
  test(`${key} is not for a network of ours`, async (t) => {
    const { networks } = bed(t, { 'shop/blue': '{"type":"causeway","subnets":["10.1.0.0/16"]}' });
    const asking = pod(JSON.stringify([{ name: 'blue', [key]: value }]));
    await assert.rejects(networks.of(asking), (error) => isFault(error, 'unsupported') && error.message.includes(key));
  });

const inPlace = (text: string) => pod('', { [defaultAnnotation]: text });

test("a network of ours may be in the place of the cluster's", async (t) => {
  const config = '{"cniVersion":"1.0.0","type":"causeway","subnets":["10.1.0.0/16"]}';
  const { networks } = bed(t, { 'kube-system/blue': config, 'shop/blue': config });
  const expected = {
    place: `Annotation ${defaultAnnotation}[0], definition kube-system/blue`,
    name: 'kube-system/blue',
    ifname: 'eth0',
    configuration: { name: 'blue', cniVersion: '1.0.0', type: 'causeway', network: 'further1' },
    ips: [],
    capabilities: {},
    args: {},
    gateways: [],
  };
  assert.deepEqual(await networks.first(inPlace('blue')), expected);
  assert.equal((await networks.first(inPlace('shop/blue')))?.name, 'shop/blue');
  assert.deepEqual(await Promise.all([networks.first(inPlace('')), networks.of(inPlace('shop/blue'))]), [undefined, []]);
});

for (const config of ['{"type":"bridge"}', '{"plugins":[{"type":"causeway","subnets":["10.1.0.0/16"]},{"type":"tuning"}]}'])
  test(`${config} is not for the place of the cluster's network`, async (t) => {
    const { networks } = bed(t, { 'kube-system/lan': config });
    await assert.rejects(
      networks.first(inPlace('lan')),
      (error) =>
        isFault(error, 'unsupported') && /default-network\[0\], definition kube-system\/lan: .* causeway alone/.test(error.message),
    );
  });

const definition = (name: string, config: object, more: object = {}): object => ({
  metadata: { namespace: 'shop', name, resourceVersion: '5', creationTimestamp: '2026-01-01T00:00:00Z', ...more },
  spec: { config: JSON.stringify({ type: 'causeway', ...config }) },
});

interface Around {
  readonly journal?: MemoryJournal;
  /** Absent: as in the model `calico`, where there are no networks of the cloud. */
  readonly hasPorts?: boolean;
  readonly pods?: () => readonly Cidr[] | undefined;
}
const flannelPods = (): readonly Cidr[] => [parseCidr('10.244.0.0/16')];

function follow(
  t: TestContext,
  { api, client }: Server,
  { journal = new MemoryJournal(), hasPorts = true, pods = flannelPods }: Around = {},
) {
  const used = new Set<string>();
  const warnings: string[] = [];
  const log = { warn: (fields: object): unknown => warnings.push(JSON.stringify(fields)) };
  let changes = 0;
  api.paths.set(portPoolsPath, { lists: [listOf(9, [])], watches: [] });
  const followed = new OwnNetworks({
    client,
    journal,
    ...(hasPorts ? { ports: new OwnPorts({ client, host: 'node1', log, known: () => undefined, portless: () => 0 }) } : {}),
    pods,
    hosts: () => [parseCidr('10.213.0.0/24')],
    log,
    used: () => used,
    isKnown: () => true,
  });
  followed.onChange(() => changes++);
  followed.start();
  t.after(() => followed[Symbol.asyncDispose]());
  const until = async (what: string, isTrue: () => boolean): Promise<void> => {
    for (let tries = 0; !isTrue(); tries++) {
      assert.ok(tries < 500, `${what} did not happen: ${[...followed.current].map(({ key }) => key).join(' ')} ${warnings.join(' ')}`);
      await delay(10);
    }
  };
  return { own: followed, used, warnings, journal, until, changes: () => changes, keys: () => [...followed.current].map(({ key }) => key) };
}

test('of two that cannot be beside each other the older one is there, and the other one when that is gone', async (t) => {
  const server = await serve(t);
  const young = definition('young', { subnets: ['10.1.2.0/24'], vni: 8 }, { creationTimestamp: '2026-02-01T00:00:00Z' });
  const old = definition('old', { subnets: ['10.1.0.0/16'], vni: 7 });
  server.api.paths.set(definitionsPath, {
    lists: [listOf(9, [young, definition('bad', {}), definition('lan', { type: 'bridge' }), old])],
    watches: [[{ type: 'DELETED', object: { ...old, metadata: { namespace: 'shop', name: 'old', resourceVersion: '10' } } }]],
  });
  const { own: followed, warnings, until, keys } = follow(t, server);
  await followed.whenListed(AbortSignal.timeout(5_000));
  await until('the young one', () => keys().join(' ') === 'shop/young');
  assert.ok(warnings.some((line) => line.includes('shop/young') && line.includes('overlaps that of shop/old')));
  assert.ok(warnings.some((line) => line.includes('shop/bad') && line.includes('lacks subnets')));
  assert.equal((await followed.networkOf('shop/young', young)).vni, 8);
  await assert.rejects(followed.networkOf('shop/lan', definition('lan', { type: 'bridge' })), (error) => isFault(error, 'invalid'));
});

test('a conflict is told to the pod that asks', async (t) => {
  const server = await serve(t);
  const young = definition('young', { subnets: ['10.244.9.0/24'] });
  server.api.paths.set(definitionsPath, { lists: [listOf(9, [young])], watches: [] });
  const { own: followed } = follow(t, server);
  await followed.whenListed(AbortSignal.timeout(5_000));
  await assert.rejects(followed.networkOf('shop/young', young), (error) => isFault(error, 'overlap') && /that of pods/.test(error.message));
});

test('one that is used stays without its definition, also after a restart, until it is used no more', async (t) => {
  const server = await serve(t);
  const blue = definition('blue', { subnets: ['10.1.0.0/16'] });
  server.api.paths.set(definitionsPath, {
    lists: [listOf(9, [blue]), listOf(12, [])],
    watches: [[{ type: 'DELETED', object: { ...blue, metadata: { namespace: 'shop', name: 'blue', resourceVersion: '10' } } }]],
  });
  const id = readOwnNetwork('shop/blue', blue)?.id ?? '';
  const first = follow(t, server);
  first.used.add(id);
  await first.until('the network', () => first.keys().length === 1);
  // The listing after the watch has ended.
  await first.until('the deletion', () => server.api.asked.filter(({ pathname }) => pathname === definitionsPath).length >= 3);
  assert.deepEqual(first.keys(), ['shop/blue']);
  const other = await serve(t);
  other.api.paths.set(definitionsPath, { lists: [listOf(13, [definition('red', { subnets: ['10.1.0.0/16'] })])], watches: [] });
  const second = follow(t, other, { journal: first.journal });
  second.used.add(id);
  await second.own.whenListed(AbortSignal.timeout(5_000));
  assert.deepEqual(second.keys(), ['shop/blue']);
  second.used.clear();
  second.own.settle();
  assert.deepEqual(second.keys(), ['shop/red']);
  assert.deepEqual(first.journal.keys('kubernetes/networks/').length, 1);
});

test('in the model calico ranges are those of pools, as they come; before they are known nothing is chosen, and there is none of the cloud', async (t) => {
  const server = await serve(t);
  const blue = definition('blue', { subnets: ['10.1.0.0/16'] });
  const inCloud = definition('ports', { subnets: ['10.20.0.0/24'], neutron: { network: 'hosts' } });
  server.api.paths.set(definitionsPath, { lists: [listOf(9, [blue, inCloud])], watches: [] });
  let ranges: readonly Cidr[] | undefined;
  const { own: followed, keys, until, used } = follow(t, server, { hasPorts: false, pods: () => ranges });
  await followed.whenListed(AbortSignal.timeout(5_000));
  assert.deepEqual(keys(), []);
  ranges = [parseCidr('10.1.128.0/17')];
  followed.settle();
  assert.deepEqual(keys(), []);
  await assert.rejects(followed.networkOf('shop/blue', blue), (error) => isFault(error, 'overlap') && /10\.1\.128\.0/.test(error.message));
  await assert.rejects(
    followed.networkOf('shop/ports', inCloud),
    (error) => isFault(error, 'unsupported') && /neutron: .* model flannel only/.test(error.message),
  );
  ranges = [];
  followed.settle();
  await until('the network', () => keys().join() === 'shop/blue');
  const { id } = await followed.networkOf('shop/blue', blue);
  used.add(id);
  ranges = [parseCidr('10.1.0.0/24')];
  followed.settle();
  assert.deepEqual([keys(), followed.isNeeded(id)], [['shop/blue'], true], 'one that pods are in stays');
  used.clear();
  followed.settle();
  assert.deepEqual([keys(), followed.isNeeded(id)], [[], false]);
});
