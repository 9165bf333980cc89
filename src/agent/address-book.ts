// The host's authority over addresses: gives them out of the host's own blocks without asking anybody, claims blocks before
// they are needed, borrows single addresses when no block is left, and lends to others. Written to the journal first, then
// given: a crash in between leaks an address, which reconcile() frees, and never gives it twice.
import { contains, type Ip } from '#model/ip.ts';
import { Fault, isFault } from '#model/fault.ts';
import { refusalOf } from '#model/block.ts';
import { mayHaveMore } from '#model/claims.ts';
import type { Block, Loan, Network, Pool, Snapshot } from '#model/resources.ts';
import type { AddressFacts, AddressOptions, Clock, ClusterAddresses } from './address-cluster.ts';
import { endOfRefused, isIdle, Ledger, type Held, type LedgerBlock, type LedgerPool } from './address-ledger.ts';
import { Lapses } from './address-lapses.ts';
import { Lender } from './address-lending.ts';
import { Orphans } from './address-orphans.ts';
import { Borrower, isRefusal, lenders } from './address-loans.ts';

interface Known {
  readonly pool: Pool;
  readonly network: Network;
  readonly ledger: LedgerPool;
}

const maxClaims = 16;

export class AddressBook implements Disposable {
  readonly #ledger: Ledger;
  readonly #cluster: ClusterAddresses;
  readonly #clock: Clock;
  readonly #host: string;
  readonly #newId: () => string;
  readonly #onFault: (fault: unknown, doing: string) => void;
  readonly #limits: Required<Pick<AddressOptions, 'cooldownMs' | 'forgetMs' | 'leakMs' | 'idleMs' | 'prefetchPauseMs' | 'isBare'>>;
  readonly #borrower: Borrower;
  readonly #lender: Lender;
  readonly #lapses: Lapses;
  readonly #requests = new Map<string, Promise<Ip>>();
  readonly #claiming = new Map<string, Promise<void>>();
  readonly #prefetchFailedAt = new Map<string, number>();
  /** Background calls under way, by what they do, so that none is made twice at a time. */
  readonly #doing = new Map<string, Promise<void>>();
  readonly #orphans = new Orphans();
  #emptySince = new Map<string, number>();
  #snapshot: Snapshot | undefined;
  /** Blocks of the snapshot that was taken in without a failure. */
  #takenIn: Snapshot['blocks'] | undefined;
  #isClosed = false;

  /** Reads the journal. Fault `corrupt`. */
  constructor(options: AddressOptions) {
    this.#ledger = new Ledger(options.journal);
    this.#cluster = options.cluster;
    this.#clock = options.clock;
    this.#host = options.host;
    this.#newId = options.newId;
    this.#onFault = options.onFault ?? (() => {});
    this.#limits = {
      cooldownMs: options.cooldownMs ?? 60_000,
      forgetMs: options.forgetMs ?? 600_000,
      leakMs: options.leakMs ?? 600_000,
      idleMs: options.idleMs ?? 600_000,
      prefetchPauseMs: options.prefetchPauseMs ?? 30_000,
      isBare: options.isBare ?? (() => false),
    };
    this.#borrower = new Borrower({
      cluster: options.cluster,
      clock: options.clock,
      waitMs: options.loanWaitMs ?? 3000,
      giveUp: (loan, block) => this.#returnLoan(loan, block),
    });
    const sides = {
      ledger: this.#ledger,
      cluster: options.cluster,
      moment: () => this.#moment(),
      background: (doing: string, work: () => Promise<void>) => this.background(doing, work),
      isClosed: () => this.#isClosed,
    };
    this.#lender = new Lender(sides);
    this.#lapses = new Lapses({ ...sides, host: options.host });
  }

  /** Forgets everything that is only in memory; what the journal says stays true. Pending requests fail. */
  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.#borrower.stop();
  }

  /**
   * Gives `owner` an address of the pool, or exactly `ip`. The same owner asking again gets the same address; an owner has
   * at most one in a pool. Without a round trip while the host's blocks have room. Faults: `exhausted`; `exists` (taken, or
   * the owner has another one); `invalid` (no endpoint can ever have it); `not-found` (no such pool); `unavailable`,
   * `timeout` (the cluster is needed and does not answer, or the first snapshot has not come).
   */
  async request(pool: string, owner: string, ip?: Ip): Promise<Ip> {
    const known = this.#known(pool);
    const had = this.#had(known, owner, ip);
    if (had !== undefined) return had;
    if (known.network.addressing === 'external') return this.#record(known, owner, ip);
    const key = `${pool} ${ip ?? ''} ${owner}`;
    const running = this.#requests.get(key) ?? (ip === undefined ? this.#requestAny(known, owner) : this.#requestExact(known, owner, ip));
    this.#requests.set(key, running);
    try {
      return await running;
    } finally {
      this.#requests.delete(key);
      this.#prefetch(pool);
    }
  }

  /** Ties a held address to the endpoint that uses it, which then is a live owner too. Fault `not-found` when it is not held here. */
  bind(pool: string, ip: Ip, endpoint: string): void {
    const ledger = this.#ledger.pools.get(pool);
    if (ledger === undefined || this.#ledger.held(ledger, ip) === undefined) throw new Fault('not-found', `${ip} is not held on this host`);
    this.#ledger.bind(ledger, ip, endpoint);
  }

  /** Frees the address unless `sequence` says that it has a new owner. Not held is success. */
  release(pool: string, ip: Ip, sequence?: number): void {
    const ledger = this.#ledger.pools.get(pool);
    if (ledger === undefined) return;
    const due = this.#ledger.release(ledger, ip, sequence, this.#clock.now());
    if (due !== undefined) this.#returnLoan(due.loan, due.block);
  }

  /** Who holds the address on this host; its `sequence` makes a release safe against coming late. */
  held(pool: string, ip: Ip): Held | undefined {
    const ledger = this.#ledger.pools.get(pool);
    return ledger === undefined ? undefined : this.#ledger.held(ledger, ip);
  }

  /** Addresses that are held on this host now, in all pools. */
  get count(): number {
    return this.#ledger.count;
  }

  /** Addresses that this host could give out of its own blocks now, rested or not; 0 for an unknown pool. */
  room(pool: string): { free: number; capacity: number } {
    const facts = this.#snapshot?.pools.get(pool);
    const ledger = this.#ledger.pools.get(pool);
    return facts === undefined || ledger === undefined
      ? { free: 0, capacity: 0 }
      : this.#ledger.room(ledger, facts, { ...this.#moment(), cooldownMs: 0 });
  }

  /**
   * Takes in a snapshot: blocks that came or went, loans asked of this host (settled in the background) and answers to its
   * own. With a new journal only a live snapshot counts: what endpoints of this host hold is taken from it, and everything
   * else in the host's blocks rests first.
   */
  blocksChanged(facts: AddressFacts): void {
    const { snapshot, revision, live } = facts;
    const isFirst = !this.#ledger.isBorn;
    if (isFirst && !live) return;
    const isSame = snapshot.blocks === this.#takenIn && !isFirst;
    this.#snapshot = snapshot;
    if (!isSame) for (const block of snapshot.blocks.values()) if (block.host === this.#host) this.#seeOwn(block, { isFirst, live });
    if (isFirst) this.#rebuildBorrowed(snapshot);
    if (isFirst) this.#ledger.bear();
    this.#lapses.see(facts);
    const isHere = (id: string): boolean => snapshot.blocks.get(id)?.host === this.#host || this.#lapses.isDue(id);
    this.#ledger.dropLost(revision, isHere);
    this.#takenIn = snapshot.blocks;
    if (!isSame) this.#seeLoans(snapshot);
  }

  /**
   * To be called now and then with the owners and endpoint ids that are alive on this host (published endpoints count too):
   * frees what is held without one for too long, forgets old freeings, returns what is due, gives idle blocks back.
   * Resolves when the calls have ended.
   */
  async reconcile(live: Iterable<string>): Promise<void> {
    const now = this.#clock.now();
    const alive = new Set(live);
    for (const { id, host } of this.#snapshot?.endpoints.values() ?? []) if (host === this.#host) alive.add(id);
    const leaked = this.#orphans.due(this.#ledger.pools.values(), alive, { now, leakMs: this.#limits.leakMs });
    for (const { pool, ip, sequence } of leaked) this.release(pool, ip, sequence);
    this.#ledger.expire({ now, forgetMs: this.#limits.forgetMs });
    for (const { loan, block } of this.#ledger.returns.values()) this.#returnLoan(loan, block);
    if (this.#snapshot !== undefined) this.#giveBack(this.#snapshot, now);
    if (this.#snapshot !== undefined) this.#seeLoans(this.#snapshot);
    await Promise.all(this.#doing.values());
  }

  #moment(): { now: number; cooldownMs: number } {
    return { now: this.#clock.now(), cooldownMs: this.#limits.cooldownMs };
  }

  #known(id: string): Known {
    if (this.#isClosed || this.#snapshot === undefined) throw new Fault('unavailable', 'Cannot give addresses before the cluster is known');
    const pool = this.#snapshot.pools.get(id);
    const network = pool === undefined ? undefined : this.#snapshot.networks.get(pool.network);
    if (pool === undefined || network === undefined) throw new Fault('not-found', `No address pool ${id}`);
    return { pool, network, ledger: this.#ledger.pool(id) };
  }

  #had({ ledger }: Known, owner: string, ip: Ip | undefined): Ip | undefined {
    const had = ledger.owners.get(owner);
    if (had !== undefined && ip !== undefined && ip !== had) throw new Fault('exists', `${owner} already holds ${had}`);
    return had;
  }

  #record({ pool, ledger }: Known, owner: string, ip: Ip | undefined): Ip {
    if (ip === undefined) throw new Fault('invalid', 'Addresses of this network are given by its engine', { field: 'address' });
    if (!contains(pool.cidr, ip)) throw new Fault('invalid', `${ip} is not in ${pool.cidr}`, { field: 'address' });
    if (ledger.loose.has(ip)) throw new Fault('exists', `${ip} is taken`);
    const now = this.#clock.now();
    this.#ledger.putLoose(ledger, ip, { owner, sequence: this.#ledger.nextSequence(now), since: now });
    return ip;
  }

  async #requestAny(first: Known, owner: string): Promise<Ip> {
    let known = first;
    for (let attempt = 0; attempt < maxClaims; attempt++) {
      const ip = this.#ledger.take(known.ledger, known.pool, owner, this.#moment());
      if (ip !== undefined) return ip;
      try {
        await this.#claim(known);
      } catch (error) {
        return await this.#requestElsewhere(known.pool.id, owner, error);
      }
      known = this.#known(known.pool.id);
      const had = this.#had(known, owner, undefined);
      if (had !== undefined) return had;
    }
    throw new Fault('exhausted', `No free address in ${known.pool.cidr}`);
  }

  /** What is left when this host could get no further block, for the reason `refusal`. */
  async #requestElsewhere(id: string, owner: string, refusal: unknown): Promise<Ip> {
    const known = this.#known(id);
    // Somebody may have freed an address, or this owner's other request may have been served, in the meantime.
    const late = this.#had(known, owner, undefined) ?? this.#ledger.take(known.ledger, known.pool, owner, this.#moment());
    if (late !== undefined) return late;
    const mayBorrow = isFault(refusal, 'exhausted') && known.network.choices.address.borrow;
    try {
      if (mayBorrow) return await this.#borrowAny(known, owner, refusal);
      throw refusal;
    } catch (error) {
      // Many short-lived containers use up a block within the time that addresses rest: rather one too early than none.
      const { ledger, pool } = this.#known(id);
      const tired = this.#ledger.take(ledger, pool, owner, { ...this.#moment(), cooldownMs: 0 });
      if (tired === undefined) throw error;
      return tired;
    }
  }

  async #requestExact(first: Known, owner: string, ip: Ip): Promise<Ip> {
    let known = first;
    const refusal = refusalOf(known.pool, ip);
    if (refusal === 'reserved' || refusal === 'gateway') throw new Fault('exists', `${ip} is kept: ${refusal}`);
    if (refusal !== undefined)
      throw new Fault('invalid', `No endpoint can have ${ip} in ${known.pool.cidr}: ${refusal}`, { field: 'address' });
    for (let attempt = 0; attempt < 2; attempt++) {
      const block = this.#ledger.blockOf(known.ledger, ip);
      if (block !== undefined) return this.#takeExact(block, owner, ip);
      if (known.ledger.loose.has(ip)) throw new Fault('exists', `${ip} is taken`);
      const holder = this.#holderOf(known, ip) ?? (await this.#claimAround(known, ip));
      if (this.#isClosed) throw new Fault('unavailable', 'The agent is stopping');
      if (holder.host !== this.#host) return await this.#borrowExact(known, holder, owner, ip);
      known = this.#known(known.pool.id);
    }
    throw new Fault('unavailable', `Cannot give ${ip}: its block is changing hands`);
  }

  #takeExact(block: LedgerBlock, owner: string, ip: Ip): Ip {
    if (block.record.status !== 'active') throw new Fault('unavailable', `Cannot give ${ip}: its block is being given back`);
    const given = this.#ledger.takeExact(block, ip, owner, this.#moment());
    if (given === undefined) throw new Fault('exists', `${ip} is taken`);
    return given;
  }

  #holderOf({ pool }: Known, ip: Ip): Block | undefined {
    for (const block of this.#snapshot?.blocks.values() ?? []) {
      if (block.pool === pool.id && block.host !== this.#host && contains(block.cidr, ip)) return block;
    }
    return undefined;
  }

  #mayClaim({ network, pool, ledger }: Known): boolean {
    const held = [...ledger.blocks.values()].flatMap(({ record }) => (record.status === 'released' ? [] : record));
    return mayHaveMore(network, pool, held);
  }

  async #claimAround(known: Known, ip: Ip): Promise<Block> {
    if (!this.#mayClaim(known)) throw new Fault('exhausted', `${ip} is in none of this host's blocks, and it may have no more`);
    const block = await this.#cluster.claimBlock({ network: known.pool.network, pool: known.pool.id, ip });
    if (!this.#isClosed && block.host === this.#host) this.#addClaimed(block);
    return block;
  }

  /** One more block, however many wait for it. Faults: `exhausted`, `unavailable`, `timeout`. */
  async #claim(known: Known): Promise<void> {
    if (!this.#mayClaim(known)) throw new Fault('exhausted', `No free address in this host's blocks of ${known.pool.cidr}`);
    const key = known.pool.id;
    const claim = async (): Promise<void> => {
      const has = known.ledger.blocks.size;
      const block = await this.#cluster.claimBlock({ network: known.pool.network, pool: key, has });
      if (!this.#isClosed) this.#addClaimed(block);
    };
    const running = this.#claiming.get(key) ?? claim().finally(() => this.#claiming.delete(key));
    this.#claiming.set(key, running);
    await running;
  }

  /** A block that the cluster has just answered with. One that is being given back stays so unless it is a newer one. */
  #addClaimed(block: Block): void {
    const known = this.#ledger.pool(block.pool).blocks.get(block.id);
    if (known === undefined || (known.record.status !== 'active' && block.revision > known.record.revision))
      this.#ledger.putBlock(block, 0);
  }

  #prefetch(id: string): void {
    const now = this.#clock.now();
    if (this.#claiming.has(id) || now - (this.#prefetchFailedAt.get(id) ?? -Infinity) < this.#limits.prefetchPauseMs) return;
    if (this.#isClosed || this.#snapshot?.pools.has(id) !== true) return;
    const known = this.#known(id);
    const room = this.#ledger.room(known.ledger, known.pool, this.#moment());
    if (room.free * 4 >= room.capacity || !this.#mayClaim(known)) return;
    this.background(`claim ${id}`, async () => {
      try {
        await this.#claim(known);
      } catch (error) {
        this.#prefetchFailedAt.set(id, now);
        if (!isFault(error, 'exhausted')) throw error;
      }
    });
  }

  async #borrowAny(known: Known, owner: string, exhausted: unknown): Promise<Ip> {
    const blocks = await this.#cluster.blocksOf(known.pool.network, known.pool.id);
    const silent = new Set<string>();
    for (const block of this.#snapshot === undefined ? [] : lenders(this.#snapshot, known.pool, blocks, this.#host)) {
      if (silent.has(block.host)) continue;
      try {
        return await this.#borrow(known, block, owner);
      } catch (error) {
        if (this.#isClosed || !isRefusal(error)) throw error;
        if (isFault(error, 'timeout')) silent.add(block.host);
      }
    }
    throw exhausted;
  }

  async #borrowExact(known: Known, block: Block, owner: string, ip: Ip): Promise<Ip> {
    if (!known.network.choices.address.borrow) throw new Fault('exists', `${ip} belongs to ${block.host}, and this network does not lend`);
    return this.#borrow(known, block, owner, ip);
  }

  #borrow({ ledger }: Known, block: Block, owner: string, ip?: Ip): Promise<Ip> {
    const granted = (address: Ip, loan: { block: string; id: string }): void => {
      const now = this.#clock.now();
      this.#ledger.putLoose(ledger, address, { owner, sequence: this.#ledger.nextSequence(now), since: now, loan });
    };
    return this.#borrower.borrow(block, this.#newId(), { owner, ip, granted });
  }

  /** A stale snapshot may show a block that was given back since, so only a live one brings a new block. */
  #seeOwn(block: Block, { isFirst, live }: { isFirst: boolean; live: boolean }): void {
    const known = this.#ledger.pool(block.pool).blocks.get(block.id);
    if (isFirst) this.#rebuild(block, this.#ledger.putBlock(block, this.#quietUntil(block)));
    else if (known === undefined && live) this.#ledger.putBlock(block, 0);
    else if (known !== undefined && block.revision > known.record.revision) {
      // A call to give it back that is still under way cannot succeed any more: it names the old revision.
      this.#ledger.markBlock(known, { revision: block.revision, status: 'active' });
    }
  }

  /** A journal that is new may have followed one that knew of addresses in use here, or lent to others. */
  #quietUntil({ network }: Block): number {
    const lends = this.#snapshot?.networks.get(network)?.choices.address.borrow !== false;
    return !lends && this.#limits.isBare() ? 0 : this.#clock.now() + this.#limits.cooldownMs;
  }

  #seeLoans(snapshot: Snapshot): void {
    for (const block of snapshot.blocks.values()) {
      for (const loan of block.loans) if (loan.host === this.#host) this.#seeBorrowed(block, loan);
      if (block.host === this.#host) this.#lender.settle(block, snapshot.pools.get(block.pool));
    }
  }

  /** What endpoints of this host hold of a block about which the journal knows nothing. */
  #rebuild(block: Block, into: LedgerBlock): void {
    const now = this.#clock.now();
    for (const endpoint of this.#snapshot?.endpoints.values() ?? []) {
      if (endpoint.network !== block.network || endpoint.host !== this.#host) continue;
      for (const ip of endpoint.addresses) {
        if (!contains(block.cidr, ip)) continue;
        const sequence = this.#ledger.nextSequence(now);
        this.#ledger.remember(into, ip, { status: 'held', owner: endpoint.id, endpoint: endpoint.id, sequence, since: now });
      }
    }
  }

  #rebuildBorrowed(snapshot: Snapshot): void {
    const mine = new Set<string>();
    for (const { host, network, addresses } of snapshot.endpoints.values()) {
      if (host === this.#host) for (const ip of addresses) mine.add(`${network} ${ip}`);
    }
    const now = this.#clock.now();
    for (const block of snapshot.blocks.values()) {
      for (const { id, host, ip, endpoint, state } of block.loans) {
        if (host !== this.#host || state !== 'granted' || ip === undefined || !mine.has(`${block.network} ${ip}`)) continue;
        const sequence = this.#ledger.nextSequence(now);
        this.#ledger.putLoose(this.#ledger.pool(block.pool), ip, { owner: endpoint, sequence, since: now, loan: { block: block.id, id } });
      }
    }
  }

  /** The borrower's side. A loan that nobody here waits for or holds is a leftover of a crash or a lost answer. */
  #seeBorrowed(block: Block, loan: Loan): void {
    this.#borrower.seen(loan);
    if (this.#borrower.isWaiting(loan.id) || loan.state === 'returned') return;
    const ledger = this.#ledger.pools.get(block.pool);
    if (loan.ip !== undefined && ledger?.loose.get(loan.ip)?.loan?.id === loan.id) return;
    this.#returnLoan(loan.id, block.id);
  }

  #returnLoan(loan: string, block: string): void {
    this.background(`return ${loan}`, async () => {
      await this.#cluster.returnLoan(block, loan);
      if (!this.#isClosed) this.#ledger.returned(loan);
    });
  }

  #giveBack(snapshot: Snapshot, now: number): void {
    const emptySince = new Map<string, number>();
    for (const pool of this.#ledger.pools.values()) {
      // Of a pool that has gone nothing is given any more.
      const facts = snapshot.pools.get(pool.id);
      const room = facts === undefined ? { free: 0, capacity: 0 } : this.#ledger.room(pool, facts, this.#moment());
      for (const block of pool.blocks.values()) {
        if (block.record.status === 'releasing') this.#releaseBlock(block);
        if (block.record.status !== 'active' || !isIdle(block, snapshot, now)) continue;
        const since = this.#emptySince.get(block.record.id) ?? now;
        emptySince.set(block.record.id, since);
        const capacity = facts === undefined ? 0 : this.#ledger.spaceOf(block, facts).capacity;
        const rest = { free: room.free - capacity, capacity: room.capacity - capacity };
        const isSpare = capacity === 0 || (rest.capacity > 0 && rest.free * 2 >= rest.capacity);
        if (now - since < this.#limits.idleMs * (isSpare ? 1 : 6)) continue;
        room.free = rest.free;
        room.capacity = rest.capacity;
        this.#ledger.markBlock(block, { status: 'releasing' });
        this.#releaseBlock(block);
      }
    }
    this.#emptySince = emptySince;
  }

  #releaseBlock(block: LedgerBlock): void {
    const { id, revision } = block.record;
    this.background(`release ${id}`, async () => {
      const end = await this.#cluster.releaseBlock({ id, revision }).then(() => 'released' as const, endOfRefused);
      const isThere = this.#ledger.pools.get(block.record.pool)?.blocks.get(id) === block;
      if (end === 'active') this.#emptySince.delete(id);
      if (end !== undefined && !this.#isClosed && isThere && block.record.status === 'releasing')
        this.#ledger.markBlock(block, { status: end });
    });
  }

  /** What may fail and is repeated by others; one of a name at a time. */
  background(doing: string, work: () => Promise<void>): void {
    if (this.#isClosed || this.#doing.has(doing)) return;
    const run = work()
      .catch((error: unknown) => {
        if (!this.#isClosed) this.#onFault(error, doing);
      })
      .finally(() => this.#doing.delete(doing));
    this.#doing.set(doing, run);
  }
}
