import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeHost } from '#drivers/cluster.fixture.ts';
import { type Cidr, parseCidr } from '#model/ip.ts';
import type { Host } from '#model/resources.ts';
import { LearnedRoutes } from './learned-routes.ts';

test('nobody looks before a host speaks BGP; then every change asks for another plan, until there was one', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  let hosts: Host[] = [makeHost(1, { carrying: { wants: 'vxlan', sends: ['vxlan'] } })];
  let routes: Cidr[] = [];
  let [looks, changes] = [0, 0];
  const list = (): Cidr[] => {
    looks++;
    return routes;
  };
  using learned = new LearnedRoutes({ list, hosts: () => hosts, changed: () => void changes++ });
  assert.equal(learned.current(), undefined);
  t.mock.timers.tick(5000);
  assert.equal(looks, 0);
  hosts = [makeHost(1, { carrying: { wants: 'bgp', sends: ['vxlan'] } })];
  assert.deepEqual(learned.current(), new Set());
  t.mock.timers.tick(500);
  assert.equal(changes, 0);
  routes = [parseCidr('10.244.1.0/24')];
  t.mock.timers.tick(500);
  assert.equal(changes, 1);
  assert.deepEqual(learned.current(), new Set(routes));
  assert.equal(learned.last, learned.last);
  t.mock.timers.tick(500);
  assert.equal(changes, 1);
  hosts = [makeHost(1, { carrying: { wants: 'vxlan', sends: ['bgp'] } })];
  assert.deepEqual(learned.current(), new Set(routes));
});
