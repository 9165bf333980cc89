import assert from 'node:assert/strict';
import test from 'node:test';
import { defaultGateway, indexIn, nextFree, refusalOf, spaceOf } from './block.ts';
import { type Cidr, cidrBase, cidrLength, familyOf, formatIp, type Ip, ipToBigint, parseCidr, parseIp } from './ip.ts';
import type { Pool } from './resources.ts';

const poolOf = (cidr: string, rest: { range?: string; gateway?: string; reserved?: Record<string, string> } = {}): Pool => ({
  id: 'pool000001',
  name: '',
  revision: 1,
  createdAt: '',
  labels: {},
  network: 'net0000001',
  cidr: parseCidr(cidr),
  blockLength: 26,
  reserved: Object.fromEntries(
    Object.entries(rest.reserved ?? {}).map(([name, range]) => [name, range.includes('/') ? parseCidr(range) : parseIp(range)]),
  ),
  ...(rest.range === undefined ? {} : { range: parseCidr(rest.range) }),
  ...(rest.gateway === undefined ? {} : { gateway: parseIp(rest.gateway) }),
});

function all(pool: Pool, block: string): string[] {
  const space = spaceOf(pool, block as Cidr);
  const taken = new Set<string>();
  for (;;) {
    const ip = nextFree(space, 0n, (candidate) => taken.has(candidate));
    if (ip === undefined) break;
    taken.add(ip);
  }
  assert.equal(taken.size, space.capacity);
  return [...taken];
}

const rows: [name: string, pool: Pool, block: string, given: string[]][] = [
  ['network and broadcast address are left out', poolOf('10.0.0.0/29'), '10.0.0.0/29', ['1', '2', '3', '4', '5', '6']],
  ['only the pool has them, not its blocks', poolOf('10.0.0.0/28'), '10.0.0.4/30', ['4', '5', '6', '7']],
  ['the last block lacks the broadcast address', poolOf('10.0.0.0/28'), '10.0.0.12/30', ['12', '13', '14']],
  ['a point-to-point prefix is used whole', poolOf('10.0.0.0/31'), '10.0.0.0/31', ['0', '1']],
  ['a single address is used', poolOf('10.0.0.9/32'), '10.0.0.9/32', ['9']],
  [
    'gateway and reserved are left out',
    poolOf('10.0.0.0/28', { gateway: '10.0.0.1', reserved: { a: '10.0.0.3', b: '10.0.0.8/29', c: 'fd00::/8' } }),
    '10.0.0.0/28',
    ['2', '4', '5', '6', '7'],
  ],
  ['range narrows', poolOf('10.0.0.0/24', { range: '10.0.0.4/30', gateway: '10.0.0.5' }), '10.0.0.0/26', ['4', '6', '7']],
  ['a block outside the range gives nothing', poolOf('10.0.0.0/24', { range: '10.0.0.4/30' }), '10.0.0.64/26', []],
];
for (const [name, pool, block, given] of rows) {
  test(`IPv4 block: ${name}`, () => {
    assert.deepEqual(
      all(pool, block),
      given.map((last) => `10.0.0.${last}`),
    );
  });
}

test('IPv6 block: the subnet-router anycast address is left out and a huge block is no burden', () => {
  assert.deepEqual(all(poolOf('fd00::/126'), 'fd00::/126'), ['fd00::1', 'fd00::2', 'fd00::3']);
  const huge = spaceOf(poolOf('fd00::/64', { reserved: { low: 'fd00::/65' } }), parseCidr('fd00::/64'));
  assert.equal(
    nextFree(huge, 0n, () => false),
    'fd00::8000:0:0:0',
  );
});

test('the search goes round at the end', () => {
  const space = spaceOf(poolOf('10.0.0.0/29', { reserved: { a: '10.0.0.3' } }), parseCidr('10.0.0.0/29'));
  const from = (ip: string, ...taken: string[]) => nextFree(space, ipToBigint(ip as Ip), (candidate) => taken.includes(candidate));
  assert.deepEqual(
    [from('10.0.0.3'), from('10.0.0.6', '10.0.0.6'), from('10.0.0.7'), from('10.1.0.0'), from('9.0.0.0')],
    ['10.0.0.4', '10.0.0.1', '10.0.0.1', '10.0.0.1', '10.0.0.1'],
  );
});

test('what can never be given says why', () => {
  const pool = poolOf('10.0.0.0/24', { range: '10.0.0.128/25', gateway: '10.0.0.1', reserved: { a: '10.0.0.9', b: '10.0.0.16/28' } });
  const refusals = ['10.0.0.0', '10.0.0.255', '10.0.0.1', '10.0.0.9', '10.0.0.20', '10.0.1.1', 'fd00::1', '10.0.0.2'];
  assert.deepEqual(
    refusals.map((ip) => refusalOf(pool, ip as Ip)),
    ['network', 'broadcast', 'gateway', 'reserved', 'reserved', 'outside', 'outside', undefined],
  );
});

test('the default gateway is the first free address', () => {
  assert.equal(defaultGateway(poolOf('10.0.0.0/24', { reserved: { a: '10.0.0.1' } })), '10.0.0.2');
  assert.equal(defaultGateway(poolOf('10.0.0.0/24', { range: '10.0.0.128/25' })), '10.0.0.128');
  assert.equal(defaultGateway(poolOf('fd00::/64')), 'fd00::1');
  assert.equal(defaultGateway(poolOf('10.0.0.0/30', { reserved: { a: '10.0.0.0/30' } })), undefined);
});

const indexOf = (range: string, block: string): number => indexIn(parseCidr(range), parseCidr(block));

test('a host has the index of its block, unlike for all of a range, also for the first', () => {
  assert.deepEqual([indexOf('10.244.0.0/16', '10.244.0.0/24'), indexOf('10.244.0.0/16', '10.244.1.0/24')], [0xf400, 0xf401]);
  // What a controller-manager gives the first node of a cluster of IPv6, or of 10.0.0.0.
  assert.deepEqual([indexOf('fd00:10:244::/56', 'fd00:10:244::/64'), indexOf('fd00:10:244::/56', 'fd00:10:244:1::/64')], [0xffff, 1]);
  for (const [range, length] of [
    ['fd00:10:244::/56', 64],
    ['10.0.0.0/16', 24],
    ['10.254.0.0/15', 30],
  ] as const) {
    const start = ipToBigint(cidrBase(parseCidr(range)));
    const family = familyOf(parseCidr(range));
    const size = 1n << BigInt((family === 6 ? 128 : 32) - length);
    const count = 2 ** (length - cidrLength(parseCidr(range)));
    const blocks = Array.from({ length: count }, (_, place) => `${formatIp(start + BigInt(place) * size, family)}/${length}`);
    const indices = new Set(blocks.map((block) => indexOf(range, block)));
    assert.deepEqual([indices.size, indices.has(0)], [count, false], range);
  }
  assert.equal(indexOf('10.0.0.0/8', '10.0.0.0/24'), 0xffff);
  assert.throws(() => indexOf('10.0.0.0/8', '10.255.255.0/24'), /10\.255\.255\.0\/24 is the last of 65536/);
});
