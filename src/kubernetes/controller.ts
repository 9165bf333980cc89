// The Kubernetes API in the place of a controller: the agent's facts are the cluster's Nodes, and nothing of ours has to run
// or store anything beside it. What a host decides alone stays the same; what the cluster decides (networks, blocks) is
// decided by whoever gives nodes their podCIDRs.
import type { WatchLine } from '#api/answers.ts';
import type { ClusterAddresses } from '#agent/address-cluster.ts';
import type { Controller } from '#agent/controller.ts';
import { type Decider, networksOf, rangeOf } from '#agent/elsewhere.ts';
import { choicesFor } from '#drivers/models.ts';
import { Fault } from '#model/fault.ts';
import { cidrBase, contains, type Ip } from '#model/ip.ts';
import { vtepMac } from '#model/numbers.ts';
import type { CarryName } from '#model/resources.ts';
import type { Change, KubernetesClient } from './client.ts';
import { LineQueue } from './line-queue.ts';
import { clusterNetwork, type ClusterOptions, isNodeFault, nameOf, type NodeFacts, readNode } from './nodes.ts';
import { OwnFacts } from './own-facts.ts';
import { fallbackPoolId } from './own-network.ts';
import type { OwnNetworks } from './own-networks.ts';
import type { OwnPorts } from './own-ports.ts';
import { wantedOf } from './refused-carriages.ts';

export interface KubernetesOptions extends ClusterOptions {
  /** Name of this host's Node. */
  readonly host: string;
  readonly log: { warn(fields: object, message: string): void };
  /** Told of this host's own Node as often as it changes, and why it cannot be used if it is to be but cannot. */
  readonly saw?: (node: unknown, problem?: string) => void;
  /** Networks beside that of all pods. */
  readonly further?: { readonly networks: OwnNetworks; readonly ports: OwnPorts };
  /** Addresses of this host's containers that others have attached: never given out. */
  readonly taken?: () => readonly Ip[];
}

const nodes = '/api/v1/nodes';

export const kubernetesDecides: Decider = { who: 'Kubernetes', hint: 'Use kubectl, or an agent that follows a controller' };

const full = (): Fault =>
  new Fault('exhausted', "The node's part of the network has no free address", {
    hint: 'Give nodes larger ranges, or run fewer pods on each',
  });

/** What was last said of each node, so that only news are passed on: kubelets touch their Nodes every few seconds. */
class Known {
  readonly #options: KubernetesOptions;
  readonly #facts = new Map<string, NodeFacts>();
  readonly #problems = new Map<string, string>();
  /** Node by its block's id. */
  readonly #holders = new Map<string, string>();
  readonly #further: OwnFacts | undefined;
  #taken = '';
  #carry: CarryName | undefined;

  constructor(options: KubernetesOptions) {
    this.#options = options;
    const { further } = options;
    this.#further = further === undefined ? undefined : new OwnFacts({ ...options, ports: further.ports });
  }

  /** What is to be said of networks beside that of all pods. */
  further(revision: number): Iterable<WatchLine> {
    return this.#further?.lines(this.#options.further?.networks.current ?? [], this.#facts, revision) ?? [];
  }

  get(name: string): NodeFacts | undefined {
    return this.#facts.get(name);
  }

  *put(item: unknown, revision: number): Generator<WatchLine, void> {
    const name = nameOf(item) ?? '';
    const facts = this.#read(item, name);
    if (name === this.#options.host) this.#options.saw?.(item, facts?.host === undefined ? this.#problems.get(name) : undefined);
    const before = this.#facts.get(name);
    if (facts?.host === undefined) {
      yield* this.delete(item, revision);
      return;
    }
    if (before !== undefined && substance(before) === substance(facts)) return;
    this.#take(name, facts);
    for (const block of before?.blocks ?? []) {
      if (!facts.blocks.some(({ id }) => id === block.id)) yield { type: 'delete', kind: 'blocks', id: block.id, revision };
    }
    yield { type: 'put', kind: 'hosts', item: facts.host, revision };
    for (const block of facts.blocks) yield { type: 'put', kind: 'blocks', item: block, revision };
  }

  *delete(item: unknown, revision: number): Generator<WatchLine, void> {
    const name = nameOf(item) ?? '';
    const before = this.#facts.get(name);
    this.#take(name, undefined);
    for (const { id } of before?.blocks ?? []) yield { type: 'delete', kind: 'blocks', id, revision };
    if (before?.host !== undefined) yield { type: 'delete', kind: 'hosts', id: name, revision };
  }

  /**
   * What this host wants is said here, not in the API; from its Node it has the MAC that others know it by, what its router knows, what
   * its cloud does not let be, and what it sent by when it last said so: an agent that starts with another carriage moves its routes before it removes what they led over.
   */
  #withOwn(facts: NodeFacts): NodeFacts {
    const { host: name, carry = choicesFor('flannel').carry } = this.#options;
    const { host } = facts;
    if (host === undefined || host.id !== name) return facts;
    const { sends = [], vtepMac: mac, vtepMac6: mac6, routed } = host.carrying ?? {};
    const macs = {
      ...(mac === undefined || mac === vtepMac(host.index) ? {} : { vtepMac: mac }),
      ...(mac6 === undefined ? {} : { vtepMac6: mac6 }),
    };
    const told = routed === undefined ? {} : { routed };
    return { ...facts, host: { ...host, carrying: { ...wantedOf(carry, host.carrying), sends, ...macs, ...told } } };
  }

  /** Whether others have given addresses on this host, or got some back, or it is to carry otherwise since network() was last asked. */
  get isOutdated(): boolean {
    return (this.#options.taken?.() ?? []).join(' ') !== this.#taken || this.#wanted !== this.#carry;
  }

  get #wanted(): CarryName | undefined {
    return this.get(this.#options.host)?.host?.carrying?.wants;
  }

  /** The network and its ranges; the first address of the node's own part of each is the node's. */
  *network(revision: number): Generator<WatchLine, void> {
    const blocks = [...this.#facts.values()].flatMap((facts) => facts.blocks);
    const carry = this.#wanted;
    this.#carry = carry;
    const { network, pools } = clusterNetwork({ ...this.#options, ...(carry === undefined ? {} : { carry }) }, blocks);
    const own = this.#facts.get(this.#options.host)?.blocks ?? [];
    yield { type: 'put', kind: 'networks', item: network, revision };
    const taken = this.#options.taken?.() ?? [];
    this.#taken = taken.join(' ');
    for (const pool of pools) {
      const cidrs = own.filter(({ pool: of }) => of === pool.id).map(({ cidr }) => cidr);
      const reserved = Object.fromEntries([
        ...cidrs.map((cidr) => ['node', cidrBase(cidr)]),
        ...taken.filter((ip) => cidrs.some((cidr) => contains(cidr, ip))).map((ip) => [`taken-${ip.replaceAll(':', '-')}`, ip]),
      ]);
      yield { type: 'put', kind: 'pools', item: { ...pool, reserved, revision }, revision };
    }
  }

  #take(name: string, facts: NodeFacts | undefined): void {
    for (const { id } of this.#facts.get(name)?.blocks ?? []) this.#holders.delete(id);
    if (facts === undefined) this.#facts.delete(name);
    else this.#facts.set(name, facts);
    for (const { id } of facts?.blocks ?? []) this.#holders.set(id, name);
  }

  /** Fault `overlap`: another node has that range already; two would both give out its addresses. */
  #checkUnlike({ blocks }: NodeFacts, name: string): void {
    for (const { id, cidr } of blocks) {
      const holder = this.#holders.get(id);
      if (holder !== undefined && holder !== name)
        throw new Fault('overlap', `Node ${holder} has the podCIDR ${cidr}, too`, { field: 'spec.podCIDR' });
    }
  }

  /** One odd node keeps no other from being used. */
  #read(item: unknown, name: string): NodeFacts | undefined {
    let problem = '';
    try {
      const facts = this.#withOwn(readNode(item, this.#options));
      this.#checkUnlike(facts, name);
      problem = facts.problem ?? '';
      return facts;
    } catch (error) {
      if (!isNodeFault(error)) throw error;
      problem = error.message;
      return undefined;
    } finally {
      if (problem !== (this.#problems.get(name) ?? '') && problem !== '')
        this.#options.log.warn({ node: name, problem }, 'cannot use a node');
      if (problem === '') this.#problems.delete(name);
      else this.#problems.set(name, problem);
    }
  }
}

/** Everything but the revision, which moves without anything of ours having changed. */
const substance = ({ host, blocks }: NodeFacts): string =>
  JSON.stringify([{ ...host, revision: 0 }, blocks.map((block) => ({ ...block, revision: 0 }))]);

/** Each watch begins with a whole listing; `since` is not needed, as a listing of Nodes is small beside what a pod costs. */
export function kubernetesController(client: KubernetesClient, options: KubernetesOptions): Controller {
  let known = new Known(options);
  const { further } = options;

  async function* watch({ signal }: { readonly signal: AbortSignal }): AsyncGenerator<WatchLine, void> {
    const ended = new AbortController();
    const both = AbortSignal.any([signal, ended.signal]);
    const queue = new LineQueue<WatchLine>();
    followNodes(queue, both).catch((error: unknown) => queue.fail(error));
    try {
      yield* queue.lines(signal);
    } finally {
      ended.abort();
      further?.networks.onChange(() => undefined);
    }
  }

  async function followNodes(queue: LineQueue<WatchLine>, signal: AbortSignal): Promise<void> {
    await further?.networks.whenListed(signal);
    const listing = await client.list(nodes, signal);
    let { revision } = listing;
    known = new Known(options);
    const lines = listing.items.flatMap((item) => [...known.put(item, revision)]);
    queue.push(...known.network(revision), ...lines, ...known.further(revision), { type: 'synced', revision, whole: true });
    further?.networks.onChange(() => queue.push(...known.further(revision)));
    while (!signal.aborted) {
      for await (const change of client.watch(nodes, revision, signal)) {
        revision = change.revision;
        queue.push(...linesOf(change));
      }
      await client.checkReached(nodes, revision, signal);
    }
  }

  function* linesOf(change: Change): Generator<WatchLine, void> {
    const { revision } = change;
    if (change.type === 'put') {
      const before = known.get(options.host)?.blocks;
      yield* known.put(change.item, revision);
      // A kubelet touches its Node every few minutes at least.
      const isOwn = nameOf(change.item) === options.host;
      if (isOwn && (known.get(options.host)?.blocks !== before || known.isOutdated)) yield* known.network(revision);
    } else if (change.type === 'delete') yield* known.delete(change.item, revision);
    if (change.type !== 'bookmark') yield* known.further(revision);
    yield { type: 'bookmark', revision };
  }

  const given = rangeOf(kubernetesDecides, full);
  return {
    networks: networksOf(kubernetesDecides),
    addresses: further === undefined ? given : addressesOf(given, further.ports),
    watch,
    // Pods are in the API already; nobody else asks for their endpoints.
    publish: () => Promise.resolve({ refused: new Map(), revision: Number.MAX_SAFE_INTEGER }),
    // Nothing of ours depends on the cluster's clock.
    skewMs: () => undefined,
    report: () => {
      const host = known.get(options.host)?.host;
      if (host !== undefined) return Promise.resolve(host);
      return Promise.reject(
        new Fault('unavailable', `There is no Node ${options.host} with a podCIDR`, {
          hint: 'Does --host name the Node, and does the controller-manager run with --allocate-node-cidrs?',
        }),
      );
    },
  };
}

const isBeside = ({ network: id, pool }: { readonly network: string; readonly pool: string }): boolean =>
  ([4, 6] as const).some((family) => pool === fallbackPoolId({ id }, family));

/** Of networks of the cloud there are more blocks to have, and to give back. */
const addressesOf = (given: ClusterAddresses, ports: OwnPorts): ClusterAddresses => ({
  ...given,
  claimBlock: (asked) => (ports.has(asked.network) && !isBeside(asked) ? ports.claim(asked) : given.claimBlock(asked)),
  releaseBlock: (block) => ports.release(block.id) ?? given.releaseBlock(block),
});
