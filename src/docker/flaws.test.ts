import assert from 'node:assert/strict';
import { test } from 'node:test';
import { flawOf } from './flaws.ts';

test('versions that crash are told, and no others', () => {
  for (const version of ['29.0.0', '29.0.1-rc.1', '29.0.2']) assert.match(flawOf(version) ?? '', /29\.0\.3 or later/, version);
  for (const version of ['26.1.5+dfsg1', '28.5.2', '29.0.3', '29.0.20', '29.1.0', '129.0.0', 'dev'])
    assert.equal(flawOf(version), undefined, version);
});
