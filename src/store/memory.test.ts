import assert from 'node:assert/strict';
import { test } from 'node:test';
import { storeContract } from './contract.ts';
import { faults, put, Watcher } from './contract-fixture.ts';
import { MemoryFacts, MemoryStore } from './memory.ts';

storeContract('memory', async () => {
  const facts = new MemoryFacts();
  return { open: async () => new MemoryStore(facts), [Symbol.asyncDispose]: async () => undefined };
});

test('old history is forgotten by itself', async () => {
  await using store = new MemoryStore(new MemoryFacts(100));
  for (let index = 0; index < 300; index += 1) await store.commit([put('a', index)]);
  await using old = new Watcher(store, '', 150);
  await faults(Promise.reject(await old.end()), 'compacted');
  await using recent = new Watcher(store, '', 200);
  assert.equal((await recent.take(100)).at(-1)?.revision, 300);
});
