// Second copies of a BGP speaker's routes, less preferred than any other, for the time in which it starts again. Graceful restart
// keeps a speaker's routes in the kernel until its peers have told it theirs; but of a peer that is starting again too it does not
// wait for them (RFC 4724, section 4.1), so when both ends of a route start again at once each takes the other's routes away, and
// brings them back when the other's turn to speak comes, tens of milliseconds later. Packets then take the copy.
import { heldRouteProtocol } from '#model/numbers.ts';
import { decodeRoute, encodeRoute, encodeRouteCopy, encodeRouteDump } from './netlink/rtnl.ts';
import type { NetlinkSocket } from './netlink/socket.ts';
import { NLM_F_CREATE, NLM_F_EXCL, RT_TABLE_MAIN, RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE, RTPROT_BIRD } from './netlink/uapi.ts';
import { dumpRoutes } from './route.ts';

const lastResort = 0xff_ff_ff_ff;
const families = [4, 6] as const;

/**
 * Makes a copy of each route of BIRD's in the main table. A copy that is there stays; one that the kernel refuses is done without,
 * as they are a precaution. Fault `kernel`: the routes cannot be listed.
 */
export function holdRoutes(socket: NetlinkSocket): void {
  const requests = families.flatMap((family) =>
    socket
      .dump({ type: RTM_GETROUTE, body: encodeRouteDump(family, RTPROT_BIRD), action: `list IPv${family} routes of bird` })
      .map(({ body }) => ({ body, route: decodeRoute(body) }))
      .filter(({ route }) => route.table === RT_TABLE_MAIN && route.protocol === RTPROT_BIRD)
      .map(({ body, route }) => ({
        type: RTM_NEWROUTE,
        flags: NLM_F_CREATE | NLM_F_EXCL,
        body: encodeRouteCopy(body, { protocol: heldRouteProtocol, metric: lastResort }),
        action: `hold route ${route.destination}`,
      })),
  );
  socket.batch(requests);
}

export const hasHeldRoutes = (socket: NetlinkSocket): boolean =>
  families.some((family) => dumpRoutes(socket, family, heldRouteProtocol).length > 0);

/** Takes all copies away. Fault `kernel`. */
export function releaseRoutes(socket: NetlinkSocket): void {
  const requests = families
    .flatMap((family) => dumpRoutes(socket, family, heldRouteProtocol))
    .map(({ destination }) => ({
      type: RTM_DELROUTE,
      body: encodeRoute({ destination, protocol: heldRouteProtocol }),
      action: `release route ${destination}`,
    }));
  for (const { fault } of socket.batch(requests)) if (fault !== undefined && fault.errno !== 'ESRCH') throw fault;
}
