// Which endpoints are used, as kube-proxy would: one row per rule.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIp } from '#model/ip.ts';
import type { Service } from '#model/resources.ts';
import { joinService, localEndpoints } from './backends.ts';
import { type EndpointFacts, readService, readSlice, type SliceFacts } from './services.ts';

const place = { node: 'one', zone: 'a' };
const spec = {
  type: 'LoadBalancer',
  clusterIP: '10.96.0.5',
  externalIPs: ['203.0.113.1'],
  ports: [{ name: 'page', protocol: 'TCP', port: 80, nodePort: 30080 }],
};
const service = (more: object = {}, ingress: readonly object[] = []): object => ({
  metadata: { namespace: 'shop', name: 'web' },
  spec: { ...spec, ...more },
  status: { loadBalancer: { ingress } },
});
/** Ready by default; its last number tells it apart. */
const endpoint = (last: number, node: string, more: Partial<EndpointFacts> = {}): EndpointFacts => ({
  ip: parseIp(`10.244.0.${last}`),
  isReady: true,
  isServing: true,
  isTerminating: false,
  node,
  ...more,
});
const ending = { isReady: false, isServing: true, isTerminating: true };
const ended = { isReady: false, isServing: false, isTerminating: true };
const sliceOf = (endpoints: readonly EndpointFacts[]): SliceFacts => ({
  service: 'shop/web',
  endpoints,
  ports: [{ name: 'page', protocol: 'tcp', port: 8080 }],
});
const joined = (item: object, endpoints: readonly EndpointFacts[], where: { node: string; zone?: string } = place): Service[] => {
  const facts = readService(item);
  assert.ok(facts);
  return joinService(facts, [sliceOf(endpoints)], where);
};
const lasts = (backends: Service['backends'] | undefined): string | undefined => backends?.map(({ ip }) => ip.split('.').at(-1)).join(' ');
/** Of each address: whom clients here are led to, and others where that differs; `-` is a drop. */
const led = (services: readonly Service[]): Record<string, string> =>
  Object.fromEntries(
    services.map(({ ip, port, backends, outer, servedElsewhere }) => {
      const inside = servedElsewhere === true ? '-' : lasts(backends);
      return [`${ip}:${port}`, outer === undefined ? inside : `${inside} / ${lasts(outer) || '-'}`] as [string, string];
    }),
  );

const everywhere = [endpoint(1, 'one'), endpoint(2, 'two'), endpoint(3, 'three')];
const zones = (...names: string[]): Pick<EndpointFacts, 'forZones'> => ({ forZones: names });
const nodes = (...names: string[]): Pick<EndpointFacts, 'forNodes'> => ({ forNodes: names });

const rows: readonly (readonly [string, object, readonly EndpointFacts[], Record<string, string>])[] = [
  [
    'every address leads to all that are ready',
    {},
    [...everywhere, endpoint(4, 'one', { isReady: false, isServing: false })],
    { '10.96.0.5:80': '1 2 3', '203.0.113.1:80': '1 2 3', '0.0.0.0:30080': '1 2 3' },
  ],
  [
    'from outside only what is here, with externalTrafficPolicy Local',
    { externalTrafficPolicy: 'Local' },
    everywhere,
    { '10.96.0.5:80': '1 2 3', '203.0.113.1:80': '1 2 3 / 1', '0.0.0.0:30080': '1 2 3 / 1' },
  ],
  [
    'which is dropped where there is none',
    { externalTrafficPolicy: 'Local' },
    [endpoint(2, 'two')],
    { '10.96.0.5:80': '2', '203.0.113.1:80': '2 / -', '0.0.0.0:30080': '2 / -' },
  ],
  [
    'from inside only what is here, with internalTrafficPolicy Local',
    { internalTrafficPolicy: 'Local' },
    everywhere,
    { '10.96.0.5:80': '1', '203.0.113.1:80': '1 2 3', '0.0.0.0:30080': '1 2 3' },
  ],
  [
    'which is dropped where there is none, while there is one elsewhere',
    { internalTrafficPolicy: 'Local' },
    [endpoint(2, 'two')],
    { '10.96.0.5:80': '-', '203.0.113.1:80': '2', '0.0.0.0:30080': '2' },
  ],
  [
    'and refused where nobody serves at all',
    { internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local' },
    [],
    { '10.96.0.5:80': '', '203.0.113.1:80': ' / -', '0.0.0.0:30080': ' / -' },
  ],
  [
    'those that are ending are used when no other is left, if they still answer',
    {},
    [endpoint(1, 'one', ending), endpoint(2, 'two', ended)],
    { '10.96.0.5:80': '1', '203.0.113.1:80': '1', '0.0.0.0:30080': '1' },
  ],
  [
    'not while another is ready',
    {},
    [endpoint(1, 'one', ending), endpoint(2, 'two')],
    { '10.96.0.5:80': '2', '203.0.113.1:80': '2', '0.0.0.0:30080': '2' },
  ],
  [
    'but from outside also then, when it is the only one here',
    { externalTrafficPolicy: 'Local' },
    [endpoint(1, 'one', ending), endpoint(2, 'two')],
    { '10.96.0.5:80': '2', '203.0.113.1:80': '2 / 1', '0.0.0.0:30080': '2 / 1' },
  ],
  [
    'of hints those for this zone',
    {},
    [endpoint(1, 'one', zones('b')), endpoint(2, 'two', zones('a')), endpoint(3, 'three', zones('a', 'b'))],
    { '10.96.0.5:80': '2 3', '203.0.113.1:80': '2 3', '0.0.0.0:30080': '2 3' },
  ],
  [
    'all when one has no hint',
    {},
    [endpoint(1, 'one'), endpoint(2, 'two', zones('a'))],
    { '10.96.0.5:80': '1 2', '203.0.113.1:80': '1 2', '0.0.0.0:30080': '1 2' },
  ],
  [
    'all when none is for this zone',
    {},
    [endpoint(1, 'one', zones('b')), endpoint(2, 'two', zones('c'))],
    { '10.96.0.5:80': '1 2', '203.0.113.1:80': '1 2', '0.0.0.0:30080': '1 2' },
  ],
  [
    'of those for nodes the one for this node, before zones',
    {},
    [endpoint(1, 'one', { ...zones('a'), ...nodes('one') }), endpoint(2, 'two', { ...zones('a'), ...nodes('two') })],
    { '10.96.0.5:80': '1', '203.0.113.1:80': '1', '0.0.0.0:30080': '1' },
  ],
  [
    'and those for zones where none is for this node',
    {},
    [endpoint(2, 'two', { ...zones('a'), ...nodes('two') }), endpoint(3, 'three', { ...zones('b'), ...nodes('three') })],
    { '10.96.0.5:80': '2', '203.0.113.1:80': '2', '0.0.0.0:30080': '2' },
  ],
  [
    'no node port where none was given',
    { ports: [{ ...spec.ports[0], nodePort: 0 }] },
    everywhere,
    { '10.96.0.5:80': '1 2 3', '203.0.113.1:80': '1 2 3' },
  ],
  [
    'addresses that cannot be somebody are passed over',
    {
      externalIPs: ['0.0.0.0', '127.0.0.1', '169.254.1.1', '224.0.0.1', '255.255.255.255', 'nonsense', '::', '::1', 'fe80::1', 'ff02::1'],
      ports: [{ name: 'page', port: 80 }],
    },
    everywhere,
    { '10.96.0.5:80': '1 2 3' },
  ],
];
for (const [what, more, endpoints, expected] of rows) {
  test(what, () => assert.deepEqual(led(joined(service(more), endpoints)), expected));
}

test("other ports are refused at the cluster's own address of a service, and at no other", () => {
  assert.deepEqual(
    joined(service(), everywhere).map(({ ip, refusesOthers }) => [ip, refusesOthers]),
    [
      ['10.96.0.5', true],
      ['203.0.113.1', undefined],
      ['0.0.0.0', undefined],
    ],
  );
});

test('a node that knows no zone uses all', () => {
  const hinted = [endpoint(1, 'one', zones('b')), endpoint(2, 'two', zones('a'))];
  assert.equal(led(joined(service(), hinted, { node: 'one' }))['10.96.0.5:80'], '1 2');
});

test("a load balancer's address is served where it is left to the hosts, for its source ranges", () => {
  const ingress = [
    { ip: '198.51.100.7' },
    { ip: '198.51.100.8', ipMode: 'Proxy' },
    { ip: '198.51.100.9', ipMode: 'VIP' },
    { hostname: 'lb' },
  ];
  const sources = ['10.0.0.0/8 ', 'nonsense'];
  const services = joined(service({ loadBalancerSourceRanges: sources }, ingress), everywhere);
  const balanced = services.filter(({ ip }) => ip.startsWith('198'));
  assert.deepEqual(
    balanced.map(({ ip, sources: of }) => [ip, of]),
    [
      ['198.51.100.7', ['10.0.0.0/8']],
      ['198.51.100.9', ['10.0.0.0/8']],
    ],
  );
  assert.ok(services.every(({ ip, sources: of }) => ip.startsWith('198') || of === undefined));
  assert.equal(joined(service({ type: 'NodePort' }, ingress), everywhere).length, 3);
});

const affinities: readonly (readonly [string, object, number | undefined])[] = [
  ['none', { sessionAffinity: 'None' }, undefined],
  ['three hours unless it is said', { sessionAffinity: 'ClientIP' }, 10_800],
  ['what is said', { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 5 } } }, 5],
  ['no longer than a day', { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 1e12 } } }, 86_400],
  ['no shorter than a second', { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: -1 } } }, 1],
];
for (const [what, more, seconds] of affinities) {
  test(`affinity: ${what}`, () =>
    assert.deepEqual(new Set(joined(service(more), []).map(({ affinitySeconds }) => affinitySeconds)), new Set([seconds])));
}

test('an endpoint in two slices counts once, as ready if either says so', () => {
  const facts = readService(service());
  assert.ok(facts);
  const [first] = joinService(facts, [sliceOf([endpoint(1, 'one', { isReady: false })]), sliceOf([endpoint(1, 'one')])], place);
  assert.equal(lasts(first?.backends), '1');
});

const read = (one: object): EndpointFacts | undefined =>
  readSlice({
    metadata: { namespace: 'shop', name: 'x', labels: { 'kubernetes.io/service-name': 'web' } },
    addressType: 'IPv4',
    endpoints: [{ addresses: ['10.244.0.1'], ...one }],
  })?.endpoints[0];

test('of several entries of an endpoint the readiest counts, then the one that says it is here, whatever slice came first', () => {
  const facts = readService(service({ externalTrafficPolicy: 'Local' }));
  assert.ok(facts);
  // As in a slice that was written by hand.
  const { node, ...nowhere } = endpoint(1, 'one');
  assert.equal(node, 'one');
  const pairs: readonly (readonly [EndpointFacts, EndpointFacts, string])[] = [
    [endpoint(1, 'one'), nowhere, '1 / 1'],
    [endpoint(1, 'one', ending), endpoint(1, 'one', { isReady: false, isServing: false }), '1 / 1'],
    [endpoint(1, 'one', ended), endpoint(1, 'two'), '1 / -'],
  ];
  for (const [a, b, expected] of pairs)
    for (const order of [
      [a, b],
      [b, a],
    ]) {
      const given = led(
        joinService(
          facts,
          order.map((one) => sliceOf([one])),
          place,
        ),
      );
      assert.equal(given['0.0.0.0:30080'], expected);
    }
});

test('slices of both versions say where an endpoint is, and for whom', () => {
  const known = { ip: '10.244.0.1', isReady: true, isServing: true, isTerminating: false, node: 'one' };
  assert.deepEqual(read({ nodeName: 'one', zone: 'a', hints: { forZones: [{ name: 'a' }], forNodes: [{ name: 'one' }] } }), {
    ...known,
    forZones: ['a'],
    forNodes: ['one'],
  });
  assert.deepEqual(read({ topology: { 'kubernetes.io/hostname': 'one', 'topology.kubernetes.io/zone': 'a' } }), known);
  assert.deepEqual(read({ nodeName: 'one', conditions: { ready: false, serving: true, terminating: true } }), { ...known, ...ending });
  assert.deepEqual(read({ nodeName: 'one', conditions: { ready: false } }), { ...known, isReady: false, isServing: false });
});

const health = (more: object): number | undefined => readService(service(more))?.healthPort;

test('what a health-check port counts is what is ready here', () => {
  const slices = [sliceOf([endpoint(1, 'one'), endpoint(2, 'two'), endpoint(3, 'one', ending)]), sliceOf([endpoint(1, 'one')])];
  assert.equal(localEndpoints(slices, place), 1);
  assert.deepEqual(
    [
      { externalTrafficPolicy: 'Local', healthCheckNodePort: 31000 },
      { healthCheckNodePort: 31000 },
      { type: 'NodePort', externalTrafficPolicy: 'Local', healthCheckNodePort: 31000 },
    ].map(health),
    [31000, undefined, undefined],
  );
});

test('of a million endpoints so many are used as rules are good for, and those of this node are among what is chosen from', () => {
  const elsewhere = Array.from({ length: 1000 }, (_, number) =>
    sliceOf(
      Array.from({ length: 1000 }, (__, index) => ({
        ...endpoint(1, 'two', { isReady: number > 100 }),
        ip: parseIp(`10.${number >> 4}.${((number & 15) << 4) + (index >> 6)}.${index & 63}`),
      })),
    ),
  );
  const facts = readService(service({ externalTrafficPolicy: 'Local', ports: [{ name: 'page', port: 80 }] }));
  assert.ok(facts);
  const services = joinService(facts, [...elsewhere, sliceOf([endpoint(9, 'one'), endpoint(8, 'one')])], place);
  assert.deepEqual(
    services.map(({ backends, outer }) => [backends.length, lasts(outer)]),
    [
      [5000, undefined],
      [5000, '8 9'],
    ],
  );
});
