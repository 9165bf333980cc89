import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import * as fc from 'fast-check';
import type { Journal } from '#api/local.ts';
import { spaceOf } from '#model/block.ts';
import { Fault, type FaultCode, isFault } from '#model/fault.ts';
import { type Cidr, cidrBase, contains, type Ip, ipAdd, parseCidr, subnetAt } from '#model/ip.ts';
import type { Block, Endpoint, Host, Loan, Network, Pool, Snapshot } from '#model/resources.ts';
import { AddressBook } from './address-book.ts';
import { rangeOf } from './elsewhere.ts';
import { openJournal } from './journal.ts';
import type { AddressFacts, AddressOptions, Clock, ClusterAddresses, Settlement } from './address-cluster.ts';

const meta = { name: '', revision: 1, createdAt: '', labels: {} };
const wire = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

/** A journal whose disk outlives its process: `open()` is one process's handle, which fails after `kill()`. */
class Disk {
  #rows = new Map<string, string>();
  writes = 0;
  #process = 0;
  /** The process dies when it makes this many more writes. */
  deadIn = Infinity;

  kill(): void {
    this.#process++;
    this.deadIn = Infinity;
  }

  wipe(): void {
    this.#rows.clear();
  }

  open(): Journal {
    const process = this.#process;
    const write = (change: () => void) => {
      if (this.deadIn-- <= 0) this.kill();
      if (process !== this.#process) throw new Fault('unavailable', 'this process is dead');
      this.writes++;
      change();
    };
    return {
      get: (key) => {
        const row = this.#rows.get(key);
        return row === undefined ? undefined : JSON.parse(row);
      },
      keys: (prefix) => [...this.#rows.keys()].filter((key) => key.startsWith(prefix)).toSorted(),
      list: (prefix) =>
        [...this.#rows]
          .filter(([key]) => key.startsWith(prefix))
          .toSorted(([a], [b]) => (a < b ? -1 : 1))
          .map(([key, row]) => ({ key, value: JSON.parse(row) as unknown })),
      put: (key, value) => write(() => this.#rows.set(key, JSON.stringify(value))),
      delete: (key) => write(() => this.#rows.delete(key)),
      transaction: (fn) => {
        const before = new Map(this.#rows);
        try {
          return fn();
        } catch (error) {
          this.#rows = before;
          throw error;
        }
      },
      soon: (fn) => fn(),
      durable: () => Promise.resolve(),
    };
  }

  isDead(handle: Journal): boolean {
    const before = this.deadIn;
    this.deadIn = Infinity;
    try {
      handle.delete('nothing');
      return false;
    } catch {
      return true;
    } finally {
      this.deadIn = before;
    }
  }
}

class FakeClock implements Clock {
  #now = 1_000_000;
  readonly #timers = new Map<() => void, number>();
  now(): number {
    return this.#now;
  }
  after(ms: number, fn: () => void): () => void {
    this.#timers.set(fn, this.#now + ms);
    return () => this.#timers.delete(fn);
  }
  advance(ms: number): void {
    this.#now += ms;
    for (const [fn, at] of this.#timers) {
      if (at > this.#now) continue;
      this.#timers.delete(fn);
      fn();
    }
  }
}

/** What the controller does, at once and never wrong. */
class FakeStore {
  revision = 10;
  readonly blocks = new Map<string, Block>();
  readonly endpoints = new Map<string, Endpoint>();
  readonly hosts = new Map<string, Host>();
  readonly network: Network;
  pool: Pool;
  claims = 0;
  /** With blocks whose ports are sub-ports. */
  isTagged = false;
  /** As hosts told, claim by claim. */
  readonly known: (number | undefined)[] = [];

  constructor(
    cidr: Cidr,
    blockLength: number,
    options: { blocksPerHost?: number; borrow?: boolean; external?: boolean; inCloud?: NonNullable<Network['neutron']> } = {},
  ) {
    this.pool = { ...meta, id: 'pool000001', network: 'net0000001', cidr, gateway: ipAdd(cidrBase(cidr), 1), reserved: {}, blockLength };
    const { blocksPerHost = 0, borrow = true, external = false, inCloud } = options;
    this.network = {
      ...meta,
      id: 'net0000001',
      model: inCloud === undefined ? 'overlay' : 'neutron',
      tenant: 'default',
      choices: {
        attach: 'routed',
        domain: 'own',
        address: { blockLength4: blockLength, blockLength6: blockLength, blocksPerHost, borrow },
        carry: 'vxlan',
        guard: 'isolated',
      },
      encrypted: false,
      internal: false,
      vni: 1,
      attachable: true,
      addressing: external ? 'external' : 'blocks',
      ...(inCloud === undefined ? {} : { neutron: inCloud }),
    };
  }

  addHost(name: string): void {
    const status = { ready: true, seenAt: '', desired: 0, applied: 0, failing: [], features: {} };
    this.hosts.set(name, { ...meta, id: name, index: 1, generation: 1, underlay: [], agentVersion: '', status });
  }

  /** A block in which other hosts have loans stays until they are returned, without an owner. */
  removeHost(name: string): void {
    this.hosts.delete(name);
    for (const [id, gone] of this.endpoints) if (gone.host === name) this.endpoints.delete(id);
    for (const block of this.blocks.values()) {
      const loans = block.loans.filter((loan) => loan.host !== name && (block.host !== name || loan.state === 'granted'));
      if (block.host === name) this.#put({ ...block, host: '', loans });
      else if (loans.length < block.loans.length) this.#put({ ...block, loans });
    }
  }

  /** As `host` watches it: of a network in which it takes no part it sees neither blocks nor endpoints. */
  factsFor(host: string): AddressFacts {
    const facts = this.facts();
    const { blocks, endpoints } = facts.snapshot;
    const takesPart =
      [...blocks.values()].some((block) => block.host === host || block.loans.some((loan) => loan.host === host)) ||
      [...endpoints.values()].some((one) => one.host === host);
    return takesPart ? facts : { ...facts, snapshot: { ...facts.snapshot, blocks: new Map(), endpoints: new Map() } };
  }

  facts(live = true): AddressFacts {
    const snapshot: Snapshot = {
      hosts: new Map(this.hosts),
      networks: new Map([[this.network.id, this.network]]),
      pools: new Map([[this.pool.id, this.pool]]),
      blocks: new Map(this.blocks),
      endpoints: new Map(this.endpoints),
      exposures: new Map(),
    };
    return { snapshot, revision: this.revision, live };
  }

  #put(block: Block): Block {
    this.revision++;
    const next = { ...block, revision: this.revision };
    if (next.host === '' && next.loans.length === 0) this.blocks.delete(block.id);
    else this.blocks.set(block.id, next);
    return next;
  }

  claim(host: string, ip: Ip | undefined): Block {
    this.claims++;
    for (let index = 0n; ; index++) {
      const cidr = subnetAt(this.pool.cidr, this.pool.blockLength, index);
      if (cidr === undefined) throw new Fault('exhausted', 'no block left');
      const found = this.blocks.get(`block${index}`);
      if (ip !== undefined && !contains(cidr, ip)) continue;
      if (found !== undefined && ip !== undefined) return found;
      if (found !== undefined) continue;
      return this.#put({
        ...meta,
        id: `block${index}`,
        network: this.network.id,
        pool: this.pool.id,
        cidr,
        host,
        loans: [],
        ...(this.isTagged ? { vlan: 100 } : {}),
      });
    }
  }

  ask(host: string, id: string, loan: { id: string; endpoint: string; ip?: Ip }): Loan {
    const block = this.blocks.get(id);
    if (block === undefined || block.host === '') throw new Fault('not-found', 'no such block');
    const known = block.loans.find((other) => other.id === loan.id);
    if (known !== undefined) return known;
    const entry: Loan = { ...loan, host, state: 'asked' };
    this.#put({ ...block, loans: [...block.loans, entry] });
    return entry;
  }

  settle(host: string, id: string, loan: string, settlement: Settlement): void {
    const block = this.blocks.get(id);
    const entry = block?.loans.find((other) => other.id === loan);
    if (block?.host !== host || entry === undefined) throw new Fault('not-found', 'no such loan');
    const rest = block.loans.filter((other) => other !== entry);
    if (settlement.state === 'closed') {
      if (entry.state !== 'returned') throw new Fault('conflict', entry.state);
      this.#put({ ...block, loans: rest });
    } else if (entry.state === 'asked') this.#put({ ...block, loans: [...rest, { ...entry, ...settlement }] });
    else if (entry.state !== settlement.state) throw new Fault('conflict', entry.state);
  }

  return(id: string, loan: string): void {
    const block = this.blocks.get(id);
    const entry = block?.loans.find((other) => other.id === loan);
    if (block === undefined || entry === undefined || entry.state === 'returned') return;
    const rest = block.loans.filter((other) => other !== entry);
    const stays = entry.state === 'granted' && block.host !== '';
    this.#put({ ...block, loans: stays ? [...rest, { ...entry, state: 'returned' }] : rest });
  }

  release(host: string, { id, revision }: { id: string; revision: number }): void {
    const block = this.blocks.get(id);
    if (block?.host !== host) return;
    if (block.loans.length > 0) throw new Fault('in-use', 'lent');
    if (block.revision !== revision) throw new Fault('conflict', 'changed');
    this.revision++;
    this.blocks.delete(id);
  }

  /** Calls go through `send`, which decides when, and whether, they arrive. */
  client(host: string, send: <T>(act: () => T) => Promise<T>): ClusterAddresses {
    return {
      claimBlock: ({ ip, has }) =>
        send(() => {
          this.known.push(has);
          return this.claim(host, ip);
        }),
      blocksOf: () => send(() => [...this.blocks.values()]),
      askLoan: (block, loan) => send(() => this.ask(host, block.id, loan)),
      settleLoan: (block, loan, settlement) => send(() => this.settle(host, block, loan, settlement)),
      returnLoan: (block, loan) => send(() => this.return(block, loan)),
      releaseBlock: (block) => send(() => this.release(host, block)),
    };
  }
}

const drain = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const direct = async <T>(act: () => T): Promise<T> => act();
const hasCode = (code: FaultCode) => (error: unknown) => isFault(error, code);

/** Hosts whose cluster answers at once and whose watch follows every call. */
class Cluster {
  readonly store: FakeStore;
  readonly clock = new FakeClock();
  readonly disks = new Map<string, Disk>();
  readonly books = new Map<string, AddressBook>();
  #ids = 0;

  constructor(store: FakeStore, ...hosts: string[]) {
    this.store = store;
    for (const host of hosts) {
      store.addHost(host);
      this.disks.set(host, new Disk());
    }
    for (const host of hosts) this.start(host);
  }

  start(host: string, options: Partial<AddressOptions> = {}): AddressBook {
    const cluster = this.store.client(host, async (act) => {
      const answer = act();
      setImmediate(() => this.watch());
      return answer;
    });
    const newId = () => `loan${this.#ids++}`;
    const journal = (this.disks.get(host) ?? new Disk()).open();
    const book = new AddressBook({ journal, cluster, clock: this.clock, host, newId, ...options });
    this.books.set(host, book);
    book.blocksChanged(this.store.factsFor(host));
    return book;
  }

  watch(): void {
    for (const [host, book] of this.books) book.blocksChanged(this.store.factsFor(host));
  }

  async settle(): Promise<void> {
    for (let n = 0; n < 8; n++) await drain();
  }
}

const pool = 'pool000001';
const small = (): FakeStore => new FakeStore(parseCidr('10.0.0.0/28'), 30);

test('with room in the host’s block an address costs one journal write and no round trip', async () => {
  const cluster = new Cluster(new FakeStore(parseCidr('10.0.0.0/24'), 26), 'a');
  const book = cluster.books.get('a')!;
  assert.equal(await book.request(pool, 'first'), '10.0.0.2');
  assert.equal(book.count, 1);
  const before = { claims: cluster.store.claims, writes: cluster.disks.get('a')!.writes };
  assert.equal(await book.request(pool, 'second'), '10.0.0.3');
  const after = { claims: cluster.store.claims, writes: cluster.disks.get('a')!.writes };
  assert.deepEqual(after, { claims: before.claims, writes: before.writes + 1 });
});

test('fifty requests at once get fifty addresses; the same owner gets the same one', async () => {
  const cluster = new Cluster(new FakeStore(parseCidr('10.0.0.0/24'), 28), 'a');
  const book = cluster.books.get('a')!;
  const owners = Array.from({ length: 50 }, (_, index) => `o${index}`);
  const [once, again] = await Promise.all([
    Promise.all(owners.map((owner) => book.request(pool, owner))),
    Promise.all(owners.map((owner) => book.request(pool, owner))),
  ]);
  assert.equal(new Set(once).size, 50);
  assert.deepEqual(again, once);
  await assert.rejects(book.request(pool, 'o1', '10.0.0.200' as Ip), hasCode('exists'));
});

test('the next block is claimed before it is needed', async () => {
  const cluster = new Cluster(new FakeStore(parseCidr('10.0.0.0/24'), 28), 'a');
  const book = cluster.books.get('a')!;
  for (let n = 0; n < 11; n++) await book.request(pool, `o${n}`);
  await cluster.settle();
  assert.deepEqual({ claims: cluster.store.claims, room: book.room(pool) }, { claims: 2, room: { free: 19, capacity: 30 } });
});

test('nothing is given before the first snapshot, nor with a new journal from an old one', async () => {
  const store = small();
  const options = { cluster: store.client('a', direct), clock: new FakeClock(), host: 'a', newId: () => 'l' };
  const book = new AddressBook({ ...options, journal: new Disk().open() });
  await assert.rejects(book.request(pool, 'o'), hasCode('unavailable'));
  book.blocksChanged(store.facts(false));
  await assert.rejects(book.request(pool, 'o'), hasCode('unavailable'));
  book.blocksChanged(store.facts());
  assert.equal(await book.request(pool, 'o'), '10.0.0.2');
  await assert.rejects(book.request('other', 'o'), hasCode('not-found'));
});

const refused: [ip: string, code: FaultCode][] = [
  ['10.0.0.0', 'invalid'],
  ['10.0.0.15', 'invalid'],
  ['10.0.1.1', 'invalid'],
  ['fd00::1', 'invalid'],
  ['10.0.0.1', 'exists'],
  ['10.0.0.2', 'exists'],
];
for (const [ip, code] of refused) {
  test(`asking for ${ip} is refused: ${code}`, async () => {
    const cluster = new Cluster(small(), 'a');
    assert.equal(await cluster.books.get('a')!.request(pool, 'o'), '10.0.0.2');
    await assert.rejects(cluster.books.get('a')!.request(pool, 'p', ip as Ip), hasCode(code));
  });
}

test('an exact address comes from the block around it, whoever has it', async () => {
  const cluster = new Cluster(small(), 'a', 'b');
  assert.equal(await cluster.books.get('b')!.request(pool, 'x', '10.0.0.9' as Ip), '10.0.0.9');
  await cluster.settle();
  assert.equal(await cluster.books.get('a')!.request(pool, 'y', '10.0.0.10' as Ip), '10.0.0.10');
  assert.equal(cluster.store.blocks.get('block2')?.loans[0]?.state, 'granted');
  await assert.rejects(cluster.books.get('a')!.request(pool, 'z', '10.0.0.9' as Ip), hasCode('exists'));
  await assert.rejects(cluster.books.get('b')!.request(pool, 'z', '10.0.0.10' as Ip), hasCode('exists'));
});

test('a fixed address of another host’s block comes back at once to the host that had it, and rests for others', async () => {
  const cluster = new Cluster(small(), 'a', 'b', 'c');
  const fixed = '10.0.0.10' as Ip;
  await cluster.books.get('b')!.request(pool, 'x', '10.0.0.9' as Ip);
  await cluster.settle();
  await cluster.books.get('a')!.request(pool, 'y', fixed);
  cluster.books.get('a')!.release(pool, fixed);
  await cluster.settle();
  assert.deepEqual(cluster.store.blocks.get('block2')?.loans, []);
  await assert.rejects(cluster.books.get('c')!.request(pool, 'z', fixed), hasCode('exists'));
  await cluster.settle();
  assert.equal(await cluster.books.get('a')!.request(pool, 'y', fixed), fixed);
});

test('when no block is left an address is borrowed, and a network that does not lend is exhausted', async () => {
  for (const borrow of [true, false]) {
    const cluster = new Cluster(new FakeStore(parseCidr('10.0.0.0/29'), 29, { borrow }), 'a', 'b');
    await cluster.books.get('a')!.request(pool, 'x');
    await cluster.settle();
    const asked = cluster.books.get('b')!.request(pool, 'y');
    if (borrow) assert.equal(await asked, '10.0.0.3');
    else await assert.rejects(asked, hasCode('exhausted'));
  }
});

test('all addresses of a small pool can be had, wherever they are asked for, and none twice', async () => {
  for (const blockLength of [29, 31, 32]) {
    const hosts = ['a', 'b', 'c'];
    const cluster = new Cluster(new FakeStore(parseCidr('10.0.0.0/29'), blockLength), ...hosts);
    const given: string[] = [];
    for (const [index, host] of ['a', 'a', 'b', 'c', 'b'].entries()) {
      given.push(await cluster.books.get(host)!.request(pool, `o${index}`));
      await cluster.settle();
    }
    assert.deepEqual(given.toSorted(), ['10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.0.5', '10.0.0.6']);
    for (const host of hosts) await assert.rejects(cluster.books.get(host)!.request(pool, `late-${host}`), hasCode('exhausted'));
  }
});

test('a lender that does not answer costs a limited time', async () => {
  const cluster = new Cluster(new FakeStore(parseCidr('10.0.0.0/29'), 29), 'a', 'b');
  await cluster.books.get('a')!.request(pool, 'x');
  await cluster.settle();
  cluster.books.get('a')![Symbol.dispose]();
  cluster.books.delete('a');
  const asked = assert.rejects(cluster.books.get('b')!.request(pool, 'y'), hasCode('exhausted'));
  await cluster.settle();
  cluster.clock.advance(3000);
  await asked;
  await cluster.settle();
  assert.deepEqual(cluster.store.blocks.get('block0')?.loans, []);
});

test('blocks per host is a limit', async () => {
  const cluster = new Cluster(new FakeStore(parseCidr('10.0.0.0/28'), 30, { blocksPerHost: 1, borrow: false }), 'a');
  const book = cluster.books.get('a')!;
  await book.request(pool, 'x');
  await book.request(pool, 'y');
  await assert.rejects(book.request(pool, 'z'), hasCode('exhausted'));
  book.release(pool, '10.0.0.2' as Ip);
  cluster.clock.advance(60_000);
  assert.equal(await book.request(pool, 'z'), '10.0.0.2');
});

test('when nothing else is left the address that has rested longest is given', async () => {
  const cluster = new Cluster(new FakeStore(parseCidr('10.0.0.0/28'), 29, { blocksPerHost: 1, borrow: false }), 'a');
  const book = cluster.books.get('a')!;
  const given: Ip[] = [];
  for (let free = 1; free > 0; free = book.room(pool).free) given.push(await book.request(pool, `o${given.length}`));
  assert.ok(given.length > 2);
  await assert.rejects(book.request(pool, 'z'), hasCode('exhausted'));
  for (const ip of given.slice(0, 2).toReversed()) {
    cluster.clock.advance(1000);
    book.release(pool, ip);
  }
  assert.equal(book.room(pool).free, 2);
  assert.deepEqual([await book.request(pool, 'y'), await book.request(pool, 'z')], given.slice(0, 2).toReversed());
  await assert.rejects(book.request(pool, 'w'), hasCode('exhausted'));
});

test('of sub-ports a host claims further blocks, before the last is used up, and tells how many it has', async () => {
  const inCloud = { network: 'net', subnet: 'subnet' };
  const store = new FakeStore(parseCidr('10.0.0.0/26'), 29, { blocksPerHost: 1, borrow: false, inCloud });
  store.isTagged = true;
  const cluster = new Cluster(store, 'a');
  const book = cluster.books.get('a')!;
  for (let index = 0; index < 10; index++) {
    await book.request(pool, `owner${index}`);
    await drain();
  }
  assert.deepEqual(store.known, [0, 1]);
});

test('addresses that the engine gives are recorded only', async () => {
  const cluster = new Cluster(new FakeStore(parseCidr('10.0.0.0/24'), 26, { external: true }), 'a');
  const book = cluster.books.get('a')!;
  const ip = '10.0.0.77' as Ip;
  assert.equal(await book.request(pool, 'x', ip), ip);
  assert.equal(await book.request(pool, 'x', ip), ip);
  await assert.rejects(book.request(pool, 'y', ip), hasCode('exists'));
  await assert.rejects(book.request(pool, 'y'), hasCode('invalid'));
  book.release(pool, ip);
  assert.equal(await book.request(pool, 'y', ip), ip);
  assert.equal(cluster.store.claims, 0);
});

test('what is held without a live owner is freed after a while, what is bound to a live endpoint never', async () => {
  const cluster = new Cluster(small(), 'a');
  const book = cluster.books.get('a')!;
  const leaked = await book.request(pool, 'leaked');
  const used = await book.request(pool, 'used');
  book.bind(pool, used, 'endpoint1');
  assert.throws(() => book.bind(pool, '10.0.0.14' as Ip, 'endpoint1'), hasCode('not-found'));
  for (let n = 0; n < 3; n++) {
    await book.reconcile(['endpoint1']);
    cluster.clock.advance(300_000);
  }
  await book.reconcile(['endpoint1']);
  assert.deepEqual([book.held(pool, leaked), book.held(pool, used)?.endpoint], [undefined, 'endpoint1']);
});

test('a lost journal is rebuilt from the endpoints of the host; the rest of its blocks cools down', async () => {
  const store = new FakeStore(parseCidr('10.0.0.0/29'), 29, { blocksPerHost: 1, borrow: false });
  const cluster = new Cluster(store, 'a');
  const ip = await cluster.books.get('a')!.request(pool, 'ep1');
  store.endpoints.set('ep1', endpoint('ep1', 'a', ip));
  cluster.disks.get('a')!.wipe();
  const book = cluster.start('a');
  assert.equal(book.held(pool, ip)?.endpoint, 'ep1');
  await assert.rejects(book.request(pool, 'x'), hasCode('exhausted'));
  await assert.rejects(book.request(pool, 'x', ip), hasCode('exists'));
  cluster.clock.advance(60_000);
  assert.equal(await book.request(pool, 'x'), '10.0.0.3');
});

/** Whether a host with a new journal gives an address of a block that it already has. */
async function takes(borrow: boolean, isBare: boolean): Promise<boolean> {
  const store = new FakeStore(parseCidr('10.0.0.0/24'), 24, { blocksPerHost: 1, borrow });
  store.claim('a', undefined);
  const book = new Cluster(store).start('a', { isBare: () => isBare });
  return await book.request(pool, 'o').then(
    () => true,
    () => false,
  );
}

test('on a host that has nothing yet, a block that it finds is used at once, unless the network lends', async () => {
  assert.deepEqual([await takes(false, true), await takes(false, false), await takes(true, true)], [true, false, false]);
});

test('a block that was given back is not taken up again from a snapshot that is behind', async () => {
  const cluster = new Cluster(small(), 'a');
  const first = cluster.books.get('a')!;
  first.release(pool, await first.request(pool, 'x'));
  await cluster.settle();
  const behind = cluster.store.facts();
  for (let n = 0; n < 3; n++) {
    cluster.clock.advance(4_000_000);
    await first.reconcile([]);
  }
  assert.equal(cluster.store.blocks.size, 0);
  first.blocksChanged(behind);
  assert.equal(first.room(pool).capacity, 0);
  await cluster.settle();
  const second = cluster.start('a');
  second.blocksChanged({ ...behind, live: false });
  assert.equal(second.room(pool).capacity, 0);
});

for (const end of ['is of another range', 'has gone'] as const)
  test(`of a block whose pool ${end} nothing is given, what is held stays, and it goes back once it is idle`, async () => {
    const cluster = new Cluster(small(), 'a');
    const { store, clock } = cluster;
    const book = cluster.books.get('a')!;
    const [kept, freed] = [await book.request(pool, 'x'), await book.request(pool, 'y')];
    await cluster.settle();
    const { gateway: _, ...rest } = store.pool;
    store.pool = { ...rest, cidr: parseCidr('10.9.0.0/28') };
    const { snapshot, ...others } = store.facts();
    book.blocksChanged(end === 'has gone' ? { ...others, snapshot: { ...snapshot, pools: new Map() } } : { ...others, snapshot });
    book.release(pool, freed);
    clock.advance(120_000);
    await book.reconcile(['x']);
    if (end === 'has gone') await assert.rejects(book.request(pool, 'z'), hasCode('not-found'));
    else assert.match(await book.request(pool, 'z'), /^10\.9\.0\./);
    for (let n = 0; n < 3; n++) {
      clock.advance(700_000);
      await book.reconcile(['x', 'z']);
    }
    assert.equal(book.held(pool, kept)?.owner, 'x');
    assert.ok(store.blocks.has('block0'));
    book.release(pool, kept);
    for (let n = 0; n < 3; n++) {
      await book.reconcile(['z']);
      clock.advance(700_000);
    }
    assert.equal(store.blocks.has('block0'), false);
  });

test('nothing is given from a block while it is being given back', async () => {
  const store = small();
  const cluster = new Cluster(store, 'a');
  const reply = Promise.withResolvers<void>();
  const client = { ...store.client('a', direct), releaseBlock: () => reply.promise };
  const book = cluster.start('a', { cluster: client });
  book.release(pool, await book.request(pool, 'x'));
  book.blocksChanged(store.facts());
  void book.reconcile([]);
  cluster.clock.advance(600_000);
  void book.reconcile([]);
  cluster.clock.advance(3_600_000);
  void book.reconcile([]);
  assert.equal(await book.request(pool, 'y'), '10.0.0.4');
  await assert.rejects(book.request(pool, 'z', '10.0.0.2' as Ip), hasCode('unavailable'));
  reply.reject(new Fault('in-use', 'asked for a loan'));
});

test("a range that is a host's for good has addresses to give after hours without a container", async () => {
  const store = new FakeStore(parseCidr('10.0.0.0/24'), 24, { blocksPerHost: 1, borrow: false });
  const cluster = new Cluster(store);
  store.claim('a', undefined);
  const given = rangeOf({ who: 'somebody', hint: '' }, () => new Fault('exhausted', 'full'));
  const book = cluster.start('a', { cluster: given, isBare: () => true });
  book.release(pool, await book.request(pool, 'x'));
  for (let hour = 0; hour < 3; hour++) {
    cluster.clock.advance(3_700_000);
    await book.reconcile([]);
  }
  assert.equal(await book.request(pool, 'y'), '10.0.0.3');
});

test('a grant that comes in the moment in which the borrower gives up is returned', async () => {
  const store = new FakeStore(parseCidr('10.0.0.0/29'), 29);
  const cluster = new Cluster(store, 'a', 'b');
  await cluster.books.get('a')!.request(pool, 'x');
  await cluster.settle();
  const lender = cluster.books.get('a')!;
  cluster.books.delete('a');
  const asked = assert.rejects(cluster.books.get('b')!.request(pool, 'y'), hasCode('exhausted'));
  await cluster.settle();
  lender.blocksChanged(store.facts());
  cluster.clock.advance(3000);
  cluster.watch();
  await asked;
  await cluster.settle();
  assert.deepEqual(
    [cluster.books.get('b')!.held(pool, '10.0.0.3' as Ip), store.blocks.get('block0')?.loans[0]?.state],
    [undefined, 'returned'],
  );
});

test('a grant holds although the answer to the question for it was lost', async () => {
  const store = new FakeStore(parseCidr('10.0.0.0/29'), 29);
  const cluster = new Cluster(store, 'a');
  await cluster.books.get('a')!.request(pool, 'x');
  store.addHost('b');
  const answer = Promise.withResolvers<Loan>();
  const client = store.client('b', direct);
  const lossy: ClusterAddresses = {
    ...client,
    askLoan: async (block, loan) => {
      await client.askLoan(block, loan);
      return answer.promise;
    },
  };
  const borrower = new AddressBook({ journal: new Disk().open(), cluster: lossy, clock: cluster.clock, host: 'b', newId: () => 'loan' });
  borrower.blocksChanged(store.facts());
  const asked = borrower.request(pool, 'y');
  for (let n = 0; n < 3; n++) {
    cluster.watch();
    await cluster.settle();
  }
  borrower.blocksChanged(store.facts());
  answer.reject(new Fault('timeout', 'lost'));
  const ip = await asked;
  assert.deepEqual([borrower.held(pool, ip)?.owner, store.blocks.get('block0')?.loans[0]?.state], ['y', 'granted']);
});

test('a late release leaves a new owner alone', async () => {
  const cluster = new Cluster(small(), 'a');
  const book = cluster.books.get('a')!;
  const ip = await book.request(pool, 'old', '10.0.0.2' as Ip);
  const old = book.held(pool, ip)!.sequence;
  book.release(pool, ip, old);
  await book.request(pool, 'new', ip);
  book.release(pool, ip, old);
  assert.equal(book.held(pool, ip)?.owner, 'new');
});

test('with the journal on a real disk a restarted host knows what it gave', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'causeway-addresses-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const store = new FakeStore(parseCidr('fd00::/120'), 124);
  const options = { cluster: store.client('a', direct), clock: new FakeClock(), host: 'a', newId: () => 'l' };
  const given: Ip[] = [];
  for (let life = 0; life < 3; life++) {
    using journal = openJournal(join(folder, 'journal'));
    using book = new AddressBook({ ...options, journal });
    book.blocksChanged(store.facts(life === 0));
    for (const ip of given) assert.equal(book.held(pool, ip)?.owner, `o${given.indexOf(ip)}`);
    given.push(await book.request(pool, `o${given.length}`));
    book.bind(pool, given[life]!, `e${life}`);
  }
  assert.deepEqual(given, ['fd00::2', 'fd00::3', 'fd00::4']);
});

test('a journal that cannot be read is corrupt, not empty', () => {
  const disk = new Disk();
  disk.open().put('address/pool000001/10.0.0.1', wire({ status: 'held', owner: 7 }));
  const options = { cluster: small().client('a', direct), clock: new FakeClock(), host: 'a', newId: () => 'l' };
  assert.throws(() => new AddressBook({ ...options, journal: disk.open() }), hasCode('corrupt'));
});

function endpoint(id: string, host: string, ip: Ip): Endpoint {
  const rest = { owner: id, mac: '02:00:00:00:00:01' as Endpoint['mac'], names: [], ports: [], sequence: 1 };
  return { ...meta, id, network: 'net0000001', host, addresses: [ip], ...rest };
}

/** A call under way: it may arrive at the store, its answer at the caller, both, neither, or the call much later. */
interface Call {
  readonly host: string;
  readonly act: () => void;
  readonly lose: () => void;
}

type Fate = 'deliver' | 'lose request' | 'lose reply' | 'delay';
type Deed =
  | { readonly do: 'request' | 'exact' | 'free' | 'late' | 'forget'; readonly host: number; readonly n: number }
  | { readonly do: 'call'; readonly how: Fate; readonly n: number }
  | { readonly do: 'watch' | 'reconcile' | 'crash' | 'start' | 'wipe' | 'remove'; readonly host: number; readonly n?: number }
  | { readonly do: 'crash in write'; readonly host: number; readonly n: number }
  | { readonly do: 'pass'; readonly ms: number };

const host = fc.nat(2);
const n = fc.nat(7);
const deed: fc.Arbitrary<Deed> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constantFrom('request' as const, 'request' as const, 'exact' as const), host, n }) },
  {
    weight: 7,
    arbitrary: fc.record({ do: fc.constantFrom('free' as const, 'free' as const, 'late' as const, 'forget' as const), host, n }),
  },
  { weight: 14, arbitrary: fc.record({ do: fc.constant('call' as const), how: fc.constant('deliver' as const), n }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('call' as const), how: fc.constantFrom<Fate>('lose request', 'lose reply', 'delay'), n }),
  },
  { weight: 9, arbitrary: fc.record({ do: fc.constant('watch' as const), host }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('reconcile' as const), host }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('crash' as const, 'start' as const), host }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('wipe' as const, 'remove' as const), host }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('crash in write' as const), host, n: fc.nat(4) }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(1, 300, 600, 1000, 3000) }) },
);

interface Owner {
  readonly name: string;
  readonly host: string;
  readonly ip: Ip;
  readonly sequence: number;
}

class World {
  readonly store: FakeStore;
  readonly clock = new FakeClock();
  readonly names = ['a', 'b', 'c'] as const;
  readonly disks = new Map(this.names.map((name) => [name as string, new Disk()]));
  readonly books = new Map<string, { book: AddressBook; journal: Journal }>();
  readonly cached = new Map<string, AddressFacts>();
  readonly live = new Map<Ip, Owner>();
  readonly past: Owner[] = [];
  calls: Call[] = [];
  delayed: Call[] = [];
  #ids = 0;
  given = 0;

  constructor(store: FakeStore) {
    this.store = store;
    for (const name of this.names) {
      store.addHost(name);
      this.start(name);
    }
  }

  nameOf(index: number): string {
    return this.names[index]!;
  }

  start(name: string): void {
    if (this.books.has(name)) return;
    const journal = this.disks.get(name)!.open();
    const send = <T>(act: () => T): Promise<T> => {
      const { promise, resolve, reject } = Promise.withResolvers<T>();
      const arrive = () => {
        try {
          resolve(act());
        } catch (error) {
          reject(error);
        }
      };
      this.calls.push({ host: name, act: arrive, lose: () => reject(new Fault('unavailable', 'lost')) });
      return promise;
    };
    const cluster = this.store.client(name, send);
    const limits = { cooldownMs: 1000, forgetMs: 4000, leakMs: 2000, idleMs: 500, loanWaitMs: 300, prefetchPauseMs: 100 };
    const book = new AddressBook({ ...limits, journal, cluster, clock: this.clock, host: name, newId: () => `loan${this.#ids++}` });
    this.books.set(name, { book, journal });
    const cached = this.cached.get(name);
    if (cached !== undefined) this.guard(name, () => book.blocksChanged({ ...cached, live: false }));
  }

  /** Whatever a dying process throws: it is dead then. */
  guard(name: string, act: () => void): void {
    const process = this.books.get(name)!;
    try {
      act();
    } catch (error) {
      if (!this.disks.get(name)!.isDead(process.journal)) throw error;
    }
    this.bury(name);
  }

  bury(name: string): void {
    const process = this.books.get(name);
    if (process !== undefined && this.disks.get(name)!.isDead(process.journal)) this.crash(name);
  }

  crash(name: string): void {
    this.disks.get(name)!.kill();
    this.books.get(name)?.book[Symbol.dispose]();
    this.books.delete(name);
  }

  request(name: string, ip?: Ip): void {
    const process = this.books.get(name);
    if (process === undefined) return;
    const owner = `owner${this.#ids++}`;
    this.#follow(name, owner, ip).catch((error: unknown) => (this.wrong = error));
  }

  async #follow(name: string, owner: string, ip?: Ip): Promise<void> {
    const process = this.books.get(name)!;
    let given: Ip;
    try {
      given = await process.book.request(pool, owner, ip);
    } catch (error) {
      if (error instanceof Fault && error.code !== 'internal') return;
      throw error;
    }
    if (this.disks.get(name)!.isDead(process.journal)) return;
    const other = this.live.get(given);
    if (other !== undefined) throw new Error(`${given} has two owners: ${other.name} on ${other.host}, ${owner} on ${name}`);
    const held = process.book.held(pool, given);
    assert.equal(held?.owner, owner);
    this.given++;
    this.live.set(given, { name: owner, host: name, ip: given, sequence: held.sequence });
    this.store.revision++;
    this.store.endpoints.set(owner, endpoint(owner, name, given));
  }

  wrong: unknown;

  end(owner: Owner): void {
    this.live.delete(owner.ip);
    this.store.revision++;
    this.store.endpoints.delete(owner.name);
    this.past.push(owner);
  }

  liveOn(name: string): Owner[] {
    return [...this.live.values()].filter((owner) => owner.host === name);
  }

  watch(name: string): void {
    const process = this.books.get(name);
    if (process === undefined) return;
    const facts = this.store.factsFor(name);
    // The copy on disk may lag behind.
    if (this.#ids % 3 !== 0) this.cached.set(name, facts);
    this.guard(name, () => process.book.blocksChanged(facts));
  }

  remove(name: string): void {
    this.crash(name);
    this.disks.get(name)!.wipe();
    // Sequences go by the clock, and a new journal is not begun as fast as addresses are given out here.
    this.clock.advance(100);
    this.cached.delete(name);
    this.calls = this.calls.filter((call) => call.host !== name);
    this.delayed = this.delayed.filter((call) => call.host !== name);
    for (const owner of this.liveOn(name)) this.end(owner);
    this.store.removeHost(name);
    this.store.addHost(name);
    this.start(name);
  }

  wipe(name: string): void {
    this.crash(name);
    this.disks.get(name)!.wipe();
    // Sequences go by the clock, and a new journal is not begun as fast as addresses are given out here.
    this.clock.advance(100);
    for (const call of [...this.calls, ...this.delayed]) if (call.host === name) call.act();
    this.calls = this.calls.filter((call) => call.host !== name);
    this.delayed = this.delayed.filter((call) => call.host !== name);
    this.start(name);
  }

  call(how: Fate, index: number): void {
    if (how === 'deliver' && this.delayed.length > 0 && index % 4 === 0) {
      this.delayed.shift()!.act();
      return;
    }
    const [call] = this.calls.splice(index % Math.max(1, this.calls.length), 1);
    if (call === undefined) return;
    if (how === 'deliver') call.act();
    if (how === 'lose request' || how === 'delay') call.lose();
    if (how === 'delay') this.delayed.push(call);
    if (how === 'lose reply') {
      call.lose();
      call.act();
    }
  }

  do(step: Deed): void {
    if (step.do === 'pass') this.clock.advance(step.ms);
    else if (step.do === 'call') this.call(step.how, step.n);
    else {
      const name = this.nameOf(step.host);
      if (step.do === 'request' || step.do === 'exact' || step.do === 'watch' || step.do === 'reconcile') this.start(name);
      const process = this.books.get(name);
      if (step.do === 'request') this.request(name);
      else if (step.do === 'exact') this.request(name, ipAdd(cidrBase(this.store.pool.cidr), step.n));
      else if (step.do === 'free' || step.do === 'forget') {
        const mine = this.liveOn(name);
        const owner = mine[step.n % Math.max(1, mine.length)];
        if (owner === undefined) return;
        this.end(owner);
        if (step.do === 'free' && process !== undefined) this.guard(name, () => process.book.release(pool, owner.ip, owner.sequence));
      } else if (step.do === 'late') {
        const owner = this.past[step.n % Math.max(1, this.past.length)];
        const there = owner === undefined ? undefined : this.books.get(owner.host);
        if (owner !== undefined && there !== undefined) this.guard(owner.host, () => there.book.release(pool, owner.ip, owner.sequence));
      } else if (step.do === 'watch') this.watch(name);
      else if (step.do === 'reconcile') this.reconcile(name);
      else if (step.do === 'crash') this.crash(name);
      else if (step.do === 'start') this.start(name);
      else if (step.do === 'wipe') this.wipe(name);
      else if (step.do === 'remove') this.remove(name);
      else this.disks.get(name)!.deadIn = step.n ?? 0;
    }
  }

  reconcile(name: string): void {
    const process = this.books.get(name);
    process?.book.reconcile(this.liveOn(name).map((owner) => owner.name)).catch((error: unknown) => {
      if (!this.disks.get(name)!.isDead(process.journal)) this.wrong = error;
    });
  }

  async step(act: () => void): Promise<void> {
    act();
    await drain();
    for (const name of this.names) this.bury(name);
    if (this.wrong !== undefined) throw new Error('An invariant broke', { cause: this.wrong });
  }

  /** Everything is well again, everybody lets go: in the end no host has anything. */
  async calm(): Promise<void> {
    for (const name of this.names) {
      this.disks.get(name)!.deadIn = Infinity;
      this.start(name);
    }
    for (let round = 0; round < 30; round++) {
      for (const owner of this.live.values()) {
        this.end(owner);
        this.books.get(owner.host)!.book.release(pool, owner.ip);
      }
      await this.step(() => this.clock.advance(3000));
      for (const name of this.names) {
        await this.step(() => this.watch(name));
        await this.step(() => this.reconcile(name));
      }
      while (this.calls.length + this.delayed.length > 0) await this.step(() => (this.delayed.shift() ?? this.calls.shift())!.act());
      if (round > 3 && this.store.blocks.size === 0 && this.live.size === 0) return;
    }
    assert.fail(`blocks are left: ${JSON.stringify([...this.store.blocks.values()])}`);
  }
}

const ranges: [cidr: string, blockLength: number][] = [
  ['10.0.0.0/29', 30],
  ['fd00::/124', 126],
];
for (const [cidr, blockLength] of ranges) {
  test(`three hosts, any interleaving in ${cidr}: never two owners, and in the end every address is free`, async () => {
    let given = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(deed, { minLength: 30, maxLength: 90, size: 'max' }), async (deeds) => {
        const world = new World(new FakeStore(parseCidr(cidr), blockLength));
        for (const name of world.names) await world.step(() => world.watch(name));
        for (const each of deeds) await world.step(() => world.do(each));
        await world.calm();
        given += world.given;
        for (const name of world.names) await world.step(() => world.watch(name));
        const { capacity } = spaceOf(world.store.pool, world.store.pool.cidr);
        for (let index = 0; index < capacity; index++) {
          await world.step(() => world.request('a'));
          while (world.calls.length > 0) await world.step(() => world.calls.shift()!.act());
        }
        assert.equal(world.live.size, capacity);
      }),
      { numRuns: 600 },
    );
    assert.ok(given > 1000, `only ${given} addresses were given`);
  });
}
