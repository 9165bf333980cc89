// The bed that all other end-to-end tests lie in: real engines side by side on one machine, apart from each other and from
// the machine, and gone without a trace.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { cgroupExists, processesOf } from '#lab/cgroup.ts';
import { docker, killDockerd, startDockerd, stopDockerd } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import { boxImage, importImages } from '#lab/images.ts';
import { createLab, destroyLab, type Lab, openLab } from '#lab/lab.ts';
import { isAlive } from '#lab/process.ts';
import { labDisk, labFolder, labGroup, readLab } from '#lab/state.ts';
import { outsideAddress } from '#lab/underlay.ts';
import { until } from '#lab/until.ts';
import { namespacesOf, stillUsing, usersOfNamespaces } from './namespaces.ts';

const name = 'e2e-lab';
let lab: Lab;
let first: Host;
let second: Host;

before(async () => {
  await destroyLab(name);
  lab = await createLab({ name, hosts: 2 });
  const [a, b] = lab.hosts;
  assert.ok(a !== undefined && b !== undefined);
  first = a;
  second = b;
  await Promise.all(lab.hosts.map((host) => startDockerd(host, { liveRestore: true })));
  await Promise.all(lab.hosts.map((host) => importImages(host, [boxImage])));
});

after(() => destroyLab(name));

test('hosts reach each other and the outside world over both families, with full-size packets only up to the MTU', async () => {
  for (const address of [second.address, second.address6, outsideAddress, lab.controller.address]) {
    await until(`${address} to answer`, () => first.exec(['ping', '-c1', '-W2', address]));
  }
  await first.exec(['ping', '-c1', '-W2', '-Mdo', '-s1422', second.address]);
  const tooLong = await first.exec(['ping', '-c1', '-W1', '-Mdo', '-s1423', second.address], { anyStatus: true });
  assert.notEqual(tooLong.status, 0);
});

test('each host has its own name, engine, files and resolver', async () => {
  assert.deepEqual(await Promise.all(lab.hosts.map((host) => host.ask(['hostname']))), ['host1', 'host2']);
  const ids = await Promise.all(lab.hosts.map((host) => docker(host, ['info', '--format', '{{.ID}} {{.Name}}'])));
  assert.equal(new Set(ids).size, 2);
  await first.exec(['sh', '-c', 'echo mine >/etc/causeway/mark']);
  assert.equal((await second.exec(['cat', '/etc/causeway/mark'], { anyStatus: true })).status, 1);
  assert.equal(existsSync('/etc/causeway/mark'), false);
  assert.match(await first.ask(['busybox', 'nslookup', 'internet.example']), /198\.51\.100\.10/);
});

test('engines do not see each other’s networks, and containers do not reach across', async () => {
  await docker(first, ['network', 'create', '--subnet', '172.30.1.0/24', 'only-here']);
  await docker(first, [
    'run',
    '--detach',
    '--network',
    'only-here',
    '--ip',
    '172.30.1.5',
    '--name',
    'target',
    boxImage.name,
    'sleep',
    '600',
  ]);
  assert.doesNotMatch(await docker(second, ['network', 'ls', '--format', '{{.Name}}']), /only-here/);
  const ping = ['ping', '-c3', '-W1', '172.30.1.5'];
  await docker(first, ['run', '--rm', '--network', 'only-here', boxImage.name, ...ping]);
  await assert.rejects(docker(second, ['run', '--rm', boxImage.name, ...ping]), (error) => isFault(error, 'internal'));
});

test('the outside world sees a container as its host', async () => {
  const page = await docker(first, ['run', '--rm', boxImage.name, 'wget', '-qO-', 'http://internet.example/']);
  assert.equal(page, first.address);
});

test('a killed engine leaves its containers alone and finds them again', async () => {
  const inspect = (): Promise<string> => docker(first, ['inspect', '--format', '{{.State.Pid}} {{.State.StartedAt}}', 'target']);
  const pid = await inspect();
  await killDockerd(first);
  await startDockerd(first, { liveRestore: true });
  assert.equal(await inspect(), pid);
  await stopDockerd(first);
  await startDockerd(first, { liveRestore: true });
  assert.equal(await inspect(), pid);
});

test('a reboot ends everything but the disk, and starts the services again', async () => {
  await docker(second, ['run', '--detach', '--restart', 'always', '--name', 'keeps', boxImage.name, 'sleep', '600']);
  await second.exec([
    'sh',
    '-c',
    'echo kept >/var/lib/causeway/mark; echo gone >/run/causeway/mark; ip netns add left; ip link add cwleft type veth',
  ]);
  const boot = await second.ask(['cat', '/proc/sys/kernel/random/boot_id']);
  const machine = await second.ask(['cat', '/etc/machine-id']);
  await lab.reboot(second);
  assert.notEqual(await second.ask(['cat', '/proc/sys/kernel/random/boot_id']), boot);
  assert.equal(await second.ask(['cat', '/etc/machine-id']), machine);
  assert.equal(await second.ask(['cat', '/var/lib/causeway/mark']), 'kept');
  assert.equal(await second.ask(['sh', '-c', 'ls /run/causeway /run/netns']), '/run/causeway:\n\n/run/netns:');
  assert.doesNotMatch(await second.ask(['ip', 'link']), /cwleft/);
  await until('it to be reached', () => first.exec(['ping', '-c1', '-W2', second.address]));
  await until(
    'the container to be back',
    async () => (await docker(second, ['inspect', '--format', '{{.State.Running}}', 'keeps'])) === 'true',
  );
});

test('a pulled cable cuts a host off until it is plugged again', async () => {
  const ping = async (): Promise<number> => (await first.exec(['ping', '-c1', '-W1', second.address], { anyStatus: true })).status;
  await lab.pullCable(second);
  assert.notEqual(await ping(), 0);
  await lab.plugCable(second);
  await until('the host to be reached again', async () => (await ping()) === 0);
});

test('a program in a host is signalled itself', async () => {
  const sleeper = first.spawn(['sleep', '600']);
  await until('the program to run', async () => (await first.ask(['pgrep', '-f', '-x', 'sleep 600'])) !== '');
  sleeper.kill('SIGTERM');
  assert.equal((await sleeper.ended).status, 143);
});

test('a lab is found by its name, and is not built twice', async () => {
  assert.deepEqual(openLab(name)?.record, lab.record);
  await assert.rejects(createLab({ name }), (error) => isFault(error, 'exists'));
  assert.equal(openLab('no-such-lab'), undefined);
});

test('two builders of one name do not meet', async () => {
  const results = await Promise.allSettled([createLab({ name: 'e2e-twice', hosts: 1 }), createLab({ name: 'e2e-twice', hosts: 1 })]);
  await destroyLab('e2e-twice');
  const [built, refused] = results;
  assert.equal(built?.status, 'fulfilled');
  assert.ok(refused?.status === 'rejected' && isFault(refused.reason, 'in-use'));
});

test('a builder that is killed half-way leaves a lab that can be destroyed', async () => {
  const half = 'e2e-half';
  const script = `import { createLab } from '${join(import.meta.dirname, '../lab/lab.ts')}'; await createLab({ name: '${half}', hosts: 3 });`;
  const builder = spawn(process.execPath, ['--input-type=module-typescript', '--eval', script], { stdio: 'inherit' });
  await until('the lab to have processes', () => processesOf(labGroup(half)).length > 2, { intervalMs: 1 });
  builder.kill('SIGKILL');
  await once(builder, 'exit');
  assert.notEqual(readLab(half)?.status, 'ready');
  assert.equal(openLab(half), undefined);
  await destroyLab(half);
  assertGone(half);
});

test('destroying leaves no process, namespace, mount, control group or file', async () => {
  const members = processesOf(labGroup(name));
  const namespaces = new Set(members.flatMap(({ pid }) => namespacesOf(pid)));
  for (const id of namespacesOf(process.pid)) namespaces.delete(id);
  assert.ok(members.length > 10 && namespaces.size > 10);
  const users = usersOfNamespaces();
  await destroyLab(name);
  assertGone(name);
  assert.deepEqual(members.filter(isAlive), []);
  assert.deepEqual(stillUsing(users, namespaces), []);
  await destroyLab(name);
});

function assertGone(gone: string): void {
  assert.deepEqual(processesOf(labGroup(gone)), []);
  assert.equal(cgroupExists(labGroup(gone)), false);
  assert.equal(existsSync(labFolder(gone)), false);
  assert.equal(existsSync(labDisk(gone)), false);
  assert.doesNotMatch(readFileSync('/proc/self/mountinfo', 'utf8'), new RegExp(`causeway-lab/${gone}`));
}
