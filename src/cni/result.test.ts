import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse } from '#api/parse.ts';
import { parseIp } from '#model/ip.ts';
import { appendResult, type Result, result, versions, writeResult } from './result.ts';

const gateway = parseIp('169.254.1.1');
const own: Result = {
  interfaces: [
    { name: 'cweabc', mac: '02:63:77:ff:ff:01', mtu: 1400 },
    { name: 'eth0', mac: '0a:63:0a:f4:01:02', mtu: 1400, sandbox: '/run/netns/one' },
  ],
  ips: [
    { address: '10.244.1.2/32', gateway, interface: 1 },
    { address: 'fd00::2/128', interface: 1 },
  ],
  routes: [{ dst: '0.0.0.0/0', gw: gateway, mtu: 1400 }],
  dns: { nameservers: ['10.96.0.10'] },
};

test('each version gets what it knows', () => {
  const old = {
    interfaces: [
      { name: 'cweabc', mac: '02:63:77:ff:ff:01' },
      { name: 'eth0', mac: '0a:63:0a:f4:01:02', sandbox: '/run/netns/one' },
    ],
    ips: own.ips,
    routes: [{ dst: '0.0.0.0/0', gw: gateway }],
    dns: own.dns,
  };
  const oldest = { ...old, ips: own.ips.map((ip, index) => ({ version: index === 0 ? '4' : '6', ...ip })) };
  assert.deepEqual(
    versions.map((version) => writeResult(own, version)),
    [
      { cniVersion: '0.3.1', ...oldest },
      { cniVersion: '0.4.0', ...oldest },
      { cniVersion: '1.0.0', ...old },
      { cniVersion: '1.1.0', ...own },
    ],
  );
});

test('what was written is read again, less what the version has no room for', () => {
  const back = versions.map((version) => writeResult(parse(result, writeResult(own, version), 'result'), version));
  assert.deepEqual(
    back,
    versions.map((version) => writeResult(own, version)),
  );
});

test('a result of another plugin, with gaps', () => {
  assert.deepEqual(parse(result, { ips: null, code: 5 }, 'result'), { interfaces: [], ips: [], routes: [], dns: {} });
});

test('a later plugin appends, and its addresses keep naming its own links', () => {
  const earlier: Result = {
    interfaces: [{ name: 'lo' }],
    ips: [{ address: '127.0.0.1/8', interface: 0 }],
    routes: [],
    dns: { domain: 'x' },
  };
  const both = appendResult(earlier, { ...own, dns: {} });
  assert.deepEqual(
    [both.interfaces.map(({ name }) => name), both.ips.map((ip) => ip.interface), both.routes, both.dns],
    [['lo', 'cweabc', 'eth0'], [0, 2, 2], own.routes, { domain: 'x' }],
  );
});
