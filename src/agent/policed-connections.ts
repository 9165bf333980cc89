// Connections that stand when a policy comes to forbid them are cut: packets of a tracked connection are let through without
// a look at policies, so exactly those entries that the policies of now would not let begin are deleted. What their ends
// send afterwards begins no connection and is dropped.
import type { Connection } from '#kernel/conntrack.ts';
import type { Ip } from '#model/ip.ts';
import { type PolicyFacts, Verdicts } from '#model/policy.ts';

export interface PolicedOptions {
  /** Deletes what is forbidden; how many there were. */
  readonly cut: (isForbidden: (connection: Connection) => boolean) => number;
  /** The host's own addresses: what it sends and gets itself is not subject to policy. */
  readonly own: () => ReadonlySet<string>;
  readonly log: (fields: object, message: string) => void;
}

const coalesceMs = 20;
/** Of the time, what looking at connections may take at most. */
const share = 0.1;

export class PolicedConnections implements Disposable {
  readonly #options: PolicedOptions;
  #facts: PolicyFacts | undefined;
  #timer: NodeJS.Timeout | undefined;
  #pauseMs = coalesceMs;

  constructor(options: PolicedOptions) {
    this.#options = options;
  }

  /** After every run of the loop, with what is in force now. */
  applied(facts: PolicyFacts | undefined): void {
    if (facts === this.#facts) return;
    this.#facts = facts;
    if (facts !== undefined) this.#timer ??= setTimeout(() => this.#look(), this.#pauseMs);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #look(): void {
    this.#timer = undefined;
    const facts = this.#facts;
    if (facts === undefined) return;
    const { cut, own, log } = this.#options;
    const start = performance.now();
    try {
      const count = cut(forbidden(facts, own()));
      if (count > 0) log({ count }, 'cut connections that policy forbids');
    } catch (error) {
      log({ error: error instanceof Error ? error.message : error }, 'cannot cut connections that policy forbids');
    }
    this.#pauseMs = Math.max(coalesceMs, (performance.now() - start) / share);
  }
}

/** Of connections from or to endpoints of this host, which their policies would not let begin. */
export function forbidden(facts: PolicyFacts, own: ReadonlySet<string>): (connection: Connection) => boolean {
  const verdicts = new Verdicts(facts);
  // What is not known yet is closed for new connections only: those that stand began under policies that were.
  const policed = new Set<Ip>(facts.endpoints.filter(({ policies = [] }) => policies.length > 0).flatMap(({ addresses }) => addresses));
  const unknown = new Set<Ip>(facts.endpoints.filter(({ policies }) => policies === undefined).flatMap(({ addresses }) => addresses));
  return ({ source, destination, ...more }) => {
    if (own.has(source) || own.has(destination) || unknown.has(source) || unknown.has(destination)) return false;
    if (!policed.has(source) && !policed.has(destination)) return false;
    return !verdicts.allows({ source, destination, ...more });
  };
}
