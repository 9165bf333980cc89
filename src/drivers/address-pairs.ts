// Carried by the cloud itself: every container's address is that of a Neutron port of its own, which is a sub-port of the host's port
// (trunks.ts) or an allowed address pair of it. Of a pair the host answers for it on its own link and routes to it, so that instances and routers of the cloud reach it without
// encapsulation; containers of other hosts are looked for on the link like any instance, so no host needs a route to another.
// (ML2/OVN makes such a container's port a virtual port of the host's, and asks on the wire where it is.)
import type { Desired } from '#model/desired.ts';
import { type Cidr, contains, covers, hostPrefix } from '#model/ip.ts';
import type { LocalEndpoint, Network } from '#model/resources.ts';
import { vxlanPort } from '#model/numbers.ts';
import { hasCompanion, planCompanion } from './companion.ts';
import type { Carriage, Driver } from './driver.ts';
import { ownBlocks } from './inside.ts';

export const addressPairs: Driver = {
  name: 'address-pairs',
  overhead: () => [],
  passages: (network) => [
    { protocol: 0, why: "packets with containers' addresses, every protocol (on Neutron: allowed address pairs)" },
    ...(hasCompanion(network) ? [{ protocol: 17, port: vxlanPort, why: 'VXLAN for containers without a port of the cloud' }] : []),
  ],
  plan: planCompanion,
};

/** Whether the network's addresses are those of the hosts' own subnet. */
export const isInUnderlay = ({ choices }: Network): boolean => choices.carry === 'address-pairs';

/** Of networks that all nodes of a cluster are in, whose pods those of its networks of the cloud reach, with a port and without. */
export function rangesBeside({ network, snapshot }: Pick<Carriage, 'network' | 'snapshot'>): Cidr[] {
  if (network.names !== 'elsewhere' || !isInUnderlay(network)) return [];
  const near = [...snapshot.networks.values()].filter(
    (one) => one.present === 'always' && one.choices.domain === 'host' && !isInUnderlay(one),
  );
  const ids = new Set(near.map(({ id }) => id));
  return [...snapshot.pools.values()].flatMap((pool) => (ids.has(pool.network) ? [pool.cidr] : [])).toSorted();
}

/** What the host answers for on its own link, which it does at once and only where it forwards. */
export function answersFor(
  { network, self, snapshot }: Pick<Carriage, 'network' | 'self' | 'snapshot'>,
  local: readonly LocalEndpoint[],
): Partial<Desired> {
  if (!isInUnderlay(network)) return {};
  const tagged = ownBlocks({ network, self, snapshot }).filter(({ vlan }) => vlan !== undefined);
  const answered = local.flatMap(({ endpoint }) =>
    endpoint.addresses
      .filter((ip) => !tagged.some(({ cidr }) => contains(cidr, ip)))
      .flatMap((ip) => {
        const link = self.underlay.find(({ subnet }) => covers(subnet, hostPrefix(ip)))?.interface;
        return link === undefined ? [] : [{ netns: '', link, ip }];
      }),
  );
  const links = [...new Set(answered.map(({ link }) => link))];
  return {
    proxy: answered,
    sysctl: links.map((link) => ({ netns: '', path: `net/ipv4/neigh/${link}/proxy_delay`, value: '0' })),
  };
}
