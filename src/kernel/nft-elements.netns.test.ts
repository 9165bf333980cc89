// Elements written as messages of our own against the same ones written by nft: the kernel must not know the difference.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { domainTable, hostTable } from '#drivers/guard.ts';
import { serviceRules } from '#drivers/service-rules.ts';
import { planServices } from '#drivers/services.ts';
import type { NftElement, NftTable } from '#model/desired.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Service } from '#model/resources.ts';
import { ownChanges } from './libnftables.ts';
import { elementCommands } from './nft-elements.ts';
import { createElementKind, createTableKind } from './nft.ts';

mustBeIsolated();

const options = { netnsDirectory: '/nonexistent', empty: new Set<string>() };
const table = createTableKind(options);
const element = createElementKind(options);

function nft(words: readonly string[], input = ''): string {
  const { status, stdout, stderr } = spawnSync('nft', words, { encoding: 'utf8', input });
  assert.equal(status, 0, stderr);
  return stdout;
}

/**
 * What nft lists of the elements in the order that the kernel has them in, which is that of a hash with a secret: sorted. Without the seals,
 * of which each loading of a table has its own.
 */
const listing = (): string[] =>
  nft(['list', 'ruleset'])
    .split('\n')
    .flatMap((line) => line.replace(/^\s*elements = \{|\}$/g, '').split(','))
    .map((part) => part.trim())
    .filter((part) => !part.startsWith('comment'))
    .toSorted();

const of = (set: string, key: string, value?: string): NftElement => ({
  netns: '',
  table: 'causeway',
  set,
  key,
  ...(value === undefined ? {} : { value }),
});

const backends = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, index) => ({ ip: parseIp(`${prefix}${index + 1}`), port: 8080 + index }));
const services: readonly Service[] = [
  { key: 'a', ip: parseIp('10.96.0.1'), protocol: 'tcp', port: 443, backends: backends('10.0.1.', 12) },
  { key: 'b', ip: parseIp('fd00:96::a'), protocol: 'udp', port: 53, backends: backends('fd00:1::', 3), affinitySeconds: 60 },
  { key: 'c', ip: parseIp('10.96.0.3'), protocol: 'sctp', port: 1, backends: [] },
  {
    key: 'd',
    ip: parseIp('192.0.2.7'),
    protocol: 'tcp',
    port: 65_535,
    backends: backends('10.0.2.', 2),
    outer: [],
    sources: [parseCidr('198.51.100.0/24'), parseCidr('203.0.113.7/32'), parseCidr('0.0.0.0/1')],
  },
  {
    key: 'e',
    ip: parseIp('fd00:96::b'),
    protocol: 'tcp',
    port: 80,
    backends: [],
    servedElsewhere: true,
    sources: [parseCidr('fd00:77::/33')],
  },
];
const domain = [
  of('members4', '"cweabcdefghijk" . 0a:63:0a:00:00:05 . 10.0.0.5'),
  of('members6', '"cweabcdefghijk" . 0a:63:0a:00:00:05 . fd00::5'),
  of('inside4', '100.127.0.1', '10.0.0.5'),
  of('outside6', 'fd00::5', 'fd63:7701::1'),
];
const host = [
  of('uplinks', '"eth0.100"'),
  of('published4', '192.0.2.1 . tcp . 80', '100.127.0.1 . 8080'),
  of('published_any6', 'udp . 53', 'fd63:7701::1 . 53'),
  of('restricted', 'tcp . 80'),
  of('sources4', 'tcp . 80 . 198.51.100.0/24'),
  of('own6', 'fd00::/64 . fd00:1::/64'),
  ...planServices(services, {
    own: [parseIp('192.0.2.1'), parseIp('2001:db8::1')],
    local: [parseIp('10.0.1.1')],
    inside: [parseIp('10.0.1.0')],
  }),
];
const cases: readonly (readonly [string, NftTable, readonly NftElement[]])[] = [
  ["a domain's", domainTable('', false), domain],
  ["a host's with services", hostTable(serviceRules(services)), host],
];

for (const [name, wanted, elements] of cases) {
  test(`the kernel holds the same of ${name} table, whoever wrote it`, () => {
    assert.deepEqual(table.remove([wanted]), []);
    assert.deepEqual(table.add([wanted]), []);
    nft(['-f', '-'], elementCommands({ verb: 'add', elements }));
    const [byNft, listed] = [listing(), element.list('').length];
    assert.deepEqual(element.remove(element.list('')), []);
    assert.deepEqual(element.list(''), []);
    assert.deepEqual(element.add(elements), []);
    assert.deepEqual(listing(), byNft);
    assert.equal(listed, elements.length);
    // Again, over what is there, and away.
    assert.deepEqual(element.add(elements, new Map(elements.map((one) => [one, one]))), []);
    assert.deepEqual(listing(), byNft);
    assert.deepEqual(element.remove(elements), []);
    assert.deepEqual(element.list(''), []);
  });
}

test('a row that somebody took an element out of is another, and is put right or taken away', () => {
  const wanted = hostTable(serviceRules(services));
  assert.deepEqual([table.remove([wanted]), table.add([wanted]), element.add(host)], [[], [], []]);
  const whole = listing();
  const row = host.find(({ set }) => set === 'backends4');
  assert.ok(row?.values !== undefined);
  const torn = (): NftElement => {
    nft(['delete', 'element', 'inet', 'causeway', row.set, `{ ${row.key} . 1 }`]);
    const found = element.list('').find((one) => element.key(one) === element.key(row));
    assert.ok(found !== undefined && !element.same(row, found));
    return found;
  };
  assert.deepEqual(element.add([row], new Map([[row, torn()]])), []);
  assert.deepEqual(listing(), whole);
  assert.deepEqual(element.remove([torn()]), []);
  assert.equal(element.list('').length, host.length - 1);
});

test('into a table that was just made the ranges go first, and what the kernel refuses is told alone', () => {
  const wanted = hostTable(serviceRules(services));
  const all = [...host, of('ranges4', '10.0.0.0/8'), of('ranges4', '192.168.0.0/16'), of('ranges6', 'fd00::/64')];
  const bad = [of('published4', '192.0.2.9 . tcp . 80', '100.127.0.1'), of('ranges6', 'fd00::/65')];
  table.remove([wanted]);
  assert.deepEqual(table.add([wanted]), []);
  nft(['-f', '-'], elementCommands({ verb: 'add', elements: all }));
  const byNft = listing();
  for (const refused of [[], ...bad.map((one) => [one])]) {
    assert.deepEqual(table.remove([wanted]), []);
    assert.deepEqual(table.add([wanted]), []);
    const before = ownChanges();
    const failures = element.add([...all, ...refused]);
    assert.deepEqual(
      failures.map(({ item }) => item),
      refused,
    );
    assert.deepEqual(listing(), byNft);
    if (refused.length === 0) assert.equal(ownChanges() - before, 2);
  }
});
