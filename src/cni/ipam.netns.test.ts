// Addresses by the real host-local plugin, and by ranges that a runtime names: each is given once, and given back whatever fails.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { CniBed, ip, pings } from '#test/cni-bed.ts';

mustBeIsolated();
let bed: CniBed;
/** The first three numbers of the host's own addresses. */
let block = '';
before(async () => {
  bed = await CniBed.start();
  ip('netns', 'add', 'probe');
  const { addresses } = await bed.execute({ command: 'ADD', container: 'probe' });
  block = addresses[0]?.replace(/\.\d+$/, '') ?? '';
  await bed.execute({ command: 'DEL', container: 'probe' });
  ip('netns', 'del', 'probe');
});
after(() => bed[Symbol.asyncDispose]());

const env = { CNI_PATH: '/opt/cni/bin:/usr/lib/cni' };
const store = (): string => join(bed.folder, 'host-local');
/** Addresses that host-local has given and not got back. */
const given = (): string[] =>
  existsSync(join(store(), 'flat'))
    ? readdirSync(join(store(), 'flat'))
        .filter((name) => name.startsWith(block))
        .toSorted()
    : [];
/** One that this release of host-local speaks, with addresses from 200 on. */
const conf = (more: object = {}) => ({
  cniVersion: '1.0.0',
  ipam: { type: 'host-local', dataDir: store(), subnet: `${block}.0/24`, rangeStart: `${block}.200`, rangeEnd: `${block}.203`, ...more },
});
const add = (container: string, more: object = {}) => bed.execute({ command: 'ADD', container, conf: conf(more), env });
const status = (ipam: object) => bed.execute({ command: 'STATUS', container: '', conf: { cniVersion: '1.1.0', ipam }, env });
const del = (container: string) => bed.execute({ command: 'DEL', container, conf: conf(), env });

test("another plugin's addresses are the container's, checked by both, and given back with it", async (t) => {
  const [one, two] = [bed.box(t, 'one'), bed.box(t, 'two')];
  const [first, second] = [await add('one'), await add('two')];
  assert.deepEqual([first.addresses, second.addresses], [[`${block}.200`], [`${block}.201`]], first.msg + second.msg);
  assert.deepEqual([one.pings(`${block}.201`), two.pings(`${block}.200`), pings(`${block}.200`)], [true, true, true]);
  assert.deepEqual((await add('one')).addresses, first.addresses, 'a repeated ADD answers the same');
  assert.deepEqual(given(), [`${block}.200`, `${block}.201`]);
  const check = await bed.execute({ command: 'CHECK', container: 'one', conf: { ...conf(), prevResult: first.json }, env });
  assert.equal(check.status, 0, check.msg);
  assert.equal((await del('one')).status, 0);
  assert.deepEqual(given(), [`${block}.201`]);
  assert.equal((await del('one')).status, 0, 'as often as it is asked');
});

test('an ADD that fails gives the address back', async (t) => {
  assert.equal((await add('nowhere')).code, 5);
  assert.deepEqual(given(), []);
  bed.box(t, 'one');
  assert.equal((await add('one', { rangeStart: '10.9.0.5', rangeEnd: '10.9.0.9', subnet: '10.9.0.0/24' })).code, 7, 'not of the network');
  assert.deepEqual(
    readdirSync(join(store(), 'flat')).filter((name) => name.startsWith('10.9.')),
    [],
  );
  assert.equal((await add('one', { type: 'no-such-plugin' })).code, 2);
});

test('an address that one of ours has is not given to another', async (t) => {
  const [one] = [bed.box(t, 'one'), bed.box(t, 'two')];
  const { addresses } = await one.add({ runtimeConfig: { ips: [`${block}.202`] } });
  assert.deepEqual(addresses, [`${block}.202`]);
  assert.equal((await add('two', { rangeStart: `${block}.202`, rangeEnd: `${block}.202` })).code, 100);
  assert.deepEqual(given(), []);
});

test('GC tells the plugin, too', async (t) => {
  bed.box(t, 'one');
  await add('one');
  assert.deepEqual(given().length, 1);
  const gc = { 'cni.dev/valid-attachments': [] };
  assert.equal((await bed.execute({ command: 'GC', container: '', conf: gc })).status, 0);
  assert.deepEqual(given(), []);
});

test('GC is told as it is to a plugin that has it, with what the runtime has, and to no other', async () => {
  const folder = join(bed.folder, 'plugins');
  mkdirSync(folder);
  const plugin = (name: string, versions: string): void =>
    writeFileSync(
      join(folder, name),
      `#!/bin/sh
case $CNI_COMMAND in
  VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":[${versions}]}' ;;
  *) { echo "$CNI_COMMAND$CNI_CONTAINERID"; cat; } >>${folder}/said ;;
esac
`,
      { mode: 0o755 },
    );
  plugin('older', '"0.4.0","1.0.0"');
  plugin('newer', '"1.0.0","1.1.0"');
  const valid = [{ containerID: 'unknown', ifname: 'eth0' }];
  for (const type of ['older', 'newer']) {
    const gc = { cniVersion: '1.1.0', ipam: { type }, 'cni.dev/valid-attachments': valid };
    const { status: code, msg } = await bed.execute({ command: 'GC', container: '', conf: gc, env: { CNI_PATH: folder } });
    assert.equal(code, 0, msg);
  }
  const [command, ...input] = readFileSync(join(folder, 'said'), 'utf8').split('\n');
  const said = JSON.parse(input.join('\n')) as Record<string, unknown>;
  assert.deepEqual([command, said['type'], said['ipam'], said['cni.dev/valid-attachments']], ['GC', 'newer', { type: 'newer' }, valid]);
});

test('STATUS asks the plugin, too, and not for addresses of our own', async () => {
  const refused = await status({ ...conf().ipam });
  // Debian's release does not speak that version, so an ADD would be refused as well.
  assert.equal(refused.code, 50);
  assert.match(refused.msg, /^Plugin host-local refuses STATUS: /);
  assert.equal((await status({ type: 'no-such-plugin' })).code, 2);
});

test('ranges that the runtime names: one address of each set, until they are used up', async (t) => {
  const ranges = (start: number, end: number) => ({
    runtimeConfig: { ipRanges: [[{ subnet: `${block}.0/24`, rangeStart: `${block}.${start}`, rangeEnd: `${block}.${end}` }]] },
  });
  const boxes = ['one', 'two', 'three'].map((name) => bed.box(t, name));
  const answers = [];
  for (const box of boxes) answers.push(await box.add(ranges(210, 211)));
  assert.deepEqual(
    answers.map(({ addresses, code }) => addresses[0] ?? code),
    [`${block}.210`, `${block}.211`, 101],
  );
});
