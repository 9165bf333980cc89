// Records in the store that cannot be read: who asks for them is told which and what to do, and what else there is goes on.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import type { Json } from '#store/store.ts';
import { type Bed, openBed, reportBody } from './bed.ts';

const half = 'half000000001';
const damaged: readonly (readonly [string, Json])[] = [
  ['nothing', null],
  ['a text', 'x'],
  ['an empty record', {}],
  ['a record cut short', { id: half, name: half }],
  ['a list', [1]],
];

const names = async (bed: Bed, kind: string): Promise<string[]> => {
  const { items } = await bed.must(
    await bed.role('admin'),
    `GET /v1/${kind}`,
    v.object({ items: v.array(v.object({ name: v.string() })) }),
  );
  return items.map(({ name }) => name).sort();
};

for (const [what, value] of damaged) {
  test(`a record that is ${what} is named to who asks for it, and the rest goes on, also in a controller that starts with it`, async () => {
    await using bed = await openBed();
    const admin = await bed.role('admin');
    const a = { ...(await bed.host('a')), boot: 'one' };
    assert.equal((await bed.ask(a, 'PUT /v1/hosts/a/report', { body: reportBody() })).code, '');
    assert.equal((await bed.ask(admin, 'POST /v1/networks', { body: { name: 'red' } })).code, '');
    const keys = [`networks/${half}`, `endpoints/${half}`, `blocks/${half}`, 'speakers/a', 'routes/a'];
    await bed.store.commit(keys.map((key) => ({ type: 'put', key, value })));
    await bed.settled();
    await using later = await openBed({ store: bed.store });
    for (const one of [bed, later]) {
      for (const line of ['GET /v1/networks', `GET /v1/networks/${half}`, 'GET /v1/endpoints']) {
        const { code, body } = await one.ask(admin, line);
        assert.equal(code, 'corrupt', line);
        assert.match(JSON.stringify(body), /the record (networks|endpoints)\/half000000001 of the store.*Restore the store from a backup/);
      }
      assert.deepEqual(await names(one, 'hosts'), ['a']);
      assert.equal((await one.ask(a, 'PUT /v1/hosts/a/report', { body: reportBody() })).code, '');
      // Whether its ranges are free cannot be said without the record.
      assert.equal((await one.ask(admin, 'POST /v1/networks', { body: { name: 'blue' } })).code, 'corrupt');
      await one.settled();
      await using watching = await one.watch(a);
      await watching.until(({ type }) => type === 'synced');
      assert.ok(watching.said.includes('put networks red'));
    }
  });
}
