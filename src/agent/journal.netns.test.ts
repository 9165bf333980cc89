import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { isFault } from '#model/fault.ts';
import { killInTheMiddle } from '#store/testdata/killed.ts';
import { openJournal } from './journal.ts';

mustBeIsolated();

test('an agent killed at twenty random moments finds every transaction that had returned, and no half one', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'causeway-journal-'));
  const path = join(folder, 'journal.db');
  let written = 0;
  for (let round = 0; round < 20; round += 1) {
    const printed = await killInTheMiddle(join(import.meta.dirname, 'testdata', 'journal-writer.ts'), [path, String(written)]);
    assert.ok(printed.length > 0);
    using journal = openJournal(path);
    const last = Number(journal.get('last'));
    assert.ok(last >= (printed.at(-1) ?? 0), `${last} is there, ${printed.at(-1)} had returned`);
    const expected = Array.from({ length: last + 1 }, (_, index) => index);
    for (const side of ['a', 'b']) {
      const found = journal.list(`pair/${side}/`).map(({ value }) => Number(value));
      assert.deepEqual(
        found.sort((a, b) => a - b),
        expected,
      );
    }
    written = last + 1;
  }
  t.diagnostic(`${written} transactions`);
  await rm(folder, { recursive: true });
});

test('on a full disk a write is unavailable, what was there stays, and it goes on once there is room', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'causeway-full-'));
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', folder]).status !== 0) {
    t.skip('may not mount');
    return;
  }
  try {
    const filler = join(folder, 'filler');
    await writeFile(filler, Buffer.alloc(1_000_000));
    using journal = openJournal(join(folder, 'journal.db'));
    let written = 0;
    const fill = (): void => {
      for (; written < 1000; written += 1) journal.put(`k/${written}`, 'x'.repeat(5000));
    };
    assert.throws(fill, (error) => isFault(error, 'unavailable') && error.hint !== undefined);
    const before = written;
    assert.ok(before > 10);
    assert.throws(
      () =>
        journal.transaction(() => {
          journal.delete('k/0');
          fill();
        }),
      (error) => isFault(error, 'unavailable'),
    );
    assert.equal(journal.list('k/').length, before);
    await rm(filler);
    journal.put('k/after', 1);
    assert.equal(journal.list('k/').length, before + 1);
  } finally {
    spawnSync('umount', [folder]);
    await rm(folder, { recursive: true });
  }
});
