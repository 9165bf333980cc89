// Where a load balancer leads to: hosts by addresses of their ports. Pure.
import { type Family, familyOf, parseIp } from '#model/ip.ts';
import type { Members } from './balancer-requests.ts';
import { subnetOf } from './named.ts';
import type { NeutronPort } from './neutron-schemas.ts';
import { isPassing } from './providers.ts';
import type { WishedBalancer } from './wish.ts';

export interface Located {
  readonly members: Members;
  /** Where the load balancer's own address is; undefined when nothing is known of any host. */
  readonly subnet: string | undefined;
  readonly trouble: string | undefined;
}

export interface Locating {
  /** A host's port, or why there is none. */
  readonly portOf: (host: string) => NeutronPort | string;
  /** Ids of subnets that routers are on. */
  readonly routed: ReadonlySet<string>;
  readonly provider: string | undefined;
}

export function membersOf(one: WishedBalancer, { portOf, routed, provider }: Locating): Located {
  const { kind, hosts, without = [], memberSubnet } = one;
  const members: Members[number][] = [];
  const nowhere = kind === 'Service' ? 'no node has a pod of it' : 'its container is on no host';
  const lacking = `${without.join(', ')} cannot be led to for want of an address of its family: give the port one, and the interface the same`;
  let trouble = without.length > 0 ? lacking : hosts.length === 0 ? nowhere : undefined;
  for (const { host, address } of hosts) {
    const port = portOf(host);
    if (typeof port === 'string') {
      trouble = port;
      continue;
    }
    const found =
      memberSubnet === undefined ? { ip: address, subnetId: subnetOf(port, address) } : inSubnet(port, memberSubnet, one.family);
    if (found?.subnetId !== undefined) members.push({ name: host, address: found.ip, subnet_id: found.subnetId });
    else if (memberSubnet !== undefined) trouble = `the port of ${host} has no address of IPv${one.family} in subnet ${memberSubnet}`;
  }
  const subnet = members[0]?.subnet_id;
  return { members, subnet, trouble: trouble ?? (isPassing(provider) ? unanswered(one, subnet, routed) : undefined) };
}

const inSubnet = ({ addresses }: NeutronPort, subnet: string, family: Family): NeutronPort['addresses'][number] | undefined =>
  addresses.find(({ ip, subnetId }) => subnetId === subnet && familyOf(parseIp(ip)) === family);

/** By IPv6 OVN has routers answer for the address of a load balancer; seen with ML2/OVN of 2025.1. */
function unanswered({ hosts, place }: WishedBalancer, ofHosts: string | undefined, routed: ReadonlySet<string>): string | undefined {
  const isSaid = place?.port !== undefined || (place?.network !== undefined && place.subnet === undefined);
  const subnet = place?.subnet ?? ofHosts;
  if (isSaid || subnet === undefined || routed.has(subnet) || hosts[0]?.address.includes(':') !== true) return undefined;
  return `no router that this login sees is on its subnet ${subnet}, and without one nobody answers for its address`;
}
