// The networks of a Swarm, kept in step by the agents of its managers. Networks that Causeway was asked for are made in the
// Swarm: with our driver where this agent is its plugin, with Docker's own overlay driver for the model `swarm`. Docker's own
// networks that are there are recorded, so that one list shows all, and every host's agent records the containers that its
// engine has on them; their packets, addresses and names stay Docker's. Levels, not events: every pass compares whole listings.
// Facts relied on (moby v26.1.5): names are unique in a Swarm; a manager lists all of its networks, a worker those in use
// there, and so does a manager whose Swarm does not answer it (getNetworksList drops the error): what a listing lacks may be there;
// the option `com.docker.network.driver.mtu` is the MTU *below* VXLAN (drivers/overlay/ov_network.go).
import type { LocalAgent, PoolRequest } from '#api/local.ts';
import { type Fault, isFault } from '#model/fault.ts';
import { contains, familyOf, type Ip, parseCidr, parseInterface, parseIp, parseMac } from '#model/ip.ts';
import type { Host, Network } from '#model/resources.ts';
import type { Engine, EngineMember, EngineOverlay } from './engine.ts';
import type { Log } from './log.ts';
import { dockerLabels, provisionalName } from './networks.ts';
import { networkOption } from './options.ts';
import type { DockerRecords } from './records.ts';
import { type NetworkState, waiting } from './sync-networks.ts';

/** Label on a network of ours: the Swarm that it is in. */
export const clusterLabel = 'causeway.docker.swarm';

const mtuOption = 'com.docker.network.driver.mtu';
/** What Docker takes of the MTU below: VXLAN over IPv4, and ESP where it is encrypted. */
const overhead = ({ encrypted }: Pick<Network, 'encrypted'>): number => (encrypted ? 76 : 50);
const builtIn = 'overlay';
/** What Docker assumes of the underlay when it is not told. */
const assumedMtu = 1500;

export interface SwarmSyncOptions {
  readonly agent: LocalAgent;
  readonly records: DockerRecords;
  readonly engine: Pick<Engine, 'managedSwarm' | 'overlays' | 'members' | 'createNetwork' | 'removeNetwork'>;
  readonly log: Log;
  /** Our driver's name in the Swarm, where this agent is its plugin. */
  readonly driver: string | undefined;
  /** How long a network has to be missing in every listing before it is taken for removed, or for given up half-made. */
  readonly settleMs: number;
  /** The least MTU of all hosts' underlays; undefined while none is known. */
  readonly underlayMtu: () => number | undefined;
}

/** By network: since when it has been missing, as of the pass before and as of this one. */
interface Absences {
  readonly before: ReadonlyMap<string, number>;
  readonly missing: Map<string, number>;
}

export class SwarmSync {
  readonly #options: SwarmSyncOptions;
  /** Networks that the last pass found missing, and since when every pass has, in milliseconds; none after one that came to no listing. */
  #missingSince: ReadonlyMap<string, number> = new Map();

  constructor(options: SwarmSyncOptions) {
    this.#options = options;
  }

  /** Faults: `unavailable` (engine). What goes wrong with one network is its state. Nothing on an engine outside of Swarms. */
  async pass(): Promise<NetworkState[]> {
    const { agent, engine } = this.#options;
    const before = this.#missingSince;
    this.#missingSince = new Map();
    if (!agent.isSynced()) return [];
    const overlays = await engine.overlays([builtIn, ...(this.#options.driver === undefined ? [] : [this.#options.driver])]);
    if (overlays.length === 0 && !agent.networks().some((network) => this.#isConcerned(network))) return [];
    const swarm = await engine.managedSwarm();
    const missing = new Map<string, number>();
    const states = swarm === undefined ? [] : await this.#manage(swarm, overlays, { before, missing });
    states.push(...(await this.#recordMembers(overlays)));
    this.#missingSince = missing;
    return states;
  }

  #isConcerned(network: Network): boolean {
    return isDockers(network) || this.#options.driver !== undefined;
  }

  async #manage(swarm: string, overlays: readonly EngineOverlay[], { before, missing }: Absences): Promise<NetworkState[]> {
    const states: NetworkState[] = [];
    const seen = new Set<string>();
    for (const network of this.#options.agent.networks().filter((one) => this.#isConcerned(one))) {
      const known = network.labels[clusterLabel];
      if (network.deletedAt !== undefined || (known !== undefined && known !== swarm)) continue;
      const one = overlays.find(({ id, labels }) => id === network.labels[dockerLabels.network] || labels[networkOption] === network.id);
      if (one !== undefined) {
        seen.add(one.id);
        states.push(await this.#try(network, () => this.#keep(swarm, network, one)));
      } else if (network.labels[dockerLabels.network] === undefined) {
        states.push(await this.#try(network, () => this.#create(network)));
      } else {
        const since = before.get(network.id) ?? performance.now();
        missing.set(network.id, since);
        states.push(await this.#try(network, () => this.#missing(network, since)));
      }
    }
    for (const one of overlays.filter(({ id }) => !seen.has(id))) {
      const about = { id: one.id, name: one.name };
      if (this.#wasOurs(one)) states.push(await this.#try(about, () => this.#remove(one)));
      else if (one.driver === builtIn) states.push(await this.#try(about, () => this.#adopt(swarm, one)));
      else if (!this.#isRecorded(one)) {
        const since = before.get(one.id) ?? performance.now();
        missing.set(one.id, since);
        states.push(this.#unrecorded(one, since));
      }
    }
    return states;
  }

  async #try(about: Pick<NetworkState, 'id' | 'name'>, work: () => Promise<NetworkState>): Promise<NetworkState> {
    try {
      return await work();
    } catch (error) {
      if (!isFault(error) || error.code === 'unavailable') throw error;
      this.#options.log.warn({ network: about.name, error }, "cannot keep a network of Docker's in step");
      return { ...about, state: 'problem', message: error.message };
    }
  }

  /** The record's network is there. */
  async #keep(swarm: string, network: Network, one: EngineOverlay): Promise<NetworkState> {
    const { agent, records } = this.#options;
    const about = { id: network.id, name: network.name };
    if (records.bindings.get(one.id)?.network !== network.id) this.#bind(one, network);
    const name = network.name === provisionalName(one.id) ? one.name : network.name;
    const labels = name === network.name ? {} : one.labels;
    await agent.renameNetwork(network.id, name, { ...labels, [dockerLabels.network]: one.id, [clusterLabel]: swarm });
    const message = isDockers(network) ? this.#mtuProblem(network, one) : undefined;
    return message === undefined ? { ...about, name, state: 'ok' } : { ...about, state: 'problem', message };
  }

  /**
   * Its network was removed, or is being made at this moment, or its creation was given up; or it is there and this listing lacks it, as
   * that of an engine which becomes a manager between two questions, or of one whose leader goes.
   */
  async #missing(network: Network, since: number): Promise<NetworkState> {
    const { agent, settleMs } = this.#options;
    const isOurs = network.labels[clusterLabel] !== undefined || network.labels[dockerLabels.host] === agent.host;
    if (!isOurs || performance.now() - since < settleMs) return waiting(network, 'The Swarm does not show it');
    await agent.removeNetwork(network.id);
    return { id: network.id, name: network.name, state: 'ok', message: 'Removed from the Swarm' };
  }

  #isRecorded({ id }: EngineOverlay): boolean {
    return this.#options.agent.networks().some(({ labels }) => labels[dockerLabels.network] === id);
  }

  /** Its record is on the way; or it was removed, and then the Swarm restored from a backup: nothing would tell why its tasks do not start. */
  #unrecorded({ id, name }: EngineOverlay, since: number): NetworkState {
    const message = 'The Swarm has it and Causeway does not, as after a restore from a backup, so no task of it starts';
    if (performance.now() - since < this.#options.settleMs) return waiting({ id, name }, message);
    return {
      id,
      name,
      state: 'problem',
      message: `${message}. Remove its services and itself (docker network rm ${name}), and make them again`,
    };
  }

  async #create(network: Network): Promise<NetworkState> {
    const { agent, engine, log } = this.#options;
    const driver = isDockers(network) ? builtIn : this.#options.driver;
    const options = isDockers(network) ? this.#overlayOptions(network) : { [networkOption]: network.id };
    if (driver === undefined || options === undefined) return waiting(network, "No host's MTU is known yet");
    const pools = agent.pools(network.id);
    const id = await engine.createNetwork({
      name: network.name,
      driver,
      internal: network.internal,
      attachable: network.attachable,
      ipv4: pools.some(({ cidr }) => familyOf(cidr) === 4),
      ipv6: pools.some(({ cidr }) => familyOf(cidr) === 6),
      ipam: {
        // Docker's own keeps every range for one network; ours may overlap.
        driver: isDockers(network) ? 'default' : driver,
        options: {},
        pools: pools.map(({ cidr, range, gateway }) => ({ subnet: cidr, range, gateway })),
      },
      options,
      labels: { ...network.labels, [networkOption]: network.id },
    });
    log.info({ network: network.name, id }, 'created in the Swarm');
    return waiting(network, 'Made in the Swarm just now');
  }

  #overlayOptions(network: Network): Record<string, string> | undefined {
    const below = this.#options.underlayMtu();
    if (below === undefined) return undefined;
    const mtu = network.mtu === undefined ? below : Math.min(below, network.mtu + overhead(network));
    return { [mtuOption]: String(mtu), ...(network.encrypted ? { encrypted: '' } : {}) };
  }

  /** Too large for some host: Docker sends such packets all the same, and they are lost on the way. */
  #mtuProblem(network: Network, one: EngineOverlay): string | undefined {
    const below = this.#options.underlayMtu();
    const assumed = Number(one.options[mtuOption] ?? assumedMtu);
    if (below === undefined || !(assumed > below)) return undefined;
    return `Made for an underlay with an MTU of ${assumed}, but ${below} is what the hosts have: full-size packets are lost. Make it again, with --model swarm or -o ${mtuOption}=${below}; containers then get ${below - overhead(network)}`;
  }

  /** Whether a manager's agent on this host had a record for it: then the record was removed, and the network is to follow. */
  #wasOurs(one: EngineOverlay): boolean {
    return this.#options.records.bindings.get(one.id) !== undefined;
  }

  async #remove(one: EngineOverlay): Promise<NetworkState> {
    const { engine, log } = this.#options;
    await engine.removeNetwork(one.id);
    log.info({ network: one.name, id: one.id }, 'removed from the Swarm');
    return { id: one.id, name: one.name, state: 'ok', message: 'Removed from the Swarm' };
  }

  async #adopt(swarm: string, one: EngineOverlay): Promise<NetworkState> {
    const { agent, log } = this.#options;
    const network = await agent.createNetwork({
      name: one.name,
      model: 'swarm',
      encrypted: isEncrypted(one),
      internal: one.internal,
      attachable: one.attachable,
      pools: one.pools.map(poolOf),
      labels: { [dockerLabels.network]: one.id, [clusterLabel]: swarm },
    });
    this.#bind(one, network);
    log.info({ network: one.name, id: one.id }, "recorded a network of Docker's");
    return { id: network.id, name: network.name, state: 'ok' };
  }

  #bind(one: EngineOverlay, network: Network): void {
    const binding = { network: network.id, ipam: 'other', origin: 'swarm', confirmed: true, unbinding: false } as const;
    this.#options.records.bindings.put(one.id, binding);
  }

  /** What this engine runs on such networks is recorded, what it no longer runs is not. */
  async #recordMembers(overlays: readonly EngineOverlay[]): Promise<NetworkState[]> {
    const { agent, engine } = this.#options;
    const states: NetworkState[] = [];
    const here = new Set<string>();
    for (const network of agent.networks().filter(isDockers)) {
      const one = overlays.find(({ id }) => id === network.labels[dockerLabels.network]);
      if (one === undefined) continue;
      for (const member of await engine.members(one.id)) {
        here.add(member.endpoint);
        if (agent.localEndpoint(member.endpoint) !== undefined) continue;
        const fault = await this.#record(network, member);
        if (fault === undefined) continue;
        states.push(waiting(network, `Cannot list ${member.name}: ${fault.message}`));
      }
    }
    const ids = new Set(agent.networks().flatMap((network) => (isDockers(network) ? [network.id] : [])));
    for (const { id, network } of agent.localEndpoints()) if (ids.has(network) && !here.has(id)) await agent.detach(id);
    return states;
  }

  /** The Fault is that an address or MAC still is somebody else's: Docker reuses both at once, and records go a moment later. */
  async #record(network: Network, { endpoint: id, name, mac, addresses }: EngineMember): Promise<Fault | undefined> {
    const { agent } = this.#options;
    try {
      const ips = addresses.map((address) => parseInterface(address).ip);
      for (const ip of ips) await agent.requestAddress(this.#poolOf(network, ip), ip, id);
      await agent.attach({ network: network.id, id, owner: name, name, addresses: ips, mac: parseMac(mac), ports: [] });
      return undefined;
    } catch (error) {
      if (!isFault(error)) throw error;
      return error;
    }
  }

  #poolOf(network: Network, ip: Ip): string {
    return this.#options.agent.pools(network.id).find(({ cidr }) => contains(cidr, ip))?.id ?? '';
  }
}

/** The least MTU below, of all hosts that have reported theirs; Docker's VXLAN goes over IPv4. */
export function leastMtu(hosts: Iterable<Pick<Host, 'underlay'>>): number | undefined {
  const mtus = [...hosts].flatMap(({ underlay }) => underlay.find(({ ip }) => familyOf(ip) === 4)?.mtu ?? []);
  return mtus.length === 0 ? undefined : Math.min(...mtus);
}

const isDockers = ({ model }: Network): boolean => model === 'swarm';

const isEncrypted = ({ options }: EngineOverlay): boolean => !['false', '0', undefined].includes(options['encrypted']);

const poolOf = ({ subnet, gateway }: EngineOverlay['pools'][number]): PoolRequest => {
  const cidr = parseCidr(subnet);
  return { cidr, family: familyOf(cidr), ...(gateway === undefined ? {} : { gateway: parseIp(gateway) }) };
};
