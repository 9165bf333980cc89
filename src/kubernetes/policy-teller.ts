// Keeps this host's object HostPolicies as it shall be: what of policies is in the kernel here. Level-triggered and paced: what was
// wished last is written, at most every few seconds however fast policies change, and only when it differs from what is
// there. The object belongs to the host's Node (ownerReferences), so that it goes with it.
import * as v from 'valibot';
import { isFault } from '#model/fault.ts';
import type { KubernetesClient } from './client.ts';
import { type HostReport, hostPolicies, hostPoliciesBody } from './host-policies.ts';

export interface PolicyWord extends HostReport {
  /** Grows when a policy has changed in what it says. Without that, how far the host has read can wait. */
  readonly changes: number;
}

export interface PolicyTellerOptions {
  readonly client: Pick<KubernetesClient, 'get' | 'create' | 'replace'>;
  readonly node: string;
  readonly log: { warn(fields: object, message: string): void };
  readonly pace?: Pace;
}

/** Milliseconds. */
export interface Pace {
  /** Waited for more to come, at least; up to twice as long, so that hosts do not all write at once. */
  readonly gather: number;
  /** Between two writes, and before a failed one is tried again. */
  readonly rest: number;
  /** After this long it is looked whether what was written is still there. */
  readonly refresh: number;
}

const usualPace: Pace = { gather: 300, rest: 5_000, refresh: 300_000 };

const owner = v.object({ uid: v.string() });
const stored = v.looseObject({
  metadata: v.looseObject({ ownerReferences: v.optional(v.array(owner), []) }),
  policies: v.optional(v.unknown()),
  inForce: v.optional(v.unknown()),
  known: v.optional(v.unknown()),
  hostEndpoints: v.optional(v.unknown()),
  problem: v.optional(v.unknown()),
});
type Stored = v.InferOutput<typeof stored>;
const named = v.object({ metadata: owner });

export class PolicyTeller implements Disposable {
  readonly #options: PolicyTellerOptions;
  readonly #pace: Pace;
  readonly #refresh: NodeJS.Timeout;
  #word: PolicyWord | undefined;
  #problem: string | undefined;
  /** What was urgent of the last wish. */
  #urgent = '';
  /** As last read or written; undefined: it has to be read. */
  #stored: Stored | undefined;
  #uid = '';
  #isBusy = false;
  #due: NodeJS.Timeout | undefined;
  #restsUntil = 0;
  #failure = '';
  #isOver = false;

  constructor(options: PolicyTellerOptions) {
    this.#options = options;
    this.#pace = options.pace ?? usualPace;
    this.#refresh = setInterval(() => this.#lookAgain(), this.#pace.refresh);
    this.#refresh.unref();
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
    clearInterval(this.#refresh);
    clearTimeout(this.#due);
  }

  /** Returns at once. `word`: what is in the kernel now; undefined, what was before, and `problem` keeps it from being more. */
  wish(word: PolicyWord | undefined, problem?: string): void {
    if (word === this.#word && problem === this.#problem) return;
    this.#word = word ?? this.#word ?? { inForce: {}, known: {}, hostEndpoints: {}, changes: 0 };
    this.#problem = problem;
    const urgent = JSON.stringify([this.#word.inForce, this.#word.hostEndpoints, this.#word.changes, problem]);
    if (urgent === this.#urgent) return;
    this.#urgent = urgent;
    this.#schedule();
  }

  #lookAgain(): void {
    this.#stored = undefined;
    if (this.#word !== undefined) this.#schedule();
  }

  #schedule(): void {
    if (this.#isOver || this.#due !== undefined || this.#isBusy) return;
    const gather = this.#pace.gather * (1 + Math.random());
    this.#due = setTimeout(() => void this.#settle(), Math.max(gather, this.#restsUntil - performance.now()));
    this.#due.unref();
  }

  async #settle(): Promise<void> {
    this.#due = undefined;
    this.#isBusy = true;
    const urgent = this.#urgent;
    let isDone = false;
    let rest = this.#pace.rest;
    try {
      await this.#write();
      isDone = true;
      this.#failure = '';
    } catch (error) {
      this.#stored = undefined;
      // The server does not know the resource, or this Node: that is not about to change.
      if (isFault(error, 'not-found')) rest = this.#pace.refresh;
      const text = error instanceof Error ? error.message : String(error);
      if (text !== this.#failure && !isFault(error, 'conflict'))
        this.#options.log.warn({ error }, 'cannot tell which policies are in force here');
      this.#failure = text;
    }
    this.#isBusy = false;
    this.#restsUntil = performance.now() + rest;
    if (!isDone || urgent !== this.#urgent) this.#schedule();
  }

  async #write(): Promise<void> {
    if (this.#word === undefined) return;
    const { client, node } = this.#options;
    const path = `${hostPolicies}/${node}`;
    const before = this.#stored ?? (await this.#read(path));
    const { metadata = {}, ...body } = before ?? {};
    const { changes: _, ...report } = this.#word;
    const next = hostPoliciesBody({ ...report, ...(this.#problem === undefined ? {} : { problem: this.#problem }) });
    const isOwned = before?.metadata.ownerReferences[0]?.uid === this.#uid;
    const { policies, inForce, known, hostEndpoints, problem } = body as Partial<Stored>;
    const shown = JSON.stringify({ policies, inForce, known, hostEndpoints, problem });
    if (isOwned && shown === JSON.stringify({ ...next })) return;
    const object = {
      apiVersion: 'causeway.dev/v1alpha1',
      kind: 'HostPolicies',
      metadata: { ...metadata, name: node, ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: node, uid: this.#uid }] },
      ...next,
    };
    this.#stored = v.parse(stored, await (before === undefined ? client.create(hostPolicies, object) : client.replace(path, object)));
  }

  /** What is there, and whose it must be: a Node may have been made anew under its name. */
  async #read(path: string): Promise<Stored | undefined> {
    const { client, node } = this.#options;
    this.#uid = v.parse(named, await client.get(`/api/v1/nodes/${node}`)).metadata.uid;
    try {
      return v.parse(stored, await client.get(path));
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
      return undefined;
    }
  }
}
