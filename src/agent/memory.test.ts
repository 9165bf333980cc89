import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { collector, isProcessorPressed, Memory } from './memory.ts';

const mib = 2 ** 20;

function bed(t: TestContext) {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const state = { resident: 100 * mib, given: 0, isPressed: false };
  const giveBack = () => {
    state.given++;
    state.resident = 80 * mib;
  };
  const memory = new Memory({ resident: () => state.resident, giveBack, isPressed: () => state.isPressed, quietMs: 10, patienceMs: 50 });
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

test('while others wait for the processor none of it is taken for that', (t) => {
  const { state, pass } = bed(t);
  pass(10);
  state.isPressed = true;
  assert.equal(pass(30), 0);
  state.isPressed = false;
  assert.equal(pass(10), 1);
});

test('whether others wait is what the kernel says of the last ten seconds', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'causeway-memory-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'cpu');
  const said = (avg10: string): boolean => {
    writeFileSync(file, `some avg10=${avg10} avg60=56.22 avg300=62.17 total=19056152700\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n`);
    return isProcessorPressed(file);
  };
  assert.deepEqual([said('0.00'), said('9.99'), said('62.50'), isProcessorPressed(join(folder, 'none'))], [false, false, true, false]);
});

test('collecting works in this Node', () => collector()());
