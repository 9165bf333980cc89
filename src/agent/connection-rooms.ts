// Where the kernel has hardly any room left for further connections, of which it drops the packets then without a word to anybody but
// its log ("nf_conntrack: table full"): told while there is still time.
import type { Desired, Netns } from '#model/desired.ts';
import { domainName } from '#model/numbers.ts';
import type { Network } from '#model/resources.ts';
import type { ConnectionRoom } from '#kernel/connection-room.ts';

export interface ConnectionRoomsOptions {
  /** Fault `kernel`. */
  readonly read: (netns: Netns) => ConnectionRoom | undefined;
  readonly desired: () => Desired;
  readonly networks: () => Iterable<Pick<Network, 'id' | 'name'>>;
  /** Milliseconds of a clock that nobody sets. */
  readonly now: () => number;
}

/** Several ask at about the same time. */
const freshMs = 5_000;
const crowdedFrom = 0.9;
/** It stays told until it is clearly less, so that it does not come and go. */
const crowdedUntil = 0.8;

export class ConnectionRooms {
  readonly #options: ConnectionRoomsOptions;
  /** Sentences by namespace. */
  #crowded: ReadonlyMap<Netns, string> = new Map();
  #nextLookAt = Number.NEGATIVE_INFINITY;

  constructor(options: ConnectionRoomsOptions) {
    this.#options = options;
  }

  /** Sentences without a full stop, the same for as long as it is the same. Fault `kernel`. */
  problems(): readonly string[] {
    const { now, read, desired } = this.#options;
    if (now() >= this.#nextLookAt) {
      this.#nextLookAt = now() + freshMs;
      const places = ['', ...desired().netns.map(({ name }) => name)];
      this.#crowded = new Map(
        places.flatMap((netns) => {
          const { used, most } = read(netns) ?? { used: 0, most: 0 };
          const isCrowded = used > most * (this.#crowded.has(netns) ? crowdedUntil : crowdedFrom);
          return isCrowded && most > 0 ? [[netns, this.#sentence(netns, most)]] : [];
        }),
      );
    }
    return [...this.#crowded.values()];
  }

  #sentence(netns: Netns, most: number): string {
    const network = [...this.#options.networks()].find(({ id }) => domainName(id) === netns);
    const where = network === undefined ? 'on this host' : `in network ${network.name} on this host`;
    const list = netns === '' ? 'conntrack -L' : `ip netns exec ${netns} conntrack -L`;
    return `Nearly as many connections are open ${where} as the kernel keeps track of, ${most.toLocaleString('en')}; packets of further ones are dropped when there is no room. Raise net.netfilter.nf_conntrack_max (sysctl), or see whose they are: ${list}`;
  }
}
