// What the address book asks of the cluster, and what it is told by it. Every call may be repeated after a lost answer; every
// call that takes a Block acts on that revision of it only, so that a call that comes late cannot hit its successor.
import type { Journal } from '#api/local.ts';
import type { PortGroupsRequest } from '#api/requests.ts';
import type { Ip } from '#model/ip.ts';
import type { Block, Loan, Snapshot } from '#model/resources.ts';

export type Settlement =
  | { readonly state: 'granted'; readonly ip: Ip }
  | { readonly state: 'refused'; readonly reason: string }
  /** The borrower has returned it and the address is the owner's again: the loan's entry may go. */
  | { readonly state: 'closed' };

export interface ClusterAddresses {
  /**
   * Without `ip`: a new block for this host, with room inside the pool's range. With `ip`: the block that covers it,
   * whichever host has it, or a new one for this host. Faults: `exhausted` (no block left), `unavailable`, `timeout`.
   */
  claimBlock(request: { readonly network: string; readonly pool: string; readonly ip?: Ip; readonly has?: number }): Promise<Block>;
  /** Every block of the pool, whichever host has it: a host that does not take part in a network does not watch its blocks. */
  blocksOf(network: string, pool: string): Promise<readonly Block[]>;
  /**
   * Enters a loan in state `asked` into another host's block; the same `id` again changes nothing. The owner's answer comes
   * with the snapshot (or at once, where the cluster settles it). Faults: `not-found` (no such block), `unavailable`, …
   */
  askLoan(block: Block, loan: { readonly id: string; readonly endpoint: string; readonly ip?: Ip }): Promise<Loan>;
  /**
   * The owner's answer. Idempotent. Faults: `not-found` (the borrower has withdrawn), `conflict` or `stale` (the loan
   * has gone on since: a grant after a return), `unavailable`.
   */
  settleLoan(block: string, loan: string, settlement: Settlement): Promise<void>;
  /** The borrower's end of it: a granted loan becomes `returned`, any other entry goes. Unknown ones are success. */
  returnLoan(block: string, loan: string): Promise<void>;
  /** Answers with the block as it is then. Absent where containers have no ports of a cloud. Faults: as PortPools.regroup. */
  readonly setPortGroups?: (block: string, request: PortGroupsRequest) => Promise<Block>;
  /**
   * Gives the block back, if it is this host's, has no loans and is still at `block.revision`. Unknown or another host's is
   * success. Faults: `conflict` or `in-use` (it has changed: keep it), `unavailable`.
   */
  releaseBlock(block: { readonly id: string; readonly revision: number }): Promise<void>;
}

export interface AddressFacts {
  readonly snapshot: Snapshot;
  /** Of the store, that the snapshot stands for: a block that is missing although it is older has gone. */
  readonly revision: number;
  /** The store's history that the revision is of, where it is known; another one may be that of a restored store. */
  readonly epoch?: string | undefined;
  /** False for a snapshot read back from disk: it may be out of date. */
  readonly live: boolean;
}

export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
  /** Calls `fn` once after `ms`, unless the returned function is called before. */
  after(ms: number, fn: () => void): () => void;
}

/** What the address book is made with. */
export interface AddressOptions {
  readonly journal: Journal;
  readonly cluster: ClusterAddresses;
  readonly clock: Clock;
  /** This host's name. */
  readonly host: string;
  /** Ids for loans, unique in the installation. */
  readonly newId: () => string;
  /** Told of calls to the cluster that failed in the background; they are repeated with the next snapshot or reconcile(). */
  readonly onFault?: (fault: unknown, doing: string) => void;
  /** Whether no container of this host can have an address that the journal does not know of: it may just have been begun. */
  readonly isBare?: () => boolean;
  readonly cooldownMs?: number;
  /** How long a freed address is remembered so that the one freed first comes back first. */
  readonly forgetMs?: number;
  /** How long an address may be held without a live owner. */
  readonly leakMs?: number;
  /** How long an empty block is kept; the pool's last one six times as long. */
  readonly idleMs?: number;
  readonly loanWaitMs?: number;
  readonly prefetchPauseMs?: number;
}
