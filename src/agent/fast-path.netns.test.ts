// A fast path may only ever be faster: two hosts, three containers, the same frames and streams with and without it, and
// everything that arrives anywhere must be the same.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { makeNetwork } from '#drivers/cluster.fixture.ts';
import { inNetns } from '#kernel/netns.ts';
import { parseIp, parseMac } from '#model/ip.ts';
import { endpointLink, gatewayMac } from '#model/numbers.ts';
import type { Endpoint } from '#model/resources.ts';
import { differences, FastBed, run, skipFast, until } from './fast-bed.fixture.ts';
import { type End, framesOf } from './fast-frames.fixture.ts';
import { Reconciler } from './reconcile.ts';

mustBeIsolated();

const options = { skip: skipFast, timeout: 120_000 };
const network = makeNetwork('fastpath00', { vni: 77 });
const bed = skipFast === false ? new FastBed(network) : undefined;
after(() => bed?.[Symbol.dispose]());

const made = (): FastBed => bed ?? assert.fail('tests are skipped');
const endOf = ({ mac, addresses: [ip4, ip6] }: Endpoint): End => ({ mac, ip4: parseIp(`${ip4}`), ip6: parseIp(`${ip6}`) });

for (const internal of [false, true]) {
  test(
    `every frame that arrives ${internal ? 'in an internal network ' : ''}is the same with and without fast paths`,
    options,
    async () => {
      const { client, neighbour, far, sides } = made();
      for (const side of sides) side.snapshot = made().snapshotWith({ ...network, internal });
      const frames = framesOf(endOf(client), endOf(neighbour), endOf(far), {
        gateway: gatewayMac,
        elsewhere: { ip4: parseIp('192.0.2.7'), ip6: parseIp('2001:db8::7') },
        nobody: { ip4: parseIp('10.0.0.9'), ip6: parseIp('fd00:7:7::9') },
        stranger: parseMac('0a:00:00:00:00:99'),
      });
      const slow = await made().through(false, () => made().observe(frames));
      const fast = await made().through(true, () => made().observe(frames));
      assert.deepEqual(differences(slow.result, fast.result), []);
      assert.ok(Object.values(slow.result).every((list) => list.length > 25));
      const shares = fast.forwarded.map((count, index) => count / (slow.forwarded[index] ?? 0));
      assert.ok(
        shares.every((share) => share < 0.6),
        `short cuts were taken: ${shares.join(' and ')} of the packets were still forwarded`,
      );
    },
  );
}

const digest = (all: Buffer): string => createHash('sha256').update(all).digest('hex');

test('streams arrive whole over fast paths, also where the way takes less than the sender thinks', options, async () => {
  const { client, neighbour, far } = made();
  const bytes = randomBytes(50 * 1024 * 1024);
  for (const [from, to] of [
    [client, neighbour],
    [client, far],
    [far, client],
  ] as const) {
    for (const family of [4, 6] as const) {
      const { result, forwarded } = await made().through(true, () => made().stream([from, to], family, bytes));
      assert.equal(digest(result), digest(bytes), `${from.owner} to ${to.owner} over IPv${family}`);
      assert.ok(Math.max(...forwarded) < 200, `short cuts were taken: ${forwarded.join(' and ')} packets were still forwarded`);
    }
  }
});

test('a process without memory finds its fast paths and writes nothing', options, () => {
  for (const side of made().sides) {
    side.apply(true);
    const again = new Reconciler(side.kinds);
    assert.equal(inNetns(side.place, () => again.apply(side.desired(true), true)).changed, 0);
  }
});

test('a filter that somebody removes is missed and put back', options, async () => {
  const [side] = made().sides;
  const drifted: (string | undefined)[] = [];
  side.apply(true);
  side.drifted = (netns) => drifted.push(netns);
  const link = endpointLink(made().client.id);
  for (const words of [
    ['filter', 'del', 'dev', link, 'ingress'],
    ['qdisc', 'del', 'dev', link, 'clsact'],
  ]) {
    drifted.length = 0;
    run('nsenter', `--net=${side.domain}`, 'tc', ...words);
    await until('the drift to be noticed', () => drifted.length > 0);
    for (const netns of drifted) side.reconciler.suspect(netns);
    assert.equal(side.apply(true), 1);
  }
  assert.equal(side.apply(false), 3, 'what is not wanted any more is removed');
});
