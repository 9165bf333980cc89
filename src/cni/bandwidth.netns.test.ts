// Limits as a runtime asks for them hold in both directions: what a bucket lets pass takes at least as long as its rate says.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { eventually } from '#agent/namespaces.fixture.ts';
import { CniBed, ip, ownLinks } from '#test/cni-bed.ts';

mustBeIsolated();
let bed: CniBed;
before(async () => {
  bed = await CniBed.start();
});
after(() => bed[Symbol.asyncDispose]());

const megabit = 1_000_000;
const bytes = 1_000_000;
const slow = { bandwidth: { ingressRate: 8 * megabit, ingressBurst: 4_294_967_295, egressRate: 4 * megabit, egressBurst: 100_000 } };

const inside = (box: string, script: string) =>
  spawn('ip', ['netns', 'exec', box, 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'ignore'], timeout: 30_000 });

/** Seconds that a megabyte needs from one box to another. */
async function seconds(from: string, to: string, address: string): Promise<number> {
  const sink = inside(to, 'exec socat -u TCP-LISTEN:9000,reuseaddr STDOUT | wc -c');
  let received = '';
  sink.stdout.on('data', (chunk) => (received += String(chunk)));
  const done = once(sink, 'close');
  await eventually(() => ip('netns', 'exec', to, 'ss', '-Hltn', 'sport = :9000') !== '', 'the listener');
  const began = performance.now();
  inside(from, `head -c ${bytes} /dev/zero | socat -u STDIN TCP:${address}:9000`);
  await done;
  assert.equal(received.trim(), String(bytes));
  return (performance.now() - began) / 1000;
}
const buckets = (): number => ip('-br', 'link').match(/^cwi\w+/gm)?.length ?? 0;

for (const [network, more] of [
  ['flat', {}],
  ['apart', { name: 'apart' }],
] as const) {
  test(`a container's rates hold in both directions on the network ${network}`, async (t) => {
    const [one, two] = [bed.box(t, 'one'), bed.box(t, 'two')];
    const [first, second] = [await one.add({ ...more, runtimeConfig: slow }), await two.add(more)];
    assert.deepEqual([first.status, second.status], [0, 0], first.msg + second.msg);
    const [own = ''] = first.addresses;
    const [other = ''] = second.addresses;
    assert.ok((await seconds('two', 'one', own)) > 0.8, 'a megabyte to it at 8 Mbit/s, 64 KiB of it at once');
    assert.ok((await seconds('one', 'two', other)) > 1.8, 'a megabyte from it at 4 Mbit/s, 12.5 kB of it at once');
    for (const container of ['one', 'two']) await bed.execute({ command: 'DEL', container, conf: more });
    assert.deepEqual([buckets(), ownLinks()], [0, []], 'nothing is left');
  });
}

test('an agent that is restarted keeps a limit and writes nothing', async (t) => {
  const one = bed.box(t, 'one');
  await one.add({ runtimeConfig: slow });
  await bed.stopAgent('SIGKILL');
  await bed.startAgent();
  assert.equal(buckets(), 1);
  const { kernelWrites } = await eventually(() => (bed.status().desired > 0 ? bed.status() : false), 'a plan');
  assert.equal(kernelWrites, 0);
});
