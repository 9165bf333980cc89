// By which link an address is reached.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr, parseIp } from '#model/ip.ts';
import { wayFinder } from './ways.ts';

const route = (destination: string, link?: string) => ({ destination: parseCidr(destination), protocol: 2, link });

test('the longest prefix counts, of several routes for it the first, and none where there is none', () => {
  const wayTo = wayFinder([
    route('0.0.0.0/0', 'eth0'),
    route('0.0.0.0/0', 'eth9'),
    route('10.0.0.0/8', 'eth1'),
    route('10.1.2.0/24'),
    route('10.1.2.3/32', 'eth2'),
    route('fd00::/64', 'eth3'),
  ]);
  assert.deepEqual(
    ['192.0.2.1', '10.9.9.9', '10.1.2.9', '10.1.2.3', 'fd00::1', 'fd01::1'].map((ip) => wayTo(parseIp(ip))),
    ['eth0', 'eth1', undefined, 'eth2', 'eth3', undefined],
  );
});
