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

export class EndedConnections {
  readonly #forget: (selections: readonly ConntrackSelection[]) => void;
  readonly #ended = new Set<Ip>();
  #isWaiting = false;

  constructor(forget: (selections: readonly ConntrackSelection[]) => void) {
    this.#forget = forget;
  }

  /** After every run of the loop, with the elements of which some have come or gone. */
  changed(before: readonly NftElement[], now: readonly NftElement[]): void {
    const there = addressesIn(now);
    this.#end(there.filter((ip) => this.#ended.has(ip)));
    const still = new Set(there);
    for (const ip of addressesIn(before)) if (!still.has(ip)) this.#ended.add(ip);
    if (this.#ended.size === 0 || this.#isWaiting) return;
    this.#isWaiting = true;
    setTimeout(() => this.#later(), laterMs).unref();
  }

  #later(): void {
    this.#isWaiting = false;
    this.#end([...this.#ended]);
  }

  #end(ips: readonly Ip[]): void {
    for (const ip of ips) this.#ended.delete(ip);
    if (ips.length > 0) this.#forget(ips.flatMap((ip) => [{ source: ip }, { replySource: ip }]));
  }
}
