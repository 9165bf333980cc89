// Borrowing: one address of another host's block. The borrower enters a loan into the block's record and waits until the
// owner's answer comes back with the snapshot. A loan that nobody waits for any more is returned, whatever became of it.
import { Fault, isFault } from '#model/fault.ts';
import { spaceOf } from '#model/block.ts';
import { contains, type Ip } from '#model/ip.ts';
import type { Block, Loan, Pool, Snapshot } from '#model/resources.ts';
import type { Clock, ClusterAddresses } from './address-cluster.ts';

interface Waiting {
  readonly granted: (ip: Ip) => void;
  readonly done: (loan: Loan | undefined) => void;
}

export interface Wish {
  readonly owner: string;
  readonly ip?: Ip | undefined;
  /** Called in the same step in which the grant is seen, before the borrower goes on. */
  readonly granted: (ip: Ip, loan: { readonly block: string; readonly id: string }) => void;
}

const maxLenders = 8;

/**
 * Blocks whose owners to ask: those of hosts that are ready first, then those with the largest part free as far as this host
 * knows (of a network in which it takes no part it sees no endpoints). Known to be full is last, not left out: an address may
 * just have been freed.
 */
export function lenders(snapshot: Snapshot, pool: Pool, blocks: readonly Block[], self: string): Block[] {
  const used = [...snapshot.endpoints.values()].flatMap(({ network, addresses }) => (network === pool.network ? addresses : []));
  const rank = (block: Block): number => {
    const { capacity } = spaceOf(pool, block.cidr);
    const taken = used.filter((ip) => contains(block.cidr, ip)).length + block.loans.filter(({ state }) => state !== 'refused').length;
    return (snapshot.hosts.get(block.host)?.status.ready === true ? 0 : 2) + (capacity === 0 ? 1 : Math.min(taken / capacity, 1));
  };
  return blocks
    .filter((block) => block.pool === pool.id && block.host !== self && snapshot.hosts.has(block.host))
    .map((block) => ({ block, rank: rank(block) }))
    .toSorted((a, b) => a.rank - b.rank || (a.block.id < b.block.id ? -1 : 1))
    .map(({ block }) => block)
    .slice(0, maxLenders);
}

export class Borrower {
  readonly #waiting = new Map<string, Waiting>();
  readonly #cluster: Pick<ClusterAddresses, 'askLoan'>;
  readonly #clock: Clock;
  readonly #waitMs: number;
  readonly #giveUp: (loan: string, block: string) => void;

  constructor(options: {
    readonly cluster: Pick<ClusterAddresses, 'askLoan'>;
    readonly clock: Clock;
    readonly waitMs: number;
    /** Returns a loan that is not wanted any more. */
    readonly giveUp: (loan: string, block: string) => void;
  }) {
    this.#cluster = options.cluster;
    this.#clock = options.clock;
    this.#waitMs = options.waitMs;
    this.#giveUp = options.giveUp;
  }

  isWaiting(loan: string): boolean {
    return this.#waiting.has(loan);
  }

  /** One address from this block. Faults: `exists` (refused: the owner says why), `timeout`, and askLoan's. */
  async borrow(block: Block, id: string, wish: Wish): Promise<Ip> {
    const { promise, resolve } = Promise.withResolvers<Loan | undefined>();
    let granted: Ip | undefined;
    const accept = (ip: Ip): void => {
      wish.granted(ip, { block: block.id, id });
      granted = ip;
    };
    this.#waiting.set(id, { granted: accept, done: resolve });
    const cancel = this.#clock.after(this.#waitMs, () => this.#forget(id));
    try {
      const request = { id, endpoint: wish.owner, ...(wish.ip === undefined ? {} : { ip: wish.ip }) };
      // The grant may come with the snapshot while the answer to the question is lost; then it holds.
      const asked = await this.#cluster.askLoan(block, request).catch((error: unknown) => {
        if (granted === undefined) throw error;
      });
      if (asked !== undefined) this.seen(asked);
      const loan = granted === undefined ? await promise : undefined;
      if (granted !== undefined) return granted;
      if (loan !== undefined) throw new Fault('exists', `Cannot borrow from ${block.host}: ${loan.reason ?? loan.state}`);
      throw new Fault('timeout', `Cannot borrow from ${block.host}: no answer in ${this.#waitMs} ms`);
    } finally {
      cancel();
      this.#waiting.delete(id);
      if (granted === undefined) this.#giveUp(id, block.id);
    }
  }

  #forget(id: string): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    waiting?.done(undefined);
  }

  /** News of a loan of this host. A grant takes effect before this returns. */
  seen(loan: Loan): void {
    const waiting = this.#waiting.get(loan.id);
    if (waiting === undefined || loan.state === 'asked') return;
    this.#waiting.delete(loan.id);
    try {
      if (loan.state === 'granted' && loan.ip !== undefined) waiting.granted(loan.ip);
    } finally {
      waiting.done(loan);
    }
  }

  /** Everybody who waits gets a Fault `timeout`. */
  stop(): void {
    for (const id of this.#waiting.keys()) this.#forget(id);
  }
}

/** Whether asking another owner makes sense after this. */
export const isRefusal = (error: unknown): boolean => isFault(error, 'exists') || isFault(error, 'timeout') || isFault(error, 'not-found');
