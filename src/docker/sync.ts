// Keeps this host's engine and Causeway in step, outside of plugin calls: the engine is told of networks made elsewhere, and
// Causeway of names given here. Level-triggered: a pass compares whole listings. Events about one container, of which many
// come at once, make only that container be looked at: an engine that is busy starting containers is not kept from it.
import { isFault } from '#model/fault.ts';
import type { Engine, EngineEvent } from './engine.ts';
import { flawOf } from './flaws.ts';
import { type Recovery, takeUpEndpoints } from './recovery.ts';
import { EngineResolver } from './resolver.ts';
import { EndpointSync, type EndpointSyncOptions } from './sync-endpoints.ts';
import { SwarmSync, type SwarmSyncOptions } from './swarm.ts';
import { NetworkSync, type NetworkState } from './sync-networks.ts';

export interface SyncOptions extends Omit<EndpointSyncOptions, 'lostMs' | 'engine'> {
  readonly engine: Engine;
  /** `global`: this is a Swarm's plugin, whose networks are the managers'. */
  readonly scope?: 'local' | 'global';
  readonly underlayMtu?: SwarmSyncOptions['underlayMtu'];
  readonly driver?: string;
  /** Endpoints are taken up again while the agent misses them. */
  readonly recovery?: Recovery;
  readonly settleMs?: number;
  readonly lostMs?: number;
  /** A pass is made at least this often. */
  readonly everyMs?: number;
}

/** For `causeway status`. */
export interface SyncStatus {
  readonly engine: 'connected' | 'away' | 'unknown';
  /** Why the last pass failed. */
  readonly error?: string;
  /** RFC 3339; of the last pass that succeeded. */
  readonly lastPassAt?: string;
  readonly networks: readonly NetworkState[];
  readonly problems: readonly string[];
}

export class Sync {
  readonly #options: SyncOptions;
  readonly #engine: Engine;
  readonly #networks: NetworkSync;
  readonly #endpoints: EndpointSync;
  readonly #swarm: SwarmSync;
  #status: SyncStatus = { engine: 'unknown', networks: [], problems: [] };
  #isDirty = true;
  /** The engine's; undefined while it has not been met since it came. */
  #version: string | undefined;
  /** Containers to be looked at before the next pass. */
  readonly #concerned: Set<string> = new Set();
  #seenNetworks = '';
  #wake: () => void = () => {};

  constructor(options: SyncOptions) {
    const { driver = 'causeway', settleMs = 10_000, lostMs = 30_000 } = options;
    this.#options = options;
    this.#engine = options.engine;
    this.#networks = new NetworkSync({ ...options, driver, settleMs });
    this.#endpoints = new EndpointSync({ ...options, lostMs });
    const ours = options.scope === 'global' ? driver : undefined;
    this.#swarm = new SwarmSync({ ...options, driver: ours, settleMs, underlayMtu: options.underlayMtu ?? (() => undefined) });
  }

  status(): SyncStatus {
    return { ...this.#status, problems: [...this.#status.problems, ...this.#endpoints.notices] };
  }

  /** One sentence for each thing in this engine that is not as it should be. */
  problems(): string[] {
    const networks = this.#status.networks.flatMap(({ name, state, message }) =>
      state === 'problem' ? [`Docker network ${name}: ${message ?? 'differs in this engine'}`] : [],
    );
    return [...networks, ...this.status().problems.map((problem) => `Docker: ${problem}`)];
  }

  /** Something changed: look at everything again soon. */
  kick(): void {
    this.#isDirty = true;
    this.#wake();
  }

  /** To be called after every change of facts; most are about endpoints, and the engine need not be asked for these. */
  factsChanged(): void {
    const { agent } = this.#options;
    const networks = agent.networks().map(({ id, revision, deletedAt = '' }) => `${id} ${revision} ${deletedAt}`);
    const seen = [agent.isSynced(), this.#options.underlayMtu?.(), ...networks].join('\n');
    if (seen === this.#seenNetworks) return;
    this.#seenNetworks = seen;
    this.kick();
  }

  /** One pass over everything. Faults: `unavailable` (engine), and those of the agent. */
  async pass(): Promise<void> {
    this.#version ??= await this.#meet();
    const own = this.#options.scope === 'global' ? [] : await this.#networks.pass();
    const networks = [...own, ...(await this.#swarm.pass())];
    await this.#recover();
    const flaw = flawOf(this.#version);
    const problems = [...(flaw === undefined ? [] : [flaw]), ...(await this.#endpoints.pass())];
    this.#status = { engine: 'connected', lastPassAt: new Date().toISOString(), networks, problems };
    // What waits has no event that would end the waiting.
    if (networks.some((network) => network.state === 'waiting') || this.#endpoints.isMissingAny) this.#later(1000);
  }

  async #meet(): Promise<string> {
    const { records, scope } = this.#options;
    const version = await this.#engine.version();
    // In a Swarm its engines know all names by themselves.
    if (scope !== 'global') new EngineResolver(records).began(version);
    return version;
  }

  async #look(): Promise<void> {
    const concerned = [...this.#concerned];
    this.#concerned.clear();
    // At once: the engine does not answer about a container before it has started.
    await Promise.all(concerned.map((id) => this.#endpoints.look(id)));
  }

  /** Not before the whole of the cluster is known, and the engine's networks again. */
  async #recover(): Promise<void> {
    const { agent, recovery } = this.#options;
    if (recovery?.isNeeded() !== true || !agent.isSynced()) return;
    await takeUpEndpoints(this.#options);
    recovery.done();
  }

  /** Runs until `signal` aborts; an engine that is away is asked again with growing pauses. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#follow(signal), this.#loop(signal)]);
  }

  async #loop(signal: AbortSignal): Promise<void> {
    const { log, everyMs = 30_000 } = this.#options;
    let failures = 0;
    while (!signal.aborted) {
      if (!this.#isDirty && this.#concerned.size === 0 && !(await this.#sleep(everyMs, signal))) this.#isDirty = true;
      const isWhole = this.#isDirty;
      this.#isDirty = false;
      const began = performance.now();
      try {
        await this.#look();
        if (isWhole) await this.pass();
        failures = 0;
        // Many events come at once; one look answers them all, and looking is a small part of what the engine does.
        await this.#pause(restMs(performance.now() - began), signal);
      } catch (error) {
        this.#failed(error);
        if (!isFault(error, 'unavailable')) log.error({ error }, 'a pass over the Docker engine failed');
        this.#isDirty = true;
        await this.#pause(backOffMs(failures++), signal);
      }
    }
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { log } = this.#options;
    let failures = 0;
    const onOpen = (): void => {
      failures = 0;
      this.#version = undefined;
      this.#endpoints.forget();
      this.kick();
    };
    while (!signal.aborted) {
      try {
        for await (const event of this.#engine.events({ signal, onOpen })) this.#heard(event);
      } catch (error) {
        if (signal.aborted) return;
        this.#failed(error);
        log.debug({ error }, "lost the Docker engine's events");
      }
      await this.#pause(backOffMs(failures++), signal);
    }
  }

  /** The engine's own overlay is listed too (model swarm), so who is on it matters; other drivers' networks do not. */
  #heard({ type, action, id, container, driver }: EngineEvent): void {
    const { driver: ours = 'causeway' } = this.#options;
    if (type === 'container') this.#concern(id);
    else if (action !== 'connect' && action !== 'disconnect') {
      this.kick();
      // A Swarm tells that a network goes while it still lists it.
      this.#later(2000);
    } else if (driver === 'overlay') this.kick();
    else if (driver === ours && container !== undefined) this.#concern(container);
  }

  #concern(container: string): void {
    this.#endpoints.forget(container);
    this.#concerned.add(container);
    this.#wake();
  }

  #failed(error: unknown): void {
    const text = error instanceof Error ? error.message : 'unknown error';
    this.#status = { ...this.#status, engine: isFault(error, 'unavailable') ? 'away' : this.#status.engine, error: text };
  }

  #later(ms: number): void {
    setTimeout(() => this.kick(), ms).unref();
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, ms);
      function done(): void {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      }
      signal.addEventListener('abort', done, { once: true });
    });
  }

  /** As #pause, but a kick ends it: then true. */
  async #sleep(ms: number, signal: AbortSignal): Promise<boolean> {
    const ended = new AbortController();
    this.#wake = () => ended.abort();
    await this.#pause(ms, AbortSignal.any([signal, ended.signal]));
    this.#wake = () => {};
    return ended.signal.aborted;
  }
}

/** The engine's socket is on this machine: asking costs next to nothing, and users wait for its networks after a restart. */
const backOffMs = (failures: number): number => 250 * 2 ** Math.min(failures, 3);

const restMs = (workMs: number): number => Math.min(1000, Math.max(50, 4 * workMs));
