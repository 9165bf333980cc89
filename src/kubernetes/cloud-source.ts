// A cluster as the cloud beneath it has to know it: looked at once, or followed for as long as the cloud is kept, with the addresses
// of its load balancers written into the status of services, and what cannot be done into their conditions.
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { isFault, withoutRequests } from '#model/fault.ts';
import type { Network } from '#model/resources.ts';
import { ipPoolIn } from './calico.ts';
import { type KubernetesClient, revisionOf } from './client.ts';
import { type CloudKind, cloudKinds, cloudPaths, type ClusterWish, clusterWish, noObjects, portPoolsOf, readable } from './cloud-facts.ts';
import { type Condition, type Told, withCondition } from './conditions.ts';
import { followKind, type Followed, listKind } from './follow.ts';
import { nameOf as nameOfNode } from './nodes.ts';
import type { AskedBalancer, Serving } from './openstack-service.ts';
import { type PortPool, readPortPool } from './port-pools.ts';
import { allowCarriages, refuseCarriages, type RefusedOptions } from './refused-carriages.ts';
import { type RoutedNode, tellRouted } from './routed-nodes.ts';
import { StatusWriter } from './status-writer.ts';

/** As it is now, with its Nodes. Faults as KubernetesClient.list. */
export async function readCluster(
  client: KubernetesClient,
  serving: Serving,
): Promise<ClusterWish & { readonly nodes: readonly unknown[] }> {
  const objects = noObjects();
  await Promise.all(
    cloudKinds.map(async (kind) => {
      for (const [key, item] of await listKind(cloudPaths[kind], client)) objects[kind].set(key, item);
    }),
  );
  return { ...clusterWish(objects, serving), nodes: [...objects.nodes.values()] };
}

/** What the cloud says of one load balancer. */
export interface Served {
  /** Of the service's ask. */
  readonly id: string;
  readonly address?: string;
  readonly balancer?: string;
  /** What of it the load balancer does not follow, and what it waits for. */
  readonly notes: readonly string[];
  readonly problems: readonly string[];
}

export interface CloudSourceOptions {
  readonly client: KubernetesClient;
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
  readonly serving: Serving;
  readonly date: () => Date;
  readonly isLeading: () => boolean;
  /** Something may be needed that was not. */
  readonly changed: () => void;
}

/** Changes come in bursts. */
const settleMs = 200;
const waiting = 'It has no address yet';
const conditionType = 'causeway.dev/LoadBalancer';
/** Of an Event's note; more is refused. */
const mostText = 1_000;
const ingress = v.looseObject({ ip: v.nullish(v.string()), hostname: v.nullish(v.string()), ipMode: v.nullish(v.string()) });
const service = v.looseObject({
  metadata: v.looseObject({
    namespace: v.string(),
    name: v.string(),
    uid: v.optional(v.string(), ''),
    resourceVersion: v.optional(v.string()),
  }),
  status: v.nullish(
    v.looseObject({
      loadBalancer: v.nullish(v.looseObject({ ingress: v.nullish(v.array(ingress)) })),
      conditions: v.nullish(v.array(v.record(v.string(), v.unknown()))),
    }),
  ),
});
const versioned = v.object({ metadata: v.object({ resourceVersion: v.string() }) });
type StoredService = v.InferOutput<typeof service>;

/** Kubelets touch their Nodes every few seconds, and whoever writes an object notes when. */
const substance = (item: unknown): string =>
  JSON.stringify(item, (key, inner: unknown) => (volatile.has(key) || key.endsWith('Time') ? undefined : inner));
const volatile: ReadonlySet<string> = new Set(['resourceVersion', 'managedFields', 'images']);

export class CloudSource {
  readonly #options: CloudSourceOptions;
  readonly #objects = noObjects();
  readonly #listed = new Set<CloudKind>();
  /** Resource versions of what we have written ahead of the watch, by kind and key. */
  readonly #ahead = new Map<string, number>();
  readonly #whole = Promise.withResolvers<void>();
  readonly #writer: StatusWriter;
  /** By service, so that each Event is written once. */
  readonly #events = new Map<string, string>();
  /** What the cloud has said last; undefined before it has said something. */
  #served: readonly Served[] | undefined;
  /** Why the cloud could not be made as it should be when that was tried last. */
  #failure: readonly string[] | undefined;
  #telling: Promise<void> = Promise.resolve();
  #isPending = false;
  /** Of what is known now; undefined where it has to be worked out. */
  #wish: ClusterWish | undefined;

  constructor(options: CloudSourceOptions) {
    this.#options = options;
    this.#writer = new StatusWriter(options);
  }

  /** Resolves when `signal` has aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { client, log } = this.#options;
    await Promise.all(cloudKinds.map((kind) => followKind(this.#followed(kind), { client, log, signal })));
    await this.#telling;
  }

  /** Until everything has been listed once. */
  get whole(): Promise<void> {
    return this.#whole.promise;
  }

  /** Only of use when it is whole: to wish for less than all would take things back. */
  get wish(): ClusterWish {
    this.#wish ??= clusterWish(this.#objects, this.#options.serving);
    return this.#wish;
  }

  #followed(kind: CloudKind): Followed {
    const known = this.#objects[kind];
    return {
      name: `${kind} for the cloud`,
      ...cloudPaths[kind],
      keys: () => [...known.keys()],
      put: (key, item) => {
        if (this.#isBehind(`${kind} ${key}`, item)) return;
        const before = known.get(key);
        // Pods have addresses of it, which the cloud is to let pass: as agents, it is taken as it was.
        if (kind === 'ipPools' && before !== undefined && ipPoolIn(key, item) === undefined) return;
        known.set(key, item);
        if (before === undefined || substance(before) !== substance(item)) this.#changed();
      },
      delete: (key) => {
        if (known.delete(key)) this.#changed();
      },
      listed: () => {
        this.#listed.add(kind);
        if (this.#listed.size < cloudKinds.length) return;
        this.#whole.resolve();
        this.#changed();
      },
    };
  }

  /** A port pool, as the API answered when it was written: what it says now counts at once. */
  learn(item: unknown): void {
    this.#learn('portPools', readPortPool(item).name, item);
  }

  #learn(kind: CloudKind, key: string, item: unknown): void {
    this.#objects[kind].set(key, item);
    const read = v.safeParse(versioned, item);
    if (read.success) this.#ahead.set(`${kind} ${key}`, revisionOf(read.output.metadata.resourceVersion));
    this.#changed();
  }

  /** Of nodes that there are; of others only their names and versions are of use. */
  get portPools(): { readonly used: readonly PortPool[]; readonly left: readonly PortPool[] } {
    const used = portPoolsOf(this.#objects);
    const names = new Set(used.map(({ name }) => name));
    return { used, left: readable(this.#objects.portPools.values(), readPortPool).filter(({ name }) => !names.has(name)) };
  }

  /** What nodes that carry by a router have to know of it. */
  tellRouted(found: readonly RoutedNode[] | undefined): Promise<void> {
    const { client, log } = this.#options;
    // Tried again at the next look.
    const failed = (node: string, error: Error): void => log.warn({ error, node }, 'cannot tell a Node what the router knows of it');
    return tellRouted({ client, failed }, this.#objects.nodes.values(), found);
  }

  /** Of these networks, as they are carried now, nodes are told that the cloud does not let them be; what they need now counts at once. */
  carryInstead({ networks, because }: { readonly networks: readonly Network[]; readonly because: string }): Promise<void> {
    return refuseCarriages(this.#refusing, networks, because);
  }

  /** That it does now. */
  carryAsWanted(networks: readonly Network[]): Promise<void> {
    return allowCarriages(this.#refusing, networks);
  }

  get #refusing(): RefusedOptions {
    const learn = (item: unknown): void => this.#learn('nodes', nameOfNode(item) ?? '', item);
    return { client: this.#options.client, nodes: [...this.#objects.nodes.values()], learn };
  }

  #isBehind(key: string, item: unknown): boolean {
    if (!this.#ahead.has(key)) return false;
    const read = v.safeParse(versioned, item);
    const isBehind = read.success && revisionOf(read.output.metadata.resourceVersion) < (this.#ahead.get(key) ?? 0);
    if (!isBehind) this.#ahead.delete(key);
    return isBehind;
  }

  #changed(): void {
    this.#wish = undefined;
    this.#options.changed();
    if ((this.#served ?? this.#failure) === undefined || this.#isPending) return;
    this.#isPending = true;
    this.#telling = this.#tellSoon(this.#telling);
  }

  /** What a service asks for, or what its status says, may have changed without the cloud's having to. */
  async #tellSoon(before: Promise<void>): Promise<void> {
    await before;
    await delay(settleMs);
    this.#isPending = false;
    if (this.#options.isLeading()) await this.#tellAll();
  }

  /** Writes what has become of each service that asks for a load balancer, and takes our words off those that do not any more. */
  tell(served: readonly Served[]): Promise<void> {
    this.#served = served;
    this.#failure = undefined;
    return this.#tellNext();
  }

  /** Services that have no address are told why; of those that have one there is nothing new to tell. */
  tellFailure(words: readonly string[]): Promise<void> {
    this.#failure = words;
    return this.#tellNext();
  }

  #tellNext(): Promise<void> {
    const before = this.#telling;
    this.#telling = before.then(() => this.#tellAll());
    return this.#telling;
  }

  async #tellAll(): Promise<void> {
    const byId = new Map(this.#served?.map((one) => [one.id, one]));
    const asked = new Map(this.wish.asked.map((one) => [one.key, one]));
    for (const [key, item] of this.#objects.services) {
      const read = v.safeParse(service, item);
      if (!read.success) continue;
      const ask = asked.get(key);
      const told = read.output.status?.conditions?.some(({ type }) => type === conditionType) === true;
      if (ask === undefined && told) await this.#write(read.output, [], undefined);
      if (ask !== undefined) await this.#tellOne(read.output, ask, ask.balancer && byId.get(ask.balancer.id));
    }
  }

  async #tellOne(stored: StoredService, ask: AskedBalancer, found: Served | undefined): Promise<void> {
    const address = found?.address;
    const isWaiting = ask.balancer !== undefined && address === undefined && (stored.status?.loadBalancer?.ingress ?? []).length === 0;
    if (isWaiting && this.#failure !== undefined) await this.#write(stored, [], said(false, 'NoAddress', [...this.#failure, ...ask.notes]));
    // One that has come meanwhile is told of by the next look.
    else if (ask.balancer === undefined || found !== undefined) await this.#write(stored, ingressOf(ask, address), verdict(ask, found));
  }

  async #write(stored: StoredService, wanted: readonly Ingress[], told: Told | undefined): Promise<void> {
    const { metadata, status } = stored;
    const shown = status?.loadBalancer?.ingress ?? [];
    const isSame = shown.map(nameOf).join() === wanted.map(nameOf).join();
    const others = (status?.conditions ?? []).filter(({ type }) => type !== conditionType);
    const conditions: Condition[] = told === undefined ? others : withCondition(status?.conditions, told, this.#options.date());
    const next = { ...status, loadBalancer: { ...status?.loadBalancer, ingress: isSame ? shown : wanted }, conditions };
    const path = `/api/v1/namespaces/${metadata.namespace}/services/${metadata.name}/status`;
    const wrote = await this.#writer.put(path, stored, next);
    const name = `${metadata.namespace}/${metadata.name}`;
    if (wrote && !isSame)
      this.#options.log.info({ service: name, address: wanted.map(nameOf).join() }, 'wrote the address of a load balancer');
    if (told === undefined) this.#events.delete(metadata.uid);
    else await this.#event(stored, told);
  }

  /** For `kubectl describe`, and for servers that drop conditions of services: those before 1.24. */
  async #event({ metadata, status }: StoredService, { type, status: isGood, reason, message }: Told): Promise<void> {
    const text = `${reason}: ${withoutRequests(message)}`;
    if (this.#events.get(metadata.uid) === text) return;
    const before = status?.conditions?.find((one) => one['type'] === type);
    const isSaid = `${String(before?.['reason'])}: ${withoutRequests(String(before?.['message']))}` === text;
    this.#events.set(metadata.uid, text);
    // That it has no address yet is nothing to tell.
    if (isSaid || (reason === 'NoAddress' && message === waiting)) return;
    const { namespace, name, uid, resourceVersion } = metadata;
    const time = this.#options
      .date()
      .toISOString()
      .replace(/\.\d+Z$/, 'Z');
    const event = {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { generateName: `${name}.`, namespace },
      involvedObject: { apiVersion: 'v1', kind: 'Service', namespace, name, uid, resourceVersion },
      type: isGood === 'True' ? 'Normal' : 'Warning',
      reason: `LoadBalancer${reason}`,
      message,
      source: { component: 'causeway-controller' },
      firstTimestamp: time,
      lastTimestamp: time,
      count: 1,
    };
    try {
      await this.#options.client.create(`/api/v1/namespaces/${namespace}/events`, event);
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#options.log.warn({ error, service: `${namespace}/${name}` }, 'cannot write an Event');
    }
  }
}

interface Ingress {
  readonly ip?: string;
  readonly hostname?: string;
  readonly ipMode?: string;
}
const nameOf = ({ ip, hostname, ipMode }: Ingress | v.InferOutput<typeof ingress>): string => [hostname ?? ip, ipMode ?? 'VIP'].join(' ');

/** Whoever serves pods leads them to an address past the load balancer, but for `ipMode: Proxy` (since Kubernetes 1.29) and names. */
function ingressOf({ hostname, isByProxy }: AskedBalancer, address: string | undefined): Ingress[] {
  if (address === undefined) return [];
  if (hostname !== undefined) return [{ hostname }];
  return [{ ip: address, ...(isByProxy === true ? { ipMode: 'Proxy' } : {}) }];
}

const said = (isGood: boolean, reason: string, words: readonly string[]): Told => ({
  type: conditionType,
  status: isGood ? 'True' : 'False',
  reason,
  message: words.join('. ').slice(0, mostText),
});

function verdict({ balancer, notes }: AskedBalancer, found: Served | undefined): Told {
  if (balancer === undefined || found === undefined) return said(false, 'Refused', notes);
  const { address, problems, balancer: name, notes: ofBalancer } = found;
  if (address === undefined) return said(false, 'NoAddress', [...(problems.length > 0 ? problems : [waiting]), ...ofBalancer, ...notes]);
  return said(problems.length === 0, problems.length === 0 ? 'Made' : 'Incomplete', [
    ...problems,
    `It is load balancer ${name}`,
    ...ofBalancer,
    ...notes,
  ]);
}
