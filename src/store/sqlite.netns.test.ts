import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { isFault } from '#model/fault.ts';
import { put, range, Watcher } from './contract-fixture.ts';
import { openSqliteStore } from './sqlite.ts';
import { killInTheMiddle } from './testdata/killed.ts';

mustBeIsolated();

test('a process killed at twenty random moments has every acknowledged commit on disk and no half one', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'causeway-store-'));
  const path = join(folder, 'store.db');
  let acknowledged = 0;
  for (const round of range(20)) {
    const script = join(import.meta.dirname, 'testdata', 'committer.ts');
    const printed = await killInTheMiddle(script, [path, '1000000', `${round}-`]);
    assert.ok(printed.length > 0);
    await using store = await openSqliteStore(path);
    const [a, b] = [(await store.list(`pair/a/${round}-`)).entries, (await store.list(`pair/b/${round}-`)).entries];
    const facts = a.map(({ key, value, revision }) => [key.replace('pair/a', 'pair/b'), value, revision]);
    assert.deepEqual(
      facts,
      b.map(({ key, value, revision }) => [key, value, revision]),
    );
    const numbers = new Set(a.map(({ key }) => Number(key.split('-')[1])));
    assert.deepEqual(
      printed.filter((number) => !numbers.has(number)),
      [],
    );
    acknowledged += printed.length;
  }
  await using store = await openSqliteStore(path);
  const { entries, revision } = await store.list('pair/');
  await using watcher = new Watcher(store, 'pair/', 0);
  const events = await watcher.take(entries.length);
  assert.deepEqual([events.length, events.at(-1)?.revision], [revision * 2, revision]);
  t.diagnostic(`${acknowledged} acknowledged, ${revision} there`);
  await rm(folder, { recursive: true });
});

test('on a full disk commits are unavailable, nothing is half written, and it goes on once there is room', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'causeway-full-'));
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', folder]).status !== 0) {
    t.skip('may not mount');
    return;
  }
  try {
    const filler = join(folder, 'filler');
    await writeFile(filler, Buffer.alloc(2_000_000));
    await using store = await openSqliteStore(join(folder, 'store.db'));
    const attempt = (name: string): Promise<PromiseSettledResult<unknown>[]> =>
      Promise.allSettled(
        range(100).map((index) => store.commit([put(`${name}/${index}`, 'x'.repeat(20_000)), put(`${name}-twin/${index}`)])),
      );
    const results = await attempt('a');
    const refused = results.filter((result) => result.status === 'rejected');
    assert.ok(refused.length > 0 && refused.length < 100, `${refused.length} refused`);
    for (const { reason } of refused) assert.ok(isFault(reason, 'unavailable'), String(reason));
    const { entries, revision } = await store.list('');
    assert.deepEqual([entries.length, revision], [(100 - refused.length) * 2, 100 - refused.length]);
    await rm(filler);
    await store.commit([put('after', 1)]);
    await using second = await openSqliteStore(join(folder, 'store.db'));
    assert.equal((await second.list('')).entries.length, entries.length + 1);
  } finally {
    spawnSync('umount', [folder]);
    await rm(folder, { recursive: true });
  }
});
