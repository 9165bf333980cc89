// A store that was restored from a backup lacks the blocks that hosts have claimed since, and would give them to others while
// containers have their addresses. So when the cluster shows an older state than before, or another history (which the start of a
// controller begins, too: then nothing is missing), blocks that are missing from it are claimed again, the very same ones; of one
// that somebody else has by now nothing more is given out.
import { isFault } from '#model/fault.ts';
import { cidrBase } from '#model/ip.ts';
import type { Block } from '#model/resources.ts';
import type { AddressFacts, ClusterAddresses } from './address-cluster.ts';
import type { Ledger } from './address-ledger.ts';
import type { BlockRecord } from './address-records.ts';

export interface LapsesOptions {
  readonly ledger: Ledger;
  readonly cluster: Pick<ClusterAddresses, 'claimBlock'>;
  readonly host: string;
  readonly moment: () => { readonly now: number; readonly cooldownMs: number };
  readonly background: (doing: string, work: () => Promise<void>) => void;
  readonly isClosed: () => boolean;
}

const isLater = (error: unknown): boolean => isFault(error, 'unavailable') || isFault(error, 'timeout');

export class Lapses {
  readonly #options: LapsesOptions;
  /** Of the last listing; undefined before the first. */
  #revision: number | undefined;
  /** The last that is known, also from before this process began. */
  #epoch: string | undefined;
  readonly #due = new Map<string, BlockRecord>();

  constructor(options: LapsesOptions) {
    this.#options = options;
  }

  /** Takes note of what is known of the cluster; only what a controller has listed (`live`) can lack a block. */
  see({ snapshot: { blocks }, revision, epoch, live }: AddressFacts): void {
    const isOther = epoch !== undefined && this.#epoch !== undefined && epoch !== this.#epoch;
    if (epoch !== undefined) this.#epoch = epoch;
    if (!live) return;
    const before = this.#revision ?? this.#newestKnown();
    this.#revision = revision;
    if (revision < before || isOther)
      for (const record of this.#records()) if (record.status === 'active' && !blocks.has(record.id)) this.#due.set(record.id, record);
    for (const id of this.#due.keys()) if (blocks.has(id)) this.#due.delete(id);
    // Also what was asked before and no controller has answered: listings come again and again.
    for (const record of this.#due.values()) this.#options.background(`claim ${record.cidr} again`, () => this.#claim(record));
  }

  /** Whether the cluster is being asked for that block, so that it has not gone. */
  isDue(id: string): boolean {
    return this.#due.has(id);
  }

  #records(): BlockRecord[] {
    return [...this.#options.ledger.pools.values()].flatMap((pool) => [...pool.blocks.values()].map(({ record }) => record));
  }

  /** A block in the journal that is newer than the first listing is one that the cluster knew once. */
  #newestKnown(): number {
    return Math.max(0, ...this.#records().map(({ revision }) => revision));
  }

  async #claim(record: BlockRecord): Promise<void> {
    const { cluster, host, isClosed } = this.#options;
    const { network, pool, cidr } = record;
    let block: Block | undefined;
    try {
      block = await cluster.claimBlock({ network, pool, ip: cidrBase(cidr) });
    } catch (error) {
      if (isLater(error)) throw error;
      // A network that the cluster does not know either stays as it was (networks-in-use.ts).
      if (isFault(error, 'not-found')) {
        this.#due.delete(record.id);
        return;
      }
    }
    if (isClosed()) return;
    this.#due.delete(record.id);
    this.#replace(record, block?.host === host ? block : undefined);
  }

  #replace({ id, pool }: BlockRecord, block: Block | undefined): void {
    const { ledger, moment } = this.#options;
    if (block?.id === id) return;
    const lapsed = ledger.pool(pool).blocks.get(id);
    if (lapsed !== undefined) ledger.dropBlock(lapsed);
    const { now, cooldownMs } = moment();
    // When its addresses were freed is not known any more.
    if (block !== undefined) ledger.putBlock(block, now + cooldownMs);
  }
}
