// When two published ports of a host would be one: the agent asks it of endpoints and exposures, Docker's driver of the ports of one
// container.
import { type Family, familyOf, type Ip, parseIp } from './ip.ts';
import type { PublishedPort } from './resources.ts';

/** By which a port is published at all addresses of a family. */
export const everyAddress: Readonly<Record<Family, Ip>> = { 4: parseIp('0.0.0.0'), 6: parseIp('::') };

/** Absent is every address of both families, `0.0.0.0` and `::` every one of theirs. */
export function sharesIp(a: Ip | undefined, b: Ip | undefined): boolean {
  if (a === undefined || b === undefined || a === b) return true;
  return familyOf(a) === familyOf(b) && [a, b].includes(everyAddress[familyOf(a)]);
}

/** Whether two published ports of the host would be one. */
export const clashes = (a: PublishedPort, b: PublishedPort): boolean =>
  a.protocol === b.protocol && a.hostPort === b.hostPort && sharesIp(a.hostIp, b.hostIp);
