// Plain routes to hosts on the same subnet, VXLAN to those behind a router (flannel's DirectRouting). The vxlan link is
// there on every host, because whoever is across a router sends to it.
import { hostGateway, reachDirectly, shareSubnet } from './host-gateway.ts';
import { insideTunnels, reachByVxlan, vxlan, vxlanDevice } from './vxlan.ts';
import type { Driver } from './driver.ts';
import { tunnelsOf } from './tunnels.ts';

export const directRouting: Driver = {
  name: 'direct-routing',
  overhead: (network, self, peer) => (peer !== undefined && shareSubnet(self, peer) ? [] : vxlan.overhead(network, self)),
  passages: (network) => [...hostGateway.passages(network), ...vxlan.passages(network)],
  plan(carriage) {
    const tunnels = tunnelsOf(carriage);
    const direct = carriage.remotes.filter(({ host }) => shareSubnet(carriage.self, host));
    const tunnelled = carriage.remotes
      .filter(({ host }) => !shareSubnet(carriage.self, host))
      .map((remote) => reachByVxlan(carriage, tunnels, remote));
    return {
      link: vxlanDevice(carriage, tunnels),
      addr: insideTunnels(carriage, tunnels),
      neigh: tunnelled.flatMap(({ neigh }) => neigh),
      fdb: tunnelled.flatMap(({ fdb }) => fdb),
      route: [...direct.flatMap((remote) => reachDirectly(carriage, remote)), ...tunnelled.flatMap(({ route }) => route)],
    };
  },
};
