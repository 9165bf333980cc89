import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fault, isFault } from '#model/fault.ts';
import { AddressShortage } from './address-shortage.ts';

function bed() {
  let [now, found] = [0, 0];
  const shortage = new AddressShortage({ now: () => now, found: () => (found += 1) });
  const ask = (code?: 'exhausted' | 'unavailable') =>
    shortage
      .noting('pool', () => (code === undefined ? Promise.resolve('ip') : Promise.reject(new Fault(code, 'no'))))
      .catch((error: unknown) => isFault(error) && error.code);
  return { shortage, ask, has: () => shortage.has('pool'), pass: (ms: number) => (now += ms), found: () => found };
}

test('a pool that had nothing to give is believed to be exhausted until something is given or given back, or a minute has passed', async () => {
  const { shortage, ask, has, pass, found } = bed();
  assert.deepEqual([await ask('unavailable'), has()], ['unavailable', false]);
  assert.deepEqual([await ask('exhausted'), has(), shortage.has('other')], ['exhausted', true, false]);
  pass(59_000);
  await ask('exhausted');
  pass(59_000);
  assert.deepEqual([has(), found()], [true, 1]);
  pass(1_000);
  assert.equal(has(), false);
  await ask('exhausted');
  assert.deepEqual([await ask(), has(), found()], ['ip', false, 2]);
  await ask('exhausted');
  shortage.freed('pool');
  assert.equal(has(), false);
});
