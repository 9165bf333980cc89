// The routes that Docker sets inside a container. Docker binds type 1 routes to the interface and looks up the interface of
// type 0 routes and of default gateways by asking the kernel for a direct route to the next hop (moby v26.1.5,
// libnetwork/osl/route_linux.go), so every gateway first gets a type 1 route of its own; for IPv6 too, because fe80::/64 is
// on every interface. Two interfaces of one container must therefore have different gateways: the agent's answer says which.
import { type Cidr, cidrLength, cidrOf, cidrBase, type Family, familyOf, hostPrefix, type Ip, subnetAt } from '#model/ip.ts';
import type { JoinAnswer } from '#api/local.ts';
import type { Interface } from './protocol.ts';

/** RouteType of libnetwork/types: 0 needs NextHop, 1 is connected. */
export interface StaticRoute {
  readonly Destination: Cidr;
  readonly RouteType: 0 | 1;
  readonly NextHop?: Ip;
}

export interface RouteInput {
  readonly answer: JoinAnswer;
  /** Ranges of the endpoint's network. */
  readonly pools: readonly Cidr[];
  /** Addresses with the prefix lengths that Docker puts on the link. */
  readonly interfaces: readonly Interface[];
}

/**
 * Type 1 routes come first. The network's pools always go through its own gateway, because only one network of a container
 * holds the default route. Where Docker's own IPAM put a whole prefix on the link, two halves of it win over its connected
 * route, so that peers are never looked up on the link.
 */
export function staticRoutes(input: RouteInput): StaticRoute[] {
  const { answer, pools, interfaces } = input;
  const gateways = ([4, 6] as const).flatMap((family) => answer.gateways[family] ?? []);
  const connected: StaticRoute[] = gateways.map((ip) => ({ Destination: hostPrefix(ip), RouteType: 1 }));
  const routes = new Map<Cidr, StaticRoute>(connected.map((route) => [route.Destination, route]));
  const add = (destination: Cidr, via: Ip | undefined): void => {
    if (routes.has(destination)) return;
    routes.set(
      destination,
      via === undefined ? { Destination: destination, RouteType: 1 } : { Destination: destination, RouteType: 0, NextHop: via },
    );
  };
  for (const { destination, via } of answer.routes) add(destination, via);
  const onLink = interfaces.map(({ ip, length }) => cidrOf(ip, length));
  for (const prefix of onLink) {
    const via = answer.gateways[familyOf(prefix)];
    if (via !== undefined) for (const half of halves(prefix)) add(half, via);
  }
  const used = new Set<Family>(interfaces.map(({ ip }) => familyOf(ip)));
  for (const pool of pools) {
    const via = answer.gateways[familyOf(pool)];
    if (via !== undefined && used.has(familyOf(pool)) && !onLink.includes(pool)) add(pool, via);
  }
  return [...routes.values()].sort((a, b) => b.RouteType - a.RouteType);
}

const halves = (prefix: Cidr): Cidr[] => [0n, 1n].flatMap((index) => subnetAt(prefix, cidrLength(prefix) + 1, index) ?? []);

/** Whether any prefix of `a` and any of `b` share addresses. */
export const shareAddresses = (a: readonly Cidr[], b: readonly Cidr[]): boolean =>
  a.some((one) => b.some((other) => familyOf(one) === familyOf(other) && overlap(one, other)));

function overlap(a: Cidr, b: Cidr): boolean {
  const length = Math.min(cidrLength(a), cidrLength(b));
  return cidrOf(cidrBase(a), length) === cidrOf(cidrBase(b), length);
}
