// What a host writes of policies, and how often, on a server that keeps one object.
import assert from 'node:assert/strict';
import { mock, test, type TestContext } from 'node:test';
import { Fault } from '#model/fault.ts';
import { hostPolicies } from './host-policies.ts';
import { PolicyTeller, type PolicyWord } from './policy-teller.ts';

const pace = { gather: 10, rest: 100, refresh: 10_000 };
const word = (changes: number, at: number, inForce: Readonly<Record<string, number>> = {}): PolicyWord => ({
  inForce,
  known: { np: at },
  hostEndpoints: {},
  changes,
});

interface Kept {
  readonly metadata: { readonly resourceVersion: string; readonly ownerReferences: readonly { readonly uid: string }[] };
  readonly [field: string]: unknown;
}

function bed(t: TestContext) {
  const state = { object: undefined as Kept | undefined, uid: 'u1', writes: 0, refuse: undefined as Fault | undefined, version: 0 };
  const take = (object: object): Promise<unknown> => {
    if (state.refuse !== undefined) return Promise.reject(state.refuse);
    const { metadata } = object as Kept;
    state.writes += 1;
    state.object = { ...object, metadata: { ...metadata, resourceVersion: `${(state.version += 1)}` } };
    return Promise.resolve(structuredClone(state.object));
  };
  const client = {
    get: (path: string) => {
      if (path === '/api/v1/nodes/a') return Promise.resolve({ metadata: { uid: state.uid } });
      if (state.object === undefined) return Promise.reject(new Fault('not-found', 'no'));
      return Promise.resolve(structuredClone(state.object));
    },
    create: (path: string, object: object) => {
      assert.deepEqual([path, state.object], [hostPolicies, undefined]);
      return take(object);
    },
    replace: (path: string, object: object) => {
      assert.equal(path, `${hostPolicies}/a`);
      if (state.object === undefined) return Promise.reject(new Fault('not-found', 'gone'));
      if ((object as Kept).metadata.resourceVersion !== state.object.metadata.resourceVersion)
        return Promise.reject(new Fault('conflict', 'changed'));
      return take(object);
    },
  };
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const warnings: string[] = [];
  const teller = new PolicyTeller({ client, node: 'a', log: { warn: (_, message) => warnings.push(message) }, pace });
  t.after(() => {
    teller[Symbol.dispose]();
    mock.timers.reset();
  });
  return { state, teller, warnings };
}
const ownersOf = ({ object }: { object: Kept | undefined }): unknown => object?.metadata.ownerReferences;
/** Lets so much time pass, and what follows from it happen. */
async function pass(ms: number): Promise<void> {
  mock.timers.tick(ms);
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}
const part = ({ object }: { object: Kept | undefined }): unknown =>
  object && [object['policies'], object['inForce'], object['known'], object['problem']];

test('many changes are one write; it belongs to the Node', async (t) => {
  const { state, teller } = bed(t);
  for (let change = 1; change <= 50; change++) teller.wish(word(change, change, { 'NetworkPolicy n/b': change, 'NetworkPolicy n/a': 1 }));
  await pass(25);
  assert.deepEqual(part(state), [2, { 'NetworkPolicy n/a': 1, 'NetworkPolicy n/b': 50 }, { np: '50' }, undefined]);
  assert.deepEqual([state.writes, state.object?.metadata.ownerReferences[0]?.uid], [1, 'u1']);
});

test('how far it has read is told with the next change, or when it is looked again', async (t) => {
  const { state, teller } = bed(t);
  teller.wish(word(1, 1));
  await pass(25);
  teller.wish(word(1, 2));
  await pass(1000);
  assert.deepEqual([state.writes, part(state)], [1, [0, {}, { np: '1' }, undefined]]);
  await pass(10_000);
  await pass(200);
  assert.deepEqual([state.writes, part(state)], [2, [0, {}, { np: '2' }, undefined]]);
  await pass(10_000);
  await pass(200);
  assert.equal(state.writes, 2);
});

test('what a kernel refuses is told beside what it has, until it takes it', async (t) => {
  const { state, teller } = bed(t);
  teller.wish(word(1, 1, { 'NetworkPolicy n/a': 1 }));
  await pass(25);
  teller.wish(undefined, 'Cannot load');
  await pass(200);
  assert.deepEqual(part(state), [1, { 'NetworkPolicy n/a': 1 }, { np: '1' }, 'Cannot load']);
  teller.wish(word(2, 2, { 'NetworkPolicy n/a': 2 }));
  await pass(200);
  assert.deepEqual(part(state), [1, { 'NetworkPolicy n/a': 2 }, { np: '2' }, undefined]);
});

test('somebody who changes or removes it, and a Node that is made anew, are found out', async (t) => {
  const { state, teller, warnings } = bed(t);
  teller.wish(word(1, 1));
  await pass(25);
  const before = state.object ?? assert.fail();
  state.object = { ...before, metadata: { ...before.metadata, resourceVersion: '77' } };
  teller.wish(word(2, 2));
  await pass(200);
  await pass(200);
  assert.deepEqual([part(state), warnings], [[0, {}, { np: '2' }, undefined], []]);
  [state.object, state.uid] = [undefined, 'u2'];
  await pass(10_000);
  await pass(200);
  assert.deepEqual(part(state), [0, {}, { np: '2' }, undefined]);
  assert.deepEqual(ownersOf(state), [{ apiVersion: 'v1', kind: 'Node', name: 'a', uid: 'u2' }]);
});

test('a server that refuses is told of once, and asked again; one that lacks the resource is left alone for a while', async (t) => {
  const { state, teller, warnings } = bed(t);
  state.refuse = new Fault('forbidden', 'no');
  teller.wish(word(1, 1));
  for (let turn = 0; turn < 5; turn++) await pass(200);
  assert.equal(warnings.length, 1);
  state.refuse = undefined;
  await pass(200);
  assert.equal(state.writes, 1);
});
