// Blocks that nobody needs any more go back, in the model `calico`: those of a network of ours when it has gone from this node, and all
// those of a node that is gone for good, whose addresses would be lost to the cluster; what it had borrowed of this node's blocks is this
// node's again. A node counts as gone when its Node has been missing for a while, no pod is bound to it, and no agent answers for its
// blocks and loans: a question is written into each block (blocks.ts), which an agent that runs takes away, also where the API was
// restored from a backup that does not know its Node. As the answer changes the block's version, and only the version that was looked at
// is removed, no answer comes too late; loans end by a change of the version that still has the question.
import * as v from 'valibot';
import type { ClusterAddresses } from '#agent/address-cluster.ts';
import { isOpen } from '#model/claims.ts';
import { isFault } from '#model/fault.ts';
import type { Block } from '#model/resources.ts';
import { blocksPath, borrowerQuestionId, type KubernetesBlocks, questionId } from './blocks.ts';
import type { KubernetesClient } from './client.ts';
import { podNetwork } from './nodes.ts';

export interface ReleasedOptions {
  /** Name of this host's Node. */
  readonly host: string;
  readonly client: Pick<KubernetesClient, 'get' | 'list' | 'remove'>;
  readonly blocks: Pick<ClusterAddresses, 'releaseBlock'> & Pick<KubernetesBlocks, 'question' | 'questionBorrower' | 'endLoans'>;
  /** Whether there are pods of this host in the network, or may come to be. */
  readonly isNeeded: (network: string) => boolean;
  /** By the names of their Nodes; of one that is missing the API is asked. */
  readonly hosts: ReadonlyMap<string, unknown>;
  /** From then on that a network has gone, in which a pod that is just being made gets its address or fails; and between tries. */
  readonly pauseMs?: number;
  /** How long a Node has to be missing, and then its agent not to answer. */
  readonly absentMs?: number;
  readonly now: () => number;
}

const listMs = 60_000;
const pod = v.object({ status: v.optional(v.object({ phase: v.optional(v.string()) }), {}) });
/** One that cannot be read runs. */
const hasEnded = (item: unknown): boolean => {
  const read = v.safeParse(pod, item);
  return read.success && ['Succeeded', 'Failed'].includes(read.output.status.phase ?? '');
};

interface Question {
  readonly id: string;
  /** Who is asked. */
  readonly host: string;
  /** Version of the block, where any change of it may be the answer. */
  readonly revision?: number;
}

export class ReleasedBlocks implements Disposable {
  readonly #options: ReleasedOptions;
  readonly #pauseMs: number;
  readonly #blocks = new Map<string, Block>();
  readonly #missingSince = new Map<string, number>();
  /** By block, and by the id of a question that it is known to have, since when. */
  readonly #asked = new Map<string, Map<string, Question & { readonly since: number }>>();
  #timer: NodeJS.Timeout | undefined;
  #isDisposed = false;

  constructor(options: ReleasedOptions) {
    this.#options = options;
    this.#pauseMs = options.pauseMs ?? 10_000;
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    clearTimeout(this.#timer);
  }

  see(block: Block): void {
    this.#blocks.set(block.id, block);
    const asked = this.#asked.get(block.id);
    for (const { id, host } of asked?.values() ?? [])
      if (!block.loans.some((loan) => loan.id === id) && asked?.delete(id)) this.#missingSince.delete(host);
    if (this.#isDue(block)) this.#soon();
  }

  gone(id: string): void {
    this.#blocks.delete(id);
    this.#asked.delete(id);
  }

  /** To be called when networks or nodes have changed. */
  settle(): void {
    for (const host of this.#missingSince.keys()) if (this.#options.hosts.has(host)) this.#missingSince.delete(host);
    if (this.#due().length > 0) this.#soon();
  }

  #soon(): void {
    if (this.#isDisposed || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => void this.#release(), this.#pauseMs).unref();
  }

  #isDue(block: Block): boolean {
    const { host: self, hosts } = this.#options;
    return block.host === self ? !this.#isNeeded(block) || this.#lostBorrowers(block).length > 0 : !hosts.has(block.host);
  }

  #isNeeded({ network }: Block): boolean {
    return network === podNetwork.id || this.#options.isNeeded(network);
  }

  /** Hosts that have addresses of the block and are not there. */
  #lostBorrowers({ loans, host: owner }: Block): string[] {
    const open = loans.filter((loan) => isOpen(loan) && loan.host !== owner && !this.#options.hosts.has(loan.host));
    return [...new Set(open.map(({ host }) => host))];
  }

  #due(): Block[] {
    return [...this.#blocks.values()].filter((block) => this.#isDue(block));
  }

  async #release(): Promise<void> {
    for (const block of this.#due()) {
      if (this.#isDisposed) return;
      try {
        await (block.host === this.#options.host ? this.#releaseOwn(block) : this.#releaseOf(block));
      } catch (error) {
        // Another revision, an address that is lent, an API that is away: it is tried again.
        if (!isFault(error)) throw error;
      }
    }
    this.#timer = undefined;
    this.settle();
  }

  async #releaseOwn(block: Block): Promise<void> {
    for (const host of this.#lostBorrowers(block)) await this.#endLoans(block, host);
    if (!this.#isNeeded(block)) await this.#options.blocks.releaseBlock(block);
  }

  /** Whether the Node has been missing for that long. */
  #isMissingFor(host: string, ms: number): boolean {
    const now = this.#options.now();
    const since = this.#missingSince.get(host) ?? now;
    this.#missingSince.set(host, since);
    return now - since >= ms;
  }

  get #absentMs(): number {
    return this.#options.absentMs ?? 300_000;
  }

  /** Of what a host that has long gone had borrowed of this one. */
  async #endLoans(block: Block, host: string): Promise<void> {
    const { blocks } = this.#options;
    if (!this.#isMissingFor(host, this.#absentMs) || (await this.#isThere(host)) || this.#blocks.get(block.id) !== block) return;
    const question = { id: borrowerQuestionId(host), host };
    if (!block.loans.some(({ id }) => id === question.id)) await blocks.questionBorrower(block, host);
    else if (this.#isUnanswered(block, question)) await blocks.endLoans(block, host);
  }

  /** Whether the question, which the block has, has been there for long. */
  #isUnanswered(block: Block, question: Question): boolean {
    const now = this.#options.now();
    const asked = this.#asked.get(block.id) ?? new Map<string, Question & { readonly since: number }>();
    this.#asked.set(block.id, asked);
    const known = asked.get(question.id);
    const since = known === undefined || known.revision !== question.revision ? now : known.since;
    asked.set(question.id, { ...question, since });
    return now - since >= this.#absentMs;
  }

  /** Of a host that has long gone; what others have borrowed of it stays theirs. */
  async #releaseOf(block: Block): Promise<void> {
    const { client, blocks, hosts, host: self } = this.#options;
    const { host, id, name, revision, loans } = block;
    // One after the other, of whom the first is usually enough.
    const rank = [...hosts.keys()].toSorted().indexOf(self);
    if (!this.#isMissingFor(host, this.#absentMs + rank * this.#pauseMs)) return;
    if (loans.some((loan) => isOpen(loan) && hosts.has(loan.host))) return;
    // Meanwhile it may have been answered.
    if ((await this.#isThere(host)) || this.#blocks.get(id) !== block) return;
    if (!loans.some((loan) => loan.id === questionId)) await blocks.question(block);
    else if (this.#isUnanswered(block, { id: questionId, host, revision })) await client.remove(`${blocksPath}/${name}`, revision);
  }

  /** Its Node may be there in a form that cannot be used, and pods of one that has been taken away may run. */
  async #isThere(host: string): Promise<boolean> {
    const { client } = this.#options;
    try {
      await client.get(`/api/v1/nodes/${host}`);
      return true;
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
    }
    const { items } = await client.list(`/api/v1/pods?fieldSelector=spec.nodeName%3D${host}`, AbortSignal.timeout(listMs));
    return !items.every(hasEnded);
  }
}
