// Which of the host's addresses reach the other hosts, and what the host itself routes. Read from getifaddrs(3) (through
// node:os) and /proc/net/route, whose columns are hexadecimal in host byte order (net/ipv4/fib_trie.c, fib_route_seq_show).
import { RTPROT_BIRD } from '#kernel/netlink/uapi.ts';
import { type Cidr, cidrLength, cidrOf, covers, familyOf, formatIp, hostPrefix, type Ip, parseCidr, parseInterface } from '#model/ip.ts';
import { heldRouteProtocol, routeProtocol } from '#model/numbers.ts';
import { Fault } from '#model/fault.ts';
import type { Underlay } from '#model/resources.ts';

/** As os.networkInterfaces() gives them: only the fields that are looked at. */
export type Interfaces = Readonly<Record<string, readonly { readonly cidr: string | null; readonly internal: boolean }[] | undefined>>;

interface RouteLine {
  readonly link: string;
  readonly destination: Cidr;
  readonly metric: number;
}

/** Little-endian hexadecimal, as the table prints addresses on the machines that we support. */
const swap = (hex: string): bigint => BigInt(`0x${(hex.match(/../g) ?? []).toReversed().join('')}`);

function parseRoutes(text: string): RouteLine[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [link, destination, , , , , metric, mask] = line.split(/\s+/);
      if (link === undefined || destination === undefined || mask === undefined) return [];
      const bits = swap(mask).toString(2).replaceAll('0', '').length;
      return [{ link, destination: cidrOf(formatIp(swap(destination), 4), bits), metric: Number(metric) }];
    });
}

const isOurs = (link: string): boolean => link.startsWith('cw');

export interface UnderlayFacts {
  readonly interfaces: Interfaces;
  /** Text of /proc/net/route. */
  readonly routes: string;
  readonly mtuOf: (link: string) => number | undefined;
  /** Interface name or address set by the operator; otherwise the interface of the default route, else the first one. */
  readonly wanted?: string | undefined;
  /** Of others' links, put there by Causeway. */
  readonly own?: ReadonlySet<Ip>;
}

/**
 * A host prefix beside a wider one of the link: an address that moves between hosts, also one that somebody else moves. It does not tell
 * ours where the host's own address is one, too, as DHCPv6 gives it.
 */
const isShared = ({ interface: link, ip, subnet }: Underlay, all: readonly Underlay[]): boolean =>
  subnet === hostPrefix(ip) &&
  all.some((other) => other.interface === link && familyOf(other.ip) === familyOf(ip) && other.subnet !== hostPrefix(other.ip));

/**
 * The host's underlay addresses, the preferred one first, IPv4 before IPv6; link-local ones left out. Empty when the host
 * has none. Fault `invalid` when the operator named an interface or address that is not there.
 */
export function findUnderlay({ interfaces, routes, mtuOf, wanted, own = new Set() }: UnderlayFacts): Underlay[] {
  const all = Object.entries(interfaces).flatMap(([link, addresses]) =>
    (addresses ?? []).flatMap(({ cidr, internal }) => {
      if (cidr === null || internal || isOurs(link) || /^(docker|br-|veth|cni|cbr|flannel)/.test(link)) return [];
      const { ip, length } = parseInterface(cidr);
      return ip.startsWith('fe80:') ? [] : [{ interface: link, ip, subnet: cidrOf(ip, length), mtu: mtuOf(link) ?? 1500 }];
    }),
  );
  const usual = all.filter((entry) => !own.has(entry.ip) && !isShared(entry, all));
  const [byDefault] = parseRoutes(routes)
    .filter(({ destination }) => destination === '0.0.0.0/0')
    .toSorted((a, b) => a.metric - b.metric);
  const isWanted = (entry: Underlay): boolean => entry.interface === wanted || entry.ip === wanted;
  if (wanted !== undefined && !usual.some(isWanted)) {
    throw new Fault('invalid', `This host has no interface or address ${wanted}`, {
      field: '--underlay',
      hint: `Use one of: ${usual.map((entry) => `${entry.interface} (${entry.ip})`).join(', ') || 'none found'}`,
    });
  }
  const rank = (entry: Underlay): number => {
    const preferred = wanted === undefined ? entry.interface === byDefault?.link : isWanted(entry);
    return (preferred ? 0 : 2) + (entry.ip.includes(':') ? 1 : 0);
  };
  return usual.toSorted((a, b) => rank(a) - rank(b));
}

/** Looks in a row without the preferred interface before another one is believed. */
const missesBelieved = 3;

/**
 * What to go by when an interface loses its addresses for a moment, as it does when a cable is pulled or DHCP begins anew: what
 * was known, for ever when nothing at all is left (without an underlay there is nothing better to do), and for two looks when
 * only the preferred interface has gone. `misses`: looks in a row for which this was so, `found` included.
 */
export function steadyUnderlay(known: readonly Underlay[], found: readonly Underlay[], misses: number): readonly Underlay[] {
  const [preferred] = known;
  if (preferred === undefined || !lacksPreferred(known, found)) return found;
  return found.length === 0 || misses < missesBelieved ? known : found;
}

/** Whether the interface that was preferred has no address of its family any more. */
export function lacksPreferred([preferred]: readonly Underlay[], found: readonly Underlay[]): boolean {
  if (preferred === undefined) return false;
  return !found.some((entry) => entry.interface === preferred.interface && familyOf(entry.ip) === familyOf(preferred.ip));
}

/** A route as the kernel tells it; no link: it leads nowhere. */
export interface FoundRoute {
  readonly destination: Cidr;
  readonly protocol: number;
  readonly link?: string | undefined;
  readonly via?: Ip | undefined;
}

export interface HostRoutes {
  /** Destinations that the host itself routes, without the default route, links of ours and routes of ours. */
  readonly routes: Cidr[];
  /** The same over the container engine's bridges: networks that only this host knows. */
  readonly bridges: Cidr[];
}

/** Link-local and multicast destinations are the same everywhere. */
const everywhere: readonly Cidr[] = ['fe80::/10', 'ff00::/8', '169.254.0.0/16'].map((text) => parseCidr(text));
/** How Docker names its own bridges, and, by twelve hexadecimal digits of their ids, those of its networks. */
const engineBridge = /^(docker0|docker_gwbridge|br-[0-9a-f]{12})$/;

/** `peers`: addresses of other hosts; what a speaker of BGP has learned from them is of networks of ours. */
export function hostRoutes(found: readonly FoundRoute[], peers: ReadonlySet<Ip> = new Set()): HostRoutes {
  const theirs = found.filter(
    ({ destination, protocol, link, via }) =>
      link !== undefined &&
      !isOurs(link) &&
      protocol !== routeProtocol &&
      protocol !== heldRouteProtocol &&
      !(protocol === RTPROT_BIRD && via !== undefined && peers.has(via)) &&
      cidrLength(destination) > 0 &&
      !everywhere.some((range) => familyOf(range) === familyOf(destination) && covers(range, destination)),
  );
  const of = (isBridge: boolean): Cidr[] =>
    [...new Set(theirs.filter(({ link = '' }) => engineBridge.test(link) === isBridge).map(({ destination }) => destination))].toSorted();
  return { routes: of(false), bridges: of(true) };
}

/** Name servers of a resolv.conf(5) text, in order. Loopback ones are kept: the agent asks from the host's namespace. */
export function nameServers(text: string): Ip[] {
  return text.split('\n').flatMap((line) => {
    const [keyword, server] = line.trim().split(/\s+/);
    if (keyword !== 'nameserver' || server === undefined) return [];
    try {
      const bare = server.replace(/%.*$/, '');
      parseCidr(`${bare}/${bare.includes(':') ? 128 : 32}`);
      return [parseInterface(`${bare}/${bare.includes(':') ? 128 : 32}`).ip];
    } catch {
      return []; // resolv.conf(5) ignores what it does not understand
    }
  });
}
