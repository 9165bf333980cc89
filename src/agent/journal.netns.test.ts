import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { killInTheMiddle } from '#store/testdata/killed.ts';
import { openJournal } from './journal.ts';

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
