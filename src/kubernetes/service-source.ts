// Follows a cluster's Services and EndpointSlices for as long as the agent runs. Kept in the journal by service, so that an
// agent that starts while the API is away plans the services that it knew, and one that starts with it writes nothing.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import type { Journal } from '#api/local.ts';
import { protocol } from '#api/schemas.ts';
import type { ServiceSource } from '#agent/services.ts';
import { type Cidr, contains } from '#model/ip.ts';
import type { Service } from '#model/resources.ts';
import { addressPools, type AddressPool, poolOf, prefixesIn, readPool, usablePools } from './address-pools.ts';
import type { KubernetesClient } from './client.ts';
import { followKind, type Followed } from './follow.ts';
import { LastReadable } from './last-readable.ts';
import { KeptNews } from './kept-news.ts';
import { joinService, localEndpoints, type NodePlace } from './backends.ts';
import { readService, readSlice, type ServiceFacts, type SliceFacts, sliceVersions } from './services.ts';

/** A port on which load balancers ask whether a service has endpoints on this node. */
export interface HealthPort {
  readonly port: number;
  readonly namespace: string;
  readonly name: string;
  readonly localEndpoints: number;
}

export interface ServicesOptions {
  readonly client: KubernetesClient;
  /** Name of this host's Node. */
  readonly node: string;
  readonly journal: Journal;
  readonly log: { warn(fields: object, message: string): void };
  /** Called after changes, at most once per turn of the event loop. */
  readonly changed: () => void;
}

const services = '/api/v1/services';
const prefix = 'kubernetes/services/';

const backends = v.array(v.object({ ip: field.ip, port: field.port }));
const kept: v.GenericSchema<unknown, readonly Service[]> = v.array(
  v.object({
    key: v.string(),
    ip: field.ip,
    protocol,
    port: field.port,
    backends,
    outer: v.exactOptional(backends),
    servedElsewhere: v.exactOptional(v.literal(true)),
    affinitySeconds: v.exactOptional(v.number()),
    sources: v.exactOptional(v.array(field.cidr)),
    announcers: v.exactOptional(v.union([v.literal('every'), v.array(v.string())])),
  }),
);

/** As flat(), in a tenth of its time: there are ten thousands. */
function listed(lists: Iterable<readonly Service[]>): Service[] {
  const all: Service[] = [];
  for (const list of lists) for (const one of list) all.push(one);
  return all;
}

const usableOf = (item: unknown): AddressPool | undefined => {
  const pool = readPool(item);
  return 'problem' in pool ? undefined : pool;
};

export class KubernetesServices implements ServiceSource, AsyncDisposable {
  readonly #options: ServicesOptions;
  readonly #stop = new AbortController();
  #running: readonly Promise<void>[] = [];
  /** By `namespace/name`. */
  readonly #services = new Map<string, ServiceFacts>();
  readonly #slices = new Map<string, SliceFacts>();
  readonly #slicesOf = new Map<string, Map<string, SliceFacts>>();
  /** What is planned, by the service's key. */
  readonly #joined = new Map<string, readonly Service[]>();
  readonly #dirty = new Set<string>();
  readonly #news: KeptNews;
  readonly #listed = new Set<string>();
  readonly #pools = new Map<string, AddressPool>();
  #usable: readonly AddressPool[] = [];
  #balanced: readonly Cidr[] = [];
  #place: NodePlace;
  #current: readonly Service[] | undefined;
  #clash: { readonly asked: string; readonly found: string | undefined } | undefined;

  constructor(options: ServicesOptions) {
    this.#options = options;
    this.#news = new KeptNews({
      ...options,
      prefix,
      what: 'services',
      maySettle: () => !this.#stop.signal.aborted && this.isSynced(),
      settle: () => this.#settle(),
    });
    this.#place = { node: options.node, isAnnounced: (ip) => poolOf(this.#usable, ip)?.isAnnounced === true };
    for (const { key, value } of options.journal.list(prefix)) {
      const read = v.safeParse(kept, value);
      if (read.success) this.#joined.set(key.slice(prefix.length), read.output);
    }
  }

  start(): void {
    const { client, log } = this.#options;
    const { signal } = this.#stop;
    this.#running = [this.#serviceKind(), this.#sliceKind(), this.#poolKind()].map((kind) => followKind(kind, { client, log, signal }));
  }

  current(): readonly Service[] {
    return (this.#current ??= listed(this.#joined.values()));
  }

  /** Ranges that load balancers have their addresses of, as far as they are known. */
  balanced(): readonly Cidr[] {
    return this.#balanced;
  }

  isSynced(): boolean {
    return this.#listed.size === 3;
  }

  /** The zone that the node's label says, as soon as it is known and when it changes. */
  locate(zone: string | undefined): void {
    if (zone === this.#place.zone) return;
    this.#place = { ...this.#place, zone };
    for (const key of this.#services.keys()) this.#touch(key);
  }

  /** A service that has an address in one of `ranges`, in words; undefined: none that is known. Cheap when asked again. */
  clash(ranges: readonly Cidr[]): string | undefined {
    const asked = ranges.join();
    if (this.#clash?.asked !== asked) this.#clash = { asked, found: this.#findClash(ranges) };
    return this.#clash.found;
  }

  #findClash(ranges: readonly Cidr[]): string | undefined {
    for (const { key, ips } of this.#services.values()) {
      for (const ip of ips) {
        const range = ranges.find((one) => contains(one, ip));
        if (range !== undefined) return `Service ${key} has the address ${ip}, which is in the range of pods ${range}`;
      }
    }
    return undefined;
  }

  /** Of all services that have one, as far as they have been listed. */
  healthPorts(): HealthPort[] {
    return [...this.#services.values()].flatMap(({ key, healthPort }) => {
      if (healthPort === undefined) return [];
      const [namespace = '', name = ''] = key.split('/');
      return [{ port: healthPort, namespace, name, localEndpoints: localEndpoints(this.#slicesFor(key), this.#place) }];
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#running);
    this.#news[Symbol.dispose]();
  }

  #serviceKind(): Followed {
    const prepare = (key: string, item: unknown) => {
      const facts = readService(item);
      return (): void => {
        if (facts === undefined) this.#services.delete(key);
        else this.#services.set(key, facts);
        this.#clash = undefined;
        this.#touch(key);
      };
    };
    return {
      name: 'services',
      paths: [services],
      keys: () => [...this.#services.keys()],
      listed: () => this.#listedAll('services'),
      put: (key, item) => prepare(key, item)(),
      prepare,
      delete: (key) => {
        this.#services.delete(key);
        this.#clash = undefined;
        this.#touch(key);
      },
    };
  }

  #sliceKind(): Followed {
    const remove = (key: string): void => {
      const before = this.#slices.get(key);
      if (before === undefined) return;
      this.#slices.delete(key);
      this.#slicesOf.get(before.service)?.delete(key);
      this.#touch(before.service);
    };
    const prepare = (key: string, item: unknown) => {
      const facts = readSlice(item);
      return (): void => {
        remove(key);
        if (facts === undefined) return;
        this.#slices.set(key, facts);
        const others = this.#slicesOf.get(facts.service) ?? new Map<string, SliceFacts>();
        this.#slicesOf.set(facts.service, others.set(key, facts));
        this.#touch(facts.service);
      };
    };
    return {
      name: 'endpoint slices',
      paths: sliceVersions,
      keys: () => [...this.#slices.keys()],
      listed: () => this.#listedAll('endpoint slices'),
      put: (key, item) => prepare(key, item)(),
      prepare,
      delete: remove,
    };
  }

  /** Which addresses hosts answer for is looked at again for every service when a pool changes. */
  #poolKind(): Followed {
    const readable = new LastReadable(this.#options.journal, 'addresspools');
    const change = (key: string, pool: AddressPool | undefined): void => {
      if (pool === undefined) this.#pools.delete(key);
      else this.#pools.set(key, pool);
      this.#usable = usablePools([...this.#pools.values()]).usable;
      this.#balanced = prefixesIn(this.#usable);
      this.#news.kick();
      for (const [service, { balancerIps }] of this.#services) if (balancerIps.length > 0) this.#touch(service);
    };
    return {
      name: 'address pools',
      paths: [addressPools],
      absent: 'empty',
      keys: () => [...this.#pools.keys()],
      listed: () => {
        readable.listed(this.#pools.keys());
        this.#listedAll('address pools');
      },
      put: (key, item) => change(key, readable.read(key, item, usableOf)),
      delete: (key) => {
        readable.delete(key);
        change(key, undefined);
      },
    };
  }

  #slicesFor(key: string): SliceFacts[] {
    return [...(this.#slicesOf.get(key)?.values() ?? [])];
  }

  #listedAll(name: string): void {
    if (this.#listed.has(name)) return;
    this.#listed.add(name);
    // What the journal knows and the cluster does not goes now.
    for (const key of [...this.#services.keys(), ...this.#joined.keys()]) this.#touch(key);
  }

  #touch(key: string): void {
    this.#dirty.add(key);
    this.#news.kick();
  }

  /** Joins again what has changed, keeps it and tells. */
  #settle(): void {
    for (const key of this.#dirty) {
      const facts = this.#services.get(key);
      const joined = facts === undefined ? [] : joinService(facts, this.#slicesFor(key), this.#place);
      const before = this.#joined.get(key);
      if (before === undefined ? joined.length === 0 : JSON.stringify(joined) === JSON.stringify(before)) continue;
      if (joined.length === 0) this.#joined.delete(key);
      else this.#joined.set(key, joined);
      this.#news.note(key, joined.length === 0 ? undefined : joined);
    }
    this.#dirty.clear();
    this.#current = undefined;
    this.#news.keep();
    // Also without news: only now may be removed what an earlier process left.
    this.#options.changed();
  }
}
