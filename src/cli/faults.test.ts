import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Fault, faultCodes } from '#model/fault.ts';
import { exitOf, faultJson, faultTable, faultText, toFault } from './faults.ts';
import { errorsPage } from './pages.ts';

test('every code has the exit status of its row', () => {
  const statuses = Object.fromEntries(faultCodes.map((code) => [code, exitOf(new Fault(code, 'x'))]));
  assert.deepEqual(statuses, {
    invalid: 2,
    'not-found': 3,
    exists: 4,
    conflict: 4,
    'in-use': 4,
    exhausted: 8,
    overlap: 4,
    unauthenticated: 5,
    forbidden: 5,
    unavailable: 6,
    timeout: 6,
    compacted: 6,
    unsupported: 7,
    kernel: 9,
    corrupt: 9,
    stale: 4,
    version: 7,
    internal: 1,
  });
});

test('every code says what it means and what to do', () => {
  for (const code of faultCodes) {
    assert.match(faultTable[code].meaning, /^[A-Z].*\.$/);
    assert.match(faultTable[code].advice, /^[A-Z].*\.$/);
  }
});

test('an error is printed with its code, field, kernel error and advice', () => {
  const fault = new Fault('kernel', 'Cannot add route', { field: 'spec.cidr', errno: 'EEXIST', hint: 'Look' });
  assert.equal(faultText(fault), 'Error (kernel): Cannot add route\nField: spec.cidr\nKernel: EEXIST\nTry: Look\n');
});

test('without a hint the advice of the code stands in', () => {
  assert.equal(faultText(new Fault('exists', 'Taken')), 'Error (exists): Taken\nTry: Choose another one, or remove what holds it.\n');
});

test('control characters from elsewhere do not reach the terminal', () => {
  assert.ok(!faultText(new Fault('invalid', 'a\u001b[2Jb')).includes('\u001b'));
});

test('as JSON an error is one document', () => {
  assert.deepEqual(JSON.parse(faultJson(new Fault('overlap', 'No', { field: 'subnet', hint: 'H' }))), {
    error: { code: 'overlap', message: 'No', field: 'subnet', hint: 'H', exit: 4 },
  });
});

test('what is no Fault is internal', () => {
  assert.equal(toFault(new TypeError('x')).code, 'internal');
  assert.equal(toFault('x').code, 'internal');
});

test('docs/errors.md is what the table says', (t) => {
  const file = join(import.meta.dirname, '../../docs/errors.md');
  t.assert.fileSnapshot(errorsPage(), file, { serializers: [String] });
  assert.ok(readFileSync(file, 'utf8').includes('`in-use`'));
});
