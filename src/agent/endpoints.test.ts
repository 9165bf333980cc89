import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeEndpoint } from '#drivers/cluster.fixture.ts';
import { Fault, isFault } from '#model/fault.ts';
import { parseIp } from '#model/ip.ts';
import type { LocalEndpoint } from '#model/resources.ts';
import { Endpoints } from './endpoints.ts';
import { MemoryJournal } from './journal.ts';

const local = (number: number, slot: number): LocalEndpoint => ({
  endpoint: makeEndpoint('aaaaaaaaaa', 'host-1', number, [parseIp('10.0.0.2')]),
  slot,
});

test('what is put is there for another process, and what is deleted is not; changes are told, absences are not', () => {
  const journal = new MemoryJournal();
  let changes = 0;
  const endpoints = new Endpoints(journal, () => (changes += 1));
  endpoints.put(local(1, 1));
  endpoints.put(local(2, 2));
  endpoints.put({ ...local(1, 1), sandbox: '/x', order: 1 });
  endpoints.delete(local(2, 2).endpoint.id);
  endpoints.delete(local(2, 2).endpoint.id);
  assert.deepEqual([endpoints.all(), changes], [[{ ...local(1, 1), sandbox: '/x', order: 1 }], 4]);
  assert.deepEqual(new Endpoints(journal, () => undefined).all(), endpoints.all());
});

test('slots go round, so that none is used again at once, and none is given twice', () => {
  const endpoints = new Endpoints(new MemoryJournal(), () => undefined);
  const given = [1, 2, 3].map((number) => {
    const slot = endpoints.freeSlot();
    endpoints.put(local(number, slot));
    return slot;
  });
  endpoints.delete(local(2, 2).endpoint.id);
  assert.deepEqual([given, endpoints.freeSlot()], [[1, 2, 3], 4]);
});

test('another process does not give a slot that is taken', () => {
  const journal = new MemoryJournal();
  const first = new Endpoints(journal, () => undefined);
  for (const number of [1, 2]) first.put(local(number, first.freeSlot()));
  assert.equal(new Endpoints(journal, () => undefined).freeSlot(), 3);
});

test('a host that is full says so', () => {
  const journal = new MemoryJournal();
  const endpoints = new Endpoints(journal, () => undefined);
  for (let slot = 1; slot <= 32_766; slot++) endpoints.put({ ...local(slot, slot) });
  assert.throws(() => endpoints.freeSlot(), { code: 'exhausted' });
  endpoints.delete(local(77, 77).endpoint.id);
  assert.equal(endpoints.freeSlot(), 77);
});

const { endpoint } = local(1, 1);
const records: readonly (readonly [string, unknown])[] = [
  ['a text', 'nonsense'],
  ['a record without a slot', { endpoint }],
  ['a slot that is none', { endpoint, slot: 0 }],
  ['a record without an endpoint', { slot: 1 }],
  ['addresses that are none', { endpoint: { ...endpoint, addresses: '10.0.0.2' }, slot: 1 }],
];
for (const [what, record] of records) {
  test(`a journal with ${what} is corrupt, and says what to do`, () => {
    const journal = new MemoryJournal();
    journal.put(`endpoint/${endpoint.id}`, record);
    assert.throws(
      () => new Endpoints(journal, () => undefined),
      (error) => isFault(error, 'corrupt') && error.hint !== undefined,
    );
  });
}

function refuse(): never {
  throw new Fault('unavailable', 'The disk is full');
}

test('what the disk refuses is not known either', (t) => {
  const journal = new MemoryJournal();
  const endpoints = new Endpoints(journal, () => undefined);
  endpoints.put(local(1, 1));
  t.mock.method(journal, 'put', refuse);
  t.mock.method(journal, 'delete', refuse);
  assert.throws(() => endpoints.put(local(2, 2)), { code: 'unavailable' });
  assert.throws(() => endpoints.put({ ...local(1, 1), sandbox: '/x' }), { code: 'unavailable' });
  assert.throws(() => endpoints.delete(local(1, 1).endpoint.id), { code: 'unavailable' });
  assert.deepEqual([endpoints.all(), endpoints.get(local(2, 2).endpoint.id)], [[local(1, 1)], undefined]);
});
