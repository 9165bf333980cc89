// Networks that containers of this host are in although the cluster says no more of them. A controller lets nobody remove a
// network that has endpoints, so its records have been lost: the store was restored from an old backup, or is another one. What
// was last known of such a network is planned with until its last container here has gone, and told meanwhile; nothing that
// runs is taken down because of a record that is missing.
import type { Journal } from '#api/local.ts';
import { parseAnswer } from '#api/parse.ts';
import { schemas } from '#api/schemas.ts';
import { Fault } from '#model/fault.ts';
import type { LocalEndpoint, Network, Resources, Snapshot } from '#model/resources.ts';
import type { Prober } from './prober.ts';

const prefix = 'kept/';
const memberKinds = ['pools', 'blocks', 'endpoints', 'exposures'] as const;
type Kept = Pick<Snapshot, 'hosts' | 'networks' | (typeof memberKinds)[number]>;

/** `from` without what `known` has already. */
const besides = <T>(from: ReadonlyMap<string, T>, known: ReadonlyMap<string, T>): [string, T][] =>
  [...from].filter(([id]) => !known.has(id));

/** Everything of one network, and the hosts that its blocks and endpoints are on. */
function partOf(snapshot: Snapshot, network: Network): Kept {
  const of = <T extends { readonly network: string }>(items: ReadonlyMap<string, T>): Map<string, T> =>
    new Map([...items].filter(([, item]) => item.network === network.id));
  const [blocks, endpoints] = [of(snapshot.blocks), of(snapshot.endpoints)];
  const on = new Set([...blocks.values(), ...endpoints.values()].map(({ host }) => host));
  return {
    hosts: new Map([...snapshot.hosts].filter(([id]) => on.has(id))),
    networks: new Map([[network.id, network]]),
    pools: of(snapshot.pools),
    blocks,
    endpoints,
    exposures: of(snapshot.exposures),
  };
}

const together = (snapshot: Snapshot, kept: Kept): Snapshot => ({
  hosts: new Map([...snapshot.hosts, ...besides(kept.hosts, snapshot.hosts)]),
  networks: new Map([...snapshot.networks, ...besides(kept.networks, snapshot.networks)]),
  pools: new Map([...snapshot.pools, ...besides(kept.pools, snapshot.pools)]),
  blocks: new Map([...snapshot.blocks, ...besides(kept.blocks, snapshot.blocks)]),
  endpoints: new Map([...snapshot.endpoints, ...besides(kept.endpoints, snapshot.endpoints)]),
  exposures: new Map([...snapshot.exposures, ...besides(kept.exposures, snapshot.exposures)]),
});

export class NetworksInUse {
  readonly #journal: Journal;
  readonly #kept = new Map<string, Kept>();
  /** The facts of the last call, which know what the next ones may lack. */
  #before: Snapshot | undefined;

  readonly #prober: Pick<Prober, 'narrowed'> | undefined;

  constructor(journal: Journal, prober?: Pick<Prober, 'narrowed'>) {
    this.#journal = journal;
    this.#prober = prober;
  }

  /** Takes up what an earlier process kept. Fault `corrupt` for a record that cannot be read; it is left out. */
  load(): void {
    for (const { key, value } of this.#journal.list(prefix)) this.#kept.set(key.slice(prefix.length), keptOf(key, value));
  }

  /** A sentence for each network that is kept, with what to do. */
  get problems(): readonly string[] {
    return [...this.#kept.values()].flatMap(({ networks }) => [...networks.values()].map(lostText));
  }

  /** `snapshot` with what it lacks of networks that endpoints in a container are in, and the MTUs that probes have found. */
  complete(snapshot: Snapshot, endpoints: readonly LocalEndpoint[]): Snapshot {
    const used = new Set(endpoints.flatMap(({ endpoint, sandbox }) => (sandbox === undefined ? [] : [endpoint.network])));
    for (const id of used) {
      const before = this.#before?.networks.get(id);
      if (before !== undefined && this.#before !== undefined && !snapshot.networks.has(id)) this.#keep(partOf(this.#before, before), id);
    }
    for (const id of this.#kept.keys()) if (!used.has(id) || snapshot.networks.has(id)) this.#forget(id);
    this.#before = snapshot;
    const all = [...this.#kept.values()].reduce(together, snapshot);
    return this.#prober?.narrowed(all) ?? all;
  }

  #keep(kept: Kept, id: string): void {
    this.#kept.set(id, kept);
    const lists = Object.fromEntries(Object.entries(kept).map(([kind, items]) => [kind, [...items.values()]]));
    this.#write(() => this.#journal.put(prefix + id, lists));
  }

  #forget(id: string): void {
    this.#kept.delete(id);
    this.#write(() => this.#journal.delete(prefix + id));
  }

  /** A disk that is full must not stop the loop: what is kept then lasts as long as this process. */
  #write(fn: () => void): void {
    try {
      fn();
    } catch (error) {
      if (!(error instanceof Fault && error.code === 'unavailable')) throw error;
    }
  }
}

function keptOf(key: string, value: unknown): Kept {
  const lists = new Map(Object.entries(typeof value === 'object' && value !== null ? value : {}));
  const read = <K extends keyof Kept>(kind: K): ReadonlyMap<string, Resources[K]> => {
    const list: unknown = lists.get(kind);
    if (!Array.isArray(list)) throw new Fault('corrupt', `Journal record ${key} has no ${kind}`);
    return new Map(
      list.map((item: unknown) => {
        const parsed: Resources[K] = parseAnswer<Resources[K]>(schemas[kind], item, `journal record ${key}`);
        return [parsed.id, parsed];
      }),
    );
  };
  return {
    hosts: read('hosts'),
    networks: read('networks'),
    pools: read('pools'),
    blocks: read('blocks'),
    endpoints: read('endpoints'),
    exposures: read('exposures'),
  };
}

const lostText = ({ name, id }: Network): string =>
  `The controller knows network ${name} (${id}) no more, but containers here are in it: they stay as they are until they end. Was its store replaced, or restored from an old backup? Restore a newer one, or make the network again and restart the containers`;
