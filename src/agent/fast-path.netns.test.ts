// A fast path may only ever be faster: two hosts, three containers, the same frames and streams with and without it, and
// everything that arrives anywhere must be the same.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { makeNetwork } from '#drivers/cluster.fixture.ts';
import { endpointLink } from '#model/numbers.ts';
import { differences, FastBed, skipFast } from './fast-bed.fixture.ts';

mustBeIsolated();

const options = { skip: skipFast, timeout: 600_000 };
const network = makeNetwork('fastpath00', { vni: 77 });
const bed = skipFast === false ? new FastBed(network) : undefined;
after(() => bed?.[Symbol.dispose]());

const made = (): FastBed => bed ?? assert.fail('tests are skipped');

for (const internal of [false, true]) {
  test(
    `every frame that arrives ${internal ? 'in an internal network ' : ''}is the same with and without fast paths`,
    options,
    async () => {
      const { sides } = made();
      for (const side of sides) side.snapshot = made().snapshotWith({ ...network, internal });
      const frames = made().frames();
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

test('streams arrive whole over fast paths, also where the way takes less than the sender thinks', options, () => made().assertStreams());

test('a process without memory finds its fast paths and writes nothing', options, () => made().assertFound());

test('a filter that somebody removes is missed and put back', options, async () => {
  const [side] = made().sides;
  const link = endpointLink(made().client.id);
  await made().assertMended([
    ['filter', 'del', 'dev', link, 'ingress'],
    ['qdisc', 'del', 'dev', link, 'clsact'],
  ]);
  assert.equal(side.apply(false), 3, 'what is not wanted any more is removed');
});
