import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIp } from '#model/ip.ts';
import { type AddressPool, type Claim, grant, poolOf, readPool, usablePools } from './address-pools.ts';

const poolItem = (name: string, addresses: readonly string[], more: object = {}): object => ({
  metadata: { name },
  spec: { addresses, ...more },
});
const pool = (name: string, addresses: readonly string[], more: object = {}): AddressPool => {
  const read = readPool(poolItem(name, addresses, more));
  return 'problem' in read ? assert.fail(read.problem) : read;
};
const claim = (key: string, more: Partial<Claim> = {}): Claim => ({
  key,
  createdAt: '2026-01-01T00:00:00Z',
  families: [4],
  current: [],
  addresses: [],
  ...more,
});
const granted = (claims: readonly Claim[], ...pools: readonly AddressPool[]): Record<string, string> =>
  Object.fromEntries([...grant(claims, pools)].map(([key, { addresses, problem }]) => [key, problem ?? addresses.join(' ')]));
const small = pool('small', ['203.0.113.1-203.0.113.2']);

test('a pool is prefixes, addresses and ranges of both families', () => {
  const read = pool('all', ['203.0.113.0/30', '198.51.100.7', '2001:DB8::10 - 2001:db8::1f']);
  const inside = ['203.0.113.0', '203.0.113.3', '198.51.100.7', '2001:db8::10', '2001:db8::1f'];
  const outside = ['203.0.113.4', '198.51.100.8', '2001:db8::20', '2001:db8::f'];
  assert.deepEqual(
    [...inside, ...outside].map((ip) => poolOf([read], parseIp(ip))?.name),
    [...inside.map(() => 'all'), ...outside.map(() => undefined)],
  );
  assert.deepEqual([read.isAutomatic, read.isAnnounced], [true, true]);
  const other = pool('other', ['203.0.113.0/30'], { autoAssign: false, announce: 'none' });
  assert.deepEqual([other.isAutomatic, other.isAnnounced], [false, false]);
});

const bad: readonly (readonly [string, unknown, RegExp])[] = [
  ['no addresses', { metadata: { name: 'x' }, spec: {} }, /spec\.addresses/],
  ['no object', 5, /The pool/],
  ['a word', poolItem('x', ['203.0.113.0/30', 'nonsense']), /spec\.addresses: "nonsense"/],
  ['bits behind the prefix', poolItem('x', ['203.0.113.1/30']), /spec\.addresses/],
  ['a range backwards', poolItem('x', ['203.0.113.9-203.0.113.1']), /spec\.addresses/],
  ['a range between families', poolItem('x', ['203.0.113.9-2001:db8::1']), /spec\.addresses/],
  ['a way of announcing that there is not', poolItem('x', ['203.0.113.9'], { announce: 'smoke' }), /spec\.announce/],
];
for (const [what, item, expected] of bad) {
  test(`of pools, one with ${what} is refused whole, and the field is named`, () => {
    const read = readPool(item);
    assert.match('problem' in read ? read.problem : '', expected);
  });
}

test('of pools that overlap the oldest is used, whatever the others are called', () => {
  const made = { a: '2026-02-01T00:00:00Z', edge: '2026-01-01T00:00:00Z' };
  const pools = Object.entries(made).map(([name, createdAt]) => ({ ...pool(name, ['203.0.113.0/24']), createdAt }));
  assert.deepEqual([...usablePools(pools).refused], [['a', 'edge']]);
  const read = readPool({ metadata: { name: 'a', creationTimestamp: made.a }, spec: { addresses: ['203.0.113.0/24'] } });
  assert.equal('createdAt' in read ? read.createdAt : '', made.a);
});

test('of pools that overlap and are of one age the first by name is used', () => {
  const { usable, refused } = usablePools([pool('b', ['203.0.113.2']), small, pool('a', ['203.0.113.0/24'])]);
  assert.deepEqual(
    [usable.map(({ name }) => name), [...refused]],
    [
      ['a'],
      [
        ['b', 'a'],
        ['small', 'a'],
      ],
    ],
  );
});

const rows: readonly (readonly [string, readonly Claim[], readonly AddressPool[], Record<string, string>])[] = [
  [
    'the oldest first, then by name, until there is none left',
    [claim('c'), claim('b'), claim('a', { createdAt: '2026-02-01T00:00:00Z' })],
    [small],
    { b: '203.0.113.1', c: '203.0.113.2', a: 'No pool has a free IPv4 address' },
  ],
  [
    'who has one keeps it',
    [claim('a'), claim('b', { current: [parseIp('203.0.113.1')] })],
    [small],
    { a: '203.0.113.2', b: '203.0.113.1' },
  ],
  [
    'of two that have the same the older keeps it',
    [
      claim('a', { createdAt: '2026-02-01T00:00:00Z', current: [parseIp('203.0.113.1')] }),
      claim('b', { current: [parseIp('203.0.113.1')] }),
    ],
    [small],
    { b: '203.0.113.1', a: '203.0.113.2' },
  ],
  ['one of each family', [claim('a', { families: [4, 6] })], [small, pool('six', ['2001:db8::/126'])], { a: '203.0.113.1 2001:db8::' }],
  ['what is asked for', [claim('a', { addresses: [parseIp('203.0.113.2')] }), claim('b')], [small], { a: '203.0.113.2', b: '203.0.113.1' }],
  [
    'what is asked for instead of what it has',
    [claim('a', { current: [parseIp('203.0.113.1')], addresses: [parseIp('203.0.113.2')] })],
    [small],
    { a: '203.0.113.2' },
  ],
  [
    "not what is another's",
    [claim('a', { current: [parseIp('203.0.113.2')] }), claim('b', { addresses: [parseIp('203.0.113.2')] })],
    [small],
    { a: '203.0.113.2', b: "203.0.113.2 is another service's" },
  ],
  [
    'not what is in no pool',
    [claim('a', { addresses: [parseIp('192.0.2.1')] })],
    [small],
    { a: '192.0.2.1 is in no pool that the service may have it from' },
  ],
  [
    'from the pool that is asked for, also one that is not automatic',
    [claim('a', { pool: 'own' }), claim('b')],
    [pool('own', ['192.0.2.1'], { autoAssign: false }), small],
    { a: '192.0.2.1', b: '203.0.113.1' },
  ],
  [
    'not from one that is not automatic without being asked',
    [claim('a')],
    [pool('own', ['192.0.2.1'], { autoAssign: false })],
    { a: 'No pool has a free IPv4 address' },
  ],
  ["what has somebody else's address is left alone", [claim('a', { current: [parseIp('192.0.2.1')] })], [small], {}],
  ['no pool, no address', [claim('a')], [], { a: 'No pool has a free IPv4 address' }],
];
for (const [what, claims, pools, expected] of rows) {
  test(`given: ${what}`, () => {
    assert.deepEqual(granted(claims, ...pools), expected);
    assert.deepEqual(granted(claims.toReversed(), ...pools), expected, 'in any order');
  });
}

test('ten thousand services out of a large pool, and again', () => {
  const large = pool('large', ['10.0.0.0/8', '2001:db8::/64']);
  const claims = Array.from({ length: 10_000 }, (_, index) => claim(`s${index}`, { families: [4, 6] }));
  const first = grant(claims, [large]);
  assert.equal(new Set([...first.values()].flatMap(({ addresses }) => addresses)).size, 20_000);
  const again = grant(
    claims.map((one) => ({ ...one, current: first.get(one.key)?.addresses ?? [] })),
    [large],
  );
  assert.deepEqual(again, first);
});
