// One pass over networks: every network of ours exists in this engine, those that are gone are removed from it, and names
// given by users of this engine are published. Outside plugin calls, from full listings, so it may run at any moment.
import type { LocalAgent } from '#api/local.ts';
import { isFault } from '#model/fault.ts';
import { familyOf } from '#model/ip.ts';
import type { Network } from '#model/resources.ts';
import { differencesOf } from './differences.ts';
import type { Engine, EngineNetwork } from './engine.ts';
import type { Log } from './log.ts';
import { dockerLabels, provisionalName } from './networks.ts';
import { networkOption } from './options.ts';
import type { Binding, DockerRecords } from './records.ts';

export interface NetworkState {
  readonly id: string;
  readonly name: string;
  readonly state: 'ok' | 'waiting' | 'problem';
  /** Why not, and what to do. */
  readonly message?: string;
}

export interface NetworkSyncOptions {
  readonly agent: LocalAgent;
  readonly records: DockerRecords;
  readonly engine: Pick<Engine, 'networks' | 'createNetwork' | 'removeNetwork'>;
  readonly log: Log;
  /** The driver's name in this engine; for a managed plugin its tag. */
  readonly driver: string;
  /** How long something half-made by a call under way is left alone. */
  readonly settleMs: number;
}

export class NetworkSync {
  readonly #options: NetworkSyncOptions;
  /** When a network or binding was first found to be waiting, by what it waits for. */
  readonly #since: Map<string, number> = new Map();

  constructor(options: NetworkSyncOptions) {
    this.#options = options;
  }

  /** Faults: `unavailable` (engine). What goes wrong with one network is its state, not a Fault. */
  async pass(): Promise<NetworkState[]> {
    const { agent, engine, driver } = this.#options;
    if (!agent.isSynced()) return [];
    const all = await engine.networks();
    const present = new Map<string, EngineNetwork>();
    const states: NetworkState[] = [];
    for (const one of all.filter((network) => network.driver === driver && network.scope === 'local')) {
      const network = this.#bind(one);
      if (network === undefined) states.push(await this.#removeCopy(one));
      else if (present.has(network.id))
        states.push(problem(network, `The engine has it twice; remove one: docker network rm ${one.id.slice(0, 12)}`));
      else if (await this.#keep(one, network, states)) present.set(network.id, one);
    }
    for (const one of all.filter(({ scope, driver: name }) => scope === 'swarm' && (name === driver || name.startsWith(`${driver}:`)))) {
      const network = this.#byLabel(one.id);
      if (network !== undefined) await this.#keep(one, network, states);
    }
    const inFlight = this.#underWay(new Set(all.map((network) => network.id)));
    for (const network of agent.networks()) {
      if (!isWanted(network) || present.has(network.id)) continue;
      // Whoever waits is looked at again soon: no event comes when the engine has given up.
      if (inFlight.has(network.id)) states.push(waiting(network, 'The engine is making it'));
      else if (!states.some((state) => state.id === network.id)) states.push(await this.#add(network, all));
    }
    return states.sort((a, b) => a.name.localeCompare(b.name));
  }

  #byLabel(dockerId: string): Network | undefined {
    return this.#options.agent
      .networks()
      .find(({ labels, deletedAt }) => labels[dockerLabels.network] === dockerId && deletedAt === undefined);
  }

  /** The network that an engine's network shows; makes the binding anew where it was lost. */
  #bind(one: EngineNetwork): Network | undefined {
    const { agent, records, driver } = this.#options;
    const known = records.bindings.get(one.id);
    const id = known?.network ?? one.options[networkOption] ?? this.#byLabel(one.id)?.id;
    const network = id === undefined ? undefined : (agent.network(id) ?? agent.networks().find(({ name }) => name === id));
    if (network === undefined || network.deletedAt !== undefined) return undefined;
    const binding: Binding = known ?? {
      network: network.id,
      ipam: one.ipamDriver === driver ? 'causeway' : 'other',
      origin: one.options[networkOption] === undefined ? 'user' : 'sync',
      confirmed: true,
      unbinding: false,
    };
    if (known === undefined || !known.confirmed || known.unbinding) {
      records.bindings.put(one.id, { ...binding, confirmed: true, unbinding: false });
    }
    return network;
  }

  async #removeCopy(one: EngineNetwork): Promise<NetworkState> {
    const { engine, log } = this.#options;
    try {
      await engine.removeNetwork(one.id);
      log.info({ network: one.name }, 'removed from the engine a network that is gone');
      return { id: one.id, name: one.name, state: 'ok', message: 'Removed from this engine' };
    } catch (error) {
      if (!isFault(error) || error.code === 'unavailable') throw error;
      return {
        id: one.id,
        name: one.name,
        state: 'problem',
        message: `It was removed elsewhere but has containers here; stop or disconnect them (${error.message})`,
      };
    }
  }

  /** Whether the engine's network stays. A user's name is published, a copy follows the name. */
  async #keep(one: EngineNetwork, network: Network, states: NetworkState[]): Promise<boolean> {
    const { records } = this.#options;
    if (one.name === network.name) {
      states.push({ id: network.id, name: network.name, state: 'ok' });
      return true;
    }
    if (network.name === provisionalName(one.id)) return await this.#publishName(one, network, states);
    const binding = records.bindings.get(one.id);
    if (binding?.origin === 'sync' && (await this.#removeRenamed(one, binding))) return false;
    states.push(problem(network, `Known as ${one.name} in this engine until no container uses it`));
    return true;
  }

  async #publishName(one: EngineNetwork, network: Network, states: NetworkState[]): Promise<boolean> {
    const { agent, log } = this.#options;
    try {
      await agent.renameNetwork(network.id, one.name, one.labels);
      this.#setConflict(one, undefined);
      states.push({ id: network.id, name: one.name, state: 'ok' });
    } catch (error) {
      if (!isFault(error)) throw error;
      if (error.code === 'exists') return await this.#hasOther(one, network, states);
      log.warn({ network: network.id, name: one.name, error }, 'could not publish the name of a network');
      states.push(problem({ id: network.id, name: one.name }, `Its name is not published yet: ${error.message}`));
    }
    return true;
  }

  /** The controller has another network of that name. Nothing is told or given up before this host knows it too. */
  async #hasOther(one: EngineNetwork, network: Network, states: NetworkState[]): Promise<boolean> {
    const first = this.#otherOfName(one, network);
    const about = { id: network.id, name: one.name };
    if (first === undefined) {
      states.push(waiting(about, 'Another network has its name; which one is not known here yet'));
      return true;
    }
    const differences = differencesOf(this.#options.agent, first, network, one);
    if (differences.length === 0 && (await this.#giveWay(one, network, first))) return false;
    const message = conflictOf(one, network, differences);
    this.#setConflict(one, message);
    states.push(problem(about, message));
    return true;
  }

  /** Told once when it begins and once when it ends. */
  #setConflict(one: EngineNetwork, conflict: string | undefined): void {
    const { log, records } = this.#options;
    const binding = records.bindings.get(one.id);
    if (binding === undefined || binding.conflict === conflict) return;
    records.bindings.put(one.id, { ...binding, conflict });
    if (conflict === undefined) log.info({ network: one.name }, 'is the network of its name now');
    else log.warn({ network: one.name, conflict }, 'is not the network that other hosts know by that name');
  }

  #otherOfName(one: EngineNetwork, network: Network): Network | undefined {
    return this.#options.agent
      .networks()
      .find(({ id, name, deletedAt }) => name === one.name && id !== network.id && deletedAt === undefined);
  }

  /**
   * Several hosts made the same network at the same moment, as a deployment tool does that runs everywhere: those that came
   * late are removed while nobody uses them, and the first one comes in their place. Networks that differ stay and are told.
   */
  async #giveWay(one: EngineNetwork, network: Network, first: Network): Promise<boolean> {
    const { agent, engine, log } = this.#options;
    if (agent.endpoints(network.id).length > 0) return false;
    try {
      await engine.removeNetwork(one.id);
    } catch (error) {
      if (isFault(error) && error.code !== 'unavailable') return false;
      throw error;
    }
    log.info({ network: network.id, name: one.name, instead: first.id }, 'gave way to the network of that name made at the same time');
    return true;
  }

  async #removeRenamed(one: EngineNetwork, binding: Binding): Promise<boolean> {
    const { engine, records } = this.#options;
    records.bindings.put(one.id, { ...binding, unbinding: true });
    try {
      await engine.removeNetwork(one.id);
      return true;
    } catch (error) {
      records.bindings.put(one.id, { ...binding, unbinding: false });
      if (isFault(error) && error.code !== 'unavailable') return false;
      throw error;
    }
  }

  /** Networks whose CreateNetwork has come while the engine does not list them yet. Bindings of lost ones end here. */
  #underWay(listed: ReadonlySet<string>): Set<string> {
    const { records } = this.#options;
    const beingMade = new Set<string>();
    for (const { id, record } of records.bindings.list()) {
      const key = `binding ${id}`;
      if (listed.has(id)) this.#since.delete(key);
      else if (isForgotten(record) || this.#hasSettled(key)) {
        records.bindings.delete(id);
        this.#since.delete(key);
      } else beingMade.add(record.network);
    }
    return beingMade;
  }

  async #add(network: Network, all: readonly EngineNetwork[]): Promise<NetworkState> {
    const { agent, log } = this.#options;
    const madeFor = network.labels[dockerLabels.network];
    if (madeFor !== undefined && network.name === provisionalName(madeFor)) {
      if (!this.#hasSettled(`name ${network.id}`)) return waiting(network, 'Its name is not known yet');
      if (network.labels[dockerLabels.host] === agent.host) return this.#dropHalfMade(network);
    }
    this.#since.delete(`name ${network.id}`);
    const other = all.find((one) => one.name === network.name);
    if (other !== undefined) {
      return problem(network, `This engine has a network of that name with driver ${other.driver}; remove or rename one of the two`);
    }
    try {
      await this.#create(network);
      log.info({ network: network.name }, 'created in the engine');
      return { id: network.id, name: network.name, state: 'ok' };
    } catch (error) {
      if (!isFault(error) || error.code === 'unavailable') throw error;
      log.warn({ network: network.name, error }, 'could not create a network in the engine');
      return problem(network, error.message);
    }
  }

  /** The engine gave up the creation, or forgot its network, before its name was known: nobody can be using it by name. */
  async #dropHalfMade(network: Network): Promise<NetworkState> {
    const { agent } = this.#options;
    try {
      await agent.removeNetwork(network.id);
      return { id: network.id, name: network.name, state: 'ok', message: 'Removed: its creation was given up' };
    } catch (error) {
      if (!isFault(error)) throw error;
      return problem(network, `The engine where it was made has lost it: ${error.message}`);
    }
  }

  async #create(network: Network): Promise<void> {
    const { agent, engine, driver, records } = this.#options;
    const pools = agent.pools(network.id).filter(({ fallback }) => fallback !== true);
    const labels = Object.entries(network.labels).filter(([key]) => !key.startsWith('causeway.docker.'));
    // Naming the subnet keeps Docker from comparing it with the host's routes, which own networks may well overlap.
    const id = await engine.createNetwork({
      name: network.name,
      driver,
      internal: network.internal,
      attachable: network.attachable,
      ipv4: pools.some((pool) => familyOf(pool.cidr) === 4),
      ipv6: pools.some((pool) => familyOf(pool.cidr) === 6),
      ipam: { driver, options: { [networkOption]: network.id }, pools: pools.map(({ cidr, gateway }) => ({ subnet: cidr, gateway })) },
      options: { [networkOption]: network.id },
      labels: Object.fromEntries(labels),
    });
    const binding = records.bindings.get(id);
    if (binding !== undefined) records.bindings.put(id, { ...binding, confirmed: true });
  }

  #hasSettled(key: string): boolean {
    const now = performance.now();
    const since = this.#since.get(key);
    if (since === undefined) this.#since.set(key, now);
    return now - (since ?? now) >= this.#options.settleMs;
  }
}

/**
 * A copy that the engine has listed before, and lists no more. Where a removal that we refused came between the listing and this
 * look, the binding was made anew after the engine had forgotten the network: there is nothing to wait for then.
 */
const isForgotten = ({ origin, confirmed }: Binding): boolean => origin === 'sync' && confirmed;

/** Networks that live in Docker itself (model swarm) or whose addresses are a Swarm manager's are not shown by us. */
const isWanted = (network: Network): boolean =>
  network.model !== 'swarm' && network.addressing === 'blocks' && network.deletedAt === undefined;

type Named = Pick<Network, 'id' | 'name'>;
const problem = ({ id, name }: Named, message: string): NetworkState => ({ id, name, state: 'problem', message });
export const waiting = ({ id, name }: Named, message: string): NetworkState => ({ id, name, state: 'waiting', message });

function conflictOf({ name, id }: EngineNetwork, network: Network, differences: readonly string[]): string {
  const why = differences.length === 0 ? 'it has containers here' : differences.join('; ');
  return `Another network is named ${name} (${why}); this one, which other hosts know as ${network.name}, is not it. Remove it: docker network rm ${id.slice(0, 12)}. Create it again under another name to have both`;
}
