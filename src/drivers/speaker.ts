// What a host's BGP speaker has to do, from what the cluster says: announce the host's blocks as wholes, addresses outside of
// them one by one, and ranges of services; and speak with every other host (a full mesh, RFC 4271), with route reflectors
// (RFC 4456) and with routers outside. All networks of a host that are carried so share one speaker.
import { bgpLabels, type BgpFilter, type BgpSettings, isChosen, type Peering } from '#model/bgp.ts';
import { type Cidr, coverage, covers, type Family, familyOf, hostPrefix, type Ip, parseIp } from '#model/ip.ts';
import type { Block, CarryName, Host, LocalEndpoint, Pool } from '#model/resources.ts';
import { selects } from '#model/selector.ts';
import { shareSubnet } from './host-gateway.ts';
import { rangesTold } from './service-routes.ts';

export interface Session {
  /** Letters, digits and underscores; the same for as long as the session is. */
  readonly name: string;
  readonly description: string;
  readonly family: Family;
  readonly peer: Ip;
  readonly port: number;
  readonly peerAsn: number;
  readonly local?: Ip;
  readonly asn: number;
  /** With another host, which announces nothing but what is of the pools. */
  readonly isMesh: boolean;
  /** The other side connects. */
  readonly isPassive: boolean;
  readonly password?: string;
  readonly restartSeconds?: number;
  readonly hops?: number;
  readonly nextHop: Peering['nextHop'];
  /** The other side is a client of this reflector, in the cluster of that number. */
  readonly reflectsIn?: Ip;
  readonly filters: readonly BgpFilter[];
  readonly ownAsnAllowed?: number;
  readonly reachableBy?: Ip;
}

export interface Speaker {
  readonly routerId: Ip;
  readonly port: number;
  /** What this host has: blocks, and addresses outside of them. */
  readonly own: readonly Cidr[];
  readonly services: readonly Cidr[];
  /** Ranges of which speakers tell each other more than their own. */
  readonly ranges: readonly Cidr[];
  /** Ranges that are routed within these subnets only, and otherwise tunnelled. */
  readonly near: { readonly ranges: readonly Cidr[]; readonly subnets: readonly Cidr[] };
  readonly communities: BgpSettings['communities'];
  /** Next hops to which smaller packets pass than by this host's own interface. */
  readonly narrow: readonly { readonly ip: Ip; readonly mtu: number }[];
  /** Somebody's filters give routes priorities in the kernel of their own. */
  readonly hasPriorities: boolean;
  readonly sessions: readonly Session[];
}

/** A network. */
export interface Spoken {
  /** With hosts on the same subnet alone: to others there is a tunnel. */
  readonly isNear: boolean;
  readonly pools: readonly Pool[];
  /** Of this host. */
  readonly blocks: readonly Block[];
  readonly local: readonly LocalEndpoint[];
}

export const isSpoken = (carry: CarryName): boolean => carry === 'bgp' || carry === 'bgp-cross-subnet';

/** A number from 1 up, in an address's form; unlike for all hosts. For hosts without IPv4. */
const routerIdOf = (self: Host): Ip =>
  self.underlay.find(({ ip }) => familyOf(ip) === 4)?.ip ?? parseIp(`0.0.${self.index >> 8}.${self.index & 0xff}`);

const addressOf = (host: Host, family: Family): Ip | undefined => host.underlay.find(({ ip }) => familyOf(ip) === family)?.ip;

const asnOf = (host: Host, settings: BgpSettings): number => {
  const said = Number(host.labels[bgpLabels.asn]);
  return Number.isInteger(said) && said > 0 && said <= 0xffffffff ? said : settings.asn;
};

function clusterOf(host: Host): Ip | undefined {
  const said = host.labels[bgpLabels.cluster];
  return said === undefined || !/^\d+\.\d+\.\d+\.\d+$/.test(said) ? undefined : parseIp(said);
}

/** 32 bits that tell names apart once they are spelt alike (FNV-1a). */
function hashOf(text: string): string {
  let hash = 0x811c9dc5;
  for (const character of text) hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193) >>> 0;
  return hash.toString(16).padStart(8, '0');
}

/** Symbols have up to 64 letters, digits and underscores. */
export function symbolOf(kind: string, name: string): string {
  const plain = name.replaceAll(/\W/g, '_');
  return plain === name && name.length <= 40 ? `${kind}_${name}` : `${kind}_${plain.slice(0, 40)}_${hashOf(name)}`;
}

interface Party {
  readonly self: Host;
  readonly settings: BgpSettings;
  readonly hosts: readonly Host[];
}

type Common = Pick<
  Session,
  'password' | 'restartSeconds' | 'hops' | 'nextHop' | 'filters' | 'ownAsnAllowed' | 'reachableBy' | 'isMesh' | 'description'
> & { readonly fromHostAddress: boolean; readonly asn?: number };

const meshCommon = ({ mesh }: BgpSettings): Omit<Common, 'description'> => ({
  isMesh: true,
  nextHop: 'auto',
  filters: [],
  fromHostAddress: true,
  ...(mesh.password === undefined ? {} : { password: mesh.password }),
  ...(mesh.restartSeconds === undefined ? {} : { restartSeconds: mesh.restartSeconds }),
});

function peeringCommon(peering: Peering, filters: readonly BgpFilter[]): Common {
  const { password, restartSeconds, hops, ownAsnAllowed, reachableBy, localAsn } = peering;
  return {
    isMesh: false,
    description: `peer ${peering.name}`,
    nextHop: peering.nextHop,
    fromHostAddress: peering.fromHostAddress,
    filters: peering.filters.flatMap((name) => filters.filter((filter) => filter.name === name)),
    ...(password === undefined ? {} : { password }),
    ...(restartSeconds === undefined ? {} : { restartSeconds }),
    ...(hops === undefined ? {} : { hops }),
    ...(ownAsnAllowed === undefined ? {} : { ownAsnAllowed }),
    ...(reachableBy === undefined ? {} : { reachableBy }),
    ...(localAsn === undefined ? {} : { asn: localAsn }),
  };
}

/** A session with another host in each family in which both have an address. */
function withHost({ self, settings }: Party, peer: Host, kind: string, common: Common): Session[] {
  const cluster = clusterOf(self);
  const isInternal = asnOf(self, settings) === asnOf(peer, settings);
  const reflects = cluster !== undefined && isInternal && clusterOf(peer) !== cluster;
  return ([4, 6] as const).flatMap((family) => {
    const [local, ip] = [addressOf(self, family), addressOf(peer, family)];
    if (local === undefined || ip === undefined) return [];
    const { fromHostAddress, asn = asnOf(self, settings), ...rest } = common;
    return [
      {
        ...rest,
        name: symbolOf(`${kind}${family}`, peer.name),
        description: `${common.description} (${peer.name})`,
        family,
        peer: ip,
        port: settings.port,
        peerAsn: asnOf(peer, settings),
        ...(fromHostAddress ? { local } : {}),
        asn,
        isPassive: self.index > peer.index,
        ...(reflects ? { reflectsIn: cluster } : {}),
      },
    ];
  });
}

function ofPeering(party: Party, peering: Peering): Session[] {
  const { self, settings, hosts } = party;
  const common = peeringCommon(peering, settings.filters);
  const kind = symbolOf('peer', peering.name);
  const { with: other } = peering;
  if ('selector' in other) {
    const pairs = (one: Host, two: Host): boolean => isChosen(one, peering.of) && selects(other.selector, two.labels);
    return hosts.filter((host) => pairs(self, host) || pairs(host, self)).flatMap((host) => withHost(party, host, kind, common));
  }
  if (!isChosen(self, peering.of)) return [];
  const family = familyOf(other.ip);
  const known = hosts.find((host) => host.underlay.some(({ ip }) => ip === other.ip));
  if (known !== undefined) return withHost(party, known, kind, common).filter((session) => session.peer === other.ip);
  const local = addressOf(self, family);
  // Without an address of the peer's family there is nothing to speak from.
  if (local === undefined || self.underlay.some(({ ip }) => ip === other.ip)) return [];
  const { fromHostAddress, asn = asnOf(self, settings), ...rest } = common;
  const cluster = clusterOf(self);
  return [
    {
      ...rest,
      name: `${kind}_${family}`,
      family,
      peer: other.ip,
      port: other.port,
      peerAsn: other.asn,
      ...(fromHostAddress ? { local } : {}),
      asn,
      isPassive: false,
      ...(cluster !== undefined && other.asn === asn ? { reflectsIn: cluster } : {}),
    },
  ];
}

const isMeshed = (host: Host): boolean => clusterOf(host) === undefined;

/** Peerings that are asked for, then the mesh; one session with an address at most. Reflectors and hosts with one are no mesh. */
function sessionsOf(party: Party): Session[] {
  const { self, settings, hosts } = party;
  const asked = settings.peerings.flatMap((peering) => ofPeering(party, peering));
  const common = { ...meshCommon(settings), description: 'mesh' };
  const mesh =
    settings.mesh.enabled && isMeshed(self) ? hosts.filter(isMeshed).flatMap((host) => withHost(party, host, 'mesh', common)) : [];
  const byPeer = new Map<Ip, Session>();
  for (const session of [...asked, ...mesh]) if (!byPeer.has(session.peer)) byPeer.set(session.peer, session);
  return [...byPeer.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

function ownOf(spoken: readonly Spoken[], silent: readonly Cidr[]): Cidr[] {
  const blocks = spoken.flatMap((one) => one.blocks.map(({ cidr }) => cidr));
  const isCovered = coverage(blocks);
  const addresses = spoken.flatMap(({ local }) => local.flatMap(({ endpoint }) => endpoint.addresses));
  const own = [...blocks, ...addresses.filter((ip) => !isCovered(ip)).map(hostPrefix)];
  return [...new Set(own)].filter((cidr) => !silent.some((range) => covers(range, cidr))).toSorted();
}

/** Addresses of the other host, where that is so. */
const narrowOf = (self: Host, { underlay }: Host): Speaker['narrow'] =>
  underlay.flatMap(({ ip, mtu }) => {
    const own = self.underlay.find((one) => familyOf(one.ip) === familyOf(ip));
    return own !== undefined && mtu < own.mtu ? [{ ip, mtu }] : [];
  });

const setsPriorities = ({ rules }: BgpFilter): boolean =>
  Object.values(rules)
    .flat()
    .some((rule) => rule.changes.some(({ type }) => type === 'priority'));

/** The speaker of `self`; undefined when none of its networks is carried by BGP. Every host of them is a possible peer. */
export function speakerOf(self: Host, hosts: Iterable<Host>, spoken: readonly Spoken[], settings: BgpSettings): Speaker | undefined {
  if (spoken.length === 0) return undefined;
  const isNear = spoken.every((one) => one.isNear);
  const peers = [...hosts].filter((host) => host.id !== self.id && (!isNear || shareSubnet(self, host)));
  const rangesOf = (list: readonly Spoken[]): Cidr[] => list.flatMap(({ pools }) => pools.map(({ cidr }) => cidr));
  return {
    routerId: routerIdOf(self),
    port: settings.port,
    own: ownOf(spoken, settings.silent),
    services: rangesTold(self, settings.services).toSorted(),
    ranges: [...new Set(rangesOf(spoken))].toSorted(),
    near: {
      ranges: rangesOf(spoken.filter((one) => one.isNear)).toSorted(),
      subnets: [...new Set(self.underlay.map(({ subnet }) => subnet))],
    },
    communities: settings.communities,
    narrow: peers.flatMap((host) => narrowOf(self, host)).toSorted((a, b) => (a.ip < b.ip ? -1 : 1)),
    hasPriorities: settings.filters.some(setsPriorities),
    sessions: sessionsOf({ self, settings, hosts: peers.toSorted((a, b) => a.index - b.index) }),
  };
}
