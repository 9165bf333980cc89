// Carried by the cloud itself: every container's address is that of a Neutron port of its own, and an allowed address pair of its
// host's port. The host answers for it on its own link and routes to it, so that instances and routers of the cloud reach it without
// encapsulation; containers of other hosts are looked for on the link like any instance, so no host needs a route to another.
// (ML2/OVN makes such a container's port a virtual port of the host's, and asks on the wire where it is.)
import type { Desired } from '#model/desired.ts';
import { covers, hostPrefix } from '#model/ip.ts';
import type { Host, LocalEndpoint, Network } from '#model/resources.ts';
import type { Driver } from './driver.ts';

export const addressPairs: Driver = {
  name: 'address-pairs',
  overhead: () => [],
  passages: () => [{ protocol: 0, why: "packets with containers' addresses, every protocol (on Neutron: allowed address pairs)" }],
  plan: () => ({}),
};

/** Whether the network's addresses are those of the hosts' own subnet. */
export const isInUnderlay = ({ choices }: Network): boolean => choices.carry === 'address-pairs';

/** What the host answers for on its own link, which it does at once and only where it forwards. */
export function answersFor(network: Network, self: Host, local: readonly LocalEndpoint[]): Partial<Desired> {
  if (!isInUnderlay(network)) return {};
  const answered = local.flatMap(({ endpoint }) =>
    endpoint.addresses.flatMap((ip) => {
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
