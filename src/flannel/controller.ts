// flannel's etcd in the place of a controller: the agent's facts are the leases of all hosts, and this host has one among them,
// whatever software the others run. It is acquired before anything is planned, renewed before etcd takes it away, and taken
// again when it was lost.
import { isDeepStrictEqual } from 'node:util';
import type { WatchLine } from '#api/answers.ts';
import type { Journal } from '#api/local.ts';
import type { Controller } from '#agent/controller.ts';
import { type Decider, networksOf, rangeOf } from '#agent/elsewhere.ts';
import { Fault, isFault } from '#model/fault.ts';
import { type Cidr, cidrBase, contains, type Ip, overlaps, parseCidr } from '#model/ip.ts';
import type { Block, Host } from '#model/resources.ts';
import type { KeyEvent } from '#store/etcd-watch.ts';
import type { FlannelConfig } from './config.ts';
import { factsOf, hostName, networkOf, ownAttributes, publicIpOf } from './facts.ts';
import type { Lease } from './lease.ts';
import type { Entry, Registry } from './registry.ts';

export interface FlannelOptions {
  readonly registry: Registry;
  /** Name of this host, for people on it. */
  readonly host: string;
  readonly journal: Journal;
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
  /** Addresses of this host that reach the others, the preferred one first. */
  readonly underlay: () => readonly Ip[];
  readonly publicKey: () => string | undefined;
  /** Addresses on this host that are not Causeway's: never given out. */
  readonly taken: () => readonly Ip[];
}

interface Known {
  readonly entry: Entry;
  readonly host?: Host;
  readonly blocks: readonly Block[];
}

const decider: Decider = { who: 'flannel', hint: "Change flannel's configuration in etcd, or use an agent that follows a controller" };
const full = (): Fault =>
  new Fault('exhausted', "This host's lease of flannel has no free address", {
    hint: 'Run fewer containers on each host, or set a smaller SubnetLen',
  });
const previousKey = 'flannel/subnets';
const retryMs = 60_000;

/** Faults of watch(): those of Registry, and `not-found` without a configuration. */
export function flannelController(options: FlannelOptions): Controller {
  let following = new Following(options);

  async function* watch({ signal }: { readonly signal: AbortSignal }): AsyncGenerator<WatchLine, void> {
    following = new Following(options);
    yield* following.run(signal);
  }

  return {
    networks: networksOf(decider),
    addresses: rangeOf(decider, full),
    watch,
    // Nobody asks for other hosts' endpoints: a lease is all that hosts know of each other.
    publish: () => Promise.resolve({ refused: new Map(), revision: Number.MAX_SAFE_INTEGER }),
    skewMs: () => undefined,
    report: () => {
      const { self } = following;
      if (self !== undefined) return Promise.resolve(self);
      return Promise.reject(new Fault('unavailable', 'This host has no lease of flannel yet'));
    },
  };
}

/** One watch, from acquiring the lease until it breaks or the configuration changes. */
class Following {
  readonly #options: FlannelOptions;
  readonly #known = new Map<string, Known>();
  readonly #problems = new Map<string, string>();
  #own: Lease | undefined;

  constructor(options: FlannelOptions) {
    this.#options = options;
  }

  get self(): Host | undefined {
    return this.#own === undefined ? undefined : this.#known.get(this.#own.name)?.host;
  }

  async *run(signal: AbortSignal): AsyncGenerator<WatchLine, void> {
    const { registry } = this.#options;
    const config = await registry.config();
    this.#own = await this.#acquire(config);
    const { entries, revision } = await registry.entries();
    yield* this.#network(config, revision);
    for (const entry of entries) yield* this.#put(entry, config, revision);
    yield { type: 'synced', revision, whole: true };
    using renewal = new Renewal(() => this.#renew(config), registry.renewAfterMs);
    renewal.start();
    for await (const event of registry.watch(revision, signal)) {
      // Everything may be different now: begin again.
      if (event.key === registry.configKey) return;
      const before = this.#own;
      yield* this.#take(event, config);
      if (this.#own === undefined) yield* this.#again(before, config, event.revision);
      yield { type: 'bookmark', revision: event.revision };
    }
  }

  /** The same subnets if they can be had: then nothing has changed. */
  async *#again(before: Lease | undefined, config: FlannelConfig, revision: number): AsyncGenerator<WatchLine, void> {
    this.#options.log.warn({ subnets: before?.subnets }, 'the lease of flannel was taken away; taking one again');
    this.#own = await this.#acquire(config);
    if (before === undefined || before.name === this.#own.name) return;
    if (this.#known.get(before.name)?.entry.lease?.publicIp === before.publicIp) yield* this.#forget(before.name, revision);
    yield* this.#network(config, revision);
  }

  async #acquire(config: FlannelConfig): Promise<Lease> {
    const { registry, underlay, publicKey, journal, log } = this.#options;
    const own = { config, underlay: underlay(), publicKey: publicKey() };
    const lease = await registry.acquire({
      config,
      publicIp: publicIpOf(own.underlay),
      previous: previousIn(journal),
      attributes: (subnets, found) => ownAttributes(own, subnets, found),
    });
    if (!isDeepStrictEqual(previousIn(journal), lease.subnets)) {
      journal.put(previousKey, lease.subnets);
      log.info({ subnets: lease.subnets }, "has a lease of flannel's network");
    }
    return lease;
  }

  /** Undefined and gone: the watch tells, and takes another. */
  async #renew(config: FlannelConfig): Promise<void> {
    const { registry, underlay, publicKey, log } = this.#options;
    const own = this.#own;
    if (own === undefined) return;
    try {
      const attributes = ownAttributes({ config, underlay: underlay(), publicKey: publicKey() }, own.subnets, own);
      const renewed = await registry.renew(own, attributes);
      if (renewed !== undefined && this.#own === own) this.#own = renewed;
    } catch (error) {
      if (!isFault(error)) throw error;
      log.warn({ error }, 'cannot renew the lease of flannel yet');
      throw error;
    }
  }

  *#take(event: KeyEvent, config: FlannelConfig): Generator<WatchLine, void> {
    const { registry } = this.#options;
    const name = registry.nameIn(event.key);
    if (name === undefined) return;
    const isOwn = name === this.#own?.name;
    if (event.type === 'delete') {
      if (isOwn) this.#own = undefined;
      else yield* this.#forget(name, event.revision);
      return;
    }
    const entry = registry.entryOf(event);
    if (isOwn && event.revision > (this.#own?.revision ?? 0) && entry.lease !== undefined) {
      // Somebody else has written it: ours again when it is to be renewed, another host's at once.
      this.#own = entry.lease.publicIp === this.#own?.publicIp ? entry.lease : undefined;
    }
    yield* this.#put(entry, config, event.revision);
  }

  /** One odd lease keeps no other from being used. */
  *#put(entry: Entry, config: FlannelConfig, revision: number): Generator<WatchLine, void> {
    const before = this.#known.get(entry.name);
    const next = this.#read(entry, config);
    if (next?.host === undefined) {
      yield* this.#forget(entry.name, revision);
      return;
    }
    this.#known.set(entry.name, next);
    if (before !== undefined && substance(before) === substance(next)) return;
    if (before?.host !== undefined && before.host.id !== next.host.id)
      yield { type: 'delete', kind: 'hosts', id: before.host.id, revision };
    yield { type: 'put', kind: 'hosts', item: next.host, revision };
    for (const block of next.blocks) yield { type: 'put', kind: 'blocks', item: block, revision };
  }

  *#forget(name: string, revision: number): Generator<WatchLine, void> {
    const before = this.#known.get(name);
    this.#known.delete(name);
    for (const { id } of before?.blocks ?? []) yield { type: 'delete', kind: 'blocks', id, revision };
    if (before?.host !== undefined) yield { type: 'delete', kind: 'hosts', id: before.host.id, revision };
  }

  #read(entry: Entry, config: FlannelConfig): Known | undefined {
    const { host, log } = this.#options;
    let problem = entry.problem ?? '';
    try {
      if (entry.lease === undefined) return undefined;
      const isOwn = entry.name === this.#own?.name;
      this.#checkUnlike(entry, isOwn);
      return { entry, ...factsOf(entry.lease, config, isOwn ? host : hostName(entry)) };
    } catch (error) {
      if (!isFault(error)) throw error;
      problem = error.message;
      return undefined;
    } finally {
      if (problem !== '' && problem !== this.#problems.get(entry.name))
        log.warn({ lease: entry.name, problem }, 'cannot use a lease of flannel');
      this.#problems.set(entry.name, problem);
    }
  }

  /** Faults: `overlap` (two hosts would give out the same addresses), `exists` (an older lease of this host's). */
  #checkUnlike({ name, subnets, lease }: Entry, isOwn: boolean): void {
    if (!isOwn && lease?.publicIp === this.#own?.publicIp) throw new Fault('exists', "It has this host's own address");
    for (const other of this.#known.values()) {
      if (other.entry.name !== name && other.entry.subnets.some((one) => subnets.some((subnet) => overlaps(one, subnet))))
        throw new Fault('overlap', `Its subnet overlaps that of the lease ${other.entry.name}`);
    }
  }

  /** The network and its ranges; the first address of this host's own part of each is the host's. */
  *#network(config: FlannelConfig, revision: number): Generator<WatchLine, void> {
    const subnets = this.#own?.subnets ?? [];
    const taken = this.#options.taken().filter((ip) => subnets.some((subnet) => contains(subnet, ip)));
    const { network, pools } = networkOf(config, [...new Set([...subnets.map(cidrBase), ...taken])]);
    yield { type: 'put', kind: 'networks', item: network, revision };
    for (const pool of pools) yield { type: 'put', kind: 'pools', item: { ...pool, revision }, revision };
  }
}

/** Calls `renew` again and again; sooner when it failed. */
class Renewal implements Disposable {
  readonly #renew: () => Promise<void>;
  readonly #everyMs: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(renew: () => Promise<void>, everyMs: number) {
    this.#renew = renew;
    this.#everyMs = everyMs;
  }

  start(): void {
    this.#after(this.#everyMs);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #after(ms: number): void {
    const timer = setTimeout(() => {
      const next = (afterMs: number) => () => {
        if (this.#timer === timer) this.#after(afterMs);
      };
      this.#renew().then(next(this.#everyMs), next(Math.min(retryMs, this.#everyMs)));
    }, ms);
    this.#timer = timer;
  }
}

function previousIn(journal: Journal): readonly Cidr[] {
  const kept = journal.get(previousKey);
  if (!Array.isArray(kept)) return [];
  return kept.flatMap((text) => (typeof text === 'string' ? [parseCidr(text)] : []));
}

/** Everything but revisions: a lease that is only renewed is no news. */
const substance = ({ host, blocks }: Known): string =>
  JSON.stringify([{ ...host, revision: 0 }, blocks.map((block) => ({ ...block, revision: 0 }))]);
