// The real program, the real agent, the real kernel: containers are network namespaces, as a runtime would have made them.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { mustBeIsolated } from '#test/isolated.ts';
import { CniBed, ip, ownLinks, pings } from '#test/cni-bed.ts';

mustBeIsolated();
let bed: CniBed;
before(async () => {
  bed = await CniBed.start();
});
after(() => bed[Symbol.asyncDispose]());

test('two containers reach each other and their host, by both families', async (t) => {
  const [one, two] = [bed.box(t, 'one'), bed.box(t, 'two')];
  const [first, second] = [await one.add(), await two.add()];
  assert.deepEqual([first.status, second.status, first.addresses.length], [0, 0, 2]);
  assert.deepEqual(second.addresses.map(one.pings), [true, true]);
  assert.deepEqual(first.addresses.map(pings), [true, true]);
  assert.equal(one.pings('10.213.0.1'), true);
});

test('a repeated ADD answers the same, also several at once; a CHECK agrees until something is missing', async (t) => {
  const one = bed.box(t, 'one');
  const { json } = await one.add();
  assert.deepEqual(
    (await Promise.all([one.add(), one.add()])).map((again) => again.json),
    [json, json],
  );
  const check = { command: 'CHECK', container: 'one', conf: { prevResult: json } };
  assert.equal((await bed.execute(check)).status, 0);
  ip('-n', 'one', 'route', 'del', 'default');
  assert.deepEqual((await bed.execute(check)).code, 5);
});

test('results in every version', async (t) => {
  const one = bed.box(t, 'one');
  for (const version of ['0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
    const { cniVersion, ips } = await one.add({ cniVersion: version });
    assert.deepEqual(
      [cniVersion, ips.map((address) => address.version)],
      [version, version.startsWith('0') ? ['4', '6'] : [undefined, undefined]],
    );
  }
  assert.equal((await one.add({ cniVersion: '0.2.0' })).code, 1);
});

test('DEL takes the link away before it answers, and succeeds as often as it is asked', async (t) => {
  const one = bed.box(t, 'one');
  await one.add();
  assert.deepEqual(one.links(), ['lo', 'eth0']);
  const del = { command: 'DEL', container: 'one' };
  assert.equal((await bed.execute(del)).status, 0);
  assert.deepEqual([one.links(), ownLinks()], [['lo'], []]);
  assert.equal((await bed.execute(del)).status, 0);
  const { status, addresses } = await one.add();
  assert.deepEqual([status, addresses.map(pings)], [0, [true, true]]);
  ip('netns', 'del', 'one');
  assert.equal((await bed.execute(del)).status, 0);
});

test('where it cannot attach it says so and leaves nothing', async (t) => {
  assert.equal((await bed.execute({ command: 'ADD', container: 'nowhere' })).code, 5);
  const one = bed.box(t, 'one');
  ip('-n', 'one', 'link', 'add', 'eth0', 'type', 'bridge');
  assert.equal((await one.add()).code, 5);
  assert.equal((await one.add({ network: 'nobody' })).code, 3);
  assert.deepEqual([one.links(), ownLinks()], [['lo', 'eth0'], []]);
});

test('a namespace that goes in the middle of an ADD: it says so or is in time, and DEL leaves nothing either way', async (t) => {
  const codes = new Set<number | undefined>();
  for (let round = 0; round < 12; round++) {
    ip('netns', 'add', 'fleeting');
    const adding = bed.execute({ command: 'ADD', container: 'fleeting' });
    await delay(round * 2);
    ip('netns', 'del', 'fleeting');
    codes.add((await adding).code);
    assert.equal((await bed.execute({ command: 'DEL', container: 'fleeting' })).status, 0);
    assert.deepEqual([ownLinks(), bed.status().addresses], [[], 0]);
  }
  assert.deepEqual(
    [...codes].filter((code) => code !== undefined && code !== 5),
    [],
  );
  assert.equal((await bed.box(t, 'one').add()).status, 0);
});

test('a network whose addresses are all given says so by STATUS, until one is given back', async (t) => {
  const conf = { name: 'small' };
  const status = () => bed.execute({ command: 'STATUS', container: '', conf });
  const boxes = [];
  for (let number = 0; ; number++) {
    const { code } = await bed.box(t, `small${number}`).add(conf);
    if (code === 101) break;
    assert.deepEqual([code, (await status()).status], [undefined, 0]);
    boxes.push(`small${number}`);
  }
  assert.ok(boxes.length > 0);
  const { code, msg } = await status();
  assert.equal(code, 50);
  assert.match(msg, /^Network small has no free address on \w+ \(10\.78\.0\.0\/29\)$/);
  assert.equal((await bed.execute({ command: 'DEL', container: boxes[0] ?? '', conf })).status, 0);
  assert.equal((await status()).status, 0);
  for (const container of boxes) await bed.execute({ command: 'DEL', container, conf });
});

test('GC detaches what the runtime no longer names', async (t) => {
  const [one, two] = [bed.box(t, 'one'), bed.box(t, 'two')];
  await Promise.all([one.add(), two.add()]);
  const valid = [{ containerID: 'two', ifname: 'eth0' }];
  assert.equal((await bed.execute({ command: 'GC', container: '', conf: { 'cni.dev/valid-attachments': valid } })).status, 0);
  assert.deepEqual([one.links(), two.links(), ownLinks().length], [['lo'], ['lo', 'eth0'], 1]);
});

test('an isolated network: its containers reach each other, the host does not reach them', async (t) => {
  const [one, two] = [bed.box(t, 'one'), bed.box(t, 'two')];
  const conf = { name: 'apart' };
  const both = [await one.add(conf), await two.add(conf)];
  assert.deepEqual(
    [both.map(({ status }) => status), one.pings(both[1]?.addresses[0]), pings(both[1]?.addresses[0])],
    [[0, 0], true, false],
  );
  for (const name of ['one', 'two']) await bed.execute({ command: 'DEL', container: name, conf });
});

test('an agent that is away: STATUS says so at once, and ADD waits for it to come back', async (t) => {
  const [one, two] = [bed.box(t, 'one'), bed.box(t, 'two')];
  const { addresses } = await one.add();
  assert.equal((await bed.execute({ command: 'STATUS', container: '' })).status, 0);
  await bed.stopAgent('SIGKILL');
  assert.equal((await bed.execute({ command: 'STATUS', container: '' })).code, 50);
  const waiting = two.add();
  await bed.startAgent();
  assert.deepEqual([(await waiting).status, two.pings(addresses[0])], [0, true]);
});
