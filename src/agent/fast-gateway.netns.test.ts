// Fast paths where hosts route the network themselves, in the namespace that is everybody's: what others have there stays as it is, what
// the host translates goes the long way, and a flow may change from one way to the other at any time.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { closeSync } from 'node:fs';
import { after, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { mustBeIsolated } from '#test/isolated.ts';
import { makeNetwork } from '#drivers/cluster.fixture.ts';
import { linkIndexes } from '#kernel/batch.ts';
import { setFilter } from '#kernel/bpf.ts';
import { assemble, compute, exit } from '#kernel/bpf-assembler.ts';
import { loadFilterProgram } from '#kernel/libc.ts';
import { NetlinkSocket } from '#kernel/netlink/socket.ts';
import { inNetns } from '#kernel/netns.ts';
import { familyOf } from '#model/ip.ts';
import { endpointLink, probePort } from '#model/numbers.ts';
import type { Endpoint } from '#model/resources.ts';
import { differences, digest, FastBed, one, skipFast, until } from './fast-bed.fixture.ts';

mustBeIsolated();

const options = { skip: skipFast, timeout: 600_000 };
const network = makeNetwork('fastgate00', { vni: 78, model: 'flannel', carry: 'host-gateway' });
const published = { ports: [{ protocol: 'tcp' as const, hostPort: 8080, port: 7000 }] };
const bed = skipFast === false ? new FastBed(network, published) : undefined;
after(() => bed?.[Symbol.dispose]());

const made = (): FastBed => bed ?? assert.fail('tests are skipped');
const addressOf = ({ addresses }: Endpoint, family: 4 | 6): string => addresses.find((own) => familyOf(own) === family) ?? '';
const uplinkFilters = (): string => made().sides[0].run('tc', 'filter', 'show', 'dev', 'eth0', 'ingress');

test('every frame that arrives is the same with and without fast paths', options, async () => {
  const frames = made().frames();
  const slow = await made().through(false, () => made().observe(frames));
  const fast = await made().through(true, () => made().observe(frames));
  assert.deepEqual(differences(slow.result, fast.result), []);
  const counts = Object.values(slow.result).map(({ length }) => length);
  assert.ok(
    counts.every((count) => count > 15),
    `frames arrived: ${counts.join(', ')}`,
  );
  const shares = fast.forwarded.map((count, index) => count / (slow.forwarded[index] ?? 0));
  assert.ok(
    shares.every((share) => share < 0.6),
    `short cuts were taken: ${shares.join(' and ')} of the packets were still forwarded`,
  );
});

test('streams arrive whole over fast paths, also where the way takes less than the sender thinks', options, () => made().assertStreams());

test('a published port answers containers of this host and of another, and everybody else is short meanwhile', options, async () => {
  const { client, neighbour, far, sides } = made();
  const bytes = randomBytes(1024 * 1024);
  for (const side of sides) side.apply(true);
  for (const from of [neighbour, far]) {
    const { received, ended } = await made().listen(client);
    const sender = made().start(from, 'socat', '-u', 'STDIN', `TCP4:${one.underlay[0]?.ip}:8080`);
    const direct = await made().through(true, () => made().stream([client, far], 4, randomBytes(10 * 1024 * 1024)));
    assert.ok(Math.max(...direct.forwarded) < 200, `${direct.forwarded.join(' and ')} packets were forwarded`);
    sender.stdin?.end(bytes);
    await ended;
    assert.equal(digest(received()), digest(bytes), `${from.owner} to the published port`);
  }
});

test('a stream goes on when its packets change their way, whoever drops what connection tracking finds invalid', options, async () => {
  const { client, far, sides } = made();
  const strict =
    'add table inet others; add chain inet others forward { type filter hook forward priority 0; }; add rule inet others forward ct state invalid drop';
  for (const side of sides) side.run('nft', strict);
  const ways: readonly (readonly [boolean, boolean])[] = [
    [true, true],
    [false, false],
    [true, false],
    [false, true],
    [true, true],
  ];
  for (const family of [4, 6] as const) {
    for (const side of sides) side.apply(false);
    const { received, ended } = await made().listen(far);
    const target = addressOf(far, family);
    const sender = made().start(client, 'socat', '-u', 'STDIN', family === 4 ? `TCP4:${target}:7000` : `TCP6:[${target}]:7000`);
    const sent: Buffer[] = [];
    const say = async (): Promise<void> => {
      const bytes = randomBytes(2 * 1024 * 1024);
      sent.push(bytes);
      sender.stdin?.write(bytes);
      await until('what was sent to arrive', () => received().length === sent.reduce((sum, part) => sum + part.length, 0));
    };
    await say();
    for (const [here, there] of ways) {
      const before = sides.map((side) => side.forwarded());
      sides[0].apply(here);
      sides[1].apply(there);
      await say();
      const isShort = here && there;
      const forwarded = sides.map((side, index) => side.forwarded() - (before[index] ?? 0));
      assert.equal(
        forwarded.every((count) => count < 50),
        isShort,
        `short ${here} and ${there}: ${forwarded.join(' and ')} packets were forwarded`,
      );
    }
    sender.stdin?.end();
    await ended;
    assert.equal(digest(received()), digest(Buffer.concat(sent)));
  }
  for (const side of sides) side.run('nft', 'delete table inet others');
});

test('what comes with the address of somebody who is not there takes the long way, where the host refuses it', options, async () => {
  const { client, neighbour, far, sides } = made();
  const [here, there] = sides;
  for (const side of sides) side.apply(true);
  const setting = ['net.ipv4.conf.all.rp_filter', 'net.ipv4.conf.eth0.rp_filter'];
  there.run('ip', 'address', 'add', `${addressOf(client, 4)}/32`, 'dev', 'lo');
  for (const [value, expected] of [
    ['0', true],
    ['1', false],
  ] as const) {
    for (const name of setting) here.run('sysctl', '-q', '-w', `${name}=${value}`);
    const { frames, stop } = await made().capture(neighbour);
    const earlier = here.forwarded();
    const text = `pretended ${value}`;
    there.run('sh', '-c', `echo ${text} | socat -u STDIN UDP4-SENDTO:${addressOf(neighbour, 4)}:7,bind=${addressOf(client, 4)}`);
    made().inside(far, 'sh', '-c', `echo honest | socat -u STDIN UDP4-SENDTO:${addressOf(neighbour, 4)}:7`);
    await until('the honest packet to arrive', () => frames().some((bytes) => bytes.includes('honest')));
    assert.equal(
      frames().some((bytes) => bytes.includes(text)),
      expected,
      `rp_filter ${value}`,
    );
    assert.equal(here.forwarded() - earlier, expected ? 1 : 0, 'a pretended packet was not taken by a fast path');
    stop();
  }
  for (const name of setting) here.run('sysctl', '-q', '-w', `${name}=0`);
  there.run('ip', 'address', 'delete', `${addressOf(client, 4)}/32`, 'dev', 'lo');
});

test('what hosts ask each other with addresses of containers takes the long way, on which they listen', options, async () => {
  const { client, far, sides } = made();
  const [here] = sides;
  for (const side of sides) side.apply(true);
  const { frames, stop } = await made().capture(client);
  for (const family of [4, 6] as const) {
    const target = family === 4 ? `UDP4-SENDTO:${addressOf(client, 4)}` : `UDP6-SENDTO:[${addressOf(client, 6)}]`;
    for (const [ports, isProbe] of [
      ['7', false],
      [`${probePort}`, true],
      [`7,sourceport=${probePort}`, true],
    ] as const) {
      const text = `by ${family} to ${ports}`;
      const earlier = here.forwarded();
      made().inside(far, 'sh', '-c', `echo ${text} | socat -u STDIN ${target}:${ports}`);
      await until('the packet to arrive', () => frames().some((bytes) => bytes.includes(text)));
      assert.equal(here.forwarded() - earlier, isProbe ? 1 : 0, text);
    }
  }
  stop();
});

test('a process without memory finds its fast paths and writes nothing', options, () => made().assertFound());

test("a filter of ours on the host's link that somebody removes is put back, and those of others stay", options, async () => {
  const [side] = made().sides;
  const others = 'filter add dev eth0 ingress pref 7 protocol 0x88b5 u32 match u32 0 0 flowid 1:1';
  const drifted = await made().assertMended([
    ['filter', 'del', 'dev', 'eth0', 'ingress', 'pref', '198'],
    ['qdisc', 'del', 'dev', 'eth0', 'clsact'],
    ['filter', 'del', 'dev', endpointLink(made().client.id), 'ingress'],
  ]);
  side.run('tc', ...others.split(' '));
  await setTimeout(200);
  assert.deepEqual(drifted, [], 'what others do in places of their own is not ours to look at');
  side.apply(false);
  assert.match(uplinkFilters(), /pref 7 u32/);
  assert.doesNotMatch(uplinkFilters(), /cw_/, 'nothing of ours is left on the link of the host');
});

test('a filter of somebody else in the place of ours stays, and is told of', options, () => {
  const [side] = made().sides;
  side.apply(false);
  inNetns(side.place, () => {
    using socket = new NetlinkSocket();
    const fd = loadFilterProgram(assemble([compute('mov', 'r0', -1), exit]), 'theirs');
    const index = [...linkIndexes(socket, ['eth0']).values()][0] ?? assert.fail('no link');
    socket.batch([setFilter(index, { fd, name: 'theirs', door: 'second entrance' }, 'add theirs')]);
    closeSync(fd);
  });
  const { failing } = inNetns(side.place, () => side.reconciler.apply(side.desired(true), true));
  assert.deepEqual(
    failing.map(({ fault }) => [fault.code, fault.errno]),
    [['kernel', 'EEXIST']],
  );
  assert.match(uplinkFilters(), /theirs/);
  side.run('tc', 'filter', 'del', 'dev', 'eth0', 'ingress', 'pref', '198');
  side.reconciler.suspect();
  side.apply(true);
  assert.match(uplinkFilters(), /cw_/);
});

test('a link to other hosts that was made again is known by its new number', options, () => {
  const { client, sides } = made();
  const [side] = sides;
  const nameOf = (): string => /cw_[0-9a-f]+/.exec(side.run('tc', 'filter', 'show', 'dev', endpointLink(client.id), 'ingress'))?.[0] ?? '';
  side.apply(true);
  const before = nameOf();
  side.run('ip', 'link', 'set', 'eth0', 'down');
  side.run('ip', 'link', 'set', 'eth0', 'name', 'eth7');
  side.run('ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'wire0');
  side.run('ip', 'link', 'set', 'eth0', 'up');
  side.reconciler.suspect();
  side.apply(true);
  assert.match(uplinkFilters(), /cw_/);
  assert.match(nameOf(), /^cw_/);
  assert.notEqual(nameOf(), before);
});
