// What has changed of the facts since the last plan, and whether anything of it has to be planned for. Most of what a host is
// told are endpoints that come and go on other hosts, and their hosts' blocks lead to them already.
import { isDeepStrictEqual } from 'node:util';
import { isPlannedFor } from '#drivers/plan.ts';
import type { Endpoint, LocalEndpoint, Snapshot } from '#model/resources.ts';

/** One fact, from what it was to what it is now; undefined where there is none. */
export interface Changed<T> {
  readonly before: T | undefined;
  readonly after: T | undefined;
}

export interface NewsOptions {
  /** This host. */
  readonly host: string;
  readonly blocks: () => Snapshot['blocks'];
  /** Whether endpoints of this host are planned for before they are in a container: policies guard them already. */
  readonly isGuarding: boolean;
  /** Facts change in bursts: called once per turn of the event loop. */
  readonly spread: () => void;
}

export class News {
  readonly #options: NewsOptions;
  #isTurning = false;
  /** Changes so far that are to be planned for, and how many of them the last plan had in it. */
  #changes = 0;
  #planned = -1;

  constructor(options: NewsOptions) {
    this.#options = options;
  }

  /** Whether the last plan had everything in it. */
  get isPlanned(): boolean {
    return this.#planned === this.#changes;
  }

  /** A plan is made from the facts as they are. */
  planning(): void {
    this.#planned = this.#changes;
  }

  /** The cluster tells of an endpoint. */
  endpoint({ before, after }: Changed<Endpoint>): void {
    const { host, blocks } = this.#options;
    if ([before, after].some((one) => one !== undefined && isPlannedFor(host, one, { blocks: blocks() }))) this.#changes += 1;
    this.#turn();
  }

  /** An endpoint of this host itself. */
  local(change: Changed<LocalEndpoint>): void {
    if (this.#options.isGuarding || isPlannedHere(change)) this.#changes += 1;
    this.#turn();
  }

  /** Anything else. */
  changed(): void {
    this.#changes += 1;
    this.#turn();
  }

  #turn(): void {
    if (this.#isTurning) return;
    this.#isTurning = true;
    setImmediate(() => {
      this.#isTurning = false;
      this.#options.spread();
    });
  }
}

/**
 * Whether what has become of an endpoint of this host changes its plan; undefined where there is none. Those in no container
 * have no part in it, and what a link is called in its container matters when the link is made again, for which a new plan is made.
 */
function isPlannedHere({ before, after }: Changed<LocalEndpoint>): boolean {
  if (before?.sandbox === undefined || after?.sandbox === undefined) return before?.sandbox !== after?.sandbox;
  const { ifname: _, ...was } = before;
  const { ifname: __, ...is } = after;
  return !isDeepStrictEqual(was, is);
}
