// Plain routing: for each other host, a route to its blocks with that host as the next hop. No header is added, but the
// underlay must accept container addresses (on Neutron: allowed address pairs), and all hosts must share a subnet.
import { familyOf, contains } from '#model/ip.ts';
import type { Route } from '#model/desired.ts';
import type { Host } from '#model/resources.ts';
import type { Carriage, Driver, Remote } from './driver.ts';
import { destinationsOf, routesTo } from './vxlan.ts';

/** Whether both hosts have an address in one on-link prefix of `self`. */
export function shareSubnet(self: Host, peer: Host): boolean {
  return self.underlay.some(({ subnet }) => peer.underlay.some(({ ip }) => contains(subnet, ip)));
}

/** Routes straight to `remote`, for the families in which it is on-link. */
export function reachDirectly({ netns, self }: Carriage, remote: Remote): Route[] {
  return routesTo(destinationsOf(remote), netns, () => ({ onlink: false })).flatMap((route) => {
    for (const { subnet, interface: link, mtu } of self.underlay) {
      const peer = remote.host.underlay.find(({ ip }) => familyOf(ip) === familyOf(route.destination) && contains(subnet, ip));
      if (peer !== undefined) return [{ ...route, via: peer.ip, link, onlink: true, ...(peer.mtu < mtu ? { mtu: peer.mtu } : {}) }];
    }
    return [];
  });
}

export const hostGateway: Driver = {
  name: 'host-gateway',
  overhead: () => [],
  passages: () => [
    { protocol: 0, why: 'packets with container addresses between hosts, every protocol (on Neutron: allowed address pairs)' },
  ],
  plan: (carriage) => ({ route: carriage.remotes.flatMap((remote) => reachDirectly(carriage, remote)) }),
};
