// Settings of BGP from what users wrote, by whichever way it came here: what can be read is used, what cannot is left out and told.
import { readConfiguration, readFilter, readPeer, type Secrets } from '#api/calico-bgp.ts';
import { type BgpSettings, defaultBgp } from '#model/bgp.ts';
import { isFault } from '#model/fault.ts';

/** Specs of Calico's resources by name. */
export interface WrittenBgp {
  readonly configurations: Readonly<Record<string, unknown>>;
  readonly peers: Readonly<Record<string, unknown>>;
  readonly filters: Readonly<Record<string, unknown>>;
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
    const settings = {
      ...defaultBgp,
      ...configuration,
      peerings: this.#each('peer', written.peers, (name, spec) => readPeer(name, spec, secretOf)),
      filters: this.#each('filter', written.filters, readFilter),
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
