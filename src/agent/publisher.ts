// Brings the cluster's record of this host's endpoints to what the host's journal says, level-triggered: what is missing or
// older there is put, what is not here any more is deleted. With the controller away it simply has more to do later.
import type { Endpoint, LocalEndpoint, Snapshot } from '#model/resources.ts';
import type { Fault } from '#model/fault.ts';

export interface EndpointBatch {
  readonly puts: readonly Endpoint[];
  readonly deletes: readonly { readonly id: string; readonly sequence: number }[];
}

export interface Published {
  /** What was refused, by endpoint id. */
  readonly refused: ReadonlyMap<string, Fault>;
  /** Once the watch has come to this revision, it has shown what was put; 0 when nothing was. */
  readonly revision: number;
}

export interface PublisherOptions {
  readonly host: string;
  readonly snapshot: () => Snapshot;
  /** How far the watch has come. */
  readonly revision: () => number;
  readonly local: () => readonly LocalEndpoint[];
  /** Before the first complete listing nothing is deleted. */
  readonly mayDelete: () => boolean;
  /** Sends at most `batchSize` changes. Rejects when no controller answers. */
  readonly send: (batch: EndpointBatch) => Promise<Published>;
  /** What the controller refuses now, by endpoint id; replaces what was said before. */
  readonly refused: (faults: ReadonlyMap<string, Fault>) => void;
  readonly restMs?: number;
}

const batchSize = 500;
/**
 * After one batch the next waits this long, so that of many containers that start one after the other not each costs a
 * request, a commit and a line to every other host. A full batch has no rest behind it, and what has gone does not wait: the
 * network of the last container that was removed may be removed next.
 */
const usualRestMs = 250;
/**
 * A batch is begun when nothing new has come for so long: a call of an engine or a runtime that has put something in the journal then has
 * the processor to itself, and is usually over by then. Where calls follow each other without end it is not waited for that more
 * than so many times.
 */
const callMs = 20;
const mostWaits = 5;
const firstRetryMs = 100;
const lastRetryMs = 5_000;

export class Publisher implements Disposable {
  readonly #options: PublisherOptions;
  /** Acknowledged, but not yet seen in the watch. Undefined = acknowledged as deleted. */
  readonly #acknowledged = new Map<string, { readonly sequence: number; readonly revision: number } | undefined>();
  readonly #refused = new Map<string, Fault>();
  #running = false;
  #again = false;
  /** Something has come since calls are waited for. */
  #isFresh = false;
  #disposed = false;
  #resting: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  #retryMs = firstRetryMs;

  constructor(options: PublisherOptions) {
    this.#options = options;
  }

  /** Facts have changed on either side. */
  kick(): void {
    if (this.#disposed) return;
    this.#again = true;
    this.#isFresh = true;
    if (this.#running) return;
    const batch = this.#difference();
    if (batch.puts.length + batch.deletes.length === 0) this.#settled();
    else if (this.#restMs === 0 || batch.deletes.length > 0) this.#begin(batch);
    else if (this.#resting === undefined) this.#awaitCalls(mostWaits);
  }

  /** Others' endpoints come and go all the time, of which nothing is to be sent. */
  #settled(): void {
    this.#again = false;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#retryMs = firstRetryMs;
  }

  /** `known`: what is to be sent, where it was just looked at. */
  #begin(known?: EndpointBatch): void {
    if (this.#disposed) return;
    clearTimeout(this.#resting);
    this.#resting = undefined;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    void this.#run(known);
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    clearTimeout(this.#resting);
    clearTimeout(this.#retry);
  }

  /** The next changes to send, at most one batch. */
  #difference(): EndpointBatch {
    const { host, snapshot, local, mayDelete } = this.#options;
    const known = snapshot().endpoints;
    this.#forgetSeen(known);
    const puts: Endpoint[] = [];
    const here = new Set<string>();
    for (const { endpoint } of local()) {
      here.add(endpoint.id);
      const sequence = Math.max(known.get(endpoint.id)?.sequence ?? 0, this.#acknowledged.get(endpoint.id)?.sequence ?? 0);
      if (sequence < endpoint.sequence) puts.push(endpoint);
    }
    const deletes = mayDelete()
      ? [...known.values()]
          .filter((item) => item.host === host && !here.has(item.id) && !this.#isDeleted(item.id))
          .map(({ id, sequence }) => ({ id, sequence }))
      : [];
    for (const id of this.#acknowledged.keys()) if (!here.has(id) && !known.has(id)) this.#acknowledged.delete(id);
    this.#forgetRefused(new Set([...puts, ...deletes].map(({ id }) => id)));
    // What was refused before does not stand in the way of the others.
    const first = [...puts.filter(({ id }) => !this.#refused.has(id)), ...puts.filter(({ id }) => this.#refused.has(id))].slice(
      0,
      batchSize,
    );
    return { puts: first, deletes: deletes.slice(0, batchSize - first.length) };
  }

  /** What the watch has shown, or would have shown by now, is the watch's to say: the cluster may have lost it since. */
  #forgetSeen(known: Snapshot['endpoints']): void {
    const reached = this.#options.revision();
    for (const [id, put] of this.#acknowledged) {
      if (put === undefined) continue;
      if (put.revision <= reached || (known.get(id)?.sequence ?? 0) >= put.sequence) this.#acknowledged.delete(id);
    }
  }

  /** What is no longer to be sent is no longer refused. */
  #forgetRefused(due: ReadonlySet<string>): void {
    const over = [...this.#refused.keys()].filter((id) => !due.has(id));
    for (const id of over) this.#refused.delete(id);
    if (over.length > 0) this.#options.refused(this.#refused);
  }

  #isDeleted(id: string): boolean {
    return this.#acknowledged.has(id) && this.#acknowledged.get(id) === undefined;
  }

  async #run(known?: EndpointBatch): Promise<void> {
    this.#running = true;
    this.#again = false;
    try {
      const batch = known ?? this.#difference();
      const faults = batch.puts.length + batch.deletes.length > 0 ? await this.#send(batch) : 0;
      if (faults > 0) this.#later();
      else this.#retryMs = firstRetryMs;
      const sent = batch.puts.length + batch.deletes.length;
      if (sent > 0 && sent < batchSize) this.#rest();
    } catch {
      // No controller answered: the follower reports that; here it only means to try again.
      this.#later();
    } finally {
      this.#running = false;
      if (this.#again && (this.#resting === undefined || this.#isLeaving())) this.#begin();
    }
  }

  #isLeaving(): boolean {
    return this.#difference().deletes.length > 0;
  }

  get #restMs(): number {
    return this.#options.restMs ?? usualRestMs;
  }

  #rest(): void {
    if (this.#disposed || this.#restMs === 0) return;
    this.#resting = setTimeout(() => {
      this.#resting = undefined;
      if (this.#again) this.#awaitCalls(mostWaits);
    }, this.#restMs);
  }

  #awaitCalls(waits: number): void {
    this.#isFresh = false;
    this.#resting = setTimeout(() => {
      if (this.#isFresh && waits > 1) this.#awaitCalls(waits - 1);
      else this.#begin();
    }, callMs);
  }

  /** How many were refused. */
  async #send(batch: EndpointBatch): Promise<number> {
    const { refused, revision } = await this.#options.send(batch);
    if (this.#disposed) return 0;
    for (const { id, sequence } of batch.puts) this.#settle(id, { sequence, revision }, refused.get(id));
    for (const { id } of batch.deletes) this.#settle(id, undefined, refused.get(id));
    this.#options.refused(this.#refused);
    const sent = batch.puts.length + batch.deletes.length;
    if (sent === batchSize && refused.size < sent) this.#again = true;
    return refused.size;
  }

  #settle(id: string, put: { sequence: number; revision: number } | undefined, fault: Fault | undefined): void {
    if (fault !== undefined) {
      this.#refused.set(id, fault);
      return;
    }
    this.#refused.delete(id);
    this.#acknowledged.set(id, put);
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
