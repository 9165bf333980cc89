// Who may know a password: hosts that speak with a peer of it, and nobody else, by whichever way they ask.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { secretTexts } from '#api/answers.ts';
import { schemas } from '#api/schemas.ts';
import { openBed } from './bed.ts';

const peer = (spec: object, name = 'fabric'): { body: object } => ({ body: { sort: 'BGPPeer', name, spec } });
const spec = {
  node: 'a',
  peerIP: '10.213.1.1',
  asNumber: 64_600,
  password: { secretKeyRef: { name: 'fabric', key: 'password' } },
};
const secret = { body: { texts: { password: 'not for everybody' } } };

test('the text of a secret is told to the host whose peer has it, in no list, no watch and no answer', async () => {
  await using bed = await openBed();
  const [admin, a, b] = [await bed.role('admin'), await bed.host('a'), await bed.host('b')];
  await using whole = await bed.watch(admin);
  await using ofA = await bed.watch(a);
  const made = await bed.must(admin, 'PUT /v1/secrets/fabric', schemas.secrets, secret);
  assert.deepEqual([made.id, made.keys], ['fabric', ['password']]);
  await bed.settled();
  const ask = 'GET /v1/secrets/fabric/texts';
  assert.equal((await bed.ask(a, ask)).code, 'not-found', 'nothing of this host names it yet');
  await bed.must(admin, 'PUT /v1/bgp/bgppeer.fabric', schemas.bgp, peer(spec));
  await bed.settled();
  assert.deepEqual((await bed.must(a, ask, secretTexts)).texts, { password: 'not for everybody' });
  assert.equal((await bed.ask(b, ask)).code, 'not-found', 'a host that the peer is not for');
  assert.equal((await bed.ask(admin, ask)).code, 'forbidden');
  const told = [];
  for (const line of ['GET /v1/secrets', 'GET /v1/secrets/fabric', 'GET /v1/bgp', 'GET /v1/bgp/fabric']) {
    told.push((await bed.ask(admin, line)).body, (await bed.ask(a, line)).body);
  }
  const lines = JSON.stringify([told, whole.lines, ofA.lines]);
  assert.ok(!lines.includes('not for everybody'));
  assert.ok(lines.includes('bgppeer.fabric'));
  assert.equal((await bed.ask(await bed.role('tenant:default'), 'GET /v1/secrets')).code, 'forbidden');
});

test('what is so already is not written again, and a secret that is named stays', async () => {
  await using bed = await openBed();
  const admin = await bed.role('admin');
  const first = await bed.must(admin, 'PUT /v1/secrets/fabric', schemas.secrets, secret);
  assert.equal((await bed.must(admin, 'PUT /v1/secrets/fabric', schemas.secrets, secret)).revision, first.revision);
  const made = await bed.must(admin, 'PUT /v1/bgp/bgppeer.fabric', schemas.bgp, peer(spec));
  assert.equal((await bed.must(admin, 'PUT /v1/bgp/bgppeer.fabric', schemas.bgp, peer(spec))).revision, made.revision);
  await bed.settled();
  assert.equal((await bed.ask(admin, 'DELETE /v1/secrets/fabric')).code, 'in-use');
  assert.equal((await bed.ask(admin, 'DELETE /v1/bgp/fabric')).code, '');
  await bed.settled();
  assert.equal((await bed.ask(admin, 'DELETE /v1/secrets/fabric')).code, '');
  assert.equal(await bed.store.get('secret-texts/fabric'), undefined);
});

test('what cannot be followed is refused with the field, and nothing is kept of it', async (t) => {
  await using bed = await openBed();
  const admin = await bed.role('admin');
  const rows: readonly [what: string, line: string, body: object, field: string][] = [
    ['a peer without address', 'PUT /v1/bgp/bgppeer.fabric', peer({}).body, 'spec.peerIP'],
    ['an AS number that is none', 'PUT /v1/bgp/bgppeer.fabric', peer({ ...spec, asNumber: 0 }).body, 'spec.asNumber'],
    ['another path than the body', 'PUT /v1/bgp/bgppeer.other', peer(spec).body, 'name'],
    [
      'a filter’s rule without action',
      'PUT /v1/bgp/bgpfilter.f',
      { sort: 'BGPFilter', name: 'f', spec: { importV4: [{}] } },
      'spec.importV4.0.action',
    ],
    ['settings of one node', 'PUT /v1/bgp/bgpconfiguration.node.a', { sort: 'BGPConfiguration', name: 'node.a', spec: {} }, 'name'],
    ['a sort that is none', 'PUT /v1/bgp/ippool.a', { sort: 'IPPool', name: 'a', spec: {} }, 'sort'],
    ['a name that makes no id', 'PUT /v1/bgp/bgppeer.a', { sort: 'BGPPeer', name: 'a'.repeat(47), spec }, 'name'],
    ['a spec that is none', 'PUT /v1/bgp/bgppeer.fabric', { sort: 'BGPPeer', name: 'fabric', spec: 'x' }, 'spec'],
    ['a secret without texts', 'PUT /v1/secrets/fabric', { texts: {} }, 'texts'],
    ['an empty text', 'PUT /v1/secrets/fabric', { texts: { password: '' } }, 'texts.password'],
  ];
  for (const [what, line, body, field] of rows) {
    await t.test(what, async () => {
      const answer = await bed.ask(admin, line, { body });
      assert.deepEqual([answer.code, answer.field], ['invalid', field], JSON.stringify(answer.body));
    });
  }
  const items = v.object({ items: v.array(v.unknown()) });
  for (const kind of ['bgp', 'secrets']) assert.deepEqual((await bed.must(admin, `GET /v1/${kind}`, items)).items, []);
});
