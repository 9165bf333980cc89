import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { isFault } from '#model/fault.ts';
import { parseIp } from '#model/ip.ts';
import { leadOut } from './default-route.ts';
import { createNetns, removeNetns } from './netns.ts';

mustBeIsolated();

const directory = mkdtempSync(join(tmpdir(), 'causeway-netns-'));
const sandbox = `${directory}/sandbox`;
createNetns(directory, 'sandbox');
after(() => removeNetns(directory, 'sandbox'));
const inside = (...words: string[]): string => execFileSync('nsenter', [`--net=${sandbox}`, 'ip', ...words], { encoding: 'utf8' });
for (const [link, number] of [
  ['eth0', 1],
  ['net1', 2],
] as const) {
  inside('link', 'add', link, 'type', 'veth', 'peer', 'name', `${link}-far`);
  inside('link', 'set', `${link}-far`, 'up');
  inside('link', 'set', link, 'up');
  inside('addr', 'add', `10.9.${number}.5/24`, 'dev', link);
  inside('addr', 'add', `fd00:${number}::5/64`, 'dev', link, 'nodad');
}
const defaults = (): string[] =>
  [...inside('route', 'show', 'default').split('\n'), ...inside('-6', 'route', 'show', 'default').split('\n')]
    .filter((line) => line !== '')
    .map((line) => line.replace(/ (proto|metric|pref) .*/, ''));

test('default routes of whichever making lead over the other link, in the families that have a gateway there', () => {
  inside('route', 'add', 'default', 'via', '10.9.1.1', 'dev', 'eth0');
  inside('route', 'add', 'default', 'via', '10.9.1.2', 'dev', 'eth0', 'metric', '100', 'proto', 'static');
  inside('-6', 'route', 'add', 'default', 'via', 'fd00:1::1', 'dev', 'eth0');
  leadOut(sandbox, 'net1', [parseIp('10.9.2.1')]);
  assert.deepEqual(defaults(), ['default via 10.9.2.1 dev net1', 'default via fd00:1::1 dev eth0']);
  leadOut(sandbox, 'net1', [parseIp('10.9.2.7'), parseIp('fd00:2::1')]);
  assert.deepEqual(defaults(), ['default via 10.9.2.7 dev net1', 'default via fd00:2::1 dev net1']);
});

test('a link that is not there, or a gateway that is not on it, is refused', () => {
  const before = defaults();
  assert.throws(
    () => leadOut(sandbox, 'net2', [parseIp('10.9.2.1')]),
    (error) => isFault(error, 'kernel') && error.message.includes('net2'),
  );
  assert.deepEqual(defaults(), before);
  assert.throws(
    () => leadOut(sandbox, 'net1', [parseIp('10.1.1.1')]),
    (error) => isFault(error, 'kernel') && error.errno === 'ENETUNREACH',
  );
});
