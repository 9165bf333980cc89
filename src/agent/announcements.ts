// Tells the wire of addresses of load balancers, of those that move between hosts, and of containers in the hosts' own subnet, that
// have come to this host: at once, and some more times, since nobody answers and a frame may be lost.
import type { Desired } from '#model/desired.ts';
import { cidrBase, type Ip } from '#model/ip.ts';
import { linkPrefix } from '#model/numbers.ts';

export interface AnnouncementsOptions {
  /** Sends one frame for each address by the link. */
  readonly announce: (link: string, ips: readonly Ip[]) => void;
  readonly log: (fields: object, message: string) => void;
}

const repeatMs = [1_000, 4_000] as const;

interface Announced {
  readonly link: string;
  readonly ip: Ip;
}

/** Of the plan: on links of the host's own, where its addresses are host prefixes. */
function announced({ addr, proxy }: Desired): Map<string, Announced> {
  const own = addr.filter(({ netns, link }) => netns === '' && !link.startsWith(linkPrefix));
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a plan's address is a host prefix here
  const all = [...own.map(({ link, address }) => ({ link, ip: cidrBase(address as Parameters<typeof cidrBase>[0]) })), ...proxy];
  return new Map(all.map(({ link, ip }) => [`${link} ${ip}`, { link, ip }]));
}

export class Announcements implements Disposable {
  readonly #options: AnnouncementsOptions;
  #here = new Map<string, Announced>();
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
        this.#say(come.filter(({ link, ip }) => this.#here.has(`${link} ${ip}`)));
      }, ms);
      timer.unref();
      this.#timers.add(timer);
    }
  }

  /** To be told as if it had just come, after the next run. */
  forget(ip: Ip): void {
    this.#here = new Map([...this.#here].filter(([, one]) => one.ip !== ip));
  }

  [Symbol.dispose](): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }

  #say(those: readonly Announced[]): void {
    for (const [link, of] of Map.groupBy(those, (one) => one.link)) {
      try {
        this.#options.announce(
          link,
          of.map(({ ip }) => ip),
        );
      } catch (error) {
        this.#options.log({ error: error instanceof Error ? error.message : error, link }, 'cannot tell the wire of an address');
      }
    }
  }
}
