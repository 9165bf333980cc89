// Addresses that are held for nobody: a crash between giving one and its use leaves such a record. They are freed when they have had
// no live owner for a while, as the owner of one just given may not be known yet.
import type { Ip } from '#model/ip.ts';
import { heldOf, type LedgerPool } from './address-ledger.ts';

export interface Orphan {
  readonly pool: string;
  readonly ip: Ip;
  readonly sequence: number;
}

export class Orphans {
  /** By sequence number, when it was first seen without an owner. */
  #since = new Map<number, number>();

  /** Those without an owner among `live` (owners, ids of endpoints) for `leakMs` or longer. */
  due(pools: Iterable<LedgerPool>, live: ReadonlySet<string>, { now, leakMs }: { now: number; leakMs: number }): Orphan[] {
    const young = new Map<number, number>();
    const due: Orphan[] = [];
    for (const pool of pools) {
      for (const [ip, { owner, endpoint, sequence }] of [...pool.loose].concat([...pool.blocks.values()].flatMap(heldOf))) {
        if (live.has(owner) || (endpoint !== undefined && live.has(endpoint))) continue;
        const since = this.#since.get(sequence) ?? now;
        if (now - since >= leakMs) due.push({ pool: pool.id, ip, sequence });
        else young.set(sequence, since);
      }
    }
    this.#since = young;
    return due;
  }
}
