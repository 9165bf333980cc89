// Tells the wire of addresses of load balancers that have come to this host: at once, and some more times, since nobody answers
// and a frame may be lost.
import type { Addr, Desired } from '#model/desired.ts';
import { cidrBase, type Ip } from '#model/ip.ts';
import { linkPrefix } from '#model/numbers.ts';

export interface AnnouncementsOptions {
  /** Sends one frame for each address by the link. */
  readonly announce: (link: string, ips: readonly Ip[]) => void;
  readonly log: (fields: object, message: string) => void;
}

const repeatMs = [1_000, 4_000] as const;

/** Of the plan: on links of the host's own. */
const announced = ({ addr }: Desired): Map<string, Addr> =>
  new Map(addr.filter(({ netns, link }) => netns === '' && !link.startsWith(linkPrefix)).map((one) => [`${one.link} ${one.address}`, one]));

export class Announcements implements Disposable {
  readonly #options: AnnouncementsOptions;
  #here = new Map<string, Addr>();
  readonly #timers = new Set<NodeJS.Timeout>();

  constructor(options: AnnouncementsOptions) {
    this.#options = options;
  }

  /** After every run of the loop. */
  applied(desired: Desired): void {
    const now = announced(desired);
    const come = [...now].filter(([key]) => !this.#here.has(key)).map(([, addr]) => addr);
    this.#here = now;
    if (come.length === 0) return;
    this.#say(come);
    for (const ms of repeatMs) {
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        this.#say(come.filter(({ link, address }) => this.#here.has(`${link} ${address}`)));
      }, ms);
      timer.unref();
      this.#timers.add(timer);
    }
  }

  [Symbol.dispose](): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }

  #say(addrs: readonly Addr[]): void {
    for (const [link, of] of Map.groupBy(addrs, (addr) => addr.link)) {
      try {
        this.#options.announce(
          link,
          // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a plan's address is a host prefix here
          of.map(({ address }) => cidrBase(address as Parameters<typeof cidrBase>[0])),
        );
      } catch (error) {
        this.#options.log({ error: error instanceof Error ? error.message : error, link }, 'cannot tell the wire of an address');
      }
    }
  }
}
