// Settings of BGP from what users wrote, by whichever way it came here: what can be read is used, what cannot is left out and told.
import { readConfiguration, readFilter, readPeer, type Secrets } from '#api/calico-bgp.ts';
import { type BgpSettings, defaultBgp, type Peering } from '#model/bgp.ts';
import { Fault, isFault } from '#model/fault.ts';

/** Specs of Calico's resources by name. */
export interface WrittenBgp {
  readonly configurations: Readonly<Record<string, unknown>>;
  readonly peers: Readonly<Record<string, unknown>>;
  readonly filters: Readonly<Record<string, unknown>>;
}

/** A peer is told nothing before what shall be kept from it is known. Fault `not-found`. */
function withFilters(peering: Peering, known: ReadonlySet<string>): Peering {
  const missing = peering.filters.find((name) => !known.has(name));
  if (missing === undefined) return peering;
  throw new Fault('not-found', `BGPPeer ${peering.name}: there is no BGPFilter ${missing} that can be used`, { field: 'spec.filters' });
}

export class BgpReader {
  /** By what is wrong, one sentence each. */
  #problems = new Map<string, string>();
  readonly #tell: (problem: string) => void;

  /** `tell` is called once for as long as a resource has the same problem. */
  constructor(tell: (problem: string) => void) {
    this.#tell = tell;
  }

  /** What the last reading left out and why. */
  get problems(): readonly string[] {
    return [...this.#problems.values()];
  }

  read(written: WrittenBgp, secretOf: Secrets): BgpSettings {
    const before = this.#problems;
    this.#problems = new Map();
    const { default: common } = written.configurations;
    const [configuration] = this.#each('configuration', common === undefined ? {} : { default: common }, (name, spec) =>
      readConfiguration(name, spec, secretOf),
    );
    const filters = this.#each('filter', written.filters, readFilter);
    const known = new Set(filters.map(({ name }) => name));
    const settings = {
      ...defaultBgp,
      ...configuration,
      peerings: this.#each('peer', written.peers, (name, spec) => withFilters(readPeer(name, spec, secretOf), known)),
      filters,
    };
    for (const [key, problem] of this.#problems) if (before.get(key) !== problem) this.#tell(problem);
    return settings;
  }

  #each<T>(sort: string, specs: Readonly<Record<string, unknown>>, read: (name: string, spec: unknown) => T): T[] {
    return Object.keys(specs)
      .toSorted()
      .flatMap((name) => {
        try {
          return [read(name, specs[name])];
        } catch (error) {
          if (!isFault(error)) throw error;
          this.#problems.set(`${sort} ${name}`, error.message);
          return [];
        }
      });
  }
}
