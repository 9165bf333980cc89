// Prefix sets: what is taken out is out, and everything else stays.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { type Cidr, cidrOf, contains, formatIp, overlaps, parseCidr } from './ip.ts';
import { disjoint, subtract } from './ranges.ts';

test('prefixes inside others go; families stay apart', () => {
  const cidrs = ['10.1.0.0/16', '::/0', '10.0.0.0/8', '10.0.0.0/8', '192.0.2.1/32', 'fd00::/8'].map((text) => parseCidr(text));
  assert.deepEqual(disjoint(cidrs), ['10.0.0.0/8', '192.0.2.1/32', '::/0']);
});

const from = (cidrs: string[], excluded: string[]): Cidr[] =>
  subtract(
    cidrs.map((text) => parseCidr(text)),
    excluded.map((text) => parseCidr(text)),
  );

test('exceptions are taken out, also those that cut nothing or everything', () => {
  assert.deepEqual(from(['10.0.0.0/30'], ['10.0.0.1/32']), ['10.0.0.0/32', '10.0.0.2/31']);
  assert.deepEqual(from(['10.0.0.0/30'], ['10.0.0.0/8']), []);
  assert.deepEqual(from(['10.0.0.0/30'], ['fd00::/8', '192.0.2.0/24']), ['10.0.0.0/30']);
  assert.deepEqual(from(['fd00::/127'], ['fd00::1/128']), ['fd00::/128']);
});

const cidr = fc
  .tuple(fc.nat(255), fc.integer({ min: 24, max: 32 }))
  .map(([last, length]) => cidrOf(formatIp(0x0a000000n + BigInt(last), 4), length));

test('every address is in the difference exactly when it is in the first and not in the second', () => {
  fc.assert(
    fc.property(fc.array(cidr, { maxLength: 4 }), fc.array(cidr, { maxLength: 4 }), (cidrs, excluded) => {
      const rest = subtract(cidrs, excluded);
      assert.ok(rest.every((one, index) => rest.slice(index + 1).every((other) => !overlaps(one, other))));
      for (let last = 0; last < 256; last++) {
        const ip = formatIp(0x0a000000n + BigInt(last), 4);
        const expected = cidrs.some((one) => contains(one, ip)) && !excluded.some((one) => contains(one, ip));
        assert.equal(
          rest.some((one) => contains(one, ip)),
          expected,
        );
      }
    }),
    { numRuns: 200 },
  );
});
