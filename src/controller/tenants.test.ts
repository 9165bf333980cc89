// Tenants that go: all of their tokens with them, however many there are, and whatever interrupts it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Operation, Store } from '#store/store.ts';
import { schemas } from '#api/schemas.ts';
import { type Asker, type Bed, openBed, overtaken } from './bed.ts';
import { sweepOnce } from './sweep.ts';

const many = 250;

/** A tenant with more tokens than one commit holds. */
async function withTokens(bed: Bed): Promise<{ readonly admin: Asker; readonly tokens: readonly Asker[] }> {
  const admin = await bed.role('admin');
  await bed.must(admin, 'POST /v1/tenants', schemas.tenants, { body: { name: 'red' } });
  const tokens: Asker[] = [];
  for (let index = 0; index < many; index++) tokens.push(await bed.role('tenant:red'));
  await bed.settled();
  return { admin, tokens };
}

const tokensLeft = async (store: Store): Promise<number> => (await store.list('tokens/')).entries.length;

const isRemoval = ({ type, key }: Operation): boolean => type === 'delete' && key.startsWith('tokens/');

/** A store that breaks, if it is told so, at the second commit that takes tokens away. */
function breaking(mayBreak: () => boolean): Store {
  let removals = 0;
  return overtaken((operations) => {
    if (mayBreak() && operations.some(isRemoval) && ++removals > 1) throw new Error('The controller has ended');
  });
}

test('a tenant with more tokens than one commit holds goes with all of them', async () => {
  await using bed = await openBed();
  const { admin, tokens } = await withTokens(bed);
  const { code, body } = await bed.ask(admin, 'DELETE /v1/tenants/red');
  assert.equal(code, '', JSON.stringify(body));
  assert.equal(await tokensLeft(bed.store), 1);
  await bed.settled();
  for (const token of tokens) assert.equal((await bed.ask(token, 'GET /v1/networks')).code, 'unauthenticated');
  assert.deepEqual((await bed.store.list('guards/tokens-')).entries, []);
});

test('what an interrupted removal left of the tokens goes with the sweep, or before another gets the name', async (t) => {
  const rows: readonly [what: string, finish: (bed: Bed, admin: Asker) => Promise<unknown>][] = [
    ['the sweep', (bed) => sweepOnce(bed.controller.control)],
    ['a tenant of that name', (bed, admin) => bed.must(admin, 'POST /v1/tenants', schemas.tenants, { body: { name: 'red' } })],
  ];
  for (const [what, finish] of rows) {
    await t.test(what, async () => {
      let isEnding = false;
      await using bed = await openBed({ store: breaking(() => isEnding) });
      const { admin, tokens } = await withTokens(bed);
      isEnding = true;
      assert.equal((await bed.ask(admin, 'DELETE /v1/tenants/red')).status, 500);
      isEnding = false;
      await bed.settled();
      assert.equal((await bed.ask(admin, 'GET /v1/tenants/red')).code, 'not-found');
      assert.ok((await tokensLeft(bed.store)) > 1);
      await finish(bed, admin);
      assert.equal(await tokensLeft(bed.store), 1);
      await bed.settled();
      for (const token of tokens) assert.equal((await bed.ask(token, 'GET /v1/networks')).code, 'unauthenticated');
    });
  }
});

test('the sweep leaves the tokens of a tenant that there is', async () => {
  await using bed = await openBed();
  const { tokens } = await withTokens(bed);
  await sweepOnce(bed.controller.control);
  assert.equal(await tokensLeft(bed.store), tokens.length + 1);
});
