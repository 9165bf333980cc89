// Follows the definitions of networks of ours for as long as the agent runs. A network that pods of this node are in stays as it is
// when its definition is changed or deleted, until the last of them has ended; so it is in the journal, too.
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import type { Journal } from '#api/local.ts';
import { byAge } from '#model/age.ts';
import { Fault, isFault } from '#model/fault.ts';
import type { Cidr } from '#model/ip.ts';
import type { KubernetesClient } from './client.ts';
import { followKind } from './follow.ts';
import { conflictOf, type OwnNetwork, ownNetwork, readOwnNetwork } from './own-network.ts';
import type { OwnPorts } from './own-ports.ts';

export const definitionsPath = '/apis/k8s.cni.cncf.io/v1/network-attachment-definitions';

export interface OwnNetworksOptions {
  readonly client: KubernetesClient;
  readonly journal: Journal;
  /** Of those that are networks of the cloud; follows as long as this does. Absent: there can be none. */
  readonly ports?: OwnPorts;
  /** Ranges of the cluster's own network; undefined while they are not known. */
  readonly pods: () => readonly Cidr[] | undefined;
  /** Where hosts have their addresses, as this host's links say. */
  readonly hosts: () => readonly Cidr[];
  readonly log: { warn(fields: object, message: string): void };
  /** Ids of networks that containers of this host are in. */
  readonly used: () => ReadonlySet<string>;
  /** Whether the rest of the agent knows of the network by now. */
  readonly isKnown: (id: string) => boolean;
}

const prefix = 'kubernetes/networks/';
const withoutCloud = 'neutron: networks of the cloud are there with the model flannel only';
const patienceMs = 5_000;
const lookMs = 50;

/** Older definitions first, so that of two that cannot be beside each other all agents choose the same. */
const older = byAge(({ key }: OwnNetwork) => key);

const text = (networks: ReadonlyMap<string, OwnNetwork>): string => JSON.stringify([...networks.values()].toSorted(older));

export class OwnNetworks implements AsyncDisposable {
  readonly #options: OwnNetworksOptions;
  /** As the definitions say now, by their key; a text where one cannot be used. */
  readonly #defined = new Map<string, OwnNetwork | string>();
  /** Those that are in force, by id. */
  #current = new Map<string, OwnNetwork>();
  #problems = new Map<string, string>();
  readonly #listed = Promise.withResolvers<void>();
  #isListed = false;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #changed: () => void = () => undefined;

  constructor(options: OwnNetworksOptions) {
    this.#options = options;
    for (const { value } of options.journal.list(prefix)) {
      const read = v.safeParse(ownNetwork, value);
      if (read.success) this.#current.set(read.output.id, read.output);
    }
  }

  start(): void {
    const { client, log } = this.#options;
    const { signal } = this.#stop;
    this.#options.ports?.start();
    this.#running = followKind(
      {
        name: 'network attachment definitions',
        paths: [definitionsPath],
        absent: 'empty',
        keys: () => [...this.#defined.keys()],
        put: (key, item) => this.#put(key, item),
        delete: (key) => {
          if (this.#defined.delete(key)) this.settle();
        },
        listed: () => {
          this.#isListed = true;
          this.settle();
          this.#listed.resolve();
        },
      },
      { client, log, signal },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#options.ports?.[Symbol.asyncDispose]();
    await this.#running;
  }

  /** `changed` is called after changes, and no other any more. */
  onChange(changed: () => void): void {
    this.#changed = changed;
    this.#options.ports?.onChange(changed);
  }

  /** The first whole listing is there. Rejects when `signal` aborts before. */
  async whenListed(signal: AbortSignal): Promise<void> {
    const aborted = Promise.withResolvers<void>();
    signal.addEventListener('abort', () => aborted.reject(signal.reason), { once: true });
    await Promise.race([Promise.all([this.#listed.promise, this.#options.ports?.whenListed]), aborted.promise]);
  }

  get current(): Iterable<OwnNetwork> {
    return this.#current.values();
  }

  /** Whether it is in force here, or pods are in it all the same. */
  isNeeded(id: string): boolean {
    return this.#current.has(id) || this.#options.used().has(id);
  }

  /**
   * The network that this definition, as the API has it now, describes, once the agent knows of it. Faults: `invalid` (it describes
   * none, or badly), `overlap` (it cannot be beside another), `unsupported`, `unavailable` (the agent has not heard of it yet).
   */
  async networkOf(key: string, item: unknown): Promise<OwnNetwork> {
    const wanted = readOwnNetwork(key, item);
    if (wanted === undefined) throw new Fault('invalid', 'spec.config: it describes no network of Causeway', { field: 'spec.config' });
    for (const until = performance.now() + patienceMs; performance.now() < until;) {
      const network = this.#current.get(wanted.id);
      if (network !== undefined && this.#options.isKnown(network.id)) return network;
      const defined = this.#defined.get(key);
      const problem = this.#problems.get(key);
      if (problem !== undefined && typeof defined === 'object' && defined.id === wanted.id)
        throw new Fault(problem === withoutCloud ? 'unsupported' : 'overlap', `spec.config: ${problem}`, { field: 'spec.config' });
      await delay(lookMs);
    }
    throw new Fault('unavailable', 'This node has not been told of the network yet');
  }

  #put(key: string, item: unknown): void {
    const next = this.#read(key, item);
    const before = this.#defined.get(key);
    if (next === undefined) {
      if (this.#defined.delete(key)) this.settle();
      return;
    }
    if (JSON.stringify(before) === JSON.stringify(next)) return;
    this.#defined.set(key, next);
    this.settle();
  }

  #read(key: string, item: unknown): OwnNetwork | string | undefined {
    try {
      return readOwnNetwork(key, item);
    } catch (error) {
      if (!isFault(error)) throw error;
      return error.message;
    }
  }

  /** To be called after containers have left, too: what was kept for them may go; and when ranges of pods have changed. */
  settle(): void {
    const podCidrs = this.#options.pods();
    if (!this.#isListed || podCidrs === undefined) return;
    if (this.#defined.size > 0 || this.#current.size > 0) this.#choose(podCidrs);
    this.#options.ports?.wish(this.#current.values());
  }

  #choose(podCidrs: readonly Cidr[]): void {
    const { ports, hosts, used } = this.#options;
    const surroundings = { podCidrs, hosts: hosts() };
    const inUse = used();
    const defined = [...this.#defined.values()].filter((one) => typeof one === 'object').toSorted(older);
    const kept = [...this.#current.values()].filter(({ id }) => inUse.has(id));
    const chosen = new Map(kept.map((network) => [network.id, network]));
    const problems = new Map([...this.#defined].flatMap(([key, one]) => (typeof one === 'string' ? [[key, one] as const] : [])));
    for (const network of defined) {
      const others = [...chosen.values()].filter(({ id }) => id !== network.id);
      const problem = ports === undefined && network.neutron !== undefined ? withoutCloud : conflictOf(network, others, surroundings);
      if (problem === undefined) chosen.set(network.id, network);
      else problems.set(network.key, problem);
    }
    this.#tell(problems);
    this.#take(chosen);
  }

  #tell(problems: Map<string, string>): void {
    for (const [definition, problem] of problems) {
      if (this.#problems.get(definition) !== problem)
        this.#options.log.warn({ definition, problem }, 'cannot use a network attachment definition');
    }
    this.#problems = problems;
  }

  #take(chosen: Map<string, OwnNetwork>): void {
    if (text(this.#current) === text(chosen)) return;
    const { journal, log } = this.#options;
    try {
      journal.transaction(() => {
        for (const id of this.#current.keys()) if (!chosen.has(id)) journal.delete(prefix + id);
        for (const [id, network] of chosen) journal.put(prefix + id, network);
      });
    } catch (error) {
      if (!isFault(error)) throw error;
      log.warn({ error }, 'cannot keep what is known of networks of pods');
    }
    this.#current = chosen;
    this.#changed();
  }
}
