// By which link a packet leaves for an address, and so by which one its answers come where ways are the same both ways: the longest
// prefix of the main table, as the kernel looks it up (Documentation/networking/fib_trie.rst).
import { type Cidr, cidrLength, cidrOf, type Family, familyOf, type Ip } from '#model/ip.ts';
import type { FoundRoute } from './underlay.ts';

/** Undefined: there is no way, or more than one at once. Of several routes for one prefix the kernel's first counts. */
export function wayFinder(routes: readonly FoundRoute[]): (ip: Ip) => string | undefined {
  const links = new Map<Cidr, string | undefined>();
  for (const { destination, link } of routes) if (!links.has(destination)) links.set(destination, link);
  const lengthsOf = (family: Family): number[] => {
    const own = [...links.keys()].filter((cidr) => familyOf(cidr) === family);
    return [...new Set(own.map(cidrLength))].toSorted((a, b) => b - a);
  };
  const lengths = { 4: lengthsOf(4), 6: lengthsOf(6) };
  return (ip) => {
    for (const length of lengths[familyOf(ip)]) {
      const prefix = cidrOf(ip, length);
      if (links.has(prefix)) return links.get(prefix);
    }
    return undefined;
  };
}
