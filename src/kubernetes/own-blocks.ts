// Networks of ours (own-network.ts) in the model `calico`: their subnets are pools, of which nodes claim blocks when they need them, as
// they do of IPPools (blocks.ts). They are carried by VXLAN, or WireGuard where pods are, whatever BGP tells of the cluster's network. A
// block goes back when its network has gone from its node, or its node from the cluster.
import type { ClusterAddresses } from '#agent/address-cluster.ts';
import { choicesFor } from '#drivers/models.ts';
import { isOpen } from '#model/claims.ts';
import { isFault } from '#model/fault.ts';
import { bitsOf, type Cidr, cidrLength, familyOf } from '#model/ip.ts';
import type { Block, CarryName, Pool } from '#model/resources.ts';
import { blocksPath, type NamedPool, ownPoolName } from './blocks.ts';
import type { KubernetesClient } from './client.ts';
import { podNetwork } from './nodes.ts';
import { made, meta, type NetworkFacts, type OwnNetwork, poolId } from './own-network.ts';

/** Sixteen addresses; fewer, but four, where the subnet would have less than 64 blocks of them. */
function blockLength(subnet: Cidr): number {
  const [length, bits] = [cidrLength(subnet), bitsOf(familyOf(subnet))];
  return Math.max(length, Math.min(bits - 2, Math.max(bits - 4, length + 6)));
}

/** The network and its pools, whose blocks are claimed. `carry`: of the cluster's network here. */
export function claimedFacts(network: OwnNetwork, carry: CarryName): NetworkFacts {
  const lengthOf = (family: 4 | 6): number | undefined => {
    const subnet = network.subnets.find((one) => familyOf(one) === family);
    return subnet === undefined ? undefined : blockLength(subnet);
  };
  const choices = choicesFor('overlay', {
    carry: carry === 'wireguard' ? carry : undefined,
    blockLength4: lengthOf(4),
    blockLength6: lengthOf(6),
  });
  return {
    network: made(network, 'overlay', { ...choices, domain: 'host', guard: 'open' }),
    pools: claimedPools(network),
  };
}

/** Of such a network. */
export const claimedPools = (network: OwnNetwork): Pool[] =>
  network.subnets.map((cidr) => ({
    ...meta(poolId(network, cidr), network.createdAt),
    network: network.id,
    cidr,
    reserved: {},
    blockLength: blockLength(cidr),
  }));

/** Undefined: none of these networks has it. */
export function claimedPool(id: string, networks: Iterable<OwnNetwork>): NamedPool | undefined {
  for (const network of networks) {
    const pool = claimedPools(network).find((one) => one.id === id);
    if (pool !== undefined) return { name: ownPoolName(id, network.key), pool, mostBlocks: 0 };
  }
  return undefined;
}

export interface OwnBlocksOptions {
  /** Name of this host's Node. */
  readonly host: string;
  readonly client: Pick<KubernetesClient, 'get' | 'remove'>;
  readonly blocks: Pick<ClusterAddresses, 'releaseBlock'>;
  /** Whether there are pods of this host in the network, or may come to be. */
  readonly isNeeded: (network: string) => boolean;
  /** By the names of their Nodes; of one that is missing the API is asked. */
  readonly hosts: ReadonlyMap<string, unknown>;
  /** From then on that a network has gone, in which a pod that is just being made gets its address or fails; and between tries. */
  readonly pauseMs?: number;
  /** How long a Node has to be missing. */
  readonly absentMs?: number;
  readonly now: () => number;
}

export class OwnBlocks implements Disposable {
  readonly #options: OwnBlocksOptions;
  readonly #pauseMs: number;
  readonly #blocks = new Map<string, Block>();
  readonly #missingSince = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #isDisposed = false;

  constructor(options: OwnBlocksOptions) {
    this.#options = options;
    this.#pauseMs = options.pauseMs ?? 10_000;
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    clearTimeout(this.#timer);
  }

  see(block: Block): void {
    if (block.network !== podNetwork.id) this.#blocks.set(block.id, block);
    this.settle();
  }

  gone(id: string): void {
    this.#blocks.delete(id);
  }

  /** To be called when networks or nodes have changed. */
  settle(): void {
    if (this.#timer !== undefined || this.#due().length === 0) return;
    this.#timer = setTimeout(() => void this.#release(), this.#pauseMs).unref();
  }

  #due(): Block[] {
    const { host: self, isNeeded, hosts } = this.#options;
    return [...this.#blocks.values()].filter(({ host, network }) => (host === self ? !isNeeded(network) : !hosts.has(host)));
  }

  async #release(): Promise<void> {
    for (const block of this.#due()) {
      try {
        await (block.host === this.#options.host ? this.#options.blocks.releaseBlock(block) : this.#releaseOf(block));
      } catch (error) {
        // Another revision, an address that is lent, an API that is away: it is tried again.
        if (!isFault(error)) throw error;
      }
    }
    for (const host of this.#missingSince.keys()) if (this.#options.hosts.has(host)) this.#missingSince.delete(host);
    this.#timer = undefined;
    if (!this.#isDisposed) this.settle();
  }

  /** Of a host that has long gone; what others have borrowed of it stays theirs. */
  async #releaseOf({ host, name, revision, loans }: Block): Promise<void> {
    const { client, hosts, host: self, now, absentMs = 300_000 } = this.#options;
    const since = this.#missingSince.get(host) ?? now();
    this.#missingSince.set(host, since);
    // One after the other, of whom the first is usually enough.
    const rank = [...hosts.keys()].toSorted().indexOf(self);
    if (now() - since < absentMs + rank * this.#pauseMs || loans.some((loan) => isOpen(loan) && hosts.has(loan.host))) return;
    try {
      // It may be there in a form that cannot be used.
      await client.get(`/api/v1/nodes/${host}`);
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
      await client.remove(`${blocksPath}/${name}`, revision);
    }
  }
}
