// Carried by the hosts' own router: it knows each host's blocks (on Neutron: extra routes of a router), so hosts need no routes to each
// other at all; what is not their own leaves by their default route. One writer tells the router of all
// hosts at once (cloud/router.ts), unlike a route controller that makes one call for each node. A node of Kubernetes says that it takes
// packets so as soon as it was told that the router leads to it (kubernetes/carrying.ts).
import type { Driver } from './driver.ts';
import { hostGateway } from './host-gateway.ts';

export const routes: Driver = {
  name: 'routes',
  overhead: () => [],
  passages: (network) => hostGateway.passages(network),
  plan: () => ({}),
};
