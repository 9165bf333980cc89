// Brings the cluster's record of this host's endpoints to what the host's journal says, level-triggered: what is missing or
// older there is put, what is not here any more is deleted. With the controller away it simply has more to do later.
import type { Endpoint, LocalEndpoint, Snapshot } from '#model/resources.ts';
import type { Fault } from '#model/fault.ts';

export interface EndpointBatch {
  readonly puts: readonly Endpoint[];
  readonly deletes: readonly { readonly id: string; readonly sequence: number }[];
}

export interface PublisherOptions {
  readonly host: string;
  readonly snapshot: () => Snapshot;
  readonly local: () => readonly LocalEndpoint[];
  /** Before the first complete listing nothing is deleted. */
  readonly mayDelete: () => boolean;
  /** Sends at most `batchSize` changes; resolves to what was refused, by endpoint id. Rejects when no controller answers. */
  readonly send: (batch: EndpointBatch) => Promise<ReadonlyMap<string, Fault>>;
  /** What the controller refuses now, by endpoint id; replaces what was said before. */
  readonly refused: (faults: ReadonlyMap<string, Fault>) => void;
}

const batchSize = 500;
const firstRetryMs = 100;
const lastRetryMs = 5_000;

export class Publisher implements Disposable {
  readonly #options: PublisherOptions;
  /** Acknowledged, but perhaps not yet seen in the watch. Undefined = acknowledged as deleted. */
  readonly #acknowledged = new Map<string, number | undefined>();
  readonly #refused = new Map<string, Fault>();
  #running = false;
  #again = false;
  #disposed = false;
  #retry: NodeJS.Timeout | undefined;
  #retryMs = firstRetryMs;

  constructor(options: PublisherOptions) {
    this.#options = options;
  }

  /** Facts have changed on either side. */
  kick(): void {
    if (this.#disposed) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    clearTimeout(this.#retry);
    this.#retry = undefined;
    void this.#run();
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    clearTimeout(this.#retry);
  }

  /** The next changes to send, at most one batch. */
  #difference(): EndpointBatch {
    const { host, snapshot, local, mayDelete } = this.#options;
    const known = snapshot().endpoints;
    const puts: Endpoint[] = [];
    const here = new Set<string>();
    for (const { endpoint } of local()) {
      here.add(endpoint.id);
      const sequence = Math.max(known.get(endpoint.id)?.sequence ?? 0, this.#acknowledged.get(endpoint.id) ?? 0);
      if (sequence < endpoint.sequence) puts.push(endpoint);
    }
    const deletes = mayDelete()
      ? [...known.values()]
          .filter((item) => item.host === host && !here.has(item.id) && !this.#isDeleted(item.id))
          .map(({ id, sequence }) => ({ id, sequence }))
      : [];
    for (const id of this.#acknowledged.keys()) if (!here.has(id) && !known.has(id)) this.#acknowledged.delete(id);
    const first = puts.slice(0, batchSize);
    return { puts: first, deletes: deletes.slice(0, batchSize - first.length) };
  }

  #isDeleted(id: string): boolean {
    return this.#acknowledged.has(id) && this.#acknowledged.get(id) === undefined;
  }

  async #run(): Promise<void> {
    this.#running = true;
    this.#again = false;
    try {
      const batch = this.#difference();
      if (batch.puts.length + batch.deletes.length > 0) await this.#send(batch);
      this.#retryMs = firstRetryMs;
      if (this.#refused.size > 0) this.#later();
    } catch {
      // No controller answered: the follower reports that; here it only means to try again.
      this.#later();
    } finally {
      this.#running = false;
      if (this.#again) this.kick();
    }
  }

  async #send(batch: EndpointBatch): Promise<void> {
    const faults = await this.#options.send(batch);
    for (const { id, sequence } of batch.puts) this.#settle(id, sequence, faults.get(id));
    for (const { id } of batch.deletes) this.#settle(id, undefined, faults.get(id));
    for (const id of this.#refused.keys()) if (!this.#options.local().some(({ endpoint }) => endpoint.id === id)) this.#refused.delete(id);
    this.#options.refused(this.#refused);
    if (faults.size < batch.puts.length + batch.deletes.length) this.#again = true;
  }

  #settle(id: string, sequence: number | undefined, fault: Fault | undefined): void {
    if (fault !== undefined) {
      this.#refused.set(id, fault);
      return;
    }
    this.#refused.delete(id);
    this.#acknowledged.set(id, sequence);
  }

  #later(): void {
    if (this.#disposed || this.#retry !== undefined) return;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.kick();
    }, this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, lastRetryMs);
  }
}
