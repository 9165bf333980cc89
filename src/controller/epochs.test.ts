// What a restore from a backup does to those who have seen more than the backup holds, and what it does not do to others.
import assert from 'node:assert/strict';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import * as v from 'valibot';
import { MemoryFacts, MemoryStore } from '#store/memory.ts';
import { Fault } from '#model/fault.ts';
import { openSqliteStore } from '#store/sqlite.ts';
import type { Store, StoreEvent } from '#store/store.ts';
import { schemas } from '#api/schemas.ts';
import { type Asker, type Bed, type HostAsker, openBed } from './bed.ts';
import { beginEpoch } from './epochs.ts';

/** Where a reader of that controller is after it has read everything, as it would ask for the rest. */
async function placeAt(bed: Bed, asker: Asker): Promise<{ query: string; revision: number }> {
  await bed.settled();
  await using watching = await bed.watch(asker);
  await watching.until(({ type }) => type === 'synced');
  const last = watching.lines.at(-1);
  if (last?.type !== 'synced') assert.fail();
  return { query: `?since=${last.revision}&epoch=${last.epoch}`, revision: last.revision };
}

async function isWhole(bed: Bed, asker: Asker, query: string): Promise<boolean> {
  await using watching = await bed.watch(asker, query);
  await watching.until(({ type }) => type === 'synced');
  const last = watching.lines.at(-1);
  return last?.type === 'synced' ? last.whole : assert.fail();
}

const make = (bed: Bed, admin: Asker, name: string): Promise<unknown> =>
  bed.must(admin, 'POST /v1/networks', schemas.networks, { body: { name } });

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'causeway-epochs-'));
  t.after(() => rm(path, { recursive: true }));
  return path;
}

test('a reader that has seen what a restored store lacks begins anew, also when the store has come past its revision again', async (t) => {
  const path = await folder(t);
  const [file, backup] = [join(path, 'store.db'), join(path, 'backup.db')];
  const during = async <T>(work: (bed: Bed) => Promise<T>): Promise<T> => {
    await using store = await openSqliteStore(file);
    await using bed = await openBed({ store });
    return await work(bed);
  };
  const admin = await during(async (bed) => bed.role('admin'));
  await copyFile(file, backup);
  const place = await during(async (bed) => {
    for (let index = 0; index < 5; index++) await make(bed, admin, `lost-${index}`);
    return placeAt(bed, admin);
  });
  await copyFile(backup, file);
  await during(async (bed) => {
    for (let index = 0; bed.controller.control.mirror.revision <= place.revision; index++) {
      await make(bed, admin, `other-${index}`);
      await bed.settled();
    }
    assert.equal(await isWhole(bed, admin, place.query), true);
    assert.equal(await isWhole(bed, admin, (await placeAt(bed, admin)).query), false);
  });
});

test('a host that asks right after a restore does not get the block that another has claimed since the backup', async (t) => {
  const path = await folder(t);
  const [file, backup] = [join(path, 'store.db'), join(path, 'backup.db')];
  let now = Date.now();
  const during = async <T>(work: (bed: Bed) => Promise<T>): Promise<T> => {
    await using store = await openSqliteStore(file);
    await using bed = await openBed({ store, now: () => new Date(now) });
    return await work(bed);
  };
  const { a, b, network, pool } = await during(async (bed) => {
    const hosts = { a: await bed.host('a'), b: await bed.host('b') };
    const { id } = await bed.must(hosts.a, 'POST /v1/networks', schemas.networks, { body: { name: 'red' } });
    const { items } = await bed.must(hosts.a, `GET /v1/pools?network=${id}`, v.object({ items: v.array(schemas.pools) }));
    return { ...hosts, network: id, pool: items[0]?.id };
  });
  const claim = async (bed: Bed, asker: HostAsker, rest: object = {}): Promise<string> => {
    await bed.settled();
    const body = { network, pool, host: asker.host.name, ...rest };
    return (await bed.must(asker, 'POST /v1/blocks', schemas.blocks, { body })).cidr;
  };
  await copyFile(file, backup);
  now += 120_000;
  const lost = await during(async (bed) => {
    now += 120_000;
    return [await claim(bed, a), await claim(bed, a, { prefer: 'high' })];
  });
  assert.deepEqual(lost, ['10.64.0.0/27', '10.64.0.224/27']);
  await copyFile(backup, file);
  await during(async (bed) => {
    const got = [await claim(bed, b), await claim(bed, b), await claim(bed, b, { prefer: 'high' })];
    assert.deepEqual(
      got.filter((cidr) => lost.includes(cidr)),
      [],
    );
    for (const cidr of lost) assert.equal(await claim(bed, a, { ip: cidr.split('/')[0] }), cidr);
    now += 120_000;
    assert.equal(await claim(bed, b), '10.64.0.32/27');
  });
});

test('a controller whose store is restored under it says so', async () => {
  const [facts, older] = [new MemoryFacts(), new MemoryFacts()];
  await using backup = new MemoryStore(older);
  await backup.commit([{ type: 'put', key: 'guards/old', value: null }]);
  let store: Store = new MemoryStore(facts);
  const broken = Promise.withResolvers<void>();
  async function* watch(): AsyncGenerator<StoreEvent> {
    await broken.promise;
    yield* [];
    throw new Fault('compacted', 'It is older than before');
  }
  const replaced: Store = {
    name: 'replaced',
    isShared: true,
    get: (key) => store.get(key),
    list: (prefix, page) => store.list(prefix, page),
    commit: (operations) => store.commit(operations),
    watch,
    compact: async () => undefined,
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
  await using bed = await openBed({ store: replaced });
  store = backup;
  broken.resolve();
  const { code, message } = await bed.controller.control.mirror.lost;
  assert.deepEqual([code, /restored from a backup/.test(message)], ['corrupt', true]);
});

test('the start of another controller on the same store makes nobody begin anew', async () => {
  const facts = new MemoryFacts();
  await using one = await openBed({ store: new MemoryStore(facts) });
  const admin = await one.role('admin');
  await using two = await openBed({ store: new MemoryStore(facts) });
  await make(one, admin, 'red');
  await two.settled();
  const { query } = await placeAt(one, admin);
  await using three = await openBed({ store: new MemoryStore(facts) });
  await make(one, admin, 'blue');
  await Promise.all([two.settled(), three.settled()]);
  assert.equal(await isWhole(two, admin, query), false);
});

test('epochs do not pile up', async () => {
  const store = new MemoryStore();
  for (let index = 0; index < 100; index++) await beginEpoch(store, `epoch-${index}`);
  const { entries } = await store.list('epochs/');
  assert.equal(entries.length, 32);
  assert.ok(entries.some(({ key }) => key === 'epochs/epoch-99'));
});
