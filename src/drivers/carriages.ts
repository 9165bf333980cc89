// Which way packets go to each of the other hosts, where hosts may differ: while a cluster changes from one carriage to another,
// and beside hosts of another system. A host is sent to by what this host wants as soon as that one says that it has it in
// place, and until then by what it wants itself; and whatever anybody may still send by stays in place here. So a change
// goes through host by host, in any order, and no packet ever arrives where nothing waits for it.
import type { Desired } from '#model/desired.ts';
import type { Cidr } from '#model/ip.ts';
import type { CarryName, Host, Network } from '#model/resources.ts';
import type { Carriage, Remote } from './driver.ts';
import { drivers } from './drivers.ts';
import { shareSubnet } from './host-gateway.ts';
import { models } from './models.ts';
import { mtuSum } from './mtu.ts';
import { isSpoken } from './speaker.ts';

/** Of one network on one host. */
export interface Ways {
  readonly network: Network;
  readonly self: Host;
  /** What its speaker of BGP has put into the kernel; absent: nobody has looked. */
  readonly learned?: ReadonlySet<Cidr> | undefined;
}

/** What else a host takes that has this in place: routes to neighbours need nothing to be in place. */
const implied: Readonly<Partial<Record<CarryName, readonly CarryName[]>>> = {
  'direct-routing': ['vxlan', 'host-gateway'],
  vxlan: ['direct-routing'],
  'bgp-cross-subnet': ['vxlan', 'direct-routing'],
};

function canTake(host: Host, carry: CarryName): boolean {
  const receives = host.carrying?.receives;
  if (receives === undefined) return host.carrying === undefined || host.carrying.wants === carry;
  return carry === 'host-gateway' || receives.some((one) => one === carry || implied[one]?.includes(carry) === true);
}

/** The plan has no routes for BGP: there must be learned ones before others go. To hosts behind a router there is a tunnel. */
function canSend({ self, learned }: Ways, { host, blocks }: Remote, carry: CarryName): boolean {
  if (carry === 'bgp-cross-subnet' && host.carrying !== undefined && !shareSubnet(self, host)) return canTake(host, 'vxlan');
  if (!isSpoken(carry) || host.carrying === undefined || learned === undefined) return canTake(host, carry);
  return blocks.every(({ cidr }) => learned.has(cidr));
}

/** What hosts say is about networks that they carry; this one the cloud does. */
const isCloudCarried = ({ choices }: Network): boolean => choices.carry === 'address-pairs';

const wantedBy = (network: Network, { carrying }: Host): CarryName => carrying?.wants ?? network.choices.carry;

/** How the host sends to that one. */
export function carryTo(ways: Ways, remote: Remote): CarryName {
  const { network, self } = ways;
  if (isCloudCarried(network)) return network.choices.carry;
  const [wanted, theirs] = [wantedBy(network, self), wantedBy(network, remote.host)];
  const receives = remote.host.carrying?.receives ?? [];
  return [wanted, theirs, ...receives].find((carry) => canSend(ways, remote, carry)) ?? theirs;
}

/** Everything that has to be in place here, what the host wants itself first; what it sent by goes when its routes have moved. */
export function carriesOn(ways: Ways, remotes: readonly Remote[]): CarryName[] {
  const { network, self } = ways;
  if (isCloudCarried(network)) return [network.choices.carry];
  const wanted = wantedBy(network, self);
  // Hosts of a network that they all carry alike say nothing of it.
  if (self.carrying === undefined && remotes.every(({ host }) => host.carrying === undefined)) return [wanted];
  const others = remotes.flatMap((remote) => [
    wantedBy(network, remote.host),
    ...(remote.host.carrying?.sends ?? []),
    carryTo(ways, remote),
  ]);
  return [...new Set([wanted, ...others, ...(self.carrying?.sends ?? [])])];
}

/**
 * A host as it is for a network that cannot be carried as the one is that all containers are in, of which alone hosts tell: what does not
 * fit is the network's usual carriage, which is in place wherever the network is.
 */
export function asFits(network: Network, host: Host): Host {
  const { carrying } = host;
  const { carries, choices } = models[network.model];
  if (carrying === undefined || isCloudCarried(network)) return host;
  const fit = (carry: CarryName): CarryName => (carries.includes(carry) ? carry : choices.carry);
  const all = (those: readonly CarryName[]): CarryName[] => [...new Set(those.map(fit))];
  const { wants, receives, sends } = carrying;
  return {
    ...host,
    carrying: {
      ...carrying,
      wants: fit(wants),
      ...(receives === undefined ? {} : { receives: all(receives) }),
      ...(sends === undefined ? {} : { sends: all(sends) }),
    },
  };
}

const by = (network: Network, carry: CarryName): Network => ({ ...network, choices: { ...network.choices, carry } });

/** The largest packet that every carriage in place takes. */
export const mtuOf = (ways: Ways, remotes: readonly Remote[]): number =>
  Math.min(...carriesOn(ways, remotes).map((carry) => mtuSum(by(ways.network, carry), ways.self).mtu));

/** The carriage of the network on this host, whichever ways it takes. */
export function planCarriages(carriage: Carriage): Partial<Desired> {
  const { network, remotes } = carriage;
  const parts = carriesOn(carriage, remotes).map((carry) => {
    const those = Map.groupBy(remotes, (remote) => carryTo(carriage, remote) === carry);
    const given = { ...carriage, network: by(network, carry), remotes: those.get(true) ?? [], others: those.get(false) ?? [] };
    return drivers[carry]?.plan(given) ?? {};
  });
  // Direct routing has a tunnel, too: the same as vxlan's.
  const links = new Map(parts.flatMap(({ link = [] }) => link).map((link) => [link.name, link]));
  return {
    link: [...links.values()],
    wireguard: parts.flatMap(({ wireguard = [] }) => wireguard),
    addr: [...new Map(parts.flatMap(({ addr = [] }) => addr).map((addr) => [`${addr.link} ${addr.address}`, addr])).values()],
    neigh: parts.flatMap(({ neigh = [] }) => neigh),
    fdb: parts.flatMap(({ fdb = [] }) => fdb),
    route: parts.flatMap(({ route = [] }) => route),
  };
}
