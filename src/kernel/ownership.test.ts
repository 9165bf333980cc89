import assert from 'node:assert/strict';
import { test } from 'node:test';
import { linkLocalOf, parseIp, parseMac } from '#model/ip.ts';
import { isOurAddress, isOurLink, isOurNetns } from './ownership.ts';

const mac = parseMac('02:63:77:ff:ff:01');

for (const [link, ours] of [
  [{ name: 'cwe1', kind: 'veth', alias: 'causeway endpoint' }, true],
  [{ name: 'cwe1', kind: 'veth', alias: '' }, false],
  [{ name: 'cwx1', kind: 'vxlan', alias: '' }, true],
  [{ name: 'cwbr0', kind: 'bridge', alias: 'causeway looks like it' }, false],
  [{ name: 'veth1', kind: 'veth', alias: 'causeway looks like it' }, false],
  [{ name: 'eth0', kind: '', alias: '' }, false],
] as const) {
  test(`link ${link.name}, ${link.kind}, alias '${link.alias}', is ${ours ? '' : 'not '}ours`, () => assert.equal(isOurLink(link), ours));
}

for (const [about, link, ip, protocol, domain, ours] of [
  ['the gateway on lo of a domain', 'lo', '169.254.1.1', 197, true, true],
  ['the same on lo of the host', 'lo', '169.254.1.1', 197, false, false],
  ['loopback', 'lo', '127.0.0.1', 1, true, false],
  ['IPv6 loopback', 'lo', '::1', 1, true, false],
  ['the gateway on a link of ours', 'cwe1', 'fe80::1', 197, true, true],
  ['what somebody added to a link of ours', 'cwe1', '10.0.0.1', 0, false, true],
  ['the link-local address that the kernel gave', 'cwe1', linkLocalOf(mac), 3, true, false],
  ['the same, of a kernel that does not say so', 'cwe1', linkLocalOf(mac), 0, true, false],
  ['what a router advertised', 'cwe1', 'fd00::1', 2, true, false],
  ['an address of a foreign link', 'eth0', '10.0.0.1', 0, false, false],
  ['one that we put there', 'eth0', '10.0.0.1', 197, false, true],
  ['one of that protocol in a domain', 'eth0', '10.0.0.1', 197, true, false],
] as const) {
  test(`${about} is ${ours ? '' : 'not '}ours`, () => assert.equal(isOurAddress({ link, mac, ip: parseIp(ip), protocol }, domain), ours));
}

test('namespaces are ours by their prefix', () => assert.deepEqual(['cw-1', 'cw', 'foo'].map(isOurNetns), [true, false, false]));
