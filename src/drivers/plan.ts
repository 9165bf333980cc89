// plan(): everything the kernel of one host must hold, from what the cluster says and what the host itself knows. Pure, and
// the same for every model: a model only changes the choices that are read here. Cost is linear in the endpoints of the
// networks that are present on this host.
import { type Cidr, coverage, everything, familyOf, hostPrefix, type Ip } from '#model/ip.ts';
import { subtract, united } from '#model/ranges.ts';
import type { WaysOut } from '#model/ways-out.ts';
import { type Addr, type Desired, emptyDesired, familiesOf, type Netns, type Sysctl, type VethLink } from '#model/desired.ts';
import {
  domainName,
  endpointLink,
  endpointPeerLink,
  gatewayOf,
  gatewayMac,
  tableName,
  transitAddress,
  uplink,
  uplinkLink,
  vxlanPort,
} from '#model/numbers.ts';
import type { PolicyFacts } from '#model/policy.ts';
import type { Block, Endpoint, Host, LocalEndpoint, Network, Pool, Service, Snapshot } from '#model/resources.ts';
import { type BgpSettings, defaultBgp } from '#model/bgp.ts';
import { planAnnouncements } from './announce.ts';
import { answersFor, isInUnderlay, rangesBeside } from './address-pairs.ts';
import { hasCompanion, mtuFor } from './companion.ts';
import type { Carriage, Remote } from './driver.ts';
import { planArrivals, planFast, shortOf } from './fast.ts';
import { domainTable, elements, hostTable, resolver, resolverPort } from './guard.ts';
import type { Carriers } from './host-policy.ts';
import { planPolicy } from './policy.ts';
import { publish } from './publish.ts';
import { shapers } from './bandwidth.ts';
import { besideOf, familiesOfPools, fromUnderlay, insideAddresses, isBeside, ownBlocks } from './inside.ts';
import { keepingSender, nowhere, outermost } from './ranges.ts';
import { desiredOf, type Part } from './parts.ts';
import { planWaysBack } from './ways-back.ts';
import { planVirtual } from './virtual.ts';
import { asFits, carriesOn, mtuOf, planCarriages } from './carriages.ts';
import { serviceRules } from './service-rules.ts';
import { guardRanges } from './service-routes.ts';
import { planServices } from './services.ts';
import { guardOutside, hasOutside, planTrunks } from './trunks.ts';
import { planSpeaker, toldBy } from './speaking.ts';
import { isSpoken } from './speaker.ts';

/** What is not about networks themselves. */
export interface Beyond {
  /** Absent: this host translates for none, not even for some that may come. */
  readonly services?: readonly Service[];
  /** Ranges of which services get addresses, and nobody else. */
  readonly balanced?: readonly Cidr[] | undefined;
  /** Absent: nobody has any. */
  readonly policy?: PolicyFacts | undefined;
  /** Absent: as by default. `unknown`: nobody can say yet, so no speaker is planned. */
  readonly bgp?: BgpSettings | 'unknown' | undefined;
  /** Ways that a speaker of BGP has put into the kernel; absent: nobody has looked. */
  readonly learned?: ReadonlySet<Cidr> | undefined;
  /** Bridges of another system on which this host still has containers, with addresses of its own blocks. */
  readonly bridges?: readonly string[] | undefined;
  /** Addresses of exposures that this host has, of those that move between hosts. */
  readonly carried?: ReadonlySet<Ip> | undefined;
  /** Whether the host has policies of IPsec, which are asked for every packet that it routes. */
  readonly hasIpsec?: boolean | undefined;
  /** Further interfaces of the host to the outside; absent: none. */
  readonly ways?: WaysOut | undefined;
  /** False: no packet is to take a short cut. */
  readonly isShort?: boolean | undefined;
}

/** One network on this host, with everything of the snapshot that concerns it. */
export interface Present {
  readonly network: Network;
  readonly netns: Netns;
  /** None in another: what the host keeps of ranges has each address once. */
  readonly pools: readonly Pool[];
  /** From where packets leave as they are, in any of the pools. */
  readonly keepingSender: readonly Cidr[];
  readonly local: readonly LocalEndpoint[];
  readonly carriage: Carriage;
}

const byId = (a: { readonly id: string }, b: { readonly id: string }): number => (a.id < b.id ? -1 : 1);

/** Endpoints that have been joined, by network; only these are in the kernel. */
function joinedByNetwork(local: readonly LocalEndpoint[]): Map<string, LocalEndpoint[]> {
  const joined = local.filter(({ sandbox }) => sandbox !== undefined);
  return Map.groupBy(joined, ({ endpoint }) => endpoint.network);
}

interface Parts {
  readonly pools: readonly Pool[];
  readonly blocks: readonly Block[];
  readonly endpoints: readonly Endpoint[];
}

function remotesOf(
  snapshot: Snapshot,
  { network, self }: Pick<Carriage, 'network' | 'self'>,
  { pools, blocks, endpoints }: Parts,
): Remote[] {
  const blocksByHost = Map.groupBy(blocks, ({ host }) => host);
  const endpointsByHost = Map.groupBy(endpoints, ({ host }) => host);
  // Where no endpoints are told of, loans tell which addresses are elsewhere than their block.
  const lent = Map.groupBy(
    blocks.flatMap(({ loans }) => loans.filter(({ state }) => state === 'granted')),
    ({ host }) => host,
  );
  const beside = isBeside(network) ? familiesOfPools(pools) : [];
  // Hosts that talk by addresses of their own do so before they hold any blocks.
  const talking = beside.length === 0 ? [] : snapshot.hosts.keys();
  const names = [...new Set([...blocksByHost.keys(), ...endpointsByHost.keys(), ...lent.keys(), ...talking])]
    .filter((name) => name !== self.id)
    .toSorted();
  return names.flatMap((name) => {
    const host = snapshot.hosts.get(name);
    if (host === undefined) return [];
    const own = (blocksByHost.get(name) ?? []).toSorted(byId);
    const theirs = endpointsByHost.get(name) ?? [];
    const isCovered = coverage(own.map(({ cidr }) => cidr));
    const borrowed = (lent.get(name) ?? []).flatMap(({ ip }) => ip ?? []);
    const exceptions = new Set<Ip>();
    for (const ip of [...theirs.flatMap(({ addresses }) => addresses), ...borrowed]) if (!isCovered(ip)) exceptions.add(ip);
    const inside = beside.length === 0 ? {} : { inside: besideOf(host, beside) };
    return [{ host, blocks: own, exceptions: [...exceptions].toSorted(), ...inside }];
  });
}

/**
 * Whether an endpoint, as the cluster tells of it, has a part in the plan of the host named `self`. Those of other hosts in blocks
 * of their own have none: their blocks lead to them. Nor have those of the host itself, which plans with what it knows itself.
 */
export function isPlannedFor(self: string, { network, host, addresses }: Endpoint, { blocks }: Pick<Snapshot, 'blocks'>): boolean {
  if (host === self) return false;
  const own = [...blocks.values()].filter((block) => block.network === network && block.host === host);
  return !addresses.every(coverage(own.map(({ cidr }) => cidr)));
}

type Learned = ReadonlySet<Cidr> | undefined;

export function presentNetworks(
  snapshot: Snapshot,
  local: readonly LocalEndpoint[],
  { self, learned }: { self: Host; learned: Learned },
): Present[] {
  const joined = joinedByNetwork(local);
  const pools = Map.groupBy(snapshot.pools.values(), ({ network }) => network);
  const blocks = Map.groupBy(snapshot.blocks.values(), ({ network }) => network);
  const endpoints = Map.groupBy(snapshot.endpoints.values(), ({ network }) => network);
  const always = [...snapshot.networks.values()].filter(
    ({ id, present, model, choices }) =>
      // Where hosts claim blocks as they need them, one without any takes part as well.
      present === 'always' &&
      (model === 'calico' || isSpoken(choices.carry) || (blocks.get(id) ?? []).some(({ host }) => host === self.id)),
  );
  return [...new Set([...joined.keys(), ...always.map(({ id }) => id)])].toSorted().flatMap((id) => {
    const network = snapshot.networks.get(id);
    if (network === undefined || network.choices.attach !== 'routed') return [];
    const netns = network.choices.domain === 'own' ? domainName(network.id) : '';
    const own = { pools: (pools.get(id) ?? []).toSorted(byId), blocks: blocks.get(id) ?? [], endpoints: endpoints.get(id) ?? [] };
    const ways = { network, self: asFits(network, self), learned };
    const remotes = remotesOf(snapshot, ways, own).map((remote) => ({ ...remote, host: asFits(network, remote.host) }));
    const carriage = { ...ways, netns, remotes, mtu: mtuOf(ways, remotes), snapshot };
    const ranges = { pools: outermost(own.pools), keepingSender: keepingSender(own.pools) };
    return [{ network, netns, ...ranges, local: joined.get(id) ?? [], carriage }];
  });
}

/** Link, neighbour, route and admission of one endpoint: 1 link, then one route, neighbour and set element per address. */
function planEndpoint({ network, netns, carriage }: Present, local: LocalEndpoint): Part {
  const { endpoint, sandbox, ifname, order = 1 } = local;
  const name = endpointLink(endpoint.id);
  const placed = sandbox !== undefined && ifname !== undefined;
  const mtu = mtuFor(carriage, endpoint.addresses);
  const link: VethLink = {
    type: 'veth',
    netns,
    name,
    mtu,
    mac: gatewayMac,
    alias: `causeway ${network.id} ${endpoint.id.slice(0, 12)} ${endpoint.owner}`.slice(0, 200),
    peer: {
      netns: placed ? sandbox : '',
      name: placed ? ifname : endpointPeerLink(endpoint.id),
      mac: endpoint.mac,
      mtu,
      up: false,
    },
  };
  const families = familiesOf(endpoint.addresses);
  // In a domain the gateway and the name server are on `lo`, once; the host's own `lo` is not ours to write to.
  const here = [gatewayOf(4, order), resolver[4], resolver[6]];
  const own = [...new Set([...(netns === '' ? here : []), gatewayOf(6, order)])];
  const addr: Addr[] = own.filter((ip) => families.includes(familyOf(ip))).map((ip) => ({ netns, link: name, address: hostPrefix(ip) }));
  return {
    link: [link],
    addr,
    // For connections of the host itself to its localhost that lead to a published port.
    sysctl: netns === '' && families.includes(4) ? [{ netns, path: `net/ipv4/conf/${name}/route_localnet`, value: '1' }] : [],
    neigh: endpoint.addresses.map((ip) => ({ netns, link: name, ip, mac: endpoint.mac })),
    route: endpoint.addresses.map((ip) => ({ netns, destination: hostPrefix(ip), link: name, onlink: false, type: 'unicast' as const })),
    element: endpoint.addresses.flatMap((ip) => elements(netns, `members${familyOf(ip)}`, [`"${name}" . ${endpoint.mac} . ${ip}`])),
    shaper: shapers(netns, local),
  };
}

/** The namespace of an isolated network: gateway, no way to addresses that nobody has, and the rules. */
function planDomain({ network, netns, pools, local, carriage }: Present): Part {
  const gateways = new Set([resolver[4], ...local.map(({ order = 1 }) => gatewayOf(4, order))]);
  const set = (path: string, value: string) => ({ netns, path, value });
  return {
    netns: [{ name: netns }],
    sysctl: [
      set('net/ipv4/ip_forward', '1'),
      set('net/ipv4/conf/all/rp_filter', '0'),
      set('net/ipv4/conf/default/rp_filter', '0'),
      set('net/ipv4/conf/all/send_redirects', '0'),
      set('net/ipv4/conf/default/send_redirects', '0'),
      set('net/ipv6/conf/default/accept_dad', '0'),
      set('net/ipv6/conf/all/forwarding', '1'),
    ],
    addr: [
      ...[...gateways].map((ip) => ({ netns, link: 'lo', address: hostPrefix(ip) })),
      { netns, link: 'lo', address: hostPrefix(resolver[6]) },
    ],
    route: nowhere(netns, pools, carriage),
    table: [domainTable(netns, network.internal)],
  };
}

/** The veth pair between a domain and its host, with permanent neighbours so that neither side ever asks. */
function planUplink({ network, netns, local, carriage }: Present): Part {
  if (network.internal) return {};
  const hostLink = uplinkLink(network.id);
  const mtu = carriage.self.underlay[0]?.mtu ?? 1500;
  const alias = `causeway ${network.id} ${network.name} uplink`;
  const inner = { netns, name: uplink.link, mac: uplink.domainMac, mtu };
  const outer = { netns: '', name: hostLink, mac: uplink.hostMac, mtu };
  const families = familiesOf(local.flatMap(({ endpoint }) => endpoint.addresses));
  const transit = local.flatMap(({ endpoint, slot }) =>
    endpoint.addresses.map((ip) => ({ ip, family: familyOf(ip), transit: transitAddress(slot, familyOf(ip)) })),
  );
  return {
    link: [
      { type: 'veth', ...inner, alias, peer: { ...outer, up: false } },
      { type: 'veth', ...outer, alias, peer: { ...inner, up: false } },
    ],
    neigh: families.flatMap((family) => [
      { netns, link: uplink.link, ip: uplink.host[family], mac: uplink.hostMac },
      { netns: '', link: hostLink, ip: uplink.domain[family], mac: uplink.domainMac },
    ]),
    route: [
      ...families.map((family) => ({
        netns,
        destination: everything[family],
        via: uplink.host[family],
        link: uplink.link,
        onlink: true,
        type: 'unicast' as const,
      })),
      ...transit.map((entry) => ({
        netns: '',
        destination: hostPrefix(entry.transit),
        via: uplink.domain[entry.family],
        link: hostLink,
        onlink: true,
        type: 'unicast' as const,
      })),
    ],
    sysctl: [{ netns: '', path: `net/ipv4/conf/${hostLink}/route_localnet`, value: '1' }],
    element: transit.flatMap((entry) => [
      { netns, table: tableName, set: `inside${entry.family}`, key: entry.transit, value: entry.ip },
      { netns, table: tableName, set: `outside${entry.family}`, key: entry.ip, value: entry.transit },
    ]),
  };
}

/**
 * A network that the host routes itself: no way to addresses that nobody has, which name server answers its ranges, and
 * which ranges may talk to which.
 */
function planHostDomain(present: Present): Part {
  const { network, netns, pools, carriage } = present;
  const apart = apartOf(present);
  const beside = rangesBeside(carriage).flatMap((cidr) =>
    companionsOf(pools)
      .filter((pool) => familyOf(pool.cidr) === familyOf(cidr))
      .flatMap((pool) => [
        { family: familyOf(cidr), key: `${pool.cidr} . ${cidr}` },
        { family: familyOf(cidr), key: `${cidr} . ${pool.cidr}` },
      ]),
  );
  const pairs = apart.flatMap(({ cidr: from }) =>
    apart
      .filter(({ cidr: to }) => familyOf(to) === familyOf(from))
      .map(({ cidr: to }) => ({ family: familyOf(from), key: `${from} . ${to}` })),
  );
  // What is elsewhere leaves as everything else does where the hosts' own subnet or router leads there.
  const isByRouter = carriesOn(carriage, carriage.remotes).includes('routes');
  const own = isInUnderlay(network) || isByRouter ? [...ownBlocks(carriage), ...companionsOf(pools)] : pools;
  return {
    route: nowhere(netns, own, carriage),
    element: [
      // On one subnet there may be several networks, each with a range of its own.
      ...(network.names === 'elsewhere' ? [] : pools)
        .map(({ cidr: whole, range, fallback }) => (isInUnderlay(network) && fallback !== true ? (range ?? whole) : whole))
        .map((cidr) => ({
          netns,
          table: tableName,
          set: `names${familyOf(cidr)}`,
          key: cidr,
          value: `${resolver[familyOf(cidr)]} . ${resolverPort(network)}`,
        })),
      ...[...pairs, ...beside].flatMap(({ family, key }) => elements(netns, `own${family}`, [key])),
      ...present.keepingSender.flatMap((cidr) => elements(netns, `seen${familyOf(cidr)}`, [cidr])),
      ...(hasCompanion(network) ? companionsOf(pools) : []).flatMap(({ cidr }) => elements(netns, `companions${familyOf(cidr)}`, [cidr])),
    ],
  };
}

const companionsOf = (pools: readonly Pool[]): Pool[] => pools.filter(({ fallback }) => fallback === true);
/** In the hosts' own subnet packets leave as they are, like those of instances, and every instance may come in. */
const apartOf = ({ network, pools }: Present): readonly Pool[] => (isInUnderlay(network) ? companionsOf(pools) : pools);

function planNetwork(present: Present, short: ReadonlySet<Present>): Part[] {
  const { netns, local, carriage } = present;
  const ranges = apartOf(present).flatMap(({ cidr }) => elements(netns, `ranges${familyOf(cidr)}`, [cidr]));
  const carried = fromUnderlay(planCarriages(carriage), carriage);
  return [
    ...(netns === '' ? [planHostDomain(present)] : [planDomain(present), planUplink(present)]),
    { element: ranges },
    carried,
    answersFor(carriage, local),
    guardOutside(carriage),
    short.has(present) ? { fast: planFast(present, carried.route ?? []) } : {},
    ...local.map((endpoint) => planEndpoint(present, endpoint)),
  ];
}

interface HostFacts {
  readonly snapshot: Snapshot;
  readonly self: Host;
  readonly services: readonly Service[] | undefined;
  readonly hasShort: boolean;
  readonly drains: boolean;
  readonly ways: WaysOut | undefined;
}

/** The host's own part: forwarding, its table, published ports and exposures of everything that is here. */
function planHost(presents: readonly Present[], { snapshot, self, services, hasShort, drains, ways }: HostFacts): Part {
  const families = new Set(presents.flatMap(({ local }) => local.flatMap(({ endpoint }) => familiesOf(endpoint.addresses))));
  const exits = presents.some(({ netns, network }) => netns === '' || !network.internal);
  return {
    sysctl: [
      ...(exits ? [{ netns: '', path: 'net/ipv4/ip_forward', value: '1' }] : []),
      ...(exits && families.has(6) ? [{ netns: '', path: 'net/ipv6/conf/all/forwarding', value: '1' }] : []),
      // Of a connection of which one side has ended the other may be silent for that long, as kube-proxy has it: then it loses its translation.
      ...(services === undefined ? [] : [{ netns: '', path: 'net/netfilter/nf_conntrack_tcp_timeout_close_wait', value: '3600' }]),
    ],
    table: [
      hostTable(services && serviceRules(services), {
        hasCompanions: presents.some(({ network }) => hasCompanion(network)),
        hasOutside: presents.some(({ carriage }) => hasOutside(carriage)),
        hasShort,
        drains,
        ways,
        keepsSenders: presents.some((present) => present.keepingSender.length > 0),
      }),
    ],
    element: elements('', 'uplinks', [...new Set(self.underlay.map((one) => `"${one.interface}"`))]).concat(
      publish(
        presents.flatMap(({ network, local }) => local.map((endpoint) => ({ network, ...endpoint }))),
        [...snapshot.exposures.values()].toSorted(byId),
      ),
      planServices(services ?? [], {
        own: self.underlay.map(({ ip }) => ip),
        local: presents.flatMap(({ netns, local }) => (netns === '' ? local.flatMap(({ endpoint }) => endpoint.addresses) : [])),
        inside: presents.flatMap(({ carriage }) => insideAddresses(carriage)),
        guests: presents.flatMap(({ network, carriage }) => (isInUnderlay(network) ? ownBlocks(carriage).map(({ cidr }) => cidr) : [])),
      }),
    ),
  };
}

/** Containers on a bridge take the whole block to be on it: the host answers for those that are not, and at once. */
const answerOn = (link: string): Sysctl[] => [
  { netns: '', path: `net/ipv4/conf/${link}/proxy_arp`, value: '1' },
  { netns: '', path: `net/ipv4/neigh/${link}/proxy_delay`, value: '0' },
];

/** Protocols and ports by which hosts carry packets for each other, or tell each other how. */
function carriersOf(networks: readonly Part[], bgp: BgpSettings | 'unknown'): Carriers {
  const speakers = bgp === 'unknown' ? [] : [bgp.port, ...bgp.peerings.flatMap((one) => ('port' in one.with ? one.with.port : []))];
  const encrypted = networks.flatMap(({ wireguard = [] }) => wireguard.map(({ port }) => port));
  return [...new Set([`udp . ${vxlanPort}`, ...encrypted.map((port) => `udp . ${port}`), ...speakers.map((port) => `tcp . ${port}`)])];
}

/**
 * The desired state of `self`. Deterministic: the same input gives the same items in the same order, whatever order the
 * snapshot's maps have. An empty host gets nothing at all, so leaving the last network cleans up everything.
 */
export function plan(
  snapshot: Snapshot,
  local: readonly LocalEndpoint[],
  self: Host,
  {
    services,
    balanced = [],
    policy,
    bgp = defaultBgp,
    bridges = [],
    carried = new Set(),
    learned,
    hasIpsec = false,
    ways,
    isShort = true,
  }: Beyond = {},
): Desired {
  const presents = presentNetworks(
    snapshot,
    local.toSorted((a, b) => (a.endpoint.id < b.endpoint.id ? -1 : 1)),
    { self, learned },
  );
  if (presents.length === 0 && policy?.host === undefined) return emptyDesired;
  const isAsked = services !== undefined || policy !== undefined || hasIpsec;
  const short = isShort ? shortOf(presents, isAsked) : new Set<Present>();
  const crossings = [...short].filter(({ netns }) => netns === '');
  const networks = presents.flatMap((present) => planNetwork(present, short));
  const told = toldBy(presents, snapshot, bgp);
  const inside = presents.filter(({ netns }) => netns === '').flatMap(({ pools }) => pools.map(({ cidr }) => cidr));
  const drained = subtract(united([...told.ranges, ...balanced]), inside);
  const facts = { snapshot, self, services, hasShort: crossings.length > 0, drains: drained.length > 0, ways };
  const parts = [
    planHost(presents, facts),
    guardRanges(drained),
    planWaysBack(ways),
    planArrivals(self, crossings),
    planPolicy(policy, carriersOf(networks, bgp)),
    ...networks,
    planAnnouncements(services ?? [], snapshot.hosts.values(), self),
    planVirtual(carried, self),
    planSpeaker(told, facts, bgp),
    planTrunks(presents, self),
    { sysctl: bridges.flatMap(answerOn) },
  ];
  return desiredOf(parts);
}
