// What has become of a policy on all hosts of a cluster. Pure: from the names of the nodes and what each has told last.
import { firstOf } from '#model/words.ts';
import type { Told } from './conditions.ts';
import type { HostReport } from './host-policies.ts';
import type { Problem } from './policy-parts.ts';
import { problemText } from './policy-parts.ts';

export interface JudgedPolicy {
  readonly key: string;
  /** Name of its kind. */
  readonly kind: string;
  readonly generation: number;
  /** The earliest resource version of which it is known that the policy had this generation. */
  readonly since: number;
  readonly problems: readonly Problem[];
  /** Whether anything of it is served. */
  readonly isServed: boolean;
  /** It decides nothing and only counts. */
  readonly isStaged: boolean;
}

export interface PolicyVerdict {
  readonly generation: number;
  /** Where it is in the kernel and selects somebody. */
  readonly inForce: number;
  /** These, and the hosts that have not read it yet and so may need it. */
  readonly needed: number;
  readonly conditions: readonly Told[];
}

const mostNamed = 3;
const mostText = 1000;
const names = (hosts: readonly string[]): string => firstOf(hosts, mostNamed);

/** Looks at every host once, and then at each policy only where it is named or may not have been read. */
export class HostReports {
  readonly #reports: ReadonlyMap<string, HostReport>;
  readonly #hosts: readonly string[];
  readonly #naming = new Map<string, string[]>();
  /** By kind: hosts by how far they have read, least first. */
  readonly #positions = new Map<string, readonly { readonly host: string; readonly at: number }[]>();

  constructor(hosts: Iterable<string>, reports: ReadonlyMap<string, HostReport>) {
    this.#reports = reports;
    this.#hosts = [...hosts].toSorted();
    for (const host of this.#hosts)
      for (const key of Object.keys(reports.get(host)?.inForce ?? {})) {
        const naming = this.#naming.get(key);
        if (naming === undefined) this.#naming.set(key, [host]);
        else naming.push(host);
      }
  }

  /** Hosts that have not told yet that they have read it in this generation. */
  #behind({ key, kind, generation, since }: JudgedPolicy): string[] {
    const odd = (this.#naming.get(key) ?? []).filter((host) => this.#reports.get(host)?.inForce[key] !== generation);
    const unread: string[] = [];
    for (const { host, at } of this.#orderOf(kind)) {
      if (at >= since) break;
      unread.push(host);
    }
    return [...new Set([...unread, ...odd])].toSorted();
  }

  #orderOf(kind: string): readonly { readonly host: string; readonly at: number }[] {
    const known = this.#positions.get(kind);
    if (known !== undefined) return known;
    const order = this.#hosts.map((host) => ({ host, at: this.#reports.get(host)?.known[kind] ?? -1 })).toSorted((a, b) => a.at - b.at);
    this.#positions.set(kind, order);
    return order;
  }

  verdict(policy: JudgedPolicy): PolicyVerdict {
    const { key, generation, problems } = policy;
    const behind = this.#behind(policy);
    const isBehind = new Set(behind);
    const inForce = (this.#naming.get(key) ?? []).filter((host) => !isBehind.has(host)).length;
    const conditions = [accepted(problems), this.#force(policy, inForce, behind)];
    return {
      generation,
      inForce,
      needed: inForce + behind.length,
      conditions: conditions.map((told) => ({ ...told, observedGeneration: generation })),
    };
  }

  #force({ isServed, isStaged }: JudgedPolicy, inForce: number, behind: readonly string[]): Told {
    const type = 'InForce';
    if (!isServed) return { type, status: 'False', reason: 'NotAccepted', message: 'Nothing of it is in force anywhere' };
    const refusing = behind.find((host) => this.#reports.get(host)?.problem !== undefined);
    if (refusing !== undefined) {
      const problem = this.#reports.get(refusing)?.problem ?? '';
      return { type, status: 'False', reason: 'Refused', message: `${refusing}: ${problem}`.slice(0, mostText) };
    }
    if (behind.length > 0) return { type, status: 'False', reason: 'Pending', message: `Not yet confirmed by ${names(behind)}` };
    if (isStaged) return { type, status: 'False', reason: 'Staged', message: 'It is staged: hosts count what it would decide' };
    return inForce === 0
      ? { type, status: 'True', reason: 'SelectsNothing', message: 'Every host has read it, and it selects nothing on any' }
      : { type, status: 'True', reason: 'InForce', message: 'It is in force wherever it selects somebody' };
  }
}

function accepted(problems: readonly Problem[]): Told {
  const type = 'Accepted';
  if (problems.length === 0) return { type, status: 'True', reason: 'Accepted', message: 'All of it can be served' };
  const reason = problems.some((problem) => problem.reason === 'Invalid') ? 'Invalid' : 'Unsupported';
  return { type, status: 'False', reason, message: problems.map(problemText).join('. ').slice(0, mostText) };
}
