// Connections that stand when a policy comes to forbid them are cut: packets of a tracked connection are let through without
// a look at policies, so exactly those entries that the policies of now would not let begin are deleted. What their ends
// send afterwards begins no connection and is dropped. So are those of the host itself where its links are under policy; by which
// link they came is not tracked, and taken to be the one that leads back.
import type { Connection } from '#kernel/conntrack.ts';
import type { Ip } from '#model/ip.ts';
import { HostVerdicts } from '#model/host-verdicts.ts';
import { isContainers } from '#model/numbers.ts';
import { type PolicyFacts, Verdicts } from '#model/policy.ts';

export interface PolicedOptions {
  /** Deletes what is forbidden; how many there were. */
  readonly cut: (isForbidden: (connection: Connection) => boolean) => number;
  /** The host's own addresses: what it sends and gets itself is not subject to policies of endpoints. */
  readonly own: () => ReadonlySet<string>;
  /** By which link addresses are reached now. */
  readonly ways: () => (ip: Ip) => string | undefined;
  readonly log: (fields: object, message: string) => void;
}

const coalesceMs = 20;
/** What a kernel has refused is asked again ever more slowly: a dump that others disturb fails, and nothing else would ask again. */
const lastRetryMs = 30_000;
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
    if (facts !== undefined) this.#later();
  }

  #later(): void {
    this.#timer ??= setTimeout(() => this.#look(), this.#pauseMs);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #look(): void {
    this.#timer = undefined;
    const facts = this.#facts;
    if (facts === undefined) return;
    const { cut, own, ways, log } = this.#options;
    const start = performance.now();
    const pause = (least: number): number => Math.max(least, (performance.now() - start) / share);
    try {
      const count = cut(forbidden(facts, { own: own(), wayTo: facts.host === undefined ? () => undefined : ways() }));
      if (count > 0) log({ count }, 'cut connections that policy forbids');
    } catch (error) {
      log({ error: error instanceof Error ? error.message : error }, 'cannot cut connections that policy forbids; trying again');
      this.#pauseMs = pause(Math.min(this.#pauseMs * 2, lastRetryMs));
      return this.#later();
    }
    this.#pauseMs = pause(coalesceMs);
  }
}

export interface Surroundings {
  readonly own: ReadonlySet<string>;
  readonly wayTo: (ip: Ip) => string | undefined;
}

/** Of connections that the policies of their ends on this host, or of its own links, would not let begin. */
export function forbidden(facts: PolicyFacts, { own, wayTo }: Surroundings): (connection: Connection) => boolean {
  const verdicts = new Verdicts(facts);
  // What is not known yet is closed for new connections only: those that stand began under policies that were.
  const policed = new Set<Ip>(facts.endpoints.filter(({ policies = [] }) => policies.length > 0).flatMap(({ addresses }) => addresses));
  const unknown = new Set<Ip>(facts.endpoints.filter(({ policies }) => policies === undefined).flatMap(({ addresses }) => addresses));
  const host = facts.host === undefined ? undefined : new HostVerdicts(facts, facts.host, verdicts);
  const linkTo = (ip: Ip): string | undefined => {
    const link = own.has(ip) ? undefined : wayTo(ip);
    return link === undefined || link === 'lo' || isContainers(link) ? undefined : link;
  };
  const isForbiddenHere = ({ asked, ...packet }: Connection): boolean => {
    const { source, destination } = packet;
    const [isFrom, isFor] = [own.has(source), own.has(destination)];
    if (host === undefined || (isFrom && isFor)) return false;
    const passage = { packet, asked: { ...packet, ...asked }, entry: linkTo(source), exit: linkTo(destination), isFrom, isFor };
    return host.outcome(passage) === 'deny';
  };
  return (connection) => {
    const { asked: _, ...packet } = connection;
    const { source, destination } = packet;
    if (isForbiddenHere(connection)) return true;
    if (own.has(source) || unknown.has(source) || unknown.has(destination)) return false;
    if (own.has(destination)) return !verdicts.allowsToHost(packet);
    if (!policed.has(source) && !policed.has(destination)) return false;
    return !verdicts.allows(packet);
  };
}
