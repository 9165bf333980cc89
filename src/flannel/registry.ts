// flannel's records in etcd: the configuration, and a lease for each host, under a key that etcd itself takes away when its host
// has not renewed it for a day. A host finds its lease again by its own address. Every write says what it was decided from,
// so two hosts that choose the same subnet cannot both have it; and none of ours is given one that anybody took meanwhile,
// in either family and of whatever length.
import { randomInt } from 'node:crypto';
import { Fault, isFault } from '#model/fault.ts';
import { type Cidr, overlaps } from '#model/ip.ts';
import { type Answer, Gateway, type GatewayOptions } from '#store/etcd-gateway.ts';
import { encode, headRevision, type Pair, pairsOf } from '#store/etcd-pairs.ts';
import { type KeyEvent, watchKeys } from '#store/etcd-watch.ts';
import { type FlannelConfig, freeParts, isPart, readConfig } from './config.ts';
import { type Attributes, type Lease, nameOf, readLease, readName, valueText } from './lease.ts';

export interface RegistryOptions extends GatewayOptions {
  /** Default `/coreos.com/network`. */
  readonly prefix?: string;
  /** How long etcd keeps a lease that is not renewed; default a day. */
  readonly ttlSeconds?: number;
  /** How long after it was written a lease is renewed; default an hour before it would end, as flannel does. */
  readonly renewAfterMs?: number;
}

/** A key below `subnets`; without a lease: it cannot be read, but its subnets are taken. */
export interface Entry {
  readonly name: string;
  readonly subnets: readonly Cidr[];
  readonly lease?: Lease;
  readonly problem?: string;
}

export interface Wish {
  readonly config: FlannelConfig;
  readonly publicIp: string;
  /** Those that this host had last. */
  readonly previous: readonly Cidr[];
  /** What the lease of those subnets shall say; `found`: what it says now. */
  readonly attributes: (subnets: readonly Cidr[], found?: Lease) => Attributes;
}

const mostTries = 10;
const pageSize = 500;
const hourSeconds = 60 * 60;

export class Registry implements AsyncDisposable {
  readonly renewAfterMs: number;
  readonly #ttlSeconds: number;
  readonly #gateway: Gateway;
  readonly #prefix: string;

  /** etcd need not be reachable yet. Fault `invalid`. */
  constructor({ prefix = '/coreos.com/network', ttlSeconds = 24 * hourSeconds, renewAfterMs, ...options }: RegistryOptions) {
    this.#gateway = new Gateway(options);
    this.#prefix = prefix.replace(/\/+$/, '');
    this.#ttlSeconds = ttlSeconds;
    this.renewAfterMs = renewAfterMs ?? (ttlSeconds - hourSeconds) * 1000;
    if (!/^(\/[\w.-]+)+$/.test(this.#prefix))
      throw new Fault('invalid', `Not a prefix of keys: ${prefix.slice(0, 80)}`, { field: 'prefix', hint: 'As /coreos.com/network' });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#gateway[Symbol.asyncDispose]();
  }

  get configKey(): string {
    return `${this.#prefix}/config`;
  }

  /** Undefined: the key is none of a lease. */
  nameIn(key: string): string | undefined {
    const start = `${this.#prefix}/subnets/`;
    return key.startsWith(start) ? key.slice(start.length) : undefined;
  }

  /** Faults: `not-found`, as readConfig, `unavailable`. */
  async config(): Promise<FlannelConfig> {
    const [pair] = pairsOf(await this.#gateway.call('/v3/kv/range', { key: encode(this.configKey) }));
    if (pair !== undefined) return readConfig(pair.text);
    throw new Fault('not-found', `etcd has no key ${this.configKey}: flannel's network is not configured there`, {
      hint: `As etcdctl put ${this.configKey} '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'`,
    });
  }

  /** All at one revision, in the order of their names. */
  async entries(): Promise<{ readonly entries: readonly Entry[]; readonly revision: number }> {
    const entries: Entry[] = [];
    let [start, revision, more] = [`${this.#prefix}/subnets/`, 0, true];
    while (more) {
      const answer = await this.#gateway.call('/v3/kv/range', {
        key: encode(start),
        range_end: encode(this.#end),
        limit: String(pageSize),
        ...(revision === 0 ? {} : { revision: String(revision) }),
      });
      if (revision === 0) revision = headRevision(answer);
      const pairs = pairsOf(answer);
      entries.push(...pairs.map((pair) => this.entryOf(pair)));
      more = answer['more'] === true;
      start = `${pairs.at(-1)?.key ?? this.#end}\u0000`;
    }
    return { entries, revision };
  }

  entryOf(pair: Pair): Entry {
    const name = this.nameIn(pair.key) ?? pair.key;
    try {
      const lease = readLease(name, pair);
      return { name, subnets: lease.subnets, lease };
    } catch (error) {
      if (!isFault(error)) throw error;
      return { name, subnets: subnetsIn(name), problem: error.message };
    }
  }

  /** Changes of all keys of flannel after `since`. As watchKeys. */
  watch(since: number, signal: AbortSignal): AsyncGenerator<KeyEvent> {
    return watchKeys(this.#gateway, { from: `${this.#prefix}/`, to: `${this.#prefix}0`, since, signal });
  }

  /**
   * This host's lease, made anew, renewed or taken up again: the one with its address, else its previous subnets, else free ones by
   * chance, as flannel does. Faults: `exhausted`, `conflict` (others were quicker ten times), `unavailable`.
   */
  async acquire(wish: Wish): Promise<Lease> {
    for (let tries = 0; tries < mostTries; tries++) {
      const { entries, revision } = await this.entries();
      const own = entries.find(({ lease }) => lease?.publicIp === wish.publicIp)?.lease;
      if (own !== undefined && !isCompatible(wish.config, own.subnets)) {
        await this.#commit([unchanged(this.#keyOf(own.name), own.revision)], { request_delete_range: { key: this.#encode(own.name) } });
        continue;
      }
      const lease =
        own === undefined
          ? await this.#create(wish, chooseSubnets(wish, entries), revision)
          : await this.renew(own, wish.attributes(own.subnets, own));
      if (lease !== undefined) return lease;
    }
    throw new Fault('conflict', `Other hosts were quicker ${mostTries} times to take a subnet of ${wish.config.ranges[0]?.cidr}`);
  }

  /** Begins its time anew. Undefined: it is no longer as it was known, or gone. A reservation keeps having no end. */
  async renew(known: Lease, attributes: Attributes): Promise<Lease | undefined> {
    const { name, subnets, revision, lease: before } = known;
    const lease = before === '0' ? '0' : await this.#grant();
    const written = await this.#put({ name, subnets, attributes, lease, compare: [unchanged(this.#keyOf(name), revision)] });
    if (before !== '0') await this.#revoke(written === undefined ? lease : before);
    return written;
  }

  get #end(): string {
    return `${this.#prefix}/subnets0`;
  }

  #keyOf(name: string): string {
    return `${this.#prefix}/subnets/${name}`;
  }

  #encode(name: string): string {
    return encode(this.#keyOf(name));
  }

  /** Undefined: somebody has taken a subnet since `revision`. */
  async #create({ attributes }: Wish, subnets: readonly Cidr[], revision: number): Promise<Lease | undefined> {
    const name = nameOf(subnets);
    const lease = await this.#grant();
    const nothingNew = {
      key: encode(`${this.#prefix}/subnets/`),
      range_end: encode(this.#end),
      target: 'MOD',
      result: 'LESS',
      mod_revision: String(revision + 1),
    };
    const absent = { key: this.#encode(name), target: 'VERSION', result: 'EQUAL', version: '0' };
    const written = await this.#put({ name, subnets, attributes: attributes(subnets), lease, compare: [absent, nothingNew] });
    if (written === undefined) await this.#revoke(lease);
    return written;
  }

  async #put(write: Omit<Lease, keyof Attributes | 'revision'> & { readonly attributes: Attributes; readonly compare: readonly Answer[] }) {
    const { name, subnets, attributes, lease, compare } = write;
    const put = { request_put: { key: this.#encode(name), value: encode(valueText(attributes)), lease } };
    const revision = await this.#commit(compare, put);
    return revision === undefined ? undefined : { name, subnets, lease, revision, ...attributes };
  }

  /** The revision; undefined when an expectation does not hold. */
  async #commit(compare: readonly Answer[], request: Answer): Promise<number | undefined> {
    const answer = await this.#gateway.call('/v3/kv/txn', { compare, success: [request] }, { once: true });
    return answer['succeeded'] === true ? headRevision(answer) : undefined;
  }

  async #grant(): Promise<string> {
    const { ID: id } = await this.#gateway.call('/v3/lease/grant', { TTL: String(this.#ttlSeconds) });
    if (typeof id === 'string') return id;
    throw new Fault('unavailable', 'etcd gives no lease');
  }

  /** One that no key has any more; it would end by itself. */
  async #revoke(id: string): Promise<void> {
    try {
      await this.#gateway.call('/v3/lease/revoke', { ID: id });
    } catch (error) {
      if (!isFault(error)) throw error;
    }
  }
}

const unchanged = (key: string, revision: number): Answer => ({
  key: encode(key),
  target: 'MOD',
  result: 'EQUAL',
  mod_revision: String(revision),
});

function subnetsIn(name: string): readonly Cidr[] {
  try {
    return readName(name);
  } catch {
    return []; // no lease's name: nothing that anybody has
  }
}

/** Whether a host can have these subnets by this configuration. */
export const isCompatible = ({ ranges }: FlannelConfig, subnets: readonly Cidr[]): boolean =>
  subnets.length === ranges.length && ranges.every((range) => subnets.some((subnet) => isPart(range, subnet)));

function chooseSubnets({ config, previous }: Wish, entries: readonly Entry[]): Cidr[] {
  const taken = entries.flatMap(({ subnets }) => subnets);
  const isTaken = (subnet: Cidr): boolean => taken.some((one) => overlaps(one, subnet));
  if (isCompatible(config, previous) && !previous.some(isTaken)) return [...previous];
  return config.ranges.map((range) => {
    const free = freeParts(range, isTaken);
    const chosen = free[randomInt(Math.max(1, free.length))];
    if (chosen !== undefined) return chosen;
    throw new Fault('exhausted', `No subnet /${range.length} of ${range.cidr} is free`, { hint: "Enlarge flannel's network in etcd" });
  });
}
