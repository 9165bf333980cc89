// What this host tells its Node of the network: how it carries, from what is planned and in place, and whether another pod could
// have an address.
import { carriesOn, carryTo } from '#drivers/carriages.ts';
import type { Remote } from '#drivers/driver.ts';
import { tunnelMac, tunnelsOf } from '#drivers/tunnels.ts';
import { type Cidr, familyOf } from '#model/ip.ts';
import type { Snapshot, Underlay } from '#model/resources.ts';
import { writeAnnotations, writeOwn } from './annotations.ts';
import { type Availability, availabilityOf } from './availability.ts';
import type { NodeWish } from './node-teller.ts';
import { podNetwork } from './nodes.ts';

export interface Applied {
  /** What a speaker of BGP had put into the kernel when it was planned. */
  readonly learned?: ReadonlySet<Cidr> | undefined;
  /** What was planned from. */
  readonly facts: Snapshot;
  /** Whether everything is in place that packets of other hosts are received by. */
  readonly isInPlace: boolean;
  /** Whether no pod could have an address of a pool now. */
  readonly isExhausted: (pool: string) => boolean;
}

export interface Wished extends Applied, Pick<Availability, 'hosts' | 'services'> {
  /** The host's own, which it plans with: its Node says nothing of subnets. */
  readonly underlay: readonly Underlay[];
  /** Of which pods get their addresses here; absent: this host's own part. */
  readonly ranges?: Availability['ranges'];
}

/** Undefined while there is no such host, or while what is in place is not what it should be. */
export function wishFor(host: string, publicKey: string | undefined, wished: Wished): NodeWish | undefined {
  const { facts, isInPlace, learned } = wished;
  const self = facts.hosts.get(host);
  const network = facts.networks.get(podNetwork.id);
  const own = [...facts.blocks.values()].filter((block) => block.host === host && block.network === podNetwork.id);
  if (self?.carrying === undefined || network === undefined || !isInPlace) return undefined;
  const isFlannels = network.model === 'flannel';
  if (isFlannels && own.length === 0) return undefined;
  const remotes: Remote[] = [...facts.hosts.values()]
    .filter(({ id }) => id !== host)
    .map((one) => ({
      host: one,
      blocks: [...facts.blocks.values()].filter((block) => block.host === one.id && block.network === podNetwork.id),
      exceptions: [],
    }));
  const ways = { network, self: { ...self, underlay: wished.underlay }, learned };
  const { sends: _before, receives: _none, routed, ...wanted } = self.carrying;
  const inPlace = carriesOn(ways, remotes).toSorted();
  const missing = own.find(({ cidr }) => routed?.to.includes(cidr) !== true)?.cidr;
  const carrying = {
    ...wanted,
    sends: [...new Set(remotes.map((remote) => carryTo(ways, remote)))].toSorted(),
    // Nobody is sent to by a router before it knows the way.
    receives: inPlace.filter((carry) => carry !== 'routes' || missing === undefined),
  };
  const route = { missing, isOnly: carrying.receives.length === 0, problem: routed?.problem };
  const instead = wanted.insteadOf === undefined ? {} : { instead: { carry: wanted.insteadOf, because: wanted.refused?.because ?? '' } };
  const available = availabilityOf({ ranges: own, ...wished, ...(wanted.wants === 'routes' ? { route } : {}), ...instead });
  // In the model calico nodes of flannel are not spoken to.
  if (!isFlannels) return { annotations: writeOwn({ carrying, publicKey }), network: available };
  // What the Node says already comes first, but for an address that the host no longer has.
  const present = new Set(wished.underlay.map(({ ip }) => ip));
  const underlay = self.underlay.map(({ ip }) => ip).toSorted((a, b) => Number(present.has(b)) - Number(present.has(a)));
  const { first, second } = tunnelsOf({ network, self, mtu: 0, remotes });
  const six = [second, first].find((tunnel) => tunnel !== undefined && familyOf(tunnel.underlay.ip) === 6);
  const telling = {
    carrying,
    publicKey,
    index: self.index,
    vni: podNetwork.vni,
    underlay,
    tunnel6: six === undefined ? undefined : tunnelMac(self, 6),
    hasIpv6: own.some(({ cidr }) => familyOf(cidr) === 6),
    podCidrs: [...facts.pools.values()].flatMap((pool) => (pool.network === podNetwork.id ? [pool.cidr] : [])),
  };
  return {
    annotations: writeAnnotations(telling),
    network: available,
  };
}
