// What a cloud must allow so that the networks of an installation work, and no more: a pure function of hosts, networks and
// exposures. Hosts' packets for each other are admitted by a rule whose remote is the hosts' own security group, so the number of
// rules does not grow with hosts. With ML2/OVN such a rule does not cover allowed address pairs of the group's members (its
// address set holds fixed addresses only), so packets with containers' addresses have rules by range.
import { passagesOf } from '#drivers/passages.ts';
import { isOutside } from '#drivers/trunks.ts';
import { Fault } from '#model/fault.ts';
import { type MonitorWish, type NodePort, type ServiceBalancer, serverLabel } from '#model/cloud-services.ts';
import { bitsOf, type Cidr, type Family, familyOf, hostPrefix, type Ip } from '#model/ip.ts';
import { virtualPort } from '#model/numbers.ts';
import type { Block, Endpoint, Exposure, Host, Network, NeutronPlace, Pool } from '#model/resources.ts';
import { addressesOf } from './pools.ts';
import { pairsFor, rangesOf, routesOf, type WishedRoutes } from './ways.ts';

export interface CloudFacts {
  readonly hosts: readonly Host[];
  readonly networks: readonly Network[];
  readonly pools: readonly Pool[];
  readonly blocks: readonly Block[];
  readonly endpoints: readonly Endpoint[];
  readonly exposures: readonly Exposure[];
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
}

export interface WishedGroup {
  readonly name: string;
  readonly description: string;
  readonly rules: readonly WishedRule[];
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
  /** Hosts where it is, with their addresses of one family: IPv4, but for load balancers of IPv6. */
  readonly hosts: readonly { readonly host: string; readonly address: string }[];
}

/** One of a load balancer's ports, which leads to `hostPort` of the hosts. */
export interface WishedListener {
  readonly protocol: Exposure['protocol'];
  readonly port: number;
  readonly hostPort: number;
  /** Absent where hosts would not let in the cloud's own probes: those with sources of their own. */
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
  readonly floating?: Pick<WishedFloatingIp, 'wanted' | 'isKept'>;
  readonly place?: ServiceBalancer['place'];
  readonly hosts: WishedFloatingIp['hosts'];
  /** Why the cloud has refused it; it is not asked again. */
  readonly refused?: string;
}

/** That exposures of one endpoint be reached by an address that moves between its hosts. */
export interface WishedVirtual {
  /** Tells it from others. */
  readonly key: string;
  /** For people. */
  readonly what: string;
  /** Ids of exposures. */
  readonly exposures: readonly string[];
  /** Of those that a floating IP is to lead to, which have no hosts here. */
  readonly floating: readonly WishedFloatingIp[];
  /** Where a container is that has the name, with their ids. */
  readonly hosts: readonly { readonly id: string; readonly host: string; readonly address: string }[];
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
}

const ethertypes = { 4: 'IPv4', 6: 'IPv6' } as const;
const protocolNames: Readonly<Record<number, string>> = { 1: 'ICMP', 6: 'TCP', 17: 'UDP', 50: 'ESP', 58: 'ICMPv6', 132: 'SCTP' };
const numbers = { tcp: 6, udp: 17, sctp: 132 } as const;
const directions = ['ingress', 'egress'] as const;

/** Label of a host that says which instance it is. */
export const instanceLabel = 'causeway.dev/instance';

/** It becomes part of tags, groups' names and descriptions. Fault `invalid`. */
export function checkName(name: string): void {
  if (/^[a-z0-9][a-z0-9-]{0,31}$/.test(name)) return;
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

/** Without what exposures are reached by from outside; for a state that was read so. */
export const innerOf = (wish: Wish): Wish => ({
  ...wish,
  floating: [],
  balancers: [],
  virtual: wish.virtual.map((one) => ({ ...one, floating: [] })),
});

/** Nothing where there is no host yet. */
export function wishOf(facts: CloudFacts, name: string): Wish {
  const hosts = facts.hosts.filter(({ underlay }) => underlay.length > 0);
  const networks = facts.networks.filter(({ deletedAt }) => deletedAt === undefined);
  const families = new Set(hosts.flatMap(({ underlay }) => underlay.map(({ ip }) => familyOf(ip))));
  const needs = networks.flatMap((network) => needsOf(network, facts, families));
  const virtual = virtualOf(facts);
  const needed = fewest([...needs.flatMap(({ rules }) => rules), ...talkOf(virtual)]);
  if (hosts.length === 0) return emptyWish(name);
  const ranges = rangesOf(needs.filter(({ isInCloud }) => isInCloud !== true));
  const pairs = pairsFor(needs, facts);
  const exposed = Map.groupBy(openingsOf(facts), ({ host }) => host);
  const shared: WishedGroup = { name, description: `Between the hosts of ${name}`, rules: needed };
  const entrance = nodePortRules(facts);
  const own = [...exposed].map(([host, openings]): WishedGroup => ({
    name: exposedName(name, host),
    description: `What is exposed on ${host}`,
    rules: fewest(openings.map(({ rule }) => rule)),
  }));
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

export const exposedName = (name: string, host: string): string => `${name}-exposed-${host}`;

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
        ? { ...need, what: `${need.what}, by a router that knows the hosts' blocks`, without: withoutRoutes, isByRouter: true }
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
  const isElsewhere = facts.hosts.length > 0 && pools.some((pool) => facts.hosts.every((host) => isOutside(pool, host)));
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
      .concat(` of ${ranges.join(', ')}`, isElsewhere ? ", on another network than the hosts'" : ''),
    pairs: pairs.map(hostPrefix),
    isInCloud: true,
    poolSize: Math.max(...pools.map(({ cidr, blockLength }) => 2 ** (bitsOf(familyOf(cidr)) - blockLength))),
    ...(subPorts.length > 0 ? { subPorts } : {}),
  };
}

/** Packets that hosts forward as they are: from and to containers' ranges, and between hosts and containers elsewhere. */
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
    what: `packets with addresses of ${ranges.join(', ')} between hosts`,
    without: withoutPairs,
    rules,
    pairs: ranges,
  };
}

/** Several where containers share an alias; in an order that stays. */
function hostsOf({ network, endpoint }: Exposure, { endpoints, hosts }: CloudFacts): Host[] {
  const names = (one: Endpoint): boolean => one.name === endpoint || one.names.includes(endpoint);
  const ids = new Set(endpoints.filter((one) => one.network === network && names(one)).map(({ host }) => host));
  return hosts.filter(({ id }) => ids.has(id)).toSorted((a, b) => (a.id < b.id ? -1 : 1));
}

const floatingOf = (facts: CloudFacts): WishedFloatingIp[] =>
  facts.exposures.flatMap((exposure) => {
    const { id, name, floatingIp: wanted, loadBalancer, virtualIp } = exposure;
    return wanted === undefined || loadBalancer !== undefined || virtualIp !== undefined
      ? []
      : [{ id, kind: 'Exposure', name, wanted, hosts: targetsOf(exposure, facts) }];
  });

const keyOfVirtual = ({ network, endpoint }: Exposure): string => `${network}.${endpoint}`;

function virtualOf(facts: CloudFacts): WishedVirtual[] {
  const wanted = facts.exposures.filter(({ virtualIp, loadBalancer }) => virtualIp !== undefined && loadBalancer === undefined);
  const together = Map.groupBy(wanted, keyOfVirtual);
  return [...together.keys()].toSorted().flatMap((key): WishedVirtual[] => {
    const exposures = together.get(key) ?? [];
    const [first] = exposures;
    if (first === undefined) return [];
    const network = facts.networks.find(({ id }) => id === first.network)?.name ?? first.network;
    return [
      {
        key,
        what: `${first.endpoint} of ${network}`,
        exposures: exposures.map(({ id }) => id).toSorted(),
        floating: exposures.flatMap(({ id, name, floatingIp }) =>
          floatingIp === undefined ? [] : [{ id, kind: 'Exposure' as const, name, wanted: floatingIp, hosts: [] }],
        ),
        hosts: targetsOf(first, facts),
      },
    ];
  });
}

/** By which hosts settle among themselves who has an address. */
const talkOf = (virtual: readonly WishedVirtual[]): WishedRule[] =>
  virtual.length === 0
    ? []
    : directions.map((direction): WishedRule => {
        const why = 'which host has a virtual address';
        return { direction, ethertype: 'IPv4', protocol: 17, port: virtualPort, remote: 'hosts', why };
      });

const balancersOf = (facts: CloudFacts): WishedBalancer[] => [
  ...facts.exposures.flatMap((exposure) => {
    const { id, name, protocol, port, hostPort, loadBalancer, floatingIp = 'auto' } = exposure;
    if (loadBalancer === undefined) return [];
    const hosts = targetsOf(exposure, facts);
    const monitor = exposure.sources.length === 0 && protocol !== 'sctp' ? { monitor: {} } : {};
    const floating = loadBalancer === 'public' ? { floating: { wanted: floatingIp } } : {};
    return [{ id, kind: 'Exposure' as const, name, listeners: [{ protocol, port, hostPort, ...monitor }], hosts, ...floating }];
  }),
  ...(facts.services ?? []).map((service) => balancerOfService(service, facts.hosts)),
];

function balancerOfService(
  { id, service, family, ports, sources, floating, place, monitor, hosts: leading }: ServiceBalancer,
  all: readonly Host[],
) {
  const isProbed = monitor !== undefined && sources.length === 0;
  const listeners = ports.map(({ protocol, port, nodePort }): WishedListener => ({
    protocol,
    port,
    hostPort: nodePort,
    ...(isProbed && protocol !== 'sctp' ? { monitor } : {}),
  }));
  const hosts = withAddresses(
    all.filter((host) => leading === undefined || leading.includes(host.id)),
    family,
  );
  return { id, kind: 'Service' as const, name: service, listeners, place, hosts, ...(floating === undefined ? {} : { floating }) };
}

const targetsOf = (exposure: Exposure, facts: CloudFacts): WishedVirtual['hosts'] => withAddresses(hostsOf(exposure, facts));

const withAddresses = (hosts: readonly Host[], family: Family = 4): WishedVirtual['hosts'] =>
  hosts.flatMap(({ id, name: host, underlay }) => {
    const address = underlay.find(({ ip }) => familyOf(ip) === family)?.ip;
    return address === undefined ? [] : [{ id, host, address }];
  });

const nodePortRule = ({ service, protocol, port }: Omit<NodePort, 'sources'>, family: Family, remote?: Cidr): WishedRule => ({
  direction: 'ingress',
  ethertype: ethertypes[family],
  protocol: numbers[protocol],
  port,
  remote,
  why: `service ${service}`,
});

/** Of every host alike, so their number is that of ports and not of hosts. */
function nodePortRules({ nodePorts = [], services = [] }: CloudFacts): WishedRule[] {
  const opened = nodePorts.flatMap((one) => one.sources.map((source) => nodePortRule(one, familyOf(source), source)));
  const balanced = services.flatMap(({ service, family = 4, ports, sources }) =>
    ports.flatMap(({ protocol, nodePort: port }) =>
      sources.length > 0
        ? sources.map((source) => nodePortRule({ service, protocol, port }, familyOf(source), source))
        : [nodePortRule({ service, protocol, port }, family)],
    ),
  );
  return fewest([...opened, ...balanced]);
}

/** Of several with one meaning the last counts: one that is not for an address that moves. */
function openingsOf(facts: CloudFacts): { host: string; rule: WishedRule }[] {
  const all = facts.exposures.flatMap((exposure) => hostsOf(exposure, facts).flatMap((host) => openingsOn(host, exposure)));
  return all.toSorted((a, b) => Number(a.rule.virtual === undefined) - Number(b.rule.virtual === undefined));
}

function openingsOn(host: Host, exposure: Exposure): { host: string; rule: WishedRule }[] {
  const why = `exposure ${exposure.name}`;
  const rule = (family: Family, remote: Cidr | undefined): WishedRule => ({
    direction: 'ingress',
    ethertype: ethertypes[family],
    protocol: numbers[exposure.protocol],
    port: exposure.hostPort,
    remote,
    why,
    ...(exposure.virtualIp === undefined || exposure.loadBalancer !== undefined ? {} : { virtual: keyOfVirtual(exposure) }),
  });
  const families = new Set(host.underlay.map(({ ip }) => familyOf(ip)));
  const rules =
    exposure.sources.length > 0
      ? exposure.sources.map((source) => rule(familyOf(source), source))
      : [...families].map((family) => rule(family, undefined));
  return rules.map((one) => ({ host: host.id, rule: one }));
}

type RuleIdentity = Omit<WishedRule, 'why' | 'remote'> & { readonly remote?: string | undefined };

/** Identity of a rule: two of the same are one to Neutron, whatever they are for. */
export const keyOfRule = ({ direction, ethertype, protocol, port, remote }: RuleIdentity): string =>
  [direction, ethertype, protocol ?? 'any', port ?? 'all', remote ?? 'anybody'].join(' ');

/** Without doubles, and without what a rule for every protocol with the same remote admits already. */
function fewest(rules: readonly WishedRule[]): WishedRule[] {
  const distinct = [...new Map(rules.map((rule) => [keyOfRule(rule), rule])).values()];
  const whole = new Set(distinct.filter(({ protocol }) => protocol === undefined).map(keyOfRule));
  const isCovered = ({ direction, ethertype, protocol, remote }: WishedRule): boolean =>
    protocol !== undefined && whole.has(keyOfRule({ direction, ethertype, remote }));
  return distinct.filter((rule) => !isCovered(rule));
}
