import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { parseSelector } from '#model/selector.ts';
import { overlappedPools, readIpam, readPool, readReservation } from './calico.ts';

const carriedBy = (vxlanMode: string): string => readPool('some', { cidr: '10.0.0.0/16', vxlanMode }).carry;

test('a pool as Calico’s own manifest has it', () => {
  const spec = { cidr: '192.168.0.0/16', ipipMode: 'Always', vxlanMode: 'Never', natOutgoing: true, nodeSelector: 'all()', blockSize: 26 };
  assert.deepEqual(readPool('default-ipv4-ippool', spec), {
    name: 'default-ipv4-ippool',
    createdAt: '1970-01-01T00:00:00Z',
    cidr: '192.168.0.0/16',
    blockLength: 26,
    carry: 'bgp-cross-subnet',
    announced: true,
    masqueraded: true,
    forPods: true,
    automatic: true,
    nodes: parseSelector(''),
    namespaces: parseSelector(''),
  });
  const six = readPool('six', { cidr: 'fd00::/64', disableBGPExport: true, allowedUses: ['Tunnel'], assignmentMode: 'Manual' });
  assert.deepEqual(
    [six.blockLength, six.carry, six.announced, six.masqueraded, six.forPods, six.automatic],
    [122, 'bgp', false, false, false, false],
  );
  assert.deepEqual(['', 'Never', 'CrossSubnet', 'Always'].map(carriedBy), ['bgp', 'bgp', 'bgp-cross-subnet', 'vxlan']);
  assert.equal(readPool('off', { cidr: '10.0.0.0/16', disabled: true }).forPods, false);
});

test('of pools that overlap the older one is for pods, the younger one is not; pools of nobody are in nobody’s way', () => {
  const pools = [
    readPool('first', { cidr: '10.0.0.0/16' }, '2026-01-02T00:00:00Z'),
    readPool('a-young-one', { cidr: '10.0.128.0/24' }, '2026-01-03T00:00:00Z'),
    readPool('beside', { cidr: '10.1.0.0/16' }, '2026-01-01T00:00:00Z'),
    readPool('same-age', { cidr: '10.1.0.0/16' }, '2026-01-01T00:00:00Z'),
    readPool('off', { cidr: '10.0.0.0/8', disabled: true }, '2026-01-01T00:00:00Z'),
  ];
  const said = (order: typeof pools): string[] =>
    [...overlappedPools(order)].map(([name, { name: older }]) => `${name} < ${older}`).toSorted();
  assert.deepEqual(said(pools), ['a-young-one < first', 'same-age < beside']);
  assert.deepEqual(said(pools.toReversed()), said(pools));
});

test('reservations and settings of address management', () => {
  assert.deepEqual(readReservation('some', { reservedCIDRs: ['10.0.0.1', '10.0.1.0/24', 'fd00::1'] }), [
    '10.0.0.1/32',
    '10.0.1.0/24',
    'fd00::1/128',
  ]);
  assert.deepEqual(readReservation('none', undefined), []);
  assert.deepEqual(readIpam('default', { strictAffinity: true }), { strictAffinity: true, maxBlocksPerHost: 0 });
});

const bad: readonly (readonly [what: string, read: () => unknown, field: RegExp])[] = [
  ['a pool without a range', () => readPool('p', {}), /^spec\.cidr$/],
  ['a pool with host bits', () => readPool('p', { cidr: '10.0.0.1/16' }), /^spec\.cidr$/],
  ['blocks larger than the pool', () => readPool('p', { cidr: '10.0.0.0/26', blockSize: 24 }), /^spec\.blockSize$/],
  ['blocks of no address', () => readPool('p', { cidr: '10.0.0.0/16', blockSize: 33 }), /^spec\.blockSize$/],
  ['a mode that is none', () => readPool('p', { cidr: '10.0.0.0/16', vxlanMode: 'Sometimes' }), /^spec\.vxlanMode$/],
  ['a selector that is none', () => readPool('p', { cidr: '10.0.0.0/16', nodeSelector: 'rack = 1' }), /^spec\.nodeSelector$/],
  ['a reservation that is none', () => readReservation('r', { reservedCIDRs: ['x'] }), /^spec\.reservedCIDRs/],
];
for (const [what, read, field] of bad) {
  test(`${what} is refused, with the field named`, () => {
    assert.throws(read, (error) => isFault(error) && ['invalid', 'not-found'].includes(error.code) && field.test(error.field ?? ''));
  });
}
