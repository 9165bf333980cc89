// Networks of ours (own-network.ts) in the model `calico`: their subnets are pools, of which nodes claim blocks when they need them, as
// they do of IPPools (blocks.ts). They are carried by VXLAN, or WireGuard where pods are, whatever BGP tells of the cluster's network.
import { choicesFor } from '#drivers/models.ts';
import { bitsOf, type Cidr, cidrLength, familyOf } from '#model/ip.ts';
import type { CarryName, Pool } from '#model/resources.ts';
import { type NamedPool, ownPoolName } from './blocks.ts';
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
