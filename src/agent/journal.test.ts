import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { Database } from '#store/database.ts';
import { journalContract } from './journal-contract.ts';
import { MemoryJournal, openJournal } from './journal.ts';

const folder = mkdtempSync(join(tmpdir(), 'causeway-journal-'));
after(() => rmSync(folder, { recursive: true }));
let files = 0;
const newPath = (): string => join(folder, `${(files += 1)}`, 'journal.db');

journalContract('memory', () => new MemoryJournal());
journalContract('sqlite', () => openJournal(newPath()));

test('everything is there after opening again, for the owner only', () => {
  const path = newPath();
  {
    using journal = openJournal(path);
    journal.put('a', { n: 1 });
    journal.put('b', 2);
    journal.delete('b');
    assert.equal(statSync(path).mode & 0o777, 0o600);
  }
  using journal = openJournal(path);
  assert.deepEqual(journal.list(''), [{ key: 'a', value: { n: 1 } }]);
  assert.equal(journal.movedAside, undefined);
});

test('a second agent is refused with a hint while the first lives', () => {
  const path = newPath();
  using journal = openJournal(path);
  journal.put('a', 1);
  assert.throws(
    () => openJournal(path, { busyMs: 30 }),
    (error) => isFault(error, 'unavailable') && error.hint !== undefined,
  );
  assert.throws(
    () => openJournal(path, { busyMs: 30, recover: true }),
    (error) => isFault(error, 'unavailable'),
  );
  journal.put('a', 2);
  assert.equal(journal.get('a'), 2);
});

test('a closed journal says so', () => {
  const journal = openJournal(newPath());
  journal[Symbol.dispose]();
  assert.throws(
    () => journal.get('a'),
    (error) => isFault(error, 'unavailable'),
  );
  journal[Symbol.dispose]();
});

const damages: readonly { readonly what: string; readonly damage: (path: string) => void }[] = [
  { what: 'cut', damage: (path) => truncateSync(path, 8192) },
  { what: 'no database', damage: (path) => writeFileSync(path, 'a text that is long enough to be taken for a database'.repeat(100)) },
  { what: 'partly overwritten', damage: (path) => writeFileSync(path, Buffer.alloc(9000, 0xee), { flag: 'r+' }) },
];

for (const { what, damage } of damages) {
  test(`a damaged file is refused, and moved aside when asked: ${what}`, () => {
    const path = newPath();
    {
      using journal = openJournal(path);
      for (let index = 0; index < 100; index += 1) journal.put(`k/${index}`, 'x'.repeat(1000));
    }
    damage(path);
    assert.throws(
      () => openJournal(path),
      (error) => isFault(error, 'corrupt') && error.hint !== undefined,
    );
    using journal = openJournal(path, { recover: true, now: () => new Date('2027-01-02T03:04:05Z') });
    assert.deepEqual(journal.list(''), []);
    assert.equal(journal.movedAside, `${path}.corrupt-2027-01-02T030405.000Z`);
    assert.ok(readdirSync(join(path, '..')).includes('journal.db.corrupt-2027-01-02T030405.000Z'));
    journal.put('a', 1);
  });
}

test('recovery does not touch a file that can be read, nor that of a newer version', () => {
  const path = newPath();
  {
    using journal = openJournal(path);
    journal.put('a', 1);
  }
  {
    using journal = openJournal(path, { recover: true });
    assert.deepEqual([journal.get('a'), journal.movedAside], [1, undefined]);
  }
  {
    using database = new Database(path, { applicationId: 0x63776a6f, migrations: ['', ''] });
    assert.ok(database.isOpen);
  }
  assert.throws(
    () => openJournal(path, { recover: true }),
    (error) => isFault(error, 'version'),
  );
});
