import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { contains, familyOf, formatIp, linkLocalOf, overlaps, parseCidr, parseIp, parseMac } from './ip.ts';
import {
  domainName,
  endpointLink,
  endpointMac,
  endpointPeerLink,
  gatewayMac,
  gatewayOf,
  mostGateways,
  transitAddress,
  transitBase,
  tunnelBase,
  uplink,
  uplinkLink,
  vtepAddress,
  vtepMac,
  vxlanLink,
  wireguardLink,
  wireguardPortOf,
} from './numbers.ts';

const hostIndex = fc.integer({ min: 1, max: 65_535 });
const vni = fc.integer({ min: 1, max: 2 ** 24 - 1 });
const id = fc.string({ unit: fc.constantFrom(...'0123456789abcdefghijklmnopqrstuvwxyz'.split('')), minLength: 10, maxLength: 64 });

test('every link name fits the kernel and begins with our prefix', () => {
  fc.assert(
    fc.property(id, vni, (text, number) => {
      for (const name of [
        endpointLink(text),
        endpointPeerLink(text),
        uplinkLink(text),
        vxlanLink(number),
        wireguardLink(number),
        uplink.link,
      ]) {
        assert.ok(Buffer.byteLength(name) <= 15, name);
        assert.ok(name.startsWith('cw'), name);
      }
      assert.equal(domainName(text), `cw-${text}`);
    }),
  );
});

test("a host's numbers are its own, of both families, and valid", () => {
  fc.assert(
    fc.property(hostIndex, hostIndex, (one, other) => {
      assert.equal(parseMac(vtepMac(one)), vtepMac(one));
      for (const family of [4, 6] as const) {
        assert.equal(familyOf(vtepAddress(one, family)), family);
        assert.equal(vtepAddress(one, family) === vtepAddress(other, family), one === other);
      }
      assert.ok(contains(tunnelBase[4], vtepAddress(one, 4)));
      assert.equal(vtepAddress(one, 6), linkLocalOf(vtepMac(one)));
      assert.equal(vtepMac(one) === vtepMac(other), one === other);
    }),
  );
});

test('the highest host and slot still lie inside their ranges', () => {
  assert.equal(vtepMac(65_535), '02:63:77:00:ff:ff');
  assert.ok(contains(tunnelBase[4], vtepAddress(65_535, 4)));
  for (const family of [4, 6] as const) assert.ok(contains(transitBase[family], transitAddress(32_766, family)));
  assert.deepEqual([transitAddress(1, 4), transitAddress(32_766, 6)], ['100.127.0.1', 'fd63:7701::7ffe']);
});

test('fixed numbers do not meet each other', () => {
  const ranges = [transitBase[4], tunnelBase[4], parseCidr('169.254.0.0/16'), transitBase[6], tunnelBase[6], parseCidr('fe80::/10')];
  for (const [index, range] of ranges.entries())
    for (const other of ranges.slice(index + 1)) assert.ok(!overlaps(range, other), `${range} ${other}`);
  const gateways = Array.from({ length: mostGateways }, (_, index) => gatewayOf(4, index + 1));
  assert.equal(new Set(gateways).size, mostGateways);
  const links = [uplink.domain[4], uplink.host[4]];
  assert.ok(!gateways.some((ip) => links.includes(ip)));
  const gateways6 = Array.from({ length: mostGateways }, (_, index) => gatewayOf(6, index + 1));
  assert.ok(gateways6.every((ip) => parseIp(ip) === ip && ip !== uplink.domain[6] && ip !== uplink.host[6]));
  assert.equal(new Set([gatewayMac, uplink.hostMac, uplink.domainMac, vtepMac(65_535)]).size, 4);
});

test('an endpoint has a valid MAC that follows from its address', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }), (value) => {
      const mac = endpointMac(formatIp(value, 4));
      assert.equal(parseMac(mac), mac);
      assert.equal(Number.parseInt(mac.slice(6).replaceAll(':', ''), 16), Number(value));
      assert.equal(endpointMac(formatIp((0xfdn << 120n) | value, 6)), mac);
    }),
  );
});

test('every network has a port of an encrypted kind', () => {
  fc.assert(
    fc.property(vni, (number) => {
      const port = wireguardPortOf(number);
      assert.ok(port >= 51_820 && port < 51_820 + 4096 && port <= 65_535);
    }),
  );
});
