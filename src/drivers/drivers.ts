// Every way of carrying, by name. A plain table: nothing registers itself. `docker` is carried by Docker's own driver, so
// there is nothing to plan for it.
import type { CarryName } from '#model/resources.ts';
import type { Driver } from './driver.ts';
import { addressPairs } from './address-pairs.ts';
import { bgp, bgpCrossSubnet } from './bgp.ts';
import { directRouting } from './direct-routing.ts';
import { hostGateway } from './host-gateway.ts';
import { routes } from './routes.ts';
import { vxlan } from './vxlan.ts';
import { wireguard } from './wireguard.ts';

export const drivers: Readonly<Partial<Record<CarryName, Driver>>> = {
  vxlan,
  'direct-routing': directRouting,
  'host-gateway': hostGateway,
  bgp,
  'bgp-cross-subnet': bgpCrossSubnet,
  wireguard,
  routes,
  'address-pairs': addressPairs,
};
