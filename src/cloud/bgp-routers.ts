// What a cloud must let pass so that hosts speak BGP with routers outside of their installation. Pure.
import type { BgpRouter } from '#api/bgp-routers.ts';
import { passagesOf } from '#drivers/passages.ts';
import { type Family, familyOf, hostPrefix } from '#model/ip.ts';
import type { Host, Network } from '#model/resources.ts';
import { directions, ethertypes } from './rules.ts';
import type { Need } from './wish.ts';

const bgpPort = 179;

export interface Speakers {
  readonly hosts: readonly Host[];
  readonly routers?: readonly BgpRouter[];
}

/** Nothing for a network that is not carried by BGP. Hosts of the installation that are named are admitted as hosts already. */
export function routerNeeds(network: Network, { hosts, routers = [] }: Speakers, families: ReadonlySet<Family>): Need[] {
  const session = passagesOf(network).find(({ port }) => port === bgpPort);
  if (session === undefined) return [];
  const own = new Set(hosts.flatMap(({ underlay }) => underlay.map(({ ip }) => ip)));
  return routers
    .filter(({ ip }) => families.has(familyOf(ip)) && !own.has(ip))
    .map(({ name, ip, port }) => ({
      network: network.name,
      what: `TCP ${bgpPort}${port === bgpPort ? '' : ` and ${port}`} between hosts and ${ip} (BGP with the router of BGPPeer ${name})`,
      without: 'security groups drop it',
      rules: directions.map((direction) => ({
        direction,
        ethertype: ethertypes[familyOf(ip)],
        protocol: session.protocol,
        port: direction === 'ingress' ? bgpPort : port,
        remote: hostPrefix(ip),
        why: `BGP with the router of BGPPeer ${name}`,
      })),
      pairs: [],
    }));
}
