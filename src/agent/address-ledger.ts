// What this host knows of its addresses: blocks with their allocation, and loose addresses outside them. Every change is
// written to the journal first and then takes effect, in one synchronous step; nothing here talks to the cluster.
import type { Journal } from '#api/local.ts';
import {
  type AddressState,
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
  type LoanClaim,
  type Moment,
  remember,
  takeBack,
} from '#model/allocation.ts';
import { type Space, spaceOf } from '#model/block.ts';
import { isFault } from '#model/fault.ts';
import { contains, type Ip } from '#model/ip.ts';
import type { Block, Pool, Snapshot } from '#model/resources.ts';
import {
  addressKey,
  blockKey,
  type BlockRecord,
  type LooseRecord,
  type ReturnRecord,
  readRecords,
  returnKey,
  writeBook,
} from './address-records.ts';

/** One block of this host; replaced fields, never mutated values. */
export interface LedgerBlock {
  record: BlockRecord;
  state: Allocation;
  /** Computed for this very pool value; again when the pool changes. */
  space?: { readonly pool: Pool; readonly space: Space };
}

export interface LedgerPool {
  readonly id: string;
  readonly blocks: Map<string, LedgerBlock>;
  readonly loose: Map<Ip, LooseRecord>;
  readonly owners: Map<string, Ip>;
}

/** A held address as callers see it. */
export interface Held {
  readonly owner: string;
  readonly sequence: number;
  readonly since: number;
  readonly endpoint?: string;
}

export class Ledger {
  readonly pools: Map<string, LedgerPool> = new Map();
  readonly returns: Map<string, ReturnRecord> = new Map();
  /** False while the journal is new and what this host gave out before is not known. */
  isBorn: boolean;
  readonly #journal: Journal;
  #sequence: number;

  /** Fault `corrupt` when the journal cannot be understood. */
  constructor(journal: Journal) {
    this.#journal = journal;
    const records = readRecords(journal);
    this.isBorn = records.sequence !== undefined;
    this.#sequence = records.sequence ?? 0;
    for (const record of records.blocks) {
      this.pool(record.pool).blocks.set(record.id, { record, state: { ...emptyAllocation, quietUntil: record.quietUntil } });
    }
    for (const { pool: id, ip, record } of records.addresses) {
      const pool = this.pool(id);
      this.#sequence = Math.max(this.#sequence, record.sequence);
      const block = this.blockOf(pool, ip);
      if (record.status === 'loose') {
        const { status: _, ...loose } = record;
        pool.loose.set(ip, loose);
      } else if (block !== undefined) block.state = remember(block.state, ip, record);
      else if (record.status === 'held') pool.loose.set(ip, { owner: record.owner, sequence: record.sequence, since: record.since });
      if (record.status === 'held' || record.status === 'loose') pool.owners.set(record.owner, ip);
    }
    for (const record of records.returns) this.returns.set(record.loan, record);
  }

  /** The journal belongs to the book from now on. */
  bear(): void {
    writeBook(this.#journal, this.#sequence);
    this.isBorn = true;
  }

  transaction<T>(fn: () => T): T {
    return this.#journal.transaction(fn);
  }

  /** Grows with every call, also over restarts and, as far as the clock goes, over a lost journal. */
  nextSequence(now: number): number {
    this.#sequence = Math.max(this.#sequence + 1, Math.floor(now));
    return this.#sequence;
  }

  pool(id: string): LedgerPool {
    const known = this.pools.get(id);
    if (known !== undefined) return known;
    const pool: LedgerPool = { id, blocks: new Map(), loose: new Map(), owners: new Map() };
    this.pools.set(id, pool);
    return pool;
  }

  /** Addresses that are held, in all pools. */
  get count(): number {
    return [...this.pools.values()].reduce((sum, { owners }) => sum + owners.size, 0);
  }

  /** The block of this host that covers `ip`, unless it has been given back. */
  blockOf(pool: LedgerPool, ip: Ip): LedgerBlock | undefined {
    for (const block of pool.blocks.values()) if (block.record.status !== 'released' && contains(block.record.cidr, ip)) return block;
    return undefined;
  }

  spaceOf(block: LedgerBlock, pool: Pool): Space {
    if (block.space?.pool !== pool) block.space = { pool, space: spaceOf(pool, block.record.cidr) };
    return block.space.space;
  }

  /** Adds a block or, when it is known, takes over its revision and makes it active. Loose addresses inside move into it. */
  putBlock(block: Block, quietUntil: number): LedgerBlock {
    const pool = this.pool(block.pool);
    const { id, network, cidr, revision, vlan } = block;
    const kept = vlan === undefined ? {} : { vlan };
    const record: BlockRecord = { id, network, pool: block.pool, cidr, revision, status: 'active', quietUntil, ...kept };
    return this.transaction(() => {
      this.#journal.put(blockKey(id), record);
      const entry: LedgerBlock = { record, state: { ...emptyAllocation, quietUntil } };
      pool.blocks.set(id, entry);
      for (const [ip, { owner, sequence, since, endpoint }] of pool.loose) {
        if (!contains(cidr, ip)) continue;
        const held = { status: 'held' as const, owner, sequence, since, ...(endpoint === undefined ? {} : { endpoint }) };
        this.#journal.put(addressKey(pool.id, ip), held);
        pool.loose.delete(ip);
        entry.state = remember(entry.state, ip, held);
      }
      return entry;
    });
  }

  /** Changes status and revision of a block; revision alone is kept in memory only, an older one on disk does no harm. */
  markBlock(block: LedgerBlock, change: { readonly status?: BlockRecord['status']; readonly revision?: number }): void {
    const record = { ...block.record, ...change };
    if (change.status !== undefined && change.status !== block.record.status) this.#journal.put(blockKey(record.id), record);
    block.record = record;
  }

  /** The block is no longer this host's. What is held in it stays held, as loose addresses. */
  dropBlock(block: LedgerBlock): void {
    const pool = this.pool(block.record.pool);
    this.transaction(() => {
      for (const [ip, record] of block.state.records) {
        const key = addressKey(pool.id, ip);
        if (record.status === 'held') {
          const { status: _, ...loose } = record;
          this.#journal.put(key, { status: 'loose', ...loose });
          pool.loose.set(ip, loose);
        } else this.#journal.delete(key);
      }
      this.#journal.delete(blockKey(block.record.id));
      pool.blocks.delete(block.record.id);
    });
  }

  #commit(block: LedgerBlock, ip: Ip, state: Allocation): void {
    const record = state.records.get(ip);
    const before = block.state.records.get(ip);
    if (record !== before) {
      const key = addressKey(block.record.pool, ip);
      if (record === undefined) this.#journal.delete(key);
      else this.#journal.put(key, record);
    }
    block.state = state;
    const { owners } = this.pool(block.record.pool);
    if (before?.status === 'held' && record?.status !== 'held') owners.delete(before.owner);
    if (record?.status === 'held') owners.set(record.owner, ip);
  }

  #commitGiven(block: LedgerBlock, given: Given | undefined): Ip | undefined {
    if (given === undefined) return undefined;
    this.#commit(block, given.ip, given.state);
    return given.ip;
  }

  /** Any free address of the host's blocks in this pool. */
  take(pool: LedgerPool, facts: Pool, owner: string, moment: Moment): Ip | undefined {
    for (const block of pool.blocks.values()) {
      if (block.record.status !== 'active') continue;
      const claim = { ...moment, owner, sequence: this.nextSequence(moment.now) };
      const ip = this.#commitGiven(block, allocate(block.state, this.spaceOf(block, facts), claim));
      if (ip !== undefined) return ip;
    }
    return undefined;
  }

  takeExact(block: LedgerBlock, ip: Ip, owner: string, moment: Moment): Ip | undefined {
    return this.#commitGiven(block, allocateExact(block.state, ip, { ...moment, owner, sequence: this.nextSequence(moment.now) }));
  }

  lend(block: LedgerBlock, facts: Pool, claim: Omit<LoanClaim, 'sequence'>): Ip | undefined {
    const full = { ...claim, sequence: this.nextSequence(claim.now) };
    return this.#commitGiven(block, lend(block.state, this.spaceOf(block, facts), full));
  }

  takeBack(block: LedgerBlock, loan: string, now: number): void {
    const state = takeBack(block.state, loan, now);
    for (const [ip, record] of block.state.records) if (state.records.get(ip) !== record) this.#commit(block, ip, state);
  }

  /** Writes what is known from elsewhere. */
  remember(block: LedgerBlock, ip: Ip, record: AddressState): void {
    this.#commit(block, ip, remember(block.state, ip, record));
  }

  putLoose(pool: LedgerPool, ip: Ip, record: LooseRecord): void {
    this.#journal.put(addressKey(pool.id, ip), { status: 'loose', ...record });
    pool.loose.set(ip, record);
    pool.owners.set(record.owner, ip);
  }

  held(pool: LedgerPool, ip: Ip): Held | undefined {
    const record = this.blockOf(pool, ip)?.state.records.get(ip) ?? pool.loose.get(ip);
    return record !== undefined && 'since' in record ? record : undefined;
  }

  bind(pool: LedgerPool, ip: Ip, endpoint: string): void {
    const block = this.blockOf(pool, ip);
    const loose = pool.loose.get(ip);
    if (loose !== undefined) {
      if (loose.endpoint !== endpoint) this.putLoose(pool, ip, { ...loose, endpoint });
    } else if (block !== undefined) this.#commit(block, ip, bindTo(block.state, ip, endpoint));
  }

  /**
   * Frees a held address; says which loan must be returned. Anything else than that owner's address changes nothing. A power
   * cut may forget it, along with the container that had the address, and then it is freed again.
   */
  release(pool: LedgerPool, ip: Ip, sequence: number | undefined, now: number): ReturnRecord | undefined {
    const loose = pool.loose.get(ip);
    if (loose === undefined) {
      const block = this.blockOf(pool, ip);
      if (block !== undefined) this.#journal.soon(() => this.#commit(block, ip, free(block.state, ip, { sequence, now })));
      return undefined;
    }
    if (sequence !== undefined && sequence !== loose.sequence) return undefined;
    const due = loose.loan === undefined ? undefined : { loan: loose.loan.id, block: loose.loan.block };
    this.transaction(() => {
      if (due !== undefined) this.#journal.put(returnKey(due.loan), due);
      this.#journal.delete(addressKey(pool.id, ip));
    });
    if (due !== undefined) this.returns.set(due.loan, due);
    pool.loose.delete(ip);
    pool.owners.delete(loose.owner);
    return due;
  }

  returned(loan: string): void {
    if (!this.returns.has(loan)) return;
    this.#journal.delete(returnKey(loan));
    this.returns.delete(loan);
  }

  /** Forgets what was freed long ago, in all blocks. */
  expire(moment: { readonly now: number; readonly forgetMs: number }): void {
    this.transaction(() => {
      let changed = false;
      for (const pool of this.pools.values()) {
        for (const block of pool.blocks.values()) {
          const state = expire(block.state, moment);
          if (state === block.state) continue;
          changed = true;
          for (const [ip, record] of block.state.records) if (state.records.get(ip) !== record) this.#commit(block, ip, state);
          block.state = state;
        }
      }
      if (changed) writeBook(this.#journal, this.#sequence);
    });
  }

  /** Drops the blocks that are not the host's any more by what stands for that revision. */
  dropLost(revision: number, isHere: (id: string) => boolean): void {
    for (const pool of this.pools.values()) {
      for (const block of pool.blocks.values()) {
        if (!isHere(block.record.id) && block.record.revision <= revision) this.dropBlock(block);
      }
    }
  }

  /** Addresses that the host's blocks of this pool could give out now, and how many they have. */
  room(pool: LedgerPool, facts: Pool, moment: Moment): { free: number; capacity: number } {
    let total = { free: 0, capacity: 0 };
    for (const block of pool.blocks.values()) {
      if (block.record.status !== 'active') continue;
      const space = this.spaceOf(block, facts);
      total = { free: total.free + freeCount(block.state, space, moment), capacity: total.capacity + space.capacity };
    }
    return total;
  }
}

/** What is held in the block. */
export function heldOf(block: LedgerBlock): [Ip, Held][] {
  return [...block.state.records].flatMap(([ip, record]): [Ip, Held][] => (record.status === 'held' ? [[ip, record]] : []));
}

/** Nothing in it is held, lent, resting or asked for. */
export const isIdle = (block: LedgerBlock, snapshot: Snapshot, now: number): boolean =>
  block.state.records.size === 0 && block.state.quietUntil <= now && snapshot.blocks.get(block.record.id)?.loans.length === 0;

/** What a block is that the cluster does not take back; undefined: it has changed, of which the snapshot tells. Else throws `refusal`. */
export function endOfRefused(refusal: unknown): 'active' | undefined {
  // It stays this host's: because of a loan, or for good where somebody else has given it.
  if (isFault(refusal, 'in-use')) return 'active';
  if (isFault(refusal, 'conflict')) return undefined;
  throw refusal;
}
