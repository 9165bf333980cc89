// Prefix sets: what is taken out is out, and everything else stays.
import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import * as fc from 'fast-check';
import {
  bitsOf,
  type Cidr,
  cidrBase,
  cidrLength,
  cidrOf,
  contains,
  type Family,
  formatIp,
  ipToBigint,
  overlaps,
  parseCidr,
  parseIp,
} from './ip.ts';
import { disjoint, prefixesOf, subtract, united } from './ranges.ts';

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

/** No two could be one. */
const areFewest = (cidrs: readonly Cidr[]): boolean =>
  cidrs.every((one) =>
    cidrs.every(
      (other) => one === other || cidrLength(other) !== cidrLength(one) || !overlaps(cidrOf(cidrBase(one), cidrLength(one) - 1), other),
    ),
  );

describe('ranges in fewest prefixes', () => {
  /** Few enough that prefixes meet and lie in each other. */
  const near: Readonly<Record<Family, bigint>> = { 4: ipToBigint(parseIp('10.0.0.0')), 6: ipToBigint(parseIp('fd00::')) };
  const family = fc.constantFrom<Family>(4, 6);
  const place = fc.integer({ min: 0, max: 63 });
  const all = Array.from({ length: 64 }, (_, index) => BigInt(index));
  const held = (cidrs: readonly Cidr[], of: Family): bigint[] =>
    all.filter((index) => cidrs.some((one) => contains(one, formatIp(near[of] + index, of))));
  it('hold the same addresses, and no two of them could be one', () => {
    const some = fc.array(fc.record({ family, at: place, bits: fc.integer({ min: 0, max: 6 }) }), { maxLength: 20 });
    fc.assert(
      fc.property(some, (parts) => {
        const ranges = parts.map((one) => cidrOf(formatIp(near[one.family] + BigInt(one.at), one.family), bitsOf(one.family) - one.bits));
        const found = united(ranges);
        for (const each of [4, 6] as const) assert.deepEqual(held(found, each), held(ranges, each));
        assert.ok(areFewest(found), found.join());
        assert.deepEqual(united(ranges.toReversed()), found);
      }),
    );
    assert.deepEqual(united(['0.0.0.0/1', '128.0.0.0/1'].map((text) => parseCidr(text))), ['0.0.0.0/0']);
  });

  it('hold what is from the first to the last address', () => {
    fc.assert(
      fc.property(family, place, place, (of, one, other) => {
        const [first, last] = [BigInt(Math.min(one, other)), BigInt(Math.max(one, other))];
        const found = prefixesOf(of, near[of] + first, near[of] + last);
        assert.deepEqual(
          held(found, of),
          all.filter((index) => first <= index && index <= last),
        );
        assert.deepEqual(united(found), found);
      }),
    );
    assert.deepEqual(prefixesOf(6, 0n, (1n << 128n) - 1n), ['::/0']);
  });
});
