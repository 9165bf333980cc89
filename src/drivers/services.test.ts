import assert from 'node:assert/strict';
import { test } from 'node:test';
import { singly } from '#model/desired.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Backend, Service } from '#model/resources.ts';
import { hostTable } from './guard.ts';
import { serviceRules } from './service-rules.ts';
import { everyAddress, planServices } from './services.ts';

const backend = (ip: string, port = 8080): Backend => ({ ip: parseIp(ip), port });
const service = (key: string, ip: string, backends: readonly Backend[]): Service => ({
  key,
  ip: parseIp(ip),
  protocol: 'tcp',
  port: 80,
  backends,
});
const own = [parseIp('10.0.0.1'), parseIp('10.0.1.1'), parseIp('fd00::1')];
const lines = (services: readonly Service[]): string[] =>
  planServices(services, { own, local: [parseIp('10.244.1.2')] })
    .flatMap(singly)
    .filter(({ set }) => !set.startsWith('hosts') && !set.startsWith('fronts') && !set.startsWith('loops'))
    .map(({ set, key, value }) => `${set}: ${key}${value === undefined ? '' : ` = ${value}`}`);

test('a service is an element for itself and one for each backend', () => {
  const web = service('web', '10.96.0.5', [backend('10.244.2.3'), backend('10.244.1.2'), backend('10.244.1.2')]);
  assert.deepEqual(lines([web, service('none', 'fd96::1', [])]), [
    'unserved6: fd96::1 . tcp . 80',
    'services4: 10.96.0.5 . tcp . 80 = goto backends_2',
    'backends4: 10.96.0.5 . tcp . 80 . 0 = 10.244.1.2 . 8080',
    'backends4: 10.96.0.5 . tcp . 80 . 1 = 10.244.2.3 . 8080',
  ]);
});

test('an address that is of services alone is one element, however many they are', () => {
  const refusing = (key: string, port: number): Service => ({ ...service(key, '10.96.0.5', []), port, refusesOthers: true });
  assert.deepEqual(lines([refusing('web', 80), refusing('metrics', 9000), service('open', '203.0.113.1', [])]), [
    'unserved4: 10.96.0.5 . tcp . 9000',
    'addresses4: 10.96.0.5',
    'unserved4: 203.0.113.1 . tcp . 80',
    'unserved4: 10.96.0.5 . tcp . 80',
  ]);
});

test('whose translation was ours, who may meet himself, and as whom the host sends on', () => {
  const planned = planServices([service('web', '10.96.0.5', [])], { own, local: [parseIp('10.244.1.2'), parseIp('fd44::2')] });
  assert.deepEqual(
    planned.filter(({ set }) => !set.startsWith('unserved')).map(({ set, key, value }) => [set, key, value]),
    [
      ['fronts4', '10.96.0.5 . tcp . 80', undefined],
      ['loops4', '10.244.1.2 . 10.244.1.2', undefined],
      ['loops6', 'fd44::2 . fd44::2', undefined],
      ['hosts4', 'ipv4', '10.0.0.1'],
      ['hosts6', 'ipv6', 'fd00::1'],
    ],
  );
});

const one = [backend('10.244.1.2')];
const two = [...one, backend('10.244.2.3')];
const kinds: readonly (readonly [string, Service, readonly string[]])[] = [
  [
    'a node port is open on each address of its family that the host has',
    service('n', everyAddress[4], one),
    [
      'services4: 10.0.0.1 . tcp . 80 = goto backends_1',
      'backends4: 10.0.0.1 . tcp . 80 . 0 = 10.244.1.2 . 8080',
      'services4: 10.0.1.1 . tcp . 80 = goto backends_1',
      'backends4: 10.0.1.1 . tcp . 80 . 0 = 10.244.1.2 . 8080',
    ],
  ],
  ['a node port that nobody serves is left to the host, which refuses', service('n', everyAddress[6], []), []],
  [
    'other machines have backends of their own',
    { ...service('e', '203.0.113.1', two), outer: one },
    [
      'services4: 203.0.113.1 . tcp . 80 = goto backends_2',
      'backends4: 203.0.113.1 . tcp . 80 . 0 = 10.244.1.2 . 8080',
      'backends4: 203.0.113.1 . tcp . 80 . 1 = 10.244.2.3 . 8080',
      'outer4: 203.0.113.1 . tcp . 80 = goto outer_backends_1',
      'outer_backends4: 203.0.113.1 . tcp . 80 . 0 = 10.244.1.2 . 8080',
    ],
  ],
  [
    'or none: then what they send is dropped, so that they turn to another host',
    { ...service('e', '203.0.113.1', one), outer: [] },
    [
      'services4: 203.0.113.1 . tcp . 80 = goto backends_1',
      'backends4: 203.0.113.1 . tcp . 80 . 0 = 10.244.1.2 . 8080',
      'outer4: 203.0.113.1 . tcp . 80 = drop',
    ],
  ],
  [
    'without any backend it is refused, whoever asks',
    { ...service('e', '203.0.113.1', []), outer: [] },
    ['unserved4: 203.0.113.1 . tcp . 80'],
  ],
  [
    'served elsewhere but not for here: dropped',
    { ...service('i', '10.96.0.5', []), servedElsewhere: true },
    ['services4: 10.96.0.5 . tcp . 80 = drop'],
  ],
  [
    'clients that come again have a chain of their own',
    { ...service('s', '10.96.0.5', one), affinitySeconds: 60 },
    [
      'services4: 10.96.0.5 . tcp . 80 = goto sticky_1',
      'backends4: 10.96.0.5 . tcp . 80 . 0 = 10.244.1.2 . 8080',
      'stays4: 10.96.0.5 . tcp . 80 = goto remember_60',
    ],
  ],
  [
    'source ranges of its family, none inside of another',
    {
      ...service('g', '203.0.113.1', one),
      sources: ['10.0.0.0/8', '10.1.0.0/16', 'fd00::/8', '10.0.0.0/8'].map((range) => parseCidr(range)),
    },
    [
      'services4: 203.0.113.1 . tcp . 80 = goto backends_1',
      'backends4: 203.0.113.1 . tcp . 80 . 0 = 10.244.1.2 . 8080',
      'guarded4: 203.0.113.1 . tcp . 80',
      'clients4: 203.0.113.1 . tcp . 80 . 10.0.0.0/8',
    ],
  ],
];
for (const [what, given, expected] of kinds) {
  test(what, () => assert.deepEqual(lines([given]), expected));
}

test('a node port follows the host to another address', () => {
  const port = service('n', everyAddress[4], one);
  const at = (ip: string): string[] => planServices([port], { own: [parseIp(ip)], local: [] }).map(({ key }) => key.split(' ')[0] ?? '');
  assert.deepEqual([new Set(at('10.0.0.1')).has('10.0.0.1'), new Set(at('10.0.0.9')).has('10.0.0.1')], [true, false]);
});

test('the order of services does not matter, and of two with one address the first by key is served', () => {
  const [first, second] = [service('a', '10.96.0.5', [backend('10.0.0.1')]), service('b', '10.96.0.5', [backend('10.0.0.2')])];
  assert.deepEqual(lines([second, first]), lines([first]));
});

const text = (count: number): string => {
  const backends = Array.from({ length: count }, (_, index) => backend(`10.0.0.${index + 1}`));
  return hostTable(serviceRules([service('a', '10.96.0.5', backends)])).text;
};

test('the rules do not change with the services, until one has more backends than any had before', () => {
  assert.equal(text(0), text(64));
  assert.notEqual(text(64), text(65));
  assert.equal(hostTable(serviceRules([])).text, text(0));
  const stay = { ...service('a', '10.96.0.5', []), affinitySeconds: 60 };
  assert.notEqual(hostTable(serviceRules([stay])).text, text(0));
});

test('many services cost elements and no rules', () => {
  const many = Array.from({ length: 1000 }, (_, index) =>
    service(`s${index}`, `10.96.${index >> 8}.${index & 255}`, [backend('10.0.0.1')]),
  );
  assert.equal(hostTable(serviceRules(many)).text, hostTable(serviceRules(many.slice(0, 1))).text);
  assert.equal(lines(many).length, 2 * 1000);
});
