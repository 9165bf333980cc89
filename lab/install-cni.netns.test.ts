// What the image puts into the host's folder of plugins and takes out of it again, by its own scripts in a root of their own.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { buildCni } from './cni.ts';

mustBeIsolated();

const scripts = join(import.meta.dirname, '..', 'packaging', 'image');
const root = mkdtempSync(join(tmpdir(), 'causeway-install-'));
const own = '/usr/lib/causeway';
const plugins = join(root, 'host', 'cni-bin');

before(async () => {
  for (const folder of ['bin', `${own}/cni`, 'host/cni-bin']) mkdirSync(join(root, folder), { recursive: true });
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  for (const applet of ['sh', 'cmp', 'cp', 'chmod', 'grep', 'mv', 'rm', 'sleep']) symlinkSync('busybox', join(root, 'bin', applet));
  for (const name of ['install-cni', 'uninstall']) copyFileSync(join(scripts, name), join(root, own, name));
  for (const name of ['causeway', 'loopback'] as const) copyFileSync(await buildCni(name), join(root, own, 'cni', name));
  writeFileSync(join(root, own, 'causeway'), '#!/bin/sh\n', { mode: 0o755 });
});

function run(script: 'install-cni' | 'uninstall'): void {
  const { status, stderr } = spawnSync('chroot', [root, '/bin/sh', `${own}/${script}`], {
    encoding: 'utf8',
    env: { PATH: '/usr/sbin:/bin' },
  });
  assert.equal(status, 0, stderr);
}
const shipped = (name: string): Buffer => readFileSync(join(root, own, 'cni', name));
const isShipped = (name: string): boolean => readFileSync(join(plugins, name)).equals(shipped(name));

test('programs of an earlier version are replaced, and whatever the version nothing of them is left', () => {
  for (const name of ['causeway', 'loopback']) writeFileSync(join(plugins, name), Buffer.concat([shipped(name), Buffer.from('earlier')]));
  run('install-cni');
  assert.deepEqual(['causeway', 'loopback'].map(isShipped), [true, true]);
  writeFileSync(join(plugins, 'loopback'), Buffer.concat([shipped('loopback'), Buffer.from('earlier')]));
  run('uninstall');
  assert.deepEqual(
    ['causeway', 'loopback'].map((name) => existsSync(join(plugins, name))),
    [false, false],
  );
});

test('a loopback plugin of others stays as it is', () => {
  writeFileSync(join(plugins, 'loopback'), 'of others');
  run('install-cni');
  run('uninstall');
  assert.equal(readFileSync(join(plugins, 'loopback'), 'utf8'), 'of others');
  run('uninstall');
});
