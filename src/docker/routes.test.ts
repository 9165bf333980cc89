import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr, parseIp } from '#model/ip.ts';
import { shareAddresses, staticRoutes } from './routes.ts';

const gateways = { 4: parseIp('169.254.1.1'), 6: parseIp('fe80::1') };
const brief = (routes: ReturnType<typeof staticRoutes>): string[] =>
  routes.map((route) => `${route.Destination} ${route.RouteType} ${route.NextHop ?? ''}`.trim());

test('host prefixes get their gateways and their network through them', () => {
  const routes = staticRoutes({
    answer: { link: 'x', gateways, routes: [{ destination: parseCidr('169.254.1.1/32') }] },
    pools: [parseCidr('10.0.0.0/24'), parseCidr('fd00::/64'), parseCidr('10.2.0.0/24')],
    interfaces: [
      { ip: parseIp('10.0.0.5'), length: 32 },
      { ip: parseIp('fd00::5'), length: 128 },
    ],
  });
  assert.deepEqual(brief(routes), [
    '169.254.1.1/32 1',
    'fe80::1/128 1',
    '10.0.0.0/24 0 169.254.1.1',
    'fd00::/64 0 fe80::1',
    '10.2.0.0/24 0 169.254.1.1',
  ]);
});

test('a whole prefix on the link is covered by two halves', () => {
  const routes = staticRoutes({
    answer: { link: 'x', gateways: { 4: gateways[4] }, routes: [] },
    pools: [parseCidr('172.18.0.0/16'), parseCidr('fd00::/64')],
    interfaces: [{ ip: parseIp('172.18.0.2'), length: 16 }],
  });
  assert.deepEqual(brief(routes), ['169.254.1.1/32 1', '172.18.0.0/17 0 169.254.1.1', '172.18.128.0/17 0 169.254.1.1']);
});

test("the agent's own routes are kept", () => {
  const routes = staticRoutes({
    answer: { link: 'x', gateways: {}, routes: [{ destination: parseCidr('10.9.0.0/24'), via: parseIp('10.0.0.1') }] },
    pools: [],
    interfaces: [],
  });
  assert.deepEqual(brief(routes), ['10.9.0.0/24 0 10.0.0.1']);
});

test('sharing addresses is overlap of one family', () => {
  assert.equal(shareAddresses([parseCidr('10.0.0.0/24')], [parseCidr('10.0.0.0/16')]), true);
  assert.equal(shareAddresses([parseCidr('10.0.0.0/24'), parseCidr('fd00::/64')], [parseCidr('10.0.1.0/24')]), false);
});
