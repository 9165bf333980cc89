// Containers with ports of the cloud that are sub-ports of their host's port, the parent of a trunk: the cloud tells them apart by VLAN
// on the host's link, and applies to each the groups of its own port. The host routes as ever; its link tags what leaves with
// such an address and untags what comes for it (kernel/trunk.ts). To neighbours everything looks as if each container were an
// instance: they are answered by the cloud, and its MAC is the port's.
import type { Desired, TaggedBlock, Trunk } from '#model/desired.ts';
import { covers } from '#model/ip.ts';
import type { Host } from '#model/resources.ts';
import type { Carriage } from './driver.ts';
import { ownBlocks } from './inside.ts';

export const taggedBlocks = (carriage: Pick<Carriage, 'network' | 'self' | 'snapshot'>): TaggedBlock[] =>
  ownBlocks(carriage).flatMap(({ cidr, vlan }) => (vlan === undefined ? [] : [{ cidr, vlan }]));

/** One for each link of the host that has any, whichever networks they are of. */
export function planTrunks(presents: readonly { readonly carriage: Carriage }[], self: Host): Partial<Desired> {
  const blocks = presents.flatMap(({ carriage }) => taggedBlocks(carriage));
  const linkOf = ({ cidr }: TaggedBlock): string | undefined => self.underlay.find(({ subnet }) => covers(subnet, cidr))?.interface;
  const byLink = Map.groupBy(blocks, linkOf);
  return { trunk: [...byLink].flatMap(([link, those]): Trunk[] => (link === undefined ? [] : [{ netns: '', link, blocks: those }])) };
}
