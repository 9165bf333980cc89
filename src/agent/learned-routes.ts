// Which ranges this host's speaker of BGP has put into the kernel. A host that changes to BGP leaves its other way to a peer only
// when the learned one is there, and that nobody says but the kernel; so it is looked at while hosts speak so.
import type { Cidr } from '#model/ip.ts';
import { isSpoken } from '#drivers/speaker.ts';
import type { Host } from '#model/resources.ts';

export interface LearnedRoutesOptions {
  /** In the kernel now. */
  readonly list: () => Iterable<Cidr>;
  readonly hosts: () => Iterable<Host>;
  /** Others than the last plan had. */
  readonly changed: () => void;
}

const lookMs = 500;

const speaks = ({ carrying }: Host): boolean => carrying !== undefined && [carrying.wants, ...(carrying.sends ?? [])].some(isSpoken);

export class LearnedRoutes implements Disposable {
  readonly #options: LearnedRoutesOptions;
  #last: ReadonlySet<Cidr> | undefined;
  readonly #timer: NodeJS.Timeout;

  constructor(options: LearnedRoutesOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#look(), lookMs).unref();
  }

  /** For a plan; undefined while no host says that it speaks BGP, or wants to. */
  current(): ReadonlySet<Cidr> | undefined {
    const { hosts, list } = this.#options;
    this.#last = [...hosts()].some(speaks) ? new Set(list()) : undefined;
    return this.#last;
  }

  /** As the last plan had them. */
  get last(): ReadonlySet<Cidr> | undefined {
    return this.#last;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    if (this.#last === undefined) return;
    const now = new Set(this.#options.list());
    if (now.symmetricDifference(this.#last).size > 0) this.#options.changed();
  }
}
