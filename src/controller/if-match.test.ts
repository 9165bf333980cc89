// If-Match: what somebody else changed in between is neither overwritten, nor removed, nor made anew.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { schemas } from '#api/schemas.ts';
import { endpointBody, openBed, overtaken } from './bed.ts';

test('a network that is changed between the look at it and its removal is not removed', async () => {
  let change: (() => Promise<unknown>) | undefined;
  const store = overtaken(async (operations) => {
    const isRemoval = operations.some((one) => one.type === 'put' && one.key.startsWith('networks/'));
    const now = isRemoval ? change : undefined;
    if (now === undefined) return;
    change = undefined;
    await now();
  });
  await using bed = await openBed({ store });
  const admin = await bed.role('admin');
  const made = await bed.must(admin, 'POST /v1/networks', schemas.networks, { body: { name: 'red' } });
  const headers = { 'if-match': `"${made.revision}"` };
  change = () => bed.must(admin, 'PUT /v1/networks/red', schemas.networks, { body: { ...made, labels: { keep: 'yes' } }, headers });
  const { status, code, field } = await bed.ask(admin, 'DELETE /v1/networks/red', { headers });
  assert.deepEqual([status, code, field], [412, 'conflict', 'If-Match']);
  const left = await bed.must(admin, 'GET /v1/networks/red', schemas.networks);
  assert.deepEqual([left.labels, left.deletedAt], [{ keep: 'yes' }, undefined]);
});

test('what is gone is not made anew by a change of it', async (t) => {
  await using bed = await openBed();
  const [admin, a] = [await bed.role('admin'), await bed.host('a')];
  const red = await bed.must(admin, 'POST /v1/networks', schemas.networks, { body: { name: 'red', addressing: 'external' } });
  await bed.settled();
  const rows = [
    ['resource of BGP', admin, '/v1/bgp/bgppeer.one', { sort: 'BGPPeer', name: 'one', spec: { peerIP: '192.0.2.1', asNumber: 64512 } }],
    ['secret', admin, '/v1/secrets/one', { texts: { password: 'x' } }],
    ['endpoint', a, '/v1/endpoints/endpoint0001', endpointBody('a', red.id)],
  ] as const;
  for (const [what, asker, path, body] of rows) {
    await t.test(what, async () => {
      const first = await bed.ask(asker, `PUT ${path}`, { body });
      assert.equal(first.code, '', JSON.stringify(first.body));
      assert.equal((await bed.ask(asker, `DELETE ${path}`)).code, '');
      const late = await bed.ask(asker, `PUT ${path}`, { body, headers: { 'if-match': first.etag ?? '' } });
      assert.deepEqual([late.status, late.code, late.field], [412, 'conflict', 'If-Match']);
    });
  }
});
