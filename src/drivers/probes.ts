// Which packets must reach which other hosts for this host's networks, one for each sort: what probes between hosts try. Pure.
import { type Cidr, cidrBase, type Family, familyOf, type Ip } from '#model/ip.ts';
import { probePort, virtualPort } from '#model/numbers.ts';
import type { PathSort } from '#model/paths.ts';
import type { Block, Host, Snapshot } from '#model/resources.ts';
import { carryTo } from './carriages.ts';
import type { Carriage, Passage, Remote } from './driver.ts';
import { drivers } from './drivers.ts';
import { shareSubnet } from './host-gateway.ts';
import { ownBlocks } from './inside.ts';
import type { VirtualAddress } from './virtual.ts';
import { underlayOf } from './vxlan.ts';

export interface Check {
  readonly sort: PathSort;
  readonly protocol: 'udp' | 'tcp';
  readonly port: number;
  readonly from: Ip;
  readonly to: Ip;
  readonly what: string;
  readonly networks: readonly string[];
}

/** What one other host must be reached by. */
export interface PeerChecks {
  readonly host: string;
  /** Largest packet that both interfaces take. */
  readonly mtu: number;
  readonly checks: readonly Check[];
}

/** One that is for a host. */
export interface PeerCheck {
  readonly self: Host;
  readonly peer: Host;
  readonly check: Check;
}

/** What `carriages`, those of networks on this host, send to other hosts, and what else is to be tried; hosts by name. */
export function probesOf(carriages: readonly Carriage[], more: readonly PeerCheck[] = []): readonly PeerChecks[] {
  const found = carriages.flatMap((carriage) =>
    carriage.remotes.flatMap((remote) => checksOf(carriage, remote).map((check) => ({ self: carriage.self, peer: remote.host, check }))),
  );
  return [...Map.groupBy([...found, ...more], ({ peer }) => peer.id)]
    .map(([host, those]) => ({ host, mtu: mtuBetween(those[0]), checks: merged(those.map(({ check }) => check)) }))
    .toSorted((a, b) => (a.host < b.host ? -1 : 1));
}

/** By these hosts settle which of them has addresses that move; what they do not understand they do not heed. */
export function virtualChecks(
  addresses: readonly VirtualAddress[],
  self: Host,
  { hosts, networks }: Pick<Snapshot, 'hosts' | 'networks'>,
): PeerCheck[] {
  return addresses.flatMap(({ network, others }) =>
    [...others].flatMap(([id, to]) => {
      const [peer, own] = [hosts.get(id), self.underlay.find(({ ip }) => familyOf(ip) === familyOf(to))];
      if (peer === undefined || own === undefined) return [];
      const named = networks.get(network)?.name ?? network;
      const check = {
        sort: 'tunnel',
        protocol: 'udp',
        port: virtualPort,
        from: own.ip,
        to,
        what: `UDP port ${virtualPort}`,
        networks: [named],
      } as const;
      return [{ self, peer, check }];
    }),
  );
}

function mtuBetween(pair: { readonly self: Host; readonly peer: Host } | undefined): number {
  const [own] = pair?.self.underlay ?? [];
  const ip = pair === undefined ? undefined : underlayOf(pair.self, pair.peer);
  const theirs = pair?.peer.underlay.find((one) => one.ip === ip);
  return Math.min(own?.mtu ?? 1500, theirs?.mtu ?? 1500);
}

/** Networks that are sent in the same way are tried by one packet. */
function merged(checks: readonly Check[]): Check[] {
  const same = Map.groupBy(checks, ({ protocol, port, from, to }) => `${protocol} ${port} ${from} ${to}`);
  return [...same.values()].flatMap(([first, ...more]) =>
    first === undefined ? [] : [{ ...first, networks: [...new Set([first, ...more].flatMap(({ networks }) => networks))].toSorted() }],
  );
}

function checksOf(carriage: Carriage, remote: Remote): Check[] {
  const { network, self } = carriage;
  const carry = carryTo(carriage, remote);
  const driver = drivers[carry];
  // These have two ways, of which one is for hosts on the same subnet.
  const isEither = carry === 'direct-routing' || carry === 'bgp-cross-subnet';
  const isDirect = shareSubnet(self, remote.host);
  return (driver?.passages(network) ?? []).flatMap((passage) => {
    const isPlain = passage.protocol === 0;
    if (isEither && passage.protocol !== 6 && isPlain !== isDirect) return [];
    return isPlain ? plainChecks(carriage, remote) : portCheck(carriage, remote, passage);
  });
}

function portCheck({ network, self }: Carriage, { host }: Remote, { protocol, port }: Passage): Check[] {
  const [own] = self.underlay;
  const to = underlayOf(self, host);
  if (own === undefined || to === undefined || port === undefined) return [];
  const isTcp = protocol === 6;
  const what = `${isTcp ? 'TCP' : 'UDP'} port ${port}`;
  return [{ sort: isTcp ? 'session' : 'tunnel', protocol: isTcp ? 'tcp' : 'udp', port, from: own.ip, to, what, networks: [network.name] }];
}

const firstOf = (blocks: readonly Block[], family: Family): Cidr | undefined =>
  blocks
    .filter(({ vlan }) => vlan === undefined)
    .map(({ cidr }) => cidr)
    .filter((cidr) => familyOf(cidr) === family)
    .toSorted()[0];

/**
 * From a block of this host to one of the other's, of each family that both have: by their first addresses, which no container has.
 * What passes between ports of the cloud's own is what their groups let pass.
 */
function plainChecks({ network, netns, self, snapshot }: Carriage, { blocks }: Remote): Check[] {
  if (netns !== '') return [];
  const own = ownBlocks({ snapshot, network, self });
  const inTheOpen = (those: readonly Block[]): Block[] => those.filter(({ pool }) => snapshot.pools.get(pool)?.fallback !== true);
  return ([4, 6] as const).flatMap((family) => {
    const [from, to] = [firstOf(inTheOpen(own), family), firstOf(inTheOpen(blocks), family)];
    if (from === undefined || to === undefined) return [];
    const what = `A packet from ${from} to ${to} as it is`;
    return [{ sort: 'plain', protocol: 'udp', port: probePort, from: cidrBase(from), to: cidrBase(to), what, networks: [network.name] }];
  });
}
