// One of several controllers decides at a time: who holds the Lease (coordination.k8s.io/v1), renews it, and stops as soon as it
// could not for too long. Clocks of machines are not compared: a lease has run out when its record has not changed for its
// duration by one's own clock, as client-go's leaderelection does it.
import * as v from 'valibot';
import { isFault } from '#model/fault.ts';
import type { KubernetesClient } from './client.ts';

export interface LeaderOptions {
  readonly client: Pick<KubernetesClient, 'get' | 'create' | 'replace'>;
  readonly namespace: string;
  readonly name: string;
  /** Unlike for every process. */
  readonly identity: string;
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
  /** Milliseconds on a clock that only goes forward. */
  readonly now: () => number;
  readonly date: () => Date;
}

export const leaseSeconds = 15;
/** One that cannot renew stops this long before others may begin. */
const marginMs = 5_000;

const lease = v.object({
  metadata: v.looseObject({ resourceVersion: v.string() }),
  spec: v.optional(
    v.object({
      holderIdentity: v.nullish(v.string()),
      leaseDurationSeconds: v.nullish(v.number()),
      renewTime: v.nullish(v.string()),
      acquireTime: v.nullish(v.string()),
      leaseTransitions: v.nullish(v.number()),
    }),
    {},
  ),
});
type Lease = v.InferOutput<typeof lease>;

export class Leader {
  readonly #options: LeaderOptions;
  /** What was last read of it, and when. */
  #seen: { readonly text: string; readonly at: number } | undefined;
  #renewedAt: number | undefined;

  constructor(options: LeaderOptions) {
    this.#options = options;
  }

  /** Whether this process may decide. */
  get isLeading(): boolean {
    return this.#renewedAt !== undefined && this.#options.now() - this.#renewedAt < leaseSeconds * 1000 - marginMs;
  }

  /** Takes or renews the lease if it can; called every few seconds. Throws nothing: not to lead is what failure means. */
  async step(): Promise<void> {
    const { log, identity } = this.#options;
    const was = this.isLeading;
    try {
      await this.#tryStep();
    } catch (error) {
      if (!isFault(error, 'conflict')) log.warn({ error }, 'cannot renew or take the lease');
    }
    if (was !== this.isLeading) log.info({ identity }, this.isLeading ? 'leading' : 'not leading any more');
  }

  /** Lets another begin at once. */
  async release(): Promise<void> {
    if (!this.isLeading) return;
    this.#renewedAt = undefined;
    try {
      const current = await this.#read();
      if (current?.spec.holderIdentity === this.#options.identity)
        await this.#write(current, { holderIdentity: '', leaseDurationSeconds: 1 });
    } catch (error) {
      this.#options.log.warn({ error }, 'cannot release the lease; another takes it when it has run out');
    }
  }

  async #tryStep(): Promise<void> {
    const { identity, now } = this.#options;
    const began = now();
    const current = await this.#read();
    if (current !== undefined && !this.#mayTake(current)) return;
    await this.#write(current, { holderIdentity: identity, leaseDurationSeconds: leaseSeconds });
    this.#renewedAt = began;
  }

  #mayTake({ metadata, spec }: Lease): boolean {
    const { identity, now } = this.#options;
    if (spec.holderIdentity === identity || (spec.holderIdentity ?? '') === '') return true;
    this.#renewedAt = undefined;
    if (this.#seen?.text !== metadata.resourceVersion) this.#seen = { text: metadata.resourceVersion, at: now() };
    return now() - this.#seen.at >= (spec.leaseDurationSeconds ?? leaseSeconds) * 1000;
  }

  get #path(): string {
    return `/apis/coordination.k8s.io/v1/namespaces/${this.#options.namespace}/leases`;
  }

  async #read(): Promise<Lease | undefined> {
    try {
      return v.parse(lease, await this.#options.client.get(`${this.#path}/${this.#options.name}`));
    } catch (error) {
      if (isFault(error, 'not-found')) return undefined;
      throw error;
    }
  }

  async #write(
    current: Lease | undefined,
    holding: { readonly holderIdentity: string; readonly leaseDurationSeconds: number },
  ): Promise<void> {
    const { client, name, namespace, date, identity } = this.#options;
    // MicroTime: six digits.
    const time = date().toISOString().replace('Z', '000Z');
    const isMine = current?.spec.holderIdentity === identity;
    const spec = {
      ...holding,
      renewTime: time,
      acquireTime: isMine ? (current.spec.acquireTime ?? time) : time,
      leaseTransitions: (current?.spec.leaseTransitions ?? 0) + (current === undefined || isMine ? 0 : 1),
    };
    const kind = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' };
    if (current === undefined) await client.create(this.#path, { ...kind, metadata: { name, namespace }, spec });
    else await client.replace(`${this.#path}/${name}`, { ...kind, metadata: current.metadata, spec });
  }
}
