// The page is what the upstream tests go by, so reading it must not lose anything.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { patternOf, readConformance } from './conformance.ts';

test('names are read by section, whatever else is said there', () => {
  const page = [
    '# Title',
    '## Pass in every run',
    'Some words, `no name`.',
    '- `Proxy should work `',
    '## Fail',
    '- `Services should (a|b) [Slow]`: they wait',
    '## Not run',
    '### Why',
    '- `DNS should`',
    '- no name',
  ];
  assert.deepEqual(readConformance(page.join('\n')), {
    always: ['Proxy should work '],
    asked: [],
    failing: ['Services should (a|b) [Slow]'],
    left: ['DNS should'],
  });
});

test('a pattern matches its names to their end, and as they are written', () => {
  const pattern = new RegExp(patternOf(['Services should (a|b) [Slow]', 'Proxy']));
  assert.ok(pattern.test('suite [sig-network] Services should (a|b) [Slow]'));
  assert.ok(pattern.test('Proxy'));
  assert.ok(!pattern.test('Services should a [Slow]') && !pattern.test('Proxy version v1'));
});
