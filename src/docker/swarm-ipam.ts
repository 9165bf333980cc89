// Our IPAM driver in a Swarm, for networks whose ranges overlap: Docker's own keeps every range for one network. Two parties
// ask the plugin of a manager's host for pools: the Swarm's allocator, which decides addresses for all hosts, and the host's
// engine, which asks for those that were decided. Neither says who it is; what they ask for next tells it (AllocateNetwork or
// CreateNetwork, networks.ts), so each pool id is noted with its role. Facts relied on (moby v26.1.5, libnetwork/cnmallocator):
// a new leader asks for every pool, allocates every network and asks for every address again, one network after the other.
import type { LocalAgent } from '#api/local.ts';
import { Fault } from '#model/fault.ts';
import { cidrBase, cidrLast, contains, hostPrefix, type Ip, ipAdd, ipToBigint, parseCidr } from '#model/ip.ts';
import type { Pool } from '#model/resources.ts';
import { type AddressAnswer, findPool, gatewayType, type Ipam, type PoolAnswer } from './ipam.ts';
import { networkOption } from './options.ts';
import type { Requests } from './protocol.ts';
import type { DockerRecords } from './records.ts';

export interface SwarmIpamOptions {
  readonly agent: LocalAgent;
  readonly records: DockerRecords;
  readonly ipam: Ipam;
}

const typeOption = 'RequestAddressType';
const givenKey = (pool: string, ip: Ip): string => `${pool} ${ip}`;

export class SwarmIpam implements Pick<Ipam, 'requestPool' | 'releasePool' | 'requestAddress' | 'releaseAddress'> {
  readonly #agent: LocalAgent;
  readonly #records: DockerRecords;
  readonly #ipam: Ipam;
  /** The last address given of a pool: the next one is behind it, so that none is used again at once. */
  readonly #last: Map<string, Ip> = new Map();

  constructor(options: SwarmIpamOptions) {
    this.#agent = options.agent;
    this.#records = options.records;
    this.#ipam = options.ipam;
  }

  /** Faults as Ipam.requestPool; `invalid` for naming a network, which allocator and engine could not be told apart by. */
  requestPool(request: Requests['IpamDriver.RequestPool']): Promise<PoolAnswer> {
    // The allocator leaves what it said of the gateway in there when a network has several pools.
    const { [typeOption]: _, ...options } = request.Options;
    if (options[networkOption] !== undefined) {
      throw new Fault('invalid', `In a Swarm ${networkOption} is no IPAM option`, {
        field: networkOption,
        hint: `Give it as a network option: -o ${networkOption}=…`,
      });
    }
    return this.#ipam.requestPool({ ...request, Options: options });
  }

  releasePool(request: Requests['IpamDriver.ReleasePool']): void {
    const known = this.#records.swarmPools.get(request.PoolID);
    if (known === undefined) return this.#ipam.releasePool(request);
    if (known.role === 'manager') forgetGiven(this.#records, known.pool);
    this.#records.swarmPools.delete(request.PoolID);
  }

  /** Faults: `exhausted`, `not-found` (pool), `invalid`; for an engine `unsupported` and those of LocalAgent.requestAddress. */
  async requestAddress(request: Requests['IpamDriver.RequestAddress']): Promise<AddressAnswer> {
    const known = this.#records.swarmPools.get(request.PoolID);
    const isGateway = request.Options[typeOption] === gatewayType;
    if (known?.role === 'engine' && !isGateway && request.Address === undefined) throw secondFamily();
    if (known?.role !== 'manager' || isGateway) return this.#ipam.requestAddress({ ...request, PoolID: known?.pool ?? request.PoolID });
    const pool = findPool(this.#agent, known.pool);
    if (pool === undefined)
      throw new Fault('not-found', `No pool ${known.pool}`, { hint: 'Its network was removed; remove it from the Swarm too' });
    const { Address: asked } = request;
    if (asked !== undefined && !contains(pool.cidr, asked))
      throw new Fault('invalid', `${asked} is outside of ${pool.cidr}`, { field: 'Address' });
    const ip = asked ?? this.#free(pool);
    this.#records.given.put(givenKey(pool.id, ip), {});
    if (asked === undefined) this.#last.set(pool.id, ip);
    return { Address: hostPrefix(ip), Data: {} };
  }

  /** Not held is success. */
  async releaseAddress(request: Requests['IpamDriver.ReleaseAddress']): Promise<void> {
    const known = this.#records.swarmPools.get(request.PoolID);
    if (known?.role === 'manager') this.#records.given.delete(givenKey(known.pool, request.Address));
    else await this.#ipam.releaseAddress({ ...request, PoolID: known?.pool ?? request.PoolID });
  }

  /** The first one behind the last, going round, that is nobody's here or, as far as this host knows, anywhere. */
  #free(pool: Pool): Ip {
    const { cidr, gateway, network } = pool;
    const range = pool.range ?? cidr;
    const reserved = Object.values(pool.reserved).map((one) =>
      parseCidr(one.includes('/') ? one : `${one}/${one.includes(':') ? 128 : 32}`),
    );
    const taken = new Set<string>(this.#agent.endpoints(network).flatMap(({ addresses }) => addresses));
    const isFree = (ip: Ip): boolean =>
      ip !== gateway &&
      ip !== cidrBase(cidr) &&
      (ip.includes(':') || ip !== cidrLast(cidr)) &&
      !taken.has(ip) &&
      !reserved.some((one) => contains(one, ip)) &&
      this.#records.given.get(givenKey(pool.id, ip)) === undefined;
    const first = cidrBase(range);
    const size = Number(ipToBigint(cidrLast(range)) - ipToBigint(first)) + 1;
    const last = this.#last.get(pool.id);
    const start = last === undefined || !contains(range, last) ? 0 : Number(ipToBigint(last) - ipToBigint(first)) + 1;
    // No Swarm has more addresses than this in use, so a free one comes before.
    for (let step = 0; step < Math.min(size, 1 << 20); step++) {
      const ip = ipAdd(first, (start + step) % size);
      if (isFree(ip)) return ip;
    }
    throw new Fault('exhausted', `No address is left in ${range}`, { hint: 'Make a network with a larger --subnet' });
  }
}

/**
 * The allocator decides one address for each task and network, of any of its pools (allocateNetworkIPs); with `--ipv6` every engine adds
 * one of the other family on its own, the same as on other nodes.
 */
export const secondFamily = (): Fault =>
  new Fault('unsupported', 'A Swarm decides one address for a task, so networks of it cannot have both families', {
    hint: 'Make the network again without --ipv6',
  });

/** To be called when the allocator begins anew with a pool: it asks for everything that is in use again. */
export function forgetGiven(records: DockerRecords, pool: string): void {
  for (const { id } of records.given.list()) if (id.startsWith(`${pool} `)) records.given.delete(id);
}
