// Two hosts with a domain each, joined by WireGuard, as links and configurations of the kinds. Two networks with the same
// address range run beside each other to show that devices, ports and keys do not meet.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { getPriority, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import type { WireguardConfig, WireguardLink } from '#model/desired.ts';
import { isFault } from '#model/fault.ts';
import type { Cidr, Ip } from '#model/ip.ts';
import { createNetns, inNetns, removeNetns } from './netns.ts';
import { Sockets } from './sockets.ts';
import { createWireguardKind, probeWireguard } from './wireguard.ts';
import type { WireguardBackend } from './wireguard-config.ts';
import { createKernelWireguard, hasKernelWireguard } from './wireguard-kernel.ts';
import { generateKeyPair } from './wireguard-keys.ts';
import { createUserspaceWireguard, findWireguardGo } from './wireguard-userspace.ts';

mustBeIsolated();

const starter = findWireguardGo();
const root = mkdtempSync(`${tmpdir()}/cwwg-`);
const directory = `${root}/netns`;
const sockets = new Sockets(directory);
const path = (name: string) => `${directory}/${name}`;
const domains = ['cw-t1', 'cw-t2', 'cw-peer1', 'cw-peer2'];

function ip(...words: string[]): void {
  const { status, stderr } = spawnSync('ip', words, { encoding: 'utf8' });
  assert.equal(status, 0, `ip ${words.join(' ')}: ${stderr}`);
}

const ipIn = (netns: string, ...words: string[]) => inNetns(path(netns), () => ip(...words));

for (const name of domains) createNetns(directory, name, () => ip('link', 'set', 'lo', 'up'));

const keyOf = { here: generateKeyPair(), there: generateKeyPair() };
// Both hosts share one namespace here: the underlay is loopback, which is enough for ports, keys and moves.
ip('link', 'set', 'lo', 'up');
ip('addr', 'add', '192.0.2.1/32', 'dev', 'lo');
ip('addr', 'add', '192.0.2.2/32', 'dev', 'lo');

const link = (netns: string, name: string, mtu = 1376): WireguardLink => ({
  type: 'wireguard',
  netns,
  name,
  mtu,
  alias: `causeway test ${name}`,
});
const config = (netns: string, name: string, port: number, remote: { key: string; port: number; allowed: string }): WireguardConfig => ({
  netns,
  link: name,
  port,
  peers: [{ publicKey: remote.key, endpoint: { ip: '192.0.2.1' as Ip, port: remote.port }, allowed: [remote.allowed as Cidr] }],
});
const ping = (netns: string, target: string, ...more: string[]) =>
  inNetns(path(netns), () => spawnSync('ping', ['-c', '1', '-W', '2', ...more, target], { encoding: 'utf8' }).status === 0);
const eventually = async (holds: () => boolean, what: string) => {
  for (const end = Date.now() + 60_000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 20))) if (holds()) return;
  assert.fail(`not within a minute: ${what}`);
};

after(() => {
  for (const file of starter === undefined ? [] : readdirSync(root)) if (file.endsWith('.sock')) rmSync(`${root}/${file}`);
  sockets[Symbol.dispose]();
  for (const name of domains) removeNetns(directory, name);
  spawnSync('umount', ['-l', directory]);
  rmSync(root, { recursive: true, force: true });
});

function suite(name: string, open: (() => WireguardBackend) | undefined): void {
  const skip = open === undefined ? `no ${name} WireGuard here` : false;

  test(`${name}: devices carry traffic between domains, change peers without loss, and go away`, { skip, timeout: 600_000 }, async () => {
    assert.ok(open !== undefined);
    const backend = open();
    const kinds = {
      here: createWireguardKind({ backend, privateKey: keyOf.here.privateKey }),
      there: createWireguardKind({ backend, privateKey: keyOf.there.privateKey }),
    };
    const { devices } = backend;
    const links = [link('cw-t1', 'cww1'), link('cw-peer1', 'cww101'), link('cw-t2', 'cww2'), link('cw-peer2', 'cww102')];
    for (const item of links) {
      devices.add(item);
      assert.deepEqual(devices.list(item.netns), [item]);
      devices.add(item);
      assert.deepEqual(devices.list(item.netns), [item]);
    }
    assert.deepEqual(devices.list(''), []);
    assert.deepEqual(devices.list('cw-absent'), []);
    assert.deepEqual(kinds.here.list('cw-t1'), [], 'no configuration yet');

    const mine = [1, 2].map((n) =>
      config(`cw-t${n}`, `cww${n}`, 51830 + n, { key: keyOf.there.publicKey, port: 51840 + n, allowed: '10.0.2.0/24' }),
    );
    const theirs = [1, 2].map((n) =>
      config(`cw-peer${n}`, `cww10${n}`, 51840 + n, { key: keyOf.here.publicKey, port: 51830 + n, allowed: '10.0.1.0/24' }),
    );
    assert.deepEqual(kinds.here.add(mine), []);
    assert.deepEqual(kinds.there.add(theirs), []);
    for (const [index, wanted] of mine.entries()) {
      const [found] = kinds.here.list(wanted.netns);
      assert.ok(found !== undefined && kinds.here.same(wanted, found));
      ipIn(wanted.netns, 'addr', 'add', '10.0.1.1/32', 'dev', wanted.link);
      ipIn(wanted.netns, 'route', 'add', '10.0.2.0/24', 'dev', wanted.link);
      const other = theirs[index];
      ipIn(other?.netns ?? '', 'addr', 'add', '10.0.2.1/32', 'dev', other?.link ?? '');
      ipIn(other?.netns ?? '', 'route', 'add', '10.0.1.0/24', 'dev', other?.link ?? '');
    }
    await eventually(() => ping('cw-t1', '10.0.2.1'), 'ping over network 1');
    await eventually(() => ping('cw-t2', '10.0.2.1'), 'ping over network 2');
    assert.ok(ping('cw-t1', '10.0.2.1', '-M', 'do', '-s', String(1376 - 28)), 'a full-size packet passes');
    assert.ok(!ping('cw-t1', '10.0.2.1', '-M', 'do', '-s', String(1376 - 27)), 'a larger one does not');

    const third = {
      publicKey: generateKeyPair().publicKey,
      endpoint: { ip: '192.0.2.2' as Ip, port: 9 },
      allowed: ['10.0.3.0/24' as Cidr],
    };
    const [first] = mine;
    assert.ok(first !== undefined);
    const more = { ...first, peers: [...first.peers, third] };
    assert.deepEqual(kinds.here.add([more]), []);
    assert.equal(kinds.here.list('cw-t1')[0]?.peers.length, 2);
    assert.deepEqual(kinds.here.add([first]), []);
    assert.equal(kinds.here.list('cw-t1')[0]?.peers.length, 1);
    assert.ok(ping('cw-t1', '10.0.2.1'));

    const [, far] = links;
    const [theirFirst] = theirs;
    assert.ok(far !== undefined && theirFirst !== undefined);
    devices.remove(far);
    devices.add(far);
    assert.deepEqual(kinds.there.add([theirFirst]), []);
    ipIn('cw-peer1', 'addr', 'add', '10.0.2.1/32', 'dev', 'cww101');
    ipIn('cw-peer1', 'route', 'add', '10.0.1.0/24', 'dev', 'cww101');
    await eventually(() => ping('cw-t1', '10.0.2.1'), 'a device that was made anew introduces itself');

    const foreign = createWireguardKind({ backend, privateKey: generateKeyPair().privateKey });
    const [seen] = foreign.list('cw-t1');
    assert.ok(seen !== undefined && !foreign.same(first, seen), 'a device with another key differs');

    assert.deepEqual(kinds.here.remove([first]), []);
    assert.deepEqual(kinds.here.list('cw-t1'), []);
    assert.equal(kinds.here.add([{ ...first, link: 'cww99' }])[0]?.fault.errno, 'ENODEV');
    assert.deepEqual(kinds.here.remove([{ ...first, link: 'cww99' }]), []);
    for (const item of links) {
      devices.remove(item);
      assert.deepEqual(devices.list(item.netns), []);
      devices.remove(item);
    }
  });
}

suite('kernel', hasKernelWireguard() ? () => createKernelWireguard(sockets) : undefined);
suite('userspace', starter === undefined ? undefined : () => createUserspaceWireguard({ sockets, directory: root, starter }));

const userspace = { skip: starter === undefined ? 'no wireguard-go here' : false, timeout: 600_000 };
const backend = () => createUserspaceWireguard({ sockets, directory: root, starter: starter ?? { program: '' } });
/** Processes that have this device's name as their last argument. */
const processes = (name: string): string[] =>
  spawnSync('pgrep', ['-f', `wireguard-go -f ${name}$`], { encoding: 'utf8' })
    .stdout.split('\n')
    .filter((line) => line !== '');

test('another agent adopts a running process, and the device keeps its number', userspace, () => {
  const item = link('cw-t1', 'cww7');
  backend().devices.add(item);
  const before = processes('cww7');
  assert.equal(before.length, 1);
  const later = backend();
  assert.deepEqual(later.devices.list('cw-t1'), [item]);
  later.devices.add(item);
  assert.deepEqual(processes('cww7'), before);
  later.devices.remove(item);
});

test('a process goes before others of its session, and its session before others', userspace, () => {
  const item = link('cw-t1', 'cww7');
  const { devices } = backend();
  devices.add(item);
  const [pid = ''] = processes('cww7');
  assert.deepEqual(
    readdirSync(`/proc/${pid}/task`).filter((thread) => getPriority(Number(thread)) !== -20),
    [],
  );
  // Kernels without CONFIG_SCHED_AUTOGROUP have no such file.
  const session = `/proc/${pid}/autogroup`;
  if (existsSync(session)) assert.match(readFileSync(session, 'utf8'), / nice -20$/m);
  devices.remove(item);
});

test('a process that dies takes the device along, and adding makes it again', userspace, async () => {
  const item = link('cw-t1', 'cww7');
  const { devices } = backend();
  devices.add(item);
  for (const pid of processes('cww7')) spawnSync('kill', ['-KILL', pid]);
  await eventually(() => devices.list('cw-t1').length === 0, 'the device is gone');
  devices.add(item);
  assert.deepEqual(devices.list('cw-t1'), [item]);
  devices.remove(item);
});

const ignore = (): void => undefined;

test('a process that ends as it starts is told at once, with its last words', userspace, () => {
  const program = join(root, 'ending');
  writeFileSync(program, '#!/bin/sh\necho no more devices; exit 1\n', { mode: 0o755 });
  const { devices } = createUserspaceWireguard({ sockets, directory: root, starter: { program } });
  assert.throws(
    () => devices.add(link('cw-t1', 'cww7')),
    (error) => isFault(error, 'kernel') && error.message.includes('cww7: it has ended') && String(error.cause).includes('no more devices'),
  );
});

test('signals do not break into a conversation with the process', userspace, (t) => {
  const item = link('cw-t1', 'cww7');
  const opened = backend();
  const kind = createWireguardKind({ backend: opened, privateKey: keyOf.here.privateKey });
  const wanted = config('cw-t1', 'cww7', 51837, { key: keyOf.there.publicKey, port: 51847, allowed: '10.0.2.0/24' });
  opened.devices.add(item);
  process.on('SIGWINCH', ignore);
  const sender = spawn('sh', ['-c', `while kill -WINCH ${process.pid}; do :; done`], { stdio: 'ignore' });
  t.after(() => {
    sender.kill('SIGKILL');
    process.off('SIGWINCH', ignore);
    opened.devices.remove(item);
  });
  for (let round = 0; round < 300; round++) {
    assert.deepEqual(kind.add([wanted]), []);
    assert.equal(kind.list('cw-t1').length, 1);
  }
});

test('a device that is down, or has another MTU, is found different and made right', userspace, () => {
  const item = link('cw-t1', 'cww7');
  const { devices } = backend();
  devices.add(item);
  ipIn('cw-t1', 'link', 'set', 'cww7', 'down');
  assert.notDeepEqual(devices.list('cw-t1'), [item]);
  devices.add(item);
  assert.deepEqual(devices.list('cw-t1'), [item]);
  const larger = link('cw-t1', 'cww7', 8896);
  devices.add(larger);
  assert.deepEqual(devices.list('cw-t1'), [larger]);
  devices.remove(larger);
});

test('a domain that vanishes ends the process of its device', userspace, async () => {
  createNetns(directory, 'cw-t3', () => undefined);
  backend().devices.add(link('cw-t3', 'cww7'));
  sockets.forget('cw-t3');
  removeNetns(directory, 'cw-t3');
  await eventually(() => processes('cww7').length === 0, 'the process ended');
  backend().devices.add(link('cw-t1', 'cww7'));
  backend().devices.remove(link('cw-t1', 'cww7'));
});

test('a device left in the host namespace by a crash is listed there, and taken from there', userspace, () => {
  const { devices } = backend();
  devices.add(link('', 'cww7'));
  assert.equal(devices.list('').length, 1);
  devices.add(link('cw-t1', 'cww7'));
  assert.deepEqual(devices.list(''), []);
  devices.remove(link('', 'cww7'));
  assert.equal(devices.list('cw-t1').length, 1, 'removing it where it is no longer leaves it where it is');
  devices.remove(link('cw-t1', 'cww7'));
});

/** As in a pod: a first process, whose end is everybody's, and the directory of sockets at its place. */
const ownerOf = (folder: string) => {
  const script = join(import.meta.dirname, '..', '..', 'packaging', 'image', 'wireguard');
  const line = 'mkdir -p /var/run/wireguard && mount --bind "$1" /var/run/wireguard && exec busybox sh "$2"';
  const words = ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', 'sh', '-c', line, 'sh', folder, script];
  return spawn('unshare', words, { stdio: 'ignore' });
};

test('somebody else who is asked for processes keeps them while agents come and go, and they end with him', userspace, async (t) => {
  const item = link('cw-t1', 'cww7');
  const pipe = join(root, 'start');
  const asking = () => createUserspaceWireguard({ sockets, directory: root, starter: { pipe } });
  assert.throws(
    () => asking().devices.add(item),
    (error) => isFault(error, 'unsupported') && /nobody starts wireguard-go here/.test(error.message),
  );
  const owner = ownerOf(root);
  t.after(() => owner.kill('SIGKILL'));
  const isThere = () => existsSync(pipe) && spawnSync('busybox', ['timeout', '1', 'sh', '-c', `: >${pipe}`]).status === 0;
  await eventually(isThere, 'somebody reads the pipe');
  asking().devices.add(item);
  const before = processes('cww7');
  assert.equal(before.length, 1);
  asking().devices.add(item);
  assert.deepEqual(processes('cww7'), before);
  asking().devices.remove(item);
  await eventually(() => processes('cww7').length === 0, 'a process that is not wanted any more ended');
  asking().devices.add(item);
  owner.kill('SIGKILL');
  await eventually(() => asking().devices.list('cw-t1').length === 0, 'the device went with whom it belonged to');
  assert.throws(
    () => asking().devices.add(item),
    (error) => isFault(error, 'unsupported'),
  );
  const next = ownerOf(root);
  t.after(() => next.kill('SIGKILL'));
  await eventually(() => asking().devices.list('').length === 1, 'the next one has started it again by himself');
  asking().devices.add(item);
  assert.deepEqual(asking().devices.list('cw-t1'), [item]);
  assert.equal(processes('cww7').length, 1);
  asking().devices.remove(item);
});

test('the probe names what there is', () => {
  assert.equal(probeWireguard(), hasKernelWireguard() ? 'kernel' : starter === undefined ? 'none' : 'userspace');
  assert.equal(probeWireguard('/run/nobody'), hasKernelWireguard() ? 'kernel' : 'userspace');
});
