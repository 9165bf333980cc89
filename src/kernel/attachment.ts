// The container's end of an attachment: looked at and repaired from inside the container's namespace. Docker sets it up
// when it joins; what is lost later (the pair, when our end was deleted; an address or a route, when somebody in the
// container took them away; the MTU, when the underlay's changed) Docker does not bring back, so the agent does.
// The link is known by its MAC, since containers rename links; nothing is cached, since a kept socket would keep the
// namespace of a dead container alive.
import { Fault } from '#model/fault.ts';
import { type Attachment, familiesOf, type Link, type VethLink } from '#model/desired.ts';
import { type Cidr, cidrBase, everything, familyOf, hostPrefix, type Ip, type Mac } from '#model/ip.ts';
import { gatewayMac, routeProtocol } from '#model/numbers.ts';
import { encodeAddr } from './addr.ts';
import { dumpLinks } from './batch.ts';
import type { Kind } from './kind.ts';
import { decodeAddress, encodeAddressDump, encodeLink, encodeRoute, type RouteMessage } from './netlink/rtnl.ts';
import { NetlinkSocket, type Request } from './netlink/socket.ts';
import { NLM_F_CREATE, NLM_F_REPLACE, RTM_GETADDR, RTM_NEWADDR, RTM_NEWROUTE, RTM_SETLINK, RTN_UNICAST } from './netlink/uapi.ts';
import { inNetns } from './netns.ts';
import { dumpRoutes } from './route.ts';

export interface FoundAttachment {
  readonly name: string;
  readonly mtu: number;
  readonly up: boolean;
  readonly addresses: readonly Cidr[];
  /** Every unicast route of the main table over this link. */
  readonly routes: readonly { readonly destination: Cidr; readonly via?: Ip }[];
  /** Families in which the container has a default route, over whichever link. */
  readonly defaults: readonly Cidr[];
}

export interface RepairOptions {
  /** Makes the pair again when there is none. */
  readonly link: Kind<Link>;
  /** Alias of our end. */
  readonly alias: string;
  /** Name of the container's end when it has to be made; `eth0` unless the caller knows it had another. */
  readonly name?: string;
  /** Routes that Docker was given at Join beside the default one. */
  readonly routes?: readonly { readonly destination: Cidr; readonly via?: Ip }[];
  /** An end that has one of its addresses is given its MTU and nothing else: somebody inside may have changed the rest. */
  readonly isSparing?: boolean;
}

export interface Repaired {
  /** Whether anything had to be written. */
  readonly written: boolean;
  /** Whether nothing but the MTU was looked at (RepairOptions.isSparing). */
  readonly isSpared: boolean;
  /** Whether the container had no default route and has been given one over this link. */
  readonly leadsOut: boolean;
  /** As it is now: as it was found, with all that was written, every bit of which the kernel has taken. */
  readonly end: FoundAttachment;
}

interface Found extends FoundAttachment {
  readonly index: number;
}

function find(socket: NetlinkSocket, mac: Mac): Found | undefined {
  const link = dumpLinks(socket).find((candidate) => candidate.mac === mac);
  if (link === undefined) return undefined;
  const addresses = socket
    .dump({ type: RTM_GETADDR, body: encodeAddressDump(), action: 'list addresses' })
    .flatMap(({ body }) => decodeAddress(body) ?? [])
    .filter(({ index }) => index === link.index)
    .map(({ ip, length }) => `${ip}/${length}` as Cidr);
  const routes = ([4, 6] as const).flatMap((family) => dumpRoutes(socket, family, 0)).filter(({ type }) => type === RTN_UNICAST);
  const { index, name, mtu, up } = link;
  return {
    index,
    name,
    mtu,
    up,
    addresses,
    routes: routes
      .filter((route) => route.index === index)
      .map(({ destination, via }) => (via === undefined ? { destination } : { destination, via })),
    defaults: routes
      .map(({ destination }: RouteMessage) => destination)
      .filter((destination) => destination === everything[familyOf(destination)]),
  };
}

/** The link with that MAC in the namespace at `path`. Undefined: no such link. Fault `kernel`, ENOENT when there is no such namespace. */
export function inspectAttachment(path: string, mac: Mac): FoundAttachment | undefined {
  using socket = inNetns(path, () => new NetlinkSocket());
  return find(socket, mac);
}

type Way = FoundAttachment['routes'][number];

/** What the container's end lacks. */
interface Lack {
  readonly isLinkOff: boolean;
  readonly addresses: readonly Cidr[];
  readonly routes: readonly Way[];
}

function lackOf(found: Found, attachment: Attachment, routes: readonly Way[]): Lack {
  const has = (destination: Cidr): boolean => found.routes.some((existing) => existing.destination === destination);
  const ways = familiesOf(attachment.addresses).flatMap((family): Way[] => {
    const gateway = attachment.gateways.find((ip) => familyOf(ip) === family);
    if (gateway === undefined) return [];
    return [
      // An IPv6 link-local gateway needs no route of its own.
      ...(family === 4 && !has(hostPrefix(gateway)) ? [{ destination: hostPrefix(gateway) }] : []),
      // With several networks the default route is over the one that Docker chose.
      ...(found.defaults.includes(everything[family]) ? [] : [{ destination: everything[family], via: gateway }]),
    ];
  });
  const others = routes.filter(({ destination }) => !has(destination) && !ways.some((way) => way.destination === destination));
  return {
    isLinkOff: found.mtu !== attachment.mtu || !found.up,
    addresses: attachment.addresses.filter((wanted) => !found.addresses.includes(wanted)),
    routes: [...ways, ...others],
  };
}

/** Requests that put it right, in order. Empty when it is as it must be. */
function requestsFor(lack: Lack, { index, name }: Found, { mtu, netns }: Attachment): Request[] {
  const requests: Request[] = [];
  if (lack.isLinkOff) {
    requests.push({
      type: RTM_SETLINK,
      body: encodeLink({ index, mtu, up: true }),
      action: `set link ${name} mtu ${mtu} up in ${netns}`,
    });
  }
  for (const address of lack.addresses) {
    const action = `add address ${address} dev ${name} in ${netns}`;
    requests.push({ type: RTM_NEWADDR, flags: NLM_F_CREATE | NLM_F_REPLACE, body: encodeAddr(address, index), action });
  }
  for (const { destination, via } of lack.routes) {
    const body = encodeRoute({ destination, via, index, protocol: routeProtocol, type: RTN_UNICAST, onlink: via !== undefined });
    const action = `add route ${destination}${via === undefined ? '' : ` via ${via}`} dev ${name} in ${netns}`;
    requests.push({ type: RTM_NEWROUTE, flags: NLM_F_CREATE | NLM_F_REPLACE, body, action });
  }
  return requests;
}

/** The end with what it lacked. */
const mended = ({ name, addresses, routes, defaults }: Found, { mtu }: Attachment, lack: Lack): FoundAttachment => ({
  name,
  mtu,
  up: true,
  addresses: [...addresses, ...lack.addresses],
  routes: [...routes, ...lack.routes],
  defaults: [
    ...defaults,
    ...lack.routes.map(({ destination }) => destination).filter((destination) => destination === everything[familyOf(destination)]),
  ],
});

/**
 * Makes the container's end as `attachment` says. A pair that is gone is made again, its far end directly inside. Faults: `kernel`
 * (ENOENT when the container's namespace is gone), `not-found` when our end exists but its far end is neither in the container nor
 * has its MAC.
 */
export function repairAttachment(wanted: Attachment, options: RepairOptions): Repaired {
  using socket = inNetns(wanted.netns, () => new NetlinkSocket());
  const { mac, mtu, host } = wanted;
  const before = find(socket, mac);
  if (before === undefined) {
    const name = options.name ?? 'eth0';
    const peer = { netns: wanted.netns, name, mac, mtu, up: true };
    const link: VethLink = { type: 'veth', netns: host.netns, name: host.name, mtu, mac: gatewayMac, alias: options.alias, peer };
    const [failure] = options.link.add([link]);
    if (failure !== undefined) throw failure.fault;
  }
  const found = before ?? find(socket, mac);
  if (found === undefined) {
    throw new Fault('not-found', `No link with MAC ${mac} in ${wanted.netns}, but ${host.name} exists`, {
      hint: `Remove it with: ip${host.netns === '' ? '' : ` -n ${host.netns}`} link del ${host.name}`,
    });
  }
  const isSpared = options.isSparing === true && wanted.addresses.some((address) => found.addresses.some(sharesIp(address)));
  const attachment = isSpared ? { ...wanted, addresses: [], gateways: [] } : wanted;
  const lack = lackOf(found, attachment, isSpared ? [] : (options.routes ?? []));
  const requests = requestsFor(lack, found, attachment);
  for (const { fault } of socket.batch(requests)) if (fault !== undefined) throw fault;
  return {
    written: before === undefined || requests.length > 0,
    isSpared,
    leadsOut: attachment.gateways.some((ip) => !found.defaults.includes(everything[familyOf(ip)])),
    end: mended(found, attachment, lack),
  };
}

/** Whatever the lengths of the prefixes. */
const sharesIp =
  (address: Cidr) =>
  (other: Cidr): boolean =>
    cidrBase(other) === cidrBase(address);
