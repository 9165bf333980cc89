// What a cluster of the model `calico` consists of, in our words: hosts are Nodes, pools are IPPools. A host's index follows
// from its Node's address, so nobody has to give it one.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { choicesFor } from '#drivers/models.ts';
import { bgpLabels } from '#model/bgp.ts';
import { Fault } from '#model/fault.ts';
import { type Cidr, cidrLength, covers, familyOf, hostPrefix, type Ip, ipToBigint, overlaps } from '#model/ip.ts';
import { united } from '#model/ranges.ts';
import { unknownInterface } from '#model/numbers.ts';
import type { Block, CarryName, Host, Network, Pool } from '#model/resources.ts';
import { selects } from '#model/selector.ts';
import { poolId } from './blocks.ts';
import { readAnnotations } from './annotations.ts';
import { calicoCarries, type IpamSettings, type IpPool, overlappedPools } from './calico.ts';
import { revisionOf } from './client.ts';
import { internalIps, peerMtu, podNetwork, statusOf } from './nodes.ts';
import { wantedOf } from './refused-carriages.ts';

const epoch = '1970-01-01T00:00:00Z';

const node = v.object({
  metadata: v.object({
    name: field.name,
    resourceVersion: v.string(),
    creationTimestamp: field.timestamp,
    labels: v.optional(field.texts, {}),
    annotations: v.optional(v.record(v.string(), v.string()), {}),
  }),
  status: v.optional(
    v.object({
      addresses: v.optional(v.array(v.object({ type: v.string(), address: v.string() })), []),
      conditions: v.nullish(v.array(v.object({ type: v.string(), status: v.string() }))),
    }),
    {},
  ),
});

/** 1 to 65535: the end of the address, which is unlike for hosts of one subnet of 65536 or fewer. */
const indexOf = (ip: Ip): number => Number(ipToBigint(ip) % 0xffffn) + 1;

/** Undefined: the Node has no address yet. Fault `invalid`: it is no Node. */
export function readCalicoNode(item: unknown): Host | undefined {
  const read = v.safeParse(node, item);
  if (!read.success) throw new Fault('invalid', `A Node cannot be read: ${read.issues[0].message}`);
  const { metadata, status } = read.output;
  const addresses = internalIps(status.addresses);
  const [first] = addresses;
  if (first === undefined) return undefined;
  const told = [bgpLabels.asn, bgpLabels.cluster].flatMap((key) => {
    const value = metadata.annotations[key];
    return value === undefined ? [] : [[key, value] as const];
  });
  const { carrying, wireguard, answersProbes: answers } = readAnnotations(metadata.annotations);
  return {
    id: metadata.name,
    name: metadata.name,
    revision: revisionOf(metadata.resourceVersion),
    createdAt: metadata.creationTimestamp,
    labels: { ...metadata.labels, ...Object.fromEntries(told) },
    index: indexOf(first),
    generation: 0,
    ...(carrying === undefined ? {} : { carrying }),
    ...(wireguard === undefined ? {} : { wireguard }),
    underlay: addresses.map((ip) => ({ interface: unknownInterface, ip, subnet: hostPrefix(ip), mtu: peerMtu })),
    agentVersion: '',
    status: statusOf(status.conditions, { seenAt: metadata.creationTimestamp, answers }),
  };
}

const usualIpam: IpamSettings = { strictAffinity: false, maxBlocksPerHost: 0 };

/** What is known of the cluster by now; each part is replaced as news of it come. */
export class CalicoFacts {
  readonly hosts: Map<string, Host> = new Map();
  readonly pools: Map<string, IpPool> = new Map();
  /** Whether those are all. */
  arePoolsKnown = false;
  readonly reservations: Map<string, readonly Cidr[]> = new Map();
  /** Of all hosts. */
  readonly blocks: Map<string, Block> = new Map();
  #ipam: IpamSettings = usualIpam;
  readonly #carry: CarryName | undefined;

  constructor(carry: CarryName | undefined) {
    this.#carry = carry;
  }

  /** Of all pods; undefined while pools are not known. */
  get ranges(): readonly Cidr[] | undefined {
    return this.arePoolsKnown ? [...this.pools.values(), ...this.left()].map(({ cidr }) => cidr) : undefined;
  }

  get ipam(): IpamSettings {
    return this.#ipam;
  }

  setIpam(ipam: IpamSettings | undefined): void {
    this.#ipam = ipam ?? usualIpam;
  }

  /** What this host itself wants. */
  get #wanted(): CarryName {
    return this.#carry ?? calicoCarries.findLast((carry) => [...this.pools.values()].some((pool) => pool.carry === carry)) ?? 'bgp';
  }

  /** A host as others tell of it; of this one the API says only what it sent by when it last said so, and what its cloud does not let be. */
  host(item: Host, self: string): Host {
    return item.id === self ? { ...item, carrying: { ...wantedOf(this.#wanted, item.carrying), sends: item.carrying?.sends ?? [] } } : item;
  }

  /** As the host `self` has it, of which there may be none. */
  network(self?: string): Network {
    const told = self === undefined ? undefined : this.hosts.get(self)?.carrying;
    const choices = choicesFor('calico', { carry: wantedOf(this.#wanted, told).wants });
    const { strictAffinity, maxBlocksPerHost } = this.ipam;
    return {
      id: podNetwork.id,
      name: podNetwork.name,
      revision: 1,
      createdAt: epoch,
      labels: {},
      model: 'calico',
      tenant: 'default',
      choices: { ...choices, address: { ...choices.address, borrow: !strictAffinity, blocksPerHost: maxBlocksPerHost } },
      encrypted: choices.carry === 'wireguard',
      internal: false,
      vni: podNetwork.vni,
      attachable: false,
      addressing: 'blocks',
      names: 'elsewhere',
      present: 'always',
    };
  }

  poolOf({ name, cidr, blockLength, masqueraded }: Pick<IpPool, 'name' | 'cidr' | 'blockLength' | 'masqueraded'>): Pool {
    const inside = [...this.reservations.values()].flat().filter((one) => familyOf(one) === familyOf(cidr) && overlaps(one, cidr));
    return {
      id: poolId(name),
      name,
      revision: 1,
      createdAt: epoch,
      labels: {},
      network: podNetwork.id,
      cidr,
      reserved: Object.fromEntries(inside.map((one) => [one.replaceAll(/[^0-9a-f]/g, '-'), one])),
      blockLength,
      ...(masqueraded ? {} : { keepsSender: true }),
    };
  }

  /** Whether no pool has all of the block any more, as its own was deleted or is of another range since. */
  isLeft({ network, cidr }: Block): boolean {
    return network === podNetwork.id && !this.pools.values().some((pool) => covers(pool.cidr, cidr));
  }

  /** Ranges of such blocks: pods that have addresses of them keep them, and nobody else gets one. */
  left(): readonly Pool[] {
    return this.#left().map(({ cidr, id, pool }) => {
      const name = `left-${cidr.replaceAll(/[^0-9a-f]/g, '-')}`;
      const made = this.poolOf({ name, cidr, blockLength: cidrLength(cidr), masqueraded: pool?.masqueraded ?? true });
      return { ...made, id: `${id}-${name}` };
    });
  }

  /** What is not announced. */
  silent(): Cidr[] {
    const left = this.#left().flatMap(({ cidr, pool }) => (pool === undefined ? [] : { cidr, announced: pool.announced }));
    return [...this.pools.values(), ...left].flatMap(({ cidr, announced }) => (announced ? [] : cidr));
  }

  /** With the id of the pool, and it where it is still there. */
  #left(): { readonly cidr: Cidr; readonly id: string; readonly pool: IpPool | undefined }[] {
    const lost = this.blocks.values().filter((block) => this.isLeft(block));
    return [...Map.groupBy(lost, ({ pool }) => pool)].flatMap(([id, blocks]) => {
      const pool = this.pools.values().find(({ name }) => poolId(name) === id);
      return united(blocks.map(({ cidr }) => cidr)).map((cidr) => ({ cidr, id, pool }));
    });
  }

  /** Every pool, those that overlap an older one as none for pods. */
  usable(): readonly IpPool[] {
    const refused = overlappedPools(this.pools.values());
    return [...this.pools.values()].map((pool) => (refused.has(pool.name) ? { ...pool, forPods: false } : pool));
  }

  /** Pools that pods on `host` may get an address of without asking for one by name, as far as their namespaces may. */
  poolsOn(host: string): readonly IpPool[] {
    const labels = this.hosts.get(host)?.labels ?? {};
    return this.usable()
      .filter((pool) => pool.forPods && pool.automatic && selects(pool.nodes, labels))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Those that a pod in a namespace with these labels may. */
  poolsFor(host: string, namespace: Readonly<Record<string, string>>): readonly IpPool[] {
    return this.poolsOn(host).filter((pool) => selects(pool.namespaces, namespace));
  }
}
