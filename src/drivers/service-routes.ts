// Which addresses of services a host tells routers of by BGP. Ranges every host tells as wholes; an address where connections from outside
// have endpoints of the same host alone (externalTrafficPolicy Local) only those tell that have some: what is longer is preferred by
// routers, so they are sent the packets that others would drop.
import { type Cidr, coverage, familyOf, hostPrefix } from '#model/ip.ts';
import type { Desired } from '#model/desired.ts';
import type { Host, Service } from '#model/resources.ts';
import { bgpLabels } from '#model/bgp.ts';
import { elements } from './guard.ts';
import { everyAddress } from './services.ts';

/** A host with that label tells of none. */
export const rangesTold = ({ labels }: Host, ranges: readonly Cidr[]): readonly Cidr[] =>
  labels[bgpLabels.noServices] === undefined ? ranges : [];

/** Of `ranges`, with single addresses; a range that is but such an address is told as one. */
export function announcedServices(ranges: readonly Cidr[], services: readonly Service[]): Cidr[] {
  if (ranges.length === 0) return [];
  const isWithin = coverage(ranges);
  const isHere = new Map<Cidr, boolean>();
  for (const { ip, outer } of services) {
    if (outer === undefined || ip === everyAddress[familyOf(ip)] || !isWithin(ip)) continue;
    const address = hostPrefix(ip);
    isHere.set(address, isHere.get(address) === true || outer.length > 0);
  }
  const here = [...isHere].flatMap(([address, is]) => (is ? [address] : []));
  return [...new Set([...ranges.filter((range) => !isHere.has(range)), ...here])].toSorted();
}

/** What comes for these ranges, none of which overlap, and is of no service that is there would only go back to whom it came from (guard.ts). */
export const guardRanges = (ranges: readonly Cidr[]): Partial<Desired> => ({
  element: ranges.flatMap((range) => elements('', `drained${familyOf(range)}`, [range])),
});
