// Which way packets go to each of the other hosts, where hosts may differ: while a cluster changes from one carriage to another,
// and beside hosts of another system. A host is sent to by what this host wants as soon as that one says that it has it in
// place, and until then by what it wants itself; and whatever anybody may still send by stays in place here. So a change
// goes through host by host, in any order, and no packet ever arrives where nothing waits for it.
import type { Desired } from '#model/desired.ts';
import type { CarryName, Host, Network } from '#model/resources.ts';
import type { Carriage, Remote } from './driver.ts';
import { drivers } from './drivers.ts';
import { mtuSum } from './mtu.ts';

/** What else a host takes that has this in place: routes to neighbours need nothing to be in place. */
const implied: Readonly<Partial<Record<CarryName, readonly CarryName[]>>> = {
  'direct-routing': ['vxlan', 'host-gateway'],
  vxlan: ['direct-routing'],
};

function canTake(host: Host, carry: CarryName): boolean {
  const receives = host.carrying?.receives;
  if (receives === undefined) return host.carrying === undefined || host.carrying.wants === carry;
  return carry === 'host-gateway' || receives.some((one) => one === carry || implied[one]?.includes(carry) === true);
}

const wantedBy = (network: Network, { carrying }: Host): CarryName => carrying?.wants ?? network.choices.carry;

/** How `self` sends to `peer`. */
export function carryTo(network: Network, self: Host, peer: Host): CarryName {
  const wanted = wantedBy(network, self);
  if (canTake(peer, wanted)) return wanted;
  const theirs = wantedBy(network, peer);
  return canTake(peer, theirs) ? theirs : (peer.carrying?.receives?.[0] ?? theirs);
}

/** Everything that has to be in place on `self`, what it wants itself first; what it sent by goes when its routes have moved. */
export function carriesOn(network: Network, self: Host, remotes: readonly Remote[]): CarryName[] {
  const wanted = wantedBy(network, self);
  // Hosts of a network that they all carry alike say nothing of it.
  if (self.carrying === undefined && remotes.every(({ host }) => host.carrying === undefined)) return [wanted];
  const others = remotes.flatMap(({ host }) => [wantedBy(network, host), ...(host.carrying?.sends ?? []), carryTo(network, self, host)]);
  return [...new Set([wanted, ...others, ...(self.carrying?.sends ?? [])])];
}

const by = (network: Network, carry: CarryName): Network => ({ ...network, choices: { ...network.choices, carry } });

/** The largest packet that every carriage in place takes. */
export const mtuOf = (network: Network, self: Host, remotes: readonly Remote[]): number =>
  Math.min(...carriesOn(network, self, remotes).map((carry) => mtuSum(by(network, carry), self).mtu));

/** The carriage of the network on this host, whichever ways it takes. */
export function planCarriages(carriage: Carriage): Partial<Desired> {
  const { network, self, remotes } = carriage;
  const parts = carriesOn(network, self, remotes).map((carry) => {
    const those = Map.groupBy(remotes, ({ host }) => carryTo(network, self, host) === carry);
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
