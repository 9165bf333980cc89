import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { MemoryStore } from '#store/memory.ts';
import { openBed } from './bed.ts';

/** How often the controller has its store forget in three sweeps. */
async function forgotten(isShared: boolean, tick: (ms: number) => void): Promise<number> {
  let compactions = 0;
  const compact = async (): Promise<void> => void (compactions += 1);
  await using _ = await openBed({ store: Object.assign(new MemoryStore(), { isShared, compact }) });
  for (let sweep = 0; sweep < 3; sweep++) {
    tick(60_000);
    for (let turn = 0; turn < 20; turn++) await nextTurn();
  }
  return compactions;
}

test('history is forgotten where the store is ours alone, and never that of others', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const tick = (ms: number): void => t.mock.timers.tick(ms);
  assert.equal(await forgotten(false, tick), 3);
  assert.equal(await forgotten(true, tick), 0);
});
