// Carried by routes that the hosts tell each other by BGP: the plan has no routes of its own to other hosts, as the speaker
// (BIRD, see speaker.ts) puts what it learns into the kernel.
import type { Driver, Passage } from './driver.ts';
import { directRouting } from './direct-routing.ts';
import { hostGateway, shareSubnet } from './host-gateway.ts';
import { tunnelsOf } from './tunnels.ts';
import { insideTunnels, reachByVxlan, vxlan, vxlanDevice } from './vxlan.ts';

const session: Passage = { protocol: 6, port: 179, why: 'BGP between hosts, and with the routers around them' };

export const bgp: Driver = {
  name: 'bgp',
  overhead: () => [],
  passages: (network) => [session, ...hostGateway.passages(network)],
  plan: () => ({}),
};

/** Learned routes to hosts on the same subnet, VXLAN to those behind a router, which then need not know of containers. */
export const bgpCrossSubnet: Driver = {
  name: 'bgp-cross-subnet',
  overhead: (network, self, peer) => directRouting.overhead(network, self, peer),
  passages: (network) => [...bgp.passages(network), ...vxlan.passages(network)],
  plan(carriage) {
    const tunnels = tunnelsOf(carriage);
    const reached = carriage.remotes
      .filter(({ host }) => !shareSubnet(carriage.self, host))
      .map((remote) => reachByVxlan(carriage, tunnels, remote));
    return {
      link: vxlanDevice(carriage, tunnels),
      addr: insideTunnels(carriage, tunnels),
      neigh: reached.flatMap(({ neigh }) => neigh),
      fdb: reached.flatMap(({ fdb }) => fdb),
      route: reached.flatMap(({ route }) => route),
    };
  },
};
