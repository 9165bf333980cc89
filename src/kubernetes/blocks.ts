// Blocks kept in the Kubernetes API: one custom resource each, whose name follows from its range, so that the API server
// itself lets only one host have it, and every change names the resource version that it was made from. Who gives out which
// address is decided by the hosts' address books, as with controllers; here is only how their claims and loans are written.
import { createHash } from 'node:crypto';
import * as v from 'valibot';
import type { ClusterAddresses } from '#agent/address-cluster.ts';
import * as field from '#api/fields.ts';
import type { Journal } from '#api/local.ts';
import { blockAround, chooseBlock, isOpen, type LoanEnd, loansWith, overlapping, settled } from '#model/claims.ts';
import { Fault, isFault } from '#model/fault.ts';
import { type Cidr, cidrLength, contains, covers } from '#model/ip.ts';
import type { Block, Loan, Pool } from '#model/resources.ts';
import { type KubernetesClient, type Listing, revisionOf } from './client.ts';
import { podNetwork } from './nodes.ts';

export const blocksPath = '/apis/causeway.dev/v1alpha1/blocks';
const kind = { apiVersion: 'causeway.dev/v1alpha1', kind: 'Block' } as const;
const mostTries = 100;
/** Of the loan by which it is asked whether anybody still answers for a block. */
export const questionId = 'is-anybody-there';
/** The same of a host that has borrowed, for all that it has of a block. */
export const borrowerQuestionId = (host: string): string => `${questionId}-${host}`;
/** A host that was away while the API was restored learns of it if the API has lost more changes than these. */
const noteEvery = 100;

/** `10.244.0.64/26` is `10-244-0-64-26`, as Calico names its blocks. */
export const blockName = (cidr: Cidr): string => cidr.replaceAll(/[.:/]/g, '-').replace(/^-/, '0-');
export const poolId = (name: string): string => `ippool${createHash('sha256').update(name).digest('hex').slice(0, 12)}`;

/**
 * Of a network of ours, which a NetworkAttachmentDefinition describes: its id, then the definition's name for people. No IPPool can be
 * called so, as names of objects have no `/`.
 */
export const ownPoolName = (id: string, definition: string): string => `${id}/${definition}`.slice(0, 253);
/** The pool that has this name in the cluster, and the network that it is of. */
function poolNamed(name: string): Pick<Block, 'network' | 'pool'> {
  const [id = '', definition] = name.split('/');
  return definition === undefined ? { network: podNetwork.id, pool: poolId(name) } : { network: id.replace(/p[46]$/, ''), pool: id };
}
const blockId = (cidr: Cidr): string => `block${createHash('sha256').update(cidr).digest('hex').slice(0, 16)}`;

const loan: v.GenericSchema<unknown, Loan> = v.object({
  id: v.string(),
  host: v.string(),
  endpoint: v.string(),
  ip: v.exactOptional(field.ip),
  state: v.picklist(['asked', 'granted', 'refused', 'returned']),
  reason: v.exactOptional(v.string()),
});
const resource = v.object({
  metadata: v.object({ name: v.string(), resourceVersion: v.string(), creationTimestamp: field.timestamp }),
  spec: v.object({ pool: v.string(), cidr: field.cidr, host: v.string(), loans: v.optional(v.array(loan), []) }),
});

/** A block, and what its pool is called in the cluster. */
interface Read {
  readonly block: Block;
  readonly pool: string;
}

/** Fault `invalid` when it is no block of ours. */
export const readBlock = (item: unknown): Block => readWhole(item).block;

function readWhole(item: unknown): Read {
  const read = v.safeParse(resource, item);
  if (!read.success) throw new Fault('invalid', `A Block cannot be read: ${read.issues[0].message}`);
  const { metadata, spec } = read.output;
  if (metadata.name !== blockName(spec.cidr))
    throw new Fault('invalid', `Block ${metadata.name} is named for another range than ${spec.cidr}`);
  const block = {
    id: blockId(spec.cidr),
    name: metadata.name,
    revision: revisionOf(metadata.resourceVersion),
    createdAt: metadata.creationTimestamp,
    labels: {},
    ...poolNamed(spec.pool),
    cidr: spec.cidr,
    host: spec.host,
    loans: spec.loans,
  };
  return { block, pool: spec.pool };
}

interface Written {
  readonly cidr: Cidr;
  readonly host: string;
  readonly pool: string;
  readonly loans: readonly Loan[];
}

const bodyOf = ({ cidr, host, pool, loans }: Written, revision?: number): object => ({
  ...kind,
  metadata: { name: blockName(cidr), ...(revision === undefined ? {} : { resourceVersion: String(revision) }) },
  spec: { pool, cidr, host, loans },
});

export interface NamedPool {
  /** That it has in the cluster. */
  readonly name: string;
  readonly pool: Pool;
  /** A host has at most so many blocks of it; 0: any number. */
  readonly mostBlocks: number;
}

/**
 * Blocks of a pool are all as large as those that there are, whatever is said of it since: hosts that do not hear of it at the same time would
 * else claim some that overlap.
 */
export function asClaimed<P extends Pick<Pool, 'id' | 'cidr' | 'blockLength'>>(pool: P, blocks: Iterable<Pick<Block, 'pool' | 'cidr'>>): P {
  for (const block of blocks)
    if (block.pool === pool.id && covers(pool.cidr, block.cidr)) return { ...pool, blockLength: cidrLength(block.cidr) };
  return pool;
}

export interface BlocksOptions {
  readonly client: KubernetesClient;
  readonly host: string;
  readonly journal: Journal;
  readonly pool: (id: string) => NamedPool | undefined;
  /** Told what was written, ahead of the watch. */
  readonly wrote: (block: Block) => void;
  readonly now: () => number;
  /** How long no new block is claimed once the API has lost what it had said before. */
  readonly graceMs?: number;
}

const witnessPrefix = 'kubernetes/blocks/';
const reachedKey = 'kubernetes/reached';
const witnessed = v.object({ cidr: field.cidr, pool: v.string() });

/** What this host knows to be its own, whatever the API says. */
interface Witnessed {
  readonly cidr: Cidr;
  readonly pool: string;
}

export class KubernetesBlocks implements ClusterAddresses {
  readonly #options: BlocksOptions;
  readonly #signal = new AbortController().signal;
  #reached: number;
  #noted: number;
  #lostAt: number | undefined;

  constructor(options: BlocksOptions) {
    this.#options = options;
    const reached = options.journal.get(reachedKey);
    this.#reached = typeof reached === 'number' ? reached : 0;
    this.#noted = this.#reached;
  }

  async #listed(): Promise<readonly Block[]> {
    return (await this.list(this.#signal)).items.map(readBlock);
  }

  /**
   * All blocks. An API that has not come as far as was known when it was asked was restored from a backup: hosts then first say again
   * which blocks are theirs (assert), before any of them claims a new one. Faults as KubernetesClient.list.
   */
  async list(signal: AbortSignal): Promise<Listing> {
    const { client, now } = this.#options;
    const asked = this.#reached;
    const listing = await client.list(blocksPath, signal);
    if (listing.revision >= asked) this.passed(listing.revision);
    else {
      this.#lostAt = now();
      this.#reach(listing.revision);
    }
    return listing;
  }

  /** So far a watch or a listing has come. Of two that go on at once either may be ahead. */
  passed(revision: number): void {
    if (revision > this.#reached) this.#reach(revision);
  }

  async #get(name: string): Promise<Read | undefined> {
    try {
      return readWhole(await this.#options.client.get(`${blocksPath}/${name}`));
    } catch (error) {
      if (isFault(error, 'not-found')) return undefined;
      throw error;
    }
  }

  #reach(revision: number): void {
    this.#reached = revision;
    if (Math.abs(revision - this.#noted) < noteEvery && revision >= this.#noted) return;
    this.#noted = revision;
    this.#options.journal.put(reachedKey, revision);
  }

  /** Claims again what this host's journal knows to be its own and the listing lacks. The hosts that got it meanwhile keep it. */
  async assert(blocks: readonly Block[]): Promise<readonly Block[]> {
    const { journal, host, client } = this.#options;
    const here = new Map(blocks.map((block) => [block.cidr, block]));
    const found: Block[] = [];
    for (const { value } of journal.list(witnessPrefix)) {
      const own = v.safeParse(witnessed, value);
      if (!own.success || here.has(own.output.cidr)) continue;
      try {
        found.push(readBlock(await client.create(blocksPath, bodyOf({ ...own.output, host, loans: [] }))));
      } catch (error) {
        if (!isFault(error, 'conflict')) throw error;
      }
    }
    for (const block of [...blocks, ...found]) if (block.host === host) this.#keep({ cidr: block.cidr, pool: this.#nameOf(block) });
    return found;
  }

  #nameOf(block: Block): string {
    return this.#options.pool(block.pool)?.name ?? '';
  }

  #keep(own: Witnessed): void {
    const key = witnessPrefix + own.cidr;
    if (own.pool !== '' && this.#options.journal.get(key) === undefined) this.#options.journal.put(key, own);
  }

  async claimBlock({ pool: id, ip }: Parameters<ClusterAddresses['claimBlock']>[0]): Promise<Block> {
    const known = this.#options.pool(id);
    if (known === undefined) throw new Fault('not-found', `No address pool ${id}`);
    for (let tries = 1; ; tries++) {
      const blocks = await this.#listed();
      const holder = ip === undefined ? undefined : blocks.find(({ cidr }) => contains(cidr, ip));
      if (holder !== undefined) return holder;
      this.#checkClaim(blocks, known);
      const pool = asClaimed(known.pool, blocks);
      const isTaken = overlapping(blocks.map((block) => block.cidr));
      const cidr = ip === undefined ? chooseBlock(pool, isTaken, 'low') : blockAround(pool, ip);
      if (cidr === undefined || isTaken(cidr))
        throw new Fault('exhausted', `No block /${pool.blockLength} is left in ${cidr ?? pool.cidr}`);
      const claimed = await this.#create({ cidr, pool: known.name });
      if (claimed !== undefined) return claimed;
      if (tries >= mostTries) throw new Fault('conflict', `Other hosts were quicker ${mostTries} times`);
    }
  }

  /** Whether this host may claim a block of the pool now. Faults: `unavailable`, `exhausted`. */
  #checkClaim(blocks: readonly Block[], { pool, mostBlocks: most }: NamedPool): void {
    const { host, now, graceMs = 60_000 } = this.#options;
    if (this.#lostAt !== undefined && now() - this.#lostAt < graceMs) {
      throw new Fault('unavailable', 'The Kubernetes API was restored from a backup; hosts first say which blocks are theirs', {
        hint: 'It is tried again within a minute',
      });
    }
    if (most > 0 && blocks.filter((block) => block.host === host && block.pool === pool.id).length >= most)
      throw new Fault('exhausted', `Host ${host} holds all ${most} blocks that it may have of ${pool.cidr}`);
  }

  /** Undefined: another host was quicker. */
  async #create(own: Witnessed): Promise<Block | undefined> {
    const { client, host, journal, wrote } = this.#options;
    try {
      // Noted first: an answer that is lost must not make a block of ours that nobody knows of.
      this.#keep(own);
      const block = readBlock(await client.create(blocksPath, bodyOf({ ...own, host, loans: [] })));
      wrote(block);
      return block;
    } catch (error) {
      if (!isFault(error, 'conflict')) throw error;
      journal.delete(witnessPrefix + own.cidr);
      return undefined;
    }
  }

  async blocksOf(_network: string, pool: string): Promise<readonly Block[]> {
    return (await this.#listed()).filter((block) => block.pool === pool);
  }

  /** Changes a block's loans, again and again until nobody else has written meanwhile. Undefined: there is no such block. */
  async #change(name: string, change: (block: Block) => readonly Loan[]): Promise<Block | undefined> {
    const { client, wrote } = this.#options;
    for (let tries = 1; ; tries++) {
      const read = await this.#get(name);
      if (read === undefined) return undefined;
      const { block, pool } = read;
      const loans = change(block);
      if (loans === block.loans) return block;
      try {
        const body = bodyOf({ ...block, pool, loans }, block.revision);
        const next = readBlock(await client.replace(`${blocksPath}/${name}`, body));
        wrote(next);
        return next;
      } catch (error) {
        if (!isFault(error, 'conflict') || tries >= mostTries) throw error;
      }
    }
  }

  async askLoan(block: Block, request: Parameters<ClusterAddresses['askLoan']>[1]): Promise<Loan> {
    const { host } = this.#options;
    const changed = await this.#change(block.name, (found) => loansWith(found, { ...request, host }));
    const asked = changed?.loans.find(({ id }) => id === request.id);
    if (asked === undefined) throw new Fault('not-found', `No block ${block.cidr}`);
    return asked;
  }

  /**
   * Puts a question into another host's block that its agent takes away as soon as it sees it, whatever its version: a loan that has been
   * returned. Faults as KubernetesClient.list.
   */
  async question(block: Block): Promise<void> {
    await this.#ask(block, { id: questionId, host: this.#options.host, state: 'returned' });
  }

  /**
   * Puts a question to a host that has borrowed into the block: a loan of its that was refused, which its agent takes away as soon as it
   * sees it, whatever its version. Faults as KubernetesClient.list.
   */
  async questionBorrower(block: Block, host: string): Promise<void> {
    await this.#ask(block, { id: borrowerQuestionId(host), host, state: 'refused' });
  }

  async #ask({ name }: Block, question: Pick<Loan, 'id' | 'host' | 'state'>): Promise<void> {
    await this.#change(name, ({ loans }) =>
      loans.some(({ id }) => id === question.id) ? loans : [...loans, { ...question, endpoint: 'none' }],
    );
  }

  /** What that host has borrowed counts as returned, unless it has answered by now. Faults as KubernetesClient.list. */
  async endLoans({ name }: Block, host: string): Promise<void> {
    const id = borrowerQuestionId(host);
    await this.#change(name, ({ loans }) => {
      if (!loans.some((one) => one.id === id)) return loans;
      const left = loans.filter((one) => one.id !== id && (one.host !== host || one.state !== 'asked'));
      return left.map((one) => (one.host === host && one.state === 'granted' ? { ...one, state: 'returned' } : one));
    });
  }

  async #settle(id: string, loanId: string, end: LoanEnd | undefined): Promise<void> {
    const name = (await this.#listed()).find((block) => block.id === id)?.name;
    const without = (found: Block): readonly Loan[] => found.loans.filter((one) => one.id !== loanId);
    const changed = await this.#change(name ?? 'none', (found) => {
      const known = found.loans.find((one) => one.id === loanId);
      if (known === undefined) {
        if (end === undefined || end.state === 'returned') return found.loans;
        throw new Fault('not-found', `No loan ${loanId}`);
      }
      if (end === undefined || (end.state === 'returned' && known.state !== 'granted' && known.state !== 'returned')) return without(found);
      const next = settled(found, known, end);
      return next === known ? found.loans : found.loans.map((one) => (one === known ? next : one));
    });
    if (changed === undefined && end !== undefined && end.state !== 'returned') throw new Fault('not-found', `No block ${id}`);
  }

  async settleLoan(block: string, loanId: string, settlement: Parameters<ClusterAddresses['settleLoan']>[2]): Promise<void> {
    await this.#settle(block, loanId, settlement.state === 'closed' ? undefined : settlement);
  }

  async returnLoan(block: string, loanId: string): Promise<void> {
    await this.#settle(block, loanId, { state: 'returned' });
  }

  async releaseBlock({ id, revision }: { readonly id: string; readonly revision: number }): Promise<void> {
    const { host, client, journal } = this.#options;
    const block = (await this.#listed()).find((one) => one.id === id);
    if (block === undefined || block.host !== host) return;
    if (block.revision !== revision) throw new Fault('conflict', `Block ${block.cidr} has changed`);
    if (block.loans.some(isOpen)) throw new Fault('in-use', `Block ${block.cidr} has addresses that are lent`);
    await client.remove(`${blocksPath}/${block.name}`, revision);
    journal.delete(witnessPrefix + block.cidr);
  }
}
