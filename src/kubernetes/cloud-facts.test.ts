import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serverLabel } from '#model/cloud-services.ts';
import { type ClusterObjects, type ClusterWish, clusterWish, noObjects, refusals } from './cloud-facts.ts';
import { ipPoolIn } from './calico.ts';
import { type Item, keyed, nodeOf, plainServing, serviceOf, sliceOf } from './cloud-objects.fixture.ts';

const objectsOf = (changes: Partial<ClusterObjects> = {}): ClusterObjects => ({
  ...noObjects(),
  nodes: keyed(nodeOf(1), nodeOf(2)),
  ...changes,
});
const wishOf = (changes: Partial<ClusterObjects> = {}): ClusterWish => clusterWish(objectsOf(changes), plainServing);
const networksOf = ({ facts }: ClusterWish): string[] =>
  facts.networks.map(({ name, model, choices }) => `${name} ${model} ${choices.carry}`);

test('nodes are hosts with their blocks, and say which ranges pods have and how they carry', () => {
  const wish = wishOf();
  const { hosts, pools, blocks } = wish.facts;
  assert.deepEqual(
    hosts.map(({ name, underlay }) => [name, underlay.map(({ ip, mtu }) => `${ip} ${mtu}`)]),
    [
      ['node1', ['10.20.0.11 0']],
      ['node2', ['10.20.0.12 0']],
    ],
  );
  assert.deepEqual(networksOf(wish), ['pods flannel vxlan']);
  assert.deepEqual(
    pools.map(({ cidr }) => cidr),
    ['10.244.0.0/16'],
  );
  assert.deepEqual(
    blocks.map(({ cidr, host }) => `${cidr} ${host}`),
    ['10.244.1.0/24 node1', '10.244.2.0/24 node2'],
  );
});

test('while a carriage is changed node by node both are needed', () => {
  const annotations = { 'causeway.dev/carry': 'host-gateway', 'causeway.dev/pod-cidrs': '10.244.0.0/16' };
  assert.deepEqual(networksOf(wishOf({ nodes: keyed(nodeOf(1, { annotations }), nodeOf(2)) })), [
    'pods flannel host-gateway',
    'pods flannel vxlan',
  ]);
});

test('what a node still sends by is needed as well, whatever all want', () => {
  for (const [sends, needed] of [
    ['routes,vxlan', ['pods flannel routes', 'pods flannel vxlan']],
    ['vxlan', ['pods flannel vxlan']],
  ] as const) {
    const annotations = { 'causeway.dev/carry': 'vxlan', 'causeway.dev/sends': sends, 'causeway.dev/pod-cidrs': '10.244.0.0/16' };
    assert.deepEqual(networksOf(wishOf({ nodes: keyed(nodeOf(1, { annotations }), nodeOf(2)) })), needed);
  }
});

test('what agents have not told, or those of before cannot tell, is not known; nor are hosts then, so that nothing is taken back', () => {
  for (const annotations of [{}, { 'causeway.dev/carry': 'host-gateway' }, { 'causeway.dev/carry': 'vxlan' }]) {
    const { facts } = wishOf({ nodes: keyed(nodeOf(1, { annotations }), nodeOf(2, { annotations })), services: keyed(serviceOf('web')) });
    assert.deepEqual([facts.hosts, facts.networks], [[], []]);
  }
  const upgrading = wishOf({ nodes: keyed(nodeOf(1, { annotations: { 'causeway.dev/carry': 'vxlan' } }), nodeOf(2)) });
  assert.deepEqual([upgrading.facts.hosts.length, networksOf(upgrading)], [2, ['pods flannel vxlan']]);
});

function calicoWish(
  annotations: Readonly<Record<string, string>>,
  { definitions = new Map<string, unknown>(), cidr = '10.83.0.0/16' } = {},
) {
  const created = { creationTimestamp: '2026-01-01T00:00:00Z' };
  return wishOf({
    nodes: keyed(nodeOf(1, { annotations }), nodeOf(2, { annotations })),
    definitions,
    ipPools: new Map<string, unknown>([
      ['a', { metadata: { name: 'a', ...created }, spec: { cidr } }],
      ['bad', { metadata: { name: 'bad', ...created }, spec: { cidr: 'nonsense' } }],
      ['worse', {}],
    ]),
    blocks: new Map([
      [
        '10-83-0-0-26',
        {
          metadata: { name: '10-83-0-0-26', resourceVersion: '4', ...created },
          spec: { cidr: '10.83.0.0/26', host: 'node1', pool: 'a', loans: [] },
        },
      ],
    ]),
  });
}

test('of calico pools say the ranges, and blocks where packets go', () => {
  const wish = calicoWish({ 'causeway.dev/carry': 'bgp' });
  assert.deepEqual(networksOf(wish), ['pods calico bgp']);
  assert.deepEqual(
    wish.facts.pools.map(({ cidr }) => cidr),
    ['10.83.0.0/16'],
  );
  assert.deepEqual(
    wish.facts.blocks.map(({ cidr, host }) => `${cidr} ${host}`),
    ['10.83.0.0/26 node1'],
  );
  assert.equal(wish.facts.hosts.length, 2);
  const moved = calicoWish({ 'causeway.dev/carry': 'bgp' }, { cidr: '10.84.0.0/16' });
  assert.deepEqual(
    moved.facts.pools.map((pool) => pool.cidr),
    ['10.84.0.0/16', '10.83.0.0/26'],
    'pods have addresses of the blocks all the same',
  );
});

test('calico by BGP that the cloud does not let be is by VXLAN, with the same ranges and blocks', () => {
  const refused = { 'causeway.dev/not-allowed': 'bgp: the login to the cloud may not write allowed address pairs' };
  for (const told of [{ 'causeway.dev/carry': 'bgp' }, { 'causeway.dev/carry': 'vxlan', 'causeway.dev/instead-of': 'bgp' }]) {
    const wish = calicoWish({ ...told, ...refused });
    assert.deepEqual(networksOf(wish), ['pods calico vxlan']);
    assert.equal(wish.facts.networks[0]?.instead?.carry, 'bgp');
    assert.deepEqual([wish.facts.pools.length, wish.facts.blocks.length], [1, 1]);
  }
});

const serverOf = (providerID: string): string | undefined => {
  const { spec, ...node } = nodeOf(1);
  return wishOf({ nodes: keyed({ ...node, spec: { ...Object(spec), providerID } }) }).facts.hosts[0]?.labels[serverLabel];
};

test('the instance that a node is said to be is known of it, and no other provider counts', () => {
  assert.equal(serverOf('openstack:///0a1b'), '0a1b');
  assert.equal(serverOf('openstack://north/0a1b'), '0a1b');
  for (const other of ['aws:///zone/i-1', 'openstack:///', 'openstack:0a1b', '']) assert.equal(serverOf(other), undefined);
});

const configOf = (subnet: string): string => JSON.stringify({ cniVersion: '0.3.1', type: 'causeway', subnets: [subnet] });
const definition = (config: string): object => ({ metadata: { creationTimestamp: '2026-01-01T00:00:00Z' }, spec: { config } });

test('networks that the cluster defines are carried as that of all pods', () => {
  const config = configOf('10.60.0.0/16');
  const definitions = new Map<string, unknown>([
    ['shop/db', definition(config)],
    ['shop/late', { ...definition(config), metadata: { creationTimestamp: '2026-02-01T00:00:00Z' } }],
    ['shop/odd', definition('{')],
  ]);
  const wish = wishOf({ definitions });
  assert.deepEqual(networksOf(wish), ['pods flannel vxlan', 'shop/db flannel vxlan']);
  const blocks = wish.facts.blocks.map(({ cidr, host }) => `${cidr} ${host}`);
  assert.deepEqual(blocks, ['10.244.1.0/24 node1', '10.244.2.0/24 node2', '10.60.1.0/24 node1', '10.60.2.0/24 node2']);
});

test('beside pods of calico they are by VXLAN; one in the range of a pool is none', () => {
  const definitions = new Map<string, unknown>([
    ['shop/db', definition(configOf('10.60.0.0/16'))],
    ['shop/pods', definition(configOf('10.83.1.0/24'))],
  ]);
  const wish = calicoWish({ 'causeway.dev/carry': 'bgp' }, { definitions });
  assert.deepEqual(networksOf(wish), ['pods calico bgp', 'shop/db overlay vxlan']);
  assert.deepEqual(
    wish.facts.pools.map(({ cidr }) => cidr),
    ['10.83.0.0/16', '10.60.0.0/16'],
  );
  assert.deepEqual(networksOf(calicoWish({ 'causeway.dev/carry': 'wireguard' }, { definitions }))[1], 'shop/db overlay wireguard');
});

test('load balancers lead to nodes that take part and are ready; by the policy Local to those with a pod that is ready', () => {
  const out = nodeOf(3, { labels: { 'node.kubernetes.io/exclude-from-external-load-balancers': '' } });
  const nodes = keyed(nodeOf(1), nodeOf(2), out, nodeOf(4, { ready: 'False' }));
  const hostsOf = (spec: object, slices = new Map<string, unknown>()) =>
    wishOf({ nodes, slices, services: keyed(serviceOf('web', spec)) }).facts.services.map(({ hosts }) => hosts);
  assert.deepEqual(hostsOf({}), [['node1', 'node2']]);
  const local = { externalTrafficPolicy: 'Local' };
  assert.deepEqual(hostsOf(local), [[]]);
  assert.deepEqual(hostsOf(local, keyed(sliceOf('web', { node1: false, node2: true, node3: true }))), [['node2']]);
  const none = keyed(nodeOf(1, { ready: 'Unknown' }), nodeOf(2, { ready: 'Unknown' }));
  assert.deepEqual(
    wishOf({ nodes: none, services: keyed(serviceOf('web')) }).facts.services.map(({ hosts }) => hosts),
    [['node1', 'node2']],
  );
});

test('load balancers lead to nodes alone that have the labels which the service names', () => {
  const nodes = keyed(nodeOf(1, { labels: { disk: 'ssd', gpu: '' } }), nodeOf(2, { labels: { disk: 'hdd' } }), nodeOf(3));
  const wishWith = (selector: string, spec = {}) =>
    wishOf({
      nodes,
      services: keyed(serviceOf('web', spec, { 'node-selector': selector })),
      slices: keyed(sliceOf('web', { node2: true })),
    });
  const hostsOf = (selector: string, spec = {}) => wishWith(selector, spec).facts.services[0]?.hosts;
  assert.deepEqual(hostsOf('disk=ssd'), ['node1']);
  assert.deepEqual(hostsOf('disk'), ['node1', 'node2']);
  assert.deepEqual(hostsOf('disk=ssd, gpu'), ['node1']);
  assert.deepEqual(hostsOf('gpu=1'), []);
  assert.match(wishWith('gpu=1').asked[0]?.notes.join() ?? '', /node-selector: no node that takes part has these labels/);
  assert.deepEqual(wishWith('gpu').asked[0]?.notes, []);
  assert.deepEqual(hostsOf('disk', { externalTrafficPolicy: 'Local' }), ['node2']);
  assert.equal(hostsOf('disk=ssd=hdd'), undefined);
});

test('what cannot be is a sentence, and keeps nothing else from being', () => {
  const services = keyed(serviceOf('bad', {}, { 'proxy-protocol': 'v3' }), serviceOf('good'));
  const { facts, asked } = wishOf({ services: new Map([...services, ['shop/odd', { spec: 7 }]]) });
  assert.deepEqual(
    facts.services.map(({ service }) => service),
    ['shop/good'],
  );
  assert.match(refusals(asked).join(), /^Service shop\/bad has no load balancer: loadbalancer\.openstack\.org\/proxy-protocol: /);
});

const peer = (name: string, spec: object): Item => ({ metadata: { name, creationTimestamp: '2026-01-01T00:00:00Z' }, spec });

test('routers that nodes speak BGP with are known; what is not one, or cannot be read, is passed over', () => {
  const secret = { secretKeyRef: { name: 'bgp', key: 'fabric' } };
  const { facts } = wishOf({
    bgpPeers: keyed(
      peer('fabric', { peerIP: '10.20.0.60', asNumber: 64_600, password: secret }),
      peer('mesh', { peerSelector: 'has(reflector)' }),
      peer('wrong', { peerIP: 'nowhere', asNumber: 1 }),
    ),
  });
  assert.deepEqual(facts.routers, [{ name: 'fabric', ip: '10.20.0.60', port: 179 }]);
});

const poolItem = (spec: object): object => ({ metadata: { creationTimestamp: '2026-01-01T00:00:00Z' }, spec });
test('an IPPool whose selectors cannot be read is let pass all the same, one whose range cannot be is not known', () => {
  assert.equal(ipPoolIn('a', poolItem({ cidr: '10.83.0.0/16', nodeSelector: 'has(a' }))?.cidr, '10.83.0.0/16');
  assert.equal(ipPoolIn('a', poolItem({ cidr: '10.83.0.0/33' })), undefined);
});
