import assert from 'node:assert/strict';
import { test } from 'node:test';
import { askSkew, skewOf, skewText } from './clock.ts';

const now = Date.parse('2026-03-01T12:00:00.500Z');

for (const [what, header, expected] of [
  ['the same time', 'Sun, 01 Mar 2026 12:00:00 GMT', 0],
  ['an hour ahead', 'Sun, 01 Mar 2026 11:00:00 GMT', 3_600_000],
  ['two days behind', 'Tue, 03 Mar 2026 12:00:00 GMT', -172_800_000],
  ['no header', undefined, undefined],
  ['no date', 'yesterday', undefined],
  ['two headers', ['Sun, 01 Mar 2026 12:00:00 GMT', 'x'], undefined],
] as const) {
  test(`skew: ${what}`, () => assert.equal(skewOf(header, now), expected));
}

for (const [ms, expected] of [
  [0, '0 s behind'],
  [61_000, '1 min 1 s ahead of'],
  [-172_800_000, '2 d behind'],
  [-(2 * 86_400_000 + 5000), '2 d behind'],
  [3_600_000 + 59_000, '1 h ahead of'],
  [3_600_000 + 120_000, '1 h 2 min ahead of'],
] as const) {
  test(`${ms} ms are ${expected}`, () => assert.equal(skewText(ms), expected));
}

test('nobody to ask is no answer', async () => {
  assert.equal(await askSkew('https://127.0.0.1:9'), undefined);
});
