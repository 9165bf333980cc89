// The agent's part of networks of the cloud: as soon as there is such a network the node asks for its first ports (port-pools.ts), so that
// they are there before the first pod; and for more when they come to their end. What it has asked for goes with the network, which
// stays as long as pods are in it.
import { setTimeout as delay } from 'node:timers/promises';
import { Fault, isFault } from '#model/fault.ts';
import type { Block } from '#model/resources.ts';
import type { KubernetesClient } from './client.ts';
import { followKind } from './follow.ts';
import { fallbacksOf, type OwnNetwork } from './own-network.ts';
import { blocksOfPool, bodyOfPool, type PodPlace, type PortPool, portPoolName, portPoolsPath, readPortPool } from './port-pools.ts';

export interface OwnPortsOptions {
  readonly client: KubernetesClient;
  /** Name of this host's Node. */
  readonly host: string;
  readonly log: { warn(fields: object, message: string): void };
  /** The block, once the rest of the agent knows of it. */
  readonly known: (id: string) => Block | undefined;
  /** How many pods of the network have no port. */
  readonly portless: (network: string) => number;
}

const retryMs = 2_000;
/** In which the watch shows what was written. */
const shownMs = 300;
const patienceMs = 20_000;
/** Where a pod may do without, once it is told what is in the way. */
const hopeMs = 3_000;
const lookMs = 50;

export class OwnPorts implements AsyncDisposable {
  readonly #options: OwnPortsOptions;
  /** Of this node, by name, as the API has them. */
  readonly #pools = new Map<string, PortPool>();
  /** Networks of the cloud that there are; undefined while that is not known. */
  #networks: readonly OwnNetwork[] | undefined;
  /** Blocks of each subnet that are asked for, by network. */
  readonly #asked = new Map<string, number>();
  readonly #listed = Promise.withResolvers<void>();
  #isListed = false;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #isBusy = false;
  #retry: NodeJS.Timeout | undefined;
  #failure = '';
  #changed: () => void = () => undefined;

  constructor(options: OwnPortsOptions) {
    this.#options = options;
  }

  start(): void {
    const { client, log } = this.#options;
    const { signal } = this.#stop;
    this.#running = followKind(
      {
        name: 'port pools',
        paths: [portPoolsPath],
        absent: 'empty',
        keys: () => [...this.#pools.keys()],
        put: (_, item) => this.#put(item),
        delete: (key) => {
          if (!this.#pools.delete(key)) return;
          this.#changed();
          // Somebody else's doing, who may do it again at once.
          this.#later(retryMs);
        },
        listed: () => {
          this.#isListed = true;
          this.#listed.resolve();
          void this.#settle();
        },
      },
      { client, log, signal },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#retry);
    await this.#running;
  }

  onChange(changed: () => void): void {
    this.#changed = changed;
  }

  /** The first whole listing is there. */
  get whenListed(): Promise<void> {
    return this.#listed.promise;
  }

  /** Those networks of the cluster that there are now. */
  wish(networks: Iterable<OwnNetwork>): void {
    this.#networks = [...networks].filter(({ neutron }) => neutron !== undefined);
    for (const id of this.#asked.keys()) if (!this.has(id)) this.#asked.delete(id);
    // It is told often; what fails is tried again at its own time.
    if (this.#failure === '') void this.#settle();
  }

  has(network: string): boolean {
    return this.#networks?.some(({ id }) => id === network) === true;
  }

  /** This node's, as far as they have ports. */
  blocksOf(network: OwnNetwork): Block[] {
    const pool = this.#pools.get(portPoolName(network, this.#options.host));
    return pool === undefined ? [] : blocksOfPool(pool).filter(({ cidr }) => !pool.left.includes(cidr));
  }

  /** Where in the cloud it lies; undefined: nobody has looked. */
  placeOf(network: OwnNetwork): PodPlace | undefined {
    return this.#pools.get(portPoolName(network, this.#options.host))?.place;
  }

  /**
   * Gives a block back that no pod has an address of. Faults: `in-use` for the last one of its pool, which stays for the next pod; as
   * KubernetesClient.replace. Undefined: it is none of these.
   */
  release(id: string): Promise<void> | undefined {
    for (const pool of this.#pools.values()) {
      const blocks = this.blocksOf(pool.network);
      const block = blocks.find((one) => one.id === id);
      if (block !== undefined) return this.#release(pool, block, blocks.filter((one) => one.pool === block.pool).length - 1);
    }
    return undefined;
  }

  async #release(pool: PortPool, { cidr }: Block, rest: number): Promise<void> {
    if (rest === 0) throw new Fault('in-use', `${cidr} stays the node's for the next pod`);
    const wanted = Math.min(pool.wanted, rest);
    this.#asked.set(pool.network.id, wanted);
    const body = bodyOfPool({ ...pool, wanted, left: [...pool.left, cidr] }, pool.revision);
    this.#put(await this.#options.client.replace(`${portPoolsPath}/${pool.name}`, body));
  }

  /**
   * One more block of the pool than the node has. Faults: `unavailable`, with the reason where one is told.
   */
  async claim({ network: id, pool, has = 0 }: { readonly network: string; readonly pool: string; readonly has?: number }): Promise<Block> {
    const network = this.#networks?.find((one) => one.id === id);
    if (network === undefined) throw new Fault('not-found', `No network ${id} of the cloud`);
    this.#asked.set(id, Math.max(this.#asked.get(id) ?? 0, has + 1));
    void this.#settle();
    const start = performance.now();
    const isHopeful = (): boolean => performance.now() - start < (this.#isHindered(network) ? hopeMs : patienceMs);
    while (isHopeful() && !this.#stop.signal.aborted) {
      const held = this.blocksOf(network).filter((block) => block.pool === pool);
      const last = held.at(-1);
      const block = held.length > has && last !== undefined ? this.#options.known(last.id) : undefined;
      if (block !== undefined) return block;
      await delay(lookMs);
    }
    const { problem } = this.#pools.get(portPoolName(network, this.#options.host)) ?? {};
    throw new Fault('unavailable', problem ?? `This node has no port left for pods of ${network.key}, and nobody has made more yet`, {
      hint: 'They are made by a controller of the cluster that keeps the cloud: kubectl get portpools tells how far it is',
    });
  }

  #isHindered(network: OwnNetwork): boolean {
    return fallbacksOf(network).length > 0 && this.#pools.get(portPoolName(network, this.#options.host))?.problem !== undefined;
  }

  #put(item: unknown): void {
    try {
      const pool = readPortPool(item);
      if (pool.host !== this.#options.host) return;
      const before = this.#pools.get(pool.name);
      this.#pools.set(pool.name, pool);
      if (told(before) !== told(pool)) this.#changed();
      void this.#settle();
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#options.log.warn({ problem: error.message }, 'cannot use a port pool');
    }
  }

  /** What was wished last is compared with what the watch showed last, and only the difference is written. */
  async #settle(): Promise<void> {
    if (this.#isBusy || !this.#isListed || this.#networks === undefined || this.#stop.signal.aborted) return;
    const work = this.#next(this.#networks);
    if (work === undefined) return;
    this.#isBusy = true;
    const failure = await this.#failureOf(work);
    this.#isBusy = false;
    if (failure !== this.#failure && failure !== '') this.#options.log.warn({ problem: failure }, 'cannot ask for ports of the cloud');
    this.#failure = failure;
    this.#later(failure === '' ? shownMs : retryMs);
  }

  #later(ms: number): void {
    clearTimeout(this.#retry);
    if (!this.#stop.signal.aborted) this.#retry = setTimeout(() => void this.#settle(), ms);
  }

  /** Empty: it was done, or somebody else has changed the same meanwhile, of which the watch tells. */
  async #failureOf(work: () => Promise<unknown>): Promise<string> {
    try {
      await work();
      return '';
    } catch (error) {
      if (isFault(error, 'conflict')) return '';
      if (!isFault(error)) throw error;
      return error.message;
    }
  }

  #next(networks: readonly OwnNetwork[]): (() => Promise<unknown>) | undefined {
    const { client, host, portless: count } = this.#options;
    const wanted = new Map(networks.map((network) => [portPoolName(network, host), network]));
    for (const [name, network] of wanted) {
      const pool = this.#pools.get(name);
      const asked = Math.max(this.#asked.get(network.id) ?? 1, pool?.wanted ?? 0);
      const portless = count(network.id);
      if (pool === undefined) return () => client.create(portPoolsPath, bodyOfPool({ network, host, wanted: asked, left: [], portless }));
      const left = pool.left.filter((cidr) => pool.blocks.some((block) => block.cidr === cidr));
      if (pool.wanted < asked || left.length < pool.left.length || pool.portless !== portless)
        return () =>
          client.replace(`${portPoolsPath}/${name}`, bodyOfPool({ network, host, wanted: asked, left, portless }, pool.revision));
    }
    const left = [...this.#pools.values()].find(({ name }) => !wanted.has(name));
    return left === undefined ? undefined : () => client.remove(`${portPoolsPath}/${left.name}`, left.revision);
  }
}

/** What the rest of the agent knows of a pool. */
const told = (pool: PortPool | undefined): string => JSON.stringify([pool?.blocks, pool?.left, pool?.place]);
