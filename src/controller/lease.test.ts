import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fault } from '#model/fault.ts';
import { MemoryStore } from '#store/memory.ts';
import type { Store } from '#store/store.ts';
import { Lease, leaseMs } from './lease.ts';
import { silentLog } from './log.ts';

test('one of two holds the lease, the other takes it when it is released or has run out', async () => {
  await using store = new MemoryStore();
  let time = 0;
  const leases = ['one', 'two'].map((holder) => new Lease({ store, name: 'cloud', holder, log: silentLog, now: () => time }));
  const [first, second] = leases;
  assert.ok(first !== undefined && second !== undefined);
  const held = (): boolean[] => leases.map(({ isHeld }) => isHeld);
  await first.step();
  await second.step();
  assert.deepEqual(held(), [true, false]);
  time += leaseMs - 1;
  await second.step();
  assert.deepEqual(held(), [false, false], 'the first has not renewed, and stops before another begins');
  time += 2;
  await second.step();
  await first.step();
  assert.deepEqual(held(), [false, true]);
  await second.release();
  await first.step();
  assert.deepEqual(held(), [true, false]);
});

test('who cannot reach the store does not hold the lease for long', async () => {
  await using memory = new MemoryStore();
  let time = 0;
  let isAway = false;
  const store: Pick<Store, 'get' | 'commit'> = {
    get: (key) => (isAway ? Promise.reject(new Fault('unavailable', 'away')) : memory.get(key)),
    commit: (operations) => memory.commit(operations),
  };
  const lease = new Lease({ store, name: 'cloud', holder: 'one', log: silentLog, now: () => time });
  await lease.step();
  isAway = true;
  time += leaseMs;
  await lease.step();
  assert.equal(lease.isHeld, false);
  isAway = false;
  await lease.step();
  assert.equal(lease.isHeld, true);
});
