import assert from 'node:assert/strict';
import test from 'node:test';
import * as fc from 'fast-check';
import {
  allocate,
  allocateExact,
  type Allocation,
  bindTo,
  emptyAllocation,
  expire,
  free,
  freeCount,
  type Given,
  lend,
  takeBack,
} from './allocation.ts';
import { spaceOf } from './block.ts';
import { type Cidr, type Ip, parseCidr } from './ip.ts';
import type { Pool } from './resources.ts';

const poolOf = (cidr: Cidr): Pool => ({
  id: 'p',
  name: '',
  revision: 1,
  createdAt: '',
  labels: {},
  network: 'n',
  cidr,
  blockLength: 0,
  reserved: {},
});
const cidr4 = parseCidr('10.0.0.0/29');
const space = spaceOf(poolOf(cidr4), cidr4);
const cooldownMs = 60_000;
const ip = (last: number): Ip => `10.0.0.${last}` as Ip;

function must(given: Given | undefined): Given {
  assert.ok(given !== undefined);
  return given;
}

function fill(state: Allocation, now: number, count: number): Allocation {
  let next = state;
  for (let n = 0; n < count; n++) next = must(allocate(next, space, { owner: `o${n}`, sequence: n + 1, now, cooldownMs })).state;
  return next;
}

test('freed addresses come back oldest first, and only when they have rested', () => {
  let state = fill(emptyAllocation, 0, 6);
  state = free(state, ip(4), { now: 1000 });
  state = free(state, ip(2), { now: 2000 });
  assert.equal(allocate(state, space, { owner: 'x', sequence: 9, now: 60_999, cooldownMs }), undefined);
  const first = must(allocate(state, space, { owner: 'x', sequence: 9, now: 99_000, cooldownMs }));
  const second = must(allocate(first.state, space, { owner: 'y', sequence: 10, now: 99_000, cooldownMs }));
  assert.deepEqual([first.ip, second.ip], [ip(4), ip(2)]);
});

test('addresses that were never given come before rested ones, and the search does not turn back', () => {
  let state = fill(emptyAllocation, 0, 2);
  state = free(state, ip(1), { now: 0 });
  state = expire(state, { now: 1e6, forgetMs: 600_000 });
  assert.equal(must(allocate(state, space, { owner: 'x', sequence: 9, now: 1e6, cooldownMs })).ip, ip(3));
});

test('a late release with an old sequence leaves the new owner alone', () => {
  let state = must(allocateExact(emptyAllocation, ip(3), { owner: 'old', sequence: 1, now: 0, cooldownMs })).state;
  state = free(state, ip(3), { sequence: 1, now: 1 });
  state = must(allocateExact(state, ip(3), { owner: 'new', sequence: 2, now: 2, cooldownMs })).state;
  assert.equal(free(state, ip(3), { sequence: 1, now: 3 }), state);
  assert.equal(free(state, ip(3), { sequence: 2, now: 3 }).records.get(ip(3))?.status, 'cooling');
});

test('an exact request ignores rest but not owners; the same owner gets it again', () => {
  const claim = { owner: 'a', sequence: 1, now: 0, cooldownMs };
  let { state } = must(allocateExact(emptyAllocation, ip(3), claim));
  assert.equal(must(allocateExact(state, ip(3), { ...claim, sequence: 7 })).state, state);
  assert.equal(allocateExact(state, ip(3), { ...claim, owner: 'b' }), undefined);
  state = free(state, ip(3), { now: 1 });
  assert.equal(must(allocateExact(state, ip(3), { ...claim, owner: 'b', now: 2 })).ip, ip(3));
});

test('a loan is granted once, taken back once, and its address rests for everybody but the host that had it', () => {
  const claim = { host: 'h2', sequence: 1, revision: 5, now: 0, cooldownMs };
  const lent = must(lend(emptyAllocation, space, { ...claim, loan: 'l1' }));
  assert.equal(lend(lent.state, space, { ...claim, loan: 'l1' })?.state, lent.state);
  assert.equal(lend(lent.state, space, { ...claim, loan: 'l2', ip: lent.ip }), undefined);
  assert.equal(allocateExact(lent.state, lent.ip, { owner: 'a', sequence: 1, now: 0, cooldownMs }), undefined);
  assert.equal(free(lent.state, lent.ip, { now: 0 }), lent.state);
  const back = takeBack(lent.state, 'l1', 10);
  assert.equal(takeBack(back, 'l1', 20), back);
  assert.equal(lend(back, space, { ...claim, loan: 'l3', host: 'h3', ip: lent.ip, now: 11 }), undefined);
  assert.equal(lend(back, space, { ...claim, loan: 'l3', ip: lent.ip, now: 11 })?.ip, lent.ip);
});

test('a quiet block gives by name only, until its time has come', () => {
  const quiet: Allocation = { ...emptyAllocation, quietUntil: 60_000 };
  const claim = { owner: 'a', sequence: 1, now: 59_999, cooldownMs };
  assert.equal(allocate(quiet, space, claim), undefined);
  assert.equal(freeCount(quiet, space, claim), 0);
  assert.equal(lend(quiet, space, { ...claim, loan: 'l', host: 'h', revision: 1, ip: ip(2) }), undefined);
  assert.equal(must(allocateExact(quiet, ip(2), claim)).ip, ip(2));
  assert.equal(must(allocate(quiet, space, { ...claim, now: 60_000 })).ip, ip(1));
});

test('a clock that was set back keeps no address from coming back', () => {
  let state = fill(emptyAllocation, 0, 6);
  state = free(state, ip(1), { now: 10_000_000 });
  state = expire(state, { now: 1000, forgetMs: 600_000 });
  assert.equal(must(allocate(state, space, { owner: 'x', sequence: 9, now: 61_000, cooldownMs })).ip, ip(1));
});

type Step = { readonly kind: 'any' | 'exact' | 'free' | 'late' | 'lend' | 'back' | 'expire'; readonly last: number; readonly wait: number };
const step = fc.record<Step>({
  kind: fc.constantFrom('any', 'exact', 'free', 'late', 'lend', 'back', 'expire'),
  last: fc.integer({ min: 0, max: 7 }),
  wait: fc.constantFrom(0, 1, 1000, 30_000, 60_000, 700_000),
});

for (const cidr of [cidr4, parseCidr('fd00::/125')]) {
  test(`any interleaving in ${cidr}: one owner per address, none lost, none before its rest`, () => {
    const here = spaceOf(poolOf(cidr), cidr);
    const at = (last: number): Ip => cidr.replace(/0?\/.*/, String(last)) as Ip;
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        let state: Allocation = emptyAllocation;
        let now = 0;
        let sequence = 0;
        const live = new Map<Ip, { owner: string; sequence: number }>();
        const freedAt = new Map<Ip, number>();
        const apply = (given: Given | undefined, owner: string, exact: boolean) => {
          if (given === undefined) return;
          assert.ok(!live.has(given.ip), `${given.ip} has two owners`);
          assert.ok(exact || now - (freedAt.get(given.ip) ?? -Infinity) >= cooldownMs, 'before its rest');
          state = given.state;
          live.set(given.ip, { owner, sequence });
        };
        const done = (address: Ip) => {
          live.delete(address);
          freedAt.set(address, now);
        };
        for (const { kind, last, wait } of steps) {
          now += wait;
          sequence++;
          const owner = `o${sequence}`;
          const target = at(last);
          const holder = live.get(target);
          if (kind === 'any') apply(allocate(state, here, { owner, sequence, now, cooldownMs }), owner, false);
          else if (kind === 'exact') apply(allocateExact(state, target, { owner, sequence, now, cooldownMs }), owner, true);
          else if (kind === 'lend') {
            const given = lend(state, here, { loan: owner, host: 'h', sequence, revision: 1, now, cooldownMs });
            apply(given, `loan:${owner}`, false);
          } else if (kind === 'free' && holder !== undefined && !holder.owner.startsWith('loan:')) {
            state = bindTo(state, target, 'e');
            state = free(state, target, { sequence: holder.sequence, now });
            done(target);
          } else if (kind === 'late') state = free(state, target, { sequence: (holder?.sequence ?? sequence) - 1, now });
          else if (kind === 'back' && holder?.owner.startsWith('loan:') === true) {
            state = takeBack(state, holder.owner.slice(5), now);
            done(target);
          } else if (kind === 'expire') state = expire(state, { now, forgetMs: 600_000 });
        }
        for (const [address, { owner }] of live) {
          state = owner.startsWith('loan:') ? takeBack(state, owner.slice(5), now) : free(state, address, { now });
        }
        live.clear();
        freedAt.clear();
        now += cooldownMs;
        assert.equal(freeCount(state, here, { now, cooldownMs }), here.capacity);
        for (let n = 0; n < here.capacity; n++)
          apply(must(allocate(state, here, { owner: `z${n}`, sequence: 0, now, cooldownMs })), 'z', false);
      }),
      { numRuns: 1000 },
    );
  });
}
