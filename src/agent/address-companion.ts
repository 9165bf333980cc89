// Addresses for endpoints for which the cloud gives no port (drivers/companion.ts): where the network has a pool of them, a start waits
// for the cloud only so long, and not again right after it was refused.
import { Fault, isFault } from '#model/fault.ts';
import { contains, familyOf, type Ip } from '#model/ip.ts';
import type { LocalEndpoint, Pool, Snapshot } from '#model/resources.ts';
import type { Addresses } from './local.ts';

const has = ({ endpoint }: LocalEndpoint, { cidr }: Pool): boolean => endpoint.addresses.some((ip) => contains(cidr, ip));

export interface CompanionOptions {
  readonly addresses: Pick<Addresses, 'room' | 'release' | 'background'>;
  readonly snapshot: () => Pick<Snapshot, 'pools' | 'networks'>;
  readonly endpoints: () => readonly LocalEndpoint[];
  /** Milliseconds. */
  readonly now: () => number;
  readonly patienceMs?: number;
}

/** An engine waits for half a minute, and the ports of a first container take a slow cloud a while. */
const usualPatienceMs = 20_000;
const believedMs = 30_000;

/** Others are a reason to fail: how a port was asked for, or what the cloud cannot do at all. */
const mayPass = (error: unknown): error is Fault =>
  (['exhausted', 'unavailable', 'timeout', 'stale', 'conflict'] as const).some((code) => isFault(error, code));

export class Companions {
  readonly #options: CompanionOptions;
  /** By pool: why the cloud gave it no ports, when it was last asked. */
  readonly #refusals = new Map<string, { readonly fault: Fault; readonly at: number }>();

  constructor(options: CompanionOptions) {
    this.#options = options;
  }

  /** What `ask` gives for the pool, or for the one beside it. Faults: those of the pool. */
  async request(pool: string, ask: (pool: string) => Promise<Ip>): Promise<Ip> {
    const besides = this.#besides(pool);
    if (besides === undefined) return ask(pool);
    try {
      const ip = await this.#askPatiently(pool, ask);
      this.#refusals.delete(pool);
      return ip;
    } catch (fault) {
      if (!mayPass(fault)) throw fault;
      const known = this.#refusals.get(pool);
      if (known?.fault !== fault) {
        this.#refusals.set(pool, { fault, at: this.#options.now() });
        this.#options.addresses.background(`port of the cloud, instead of one of ${besides.cidr}`, () => Promise.reject(fault));
      }
      return ask(besides.id).catch((error: unknown) => {
        throw isFault(error) ? fault : error;
      });
    }
  }

  /** Why who has that address has no port; undefined: it is none of these addresses. */
  reasonFor(ip: Ip): string | undefined {
    const pool = [...this.#options.snapshot().pools.values()].find(({ fallback, cidr }) => fallback === true && contains(cidr, ip));
    return pool === undefined ? undefined : (this.#reasons(pool.network)[0] ?? 'The cloud gave no port');
  }

  #reasons(network: string): string[] {
    const { pools } = this.#options.snapshot();
    return [...this.#refusals].flatMap(([id, { fault }]) => (pools.get(id)?.network === network ? [fault.message] : []));
  }

  /** Networks whose endpoints here have no ports of the cloud, one sentence each. */
  problems(): readonly string[] {
    const { snapshot, endpoints } = this.#options;
    const { pools, networks } = snapshot();
    const overlays = [...pools.values()].filter(({ fallback }) => fallback === true);
    return [...Map.groupBy(overlays, ({ network }) => network)].flatMap(([network, ranges]) => {
      const those = endpoints().filter((each) => each.endpoint.network === network && ranges.some((range) => has(each, range)));
      if (those.length === 0) return [];
      const who = `${those.length} ${those.length === 1 ? 'container' : 'containers'} of network ${networks.get(network)?.name ?? network}`;
      const where = ranges.filter((range) => those.some((each) => has(each, range))).map(({ cidr }) => cidr);
      const reasons = [...new Set(this.#reasons(network))];
      return [[`${who} without ports of the cloud, in its overlay ${where.join(' and ')}`, ...reasons].join(': ')];
    });
  }

  #besides(id: string): Pool | undefined {
    const { pools, networks } = this.#options.snapshot();
    const pool = pools.get(id);
    if (pool === undefined || pool.fallback === true || networks.get(pool.network)?.neutron?.fallback !== true) return undefined;
    return [...pools.values()].find(
      ({ network, fallback, cidr }) => network === pool.network && fallback === true && familyOf(cidr) === familyOf(pool.cidr),
    );
  }

  async #askPatiently(pool: string, ask: (pool: string) => Promise<Ip>): Promise<Ip> {
    const { addresses, now, patienceMs = usualPatienceMs } = this.#options;
    const refusal = this.#refusals.get(pool);
    if (refusal !== undefined && now() - refusal.at < believedMs && addresses.room(pool).free === 0) throw refusal.fault;
    const { promise, reject } = Promise.withResolvers<never>();
    const asked = ask(pool);
    const timer = setTimeout(() => {
      reject(new Fault('timeout', `The cloud has given no ports within ${patienceMs / 1000} s`));
      // What comes now comes for nobody.
      void asked.then(
        (ip) => addresses.release(pool, ip),
        () => undefined,
      );
    }, patienceMs);
    try {
      return await Promise.race([asked, promise]);
    } finally {
      clearTimeout(timer);
    }
  }
}
