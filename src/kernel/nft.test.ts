import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { NftElement, NftTable } from '#model/desired.ts';
import { nftErrno, nftFault } from './libnftables.ts';
import { createElementKind, tableCommands } from './nft.ts';
import { elementCommands } from './nft-elements.ts';
import { nftContract } from './nft-contract.ts';
import { createFakeNft } from './nft-fake.ts';
import { canonical, listedElements, parseListing, readSeal, tableNames } from './nft-listing.ts';

const fake = createFakeNft();
nftContract('fake', {
  netns: 'cw-a',
  absent: 'cw-absent',
  table: fake.table,
  element: fake.element,
  tear: (name) => fake.tear('cw-a', name),
});

const golden = (name: string): string => join(import.meta.dirname, 'testdata', name);
const listing = (): ReturnType<typeof parseListing> => parseListing(readFileSync(golden('listing.json'), 'utf8'));

const table: NftTable = { netns: 'cw-a', family: 'inet', name: 'causeway', text: '  set members4 { type ipv4_addr; }' };
const of = (set: string, key: string, value?: string): NftElement => ({
  netns: 'cw-a',
  table: 'causeway',
  set,
  key,
  ...(value === undefined ? {} : { value }),
});

test('a table is replaced with its elements in one transaction', (t) => {
  const commands = tableCommands(table, [of('members4', '10.0.0.1'), of('inside4', '100.127.0.1', '10.0.0.1'), of('members4', '10.0.0.2')]);
  t.assert.fileSnapshot(commands, golden('replace.nft'), { serializers: [String] });
});

test('values are given when adding and left out when deleting', () => {
  const elements = [of('inside4', '100.127.0.1', '10.0.0.1')];
  assert.equal(elementCommands({ verb: 'add', elements }), 'add element inet causeway inside4 { 100.127.0.1 : 10.0.0.1 }\n');
  assert.equal(elementCommands({ verb: 'delete', elements }), 'delete element inet causeway inside4 { 100.127.0.1 }\n');
});

test('a captured listing reads as the elements that were loaded', () => {
  assert.deepEqual(tableNames(listing()), ['causeway']);
  assert.deepEqual(
    listedElements(listing()).map(({ set, key, value }) => [set, key, value].filter((part) => part !== undefined).join(' | ')),
    [
      'e | "vx" . 02:00:00:00:00:21 . 10.5.0.1',
      'iv4 | 1.2.3.4',
      'iv4 | 1.2.4.0-1.2.4.9',
      'iv4 | 10.0.0.0/8',
      'iv4 | 192.168.0.0/16',
      'all4 | 0.0.0.0/0',
      'iv6 | 2001:db8::1',
      'iv6 | fd00::/8',
      's4 | tcp . 80 . 10.0.0.0/8',
      's4 | udp . 1-9 . 0.0.0.0/0',
      's4 | tcp . 443 . 1.2.3.4',
      'm | 1.2.3.4 . udp . 53 | 10.0.0.1 . 53',
      'm | 1.2.3.4 . tcp . 80 | 10.0.0.1 . 8080',
      'v | "cwe1" | jump p2',
      'v | "cwe2" | drop',
      'mk | 16 | 02:00:00:00:00:01',
      'to | 1.1.1.1',
      'pr | tcp',
      'pr | ipv6-icmp',
      'pr | sctp',
      'pr | 200',
    ],
  );
});

test('spellings that mean the same compare the same', () => {
  const pairs = [
    ['"cwe1" . 0a:63:00:00:00:01 . 10.0.0.1', 'cwe1 . 0a:63:00:00:00:01  . 10.0.0.1'],
    ['10.0.0.1/32', '10.0.0.1'],
    ['tcp . 80 . 10.0.0.1/32', 'tcp . 80 . 10.0.0.1'],
    ['fd00::1/128', 'fd00::1'],
  ] as const;
  for (const [left, right] of pairs) assert.equal(canonical(left), canonical(right));
  assert.notEqual(canonical('fd00::/32'), canonical('fd00::'));
  assert.notEqual(canonical('10.0.0.0/3'), canonical('10.0.0.0'));
});

test('the digest sees rules, chains and handles, and neither counters nor the seal itself', () => {
  const objects = listing();
  const { comment, written, expected } = readSeal(objects);
  assert.deepEqual([comment, written], ['causeway abc', 'def']);
  const altered = (from: string, to: string) =>
    readSeal(parseListing(JSON.stringify({ nftables: JSON.parse(JSON.stringify(objects).replace(from, to)) }))).expected;
  assert.equal(altered('"packets":5', '"packets":6'), expected);
  assert.equal(altered('"comment":"def"', '"comment":"ghi"'), expected);
  assert.notEqual(altered('"handle":15', '"handle":18'), expected);
  assert.notEqual(altered('"policy":"accept"', '"policy":"drop"'), expected);
  assert.notEqual(readSeal(objects.filter(({ rule }) => rule === undefined)).expected, expected);
});

test('what is no listing is a Fault', () => {
  for (const output of ['', '{', '[]', '{"nftables": 1}']) assert.throws(() => parseListing(output), { code: 'kernel' });
});

test('refusals carry the errno, and say what was refused', () => {
  const cases = [
    ['Error: Could not process rule: File exists\nadd element …', 'EEXIST'],
    ['Error: No such file or directory\nlist table …', 'ENOENT'],
    ['Error: interval overlaps with an existing one', 'EEXIST'],
    ['Error: syntax error, unexpected newline', 'EINVAL'],
    ['/dev/stdin:1:1-4: Error: Could not process rule: Operation not permitted', 'EPERM'],
  ] as const;
  for (const [text, errno] of cases) {
    const fault = nftFault('load table inet causeway', text);
    assert.deepEqual([nftErrno(text), fault.code, fault.errno], [errno, 'kernel', errno]);
    assert.ok(!fault.message.includes('Error:'));
  }
});

test('elements are the same object by namespace, table, set and key, and equal by value', () => {
  const kind = createElementKind({ netnsDirectory: '/run/netns', empty: new Set() });
  const item = of('inside4', '100.127.0.1', '10.0.0.1');
  assert.equal(kind.key(item), kind.key({ ...item, value: '10.0.0.2' }));
  assert.notEqual(kind.key(item), kind.key({ ...item, netns: 'cw-b' }));
  assert.equal(kind.same(item, { ...item, value: '10.0.0.2' }), false);
  assert.equal(kind.same(item, { ...item, value: '10.0.0.1/32' }), true);
});
