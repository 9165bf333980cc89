// Docker's port map to published ports. The map comes with CreateEndpoint for every network of a container, but only the
// network that becomes the container's way out gets ProgramExternalConnectivity, so only that call publishes. From dockerd 28 on
// a container may have a way out of each family, over different networks; either gets that call with the whole map.
// Docker cannot show a remote driver's choice of host port (`docker port` reads a Go type that JSON never has), so a free
// port is chosen only where the user left the choice open.
import { Fault } from '#model/fault.ts';
import { type Family, familyOf, type Ip } from '#model/ip.ts';
import { clashes, everyAddress, sharesIp } from '#model/published-ports.ts';
import type { Endpoint, Protocol, PublishedPort } from '#model/resources.ts';
import type { PortBinding } from './protocol.ts';

/** IP protocol numbers (IANA). */
const protocols: Readonly<Record<number, Protocol>> = { 6: 'tcp', 17: 'udp', 132: 'sctp' };

/** First port given to `-p 80`; the range IANA leaves free for such uses. */
const ephemeral = { first: 49_153, last: 65_535 };

export interface Publication {
  /** Endpoints of this host besides the one. */
  readonly others: readonly Endpoint[];
  /** What the endpoint publishes already; an open choice made earlier is kept. */
  readonly before: readonly PublishedPort[];
  /** Whether the endpoint has an address of IPv6; without, every address of the host is one of IPv4. */
  readonly hasIpv6?: boolean;
  /** The only families whose way out the endpoint is; left out: it is the container's only way out. */
  readonly families?: readonly Family[] | undefined;
  /** Whether no other program has a port of the host, asked only where there is a choice. */
  readonly isFree?: (port: Omit<PublishedPort, 'port'>) => boolean;
}

/** Faults: `unsupported` (protocol, ::1), `exhausted` (no port of the range is free), `exists` (two wishes for one port). */
export function publishedPorts(
  bindings: readonly PortBinding[],
  { others, before, families, hasIpv6 = false, isFree = () => true }: Publication,
): PublishedPort[] {
  const chosen: PublishedPort[] = [];
  for (const binding of bindings) {
    const protocol = protocols[binding.Proto];
    if (protocol === undefined) {
      throw new Fault('unsupported', `Cannot publish IP protocol ${binding.Proto}`, { hint: 'tcp, udp and sctp can be published' });
    }
    const asked = specific(binding.HostIP, hasIpv6);
    if (asked === '::1') {
      throw new Fault('unsupported', 'Cannot publish a port on ::1: the kernel takes answers to it from no link', {
        hint: 'Publish it on 127.0.0.1',
      });
    }
    for (const hostIp of within(asked, families)) {
      const wish = { protocol, port: binding.Port, ...(hostIp === undefined ? {} : { hostIp }) };
      if (chosen.some((port) => same(port, wish) && inRange(port.hostPort, rangeOf(binding)))) continue;
      const taken = [...others.flatMap((endpoint) => endpoint.ports), ...chosen];
      const port = { ...wish, hostPort: hostPortOf(binding, wish, { taken, before, isFree }) };
      mustBeOnce(port, chosen);
      chosen.push(port);
    }
  }
  return chosen;
}

/** The address, or all of them, as far as it is of these families. */
function within(hostIp: Ip | undefined, families: Publication['families']): readonly (Ip | undefined)[] {
  if (families === undefined) return [hostIp];
  if (hostIp === undefined) return families.map((family) => everyAddress[family]);
  return families.includes(familyOf(hostIp)) ? [hostIp] : [];
}

/** Families in which the endpoint is reached by ports of the host. */
export const servedBy = ({ addresses, ports }: Pick<Endpoint, 'addresses' | 'ports'>): readonly Family[] =>
  ([4, 6] as const).filter(
    (family) =>
      addresses.some((ip) => familyOf(ip) === family) && ports.some(({ hostIp }) => hostIp === undefined || familyOf(hostIp) === family),
  );

/** The same ports, of these families only. */
export const narrowed = (ports: readonly PublishedPort[], families: readonly Family[]): readonly PublishedPort[] =>
  ports.flatMap(({ hostIp: asked, ...port }) =>
    within(asked, families).map((hostIp) => ({ ...port, ...(hostIp === undefined ? {} : { hostIp }) })),
  );

type Wish = Omit<PublishedPort, 'hostPort'>;

const same = (port: PublishedPort, wish: Wish): boolean =>
  port.protocol === wish.protocol && port.port === wish.port && port.hostIp === wish.hostIp;

/** Every address is not spelled at all; 0.0.0.0 and :: are every one of a family, which makes a difference where there are both. */
const specific = (ip: Ip | undefined, hasIpv6: boolean): Ip | undefined =>
  !hasIpv6 && (ip === everyAddress[4] || ip === everyAddress[6]) ? undefined : ip;

function rangeOf(binding: PortBinding): { first: number; last: number } {
  if (binding.HostPort === 0) return ephemeral;
  return { first: binding.HostPort, last: Math.max(binding.HostPort, binding.HostPortEnd) };
}

const inRange = (port: number, range: { first: number; last: number }): boolean => port >= range.first && port <= range.last;

interface Surroundings {
  readonly taken: readonly PublishedPort[];
  readonly before: readonly PublishedPort[];
  readonly isFree: (port: Omit<PublishedPort, 'port'>) => boolean;
}

function hostPortOf(binding: PortBinding, wish: Wish, { taken, before, isFree }: Surroundings): number {
  const range = rangeOf(binding);
  if (range.first === range.last) return range.first;
  const kept = before.find((port) => same(port, wish) && inRange(port.hostPort, range));
  const busy = new Set(
    taken.filter((port) => port.protocol === wish.protocol && sharesIp(port.hostIp, wish.hostIp)).map((port) => port.hostPort),
  );
  if (kept !== undefined && !busy.has(kept.hostPort)) return kept.hostPort;
  for (let port = range.first; port <= range.last; port++) {
    if (!busy.has(port) && isFree({ ...wish, hostPort: port })) return port;
  }
  throw new Fault('exhausted', `No ${wish.protocol} port of ${range.first}-${range.last} is free on this host`, {
    hint: 'Choose another range',
  });
}

/** Of two ports of a container behind one of the host, one would be reached and the other never, without a word. */
function mustBeOnce(port: PublishedPort, chosen: readonly PublishedPort[]): void {
  const other = chosen.find((one) => clashes(one, port));
  if (other === undefined) return;
  const whose = other.port === port.port ? `port ${port.port}` : `ports ${other.port} and ${port.port}`;
  throw new Fault('exists', `Port ${port.hostPort}/${port.protocol} of this host is asked for twice, for ${whose}`, {
    field: 'ports',
    hint: 'Choose another host port, or leave one of them out',
  });
}
