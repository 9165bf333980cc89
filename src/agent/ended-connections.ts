// Connections of endpoints that have gone: who gets the address next must not be met by what was begun with the one before, as packets
// of a connection that stands pass without a look at policies. Nobody waits for it: addresses rest before they are given out again, and
// one that is not let rest is looked after at once.
import type { ConntrackSelection } from '#kernel/conntrack.ts';
import type { NftElement } from '#model/desired.ts';
import { type Ip, parseIp } from '#model/ip.ts';

/** Less than any address rests. */
const laterMs = 5_000;

/** Of endpoints that the host itself routes. */
const addressesIn = (elements: readonly NftElement[]): Ip[] =>
  elements.flatMap(({ netns, set, key }) => {
    const text = netns === '' && set.startsWith('members') ? key.split(' . ')[2] : undefined;
    return text === undefined ? [] : [parseIp(text)];
  });

export interface EndedOptions {
  readonly forget: (selections: readonly ConntrackSelection[]) => void;
  /** The same without haste. Never rejects. */
  readonly forgetAside: (selections: readonly ConntrackSelection[]) => Promise<void>;
}

const selectionsOf = (ips: readonly Ip[]): ConntrackSelection[] => ips.flatMap((ip) => [{ source: ip }, { replySource: ip }]);

export class EndedConnections {
  readonly #options: EndedOptions;
  /** With how many had ended by then. */
  readonly #ended = new Map<Ip, number>();
  #count = 0;
  #isWaiting = false;

  constructor(options: EndedOptions) {
    this.#options = options;
  }

  /** After every run of the loop, with the elements of which some have come or gone. */
  changed(before: readonly NftElement[], now: readonly NftElement[]): void {
    const there = addressesIn(now);
    const again = there.filter((ip) => this.#ended.delete(ip));
    if (again.length > 0) this.#options.forget(selectionsOf(again));
    const still = new Set(there);
    for (const ip of addressesIn(before)) if (!still.has(ip)) this.#ended.set(ip, ++this.#count);
    if (this.#ended.size === 0 || this.#isWaiting) return;
    this.#isWaiting = true;
    setTimeout(() => void this.#later(), laterMs).unref();
  }

  /** Whoever gets an address meanwhile has it looked after at once all the same. */
  async #later(): Promise<void> {
    this.#isWaiting = false;
    const ended = [...this.#ended];
    if (ended.length > 0) await this.#options.forgetAside(selectionsOf(ended.map(([ip]) => ip)));
    for (const [ip, count] of ended) if (this.#ended.get(ip) === count) this.#ended.delete(ip);
  }
}
