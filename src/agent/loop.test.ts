import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { createFakeKinds, type FakeKinds } from '#kernel/fake.ts';
import { kernelFault } from '#kernel/libc.ts';
import { emptyDesired, type Desired } from '#model/desired.ts';
import { Loop, type LoopOptions } from './loop.ts';
import { type Outcome, Reconciler } from './reconcile.ts';

const one: Desired = { ...emptyDesired, netns: [{ name: 'cw-one' }] };
const two: Desired = { ...emptyDesired, netns: [{ name: 'cw-two' }] };
const domains = (kinds: FakeKinds): string[] => kinds.netns.list('').map(({ name }) => name);

/** A loop on a kernel in memory, with time that only passes when it is told to. */
function bed(t: TestContext, options: Partial<LoopOptions> & { readonly kinds?: FakeKinds } = {}) {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const kinds = options.kinds ?? createFakeKinds();
  const state = { desired: one as Desired | undefined, outcomes: [] as Outcome[], faults: [] as unknown[] };
  const loop = new Loop({
    reconciler: new Reconciler(kinds),
    plan: () => state.desired,
    maySweep: () => true,
    done: (outcome) => state.outcomes.push(outcome),
    failed: (error) => state.faults.push(error),
    restMs: 0,
    ...options,
  });
  t.after(() => loop[Symbol.dispose]());
  return { loop, kinds, state, tick: (ms: number) => t.mock.timers.tick(ms) };
}

test('many kicks make one run, a moment later', (t) => {
  const { loop, kinds, tick } = bed(t);
  for (let index = 0; index < 100; index++) loop.kick();
  assert.deepEqual([loop.runs, domains(kinds)], [0, []]);
  tick(5);
  assert.deepEqual([loop.runs, domains(kinds)], [1, ['cw-one']]);
  tick(1000);
  assert.equal(loop.runs, 1);
});

test('where something lingers there is a run when it has to go', (t) => {
  const lingers = [5000, undefined];
  const outcome = { desired: 0, changed: 0, failing: [], remadeLinks: [], mended: false };
  const { loop, tick } = bed(t, {
    reconciler: {
      apply: () => ({ ...outcome, lingersMs: lingers.shift() }),
      suspect: () => undefined,
      forget: () => undefined,
    },
  });
  loop.run();
  tick(4999);
  assert.equal(loop.runs, 1);
  tick(1);
  tick(5);
  assert.equal(loop.runs, 2);
  tick(20_000);
  assert.equal(loop.runs, 2);
});

test('kicked runs keep their distance, and the last kick is not forgotten', (t) => {
  const { loop, state, kinds, tick } = bed(t, { restMs: 100 });
  loop.kick();
  tick(5);
  for (let ms = 0; ms < 90; ms += 10) {
    loop.kick();
    tick(10);
  }
  assert.equal(loop.runs, 1);
  state.desired = two;
  loop.kick();
  tick(10);
  tick(5);
  assert.deepEqual([loop.runs, domains(kinds)], [2, ['cw-two']]);
  loop.kick();
  assert.notEqual(loop.run(), undefined, 'on demand there is no rest');
  tick(1000);
  assert.equal(loop.runs, 3, 'and it does what was asked for meanwhile');
});

test('who is in a hurry waits for as long as runs take to be a fifth of the time', (t) => {
  let [clock, used] = [0, 0];
  const plan = (): Desired => {
    used += 10;
    return one;
  };
  const { loop, tick } = bed(t, { restMs: 100, clocks: { now: () => clock, used: () => used }, plan });
  const pass = (ms: number): void => {
    clock += ms;
    tick(ms);
  };
  loop.kick();
  pass(5);
  assert.equal(loop.runs, 1);
  pass(10);
  loop.hurry();
  pass(29);
  assert.equal(loop.runs, 1);
  pass(1);
  pass(5);
  assert.equal(loop.runs, 2);
  loop.kick();
  pass(60);
  assert.equal(loop.runs, 2, 'others rest as ever');
  loop.hurry();
  pass(0);
  pass(5);
  assert.equal(loop.runs, 3, 'and go along');
});

test('who asks for a run at the same time gets the same one, with what all of them want', async (t) => {
  const { loop, state, kinds } = bed(t);
  const first = loop.runTogether();
  state.desired = two;
  assert.equal(await loop.runTogether(), await first);
  assert.deepEqual(domains(kinds), ['cw-two']);
  const [left, right] = await Promise.all([loop.runTogether(), loop.runTogether()]);
  assert.equal(left, right);
  const runs = loop.runs;
  const late = loop.runTogether();
  loop[Symbol.dispose]();
  assert.equal(await late, undefined, 'nothing is written after the end');
  assert.equal(loop.runs, runs);
});

test('a kick while others wait for a run is a part of that run', async (t) => {
  const { loop, state, kinds, tick } = bed(t);
  const together = loop.runTogether();
  state.desired = two;
  loop.kick();
  tick(1000);
  assert.equal(loop.runs, 0, 'it makes none of its own before');
  await together;
  tick(1000);
  assert.deepEqual([loop.runs, domains(kinds)], [1, ['cw-two']], 'nor one afterwards');
  loop.kick();
  tick(5);
  assert.equal(loop.runs, 2);
});

test('a run on demand does what a kick asked for', (t) => {
  const { loop, state, tick } = bed(t);
  loop.kick();
  assert.equal(loop.run()?.changed, 1);
  tick(1000);
  assert.equal(loop.runs, 1);
  state.desired = two;
  loop.kick();
  tick(5);
  assert.deepEqual([loop.runs, state.outcomes.map(({ changed }) => changed)], [2, [1, 2]]);
});

test('a kick during a run makes another run, not one inside it', (t) => {
  const depth = { now: 0, most: 0, left: 3 };
  const { loop, tick } = bed(t, {
    done() {
      depth.now += 1;
      depth.most = Math.max(depth.most, depth.now);
      if (depth.left-- > 0) loop.kick();
      depth.now -= 1;
    },
  });
  loop.kick();
  for (let index = 0; index < 10; index++) tick(5);
  assert.deepEqual([loop.runs, depth.most], [4, 1]);
});

test('while nothing can be planned the kernel is left alone', (t) => {
  const { loop, kinds, state, tick } = bed(t);
  state.desired = undefined;
  assert.equal(loop.run(), undefined);
  tick(120_000);
  assert.deepEqual([loop.runs, kinds.writes, state.faults], [0, 0, []]);
});

test('what is refused is tried again, ever more slowly, until it is taken', (t) => {
  const { loop, kinds, state, tick } = bed(t, { fullReadMs: 1e9 });
  const refuse = () => kinds.refuseNext('netns', 'cw-one', 'ENOSPC');
  const runsWithin = (ms: number): number => {
    const before = loop.runs;
    // In small steps, since each retry is a timer that the one before sets.
    for (let passed = 0; passed < ms; passed += 100) {
      refuse();
      tick(100);
    }
    return loop.runs - before;
  };
  refuse();
  loop.run();
  assert.deepEqual(
    state.outcomes.map(({ failing }) => failing.map(({ kind, what, fault }) => [kind, what, fault.errno])),
    [[['netns', 'cw-one', 'ENOSPC']]],
  );
  const [early, late] = [runsWithin(10_000), runsWithin(300_000)];
  assert.ok(early >= 4 && early <= 7, `${early} runs in the first ten seconds`);
  assert.ok(late >= 9 && late <= 11, `${late} runs in five minutes: every thirty seconds`);
  for (let passed = 0; passed < 70_000; passed += 100) tick(100);
  assert.deepEqual([domains(kinds), state.outcomes.at(-1)?.failing], [['cw-one'], []]);
  const settled = loop.runs;
  for (let passed = 0; passed < 100_000; passed += 100) tick(100);
  assert.equal(loop.runs, settled);
});

test('a new refusal does not wait for the patience that an old one has earned', (t) => {
  const { loop, kinds, state, tick } = bed(t, { fullReadMs: 1e9 });
  for (let passed = 0; passed < 60_000; passed += 100) {
    kinds.refuseNext('netns', 'cw-one', 'EPERM');
    if (passed === 0) loop.run();
    tick(100);
  }
  state.desired = { ...emptyDesired, netns: [...one.netns, ...two.netns] };
  kinds.refuseNext('netns', 'cw-one', 'EPERM');
  kinds.refuseNext('netns', 'cw-two', 'EPERM');
  loop.run();
  kinds.refuseNext('netns', 'cw-one', 'EPERM');
  tick(200);
  tick(5);
  assert.deepEqual(domains(kinds), ['cw-two']);
});

test('a kernel that cannot be read is reported and read again', (t) => {
  const kinds = createFakeKinds();
  const broken = { is: true };
  const unreadable = {
    ...kinds,
    link: {
      ...kinds.link,
      list(netns: string) {
        if (broken.is) throw kernelFault('list links', 'ENOBUFS');
        return kinds.link.list(netns);
      },
    },
  };
  const { loop, state, tick } = bed(t, { reconciler: new Reconciler(unreadable) });
  assert.equal(loop.run(), undefined);
  assert.deepEqual([state.faults.length, kinds.writes], [1, 0]);
  broken.is = false;
  tick(200);
  tick(5);
  assert.deepEqual([domains(kinds), loop.runs], [['cw-one'], 1]);
});

test('what somebody else changed is seen when it is announced, and without announcement within the minute', (t) => {
  const { loop, kinds, tick } = bed(t);
  loop.run();
  kinds.lose('netns', 'cw-one');
  loop.kick();
  tick(5);
  assert.deepEqual(domains(kinds), [], 'what is remembered is believed');
  loop.suspect('cw-one');
  tick(5);
  assert.deepEqual(domains(kinds), ['cw-one']);
  kinds.lose('netns', 'cw-one');
  tick(60_000);
  tick(5);
  assert.deepEqual(domains(kinds), ['cw-one']);
});

test('a loop that is disposed of does nothing more', (t) => {
  const { loop, kinds, tick } = bed(t);
  kinds.refuseNext('netns', 'cw-one', 'EPERM');
  loop.run();
  loop.kick();
  loop[Symbol.dispose]();
  tick(600_000);
  assert.deepEqual([loop.runs, domains(kinds)], [1, []]);
});
