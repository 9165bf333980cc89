// A container's default route, led over the link of another network of its own.
import { Fault } from '#model/fault.ts';
import { everything, type Family, familyOf, type Ip } from '#model/ip.ts';
import { routeProtocol } from '#model/numbers.ts';
import { dumpLinks } from './batch.ts';
import { encodeRoute } from './netlink/rtnl.ts';
import { NetlinkSocket, type Request } from './netlink/socket.ts';
import { NLM_F_CREATE, NLM_F_EXCL, RTM_DELROUTE, RTM_NEWROUTE, RTN_UNICAST } from './netlink/uapi.ts';
import { inNetns } from './netns.ts';
import { dumpRoutes } from './route.ts';

/**
 * Removes the default routes of each gateway's family in the namespace at `path`, and makes one over `link`. Of several gateways of a
 * family the first counts. Fault `kernel`: no such namespace or link, or a gateway that cannot be reached over it.
 */
export function leadOut(path: string, link: string, gateways: readonly Ip[]): void {
  using socket = inNetns(path, () => new NetlinkSocket());
  const index = dumpLinks(socket).find(({ name }) => name === link)?.index;
  if (index === undefined) throw new Fault('kernel', `Cannot add a default route: there is no link ${link} in ${path}`);
  for (const family of [4, 6] as const) {
    const via = gateways.find((ip) => familyOf(ip) === family);
    if (via === undefined) continue;
    const requests = [...removals(socket, family, path), addition({ via, index, link, path })];
    for (const { fault } of socket.batch(requests)) if (fault !== undefined) throw fault;
  }
}

function removals(socket: NetlinkSocket, family: Family, path: string): Request[] {
  const destination = everything[family];
  return dumpRoutes(socket, family, 0)
    .filter((route) => route.type === RTN_UNICAST && route.destination === destination)
    .map(({ via, index, protocol }) => ({
      type: RTM_DELROUTE,
      body: encodeRoute({ destination, via, index, protocol }),
      action: `delete route ${destination} in ${path}`,
    }));
}

interface Addition {
  readonly via: Ip;
  readonly index: number;
  readonly link: string;
  readonly path: string;
}

const addition = ({ via, index, link, path }: Addition): Request => ({
  type: RTM_NEWROUTE,
  flags: NLM_F_CREATE | NLM_F_EXCL,
  body: encodeRoute({ destination: everything[familyOf(via)], via, index, protocol: routeProtocol, type: RTN_UNICAST }),
  action: `add route ${everything[familyOf(via)]} via ${via} dev ${link} in ${path}`,
});
