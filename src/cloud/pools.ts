// Pools of Neutron ports: each host's block of addresses of a network with the model `neutron`, one port for each address, and the
// address a pair of the host's port. A port of ours is told by its owner and the device that it names.
import { spaceOf } from '#model/block.ts';
import { Fault } from '#model/fault.ts';
import { type Cidr, familyOf, formatIp, type Ip, parseCidr, parseIp } from '#model/ip.ts';
import { endpointMac } from '#model/numbers.ts';
import type { Block, Pool } from '#model/resources.ts';
import { named } from './named.ts';
import type { Neutron } from './neutron.ts';
import type { NeutronPort } from './neutron-schemas.ts';

export const portOwner = 'causeway:container';
/** Neutron's `device_id` of the ports that are kept for a host's containers. */
export const deviceOf = (name: string, host: string): string => `causeway.${name}.${host}`.slice(0, 255);
export const isPooled = (name: string, { owner, device }: NeutronPort): boolean =>
  owner === portOwner && device.startsWith(deviceOf(name, ''));

/** Addresses that containers may get. */
export function addressesOf(pool: Pool, { cidr }: Pick<Block, 'cidr'>): Ip[] {
  return spaceOf(pool, cidr).spans.flatMap(({ first, last }) =>
    Array.from({ length: Number(last - first) + 1 }, (_, index) => formatIp(first + BigInt(index), familyOf(cidr))),
  );
}

export interface PooledPort {
  readonly host: string;
  readonly place: { readonly network: string; readonly subnet: string };
  readonly ip: Ip;
}

export type PooledStep =
  | { readonly type: 'make-ports'; readonly host: string; readonly ports: readonly PooledPort[] }
  | { readonly type: 'remove-ports'; readonly ports: readonly NeutronPort[] };

export const isPooledStep = (step: { readonly type: string }): step is PooledStep =>
  step.type === 'make-ports' || step.type === 'remove-ports';

/** The body by which it is made, in the hosts' group. Its MAC is the container's; instances see the host's, which answers for it. */
export const bodyOfPooled = (name: string, group: string, { host, place, ip }: PooledPort): object => ({
  name: `causeway-${host}`.slice(0, 255),
  network_id: place.network,
  fixed_ips: [{ subnet_id: place.subnet, ip_address: ip }],
  mac_address: endpointMac(ip),
  security_groups: [group],
  device_owner: portOwner,
  device_id: deviceOf(name, host),
  description: `Kept for a container on ${host}`,
});

export interface FoundSubnet {
  readonly network: string;
  readonly subnet: string;
  readonly cidr: Cidr;
  readonly gateway?: Ip;
}

/** Faults: `not-found`, `invalid` when a name is not unique or the network has no single subnet of IPv4, and as Neutron's. */
export async function findSubnet(neutron: Neutron, asked: { readonly network: string; readonly subnet?: string }): Promise<FoundSubnet> {
  const network = named(await neutron.list('networks'), asked.network, 'network');
  const subnets = await neutron.list('subnets', { network_id: network.id });
  const usable = subnets.filter(({ cidr }) => !cidr.includes(':'));
  const subnet = asked.subnet === undefined ? usable[0] : named(subnets, asked.subnet, 'subnet');
  if (subnet === undefined || subnet.cidr.includes(':') || (asked.subnet === undefined && usable.length > 1)) {
    const what =
      usable.length > 1 ? `several subnets of IPv4: ${usable.map(({ name, id }) => name || id).join(', ')}` : 'no subnet of IPv4';
    throw new Fault('invalid', `Network ${network.name || network.id} of the cloud has ${what}`, {
      field: 'neutron.subnet',
      hint: 'Name one of IPv4: --neutron-subnet, with Docker -o neutron.subnet=NAME',
    });
  }
  const { id, cidr, gateway } = subnet;
  return { network: network.id, subnet: id, cidr: parseCidr(cidr), ...(gateway === undefined ? {} : { gateway: parseIp(gateway) }) };
}

/** Of ports on the subnet that are not ours. Of some clouds' ports one sees only the own project's. */
export async function occupiedOf(
  neutron: Neutron,
  name: string,
  place: { readonly network: string; readonly subnet: string },
): Promise<Ip[]> {
  const ports = await neutron.list('ports', { network_id: place.network });
  return ports
    .filter((port) => !isPooled(name, port))
    .flatMap(({ addresses }) => addresses.flatMap(({ ip, subnetId }) => (subnetId === place.subnet ? [parseIp(ip)] : [])));
}
