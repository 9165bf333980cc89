import assert from 'node:assert/strict';
import { test } from 'node:test';
import { plainServing, serviceOf } from './cloud-objects.fixture.ts';
import { type AskedBalancer, readAsk } from './openstack-service.ts';

const asked = (item: unknown, isDefault = false): AskedBalancer | undefined => readAsk(item, { ...plainServing, isDefault }).balancer;
const usual = {
  id: '000011112222web',
  service: 'shop/web',
  ports: [{ protocol: 'tcp', port: 80, nodePort: 30080 }],
  sources: [],
  floating: { wanted: 'auto', isKept: false },
  place: {},
  monitor: {},
};

test('a service of the class asks for a load balancer; of another class, or none, it is for somebody else', () => {
  assert.deepEqual(asked(serviceOf('web')), { key: 'shop/web', isLocal: false, balancer: usual, notes: [] });
  assert.equal(asked(serviceOf('web', { loadBalancerClass: 'causeway.dev/address-pool' })), undefined);
  assert.equal(asked(serviceOf('web', { loadBalancerClass: undefined })), undefined);
  assert.deepEqual(asked(serviceOf('web', { loadBalancerClass: undefined }), true)?.balancer, usual);
  assert.equal(asked(serviceOf('web', { loadBalancerClass: 'example.org/x' }), true), undefined);
  assert.equal(asked(serviceOf('web', { type: 'ClusterIP' })), undefined);
  assert.equal(asked({ kind: 'Service' }), undefined);
});

const followed: readonly (readonly [string, object, Readonly<Record<string, string>>, object])[] = [
  [
    'an internal one',
    { loadBalancerIP: '10.20.0.99' },
    { 'service.beta.kubernetes.io/openstack-internal-load-balancer': 'true', 'floating-network-id': 'ext' },
    { floating: undefined, place: { address: '10.20.0.99' } },
  ],
  ['a floating IP of the project', { loadBalancerIP: '203.0.113.7' }, {}, { floating: { wanted: '203.0.113.7', isKept: false } }],
  [
    'an external network, and a floating IP that stays',
    {},
    { 'floating-network-id': 'ext', 'keep-floatingip': 'true' },
    { floating: { wanted: 'ext', isKept: true } },
  ],
  ['IPv6 alone', { clusterIPs: ['fd96::7'] }, {}, { family: 6, floating: undefined }],
  [
    'an address of IPv6',
    { clusterIPs: ['fd96::7'], loadBalancerIP: 'fd00::9' },
    {},
    { family: 6, floating: undefined, place: { address: 'fd00::9' } },
  ],
  ['a subnet', {}, { 'subnet-id': 's', 'network-id': 'n' }, { place: { subnet: 's', network: 'n' } }],
  ['a port', {}, { 'port-id': 'p' }, { place: { port: 'p' } }],
  ["members by another subnet's addresses", {}, { 'member-subnet-id': 'm' }, { memberSubnet: 'm' }],
  ['a load balancer that is there', {}, { 'load-balancer-id': 'b' }, { shared: 'b' }],
  ['no probes', {}, { 'enable-health-monitor': 'false' }, { monitor: undefined }],
  [
    'probes of its own',
    {},
    {
      'enable-health-monitor': 'true',
      'health-monitor-delay': '5s',
      'health-monitor-timeout': '3',
      'health-monitor-max-retries': '4',
      'health-monitor-max-retries-down': '2',
    },
    { monitor: { delay: 5, timeout: 3, retries: 4, retriesDown: 2 } },
  ],
  [
    'source ranges',
    { loadBalancerSourceRanges: ['192.0.2.0/24', ' 198.51.100.0/24 '] },
    {},
    { sources: ['192.0.2.0/24', '198.51.100.0/24'] },
  ],
  ['who the client is, before its words', {}, { 'proxy-protocol': 'true' }, { proxy: { header: 'PROXY' } }],
  ['the same, in the second version', {}, { 'proxy-protocol': 'v2' }, { proxy: { header: 'PROXYV2' } }],
  [
    'that hosts tell by HTTP whether they have a pod',
    { externalTrafficPolicy: 'Local', healthCheckNodePort: 31000 },
    {},
    { proxy: { healthPort: 31000 } },
  ],
  [
    'that it ends TLS, by a certificate of Barbican’s',
    {},
    { 'default-tls-container-ref': 'https://keys:9311/v1/containers/3f1c-7' },
    { proxy: { certificate: 'https://keys:9311/v1/containers/3f1c-7' } },
  ],
  ['that it ends TLS, by one that is kept elsewhere', {}, { 'default-tls-container-ref': '3f1c-7' }, { proxy: { certificate: '3f1c-7' } }],
  ['a method that every provider has', {}, { 'lb-method': 'SOURCE_IP_PORT' }, {}],
  [
    'no limit',
    {},
    { 'connection-limit': '-1' },
    { notPassed: ['loadbalancer.openstack.org/connection-limit is not followed by provider ovn'] },
  ],
  ['annotations that say nothing', {}, { 'subnet-id': ' ', 'proxy-protocol': 'false' }, {}],
];
for (const [what, spec, annotations, changes] of followed) {
  test(`is followed: ${what}`, () => {
    const found = asked(serviceOf('web', spec, annotations));
    const expected = Object.fromEntries(Object.entries({ ...usual, ...changes }).filter(([, value]) => value !== undefined));
    assert.deepEqual([found?.balancer, found?.notes], [expected, []]);
  });
}

const refused: readonly (readonly [object, Readonly<Record<string, string>>, RegExp])[] = [
  [{}, { 'proxy-protocol': 'v3' }, /openstack\.org\/proxy-protocol: "v3" is none of true, v1, v2 and false/],
  [{}, { 'proxy-protocol': 'v2', 'x-forwarded-for': 'true' }, /x-forwarded-for: not together with proxy-protocol/],
  [{}, { 'lb-method': 'RANDOM' }, /lb-method: "RANDOM" is none of ROUND_ROBIN, LEAST_CONNECTIONS, SOURCE_IP and SOURCE_IP_PORT/],
  [{}, { 'timeout-member-data': '5s' }, /timeout-member-data: "5s" is no number from 0 to 31536000000/],
  [{}, { 'connection-limit': '-2' }, /connection-limit: "-2" is no number from -1 to/],
  [{}, { hostname: 'not a name' }, /hostname: "not a name" is no name of a host/],
  [{}, { 'default-tls-container-ref': 'https://keys/1' }, /default-tls-container-ref: "https:\/\/keys\/1" is no certificate's reference/],
  [{}, { 'keep-floatingip': 'yes' }, /keep-floatingip: "yes" is neither true nor false/],
  [{}, { 'health-monitor-delay': '0' }, /health-monitor-delay: "0" is no number from 1 to 3600/],
  [{}, { 'health-monitor-max-retries': '11' }, /health-monitor-max-retries: "11" is no number from 1 to 10/],
  [{}, { 'health-monitor-delay': '2', 'health-monitor-timeout': '3' }, /health-monitor-timeout: 3 is more than the delay, 2/],
  [{}, { class: 'dmz' }, /openstack\.org\/class: there is no class "dmz"/],
  [{ loadBalancerIP: 'nowhere' }, {}, /spec\.loadBalancerIP: "nowhere" is no address/],
  [{ loadBalancerSourceRanges: ['192.0.2.0/24', 'all'] }, {}, /spec\.loadBalancerSourceRanges: "all" is no prefix/],
  [{ ports: [{ protocol: 'TCP', port: 80 }] }, {}, /Port 80 has no node port to lead to: allocateLoadBalancerNodePorts/],
  [
    { clusterIPs: ['fd96::7'], loadBalancerIP: '203.0.113.7' },
    {},
    /spec\.loadBalancerIP: 203\.0\.113\.7 is not of IPv6, as the service is/,
  ],
  [{ loadBalancerIP: 'fd00::9' }, {}, /spec\.loadBalancerIP: fd00::9 is not of IPv4/],
];
for (const [spec, annotations, words] of refused) {
  test(`is refused with its name: ${JSON.stringify({ ...spec, ...annotations })}`, () => {
    const found = asked(serviceOf('web', spec, annotations));
    assert.equal(found?.balancer, undefined);
    assert.match(found?.notes.join() ?? '', words);
  });
}

test('what is passed over is told, and the load balancer made all the same', () => {
  const annotations = {
    'timeout-client-data': '50000',
    'enable-health-monitor': 'true',
  };
  const spec = { sessionAffinity: 'ClientIP', loadBalancerSourceRanges: ['192.0.2.0/24'], clusterIPs: ['10.96.0.7', 'fd00::7'] };
  const found = asked(serviceOf('web', spec, annotations));
  assert.equal(found?.balancer?.service, 'shop/web');
  assert.deepEqual(found?.notes, ['It is reached by IPv4 only']);
  assert.deepEqual(found?.balancer?.notPassed, [
    'loadbalancer.openstack.org/timeout-client-data is not followed by provider ovn',
    'loadbalancer.openstack.org/enable-health-monitor: hosts let in the source ranges only, not probes',
    'sessionAffinity holds on each node for itself',
  ]);
  assert.deepEqual(found?.balancer?.proxy, { isSticky: true, timeouts: { clientData: 50_000 } });
});

const floatingOf = (annotations: Readonly<Record<string, string>>) => asked(serviceOf('web', {}, annotations))?.balancer?.floating;

test('of which subnet a floating IP is to be is said by id, name or tags, and in no other way', () => {
  const auto = { wanted: 'auto', isKept: false };
  assert.deepEqual(floatingOf({ 'floating-subnet': 'blue' }), { ...auto, subnet: { named: 'blue' } });
  assert.deepEqual(floatingOf({ 'floating-subnet': 'blue', 'floating-subnet-id': 'x' }), { ...auto, subnet: { named: 'x' } });
  assert.deepEqual(floatingOf({ 'floating-subnet-tags': 'a, b' }), { ...auto, subnet: { tagged: ['a', 'b'] } });
  assert.deepEqual(floatingOf({}), auto);
  for (const pattern of ['~^a', 'a*', '!a'])
    assert.match(asked(serviceOf('web', {}, { 'floating-subnet': pattern }))?.notes.join() ?? '', /floating-subnet: ".*" is a pattern/);
});

test('what only some load balancers do is told apart from what all do', () => {
  const annotations = {
    'x-forwarded-for': 'true',
    'lb-method': 'LEAST_CONNECTIONS',
    'connection-limit': '100',
    'timeout-client-data': '1',
    'timeout-member-connect': '2',
    'timeout-member-data': '3',
    'timeout-tcp-inspect': '0',
    'flavor-id': 'f',
    'availability-zone': 'z',
  };
  const found = asked(serviceOf('web', {}, annotations))?.balancer;
  assert.deepEqual(found?.proxy, {
    isForwardedFor: true,
    algorithm: 'LEAST_CONNECTIONS',
    connectionLimit: 100,
    timeouts: { clientData: 1, memberConnect: 2, memberData: 3, tcpInspect: 0 },
    flavor: 'f',
    zone: 'z',
  });
  assert.equal(found?.notPassed?.length, 9);
});

test('by which name clients are to know it is told, and whether pods have to go by it as well', () => {
  const { hostname, isByProxy } = asked(serviceOf('web', {}, { hostname: 'web.example.org', 'proxy-protocol': 'true' })) ?? {};
  assert.deepEqual([hostname, isByProxy], ['web.example.org', true]);
});

test('that no floating IP leads to IPv6 is told to who asks for one', () => {
  const found = asked(serviceOf('web', { clusterIPs: ['fd96::7'] }, { 'keep-floatingip': 'true' }));
  assert.deepEqual(found?.notes, ['loadbalancer.openstack.org/keep-floatingip is not followed: no floating IP leads to IPv6']);
});

test('what a load balancer has from when it is made is not followed on one that is there', () => {
  const annotations = { 'load-balancer-id': 'b', 'flavor-id': 'f', 'floating-network-id': 'ext' };
  const found = asked(serviceOf('web', { clusterIPs: ['fd96::7'], loadBalancerIP: 'fd00::9' }, annotations));
  assert.deepEqual(found?.notes, [
    'loadbalancer.openstack.org/flavor-id is not followed: it is on a load balancer that is there',
    'loadbalancer.openstack.org/floating-network-id is not followed: it is on a load balancer that is there',
    'spec.loadBalancerIP is not followed: it is on a load balancer that is there',
  ]);
});

test('node ports are let in for the ranges that are named, and for nobody else', () => {
  const ports = [
    { protocol: 'TCP', port: 80, nodePort: 30080 },
    { protocol: 'UDP', port: 53, nodePort: 30053 },
  ];
  const opened = (annotations: Readonly<Record<string, string>>) =>
    readAsk(serviceOf('web', { type: 'NodePort', ports }, annotations), plainServing).nodePorts.map(({ protocol, port, sources }) =>
      [protocol, port, ...sources].join(' '),
    );
  assert.deepEqual(opened({}), []);
  assert.deepEqual(opened({ 'causeway.dev/node-port-sources': 'everybody' }), []);
  assert.deepEqual(opened({ 'causeway.dev/node-port-sources': '192.0.2.0/24, 2001:db8::/32' }), [
    'tcp 30080 192.0.2.0/24 2001:db8::/32',
    'udp 30053 192.0.2.0/24 2001:db8::/32',
  ]);
});
