import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { checkImageName, defaultImage } from './image.ts';

test('images are named with a tag', () => {
  for (const name of [defaultImage, 'causeway:1', '10.0.0.5:5000/net/causeway:v2.0-rc.1']) assert.equal(checkImageName(name), name);
  for (const name of ['', 'causeway', 'Causeway:1', 'causeway:', 'causeway: 1', '/causeway:1', 'causeway:1\n'])
    assert.throws(
      () => checkImageName(name),
      (error) => isFault(error, 'invalid') && error.field === '--tag',
    );
});
