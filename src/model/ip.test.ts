import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import {
  bitsOf,
  cidrBase,
  cidrLast,
  cidrLength,
  cidrOf,
  cidrSize,
  contains,
  coverage,
  covers,
  everything,
  type Family,
  familyOf,
  formatIp,
  hostPrefix,
  ipAdd,
  ipToBigint,
  linkLocalOf,
  overlaps,
  parseCidr,
  parseInterface,
  parseIp,
  parseMac,
  subnetAt,
} from './ip.ts';
import type { Cidr, Ip } from './ip.ts';

const invalid = { name: 'Fault', code: 'invalid' };

const addressOf = (family: Family): fc.Arbitrary<Ip> =>
  family === 4
    ? fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }).map((value) => formatIp(value, 4))
    : // Runs of zeros are what IPv6 text is difficult about.
      fc
        .array(fc.oneof(fc.constant(0), fc.constant(0), fc.integer({ min: 0, max: 0xffff })), { minLength: 8, maxLength: 8 })
        .map((groups) =>
          formatIp(
            groups.reduce((sum, group) => (sum << 16n) | BigInt(group), 0n),
            6,
          ),
        );
const ends = (cidr: Cidr) => [ipToBigint(cidrBase(cidr)), ipToBigint(cidrLast(cidr))] as const;
const anyFamily = fc.constantFrom<Family>(4, 6);
const anyIp = anyFamily.chain(addressOf);
const anyCidr: fc.Arbitrary<Cidr> = anyFamily.chain((family) =>
  fc.tuple(addressOf(family), fc.integer({ min: 0, max: bitsOf(family) })).map(([ip, length]) => cidrOf(ip, length)),
);

describe('addresses', () => {
  it('are spelled as RFC 5952 asks', () => {
    const spellings = {
      '2001:DB8:0:0:0:0:0:1': '2001:db8::1',
      '2001:db8:0:1:1:1:1:1': '2001:db8:0:1:1:1:1:1',
      '1:0:0:2:0:0:0:3': '1:0:0:2::3',
      '1:0:0:2:3:0:0:4': '1::2:3:0:0:4',
      '0:0:0:0:0:0:0:0': '::',
      '::ffff:192.0.2.1': '::ffff:c000:201',
      '0001::': '1::',
      '192.0.2.1': '192.0.2.1',
    };
    assert.deepEqual(
      Object.keys(spellings).map((text) => parseIp(text)),
      Object.values(spellings),
    );
  });

  it('are parsed and spelled as ipaddr.js does', () => {
    fc.assert(
      fc.property(anyIp, (ip) => {
        const theirs = ipaddr.parse(ip);
        assert.equal(parseIp(theirs.toNormalizedString()), ip);
        assert.equal(theirs instanceof ipaddr.IPv6 ? theirs.toRFC5952String() : theirs.toString(), ip);
        assert.equal(familyOf(ip), theirs.kind() === 'ipv4' ? 4 : 6);
        assert.deepEqual(BigInt(`0x${Buffer.from(theirs.toByteArray()).toString('hex')}`), ipToBigint(ip));
      }),
    );
  });

  it('that are none are refused, and the Fault names the field', () => {
    const bad = [
      ['', ' ', '1', '1.2.3', '1.2.3.4.5', '256.1.1.1', '01.2.3.4', '1.2.3.4 ', '1.2.3.-4', '0x1.2.3.4', '1.2.3.4/32', '1e1.2.3.4'],
      [':', ':::', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9', '1::2::3', '12345::', 'g::', '::1%eth0', '[::1]', '::1.2.3', '1.2.3.4::'],
      ['1:2:3:4:5:6:7::8:9', '::ffff:1.2.3.256', 'localhost', '1.2.3.4\n', 'x'.repeat(1 << 16)],
    ].flat();
    for (const text of bad) assert.throws(() => parseIp(text, 'spec.ip'), { ...invalid, field: 'spec.ip' }, text.slice(0, 40));
  });

  it('never come out of text that ipaddr.js does not take', () => {
    const near = fc.array(fc.constantFrom(...'0123456789abcdef:.:::/%'.split('')), { maxLength: 24 }).map((letters) => letters.join(''));
    fc.assert(
      fc.property(near, (text) => {
        let parsed: Ip | undefined;
        try {
          parsed = parseIp(text);
        } catch {
          return;
        }
        assert.ok(ipaddr.isValid(text), text);
        assert.equal(parseIp(ipaddr.parse(text).toNormalizedString()), parsed);
      }),
    );
  });

  it('are added to, and not beyond the ends of their family', () => {
    assert.deepEqual(
      [ipAdd(parseIp('10.0.0.255'), 1), ipAdd(parseIp('10.0.1.0'), -1n), ipAdd(parseIp('fd00::ffff'), 1)],
      ['10.0.1.0', '10.0.0.255', 'fd00::1:0'],
    );
    for (const [ip, offset] of [
      ['255.255.255.255', 1],
      ['0.0.0.0', -1],
      ['ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', 1],
      ['::', -1],
    ] as const)
      assert.throws(() => ipAdd(parseIp(ip), offset), { code: 'exhausted' }, ip);
  });
});

describe('prefixes', () => {
  it('are refused when they are none, or when host bits are set', () => {
    const bad = [
      '',
      '10.0.0.0',
      '10.0.0.0/',
      '10.0.0.0/33',
      '10.0.0.0/-1',
      '10.0.0.0/08',
      '10.0.0.0/8 ',
      '10.0.0.0/8/8',
      '/8',
      'fd00::/129',
    ];
    for (const text of [...bad, '10.0.0.1/24', 'fd00::1/64', '10.0.0.0/1e1', '10.0.0.0/0x8'])
      assert.throws(() => parseCidr(text, 'pools[0].cidr'), { ...invalid, field: 'pools[0].cidr' }, text);
    assert.equal(parseCidr('10.0.0.1/24', 'cidr', false), '10.0.0.0/24');
    assert.deepEqual(parseInterface('10.0.0.1/24'), { ip: '10.0.0.1', length: 24 });
  });

  it('begin, end and hold what ipaddr.js says', () => {
    fc.assert(
      fc.property(anyCidr, anyIp, (cidr, ip) => {
        const [base, length] = ipaddr.parseCIDR(cidr);
        const isV4 = base.kind() === 'ipv4';
        const net = isV4 ? ipaddr.IPv4.networkAddressFromCIDR(cidr) : ipaddr.IPv6.networkAddressFromCIDR(cidr);
        const last = isV4 ? ipaddr.IPv4.broadcastAddressFromCIDR(cidr) : ipaddr.IPv6.broadcastAddressFromCIDR(cidr);
        assert.deepEqual(
          [cidrBase(cidr), cidrLast(cidr), cidrLength(cidr)],
          [parseIp(net.toNormalizedString()), parseIp(last.toNormalizedString()), length],
        );
        const theirs = ipaddr.parse(ip);
        assert.equal(contains(cidr, ip), theirs.kind() === base.kind() && theirs.match(base, length));
        assert.equal(cidrSize(cidr), ipToBigint(cidrLast(cidr)) - ipToBigint(cidrBase(cidr)) + 1n);
      }),
    );
  });

  it('cover and overlap exactly when their ends say so', () => {
    // Prefixes of one neighbourhood, so that they do meet.
    const near = fc
      .tuple(anyFamily, fc.integer({ min: 0, max: 255 }), fc.integer({ min: 0, max: 8 }))
      .map(([family, low, bits]) =>
        cidrOf(formatIp((family === 4 ? 0x0a000000n : 0xfdn << 120n) + BigInt(low), family), bitsOf(family) - bits),
      );
    fc.assert(
      fc.property(near, near, (a, b) => {
        const [[a0, a1], [b0, b1]] = [ends(a), ends(b)];
        const same = familyOf(a) === familyOf(b);
        assert.equal(covers(a, b), same && a0 <= b0 && b1 <= a1);
        assert.equal(overlaps(a, b), same && a0 <= b1 && b0 <= a1);
        assert.equal(overlaps(a, b), overlaps(b, a));
      }),
    );
  });

  it('cover an address together when one of them holds it', () => {
    const near = fc
      .tuple(anyFamily, fc.integer({ min: 0, max: 63 }))
      .map(([family, low]) => formatIp((family === 4 ? 0xffffffc0n : 0xfdn << 120n) + BigInt(low), family));
    const prefix = fc.tuple(near, fc.integer({ min: 0, max: 7 })).map(([ip, bits]) => cidrOf(ip, bitsOf(familyOf(ip)) - bits));
    fc.assert(
      fc.property(fc.array(fc.oneof(prefix, anyCidr), { maxLength: 6 }), fc.array(fc.oneof(near, anyIp)), (cidrs, ips) => {
        const isCovered = coverage(cidrs);
        assert.deepEqual(
          ips.filter((ip) => isCovered(ip)),
          ips.filter((ip) => cidrs.some((cidr) => contains(cidr, ip))),
        );
      }),
    );
  });

  it('are divided into subnets that lie side by side', () => {
    const pool = parseCidr('10.1.2.0/24');
    assert.deepEqual(
      [0n, 1n, 7n, 8n, -1n].map((index) => subnetAt(pool, 27, index)),
      ['10.1.2.0/27', '10.1.2.32/27', '10.1.2.224/27', undefined, undefined],
    );
    assert.deepEqual(
      [subnetAt(pool, 23, 0n), subnetAt(pool, 33, 0n), subnetAt(pool, 24, 0n), subnetAt(parseCidr('fd00::/64'), 120, 1n << 55n)],
      [undefined, undefined, pool, 'fd00::8000:0:0:0/120'],
    );
  });

  it('of one address and of all addresses are what they say', () => {
    fc.assert(
      fc.property(anyIp, anyIp, (ip, other) => {
        assert.equal(contains(hostPrefix(ip), other), ip === other);
        assert.ok(contains(everything[familyOf(ip)], ip));
      }),
    );
  });
});

describe('MAC addresses', () => {
  it('have one spelling, and no interface has a group address', () => {
    assert.equal(parseMac('0A-63-0A-00-00-FF'), '0a:63:0a:00:00:ff');
    for (const text of [
      '',
      '0a:63:0a:00:00',
      '0a:63:0a:00:00:00:00',
      '0g:63:0a:00:00:00',
      '0a630a000000',
      '01:00:5e:00:00:01',
      'ff:ff:ff:ff:ff:ff',
    ])
      assert.throws(() => parseMac(text, 'mac'), { ...invalid, field: 'mac' }, text);
  });

  it('give the link-local address that the kernel gives', () => {
    assert.equal(linkLocalOf(parseMac('02:63:77:00:00:02')), 'fe80::63:77ff:fe00:2');
    assert.equal(linkLocalOf(parseMac('00:00:00:00:00:00')), 'fe80::200:ff:fe00:0');
  });
});
