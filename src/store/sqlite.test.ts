import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm, stat, truncate, writeFile, open as openFile, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { storeContract } from './contract.ts';
import { faults, put, remove, Watcher } from './contract-fixture.ts';
import { Database } from './database.ts';
import { openSqliteStore } from './sqlite.ts';

interface Place extends AsyncDisposable {
  readonly path: string;
}

async function place(): Promise<Place> {
  const folder = await mkdtemp(join(tmpdir(), 'causeway-store-'));
  return { path: join(folder, 'deep', 'store.db'), [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) };
}

storeContract('sqlite', async () => {
  const folder = await place();
  return { open: () => openSqliteStore(folder.path), [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose]() };
});

test('another process writes and the watch sees it while that goes on', async () => {
  await using folder = await place();
  await using store = await openSqliteStore(folder.path);
  await using watcher = new Watcher(store, 'pair/', 0);
  const script = join(import.meta.dirname, 'testdata', 'committer.ts');
  // It never comes to its end by itself, so what is seen is seen before that.
  const child = spawn(process.execPath, [script, folder.path, 'Infinity'], { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = new Promise((resolve) => child.once('exit', (_code, signal) => resolve(signal)));
  try {
    const revisions = (await watcher.take(20)).map(({ revision }) => revision);
    assert.deepEqual(
      revisions,
      Array.from({ length: 20 }, (_, index) => 1 + (index >> 1)),
    );
  } finally {
    child.kill('SIGKILL');
  }
  assert.equal(await ended, 'SIGKILL');
});

test('several processes open a new file at the same moment', async () => {
  await using folder = await place();
  const children = [1, 2, 3, 4].map((from) => {
    const script = join(import.meta.dirname, 'testdata', 'committer.ts');
    return spawn(process.execPath, [script, folder.path, '25', `${from}-`], { stdio: ['ignore', 'ignore', 'inherit'] });
  });
  const codes = await Promise.all(children.map((child) => new Promise((resolve) => child.once('exit', resolve))));
  assert.deepEqual(codes, [0, 0, 0, 0]);
  await using store = await openSqliteStore(folder.path);
  const { entries, revision } = await store.list('pair/');
  assert.deepEqual([entries.length, revision], [200, 100]);
});

test('the file is for its owner only', async () => {
  await using folder = await place();
  await using store = await openSqliteStore(folder.path);
  await store.commit([put('tokens/secret', 'x')]);
  for (const suffix of ['', '-wal']) assert.equal((await stat(`${folder.path}${suffix}`)).mode & 0o777, 0o600);
});

test('a full file refuses with unavailable, writes nothing, and works again once there is room', async () => {
  await using folder = await place();
  await using store = await openSqliteStore(folder.path, { maxBytes: 400_000 });
  await using watcher = new Watcher(store, '', 0);
  const value = 'x'.repeat(10_000);
  const results = await Promise.allSettled(
    Array.from({ length: 60 }, (_, index) => store.commit([put(`f/${index}`, value), put(`g/${index}`)])),
  );
  const refused = results.filter((result) => result.status === 'rejected');
  const accepted = results.length - refused.length;
  assert.ok(refused.length > 0 && accepted > 5, `${accepted} accepted`);
  for (const { reason } of refused) assert.ok(isFault(reason, 'unavailable') && reason.hint !== undefined, String(reason));
  const { entries, revision } = await store.list('');
  assert.deepEqual([entries.length, revision], [accepted * 2, accepted]);
  assert.equal((await watcher.take(accepted * 2)).at(-1)?.revision, accepted);
  await store.compact(revision);
  await store.commit(entries.slice(0, 20).map(({ key }) => remove(key)));
  await store.commit([put('f/again', value)]);
});

test('one commit that is too large for the disk does not take others down', async () => {
  await using folder = await place();
  await using store = await openSqliteStore(folder.path, { maxBytes: 400_000 });
  const results = await Promise.allSettled([
    store.commit([put('a')]),
    store.commit([put('b', 'x'.repeat(500_000))]),
    store.commit([put('c')]),
  ]);
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  );
});

test('damaged files are refused with a hint', async () => {
  await using folder = await place();
  const refuses = async (): Promise<void> => {
    await assert.rejects(openSqliteStore(folder.path), (error) => isFault(error, 'corrupt') && error.hint !== undefined);
  };
  {
    await using store = await openSqliteStore(folder.path);
    for (let index = 0; index < 50; index += 1) await store.commit([put(`k/${index}`, 'x'.repeat(3000))]);
  }
  const whole = await readFile(folder.path);
  await truncate(folder.path, 40_960);
  await refuses();
  await writeFile(folder.path, whole);
  const file = await openFile(folder.path, 'r+');
  await file.write(Buffer.alloc(20_000, 0xee), 0, 20_000, 8192);
  await file.close();
  await refuses();
  await writeFile(folder.path, 'this is no database, but a text that is long enough to be taken for one'.repeat(100));
  await refuses();
  await writeFile(folder.path, whole);
  await using store = await openSqliteStore(folder.path);
  assert.equal((await store.list('')).entries.length, 50);
});

test('files of other programs and of newer versions are refused', async () => {
  await using folder = await place();
  {
    using database = new Database(folder.path, { applicationId: 1, migrations: ['CREATE TABLE t (a) '] });
    assert.ok(database.isOpen);
  }
  await faults(openSqliteStore(folder.path), 'corrupt');
  await rm(folder.path);
  await (await openSqliteStore(folder.path))[Symbol.asyncDispose]();
  {
    using database = new Database(folder.path, { applicationId: 0x63777374, migrations: ['', ''] });
    assert.ok(database.isOpen);
  }
  await faults(openSqliteStore(folder.path), 'version');
});

test('what cannot be opened is unavailable', async () => {
  await using folder = await place();
  await writeFile(folder.path.replace(/\/deep.*/, '/deep'), 'a file where the folder should be');
  await faults(openSqliteStore(folder.path), 'unavailable');
});

test('a writer that holds the file makes others wait, then fail with unavailable, while this process goes on', async () => {
  await using folder = await place();
  await using store = await openSqliteStore(folder.path, { busyMs: 150 });
  using other = new Database(folder.path, { applicationId: 0x63777374, migrations: [''] });
  other.exec('BEGIN IMMEDIATE');
  let turns = 0;
  const ticking = setInterval(() => (turns += 1), 5);
  const [commit, compact] = [store.commit([put('a', 1)]), store.compact(1)];
  await Promise.all([faults(commit, 'unavailable'), faults(compact, 'unavailable')]);
  clearInterval(ticking);
  assert.ok(turns > 0, 'the event loop stood still');
  const late = store.commit([put('b', 1)]);
  other.exec('COMMIT');
  await late;
  assert.deepEqual(
    (await store.list('')).entries.map(({ key }) => key),
    ['b'],
  );
});

test('old history is forgotten by itself', async () => {
  await using folder = await place();
  await using store = await openSqliteStore(folder.path, { historyLength: 100, synchronous: 'NORMAL' });
  for (let index = 0; index < 300; index += 1) await store.commit([put('a', index)]);
  await using old = new Watcher(store, '', 150);
  await faults(Promise.reject(await old.end()), 'compacted');
  await using recent = new Watcher(store, '', 200);
  assert.equal((await recent.take(100)).at(-1)?.revision, 300);
});
