// Which kernel objects implement a network on a host, and the command that shows each: for people who trust `ip`, `bridge`
// and `nft` more than us. Names follow from ids (model/numbers.ts), so nothing has to be asked of the kernel.
import { isPlainlyRouted } from '#drivers/fast.ts';
import {
  domainName,
  endpointLink,
  routeProtocol,
  tableName,
  trunkPriority,
  trunkTable,
  uplink,
  uplinkLink,
  vxlanLink,
  wireguardLink,
} from '#model/numbers.ts';
import { type Family, familyOf } from '#model/ip.ts';
import type { Endpoint, Host, Network } from '#model/resources.ts';

export interface KernelObject {
  readonly what: string;
  readonly command: string;
}

/** What a host can do and which families a network has decide which of its objects there are. */
export interface Setting {
  readonly features: Host['status']['features'];
  /** The host's own links to other hosts. */
  readonly uplinks: ReadonlySet<string>;
  /** Of the network's addresses; none is taken for IPv4. */
  readonly families: ReadonlySet<Family>;
}

const allFamilies: readonly Family[] = [4, 6];

/** `ip` shows one family at a time. */
const routes = (what: string, before: string, which: string, families: ReadonlySet<Family>): readonly KernelObject[] =>
  allFamilies
    .filter((family) => (families.size === 0 ? family === 4 : families.has(family)))
    .map((family) => ({
      what: families.size > 1 ? `${what}, IPv${family}` : what,
      command: `${before}ip ${family === 6 ? '-6 ' : ''}route show ${which}`,
    }));

function uplinkObjects(network: Network, inside: string, { families }: Setting): readonly KernelObject[] {
  const host = uplinkLink(network.id);
  return [
    { what: 'uplink, inside the namespace', command: `${inside}ip -d link show ${uplink.link}` },
    { what: 'uplink, on the host', command: `ip -d link show ${host}` },
    ...routes('routes from the host to the endpoints (transit addresses)', '', `dev ${host}`, families),
  ];
}

/** wg(8) finds processes below /run/wireguard only; ours have their sockets in the agent's own folder. */
const birdSocket = '/run/causeway/bird/bird.ctl';
const birdConfig = '/run/causeway/bird/bird.conf';

const showUserspace = (link: string): string =>
  `unshare -m sh -c 'mkdir -p /run/wireguard; mount --bind /run/causeway/wireguard /run/wireguard; wg show ${link}'`;

function carryObjects(network: Network, inside: string, { features, families }: Setting): readonly KernelObject[] {
  const tunnel = vxlanLink(network.vni);
  const wireguard = wireguardLink(network.vni);
  const isUserspace = features['wireguard'] === 'userspace';
  const toBlocks = (which: string): readonly KernelObject[] => routes('routes to the blocks of other hosts', inside, which, families);
  const direct = toBlocks(`proto ${routeProtocol}`);
  const learned: readonly KernelObject[] = [
    ...toBlocks('proto bird'),
    { what: 'BGP sessions', command: `birdc -s ${birdSocket} show protocols` },
    { what: 'what is announced and to whom', command: `less ${birdConfig}` },
  ];
  const byCarry: Readonly<Record<Network['choices']['carry'], readonly KernelObject[]>> = {
    vxlan: [
      { what: 'VXLAN link', command: `${inside}ip -d link show ${tunnel}` },
      ...toBlocks(`dev ${tunnel}`),
      { what: 'neighbours, one per other host', command: `${inside}ip neigh show dev ${tunnel}` },
      { what: 'forwarding entries, one per other host', command: `${inside}bridge fdb show dev ${tunnel}` },
    ],
    'direct-routing': [
      ...direct,
      { what: 'VXLAN link, for hosts behind a router', command: `${inside}ip -d link show ${tunnel}` },
      { what: 'forwarding entries, one per host behind a router', command: `${inside}bridge fdb show dev ${tunnel}` },
    ],
    'host-gateway': direct,
    bgp: learned,
    'bgp-cross-subnet': [...learned, { what: 'VXLAN link, for hosts behind a router', command: `${inside}ip -d link show ${tunnel}` }],
    wireguard: [
      { what: 'WireGuard link', command: `${inside}ip -d link show ${wireguard}` },
      {
        what: 'keys, peers and what each may send from',
        command: isUserspace ? showUserspace(wireguard) : `${inside}wg show ${wireguard}`,
      },
      ...toBlocks(`dev ${wireguard}`),
    ],
    routes: [{ what: 'way to the router that knows the other hosts', command: `${inside}ip route show default` }],
    'address-pairs': [
      { what: 'address pairs that the host answers for on its own link', command: `${inside}ip neigh show proxy` },
      {
        what: 'which addresses are sub-ports and leave by a table of their own',
        command: `${inside}ip rule show prio ${trunkPriority + 1}`,
      },
      {
        what: "link on which they are tagged (eBPF: tc filter show dev LINK egress); those of another network than the host's have the other tables",
        command: `${inside}ip route show table ${trunkTable}`,
      },
    ],
    docker: [],
  };
  return byCarry[network.choices.carry];
}

/**
 * The programs by which packets inside the network skip the long way (drivers/fast.ts): one filter a link, with a name that begins
 * with `cw_`. The host's own links have one that all plainly routed networks share.
 */
function shortCuts(
  network: Network,
  endpoints: readonly Endpoint[],
  inside: string,
  { features, uplinks }: Setting,
): readonly KernelObject[] {
  const { choices, vni } = network;
  const isPlain = isPlainlyRouted(network);
  if (features['fastPath'] !== true || (choices.domain !== 'own' && !isPlain)) return [];
  const show = (link: string): string => `${inside}tc filter show dev ${link} ingress`;
  const arrivals = isPlain ? [...uplinks] : choices.carry === 'vxlan' ? [vxlanLink(vni)] : [];
  return [
    ...endpoints.map(({ id, name, owner }) => ({ what: `short cut from ${name || owner} (eBPF)`, command: show(endpointLink(id)) })),
    ...arrivals.map((link) => ({ what: 'short cut from other hosts (eBPF)', command: show(link) })),
  ];
}

function endpointObjects(endpoint: Endpoint, inside: string): readonly KernelObject[] {
  const link = endpointLink(endpoint.id);
  return [
    { what: `link of ${endpoint.name || endpoint.owner}`, command: `${inside}ip -d link show ${link}` },
    ...endpoint.addresses.map((ip) => ({
      what: `route to ${ip}`,
      command: `${inside}ip ${familyOf(ip) === 6 ? '-6 ' : ''}route show dev ${link}`,
    })),
  ];
}

/** In the order in which a packet of a container meets them. `endpoints`: those of the network on this host. */
export function objectsOf(network: Network, endpoints: readonly Endpoint[], setting: Setting): readonly KernelObject[] {
  if (network.choices.attach === 'docker') {
    return [{ what: "Docker's own network and its members", command: `docker network inspect --verbose ${network.name}` }];
  }
  const own = network.choices.domain === 'own';
  const inside = own ? `ip netns exec ${domainName(network.id)} ` : '';
  return [
    ...(own ? [{ what: 'namespace of the network', command: `ip netns list | grep ${domainName(network.id)}` }] : []),
    ...endpoints.flatMap((endpoint) => endpointObjects(endpoint, inside)),
    ...shortCuts(network, endpoints, inside, setting),
    { what: 'rules: admission, names, translation', command: `${inside}nft list table inet ${tableName}` },
    ...carryObjects(network, inside, setting),
    ...(own && !network.internal ? uplinkObjects(network, inside, setting) : []),
    ...(own ? [{ what: 'rules of the host: published ports, masquerading', command: `nft list table inet ${tableName}` }] : []),
  ];
}
