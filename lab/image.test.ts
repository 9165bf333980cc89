import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { buildImageOf, checkImageName, defaultImage } from './image.ts';
import type { Progress } from './progress.ts';

test('images are named with a tag', () => {
  for (const name of [defaultImage, 'causeway:1', '10.0.0.5:5000/net/causeway:v2.0-rc.1']) assert.equal(checkImageName(name), name);
  for (const name of ['', 'causeway', 'Causeway:1', 'causeway:', 'causeway: 1', '/causeway:1', 'causeway:1\n'])
    assert.throws(
      () => checkImageName(name),
      (error) => isFault(error, 'invalid') && error.field === '--tag',
    );
});

const beginsNothing: Progress = { step: () => assert.fail('something is being made') };

test('what cannot be built is refused before anything is made', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'causeway-image-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'file'), '');
  mkdirSync(join(folder, 'folder.tar'));
  for (const [output, name, code, field] of [
    ['new.tar', 'Causeway:1', 'invalid', '--tag'],
    ['file', defaultImage, 'exists', '--output'],
    ['folder.tar', defaultImage, 'exists', '--output'],
    ['.', defaultImage, 'exists', '--output'],
  ] as const)
    await assert.rejects(
      () => buildImageOf(join(folder, output), name, beginsNothing),
      (error) => isFault(error, code) && error.field === field,
      output,
    );
});
