// The part of Causeway in a cluster that has to be one mind: which load balancer has which address. Follows Services and
// AddressPools, and while it leads, writes addresses into the status of services and what is wrong into conditions.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { type Cidr, familyOf, type Family, type Ip } from '#model/ip.ts';
import { firstOf } from '#model/words.ts';
import {
  addressPools,
  type AddressPool,
  amongGiven,
  amongPool,
  type Claim,
  type Grant,
  grant,
  readPool,
  readServiceRange,
  serviceRanges,
  usablePools,
} from './address-pools.ts';
import { podCidrsOf } from './annotations.ts';
import { ipPoolIn } from './calico.ts';
import type { KubernetesClient } from './client.ts';
import { type Condition, isAlike, type Told, withCondition } from './conditions.ts';
import { followKind, type Followed } from './follow.ts';
import { calicoGroup } from './policy-facts.ts';
import { StatusWriter } from './status-writer.ts';

export interface BalancersOptions {
  readonly client: KubernetesClient;
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
  readonly isLeading: () => boolean;
  readonly date: () => Date;
  /** Who serves services that name no class. */
  readonly usualClass?: string;
}

const services = '/api/v1/services';
const nodes = '/api/v1/nodes';
/** A service that names another class is served by somebody else. */
export const balancerClass = 'causeway.dev/address-pool';
export const poolAnnotation = 'causeway.dev/address-pool';
export const addressesAnnotation = 'causeway.dev/addresses';
const conditionType = 'causeway.dev/Address';

const conditions = v.nullish(v.array(v.record(v.string(), v.unknown())));
const service = v.looseObject({
  metadata: v.looseObject({
    namespace: v.string(),
    name: v.string(),
    creationTimestamp: v.optional(v.string(), ''),
    annotations: v.nullish(v.record(v.string(), v.string())),
  }),
  spec: v.looseObject({
    type: v.nullish(v.string()),
    clusterIP: v.nullish(v.string()),
    clusterIPs: v.nullish(v.array(v.string())),
    loadBalancerIP: v.nullish(v.string()),
    loadBalancerClass: v.nullish(v.string()),
  }),
  status: v.nullish(
    v.looseObject({
      loadBalancer: v.nullish(v.looseObject({ ingress: v.nullish(v.array(v.looseObject({ ip: v.nullish(v.string()) }))) })),
      conditions,
    }),
  ),
});
type Balancer = v.InferOutput<typeof service>;
const storedPool = v.looseObject({
  metadata: v.looseObject({ name: v.string() }),
  status: v.nullish(v.looseObject({ conditions })),
});

/** Names are among its addresses as well. */
const node = v.object({
  metadata: v.object({ annotations: v.nullish(v.record(v.string(), v.string()), {}) }),
  status: v.object({ addresses: v.optional(v.array(v.object({ address: v.string() })), []) }),
});
interface NodeFacts {
  readonly addresses: readonly Ip[];
  /** Of pods on any node, where these do not come from IPPools. */
  readonly podCidrs: readonly Cidr[];
}

const ipsOf = (texts: readonly (string | null | undefined)[]): Ip[] =>
  texts.flatMap((text) => {
    const read = v.safeParse(field.ip, text?.trim());
    return read.success ? [read.output] : [];
  });

function readNode(item: unknown): NodeFacts | undefined {
  const read = v.safeParse(node, item);
  if (!read.success) return undefined;
  const { metadata, status } = read.output;
  return { addresses: ipsOf(status.addresses.map(({ address }) => address)), podCidrs: podCidrsOf(metadata.annotations ?? {}) };
}

/** Its range, if pods have addresses of it. */
function readIpPool(item: unknown, name: string): readonly Cidr[] | undefined {
  const read = ipPoolIn(name, item);
  return read && (read.forPods ? [read.cidr] : []);
}

interface FactKind<T> extends Pick<Followed, 'name' | 'paths' | 'absent'> {
  /** By the names of the objects. */
  readonly into: Map<string, T>;
  /** Undefined: it cannot be read, and is as it was. */
  readonly read: (item: unknown, key: string) => T | undefined;
}

function claimOf(key: string, { metadata, spec, status }: Balancer): Claim {
  const pool = metadata.annotations?.[poolAnnotation];
  const asked = metadata.annotations?.[addressesAnnotation]?.split(',') ?? [spec.loadBalancerIP];
  const own = ipsOf(spec.clusterIPs ?? [spec.clusterIP]).map(familyOf);
  return {
    key,
    createdAt: metadata.creationTimestamp,
    families: ([4, 6] as const).filter((family: Family) => own.includes(family)),
    current: ipsOf((status?.loadBalancer?.ingress ?? []).map(({ ip }) => ip)),
    addresses: ipsOf(asked),
    ...(pool === undefined ? {} : { pool }),
  };
}

export class Balancers {
  readonly #options: BalancersOptions;
  readonly #balancers = new Map<string, Balancer>();
  readonly #pools = new Map<string, v.InferOutput<typeof storedPool>>();
  /** As each could be read last: of one that cannot be any more services keep what they have. */
  readonly #readable = new Map<string, AddressPool>();
  /** By their names. */
  readonly #nodes = new Map<string, NodeFacts>();
  /** Where pods have their addresses of, by the IPPool's name. */
  readonly #ipPools = new Map<string, readonly Cidr[]>();
  /** Of services' own addresses, by the name of who says it. */
  readonly #given = new Map<string, readonly string[]>();
  readonly #listed = new Set<string>();
  readonly #writer: StatusWriter;
  #work: Promise<void> = Promise.resolve();
  #isPending = false;

  constructor(options: BalancersOptions) {
    this.#options = options;
    this.#writer = new StatusWriter(options);
  }

  /** Resolves when `signal` has aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { client, log } = this.#options;
    const ranges = { name: 'ranges of services', paths: serviceRanges, absent: 'empty' } as const;
    const ipPools = { name: 'IP pools', paths: [`${calicoGroup}/ippools`], absent: 'empty' } as const;
    const kinds = [
      this.#serviceKind(),
      this.#poolKind(),
      this.#factKind({ ...ranges, into: this.#given, read: readServiceRange }),
      this.#factKind({ ...ipPools, into: this.#ipPools, read: readIpPool }),
      this.#factKind({ name: 'nodes', paths: [nodes], into: this.#nodes, read: readNode }),
    ];
    await Promise.all(kinds.map((kind) => followKind(kind, { client, log, signal })));
    await this.#work;
  }

  /** Looks again at everything, once what is going on has ended. */
  kick(): void {
    if (this.#isPending) return;
    this.#isPending = true;
    this.#work = this.#next(this.#work);
  }

  async #next(before: Promise<void>): Promise<void> {
    await before;
    this.#isPending = false;
    await this.#settle();
  }

  #serviceKind(): Followed {
    return {
      name: 'services',
      paths: [services],
      keys: () => [...this.#balancers.keys()],
      put: (key, item) => {
        const read = v.safeParse(service, item);
        const isOurs =
          read.success &&
          read.output.spec.type === 'LoadBalancer' &&
          (read.output.spec.loadBalancerClass ?? this.#options.usualClass ?? balancerClass) === balancerClass;
        if (isOurs) this.#balancers.set(key, read.output);
        else this.#balancers.delete(key);
        this.kick();
      },
      delete: (key) => {
        this.#balancers.delete(key);
        this.kick();
      },
      listed: () => this.#listedOne('services'),
    };
  }

  #poolKind(): Followed {
    return {
      name: 'address pools',
      paths: [addressPools],
      absent: 'empty',
      keys: () => [...this.#pools.keys()],
      put: (key, item) => {
        const read = v.safeParse(storedPool, item);
        if (read.success) this.#pools.set(key, read.output);
        this.kick();
      },
      delete: (key) => {
        this.#pools.delete(key);
        this.#readable.delete(key);
        this.kick();
      },
      listed: () => this.#listedOne('address pools'),
    };
  }

  /** Of objects of which only one thing counts; most news of nodes are that they are there. */
  #factKind<T>({ into, read, ...kind }: FactKind<T>): Followed {
    return {
      ...kind,
      keys: () => [...into.keys()],
      put: (key, item) => {
        const [before, now] = [into.get(key), read(item, key)];
        if (now === undefined || (before !== undefined && isAlike(before, now))) return;
        into.set(key, now);
        this.kick();
      },
      delete: (key) => {
        into.delete(key);
        this.kick();
      },
      listed: () => this.#listedOne(kind.name),
    };
  }

  #listedOne(name: string): void {
    this.#listed.add(name);
    this.kick();
  }

  async #settle(): Promise<void> {
    if (this.#listed.size < 5 || !this.#options.isLeading()) return;
    const own = new Set([...this.#nodes.values()].flatMap(({ addresses }) => addresses));
    const pools = await this.#judgePools(own);
    const claims = [...this.#balancers].map(([key, balancer]) => claimOf(key, balancer));
    for (const [key, granted] of grant(claims, pools, own)) await this.#write(key, granted, pools.length > 0);
  }

  /** Ranges that others have addresses of, by what is said of these. */
  #others(): readonly (readonly [ranges: readonly string[], whose: string])[] {
    const told = new Set([...this.#nodes.values()].flatMap(({ podCidrs }) => podCidrs));
    // As the model is: nodes tell of pods' ranges, or these come from IPPools.
    const pods = told.size > 0 ? [...told] : [...this.#ipPools.values()].flat();
    return [
      [pods, 'of which pods have their addresses'],
      [[...this.#given.values()].flat(), 'of which services have their own addresses'],
    ];
  }

  /** The pools that can be used; each is told in its status whether it is one. */
  async #judgePools(own: ReadonlySet<Ip>): Promise<AddressPool[]> {
    const others = this.#others();
    const read = [...this.#pools].map(([name, stored]) => {
      const now = readPool(stored);
      if (!('problem' in now)) this.#readable.set(name, now);
      const pool = this.#readable.get(name);
      const unread = 'problem' in now ? `${now.problem}${pool === undefined ? '' : '; until then what it said before counts'}` : undefined;
      return { name, stored, pool, unread, among: pool && amongOthers(pool, others) };
    });
    const good = read.flatMap(({ pool, among }) => (pool === undefined || among !== undefined ? [] : [pool]));
    const { usable, refused } = usablePools(good);
    for (const { name, stored, pool, unread, among } of read) {
      const lost = pool === undefined ? [] : amongPool(pool, own);
      const other = refused.get(name);
      const overlapped = among ?? (other === undefined ? undefined : `the pool ${other}`);
      const problem = unread ?? (overlapped === undefined ? undefined : `It overlaps ${overlapped}`);
      const told = conditionOf(
        'Ready',
        problem === undefined
          ? {
              reason: 'Usable',
              fine: `Services get its addresses${lost.length === 0 ? '' : `, but for those that nodes have: ${firstOf(lost, 5)}`}`,
            }
          : { reason: unread === undefined ? 'Overlaps' : 'Invalid', problem },
      );
      await this.#writer.put(`${addressPools}/${name}/status`, stored, {
        ...stored.status,
        conditions: this.#with(stored.status?.conditions, told),
      });
    }
    return usable;
  }

  async #write(key: string, { addresses, problem }: Grant, hasPools: boolean): Promise<void> {
    const balancer = this.#balancers.get(key);
    if (balancer === undefined) return;
    const { metadata, status } = balancer;
    const shown = status?.loadBalancer?.ingress ?? [];
    const before = ipsOf(shown.map(({ ip }) => ip));
    // Without any pool services are not ours to speak about.
    if (!hasPools && before.length === 0) return;
    const told = conditionOf(
      conditionType,
      problem === undefined ? { reason: 'Given', fine: 'It has an address of each family' } : { reason: 'NoAddress', problem },
    );
    const isSame = before.toSorted().join() === [...addresses].toSorted().join();
    const ingress = isSame ? shown : addresses.map((ip) => ({ ip }));
    const path = `/api/v1/namespaces/${metadata.namespace}/services/${metadata.name}/status`;
    const next = { ...status, loadBalancer: { ...status?.loadBalancer, ingress }, conditions: this.#with(status?.conditions, told) };
    const wrote = await this.#writer.put(path, balancer, next);
    if (wrote && !isSame) this.#options.log.info({ service: key, addresses, problem }, 'gave addresses to a load balancer');
  }

  #with(before: readonly Condition[] | null | undefined, told: Told): object[] {
    return withCondition(before, told, this.#options.date());
  }
}

/** Who else has addresses of the pool, in words. */
function amongOthers(pool: AddressPool, others: readonly (readonly [ranges: readonly string[], whose: string])[]): string | undefined {
  const [first] = others.flatMap(([ranges, whose]) => {
    const range = amongGiven(pool, ranges);
    return range === undefined ? [] : [`${range}, ${whose}`];
  });
  return first;
}

type Verdict = { readonly reason: string; readonly fine: string } | { readonly reason: string; readonly problem: string };

function conditionOf(type: string, verdict: Verdict): Told {
  const { reason } = verdict;
  return 'fine' in verdict
    ? { type, status: 'True', reason, message: verdict.fine }
    : { type, status: 'False', reason, message: verdict.problem };
}
