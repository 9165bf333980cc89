import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Exposure } from '#model/resources.ts';
import { makeEndpoint, makeNetwork } from './cluster.fixture.ts';
import { publish } from './publish.ts';

const network = makeNetwork('over');
const endpoint = { ...makeEndpoint('over', 'host-1', 1, [parseIp('10.0.0.1')]), names: ['front'] };
const exposure = (changes: Partial<Exposure>): Exposure => ({
  id: 'a',
  name: 'web',
  revision: 1,
  createdAt: '',
  labels: {},
  network: network.id,
  endpoint: 'front',
  protocol: 'tcp',
  port: 80,
  hostPort: 8080,
  sources: [],
  ...changes,
});
const restricted = (changes: Partial<Exposure>): string[] =>
  publish([{ network, endpoint, slot: 1 }], [exposure(changes)])
    .filter(({ set }) => set.startsWith('sources') || set === 'restricted')
    .map(({ set, key }) => `${set} ${key}`)
    .toSorted();

test('hosts let in the sources, or the load balancer that speaks to them instead of the clients', () => {
  const sources = [parseCidr('192.0.2.0/24')];
  const balancerRanges = [parseCidr('10.20.0.0/24')];
  assert.deepEqual(restricted({}), []);
  assert.deepEqual(restricted({ sources }), ['restricted tcp . 8080', 'sources4 tcp . 8080 . 192.0.2.0/24']);
  const byBalancer = ['restricted tcp . 8080', 'sources4 tcp . 8080 . 10.20.0.0/24'];
  assert.deepEqual(restricted({ sources, balancerRanges }), byBalancer);
  assert.deepEqual(restricted({ balancerRanges }), byBalancer, 'also where everybody may come to the load balancer');
});

test('of sources that lie in each other the widest alone is told, as the kernel takes no others', () => {
  const sources = ['10.1.0.0/16', '10.0.0.0/8', '192.0.2.1/32', '10.0.0.0/8', 'fd00::/8', 'fd00:1::/32'].map((text) => parseCidr(text));
  assert.deepEqual(restricted({ sources }), [
    'restricted tcp . 8080',
    'sources4 tcp . 8080 . 10.0.0.0/8',
    'sources4 tcp . 8080 . 192.0.2.1/32',
    'sources6 tcp . 8080 . fd00::/8',
  ]);
  const twice = publish(
    [{ network, endpoint, slot: 1 }],
    [exposure({ sources: sources.slice(0, 1) }), exposure({ id: 'b', sources: sources.slice(1, 2) })],
  );
  assert.deepEqual(
    twice.flatMap(({ set, key }) => (set === 'sources4' ? [key] : [])),
    ['tcp . 8080 . 10.0.0.0/8'],
    'also of two exposures of one port',
  );
});

const from = (text: string): Partial<Exposure> => ({ sources: [parseCidr(text)] });

test('who may come to a port of one address is said for that address, whatever is said of the same port of others', () => {
  const [first, second, third] = ['10.213.0.1', '10.213.0.2', 'fd00:213::1'].map((ip) => parseIp(ip));
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  const told = publish(
    [{ network, endpoint, slot: 1 }],
    [
      exposure({ id: 'a', hostIp: first, ...from('192.0.2.0/24') }),
      exposure({ id: 'b', hostIp: second }),
      exposure({ id: 'c', hostIp: third, ...from('192.0.2.0/24') }),
    ],
  );
  const keys = (elements: typeof told): string[] =>
    elements.flatMap(({ set, key }) => (set.startsWith('published') ? [] : [`${set} ${key}`]));
  const ofAddresses = [
    'restricted4 10.213.0.1 . tcp . 8080',
    'clients4 10.213.0.1 . tcp . 8080 . 192.0.2.0/24',
    'restricted6 fd00:213::1 . tcp . 8080',
  ];
  assert.deepEqual(keys(told), ofAddresses);
  const beside = publish(
    [{ network, endpoint, slot: 1 }],
    [exposure({ id: 'b', hostIp: second }), exposure({ id: 'd', ...from('198.51.100.0/24') })],
  );
  assert.deepEqual(keys(beside), [
    'restricted tcp . 8080',
    'sources4 tcp . 8080 . 198.51.100.0/24',
    'restricted4 10.213.0.2 . tcp . 8080',
    'clients4 10.213.0.2 . tcp . 8080 . 0.0.0.0/0',
  ]);
});
