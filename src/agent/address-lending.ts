// The owner's side of loans: answers what other hosts ask of this host's blocks, and takes back what they return. The lent
// address is in the journal before the answer leaves, so a crash or a lost answer only means that the same is answered again.
import { refusalOf } from '#model/block.ts';
import type { Moment } from '#model/allocation.ts';
import { isFault } from '#model/fault.ts';
import { contains } from '#model/ip.ts';
import type { Block, Loan, Pool } from '#model/resources.ts';
import type { ClusterAddresses, Settlement } from './address-cluster.ts';
import type { Ledger, LedgerBlock } from './address-ledger.ts';

export class Lender {
  readonly #ledger: Ledger;
  readonly #cluster: Pick<ClusterAddresses, 'settleLoan'>;
  readonly #moment: () => Moment;
  readonly #background: (doing: string, work: () => Promise<void>) => void;
  readonly #isClosed: () => boolean;

  constructor(options: {
    readonly ledger: Ledger;
    readonly cluster: Pick<ClusterAddresses, 'settleLoan'>;
    readonly moment: () => Moment;
    /** Runs calls to the cluster, one of a kind at a time. */
    readonly background: (doing: string, work: () => Promise<void>) => void;
    readonly isClosed: () => boolean;
  }) {
    this.#ledger = options.ledger;
    this.#cluster = options.cluster;
    this.#moment = options.moment;
    this.#background = options.background;
    this.#isClosed = options.isClosed;
  }

  /** Every loan in a block of this host gets its answer, and every loan that ended frees its address. */
  settle(block: Block, pool: Pool | undefined): void {
    const own = this.#ledger.pools.get(block.pool)?.blocks.get(block.id);
    if (own === undefined || own.record.status === 'released') return;
    const loans = new Map(block.loans.map((loan) => [loan.id, loan]));
    for (const record of own.state.records.values()) {
      if (record.status === 'lent' && !loans.has(record.loan) && block.revision > record.revision) {
        this.#ledger.takeBack(own, record.loan, this.#moment().now);
      }
    }
    for (const loan of loans.values()) {
      // A host asked for a block that became its own meanwhile: as the borrower it returns that loan.
      if (loan.host === block.host && loan.state !== 'returned') continue;
      if (loan.state === 'asked' && pool !== undefined) this.#answer({ block, own, pool }, loan);
      else if (loan.state === 'granted') this.#confirm(block, own, loan);
      else if (loan.state === 'returned') {
        this.#ledger.takeBack(own, loan.id, this.#moment().now);
        this.#send(block, loan.id, { state: 'closed' });
      }
    }
  }

  #answer({ block, own, pool }: { block: Block; own: LedgerBlock; pool: Pool }, { id, host, ip }: Loan): void {
    if (own.record.status !== 'active') return;
    const refusal = ip === undefined ? undefined : refusalOf(pool, ip);
    const claim = { ...this.#moment(), loan: id, host, ip, revision: block.revision };
    const given = refusal === undefined ? this.#ledger.lend(own, pool, claim) : undefined;
    if (given !== undefined) this.#send(block, id, { state: 'granted', ip: given });
    else {
      const reason = ip === undefined ? `no free address in ${block.cidr}` : `${ip} is ${refusal ?? 'taken, or was until a moment ago'}`;
      this.#send(block, id, { state: 'refused', reason });
    }
  }

  /** A grant that the journal does not know (it was lost): the address is lent all the same. */
  #confirm(block: Block, own: LedgerBlock, { id, host, ip }: Loan): void {
    if (ip === undefined || !contains(block.cidr, ip)) return;
    const record = own.state.records.get(ip);
    if (record !== undefined && record.status !== 'cooling') return;
    const sequence = this.#ledger.nextSequence(this.#moment().now);
    this.#ledger.remember(own, ip, { status: 'lent', loan: id, host, sequence, revision: block.revision });
  }

  #send(block: Block, loan: string, settlement: Settlement): void {
    this.#background(`settle ${loan}`, async () => {
      try {
        await this.#cluster.settleLoan(block.id, loan, settlement);
      } catch (error) {
        // The loan has gone on since; a later snapshot says how.
        if (isFault(error, 'conflict') || isFault(error, 'stale')) return;
        if (!isFault(error, 'not-found')) throw error;
        if (this.#isClosed()) return;
        const own = this.#ledger.pools.get(block.pool)?.blocks.get(block.id);
        if (own !== undefined) this.#ledger.takeBack(own, loan, this.#moment().now);
      }
    });
  }
}
