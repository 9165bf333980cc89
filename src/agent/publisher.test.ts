import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import * as fc from 'fast-check';
import { makeEndpoint, snapshotOf } from '#drivers/cluster.fixture.ts';
import { Fault } from '#model/fault.ts';
import { ipAdd, parseIp } from '#model/ip.ts';
import type { Endpoint, LocalEndpoint } from '#model/resources.ts';
import { type EndpointBatch, type Published, Publisher } from './publisher.ts';

const host = 'host-1';
const network = 'aaaaaaaaaa';
const endpointOf = (number: number, more: Partial<Endpoint> = {}): Endpoint => ({
  ...makeEndpoint(network, host, number, [ipAdd(parseIp('10.0.0.0'), number + 2)]),
  ...more,
});

/** A cluster, the watch that brings its changes late, and this host's own records. */
class World {
  readonly cluster = new Map<string, Endpoint>();
  readonly local = new Map<string, Endpoint>();
  readonly batches: EndpointBatch[] = [];
  seen = new Map<string, Endpoint>();
  seenRevision = 0;
  /** What the watch has still to bring. */
  lines: { readonly id: string; readonly item: Endpoint | undefined; readonly revision: number }[] = [];
  mode: 'up' | 'away' | 'answer lost' = 'up';
  /** Ids of which the next change is refused, or every one. */
  readonly refusals = new Map<string, 'once' | 'always'>();
  revision = 0;
  clock = 0;
  synced = true;
  refused: ReadonlyMap<string, Fault> = new Map();
  publisher: Publisher = this.start();

  start(restMs = 0): Publisher {
    return new Publisher({
      host,
      restMs,
      snapshot: () => snapshotOf({ endpoints: [...this.seen.values()] }),
      revision: () => this.seenRevision,
      local: () => [...this.local.values()].map((endpoint, index): LocalEndpoint => ({ endpoint, slot: index + 1 })),
      mayDelete: () => this.synced,
      send: (batch) => this.receive(batch),
      refused: (faults) => (this.refused = new Map(faults)),
    });
  }

  async receive({ puts, deletes }: EndpointBatch): Promise<Published> {
    this.batches.push({ puts, deletes });
    await setImmediate();
    if (this.mode === 'away') throw new Fault('unavailable', 'No controller answers');
    const refused = new Map<string, Fault>();
    let revision = 0;
    for (const { id, sequence } of deletes) {
      const found = this.cluster.get(id);
      const fault = this.refusal(id, found, sequence);
      if (fault !== undefined) refused.set(id, fault);
      else if (found !== undefined) this.change(id, undefined);
    }
    for (const item of puts) {
      const fault = this.refusal(item.id, this.cluster.get(item.id), item.sequence);
      if (fault !== undefined) refused.set(item.id, fault);
      else revision = Math.max(revision, this.change(item.id, item));
    }
    if (this.mode === 'answer lost') throw new Fault('unavailable', 'The controller went away');
    return { refused, revision };
  }

  refusal(id: string, found: Endpoint | undefined, sequence: number): Fault | undefined {
    const refusal = this.refusals.get(id);
    if (refusal === 'once') this.refusals.delete(id);
    if (refusal !== undefined) return new Fault('conflict', 'Not now');
    return found !== undefined && found.sequence > sequence ? new Fault('stale', 'Older') : undefined;
  }

  /** In the cluster, by whomever; the watch will tell. */
  change(id: string, item: Endpoint | undefined): number {
    this.revision += 1;
    if (item === undefined) this.cluster.delete(id);
    else this.cluster.set(id, { ...item, revision: this.revision });
    this.lines.push({ id, item: this.cluster.get(id), revision: this.revision });
    return this.revision;
  }

  deliver(count: number): void {
    for (const { id, item, revision } of this.lines.splice(0, count)) {
      if (item === undefined) this.seen.delete(id);
      else this.seen.set(id, item);
      this.seenRevision = revision;
    }
    this.publisher.kick();
  }

  /** A new stream begins with a whole listing. */
  list(): void {
    this.lines = [];
    this.seen = new Map(this.cluster);
    this.seenRevision = this.revision;
    this.synced = true;
    this.publisher.kick();
  }

  put(number: number, name?: string): void {
    const id = endpointOf(number).id;
    const known = this.local.get(id);
    this.clock += 1;
    // As HostAgent numbers them.
    const sequence = known === undefined ? Math.max((this.seen.get(id)?.sequence ?? 0) + 1, this.clock * 1000) : known.sequence + 1;
    this.local.set(id, endpointOf(number, { sequence, ...(name === undefined ? {} : { name }) }));
    this.publisher.kick();
  }

  drop(number: number): void {
    this.local.delete(endpointOf(number).id);
    this.publisher.kick();
  }

  restart(): void {
    this.publisher[Symbol.dispose]();
    this.synced = false;
    this.publisher = this.start();
  }
}

const bare = (endpoints: ReadonlyMap<string, Endpoint>): Record<string, Endpoint> =>
  Object.fromEntries([...endpoints].map(([id, item]) => [id, { ...item, revision: 0 }]));

/** Lets promises settle; timers stand still. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 6; turn++) await setImmediate();
}

function bed(t: TestContext): World {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const world = new World();
  t.after(() => world.publisher[Symbol.dispose]());
  return world;
}

test('what is new or changed here is put, what has gone is deleted, and then nothing more is sent', async (t) => {
  const world = bed(t);
  world.put(1);
  world.put(2);
  await settle();
  world.deliver(9);
  world.put(1, 'web');
  world.drop(2);
  await settle();
  world.deliver(9);
  await settle();
  assert.deepEqual(bare(world.cluster), bare(new Map([[endpointOf(1).id, endpointOf(1, { name: 'web', sequence: 1001 })]])));
  const sent = world.batches.length;
  world.publisher.kick();
  t.mock.timers.tick(60_000);
  await settle();
  assert.equal(world.batches.length, sent);
});

test('what is new is sent once the call that made it is over, and what changes while it rests after that together', async (t) => {
  const world = bed(t);
  world.publisher = world.start(250);
  for (const number of [1, 2, 3, 4]) {
    world.put(number);
    await settle();
    t.mock.timers.tick(50);
    await settle();
  }
  assert.deepEqual(
    world.batches.map(({ puts }) => puts.length),
    [1],
  );
  for (const ms of [100, 20]) {
    t.mock.timers.tick(ms);
    await settle();
  }
  assert.deepEqual(
    world.batches.map(({ puts }) => puts.length),
    [1, 3],
  );
  t.mock.timers.tick(1000);
  for (let number = 5; number < 15; number++) {
    if (number < 10) assert.equal(world.batches.length, 2, 'calls are waited for');
    world.put(number);
    await settle();
    t.mock.timers.tick(15);
    await settle();
  }
  assert.equal(world.batches.length, 3, 'and not those without end');
  world.deliver(99);
  world.drop(5);
  await settle();
  assert.deepEqual(world.batches.at(-1)?.deletes.length, 1, 'what has gone does not wait');
});

test('a change is not sent again because the watch is late', async (t) => {
  const world = bed(t);
  world.put(1);
  await settle();
  world.put(2);
  await settle();
  world.deliver(1);
  await settle();
  world.drop(1);
  await settle();
  world.publisher.kick();
  await settle();
  assert.deepEqual(
    world.batches.map(({ puts, deletes }) => [puts.map(({ owner }) => owner), deletes.length]),
    [
      [['box-1'], 0],
      [['box-2'], 0],
      [[], 1],
    ],
  );
});

test('changes made while a batch is on its way follow in one', async (t) => {
  const world = bed(t);
  world.put(1);
  for (let number = 2; number < 9; number++) world.put(number);
  await settle();
  assert.deepEqual(
    world.batches.map(({ puts }) => puts.length),
    [1, 7],
  );
});

test('with the controller away it tries ever more slowly, and at once when facts change', async (t) => {
  const world = bed(t);
  world.mode = 'away';
  world.put(1);
  await settle();
  const attempts = async (ms: number): Promise<number> => {
    const before = world.batches.length;
    for (let passed = 0; passed < ms; passed += 50) {
      t.mock.timers.tick(50);
      await settle();
    }
    return world.batches.length - before;
  };
  const [early, late] = [await attempts(3000), await attempts(60_000)];
  assert.ok(early >= 4 && early <= 6, `${early} in three seconds`);
  assert.ok(late >= 11 && late <= 14, `${late} in a minute`);
  world.mode = 'up';
  world.put(2);
  await settle();
  assert.equal(world.cluster.size, 2);
});

test('an answer that was lost is made up for', async (t) => {
  const world = bed(t);
  world.mode = 'answer lost';
  world.put(1);
  await settle();
  world.mode = 'up';
  t.mock.timers.tick(100);
  await settle();
  assert.deepEqual([world.cluster.size, world.batches.length], [1, 2]);
});

test('what is refused is told while it lasts, not tried all the time, and holds up nothing else', async (t) => {
  const world = bed(t);
  world.refusals.set(endpointOf(1).id, 'always');
  world.put(1);
  world.put(2);
  await settle();
  assert.deepEqual([[...world.refused.values()].map(({ code }) => code), world.cluster.size], [['conflict'], 1]);
  const before = world.batches.length;
  for (let passed = 0; passed < 60_000; passed += 50) {
    t.mock.timers.tick(50);
    await settle();
  }
  assert.ok(world.batches.length - before < 20, `${world.batches.length - before} attempts in a minute`);
  world.refusals.clear();
  t.mock.timers.tick(5000);
  await settle();
  assert.deepEqual([world.refused.size, world.cluster.size], [0, 2]);
});

test('a refusal of what is no longer here is forgotten', async (t) => {
  const world = bed(t);
  world.refusals.set(endpointOf(1).id, 'always');
  world.put(1);
  await settle();
  world.drop(1);
  world.put(2);
  await settle();
  assert.equal(world.refused.size, 0);
});

test('what is refused after the agent has ended is not told', async (t) => {
  const world = bed(t);
  world.refusals.set(endpointOf(1).id, 'once');
  world.put(1);
  world.restart();
  await settle();
  assert.deepEqual([world.batches.length, world.refused.size], [1, 0]);
});

test('before the first whole listing nothing is deleted', async (t) => {
  const world = bed(t);
  world.put(1);
  await settle();
  world.deliver(9);
  world.restart();
  world.drop(1);
  await settle();
  assert.equal(world.cluster.size, 1);
  world.list();
  await settle();
  assert.equal(world.cluster.size, 0);
});

test('what the cluster has lost is put again', async (t) => {
  const world = bed(t);
  world.put(1);
  await settle();
  world.deliver(9);
  await settle();
  world.change(endpointOf(1).id, undefined);
  world.deliver(9);
  await settle();
  assert.equal(world.cluster.size, 1, 'seen, then lost');
  world.put(2);
  await settle();
  world.change(endpointOf(2).id, undefined);
  world.deliver(9);
  await settle();
  assert.equal(world.cluster.size, 2, 'lost before it was seen');
});

test('many are sent in batches, and those that are refused last', async (t) => {
  const world = bed(t);
  world.mode = 'away';
  for (let number = 0; number < 1200; number++) world.put(number);
  await settle();
  world.mode = 'up';
  for (let number = 0; number < 600; number++) world.refusals.set(endpointOf(number).id, 'always');
  for (let round = 0; round < 40; round++) {
    t.mock.timers.tick(5000);
    await settle();
  }
  assert.ok(world.batches.every(({ puts }) => puts.length <= 500));
  assert.equal(world.cluster.size, 600);
});

type Step =
  | { readonly do: 'put' | 'drop' | 'wipe' | 'refuse'; readonly number: number }
  | { readonly do: 'deliver' | 'tick'; readonly by: number }
  | { readonly do: 'list' | 'restart' | 'settle' | 'up' | 'away' | 'answer lost' };

const number = fc.integer({ min: 0, max: 3 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('put' as const, 'drop' as const), number }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('wipe' as const, 'refuse' as const), number }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('deliver' as const), by: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('tick' as const), by: fc.integer({ min: 50, max: 5000 }) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('settle' as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('list' as const, 'restart' as const, 'up' as const, 'away' as const, 'answer lost' as const),
    }),
  },
);

test('whatever happens in whatever order, in the end the cluster has exactly the endpoints of this host', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const take = async (world: World, action: Step): Promise<void> => {
    switch (action.do) {
      case 'put':
      case 'drop':
        world[action.do](action.number);
        break;
      case 'wipe':
        if (world.cluster.has(endpointOf(action.number).id)) world.change(endpointOf(action.number).id, undefined);
        break;
      case 'refuse':
        world.refusals.set(endpointOf(action.number).id, 'once');
        break;
      case 'deliver':
        world.deliver(action.by);
        break;
      case 'tick':
        t.mock.timers.tick(action.by);
        break;
      case 'list':
      case 'restart':
        world[action.do]();
        break;
      case 'settle':
        await settle();
        break;
      case 'up':
      case 'away':
      case 'answer lost':
        world.mode = action.do;
    }
  };
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const world = new World();
      for (const action of steps) await take(world, action);
      world.mode = 'up';
      world.refusals.clear();
      // A restarted agent is sure to be told everything once.
      if (!world.synced) world.list();
      for (let round = 0; round < 4; round++) {
        await settle();
        world.deliver(100);
        t.mock.timers.tick(5000);
      }
      await settle();
      const idle = world.batches.length;
      world.deliver(100);
      await settle();
      world.publisher[Symbol.dispose]();
      assert.deepEqual(bare(world.cluster), bare(world.local));
      assert.deepEqual([world.refused.size, world.batches.length], [0, idle], 'nothing is left to say');
    }),
    { numRuns: 300 },
  );
});
