// Which kernel objects implement a network on a host, and the command that shows each: for people who trust `ip`, `bridge`
// and `nft` more than us. Names follow from ids (model/numbers.ts), so nothing has to be asked of the kernel.
import { domainName, endpointLink, routeProtocol, tableName, uplink, uplinkLink, vxlanLink, wireguardLink } from '#model/numbers.ts';
import type { Endpoint, Host, Network } from '#model/resources.ts';

export interface KernelObject {
  readonly what: string;
  readonly command: string;
}

function uplinkObjects(network: Network, inside: string): readonly KernelObject[] {
  const host = uplinkLink(network.id);
  return [
    { what: 'uplink, inside the namespace', command: `${inside}ip -d link show ${uplink.link}` },
    { what: 'uplink, on the host', command: `ip -d link show ${host}` },
    { what: 'routes from the host to the endpoints (transit addresses)', command: `ip route show dev ${host}` },
  ];
}

/** wg(8) finds processes below /run/wireguard only; ours have their sockets in the agent's own folder. */
const showUserspace = (link: string): string =>
  `unshare -m sh -c 'mkdir -p /run/wireguard; mount --bind /run/causeway/wireguard /run/wireguard; wg show ${link}'`;

function carryObjects(network: Network, inside: string, isUserspace: boolean): readonly KernelObject[] {
  const tunnel = vxlanLink(network.vni);
  const wireguard = wireguardLink(network.vni);
  const direct = { what: 'routes to the blocks of other hosts', command: `${inside}ip route show proto ${routeProtocol}` };
  const byCarry: Readonly<Record<Network['choices']['carry'], readonly KernelObject[]>> = {
    vxlan: [
      { what: 'VXLAN link', command: `${inside}ip -d link show ${tunnel}` },
      { what: 'routes to the blocks of other hosts', command: `${inside}ip route show dev ${tunnel}` },
      { what: 'neighbours, one per other host', command: `${inside}ip neigh show dev ${tunnel}` },
      { what: 'forwarding entries, one per other host', command: `${inside}bridge fdb show dev ${tunnel}` },
    ],
    'direct-routing': [
      direct,
      { what: 'VXLAN link, for hosts behind a router', command: `${inside}ip -d link show ${tunnel}` },
      { what: 'forwarding entries, one per host behind a router', command: `${inside}bridge fdb show dev ${tunnel}` },
    ],
    'host-gateway': [direct],
    wireguard: [
      { what: 'WireGuard link', command: `${inside}ip -d link show ${wireguard}` },
      {
        what: 'keys, peers and what each may send from',
        command: isUserspace ? showUserspace(wireguard) : `${inside}wg show ${wireguard}`,
      },
      { what: 'routes to the blocks of other hosts', command: `${inside}ip route show dev ${wireguard}` },
    ],
    docker: [],
  };
  return byCarry[network.choices.carry];
}

function endpointObjects(endpoint: Endpoint, inside: string): readonly KernelObject[] {
  const link = endpointLink(endpoint.id);
  return [
    { what: `link of ${endpoint.name || endpoint.owner}`, command: `${inside}ip -d link show ${link}` },
    ...endpoint.addresses.map((ip) => ({
      what: `route to ${ip}`,
      command: `${inside}ip ${ip.includes(':') ? '-6 ' : ''}route show dev ${link}`,
    })),
  ];
}

/**
 * In the order in which a packet of a container meets them. `endpoints`: those of the network on this host; `features`: what
 * the host says that it can do.
 */
export function objectsOf(
  network: Network,
  endpoints: readonly Endpoint[],
  features: Host['status']['features'] = {},
): readonly KernelObject[] {
  if (network.choices.attach === 'docker') {
    return [{ what: "Docker's own network and its members", command: `docker network inspect --verbose ${network.name}` }];
  }
  const own = network.choices.domain === 'own';
  const inside = own ? `ip netns exec ${domainName(network.id)} ` : '';
  return [
    ...(own ? [{ what: 'namespace of the network', command: `ip netns list | grep ${domainName(network.id)}` }] : []),
    ...endpoints.flatMap((endpoint) => endpointObjects(endpoint, inside)),
    { what: 'rules: admission, names, translation', command: `${inside}nft list table inet ${tableName}` },
    ...carryObjects(network, inside, features['wireguard'] === 'userspace'),
    ...(own && !network.internal ? uplinkObjects(network, inside) : []),
    ...(own ? [{ what: 'rules of the host: published ports, masquerading', command: `nft list table inet ${tableName}` }] : []),
  ];
}
