// Keeps this host's own Node as it shall be: annotations, the condition NetworkUnavailable, for which the cluster keeps new
// pods away from the node (taint-nodes-by-condition), and one of our own, which keeps nobody away. Level-triggered: what was wished last is compared with what the watch
// showed last, and only the difference is written, so that a restart writes nothing.
import * as v from 'valibot';
import type { KubernetesClient } from './client.ts';
import { type Annotations, withOverwrites } from './annotations.ts';
import type { PathsWord } from './path-words.ts';

export interface NodeWish {
  /** Null: to be absent. Annotations that are not named stay. */
  readonly annotations: Readonly<Record<string, string | null>>;
  readonly network: { readonly isAvailable: boolean; readonly reason: string; readonly message: string };
}

type Conditions = Readonly<Record<string, { readonly status: 'True' | 'False'; readonly reason: string; readonly message: string }>>;

export interface TellerOptions {
  readonly client: Pick<KubernetesClient, 'patch'>;
  readonly node: string;
  readonly log: { warn(fields: object, message: string): void };
  readonly now: () => Date;
}

/** The cluster's, and ours: whether packets reach the other nodes. */
const networkCondition = 'NetworkUnavailable';
const pathsCondition = 'causeway.dev/Paths';
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
  /** Status, reason and message of conditions. */
  #conditions = new Map<string, string>();
  #wish: NodeWish | undefined;
  #paths: Conditions[string] | undefined;
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
    this.#annotations = metadata.annotations;
    this.#conditions = new Map(status.conditions.map(({ type, ...said }) => [type, `${said.status} ${said.reason} ${said.message}`]));
    void this.#settle();
  }

  /** Returns at once; it is written when the Node has been seen, and again until it succeeds. */
  wish(wish: NodeWish): void {
    this.#wish = wish;
    void this.#settle();
  }

  /** As wish(), of how the ways to other nodes are; nothing is said of them before. */
  paths({ isGood, reason, message }: PathsWord): void {
    this.#paths = { status: isGood ? 'True' : 'False', reason, message };
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
    const changed = Object.entries(withOverwrites(wish.annotations, annotations)).filter(
      ([key, value]) => (annotations[key] ?? null) !== value,
    );
    const conditions = this.#changedConditions(wish.network);
    if (changed.length === 0 && conditions.length === 0) return undefined;
    return {
      ...(changed.length === 0 ? {} : { metadata: { annotations: Object.fromEntries(changed) } }),
      ...(conditions.length === 0 ? {} : { status: { conditions } }),
    };
  }

  #changedConditions({ isAvailable, reason, message }: NodeWish['network']): object[] {
    const wished: Conditions = {
      [networkCondition]: { status: isAvailable ? 'False' : 'True', reason, message },
      ...(this.#paths === undefined ? {} : { [pathsCondition]: this.#paths }),
    };
    const now = this.#options
      .now()
      .toISOString()
      .replace(/\.\d+Z/, 'Z');
    return Object.entries(wished)
      .filter(([type, said]) => this.#conditions.get(type) !== `${said.status} ${said.reason} ${said.message}`)
      .map(([type, said]) => ({ type, ...said, lastTransitionTime: now, lastHeartbeatTime: now }));
  }
}
