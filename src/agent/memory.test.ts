import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { collector, Memory } from './memory.ts';

const mib = 2 ** 20;

function bed(t: TestContext) {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const state = { resident: 100 * mib, given: 0 };
  const giveBack = () => {
    state.given++;
    state.resident = 80 * mib;
  };
  const memory = new Memory({ resident: () => state.resident, giveBack, quietMs: 10, patienceMs: 50 });
  t.after(() => memory[Symbol.dispose]());
  const pass = (ms: number): number => {
    t.mock.timers.tick(ms);
    return state.given;
  };
  return { memory, state, pass };
}

test('memory is given back in a quiet moment, and again only when it has grown', (t) => {
  const { memory, state, pass } = bed(t);
  assert.deepEqual([pass(10), pass(10), pass(1000)], [0, 1, 1]);
  state.resident += 10 * mib;
  memory.busy();
  assert.deepEqual([pass(10), pass(10), pass(1000)], [1, 2, 2]);
});

test('where it is never quiet, memory is given back all the same', (t) => {
  const { memory, pass } = bed(t);
  for (let look = 1; look < 5; look++) {
    memory.busy();
    assert.equal(pass(10), 0);
  }
  memory.busy();
  assert.equal(pass(10), 1);
});

test('collecting works in this Node', () => collector()());
