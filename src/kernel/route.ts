// Routes of the main table with protocol 197, both families in one path. The kernel's identity of a route is prefix plus
// metric; ours all have the family's default metric, so the destination alone is the key. A foreign route with the same
// identity is not replaced, the item is refused with EEXIST, unless it leads over a link of ours or by the very next hop that is
// wanted: then another system that we took over has left it.
import type { Netns, Route } from '#model/desired.ts';
import type { Cidr, Family } from '#model/ip.ts';
import { routeProtocol } from '#model/numbers.ts';
import { byNetns, linkIndexes, linksByIndex, noLink, place, sendAll } from './batch.ts';
import type { Failure, Kind } from './kind.ts';
import type { NetlinkSocket } from './netlink/socket.ts';
import { decodeRoute, encodeRoute, encodeRouteDump, type RouteMessage } from './netlink/rtnl.ts';
import {
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  RT_TABLE_MAIN,
  RTM_DELROUTE,
  RTM_F_CLONED,
  RTM_GETROUTE,
  RTM_NEWROUTE,
  RTN_BLACKHOLE,
  RTN_UNICAST,
  RTN_UNREACHABLE,
  RTPROT_BIRD,
} from './netlink/uapi.ts';
import { isOurLinkName } from './ownership.ts';
import type { Sockets } from './sockets.ts';

const numbers = { unicast: RTN_UNICAST, unreachable: RTN_UNREACHABLE, blackhole: RTN_BLACKHOLE } as const;
const typeOf = (number: number): Route['type'] =>
  number === RTN_BLACKHOLE ? 'blackhole' : number === RTN_UNREACHABLE ? 'unreachable' : 'unicast';

/** In ip-route(8)'s spelling. */
export function routeText(route: Route): string {
  const type = route.type === 'unicast' ? '' : `${route.type} `;
  const via = route.via === undefined ? '' : ` via ${route.via}`;
  const link = route.link === undefined ? '' : ` dev ${route.link}`;
  return `route ${type}${route.destination}${via}${link}${route.onlink ? ' onlink' : ''}${place(route.netns)}`;
}

export const routeKey = (route: Route): string => `${route.netns} ${route.destination}`;

export const sameRoute = (wanted: Route, found: Route): boolean =>
  wanted.type === found.type &&
  wanted.via === found.via &&
  // The kernel reports unreachable IPv6 routes on `lo`; they have no link of their own.
  (wanted.type !== 'unicast' || (wanted.link === found.link && wanted.onlink === found.onlink)) &&
  wanted.mtu === found.mtu &&
  wanted.source === found.source;

/** A table's routes with that protocol, 0 for all. Fault `kernel`. */
export function dumpRoutes(socket: NetlinkSocket, family: Family, protocol: number, table: number = RT_TABLE_MAIN): RouteMessage[] {
  const request = {
    type: RTM_GETROUTE,
    body: encodeRouteDump(family, protocol, table),
    action: `list IPv${family} routes`,
    mayLack: true,
  } as const;
  return socket
    .dump(request)
    .map((message) => decodeRoute(message.body))
    .filter((route) => route.table === table && (route.flags & RTM_F_CLONED) === 0);
}

/** Where the main table's routes of a BGP speaker lead to. Fault `kernel`. */
export const learnedRoutes = (socket: NetlinkSocket): Cidr[] =>
  ([4, 6] as const).flatMap((family) => dumpRoutes(socket, family, RTPROT_BIRD).map(({ destination }) => destination));

function toRoute(netns: Netns, route: RouteMessage, link: string | undefined): Route {
  const type = typeOf(route.type);
  return {
    netns,
    destination: route.destination,
    ...(route.via === undefined ? {} : { via: route.via }),
    ...(link === undefined || type !== 'unicast' ? {} : { link }),
    onlink: route.onlink,
    type,
    ...(route.mtu === undefined ? {} : { mtu: route.mtu }),
    ...(route.source === undefined ? {} : { source: route.source }),
  };
}

function write(socket: NetlinkSocket, routes: readonly Route[], flags: number): Failure<Route>[] {
  const indexes = linkIndexes(
    socket,
    routes.flatMap((route) => route.link ?? []),
  );
  return sendAll(socket, routes, (route) => {
    const action = `add ${routeText(route)}`;
    const index = route.link === undefined ? undefined : indexes.get(route.link);
    if (route.link !== undefined && index === undefined) return noLink(action, route.link);
    const body = encodeRoute({
      destination: route.destination,
      via: route.via,
      index: route.type === 'unicast' ? index : undefined,
      onlink: route.onlink,
      type: numbers[route.type],
      protocol: routeProtocol,
      mtu: route.mtu,
      source: route.source,
    });
    return { type: RTM_NEWROUTE, flags, body, action };
  });
}

/** Ours, or another system's that leads where the wanted one leads, or over a link that was taken over from it. */
const isOurs = (wanted: Route, { protocol, link, via }: RouteMessage & { readonly link: string | undefined }): boolean =>
  protocol === routeProtocol ||
  (link !== undefined && (isOurLinkName(link) || (link === wanted.link && via !== undefined && via === wanted.via)));

/** Routes that are there already: those that may be are replaced, others stay and the item is refused. */
function replace(socket: NetlinkSocket, refused: readonly Failure<Route>[]): Failure<Route>[] {
  const links = linksByIndex(socket);
  const there = ([4, 6] as const)
    .flatMap((family) => dumpRoutes(socket, family, 0))
    .map((route) => ({ ...route, link: route.index === undefined ? undefined : links.get(route.index)?.name }));
  const found = Map.groupBy(there, ({ destination }) => destination);
  const mayReplace = ({ item }: Failure<Route>): boolean => (found.get(item.destination) ?? []).every((route) => isOurs(item, route));
  const foreign = refused.filter((failure) => !mayReplace(failure));
  const own = refused.filter(mayReplace).map(({ item }) => item);
  return [...foreign, ...write(socket, own, NLM_F_CREATE | NLM_F_REPLACE)];
}

/** Two parts: what leads somewhere, and what only keeps packets from leaving by wider routes. */
const partsOf = (routes: readonly Route[]): readonly [Route[], Route[]] => [
  routes.filter(({ type }) => type === 'unicast'),
  routes.filter(({ type }) => type !== 'unicast'),
];

export function createRouteKind(sockets: Sockets): Kind<Route> {
  function list(netns: Netns): Route[] {
    const socket = sockets.find(netns);
    if (socket === undefined) return [];
    const found = ([4, 6] as const).flatMap((family) => dumpRoutes(socket, family, routeProtocol));
    if (found.length === 0) return [];
    const links = linksByIndex(socket);
    return found
      .filter((route) => route.protocol === routeProtocol)
      .map((route) => toRoute(netns, route, route.index === undefined ? undefined : links.get(route.index)?.name));
  }

  return {
    name: 'route',
    key: routeKey,
    same: sameRoute,
    list,
    add: (items) =>
      byNetns(items, (netns, group) => {
        const socket = sockets.of(netns);
        // A packet that comes in between finds the way that it had, or the new one.
        const [ways, ends] = partsOf(group);
        const failures = write(socket, [...ways, ...ends], NLM_F_CREATE | NLM_F_EXCL);
        const refused = failures.filter(({ fault }) => fault.errno === 'EEXIST');
        const others = failures.filter(({ fault }) => fault.errno !== 'EEXIST');
        return refused.length === 0 ? others : [...others, ...replace(socket, refused)];
      }),
    remove: (items) =>
      byNetns(items, (netns, group) => {
        const socket = sockets.find(netns);
        if (socket === undefined) return [];
        const [ways, ends] = partsOf(group);
        // Prefix and protocol suffice: whatever of ours has that destination goes.
        return sendAll(socket, [...ends, ...ways], (route) => ({
          type: RTM_DELROUTE,
          body: encodeRoute({ destination: route.destination, protocol: routeProtocol }),
          action: `remove ${routeText(route)}`,
        })).filter(({ fault }) => fault.errno !== 'ESRCH');
      }),
  };
}
