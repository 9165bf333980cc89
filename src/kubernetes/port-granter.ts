// The controller's part of networks of the cloud: finds where each lies, and has ports made for the blocks that nodes want, before it says
// so in the status of their port pools (port-pools.ts). What has to be one after the other is: this runs where the Lease is held.
import { setTimeout as delay } from 'node:timers/promises';
import type { NeutronRequest } from '#api/local.ts';
import { chooseBlock } from '#model/claims.ts';
import { Fault, isFault } from '#model/fault.ts';
import { type Cidr, type Family, familyOf, type Ip, overlaps, hostPrefix } from '#model/ip.ts';
import type { Block, FoundPlace, NeutronPlace, Pool } from '#model/resources.ts';
import type { KubernetesClient } from './client.ts';
import type { CloudSource } from './cloud-source.ts';
import { blockOf, cloudFactsOf, type PortPool, portPoolsPath, type PortPoolStatus, readPortPool, withPoolStatus } from './port-pools.ts';

/** What it asks of whoever speaks with the cloud. Faults of all: as Neutron's. */
export interface CloudPorts {
  /** Faults: `not-found`, `invalid` (no name of one thing, or not one subnet of a family). */
  find(asked: NeutronRequest, families: readonly Family[]): Promise<FoundPlace>;
  /** Addresses of the subnets that ports of others have. */
  occupied(place: NeutronPlace): Promise<readonly Ip[]>;
  /** Has the block's ports made, then does `commit` with it; they go again when that fails. Faults: `exists`, and others. */
  hold<T>(block: Block, commit: (block: Block) => Promise<T>): Promise<T>;
}

export interface PortGranterOptions {
  readonly client: Pick<KubernetesClient, 'get' | 'replace' | 'remove'>;
  readonly source: Pick<CloudSource, 'portPools' | 'learn'>;
  readonly cloud: CloudPorts;
  readonly isLeading: () => boolean;
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
}

const mostTries = 8;
const firstRetryMs = 2_000;
const lastRetryMs = 60_000;
/** Changes come in bursts. */
const settleMs = 100;

export class PortGranter {
  readonly #options: PortGranterOptions;
  /** What was said last of each pool. */
  readonly #said = new Map<string, string>();
  #isKicked = false;
  #wake: () => void = () => undefined;

  constructor(options: PortGranterOptions) {
    this.#options = options;
  }

  /** Something may be wanted that was not. */
  kick(): void {
    this.#isKicked = true;
    this.#wake();
  }

  /** Until `signal` aborts. To be called when the source is whole. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#wake());
    for (let failures = 0; !signal.aborted;) {
      this.#isKicked = false;
      failures = !this.#options.isLeading() || (await this.#round()) ? 0 : failures + 1;
      await this.#pause(failures === 0 ? lastRetryMs : Math.min(firstRetryMs * 2 ** (failures - 1), lastRetryMs), signal);
      if (!signal.aborted) await delay(settleMs);
    }
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted || this.#isKicked) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    const timer = setTimeout(resolve, ms);
    await promise;
    clearTimeout(timer);
  }

  /** Whether everything is as wanted. */
  async #round(): Promise<boolean> {
    const { client, source, log } = this.#options;
    const { used, left } = source.portPools;
    let isDone = true;
    for (const { name, revision } of left) {
      try {
        await client.remove(`${portPoolsPath}/${name}`, revision);
      } catch (error) {
        if (!isFault(error)) throw error;
        isDone = false;
      }
    }
    for (const pool of used) {
      try {
        await this.#grant(pool);
        if (pool.problem !== undefined)
          await this.#write(pool.name, ({ place, blocks }) => ({ ...(place === undefined ? {} : { place }), blocks }));
        this.#said.delete(pool.name);
      } catch (error) {
        if (!isFault(error)) throw error;
        isDone = false;
        if (this.#said.get(pool.name) !== error.message) log.warn({ error, pool: pool.name }, 'cannot make ports for pods');
        this.#said.set(pool.name, error.message);
        await this.#tell(pool.name, error);
      }
    }
    return isDone;
  }

  /** Not to be able to tell is told by the next try. */
  async #tell(name: string, { message, hint }: Fault): Promise<void> {
    const problem = hint === undefined ? message : `${message}. ${hint}`;
    await this.#write(name, (status) => ({ ...status, problem })).catch((error: unknown) => {
      if (!isFault(error)) throw error;
    });
  }

  async #grant(asked: PortPool): Promise<void> {
    const { network } = asked;
    if (asked.place?.gateways === undefined) await this.#place(asked);
    // Of what is not told here the keeper of the cloud removes the ports.
    if (asked.blocks.some(({ cidr }) => asked.left.includes(cidr)))
      await this.#write(asked.name, (status) => ({ ...status, blocks: status.blocks.filter(({ cidr }) => !asked.left.includes(cidr)) }));
    // What was written is in the source at once.
    const latest = (): PortPool | undefined => this.#options.source.portPools.used.find(({ name }) => name === asked.name);
    for (const pool of cloudFactsOf(network, latest()?.place).pools.filter(({ fallback }) => fallback !== true)) {
      for (;;) {
        const now = latest();
        if (now?.place === undefined || now.blocks.filter(({ cidr }) => overlaps(pool.cidr, cidr)).length >= now.wanted) break;
        await this.#grantOne(now, now.place, pool);
      }
    }
  }

  /** Fault `invalid` when the definition says another subnet than the cloud. */
  async #place({ name, network }: PortPool): Promise<void> {
    const { neutron, subnets } = network;
    if (neutron === undefined) throw new Fault('invalid', 'The network is none of the cloud', { field: 'spec.network.neutron' });
    const { place, subnets: found } = await this.#options.cloud.find(
      neutron,
      subnets.map(familyOf).toSorted((a, b) => a - b),
    );
    const odd = found.find(({ cidr }) => !subnets.includes(cidr));
    if (odd !== undefined)
      throw new Fault('invalid', `Definition ${network.key} says subnets ${subnets.join(', ')}, and in Neutron it is ${odd.cidr}`, {
        hint: `Write "subnets": ["${odd.cidr}"], and "ranges" for the part that pods get`,
      });
    const gateways = found.flatMap(({ gateway }) => gateway ?? []);
    await this.#write(name, (status) => ({ ...status, place: { ...place, gateways } }));
  }

  /** Another block each time that somebody was faster with one of its addresses. */
  async #grantOne(asked: PortPool, place: NeutronPlace, pool: Pool): Promise<void> {
    const { cloud, source, log } = this.#options;
    const held = source.portPools.used.flatMap(({ blocks }) => blocks.map(({ cidr }) => cidr));
    const occupied = (await cloud.occupied(place)).map(hostPrefix);
    const refused = new Set<Cidr>();
    for (let tries = 1; ; tries++) {
      const isTaken = (cidr: Cidr): boolean =>
        refused.has(cidr) || asked.left.includes(cidr) || [...held, ...occupied].some((one) => overlaps(one, cidr));
      const cidr = chooseBlock(pool, isTaken, 'low');
      if (cidr === undefined) throw new Fault('exhausted', `No block /${pool.blockLength} is left in ${pool.range ?? pool.cidr}`);
      try {
        await cloud.hold(blockOf(asked, { cidr }), ({ vlan }) =>
          this.#write(asked.name, (status) => ({
            ...status,
            blocks: [...status.blocks, { cidr, ...(vlan === undefined ? {} : { vlan }) }],
          })),
        );
        log.info({ pool: asked.name, cidr }, 'ports for pods are there');
        return;
      } catch (error) {
        if (!isFault(error, 'exists') || tries === mostTries) throw error;
        refused.add(cidr);
      }
    }
  }

  /** Again and again until nobody else has written meanwhile; what was written is known to the source on return. */
  async #write(name: string, change: (status: PortPoolStatus) => PortPoolStatus): Promise<void> {
    const { client, source } = this.#options;
    const path = `${portPoolsPath}/${name}`;
    for (let tries = 1; ; tries++) {
      const item = await client.get(path);
      const { place, blocks, problem } = readPortPool(item);
      const before = { ...(place === undefined ? {} : { place }), blocks, ...(problem === undefined ? {} : { problem }) };
      const next = change(before);
      if (JSON.stringify(next) === JSON.stringify(before)) return;
      try {
        source.learn(await client.replace(`${path}/status`, withPoolStatus(item, next)));
        return;
      } catch (error) {
        if (!isFault(error, 'conflict') || tries === mostTries) throw error;
      }
    }
  }
}
