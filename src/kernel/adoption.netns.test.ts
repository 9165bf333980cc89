// Another system's tunnel becomes ours with everything that hangs on it, and without it only where it cannot.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import type { Route, VxlanLink } from '#model/desired.ts';
import { parseCidr, parseIp, parseMac } from '#model/ip.ts';
import { createKinds, type RealKinds } from './kinds.ts';

mustBeIsolated();

let folder: string;
let kinds: RealKinds;

function ip(...words: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync('ip', words, { encoding: 'utf8' });
  assert.equal(status, 0, `ip ${words.join(' ')}: ${stderr}`);
  return stdout;
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'causeway-adoption-'));
  kinds = createKinds({ netnsDirectory: join(folder, 'netns'), birdDirectory: join(folder, 'bird') });
  ip('link', 'add', 'eth0', 'mtu', '1450', 'type', 'bridge');
  ip('addr', 'add', '10.213.0.1/16', 'dev', 'eth0');
  ip('link', 'set', 'eth0', 'up');
});
afterEach(() => {
  for (const link of ['eth0', 'flannel.1', 'cwx1']) spawnSync('ip', ['link', 'del', link]);
  kinds[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
});

const mac = '6a:01:02:03:04:05';
const wanted: VxlanLink = {
  type: 'vxlan',
  netns: '',
  name: 'cwx1',
  mtu: 1400,
  mac: parseMac(mac),
  alias: 'causeway test',
  vni: 1,
  port: 8472,
  local: parseIp('10.213.0.1'),
  checksum: false,
  adopts: 'flannel.1',
};
const theirs = (...more: readonly string[]): void => {
  ip('link', 'add', 'flannel.1', 'address', mac, 'type', 'vxlan', 'id', '1', 'dstport', '8472', 'nolearning', ...more);
  ip('link', 'set', 'flannel.1', 'up');
  ip('neigh', 'add', '10.5.2.0', 'lladdr', '6a:01:02:03:04:06', 'dev', 'flannel.1', 'nud', 'permanent');
  ip('route', 'add', '10.5.2.0/24', 'via', '10.5.2.0', 'dev', 'flannel.1', 'onlink');
};
const way = (changes: Partial<Route>): Route => ({
  netns: '',
  destination: parseCidr('10.5.2.0/24'),
  via: parseIp('100.126.0.2'),
  link: 'cwx1',
  onlink: true,
  type: 'unicast',
  ...changes,
});
const indexOf = (link: string): string => ip('-o', 'link', 'show', link).replace(/:.*/s, '');

for (const checksum of ['noudpcsum', 'udpcsum']) {
  test(`the same tunnel, made with ${checksum}, only gets another name; its routes are replaced by ours`, () => {
    theirs('local', '10.213.0.1', checksum);
    const index = indexOf('flannel.1');
    assert.deepEqual(kinds.link.add([wanted]), []);
    assert.equal(indexOf('cwx1'), index);
    assert.match(ip('-N', 'route', 'show', '10.5.2.0/24'), /via 10\.5\.2\.0 dev cwx1/);
    assert.match(ip('neigh', 'show', 'dev', 'cwx1'), /10\.5\.2\.0 lladdr 6a:01:02:03:04:06 PERMANENT/);
    const [found] = kinds.link.list('');
    assert.ok(found !== undefined && kinds.link.same(wanted, found), JSON.stringify(found));
    assert.deepEqual(kinds.route.add([way({})]), []);
    assert.match(ip('-N', 'route', 'show', '10.5.2.0/24'), /^10\.5\.2\.0\/24 via 100\.126\.0\.2 dev cwx1 proto 197 onlink\s*$/);
  });
}

test('a tunnel of that number that is another one makes room for ours', () => {
  theirs('local', '127.0.0.1');
  const index = indexOf('flannel.1');
  assert.deepEqual(kinds.link.add([wanted]), []);
  assert.notEqual(indexOf('cwx1'), index);
  assert.notEqual(spawnSync('ip', ['link', 'show', 'flannel.1']).status, 0);
});

test('a tunnel of another number or port, or one that nobody wants, stays', () => {
  ip('link', 'add', 'flannel.1', 'type', 'vxlan', 'id', '2', 'dstport', '8472', 'local', '10.213.0.1');
  assert.deepEqual(kinds.link.add([wanted]), []);
  ip('link', 'show', 'flannel.1');
  ip('link', 'del', 'cwx1');
  ip('link', 'del', 'flannel.1');
  theirs('local', '10.213.0.1');
  const { adopts: _none, ...plain } = wanted;
  assert.equal(kinds.link.add([plain])[0]?.fault.errno, 'EEXIST');
  ip('link', 'show', 'flannel.1');
});

test('routes by a host itself become ours where they lead the same way, and no others', () => {
  ip('route', 'add', '10.5.2.0/24', 'via', '10.213.0.2');
  ip('route', 'add', '10.5.3.0/24', 'via', '10.213.0.9');
  const by = { via: parseIp('10.213.0.2'), link: 'eth0' };
  const refused = kinds.route.add([way(by), way({ ...by, destination: parseCidr('10.5.3.0/24') })]);
  assert.deepEqual(
    refused.map(({ item, fault }) => [item.destination, fault.errno]),
    [['10.5.3.0/24', 'EEXIST']],
  );
  assert.match(ip('-N', 'route', 'show', '10.5.2.0/24'), /via 10\.213\.0\.2 dev eth0 proto 197/);
  assert.doesNotMatch(ip('-N', 'route', 'show', '10.5.3.0/24'), /proto 197/);
});
