// The Kubernetes API in the place of a controller, for the model `calico`: what a cluster consists of is followed, and blocks
// are claimed by the hosts themselves as custom resources (blocks.ts).
import * as v from 'valibot';
import type { WatchLine } from '#api/answers.ts';
import * as field from '#api/fields.ts';
import type { Journal } from '#api/local.ts';
import type { Controller } from '#agent/controller.ts';
import { networksOf } from '#agent/elsewhere.ts';
import { Fault, isFault } from '#model/fault.ts';
import type { Block, Host, Network, Pool } from '#model/resources.ts';
import { blocksPath, KubernetesBlocks, poolId, readBlock } from './blocks.ts';
import { type IpamSettings, readIpam, readPool, readReservation } from './calico.ts';
import { type CalicoFacts, readCalicoNode } from './calico-facts.ts';
import type { KubernetesClient, Listing } from './client.ts';
import { kubernetesDecides } from './controller.ts';
import { followKind, type Followed } from './follow.ts';
import { LastReadable } from './last-readable.ts';
import { LineQueue } from './line-queue.ts';
import { claimedFacts, claimedPool, claimedPools } from './own-blocks.ts';
import type { OwnNetworks } from './own-networks.ts';
import { ReleasedBlocks } from './released-blocks.ts';

export interface CalicoOptions {
  /** Name of this host's Node. */
  readonly host: string;
  /** Filled from the API. */
  readonly facts: CalicoFacts;
  readonly journal: Journal;
  readonly log: { warn(fields: object, message: string): void };
  readonly now: () => number;
  /** Told of this host's own Node as often as it changes. */
  readonly saw: (node: unknown) => void;
  /** Networks beside that of all pods. */
  readonly further: Pick<OwnNetworks, 'current' | 'isNeeded' | 'onChange' | 'whenListed'>;
  /** Ranges of pods, or whether blocks of them are announced, may have changed. */
  readonly poolsChanged: () => void;
}

const group = '/apis/projectcalico.org/v3';
const specified = v.object({ spec: v.optional(v.unknown()) });
const specOf = (item: unknown): unknown => {
  const read = v.safeParse(specified, item);
  return read.success ? read.output.spec : undefined;
};

const created = v.object({ metadata: v.object({ creationTimestamp: field.timestamp }) });
const createdAtOf = (item: unknown): string | undefined => {
  const read = v.safeParse(created, item);
  return read.success ? read.output.metadata.creationTimestamp : undefined;
};

type Fact =
  | { readonly kind: 'hosts'; readonly item: Host }
  | { readonly kind: 'networks'; readonly item: Network }
  | { readonly kind: 'pools'; readonly item: Pool };

interface Watching {
  readonly client: KubernetesClient;
  readonly blocks: KubernetesBlocks;
  readonly options: CalicoOptions;
  readonly signal: AbortSignal;
}

/** One watch, from a whole listing on. */
class CalicoWatch {
  readonly #watching: Watching;
  readonly #queue = new LineQueue<WatchLine>();
  /** What has been told, by kind and id, without revisions. */
  readonly #told = new Map<string, string>();
  readonly #settings = new Map<string, IpamSettings>();
  readonly #waiting = new Set<string>();
  readonly #released: ReleasedBlocks;
  #revision = 0;
  #isWhole = false;

  constructor(watching: Watching) {
    this.#watching = watching;
    const { client, blocks, options, signal } = watching;
    const { host, facts, further, now } = options;
    this.#released = new ReleasedBlocks({ client, blocks, host, now, hosts: facts.hosts, isNeeded: (id) => further.isNeeded(id) });
    signal.addEventListener('abort', () => this.#released[Symbol.dispose](), { once: true });
  }

  async *lines(): AsyncGenerator<WatchLine, void> {
    const { blocks, options, signal } = this.#watching;
    const { facts } = options;
    // Before the others, so that blocks of pools and hosts that are not known yet are none that came later.
    const first = await blocks.list(signal);
    this.#revision = first.revision;
    this.#followFurther(first);
    this.#follow(first, 'nodes', ['/api/v1/nodes'], {
      into: facts.hosts,
      read: (item, name) => {
        if (name === options.host) options.saw(item);
        return readCalicoNode(item);
      },
      tells: ['networks', 'hosts'],
    });
    this.#follow(first, 'IP pools', [`${group}/ippools`], {
      into: facts.pools,
      read: (item, name) => readPool(name, specOf(item), createdAtOf(item)),
      readable: new LastReadable(options.journal, 'ippools'),
      tells: ['networks', 'pools', 'hosts'],
      changed: options.poolsChanged,
      listed: () => (facts.arePoolsKnown = true),
    });
    this.#follow(first, 'IP reservations', [`${group}/ipreservations`], {
      into: facts.reservations,
      read: (item, name) => readReservation(name, specOf(item)),
      readable: new LastReadable(options.journal, 'ipreservations'),
      tells: ['pools'],
    });
    this.#follow(first, 'IPAM settings', [`${group}/ipamconfigurations`], {
      into: this.#settings,
      read: (item, name) => readIpam(name, specOf(item)),
      readable: new LastReadable(options.journal, 'ipamconfigurations'),
      tells: ['networks'],
      changed: () => facts.setIpam(this.#settings.get('default')),
    });
    yield* this.#queue.lines(signal);
  }

  #followFurther(first: Listing): void {
    const { further, log } = this.#watching.options;
    const { signal } = this.#watching;
    const name = 'further networks';
    this.#waiting.add(name);
    further.onChange(() => {
      if (this.#isWhole) this.#tell(['networks', 'pools']);
    });
    signal.addEventListener('abort', () => further.onChange(() => undefined), { once: true });
    further.whenListed(signal).then(
      () => this.#arrived(name, first),
      (error: unknown) => signal.aborted || log.warn({ error }, `cannot follow ${name}`),
    );
  }

  #arrived(name: string, first: Listing): void {
    this.#waiting.delete(name);
    if (this.#waiting.size === 0 && !this.#isWhole) void this.#begin(first);
  }

  /** Ahead of the watch, which will say it again. */
  wrote(block: Block): void {
    if (this.#isWhole) this.#queue.push({ type: 'put', kind: 'blocks', item: block, revision: this.#revision });
  }

  #follow<T>(first: Listing, name: string, paths: readonly string[], sort: Sort<T>): void {
    const { client, options, signal } = this.#watching;
    const { into, tells, changed, readable } = sort;
    const read = (item: unknown, key: string): T | undefined => this.#read(name, () => sort.read(item, key));
    this.#waiting.add(name);
    const news = (): void => {
      changed?.();
      if (this.#isWhole) this.#tell(tells);
    };
    const followed: Followed = {
      name,
      paths,
      absent: 'empty',
      keys: () => [...into.keys()],
      put: (key, item) => {
        const value = readable === undefined ? read(item, key) : readable.read(key, item, (one) => read(one, key));
        if (value === undefined) into.delete(key);
        else into.set(key, value);
        news();
      },
      delete(key) {
        into.delete(key);
        readable?.delete(key);
        news();
      },
      listed: () => {
        readable?.listed(into.keys());
        sort.listed?.();
        news();
        this.#arrived(name, first);
      },
    };
    void followKind(followed, { client, signal, log: options.log });
  }

  /** One that cannot be read keeps no other from being used. */
  #read<T>(name: string, read: () => T | undefined): T | undefined {
    try {
      return read();
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#watching.options.log.warn({ problem: error.message }, `cannot use one of the ${name}`);
      return undefined;
    }
  }

  /** Blocks come last, as they are of pools; then everything is known. */
  async #begin(first: Listing): Promise<void> {
    const { blocks, options, signal } = this.#watching;
    try {
      const here = first.items.map(readBlock);
      options.facts.blocks.clear();
      for (const block of here) options.facts.blocks.set(block.id, block);
      this.#isWhole = true;
      this.#tell(['networks', 'pools', 'hosts']);
      const again = await blocks.assert(here);
      for (const item of [...here, ...again]) this.#putBlock(item);
      this.#queue.push({ type: 'synced', revision: this.#revision, whole: true });
      while (!signal.aborted) await this.#watchBlocks();
    } catch (error) {
      this.#queue.fail(error);
    }
  }

  async #watchBlocks(): Promise<void> {
    const { client, blocks, signal } = this.#watching;
    for await (const change of client.watch(blocksPath, this.#revision, signal)) {
      const { revision } = change;
      this.#revision = revision;
      blocks.passed(revision);
      if (change.type !== 'bookmark') {
        const item = readBlock(change.item);
        if (change.type === 'put') this.#putBlock(item);
        else this.#deleteBlock(item, revision);
      }
      this.#queue.push({ type: 'bookmark', revision });
    }
    await client.checkReached(blocksPath, this.#revision, signal);
  }

  #deleteBlock(item: Block, revision: number): void {
    this.#watching.options.facts.blocks.delete(item.id);
    this.#released.gone(item.id);
    this.#queue.push({ type: 'delete', kind: 'blocks', id: item.id, revision });
    this.#seeLeft(item);
  }

  #putBlock(item: Block): void {
    const { blocks } = this.#watching.options.facts;
    const isNew = !blocks.has(item.id);
    blocks.set(item.id, item);
    if (isNew) this.#seeLeft(item);
    this.#released.see(item);
    this.#queue.push({ type: 'put', kind: 'blocks', item, revision: this.#revision });
  }

  /** Of a block that comes or goes and is in no pool the range is that of pods only as long as it is there. */
  #seeLeft(block: Block): void {
    const { facts, poolsChanged } = this.#watching.options;
    if (!facts.isLeft(block)) return;
    this.#tell(['pools']);
    poolsChanged();
  }

  #factsOf(kind: Fact['kind']): Fact[] {
    const { facts, host, further: own } = this.#watching.options;
    switch (kind) {
      case 'networks': {
        const network = facts.network(host);
        const further = [...own.current].map((one) => claimedFacts(one, network.choices.carry).network);
        return [network, ...further].map((item) => ({ kind, item }));
      }
      case 'pools': {
        const further = [...own.current].flatMap(claimedPools);
        const pools = [...facts.pools.values()].map((pool) => facts.poolOf(pool));
        return [...pools, ...facts.left(), ...further].map((item) => ({ kind, item }));
      }
      case 'hosts':
      default:
        return [...facts.hosts.values()].map((item) => ({ kind: 'hosts', item: facts.host(item, host) }));
    }
  }

  /** Nodes change every few seconds without anything of ours having changed: only news are passed on. */
  #tell(kinds: readonly Fact['kind'][]): void {
    const revision = this.#revision;
    this.#released.settle();
    for (const kind of kinds) {
      const facts = this.#factsOf(kind);
      const ids = new Set(facts.map(({ item }) => item.id));
      for (const key of this.#told.keys()) {
        const [of, id = ''] = key.split(' ');
        if (of !== kind || ids.has(id)) continue;
        this.#told.delete(key);
        this.#queue.push({ type: 'delete', kind, id, revision });
      }
      for (const fact of facts) {
        const key = `${kind} ${fact.item.id}`;
        const text = JSON.stringify({ ...fact.item, revision: 0 });
        if (this.#told.get(key) === text) continue;
        this.#told.set(key, text);
        this.#queue.push({ type: 'put', revision, ...fact });
      }
    }
  }
}

interface Sort<T> {
  readonly into: Map<string, T>;
  readonly read: (item: unknown, name: string) => T | undefined;
  readonly tells: readonly Fact['kind'][];
  /** Absent: one that cannot be read is as none. */
  readonly readable?: LastReadable;
  readonly changed?: () => void;
  readonly listed?: () => void;
}

export function calicoController(client: KubernetesClient, options: CalicoOptions): Controller {
  const { host, facts, journal, now } = options;
  let current: CalicoWatch | undefined;
  const blocks = new KubernetesBlocks({
    client,
    host,
    journal,
    pool(id) {
      const pool = [...facts.pools.values()].find(({ name }) => poolId(name) === id);
      return pool === undefined
        ? claimedPool(id, options.further.current)
        : { name: pool.name, pool: facts.poolOf(pool), mostBlocks: facts.ipam.maxBlocksPerHost };
    },
    wrote: (block) => current?.wrote(block),
    now,
  });

  async function* watch({ signal }: { readonly signal: AbortSignal }): AsyncGenerator<WatchLine, void> {
    const stop = new AbortController();
    current = new CalicoWatch({ client, blocks, options, signal: AbortSignal.any([signal, stop.signal]) });
    try {
      yield* current.lines();
    } finally {
      stop.abort();
    }
  }

  return {
    networks: networksOf(kubernetesDecides),
    addresses: blocks,
    watch,
    publish: () => Promise.resolve({ refused: new Map(), revision: Number.MAX_SAFE_INTEGER }),
    skewMs: () => undefined,
    report() {
      const self = facts.hosts.get(host);
      if (self !== undefined) return Promise.resolve(facts.host(self, host));
      return Promise.reject(new Fault('unavailable', `There is no Node ${host} with an address`, { hint: 'Does --host name the Node?' }));
    },
  };
}
