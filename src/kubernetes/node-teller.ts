// Keeps this host's own Node as it shall be: annotations, and the condition NetworkUnavailable, for which the cluster keeps new
// pods away from the node (taint-nodes-by-condition). Level-triggered: what was wished last is compared with what the watch
// showed last, and only the difference is written, so that a restart writes nothing.
import * as v from 'valibot';
import type { KubernetesClient } from './client.ts';
import type { Annotations } from './annotations.ts';

export interface NodeWish {
  /** Null: to be absent. Annotations that are not named stay. */
  readonly annotations: Readonly<Record<string, string | null>>;
  readonly network: { readonly isAvailable: boolean; readonly reason: string; readonly message: string };
}

export interface TellerOptions {
  readonly client: Pick<KubernetesClient, 'patch'>;
  readonly node: string;
  readonly log: { warn(fields: object, message: string): void };
  readonly now: () => Date;
}

const condition = 'NetworkUnavailable';
const retryMs = 2_000;

const shown = v.object({
  metadata: v.object({ annotations: v.optional(v.record(v.string(), v.string()), {}) }),
  status: v.optional(
    v.object({
      conditions: v.optional(
        v.array(v.object({ type: v.string(), status: v.string(), reason: v.optional(v.string()), message: v.optional(v.string()) })),
        [],
      ),
    }),
    {},
  ),
});

export class NodeTeller implements Disposable {
  readonly #options: TellerOptions;
  #annotations: Annotations | undefined;
  /** Status, reason and message of the condition. */
  #condition = '';
  #wish: NodeWish | undefined;
  #isBusy = false;
  #retry: NodeJS.Timeout | undefined;
  #failure = '';
  #isOver = false;

  constructor(options: TellerOptions) {
    this.#options = options;
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
    clearTimeout(this.#retry);
  }

  /** The Node as the API shows it. */
  saw(item: unknown): void {
    const read = v.safeParse(shown, item);
    if (!read.success) return;
    const { metadata, status } = read.output;
    const found = status.conditions.find(({ type }) => type === condition);
    this.#annotations = metadata.annotations;
    this.#condition = `${found?.status ?? ''} ${found?.reason ?? ''} ${found?.message ?? ''}`;
    void this.#settle();
  }

  /** Returns at once; it is written when the Node has been seen, and again until it succeeds. */
  wish(wish: NodeWish): void {
    this.#wish = wish;
    void this.#settle();
  }

  async #settle(): Promise<void> {
    if (this.#isBusy || this.#isOver) return;
    const body = this.#difference();
    if (body === undefined) return;
    this.#isBusy = true;
    const { client, node, log } = this.#options;
    try {
      const item = await client.patch(`/api/v1/nodes/${node}/status`, body);
      this.#failure = '';
      this.#isBusy = false;
      this.saw(item);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      if (text !== this.#failure) log.warn({ error }, 'cannot write what other nodes need to know to the Node');
      this.#failure = text;
      this.#isBusy = false;
      clearTimeout(this.#retry);
      if (!this.#isOver) this.#retry = setTimeout(() => void this.#settle(), retryMs);
    }
  }

  #difference(): object | undefined {
    const [wish, annotations] = [this.#wish, this.#annotations];
    if (wish === undefined || annotations === undefined) return undefined;
    const changed = Object.entries(wish.annotations).filter(([key, value]) => (annotations[key] ?? null) !== value);
    const { isAvailable, reason, message } = wish.network;
    const status = isAvailable ? 'False' : 'True';
    const isSame = this.#condition === `${status} ${reason} ${message}`;
    if (changed.length === 0 && isSame) return undefined;
    const now = this.#options
      .now()
      .toISOString()
      .replace(/\.\d+Z/, 'Z');
    const next = { type: condition, status, reason, message, lastTransitionTime: now, lastHeartbeatTime: now };
    return {
      ...(changed.length === 0 ? {} : { metadata: { annotations: Object.fromEntries(changed) } }),
      ...(isSame ? {} : { status: { conditions: [next] } }),
    };
  }
}
