// Who has which address of one block, as an immutable value: the block's only authority applies these functions and writes
// the result to its journal. An address without a record is free. Time (milliseconds) and sequence numbers are parameters;
// sequences must grow, so that a release that comes late can be told from one that is meant for the present owner.
import { inSpace, nextFree, type Space } from './block.ts';
import { type Ip, ipToBigint } from './ip.ts';

export type AddressState =
  | { readonly status: 'held'; readonly owner: string; readonly sequence: number; readonly since: number; readonly endpoint?: string }
  /** Freed not long ago; `owner` is the last one (for a lent address: the host that had it). */
  | { readonly status: 'cooling'; readonly owner: string; readonly sequence: number; readonly freedAt: number }
  /** `revision`: of the block record in which the loan was seen; an older record says nothing about this loan. */
  | { readonly status: 'lent'; readonly loan: string; readonly host: string; readonly sequence: number; readonly revision: number };

export interface Allocation {
  readonly records: ReadonlyMap<Ip, AddressState>;
  /** Where the search for an address without a record begins; goes round so that addresses return as late as possible. */
  readonly cursor: bigint;
  /** Until then nothing without a record is given out by itself: what the block gave before is not known for sure. */
  readonly quietUntil: number;
}

/** When, and how long a freed address rests before another owner gets it by itself. */
export interface Moment {
  readonly now: number;
  readonly cooldownMs: number;
}

export interface Claim extends Moment {
  readonly owner: string;
  readonly sequence: number;
}

export interface LoanClaim extends Moment {
  readonly loan: string;
  readonly host: string;
  readonly ip?: Ip | undefined;
  readonly sequence: number;
  readonly revision: number;
}

export interface Given {
  readonly state: Allocation;
  readonly ip: Ip;
}

export const emptyAllocation: Allocation = { records: new Map(), cursor: 0n, quietUntil: 0 };

export const hasCooled = (record: { readonly freedAt: number }, { now, cooldownMs }: Moment): boolean => now - record.freedAt >= cooldownMs;

function withRecord(state: Allocation, ip: Ip, record: AddressState | undefined): Allocation {
  const records = new Map(state.records);
  if (record === undefined) records.delete(ip);
  else records.set(ip, record);
  return { ...state, records };
}

/** An address that may be given to anybody now: first one without a record, then the one that has rested longest. */
function choose(state: Allocation, space: Space, moment: Moment): Ip | undefined {
  if (moment.now >= state.quietUntil) {
    const fresh = nextFree(space, state.cursor, (ip) => state.records.has(ip));
    if (fresh !== undefined) return fresh;
  }
  let oldest: { ip: Ip; freedAt: number } | undefined;
  for (const [ip, record] of state.records) {
    if (record.status !== 'cooling' || !hasCooled(record, moment) || !inSpace(space, ip)) continue;
    if (oldest === undefined || record.freedAt < oldest.freedAt) oldest = { ip, freedAt: record.freedAt };
  }
  return oldest?.ip;
}

/** Gives any address; undefined when none is free and rested. */
export function allocate(state: Allocation, space: Space, { owner, sequence, ...moment }: Claim): Given | undefined {
  const ip = choose(state, space, moment);
  if (ip === undefined) return undefined;
  const next = withRecord(state, ip, { status: 'held', owner, sequence, since: moment.now });
  return { state: { ...next, cursor: ipToBigint(ip) + 1n }, ip };
}

/**
 * Gives exactly `ip`; undefined when somebody else holds or borrows it. Rest does not matter: whoever asks by name (a
 * container with a fixed address that is restarted) means it. The same owner asking again keeps record and sequence.
 */
export function allocateExact(state: Allocation, ip: Ip, { owner, sequence, now }: Claim): Given | undefined {
  const record = state.records.get(ip);
  if (record?.status === 'held' && record.owner === owner) return { state, ip };
  if (record !== undefined && record.status !== 'cooling') return undefined;
  return { state: withRecord(state, ip, { status: 'held', owner, sequence, since: now }), ip };
}

/** Frees a held address, which then rests. A `sequence` that is not the record's, or an address not held, changes nothing. */
export function free(state: Allocation, ip: Ip, { sequence, now }: { sequence?: number | undefined; now: number }): Allocation {
  const record = state.records.get(ip);
  if (record?.status !== 'held' || (sequence !== undefined && sequence !== record.sequence)) return state;
  return withRecord(state, ip, { status: 'cooling', owner: record.owner, sequence: record.sequence, freedAt: now });
}

/** Ties a held address to the endpoint that uses it. An address not held changes nothing. */
export function bindTo(state: Allocation, ip: Ip, endpoint: string): Allocation {
  const record = state.records.get(ip);
  if (record?.status !== 'held' || record.endpoint === endpoint) return state;
  return withRecord(state, ip, { ...record, endpoint });
}

/**
 * Forgets what was freed `forgetMs` ago or earlier, so that records do not pile up. A freeing that lies in the future
 * (the clock was set back) counts as happening now, so that no address rests for ever.
 */
export function expire(state: Allocation, { now, forgetMs }: { now: number; forgetMs: number }): Allocation {
  const records = new Map(state.records);
  let changed = false;
  for (const [ip, record] of state.records) {
    if (record.status !== 'cooling') continue;
    if (now - record.freedAt >= forgetMs) records.delete(ip);
    else if (record.freedAt > now) records.set(ip, { ...record, freedAt: now });
    else continue;
    changed = true;
  }
  const quietUntil = state.quietUntil - now > forgetMs ? now + forgetMs : state.quietUntil;
  return changed || quietUntil !== state.quietUntil ? { ...state, records, quietUntil } : state;
}

/**
 * Lends an address to another host: `ip`, or any. Undefined when it is held, lent elsewhere or resting; a host may have
 * the address again that it has just returned. The same loan again gives the same address.
 */
export function lend(state: Allocation, space: Space, claim: LoanClaim): Given | undefined {
  const { loan, host, sequence, revision, ...moment } = claim;
  for (const [ip, record] of state.records) if (record.status === 'lent' && record.loan === loan) return { state, ip };
  const ip = claim.ip === undefined ? choose(state, space, moment) : claim.ip;
  if (ip === undefined) return undefined;
  const record = state.records.get(ip);
  const isFree =
    record === undefined
      ? moment.now >= state.quietUntil
      : record.status === 'cooling' && (record.owner === hostOwner(host) || hasCooled(record, moment));
  if (!isFree) return undefined;
  const next = withRecord(state, ip, { status: 'lent', loan, host, sequence, revision });
  return { state: claim.ip === undefined ? { ...next, cursor: ipToBigint(ip) + 1n } : next, ip };
}

/** The loan is over: its address rests. An unknown loan changes nothing. */
export function takeBack(state: Allocation, loan: string, now: number): Allocation {
  for (const [ip, record] of state.records) {
    if (record.status !== 'lent' || record.loan !== loan) continue;
    return withRecord(state, ip, { status: 'cooling', owner: hostOwner(record.host), sequence: record.sequence, freedAt: now });
  }
  return state;
}

const hostOwner = (host: string): string => `host:${host}`;

/** Sets what is known from elsewhere (a journal, the cluster's records) without asking whether it may be. */
export const remember = (state: Allocation, ip: Ip, record: AddressState | undefined): Allocation => withRecord(state, ip, record);

/** How many addresses the block could give out by itself at this moment. Linear in the number of records. */
export function freeCount(state: Allocation, space: Space, moment: Moment): number {
  let recorded = 0;
  let reusable = 0;
  for (const [ip, record] of state.records) {
    if (!inSpace(space, ip)) continue;
    recorded++;
    if (record.status === 'cooling' && hasCooled(record, moment)) reusable++;
  }
  return reusable + (moment.now >= state.quietUntil ? space.capacity - recorded : 0);
}
