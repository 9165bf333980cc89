// Waiting for a sort of object that the API server does not know yet. A definition may bring it at any time, and its policies have to
// be in force soon after, so the definition is watched by its name, of which nothing but metadata is told: one watch in the place of
// the one that the sort will have, and nobody has to ask often. What comes without a definition, by a server of its own (APIService),
// is found when that watch ends, which it does by itself every few minutes.
import { isFault } from '#model/fault.ts';
import type { KubernetesClient } from './client.ts';

const definitionsPath = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
/** Milliseconds: when to look again without a watch; after one that has ended; and after news, for which all agents of a cluster come. */
const blindMs = 30_000;
const endedMs = 5_000;
const newsMs = 2_000;
/** After news, as another server of the cluster may not have heard of it yet. */
const looks = 3;

/** `tiers.projectcalico.org`, of `/apis/projectcalico.org/v3/tiers`; undefined for what no definition brings. */
export function definitionOf(path: string): string | undefined {
  const [, root, group, , plural] = path.split('/');
  return root === 'apis' && group !== undefined && plural !== undefined ? `${plural}.${group}` : undefined;
}

export class Definition {
  readonly #name: string | undefined;
  readonly #options: { readonly client: KubernetesClient; readonly signal: AbortSignal };
  #since = 0;
  #looks = 0;
  /** The server does not let it be watched. */
  #isBlind: boolean;

  constructor(path: string, options: { readonly client: KubernetesClient; readonly signal: AbortSignal }) {
    this.#name = definitionOf(path);
    this.#isBlind = this.#name === undefined;
    this.#options = options;
  }

  /**
   * Resolves when there is news of it, or there could be: with the milliseconds after which to look for what it brings. Throws
   * nothing: whoever looks then hears of a server that is away.
   */
  async news(): Promise<number> {
    if (this.#looks === 0) this.#looks = (await this.#hasCome()) ? looks : 0;
    if (this.#looks === 0) return this.#isBlind ? blindMs : endedMs;
    this.#looks -= 1;
    return newsMs;
  }

  async #hasCome(): Promise<boolean> {
    const { client, signal } = this.#options;
    if (this.#isBlind || this.#name === undefined) return false;
    try {
      for await (const change of client.watchOne(definitionsPath, this.#name, { since: this.#since, signal })) {
        this.#since = change.revision;
        if (change.type === 'put') return true;
      }
    } catch (error) {
      if (isFault(error, 'compacted')) this.#since = 0;
      else if (isFault(error, 'forbidden') || isFault(error, 'not-found')) this.#isBlind = true;
      else if (!isFault(error)) throw error;
    }
    return false;
  }
}
