// Containers with ports of the cloud that are sub-ports of their host's port, the parent of a trunk: the cloud tells them apart by VLAN
// on the host's link, and applies to each the groups of its own port. The host routes as ever; its link tags what leaves with
// such an address and untags what comes for it (kernel/trunk.ts). To neighbours everything looks as if each container were an
// instance: they are answered by the cloud, and its MAC is the port's.
// They may be of another network than the host's port. Then the host is in their subnet only by them: their neighbours and their gateway
// are looked for in the name of one of them, and whatever else they talk to is behind that gateway, as it is for an instance.
import type { Addr, Desired, OutsideSubnet, Trunk } from '#model/desired.ts';
import { spaceOf } from '#model/block.ts';
import { type Cidr, covers, type Family, familyOf, formatIp, hostPrefix, type Ip } from '#model/ip.ts';
import { askingName } from '#model/numbers.ts';
import type { Block, Host, Pool } from '#model/resources.ts';
import { isInUnderlay, rangesBeside } from './address-pairs.ts';
import { companionPools } from './companion.ts';
import type { Carriage } from './driver.ts';
import { elements } from './guard.ts';
import { ownBlocks } from './inside.ts';

/** Whether the host has no address in the subnet itself. In one of IPv6 it may have none although its port is on the same network. */
export const isOutside = ({ cidr }: Pick<Pool, 'cidr'>, { underlay }: Pick<Host, 'underlay'>): boolean =>
  !underlay.some(({ subnet }) => covers(subnet, cidr));

interface Placed {
  readonly carriage: Carriage;
  readonly block: Block;
  readonly pool: Pool;
}

/** Of other networks nothing is looked through: their blocks may be as many as all hosts have. */
function placedIn(carriage: Carriage): Placed[] {
  if (!isInUnderlay(carriage.network)) return [];
  return ownBlocks(carriage).flatMap((block) => {
    const pool = carriage.snapshot.pools.get(block.pool);
    return block.vlan === undefined || pool === undefined ? [] : [{ carriage, block, pool }];
  });
}

/** To which the host knows the way itself, for addresses of the network and of that family, and from there. */
function knownTo(carriage: Carriage, family: Family): Cidr[] {
  const ranges = [...companionPools(carriage).map(({ cidr }) => cidr), ...rangesBeside(carriage)];
  return ranges.filter((range) => familyOf(range) === family);
}

/** What a host has sub-ports of besides its own subnet, with the first of its addresses there as the one that asks. */
function outsideOf({ carriage, block, pool }: Placed): OutsideSubnet[] {
  const [first] = spaceOf(pool, block.cidr).spans;
  if (first === undefined || !isOutside(pool, carriage.self)) return [];
  const family = familyOf(pool.cidr);
  return [
    {
      subnet: pool.cidr,
      ...(pool.gateway === undefined ? {} : { gateway: pool.gateway }),
      asker: formatIp(first.first, family),
      beside: knownTo(carriage, family),
    },
  ];
}

/** Of several networks on one subnet the first asks for all. */
function merged(all: readonly OutsideSubnet[]): OutsideSubnet[] {
  return [...Map.groupBy(all, ({ subnet }) => subnet).values()].flatMap(([first, ...more]) =>
    first === undefined ? [] : [{ ...first, beside: [...new Set([first, ...more].flatMap(({ beside }) => beside))].toSorted() }],
  );
}

/** One for each link of the host that has any, whichever networks they are of. The parent of a trunk is the host's first port. */
export function planTrunks(presents: readonly { readonly carriage: Carriage }[], self: Host): Partial<Desired> {
  const placed = presents.flatMap(({ carriage }) => placedIn(carriage));
  const [parent] = self.underlay;
  const linkOf = ({ pool }: Placed): string | undefined =>
    isOutside(pool, self) ? parent?.interface : self.underlay.find(({ subnet }) => covers(subnet, pool.cidr))?.interface;
  const trunk = [...Map.groupBy(placed, linkOf)].flatMap(([link, those]): Trunk[] => {
    if (link === undefined) return [];
    const outside = merged(those.flatMap(outsideOf));
    const gateways = gatewaysIn(those);
    const blocks = those.flatMap(({ block: { cidr, vlan } }) => (vlan === undefined ? [] : [{ cidr, vlan }]));
    const beside = outside.length === 0 ? {} : { outside, ...(gateways.length === 0 ? {} : { gateways }) };
    return [{ netns: '', link, blocks, ...beside }];
  });
  const addr = trunk.flatMap(({ link, outside = [] }) =>
    outside
      .filter(({ subnet }) => familyOf(subnet) === 6)
      .map((one): Addr => ({ netns: '', link, address: hostPrefix(askingName(one.asker)) })),
  );
  return { trunk, addr };
}

/** Of the subnets that the host is in, one a family. */
const gatewaysIn = (placed: readonly Placed[]): Ip[] =>
  ([4, 6] as const).flatMap((family) => {
    const near = placed.find(({ pool, carriage }) => familyOf(pool.cidr) === family && !isOutside(pool, carriage.self));
    return near?.pool.gateway ?? [];
  });

/** Other containers of the host reach them by the cloud, as they reach it, but for those beside. */
export function guardOutside(carriage: Carriage): Partial<Desired> {
  const outside = placedIn(carriage).filter(({ pool }) => isOutside(pool, carriage.self));
  const element = outside.flatMap(({ block: { cidr } }) => {
    const family = familyOf(cidr);
    const ways = knownTo(carriage, family).map((range) => `${range} . ${cidr}`);
    return [...elements('', `outside${family}`, [cidr]), ...elements('', `own${family}`, ways)];
  });
  return { element };
}

/** Whether the host has containers of a subnet that it is not in. */
export const hasOutside = (carriage: Carriage): boolean => placedIn(carriage).some(({ pool }) => isOutside(pool, carriage.self));
