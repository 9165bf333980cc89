import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { before, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { hasHeldRoutes, holdRoutes, releaseRoutes } from './held-routes.ts';
import { NetlinkSocket } from './netlink/socket.ts';

mustBeIsolated();

function ip(words: string): string {
  const { status, stdout, stderr } = spawnSync('ip', words.split(' '), { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout;
}
const routes = (family: string, proto: number): string[] =>
  ip(`-N ${family} route show proto ${proto}`)
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');

before(() => {
  ip('link add out type veth peer name far');
  for (const link of ['lo', 'out', 'far']) ip(`link set ${link} up`);
  ip('address add 10.5.0.1/24 dev out');
  ip('address add fd05::1/64 dev out nodad');
});

test('while routes of bird are held, a destination is reached as before when they go, and not after the release', () => {
  using socket = new NetlinkSocket();
  ip('route add 10.6.0.0/26 via 10.5.0.2 proto bird metric 100');
  ip('route add 10.6.0.64/26 proto bird metric 100 nexthop via 10.5.0.3 nexthop via 10.5.0.4');
  ip('-6 route add fd06::/122 via fd05::2 proto bird metric 100');
  ip('route add 10.7.0.0/26 via 10.5.0.9');
  holdRoutes(socket);
  holdRoutes(socket);
  assert.equal(routes('-4', 198).length, 4, 'two, one of them with two next hops in lines of their own');
  assert.equal(routes('-6', 198).length, 1);
  assert.match(ip('route get 10.6.0.1'), /via 10\.5\.0\.2 /);

  for (const family of ['-4', '-6']) ip(`${family} route flush proto bird`);
  assert.match(ip('route get 10.6.0.1'), /via 10\.5\.0\.2 /);
  assert.match(ip('route get 10.6.0.65'), /via 10\.5\.0\.[34] /);
  assert.match(ip('-6 route get fd06::1'), /via fd05::2 /);

  assert.equal(hasHeldRoutes(socket), true);
  releaseRoutes(socket);
  assert.equal(hasHeldRoutes(socket), false);
  assert.deepEqual([routes('-4', 198), routes('-6', 198)], [[], []]);
  assert.match(ip('route show 10.7.0.0/26'), /via 10\.5\.0\.9/);
});
