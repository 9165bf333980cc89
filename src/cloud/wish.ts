// What a cloud must allow so that the networks of an installation work, and no more: a pure function of hosts, networks and
// exposures. Hosts' packets for each other are admitted by a rule whose remote is the hosts' own security group, so the number of
// rules does not grow with hosts. With ML2/OVN such a rule does not cover allowed address pairs of the group's members (its
// address set holds fixed addresses only), so packets with containers' addresses have rules by range.
import type { BgpRouter } from '#api/bgp-routers.ts';
import { passagesOf } from '#drivers/passages.ts';
import { isOutside } from '#drivers/trunks.ts';
import { Fault } from '#model/fault.ts';
import {
  type MonitorWish,
  type NodePort,
  type ProxyWish,
  type ServiceBalancer,
  serverLabel,
  type SubnetChoice,
} from '#model/cloud-services.ts';
import { bitsOf, type Cidr, type Family, familyOf, hostPrefix, type Ip } from '#model/ip.ts';
import type { Block, Endpoint, Exposure, Host, Network, NeutronPlace, Pool } from '#model/resources.ts';
import { routerNeeds } from './bgp-routers.ts';
import { balancersOf, floatingOf, nodePortRules, openingsOf, talkOf, virtualOf } from './exposed.ts';
import { isInstallation } from './named.ts';
import { addressesOf } from './pools.ts';
import type { RefusedParts } from './refused.ts';
import { directions, ethertypes, fewest } from './rules.ts';
import { pairsFor, rangesOf, routesOf, type WishedRoutes } from './ways.ts';

export interface CloudFacts {
  readonly hosts: readonly Host[];
  readonly networks: readonly Network[];
  readonly pools: readonly Pool[];
  readonly blocks: readonly Block[];
  readonly endpoints: readonly Endpoint[];
  readonly exposures: readonly Exposure[];
  /** That hosts speak BGP with. */
  readonly routers?: readonly BgpRouter[];
  /** Of a cluster's services. */
  readonly nodePorts?: readonly NodePort[];
  readonly services?: readonly ServiceBalancer[];
}

export interface WishedRule {
  readonly direction: 'ingress' | 'egress';
  readonly ethertype: 'IPv4' | 'IPv6';
  /** IP protocol number; absent: every protocol. */
  readonly protocol?: number | undefined;
  readonly port?: number | undefined;
  /** `hosts`: members of the hosts' group; absent: everybody. */
  readonly remote?: 'hosts' | Cidr | undefined;
  readonly why: string;
  /** Key of the address that moves between hosts, for which alone it is. */
  readonly virtual?: string;
  /**
   * Id of what the load balancer exposes for which alone it is. The remote is that of clients then, and if the load balancer speaks to
   * hosts itself it is let in instead.
   */
  readonly balancer?: string;
}

export interface WishedGroup {
  readonly name: string;
  readonly description: string;
  readonly rules: readonly WishedRule[];
  /** Name of the host that is to have these openings: which group that is, is found when what the cloud has is known. */
  readonly host?: string;
  /** There may be others, of which nothing is known now: those of ours that are there stay. */
  readonly isPartial?: true;
}

export interface WishedPort {
  readonly host: string;
  /** Any of these finds the host's port. */
  readonly addresses: readonly Ip[];
  /** Name or id of the Nova server that the host is, where somebody has said it. */
  readonly instance?: string | undefined;
  /** Id of that which a cluster says it to be. */
  readonly server?: string | undefined;
  /** Of the host's interface with these addresses; absent where nothing is known of it. */
  readonly mtu?: number | undefined;
  /** Names. */
  readonly groups: readonly string[];
  readonly pairs: readonly Cidr[];
  /** Each address of which is a pair of its own. */
  readonly blocks: readonly WishedBlock[];
  /** Each address of which is a sub-port. Absent: none. */
  readonly tagged?: readonly (WishedBlock & { readonly vlan: number })[];
}

export interface WishedBlock {
  readonly cidr: Cidr;
  readonly place: NeutronPlace;
  readonly addresses: readonly Ip[];
  /** Of Block. */
  readonly vlan?: number;
  readonly groups?: Block['groups'];
  /** Key of the address that moves between hosts, which it is. */
  readonly virtual?: string;
}

/** What one network needs, for people, and what is the case without it. */
export interface Need {
  readonly network: string;
  readonly what: string;
  readonly without: string;
  readonly rules: readonly WishedRule[];
  readonly pairs: readonly Cidr[];
  /** Each address has a port of its own, and a pair unless it is one of `subPorts`. */
  readonly isInCloud?: true;
  readonly subPorts?: readonly Ip[];
  /** Ports that are made at a time. */
  readonly poolSize?: number;
  /** A router has to know the hosts' blocks, and each host's port has pairs for its own ones only: `pairs` are the ranges that hold them. */
  readonly isByRouter?: true;
}

/** That something be reached by a floating IP. */
export interface WishedFloatingIp {
  /** Of what is exposed. */
  readonly id: string;
  readonly kind: WishedBalancer['kind'];
  readonly name: string;
  /** `auto`, an address, or name or id of an external network. */
  readonly wanted: string;
  /** It stays the project's when nothing needs it any more. */
  readonly isKept?: boolean;
  /** Where it is when it is made; absent: the cloud chooses. */
  readonly subnet?: SubnetChoice;
  /** Hosts where it is, with their addresses of one family: IPv4, but for load balancers of IPv6. */
  readonly hosts: readonly { readonly host: string; readonly address: string }[];
}

/** One of a load balancer's ports, which leads to `hostPort` of the hosts. */
export interface WishedListener {
  readonly protocol: Exposure['protocol'];
  readonly port: number;
  readonly hostPort: number;
  /** Absent: members are taken to be alive. */
  readonly monitor?: MonitorWish;
}

/** That something be reached by a load balancer. */
export interface WishedBalancer {
  /** Of what is exposed. */
  readonly id: string;
  readonly kind: 'Exposure' | 'Service';
  readonly name: string;
  readonly listeners: readonly WishedListener[];
  /** Absent: within the cloud only. */
  readonly floating?: Pick<WishedFloatingIp, 'wanted' | 'isKept' | 'subnet'>;
  readonly place?: ServiceBalancer['place'];
  readonly shared?: ServiceBalancer['shared'];
  readonly memberSubnet?: ServiceBalancer['memberSubnet'];
  /** Of its address. */
  readonly family: Family;
  /** Of clients; empty: everybody. */
  readonly sources: readonly Cidr[];
  /** Of Octavia; absent: the usual one. */
  readonly provider?: string;
  readonly proxy?: ProxyWish;
  readonly notPassed?: readonly string[];
  readonly hosts: WishedFloatingIp['hosts'];
  /** Names of hosts that have no address of its family. Absent: none, or it does not matter. */
  readonly without?: readonly string[];
  /** Why the cloud has refused it; it is not asked again. */
  readonly refused?: string;
}

/** That exposures of one endpoint be reached by an address that moves between its hosts. */
export interface WishedVirtual {
  /** Tells it from others. */
  readonly key: string;
  /** For people. */
  readonly what: string;
  readonly family: Family;
  /** Ids of exposures. */
  readonly exposures: readonly string[];
  /** Of those that a floating IP is to lead to, which have no hosts here. */
  readonly floating: readonly WishedFloatingIp[];
  /** Where a container is that has the name, with their ids. */
  readonly hosts: readonly { readonly id: string; readonly host: string; readonly address: string }[];
  /** Names of such hosts that have no address of the family. */
  readonly without: readonly string[];
}

export interface Wish {
  /** Of the installation; also the name of the hosts' group and the beginning of every tag. */
  readonly name: string;
  readonly groups: readonly WishedGroup[];
  readonly ports: readonly WishedPort[];
  readonly needs: readonly Need[];
  readonly floating: readonly WishedFloatingIp[];
  readonly balancers: readonly WishedBalancer[];
  readonly virtual: readonly WishedVirtual[];
  readonly routes: WishedRoutes;
  /** Hosts stay in those groups for exposures that they are in. */
  readonly isInner?: true;
  /** What of exposures the cloud does not let be. Absent: nothing. */
  readonly refused?: RefusedParts;
}

const protocolNames: Readonly<Record<number, string>> = { 1: 'ICMP', 6: 'TCP', 17: 'UDP', 50: 'ESP', 58: 'ICMPv6', 132: 'SCTP' };

/** Label of a host that says which instance it is. */
export const instanceLabel = 'causeway.dev/instance';

/** It becomes part of tags, groups' names and descriptions. Fault `invalid`. */
export function checkName(name: string): void {
  if (isInstallation(name)) return;
  throw new Fault('invalid', `Not a name for an installation: ${name}`, {
    field: 'name',
    hint: 'Use lower-case letters, digits and hyphens',
  });
}

export const emptyWish = (name: string): Wish => ({
  name,
  groups: [],
  ports: [],
  needs: [],
  floating: [],
  balancers: [],
  virtual: [],
  routes: { ranges: [], routes: [] },
});

/** Without what exposures are reached by from outside; for a state that was read so. What hosts let in for load balancers is not known then. */
export const innerOf = (wish: Wish): Wish => ({
  ...wish,
  isInner: true,
  groups: wish.groups.map((group) => {
    const rules = group.rules.filter(({ balancer }) => balancer === undefined);
    return rules.length === group.rules.length ? group : { ...group, rules, isPartial: true };
  }),
  floating: [],
  balancers: [],
  virtual: wish.virtual.map((one) => ({ ...one, floating: [] })),
});

/** Nothing where there is no host yet. */
export function wishOf(facts: CloudFacts, name: string): Wish {
  const hosts = facts.hosts.filter(({ underlay }) => underlay.length > 0);
  const networks = facts.networks.filter(({ deletedAt }) => deletedAt === undefined);
  const families = new Set(hosts.flatMap(({ underlay }) => underlay.map(({ ip }) => familyOf(ip))));
  const needs = networks.flatMap((network) => [...needsOf(network, facts, families), ...routerNeeds(network, facts, families)]);
  const virtual = virtualOf(facts);
  const needed = fewest([...needs.flatMap(({ rules }) => rules), ...talkOf(virtual, hosts)]);
  if (hosts.length === 0) return emptyWish(name);
  const ranges = rangesOf(needs.filter(({ isInCloud }) => isInCloud !== true));
  const pairs = pairsFor(needs, facts);
  const exposed = Map.groupBy(openingsOf(facts), ({ host }) => host);
  const shared: WishedGroup = { name, description: `Between the hosts of ${name}`, rules: needed };
  const entrance = nodePortRules(facts);
  const own = hosts.flatMap(({ id, name: host }): WishedGroup[] => {
    const rules = fewest((exposed.get(id) ?? []).map(({ rule }) => rule));
    return rules.length === 0 ? [] : [{ name: exposedName(name, id), description: `What is exposed on hosts of ${name}`, rules, host }];
  });
  const all: WishedGroup[] = [
    ...(needed.length > 0 ? [shared] : []),
    ...(entrance.length > 0 ? [{ name: `${name}-node-ports`, description: `Node ports of ${name}`, rules: entrance }] : []),
  ];
  return {
    name,
    groups: [...all, ...own],
    ports: hosts.map(({ id, name: host, underlay, labels }) => ({
      host,
      addresses: underlay.map(({ ip }) => ip),
      instance: labels[instanceLabel],
      ...(labels[serverLabel] === undefined ? {} : { server: labels[serverLabel] }),
      mtu: underlay[0]?.mtu,
      groups: [...all.map((group) => group.name), ...(exposed.has(id) ? [exposedName(name, id)] : [])],
      pairs: pairs(id),
      ...bySort(networks.flatMap((network) => blocksIn(network, facts).filter((block) => block.host === id))),
    })),
    needs,
    floating: floatingOf(facts),
    balancers: balancersOf(facts),
    virtual,
    routes: routesOf({ ...facts, hosts }, ranges),
  };
}

const exposedName = (name: string, host: string): string => `${name}-exposed-${host}`;

function bySort(all: readonly WishedBlock[]): Pick<WishedPort, 'blocks' | 'tagged'> {
  const tagged = all.flatMap(({ vlan, ...block }) => (vlan === undefined ? [] : [{ ...block, vlan }]));
  return { blocks: all.filter(({ vlan }) => vlan === undefined), ...(tagged.length === 0 ? {} : { tagged }) };
}

/** The hosts' pools of ports; of networks with the model `neutron`. */
function blocksIn({ id, neutron: place }: Network, { pools, blocks }: CloudFacts): (WishedBlock & { readonly host: string })[] {
  if (place === undefined) return [];
  return blocks.flatMap(({ network, pool: poolId, cidr, host, vlan, groups }) => {
    const pool = pools.find((one) => one.id === poolId);
    if (network !== id || pool === undefined || pool.fallback === true) return [];
    const placed = { cidr, place, host, addresses: addressesOf(pool, { cidr }) };
    return [{ ...placed, ...(vlan === undefined ? {} : { vlan }), ...(groups === undefined ? {} : { groups }) }];
  });
}

function needsOf(network: Network, facts: CloudFacts, families: ReadonlySet<Family>): Need[] {
  const pools = facts.pools.filter((pool) => pool.network === network.id && pool.fallback !== true);
  const ranges = pools.map(({ cidr }) => cidr);
  return passagesOf(network).map(({ protocol, port, why }): Need => {
    if (protocol === 0 && network.neutron !== undefined) return cloudNeed(network, facts, pools);
    if (protocol === 0) {
      const need = plainNeed(network.name, ranges, families);
      return network.choices.carry === 'routes'
        ? { ...need, what: `${need.what}; by a router that knows the hosts' blocks`, without: withoutRoutes, isByRouter: true }
        : need;
    }
    const rules = [...families].flatMap((family) =>
      directions.map((direction): WishedRule => ({ direction, ethertype: ethertypes[family], protocol, port, remote: 'hosts', why })),
    );
    const what = `${protocolNames[protocol] ?? `protocol ${protocol}`}${port === undefined ? '' : ` ${port}`} between hosts (${why})${insteadOf(network)}`;
    return { network: network.name, what, without: withoutRule(network), rules, pairs: [] };
  });
}

const insteadOf = ({ instead }: Network): string => (instead === undefined ? '' : `, instead of ${instead.carry} as ${instead.because}`);

/**
 * WireGuard sends from the port that it listens on. What both ends have sent counts as answered on either side, so it may pass a
 * security group that lets everything out, seen in the lab; but not when only one end has something to say.
 */
const withoutRule = ({ choices }: Network): string =>
  choices.carry === 'wireguard'
    ? 'security groups drop it between hosts, except while both ends happen to begin at once'
    : 'security groups drop it between hosts';

const plainWhy = 'packets of containers as they are';
const withoutPairs = "port security drops packets whose address is not the port's own, and security groups admit none of them";
const withoutRoutes = `the router has no way for them, ${withoutPairs}`;

/**
 * Between containers, and between hosts and containers elsewhere. Ports that are pairs of their hosts' are members of the hosts' group,
 * whose address set then has their addresses, too; instances come in by the user's own groups on the hosts' ports. Sub-ports have groups
 * of their own, and nothing is opened for them.
 */
function cloudNeed(network: Network, facts: CloudFacts, pools: readonly Pool[]): Need {
  const ranges = pools.map(({ cidr, range }) => range ?? cidr);
  const families = new Set(ranges.map(familyOf));
  const blocks = blocksIn(network, facts);
  const those = (isTagged: boolean): Ip[] => blocks.flatMap(({ addresses, vlan }) => ((vlan !== undefined) === isTagged ? addresses : []));
  const [pairs, subPorts] = [those(false), those(true)];
  const isElsewhere = facts.hosts.length > 0 && pools.every((pool) => facts.hosts.every((host) => isOutside(pool, host)));
  const areSubPorts = subPorts.length > 0 || isElsewhere;
  return {
    network: network.name,
    without: withoutPairs,
    rules: directions.flatMap((direction) =>
      (pairs.length === 0 ? [] : [...families]).map((family): WishedRule => ({
        direction,
        ethertype: ethertypes[family],
        remote: 'hosts',
        why: plainWhy,
      })),
    ),
    what: [
      ...(areSubPorts ? [`a sub-port of its host's trunk for each of ${subPorts.length} addresses`] : []),
      ...(!areSubPorts || pairs.length > 0 ? [`a port and an address pair for each of ${pairs.length} addresses`] : []),
    ]
      .join(', ')
      .concat(` of ${ranges.join(', ')}`, isElsewhere ? ', in which no host is' : ''),
    pairs: pairs.map(hostPrefix),
    isInCloud: true,
    poolSize: Math.max(...pools.map(({ cidr, blockLength }) => 2 ** (bitsOf(familyOf(cidr)) - blockLength))),
    ...(subPorts.length > 0 ? { subPorts } : {}),
  };
}

/**
 * Packets that hosts forward as they are: from and to containers' ranges, and between hosts and containers elsewhere. A rule cannot tell
 * them from packets for the host itself, so hosts let in each other and containers by every port, node ports of services among them.
 */
function plainNeed(network: string, ranges: readonly Cidr[], families: ReadonlySet<Family>): Need {
  const why = plainWhy;
  const used = [...new Set(ranges.map(familyOf))].filter((family) => families.has(family));
  const rules = directions.flatMap((direction) => [
    ...ranges.map((remote): WishedRule => ({ direction, ethertype: ethertypes[familyOf(remote)], remote, why })),
    // The other end may be a host: its address is that of its port.
    ...used.map((family): WishedRule => ({ direction, ethertype: ethertypes[family], remote: 'hosts', why })),
  ]);
  return {
    network,
    what: `packets with addresses of ${ranges.join(', ')} between hosts, by every protocol and to every port of hosts`,
    without: withoutPairs,
    rules,
    pairs: ranges,
  };
}
