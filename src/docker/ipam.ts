// The remote IPAM driver. Docker asks for pools and gateway before it creates the network and names no network in these
// calls, so a new pool is first a draft in the journal; its id, which Docker keeps as PoolID, becomes the pool's id once
// CreateNetwork has bound it (driver.ts). For networks that exist, the IPAM option `causeway.network` names the network.
//
// RequiresRequestReplay is false: pools and addresses are ours and durable, a restarted engine has nothing to tell us.
// RequiresMACAddress is false: no address depends on a MAC.
import { randomBytes } from 'node:crypto';
import type { LocalAgent } from '#api/local.ts';
import { Sequence } from '#api/sequence.ts';
import { Fault } from '#model/fault.ts';
import { type Cidr, cidrBase, cidrLength, cidrOf, contains, covers, type Family, familyOf, hostPrefix, type Ip, ipAdd } from '#model/ip.ts';
import type { Network, Pool } from '#model/resources.ts';
import type { Log } from './log.ts';
import { kuryrPools, networkOption } from './options.ts';
import type { Requests } from './protocol.ts';
import type { DockerRecords, Draft, SwarmPool } from './records.ts';
import { Turns } from './turns.ts';

export const addressSpaces = { local: 'CausewayLocal', global: 'CausewayGlobal' } as const;
export const isOurAddressSpace = (space: string): boolean => space === addressSpaces.local || space === addressSpaces.global;

/** The engine asks for the gateway with this request type. */
export const gatewayType = 'com.docker.network.gateway';

/** A creation takes seconds; a draft older than this belongs to one that was given up. */
const draftLifeMs = 10 * 60_000;

export interface PoolAnswer {
  readonly PoolID: string;
  readonly Pool: Cidr;
  readonly Data: Readonly<Record<string, string>>;
}
export interface AddressAnswer {
  readonly Address: string;
  readonly Data: Readonly<Record<string, string>>;
}

export interface IpamOptions {
  readonly agent: LocalAgent;
  readonly records: DockerRecords;
  readonly log: Log;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
}

export class Ipam {
  readonly #agent: LocalAgent;
  readonly #records: DockerRecords;
  readonly #log: Log;
  readonly #now: () => number;
  /**
   * CreateNetwork tells a draft only by its prefix. Two creations of the same prefix at once would be mixed up, so the
   * second waits here until the first one's network is made or given up.
   */
  readonly #turns: Turns = new Turns(10_000);
  readonly #proposals: Sequence = new Sequence();

  constructor(options: IpamOptions) {
    this.#agent = options.agent;
    this.#records = options.records;
    this.#log = options.log;
    this.#now = options.now ?? Date.now;
  }

  /** Faults: `not-found` (named network), `invalid`, and those of proposePool. */
  async requestPool(request: Requests['IpamDriver.RequestPool']): Promise<PoolAnswer> {
    const family: Family = request.V6 || request.Pool?.includes(':') === true ? 6 : 4;
    checkPrefixes(request, family);
    const name = request.Options[networkOption];
    if (name !== undefined) return this.#existing(name, family, request);
    const unknown = Object.keys(request.Options).find((key) => !key.startsWith('com.docker.network.') && !kuryrPools.includes(key));
    if (unknown !== undefined) {
      throw new Fault('invalid', `Unknown IPAM option ${JSON.stringify(unknown.slice(0, 80))}`, {
        field: unknown,
        hint: `The only IPAM option is ${networkOption}; network options are given with -o`,
      });
    }
    const chosen = request.Pool === undefined || isAny(request.Pool) ? undefined : request.Pool;
    if (chosen !== undefined) await this.#turns.take(chosen);
    this.#dropStale(chosen);
    // One proposal at a time, so that each one sees the drafts of those before.
    return this.#proposals.run('', async () => {
      const besides = this.#records.drafts.list().map(({ record }) => record.cidr);
      const cidr = chosen ?? ofLength(await this.#agent.proposePool(family, besides), request.Pool);
      const id = randomBytes(10).toString('hex');
      this.#records.drafts.put(id, {
        cidr,
        range: request.SubPool,
        reserved: [],
        isChosen: chosen !== undefined,
        createdAt: this.#now(),
      });
      return { PoolID: id, Pool: cidr, Data: {} };
    });
  }

  #existing(name: string, family: Family, request: Requests['IpamDriver.RequestPool']): PoolAnswer {
    const network = findNetwork(this.#agent, name);
    if (network === undefined) throw new Fault('not-found', `No network ${JSON.stringify(name.slice(0, 80))}`, { field: networkOption });
    const pools = this.#agent.pools(network.id).filter((pool) => familyOf(pool.cidr) === family && pool.fallback !== true);
    const pool = request.Pool === undefined ? pools[0] : pools.find((candidate) => candidate.cidr === request.Pool);
    if (pool === undefined) {
      throw new Fault('invalid', `Network ${network.name} has no IPv${family} pool ${request.Pool ?? ''}`.trimEnd(), {
        field: 'Pool',
        hint:
          pools.length === 0 && family === 4
            ? 'Engines before 28 cannot do without IPv4'
            : `Its pools: ${this.#agent
                .pools(network.id)
                .map((one) => one.cidr)
                .join(', ')}`,
      });
    }
    return { PoolID: pool.id, Pool: pool.cidr, Data: {} };
  }

  /** Lost and repeated releases are success: a pool of a network lives and ends with its network. */
  releasePool(request: Requests['IpamDriver.ReleasePool']): void {
    const draft = this.#records.drafts.get(request.PoolID);
    if (draft === undefined) return;
    this.#records.drafts.delete(request.PoolID);
    this.#turns.done(draft.cidr);
  }

  /** Faults: `not-found` (pool), `invalid`, and those of requestAddress. */
  async requestAddress(request: Requests['IpamDriver.RequestAddress']): Promise<AddressAnswer> {
    const isGateway = request.Options['RequestAddressType'] === gatewayType;
    const draft = this.#records.drafts.get(request.PoolID);
    if (draft !== undefined) return this.#fromDraft(request, draft, isGateway);
    const pool = findPool(this.#agent, request.PoolID);
    if (pool === undefined) {
      throw new Fault('not-found', `No pool ${request.PoolID}`, {
        hint: 'The network was removed elsewhere; remove it from this engine too',
      });
    }
    if (request.Address !== undefined) checkInside(pool.cidr, request.Address);
    if (isGateway) return answer(nominalGateway(pool, request.Address), cidrLength(pool.cidr));
    const ip = await this.#agent.requestAddress(pool.id, request.Address);
    return { Address: hostPrefix(ip), Data: {} };
  }

  #fromDraft(request: Requests['IpamDriver.RequestAddress'], draft: Draft, isGateway: boolean): AddressAnswer {
    const { Address: asked } = request;
    if (asked !== undefined) checkInside(draft.cidr, asked);
    if (!isGateway && asked === undefined) {
      throw new Fault('invalid', `The network of pool ${draft.cidr} is not created yet`, { field: 'Address' });
    }
    if (!isGateway && asked !== undefined && asked === draft.gateway) {
      throw new Fault('exists', `${asked} is the gateway of ${draft.cidr}`, { field: 'Address', hint: 'Choose another --aux-address' });
    }
    const ip = asked ?? firstUsable(draft.cidr);
    this.#records.drafts.put(
      request.PoolID,
      isGateway ? { ...draft, gateway: ip } : { ...draft, reserved: [...draft.reserved.filter((one) => one !== ip), ip] },
    );
    return answer(ip, cidrLength(draft.cidr));
  }

  /** Lost and repeated releases are success, and one that comes late never takes an address from an attached endpoint. */
  async releaseAddress(request: Requests['IpamDriver.ReleaseAddress']): Promise<void> {
    const draft = this.#records.drafts.get(request.PoolID);
    if (draft !== undefined) {
      const reserved = draft.reserved.filter((one) => one !== request.Address);
      const { gateway, ...rest } = draft;
      this.#records.drafts.put(request.PoolID, gateway === request.Address ? { ...rest, reserved } : { ...draft, reserved });
      return;
    }
    const pool = findPool(this.#agent, request.PoolID);
    if (pool?.gateway === request.Address) return;
    const holder =
      pool === undefined
        ? undefined
        : this.#agent.localEndpoints().find(({ network, addresses }) => network === pool.network && addresses.includes(request.Address));
    // It may be one of the network's others that it was given in its place.
    const own = pool && this.#agent.pools(pool.network).find(({ cidr }) => contains(cidr, request.Address));
    if (holder === undefined) await this.#agent.releaseAddress(own?.id ?? request.PoolID, request.Address);
    else this.#log.warn({ endpoint: holder.id, address: request.Address }, 'ignored the release of an attached address');
  }

  /** The draft that CreateNetwork means, with its id. */
  draftOf(cidr: Cidr): { id: string; record: Draft } | undefined {
    return this.#records.drafts.list().find(({ record }) => record.cidr === cidr);
  }

  /** To be called when the network of these drafts exists: from now on they are pools. */
  bound(drafts: readonly { id: string; record: Draft }[]): void {
    for (const { id, record } of drafts) {
      this.#records.drafts.delete(id);
      this.#turns.done(record.cidr);
    }
  }

  /** Swarm: the draft's id stands for this pool from now on, for whoever asked for it. */
  settle(draft: { id: string; record: Draft }, pool: string, role: SwarmPool['role']): void {
    this.#records.swarmPools.put(draft.id, { pool, role });
    this.bound([draft]);
  }

  #dropStale(cidr: Cidr | undefined): void {
    for (const { id, record } of this.#records.drafts.list()) {
      if (record.cidr === cidr || this.#now() - record.createdAt > draftLifeMs) this.#records.drafts.delete(id);
    }
  }
}

export const findNetwork = (agent: LocalAgent, idOrName: string): Network | undefined =>
  agent.network(idOrName) ?? agent.networks().find((network) => network.name === idOrName && network.deletedAt === undefined);

export function findPool(agent: LocalAgent, id: string): Pool | undefined {
  for (const network of agent.networks()) {
    const pool = agent.pools(network.id).find((candidate) => candidate.id === id);
    if (pool !== undefined) return pool;
  }
  return undefined;
}

const answer = (ip: Ip, length: number): AddressAnswer => ({ Address: `${ip}/${length}`, Data: {} });

/** What Docker shows as the gateway; never an endpoint's. A pool without one shows its network address. */
function nominalGateway(pool: Pool, asked: Ip | undefined): Ip {
  const gateway = pool.gateway ?? cidrBase(pool.cidr);
  if (asked !== undefined && asked !== gateway) {
    throw new Fault('invalid', `The gateway of pool ${pool.cidr} is ${gateway}, not ${asked}`, {
      field: 'Address',
      hint: `Use --gateway ${gateway}`,
    });
  }
  return gateway;
}

const firstUsable = (cidr: Cidr): Ip => (cidrLength(cidr) >= (cidr.includes(':') ? 127 : 31) ? cidrBase(cidr) : ipAdd(cidrBase(cidr), 1));

/** From dockerd 29 on `--subnet 0.0.0.0/24` and `--subnet ::/80` ask for any subnet of that length. */
const isAny = (cidr: Cidr): boolean => cidr.startsWith('0.0.0.0/') || cidr.startsWith('::/');

/** The proposal, or of one that is larger than asked for its first part. */
function ofLength(proposal: Cidr, asked: Cidr | undefined): Cidr {
  if (asked === undefined) return proposal;
  const [length, most] = [cidrLength(asked), cidrLength(proposal)];
  if (length >= most) return cidrOf(cidrBase(proposal), length);
  throw new Fault('invalid', `Subnets larger than /${most} are not chosen by themselves, and /${length} is asked for`, {
    field: 'Pool',
    hint: `Give the subnet itself, or at least /${most}`,
  });
}

function checkInside(cidr: Cidr, ip: Ip): void {
  if (!contains(cidr, ip)) throw new Fault('invalid', `${ip} is outside of ${cidr}`, { field: 'Address' });
}

function checkPrefixes(request: Requests['IpamDriver.RequestPool'], family: Family): void {
  const { Pool: cidr, SubPool: range } = request;
  if (request.AddressSpace !== '' && !isOurAddressSpace(request.AddressSpace)) {
    throw new Fault('invalid', `Unknown address space ${JSON.stringify(request.AddressSpace.slice(0, 80))}`, { field: 'AddressSpace' });
  }
  if (cidr !== undefined && familyOf(cidr) !== family) {
    throw new Fault('invalid', `${cidr} is not an IPv${family} prefix`, { field: 'Pool' });
  }
  if (range !== undefined && (cidr === undefined || !covers(cidr, range))) {
    throw new Fault('invalid', `The range ${range} is not inside of ${cidr ?? 'a pool'}`, {
      field: 'SubPool',
      hint: 'Give --subnet with --ip-range',
    });
  }
}
