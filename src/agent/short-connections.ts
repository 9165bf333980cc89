// Connections that take short cuts from now on. Connection tracking does not see how they go on, so what it remembers of them would
// make them invalid to others' rules, should they come back to the long way.
import type { NftElement } from '#model/desired.ts';
import { contains, parseCidr } from '#model/ip.ts';
import { cutConnections } from '#kernel/conntrack.ts';

/** Between which ranges packets take short cuts (drivers/fast.ts). */
export const isShortPair = ({ set }: NftElement): boolean => set === 'short4' || set === 'short6';

/** Makes the host's connection tracking forget what is within these pairs and translated by nobody; how many. Fault `kernel`. */
export function forgetShort(pairs: readonly NftElement[]): number {
  const ranges = pairs.map(({ key }) => key.split(' . ').map((text) => parseCidr(text)));
  return cutConnections(
    ({ source, destination, asked }) =>
      asked.destination === destination &&
      ranges.some(([from, to]) => from !== undefined && to !== undefined && contains(from, source) && contains(to, destination)),
  );
}
