// Octavia's API v2 (docs.openstack.org/api-ref/load-balancer/v2), as far as Causeway uses it. A load balancer is made with all that
// belongs to it by one call, loses all of it by one, and takes all members of a pool by one; between changes it is busy
// (PENDING_*) and refuses others with 409, so whoever changes it waits until it is settled.
import * as v from 'valibot';
import type { Schema } from '#api/parse.ts';
import { Fault, isFault } from '#model/fault.ts';
import { readAnswer } from './http.ts';
import {
  type HealthMonitor,
  healthMonitor,
  type Listener,
  listener,
  type LoadBalancer,
  loadBalancer,
  type LoadBalancerPool,
  type Member,
  member,
  partStates,
  pool,
  type Provider,
  provider,
} from './octavia-schemas.ts';
import type { CloudSession, Service, ServiceQuestion } from './session.ts';

const octavia: Service = { type: 'load-balancer', name: 'Octavia' };
const root = '/v2/lbaas';
/** A cloud may give fewer at a time (pagination_max_limit) and says then that there are more. */
const pageSize = 500;

interface Octavias {
  readonly loadbalancers: LoadBalancer;
  readonly listeners: Listener;
  readonly pools: LoadBalancerPool;
  readonly healthmonitors: HealthMonitor;
}
type Kind = keyof Octavias;
const kinds: { readonly [K in Kind]: { readonly one: string; readonly schema: Schema<Octavias[K]> } } = {
  loadbalancers: { one: 'loadbalancer', schema: loadBalancer },
  listeners: { one: 'listener', schema: listener },
  pools: { one: 'pool', schema: pool },
  healthmonitors: { one: 'healthmonitor', schema: healthMonitor },
};

/** Fields as Octavia has them. */
export interface MemberRequest {
  readonly name?: string;
  readonly address: string;
  readonly protocol_port: number;
  readonly subnet_id?: string;
  /** Where probes go instead. */
  readonly monitor_port?: number;
}
export interface MonitorRequest {
  readonly type: 'TCP' | 'UDP-CONNECT' | 'SCTP' | 'HTTP';
  readonly url_path?: string;
  readonly expected_codes?: string;
  /** Seconds. */
  readonly delay: number;
  readonly timeout: number;
  readonly max_retries: number;
  readonly max_retries_down?: number;
}
/** What of a listener may be changed. */
export interface ListenerFields {
  /** It holds what of the rest was asked for, so that what is not asked for any more is seen. */
  readonly description?: string;
  /** Empty: everybody. */
  readonly allowed_cidrs?: readonly string[];
  /** Null: as usual in this cloud. */
  readonly connection_limit?: number | null;
  /** Milliseconds. */
  readonly timeout_client_data?: number | null;
  readonly timeout_member_connect?: number | null;
  readonly timeout_member_data?: number | null;
  readonly timeout_tcp_inspect?: number | null;
}
/** What of a pool may be changed. */
export interface PoolFields {
  readonly lb_algorithm: string;
  readonly session_persistence?: { readonly type: 'SOURCE_IP' } | null;
}
export interface ListenerRequest extends ListenerFields {
  readonly name: string;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP' | 'HTTP' | 'TERMINATED_HTTPS';
  readonly protocol_port: number;
  /** Where Octavia finds the certificate. */
  readonly default_tls_container_ref?: string;
  readonly insert_headers?: Readonly<Record<string, string>>;
  readonly tags?: readonly string[];
  readonly default_pool: PoolFields & {
    readonly name: string;
    readonly protocol: 'TCP' | 'UDP' | 'SCTP' | 'HTTP' | 'PROXY' | 'PROXYV2';
    readonly members: readonly MemberRequest[];
    readonly healthmonitor?: MonitorRequest;
  };
}
export interface LoadBalancerRequest {
  readonly name: string;
  readonly description?: string;
  /** One of the three; a network may have the subnet beside it. */
  readonly vip_subnet_id?: string;
  readonly vip_network_id?: string;
  readonly vip_port_id?: string;
  readonly vip_address?: string;
  /** Absent: the cloud's usual one. */
  readonly provider?: string;
  readonly flavor_id?: string;
  readonly availability_zone?: string;
  readonly tags?: readonly string[];
  readonly listeners: readonly ListenerRequest[];
}

/** At removing a part. */
const attempts = 3;

export interface Waiting {
  readonly timeoutMs?: number;
  readonly intervalMs?: number;
  /** It is being removed: OVN's provider calls it ACTIVE all the same when a probe of a member comes to another end than before. */
  readonly isGoing?: boolean;
}

export class Octavia {
  readonly #session: CloudSession;

  constructor(session: CloudSession) {
    this.#session = session;
  }

  /** Undefined where the catalogue has no Octavia. Faults as CloudSession.token. */
  static async of(session: CloudSession): Promise<Octavia | undefined> {
    const { catalogue } = await session.token();
    return catalogue.some(({ type }) => type === octavia.type) ? new Octavia(session) : undefined;
  }

  /** What can serve a load balancer here. Faults as CloudSession.ask; `not-found` where the catalogue has no Octavia. */
  providers(): Promise<readonly Provider[]> {
    return this.#read('providers', v.array(provider), { method: 'GET', path: `${root}/providers` });
  }

  /** Everything of a kind that fits the filter. Faults as CloudSession.ask; `corrupt`. */
  async list<K extends Kind>(kind: K, filter: Readonly<Record<string, string>> = {}): Promise<Octavias[K][]> {
    const found: Octavias[K][] = [];
    const items = memberOf<Octavias[K][]>(kind, v.array<Schema<Octavias[K]>>(kinds[kind].schema));
    const links = memberOf(`${kind}_links`, v.optional(v.array(v.object({ rel: v.string() })), []));
    for (let marker: string | undefined; ;) {
      const query = new URLSearchParams({ ...filter, limit: String(pageSize), ...(marker === undefined ? {} : { marker }) });
      const body = await this.#ask({ method: 'GET', path: `${root}/${kind}?${query.toString()}` });
      const page = readAnswer(items, body, octavia.name);
      found.push(...page);
      const last = page.at(-1);
      if (last === undefined || !readAnswer(links, body, octavia.name).some(({ rel }) => rel === 'next')) return found;
      marker = last.id;
    }
  }

  /** Fault `not-found`. */
  async get<K extends Kind>(kind: K, id: string): Promise<Octavias[K]> {
    return await this.#read(kinds[kind].one, kinds[kind].schema, { method: 'GET', path: pathOf(kind, id) });
  }

  /** Begins to make a load balancer with all that belongs to it. Faults: `invalid`, `exhausted`, `unsupported` (of the provider). */
  create(request: LoadBalancerRequest): Promise<LoadBalancer> {
    return this.#read('loadbalancer', loadBalancer, { method: 'POST', path: `${root}/loadbalancers`, body: { loadbalancer: request } });
  }

  /**
   * Adds a listener with its pool to a load balancer that is there: Octavia takes them one by one, and each only when the one before
   * is settled. OVN's provider works at each call by itself, and the first listener of a protocol takes it a while, as it needs a load
   * balancer of OVN's own: a pool that overtakes it is led to by nothing, for good and without a word (pool_create in
   * ovn_octavia_provider/helper.py), so parts are waited for as well. Faults as create, `timeout`; what was made until then is told by
   * the listener's own state.
   */
  async addListener(balancer: string, { default_pool: wanted, ...listened }: ListenerRequest): Promise<void> {
    const { members, healthmonitor, ...pooled } = wanted;
    await this.wholeSettled(balancer);
    const { id: listenerId } = await this.#make('listeners', { ...listened, loadbalancer_id: balancer });
    await this.wholeSettled(balancer);
    const { id: poolId } = await this.#make('pools', { ...pooled, listener_id: listenerId });
    await this.wholeSettled(balancer);
    await this.setMembers(poolId, members);
    await this.wholeSettled(balancer);
    if (healthmonitor === undefined) return;
    await this.addMonitor(poolId, healthmonitor);
    await this.wholeSettled(balancer);
  }

  /**
   * Has Octavia read the certificate of a listener whose port another one still has, which it does before it sees that (_validate_create_listener
   * in octavia/api/v2/controllers/listener.py). Faults as create.
   */
  async tryListener(balancer: string, request: ListenerRequest): Promise<void> {
    try {
      await this.#make('listeners', { ...request, default_pool: undefined, loadbalancer_id: balancer });
    } catch (error) {
      if (!isFault(error, 'conflict')) throw error;
    }
  }

  #make<K extends Kind>(kind: K, fields: object): Promise<Octavias[K]> {
    const { one, schema } = kinds[kind];
    return this.#read(one, schema, { method: 'POST', path: `${root}/${kind}`, body: { [one]: fields } });
  }

  /** Begins to have the members of a pool probed. Faults as create. */
  addMonitor(poolId: string, request: MonitorRequest): Promise<HealthMonitor> {
    return this.#make('healthmonitors', { ...request, pool_id: poolId });
  }

  async removeMonitor(balancer: string, id: string): Promise<void> {
    await this.#removePart(balancer, 'healthmonitors', id);
  }

  /** With its pool. */
  async removeListener(balancer: string, { id, pool: poolId }: Pick<Listener, 'id' | 'pool'>): Promise<void> {
    await this.settled(balancer);
    if (poolId !== undefined) await this.#removePart(balancer, 'pools', poolId);
    await this.#delete(pathOf('listeners', id));
    await this.settled(balancer);
  }

  /** Until it is gone: of OVN's provider one may stay while the load balancer is ACTIVE again, and is then told to go once more. */
  async #removePart(balancer: string, kind: 'pools' | 'healthmonitors', id: string): Promise<void> {
    for (let attempt = 0; attempt < attempts; attempt++) {
      await this.#delete(pathOf(kind, id));
      await this.settled(balancer);
      if (await this.#isGone(pathOf(kind, id))) return;
    }
    throw new Fault('internal', `${kinds[kind].one} ${id} of load balancer ${balancer} stays, though Octavia was told to remove it`, {
      hint: 'Ask the operator of the cloud what its provider says of it',
    });
  }

  /** False: not within some seconds. */
  async #isGone(path: string, { timeoutMs = 5_000, intervalMs = 500 }: Waiting = {}): Promise<boolean> {
    for (const deadline = performance.now() + timeoutMs; ;) {
      try {
        await this.#ask({ method: 'GET', path });
      } catch (error) {
        if (isFault(error, 'not-found')) return true;
        throw error;
      }
      if (performance.now() > deadline) return false;
      await new Promise((resolve) => setTimeout(resolve, intervalMs));
    }
  }

  /** Fault `conflict` while the load balancer is busy, as with every change. */
  async update<K extends Kind>(kind: K, id: string, fields: object): Promise<Octavias[K]> {
    const body = { [kinds[kind].one]: fields };
    return await this.#read(kinds[kind].one, kinds[kind].schema, { method: 'PUT', path: pathOf(kind, id), body });
  }

  async members(poolId: string): Promise<readonly Member[]> {
    return await this.#read('members', v.array(member), { method: 'GET', path: `${pathOf('pools', poolId)}/members` });
  }

  /** Begins to make the pool have exactly these. */
  async setMembers(poolId: string, members: readonly MemberRequest[]): Promise<void> {
    await this.#ask({ method: 'PUT', path: `${pathOf('pools', poolId)}/members`, body: { members }, isRepeatable: true });
  }

  /** Begins to remove it with all that belongs to it. Absent already is success. */
  async remove(id: string): Promise<void> {
    await this.#delete(`${pathOf('loadbalancers', id)}?cascade=true`);
  }

  async #delete(path: string): Promise<void> {
    try {
      await this.#ask({ method: 'DELETE', path });
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
    }
  }

  /**
   * Waits until nothing of it is being changed any more; undefined when it is gone. Faults: `timeout`; `internal` when it came to
   * nothing (ERROR), which a repeated change or a new one mends.
   */
  async settled(id: string, { timeoutMs = 120_000, intervalMs = 500, isGoing = false }: Waiting = {}): Promise<LoadBalancer | undefined> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const found = await this.#find(id);
      if (found === undefined || found.provisioning === 'DELETED') return undefined;
      if (found.provisioning === 'ACTIVE' && !isGoing) return found;
      const name = `Load balancer ${found.name || id}`;
      if (found.provisioning === 'ERROR') {
        throw new Fault('internal', `${name} is in state ERROR`, { hint: 'Ask the operator of the cloud what its provider says of it' });
      }
      if (performance.now() > deadline) {
        throw new Fault('timeout', `${name} is still ${found.provisioning} after ${timeoutMs / 1000} s`, {
          hint: 'It may go on: repeat the command later; if it stays, ask the operator of the cloud what its provider says of it',
        });
      }
      await new Promise((resolve) => setTimeout(resolve, intervalMs));
    }
  }

  /**
   * Waits until nothing that belongs to it is being made any more, either. OVN's provider says that a load balancer is ACTIVE while it still
   * makes parts of it, after the first of several members and whenever a probe of one comes to another end than before; Octavia then
   * takes the next change, also of a part that is still being made. It comes to harm, too, when another of the same subnet is begun
   * meanwhile: both then make the port that probes come from. Faults as settled.
   */
  async wholeSettled(id: string): Promise<void> {
    if ((await this.settled(id)) !== undefined) await this.#partsSettled(id);
  }

  /** What takes longer than `timeoutMs` is not waited for. */
  async #partsSettled(id: string, { timeoutMs = 60_000, intervalMs = 500 }: Waiting = {}): Promise<void> {
    const question = { method: 'GET', path: `${pathOf('loadbalancers', id)}/status` } as const;
    for (const deadline = performance.now() + timeoutMs; performance.now() < deadline;) {
      const states = await this.#read('statuses', partStates, question);
      if (!states.some((state) => state.startsWith('PENDING_'))) return;
      await new Promise((resolve) => setTimeout(resolve, intervalMs));
    }
  }

  async #find(id: string): Promise<LoadBalancer | undefined> {
    try {
      return await this.get('loadbalancers', id);
    } catch (error) {
      if (isFault(error, 'not-found')) return undefined;
      throw error;
    }
  }

  async #read<T>(name: string, schema: Schema<T>, question: ServiceQuestion): Promise<T> {
    return readAnswer(memberOf(name, schema), await this.#ask(question), octavia.name);
  }

  async #ask(question: ServiceQuestion): Promise<unknown> {
    return (await this.#session.ask(octavia, question)).body;
  }
}

const memberOf = <T>(name: string, schema: Schema<T>): Schema<T> =>
  v.pipe(
    v.record(v.string(), v.unknown()),
    v.transform((whole) => whole[name]),
    schema,
  );

/** Without an id it would be the path of all there are, and whoever asks for one be answered by a list. */
function pathOf(kind: Kind, id: string): string {
  if (id === '') throw new TypeError(`Broken invariant: a ${kinds[kind].one} is meant whose id nobody knows`);
  return `${root}/${kind}/${encodeURIComponent(id)}`;
}
