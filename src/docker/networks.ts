// The network half of libnetwork's remote driver protocol. Docker passes neither the network's name nor its labels, nor
// the pool ids that it got from the IPAM driver; names come later from the engine's events (sync.ts), and drafts are found
// by their prefix.
import type { LocalAgent, NetworkRequest, PoolRequest } from '#api/local.ts';
import { ipamHostLabel } from '#model/numbers.ts';
import { Fault, isFault } from '#model/fault.ts';
import { type Cidr, cidrLength, covers, familyOf, type Ip, parseCidr } from '#model/ip.ts';
import type { Network } from '#model/resources.ts';
import { firstOf } from '#model/words.ts';
import { findNetwork, type Ipam, isOurAddressSpace } from './ipam.ts';
import type { Log } from './log.ts';
import { networkOption, parseNetworkOptions, type ParsedOptions } from './options.ts';
import type { IpamData, Requests } from './protocol.ts';
import type { DockerRecords, Draft, SwarmPool } from './records.ts';
import { forgetGiven } from './swarm-ipam.ts';
import { eventually } from './wait.ts';

/** Labels on networks that were made through Docker: the engine's id of the network, the host where it was made, subnets that the user named. */
export const dockerLabels = {
  network: 'causeway.docker.network',
  host: 'causeway.docker.host',
  subnets: 'causeway.docker.subnets',
} as const;

/** Name of a network until its real one is known. */
export const provisionalName = (dockerId: string): string => `docker-${dockerId.slice(0, 12)}`;

export interface DriverOptions {
  readonly agent: LocalAgent;
  readonly records: DockerRecords;
  readonly ipam: Ipam;
  readonly log: Log;
  /** `global` for the Swarm plugin: networks are the managers', addresses too. */
  readonly scope: 'local' | 'global';
}

type Ipams = Pick<Requests['NetworkDriver.CreateNetwork'], 'IPv4Data' | 'IPv6Data'>;

export class Networks {
  readonly #agent: LocalAgent;
  readonly #records: DockerRecords;
  readonly #ipam: Ipam;
  readonly #scope: 'local' | 'global';

  constructor(options: DriverOptions) {
    this.#agent = options.agent;
    this.#records = options.records;
    this.#ipam = options.ipam;
    this.#scope = options.scope;
  }

  /** Swarm managers only; what is returned reaches every engine's CreateNetwork. Repeating it finds the same network. */
  async allocate(request: Requests['NetworkDriver.AllocateNetwork']): Promise<Readonly<Record<string, string>>> {
    const choices = parseNetworkOptions(withoutLabels(request.Options));
    const named = choices.network === undefined ? undefined : await this.#named(choices.network);
    if (named !== undefined) await this.#agent.renameNetwork(named.id, named.name, { [dockerLabels.network]: request.NetworkID });
    const known = named ?? this.#byLabel(request.NetworkID);
    const network = known ?? (await this.#create(request, request.NetworkID, choices, 'external', false));
    this.#settle(network, request, 'manager');
    return { ...request.Options, [networkOption]: network.id };
  }

  /** Absent already is success. Managers free a network right after its last task: endpoints may take a moment to go. */
  async free(request: Requests['NetworkDriver.FreeNetwork']): Promise<void> {
    const network = this.#byLabel(request.NetworkID);
    if (network === undefined) return;
    await eventually(10_000, async () => {
      try {
        await this.#agent.removeNetwork(network.id);
        return true;
      } catch (error) {
        if (isFault(error, 'in-use')) return undefined;
        throw error;
      }
    });
  }

  /** Faults: `invalid` (naming the option), `not-found` (named network), and those of LocalAgent.createNetwork. */
  async create(request: Requests['NetworkDriver.CreateNetwork']): Promise<void> {
    const { NetworkID: id, Options: options } = request;
    const choices = parseNetworkOptions(withoutLabels(options.generic));
    const bound = this.#records.bindings.get(id);
    // A manager's pass binds what it finds in the Swarm, maybe long before this engine has a task of it.
    if (bound !== undefined && bound.origin !== 'swarm' && this.#agent.network(bound.network) !== undefined) return;
    const ipam = request.IPv4Data.concat(request.IPv6Data).some((data) => isOurAddressSpace(data.AddressSpace)) ? 'causeway' : 'other';
    if (choices.network !== undefined) {
      const network = await this.#named(choices.network);
      if (ipam === 'other' && network.addressing === 'blocks') this.#checkPools(network, request);
      const origin = this.#scope === 'global' ? 'swarm' : 'sync';
      if (this.#scope === 'global' && ipam === 'causeway') this.#settle(network, request, 'engine');
      this.#records.bindings.put(id, { network: network.id, ipam, origin, confirmed: false, unbinding: false });
      return;
    }
    const addressing = this.#scope === 'global' ? 'external' : 'blocks';
    const network = this.#byLabel(id) ?? (await this.#create(request, id, choices, addressing, options.internal));
    this.#records.bindings.put(id, { network: network.id, ipam, origin: 'user', confirmed: true, unbinding: false });
  }

  /**
   * A user's `docker network rm` removes the network everywhere, or fails with `in-use`. dockerd 26 then logs the text and
   * forgets its network all the same, so the binding goes in any case and sync makes the engine's network again. Removal
   * of a copy by sync, of a copy whose creation is being rolled back, and of a network that is gone only unbinds.
   */
  async remove(request: Requests['NetworkDriver.DeleteNetwork']): Promise<void> {
    const bound = this.#records.bindings.get(request.NetworkID);
    if (bound === undefined) return;
    const network = this.#agent.network(bound.network);
    const isUsers = bound.origin === 'user' || (bound.origin === 'sync' && bound.confirmed);
    try {
      if (network !== undefined && network.deletedAt === undefined && isUsers && !bound.unbinding) await this.#removeEverywhere(network);
    } finally {
      this.#records.bindings.delete(request.NetworkID);
    }
  }

  async #removeEverywhere(network: Network): Promise<void> {
    try {
      await this.#agent.removeNetwork(network.id);
    } catch (error) {
      if (!isFault(error, 'in-use')) throw error;
      const users = this.#agent.endpoints(network.id);
      // A host without a container of the network is not told who uses it.
      if (users.length === 0) throw error;
      const who = users.map((endpoint) => `${endpoint.name} on ${endpoint.host}`);
      throw new Fault('in-use', `Network ${network.name} has endpoints: ${firstOf(who, 5)}`, {
        hint: 'Stop or disconnect these containers first; the network is removed on every host at once',
        cause: error,
      });
    }
  }

  #byLabel(dockerId: string): Network | undefined {
    return this.#agent.networks().find((network) => network.labels[dockerLabels.network] === dockerId && network.deletedAt === undefined);
  }

  /** The record may be on its way: a manager allocates a moment before every engine creates. */
  async #named(name: string): Promise<Network> {
    const network = await eventually(5000, () => Promise.resolve(findNetwork(this.#agent, name)));
    if (network !== undefined && network.deletedAt === undefined) return network;
    throw new Fault('not-found', `No network ${JSON.stringify(name)}`, { field: networkOption, hint: 'See causeway network ls' });
  }

  async #create(ipams: Ipams, id: string, choices: ParsedOptions, addressing: Network['addressing'], internal: boolean): Promise<Network> {
    const drafts: { id: string; record: Draft }[] = [];
    const pools = ipams.IPv4Data.concat(ipams.IPv6Data).map((data) => this.#poolOf(data, drafts));
    const { network: _, neutron, ...wishes } = choices;
    const isForeign =
      addressing === 'blocks' && ipams.IPv4Data.concat(ipams.IPv6Data).some((data) => !isOurAddressSpace(data.AddressSpace));
    const chosen = pools.flatMap(({ cidr }) => {
      const draft = drafts.find(({ record }) => record.cidr === cidr);
      return cidr === undefined || (draft === undefined ? isDockersChoice(cidr) : draft.record.isChosen !== true) ? [] : [cidr];
    });
    const request: NetworkRequest = {
      ...wishes,
      ...(neutron === undefined ? {} : { neutron: inCloud(neutron, isForeign) }),
      name: provisionalName(id),
      pools,
      addressing,
      internal,
      labels: {
        [dockerLabels.network]: id,
        [dockerLabels.host]: this.#agent.host,
        ...(chosen.length === 0 ? {} : { [dockerLabels.subnets]: chosen.slice(0, 5).join(' ') }),
        ...(isForeign ? { [ipamHostLabel]: this.#agent.host } : {}),
      },
    };
    const network = await this.#agent.createNetwork(request);
    this.#ipam.bound(drafts);
    return network;
  }

  #poolOf(data: IpamData, drafts: { id: string; record: Draft }[]): PoolRequest {
    const { Pool: cidr, Gateway: gateway } = data;
    // Docker's `null` IPAM driver gives this; addresses are ours to choose then.
    if (cidr === undefined || cidr === '0.0.0.0/0') return { family: 4 };
    if (cidr === '::/0') return { family: 6 };
    const reserved: Record<string, Ip | Cidr> = {};
    for (const [name, { ip }] of Object.entries(data.AuxAddresses)) reserved[name] = ip;
    const pool: PoolRequest = { cidr, family: familyOf(cidr), reserved, ...(gateway === undefined ? {} : { gateway: gateway.ip }) };
    if (!isOurAddressSpace(data.AddressSpace)) return pool;
    const draft = this.#ipam.draftOf(cidr);
    if (draft === undefined) {
      throw new Fault('not-found', `Pool ${cidr} was not requested from this plugin`, { hint: 'Create the network again' });
    }
    drafts.push(draft);
    return { ...pool, id: draft.id, ...(draft.record.range === undefined ? {} : { range: draft.record.range }) };
  }

  /** In a Swarm the pool ids that were given out for this network stand for its pools from now on. */
  #settle(network: Network, ipams: Ipams, role: SwarmPool['role']): void {
    for (const { Pool: cidr } of ipams.IPv4Data.concat(ipams.IPv6Data)) {
      const pool = this.#agent.pools(network.id).find((one) => one.cidr === cidr);
      const draft = cidr === undefined ? undefined : this.#ipam.draftOf(cidr);
      if (pool === undefined || draft === undefined) continue;
      if (role === 'manager') forgetGiven(this.#records, pool.id);
      this.#ipam.settle(draft, pool.id, role);
    }
  }

  #checkPools(network: Network, ipams: Ipams): void {
    const pools = this.#agent.pools(network.id).map((pool) => pool.cidr);
    const foreign = ipams.IPv4Data.concat(ipams.IPv6Data).find(({ Pool: cidr }) => cidr === undefined || !pools.includes(cidr));
    if (foreign === undefined) return;
    throw new Fault('invalid', `Network ${network.name} has pools ${pools.join(', ')}, not ${foreign.Pool ?? 'none'}`, {
      field: 'Pool',
      hint: `Create it with --ipam-driver causeway --ipam-opt ${networkOption}=${network.name}`,
    });
  }
}

/**
 * Whether Docker's own IPAM could have chosen the subnet without being asked (default-address-pools as dockerd has them by
 * itself). It does not say so to a driver.
 */
const isDockersChoice = (cidr: Cidr): boolean =>
  (covers(dockerPools[0], cidr) && cidrLength(cidr) === 16) || (covers(dockerPools[1], cidr) && cidrLength(cidr) === 20);
const dockerPools = [parseCidr('172.16.0.0/12'), parseCidr('192.168.0.0/16')] as const;

/** Fault `invalid` for what cannot be: addresses are those of Neutron's ports, which another IPAM driver does not know. */
function inCloud({ network, ...rest }: NonNullable<ParsedOptions['neutron']>, isForeign: boolean): NetworkRequest['neutron'] & {} {
  if (network === undefined)
    throw new Fault('invalid', 'A subnet, security groups or a fallback of Neutron without a network', {
      field: 'neutron.network',
      hint: 'Add -o neutron.network=NAME',
    });
  if (isForeign)
    throw new Fault('invalid', "The addresses of a network of the model neutron are those of Neutron's ports", {
      field: 'neutron.network',
      hint: 'Add --ipam-driver causeway',
    });
  return { network, ...rest };
}

/** Compose and Swarm put their own bookkeeping below `com.docker.`; of these only the MTU means anything to us. */
function withoutLabels(options: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(options).filter(([key]) => !key.startsWith('com.docker.') || key === 'com.docker.network.driver.mtu'),
  );
}
