// Several controllers and one lease, on a store that compares versions as the API does, and clocks that do not agree.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fault } from '#model/fault.ts';
import { Leader, leaseSeconds } from './leader.ts';

class Leases {
  stored: { metadata: { resourceVersion: string }; spec: object } | undefined;
  isAway = false;
  #version = 0;

  get(): Promise<unknown> {
    if (this.isAway) return Promise.reject(new Fault('unavailable', 'away'));
    return this.stored === undefined ? Promise.reject(new Fault('not-found', 'no lease')) : Promise.resolve(structuredClone(this.stored));
  }

  create(_: string, object: object): Promise<unknown> {
    if (this.stored !== undefined) return Promise.reject(new Fault('conflict', 'exists'));
    return this.#put(object, undefined);
  }

  replace(_: string, object: object): Promise<unknown> {
    return this.#put(object, this.stored?.metadata.resourceVersion);
  }

  #put(object: object, expected: string | undefined): Promise<unknown> {
    const { metadata, spec } = object as { metadata: { resourceVersion?: string }; spec: object };
    if (this.isAway) return Promise.reject(new Fault('unavailable', 'away'));
    if (metadata.resourceVersion !== expected) return Promise.reject(new Fault('conflict', 'changed'));
    this.stored = { metadata: { resourceVersion: String((this.#version += 1)) }, spec };
    return Promise.resolve(this.stored);
  }
}

const log = { info: () => undefined, warn: () => undefined };

function contest() {
  const leases = new Leases();
  const clock = { ms: 0 };
  const leader = (identity: string, aheadMs: number): Leader =>
    new Leader({ client: leases, namespace: 'n', name: 'l', identity, log, now: () => clock.ms, date: () => new Date(clock.ms + aheadMs) });
  return { leases, clock, one: leader('one', 0), two: leader('two', 86_400_000) };
}

test('the first leads, the other does not while it renews, and follows when it has been silent for the lease', async () => {
  const { clock, one, two } = contest();
  for (let turn = 0; turn < 10; turn++) {
    await one.step();
    await two.step();
    assert.deepEqual([one.isLeading, two.isLeading], [true, false]);
    clock.ms += 3_000;
  }
  await two.step();
  clock.ms += leaseSeconds * 1000 - 5_000;
  assert.equal(one.isLeading, false, 'stops before the other may begin');
  await two.step();
  assert.equal(two.isLeading, false);
  clock.ms += 5_000;
  await two.step();
  assert.equal(two.isLeading, true);
  await one.step();
  assert.equal(one.isLeading, false);
});

test('one that ends lets the other begin at once', async () => {
  const { one, two } = contest();
  await one.step();
  await one.release();
  await two.step();
  assert.deepEqual([one.isLeading, two.isLeading], [false, true]);
});

test('an API that is away ends leading in time, and goes on with it when it is back', async () => {
  const { leases, clock, one } = contest();
  await one.step();
  leases.isAway = true;
  clock.ms += 9_000;
  await one.step();
  assert.equal(one.isLeading, true);
  clock.ms += 2_000;
  await one.step();
  assert.equal(one.isLeading, false);
  leases.isAway = false;
  await one.step();
  assert.equal(one.isLeading, true);
});

test('of two that try at the same moment one leads', async () => {
  const { one, two } = contest();
  await Promise.all([one.step(), two.step()]);
  assert.equal([one, two].filter(({ isLeading }) => isLeading).length, 1);
});
