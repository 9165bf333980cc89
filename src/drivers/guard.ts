// The nft rules of a domain and of the host, rendered whole. Rules are static text; whatever changes with endpoints is an
// element of a set or map, so the cost of a packet does not grow with them (nft(8), "SETS", "MAPS"). Priorities: `raw`
// (-300) runs before connection tracking, `dstnat - 5` before Docker's own translation. No anonymous set of interface
// wildcards: nft 1.1 aborts when it prints one as JSON.
import type { NftElement, NftTable } from '#model/desired.ts';
import { type Family, type Ip, parseIp } from '#model/ip.ts';
import type { Network } from '#model/resources.ts';
import {
  declareServices,
  leaveAsGuests,
  leaveServices,
  leaveUnserved,
  type ServiceRules,
  translateArrivals,
  translateServices,
} from './service-rules.ts';
import { markWaysBack } from './ways-back.ts';
import type { WaysOut } from '#model/ways-out.ts';
import { portRange, tableName, transitBase, translatedMark, uplink, vxlanPort } from '#model/numbers.ts';

/** Where name servers listen: on `lo` of a domain, and for networks that the host routes on every endpoint's link (resolverPort). */
export const resolver: Readonly<Record<Family, Ip>> = { 4: parseIp('169.254.1.1'), 6: parseIp('fd63:7703::1') };

/** Endpoints talk on their own address from their own link, and nothing else: one look-up per packet. */
const admission = `
  set members4 { type ifname . ether_addr . ipv4_addr; }
  set members6 { type ifname . ether_addr . ipv6_addr; }
  set ranges4 { type ipv4_addr; flags interval; }
  set ranges6 { type ipv6_addr; flags interval; }`;

const admit = `
    iifname . ether saddr . ip saddr @members4 goto admitted
    iifname . ether saddr . ip6 saddr @members6 goto admitted
    ip6 saddr { ::, fe80::/10 } ip6 hoplimit 255 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept`;

/** Names: whatever server an endpoint asks, the agent answers, so engines need no configuration. */
const redirectNames = `
    iifname "cwe*" meta l4proto { tcp, udp } th dport 53 dnat ip to ${resolver[4]}
    iifname "cwe*" meta l4proto { tcp, udp } th dport 53 dnat ip6 to ${resolver[6]}`;

/** In the host's own namespace the range that asks says which network's names may be told. */
const redirectNamesByRange = `
    iifname "cwe*" meta l4proto { tcp, udp } th dport 53 dnat ip to ip saddr map @names4
    iifname "cwe*" meta l4proto { tcp, udp } th dport 53 dnat ip6 to ip6 saddr map @names6`;

/** The table of an isolated network's domain. `internal`: there is no way out, and the agent's name server is the only service. */
export function domainTable(netns: string, internal: boolean): NftTable {
  const border = internal
    ? ''
    : `
  map inside4 { type ipv4_addr : ipv4_addr; }
  map inside6 { type ipv6_addr : ipv6_addr; }
  map outside4 { type ipv4_addr : ipv4_addr; }
  map outside6 { type ipv6_addr : ipv6_addr; }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "${uplink.link}" ct state established,related accept
    iifname "${uplink.link}" ct status dnat accept
    iifname "${uplink.link}" counter drop
    iifname "cwx*" oifname "${uplink.link}" counter drop
  }
  chain outbound {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "${uplink.link}" snat ip to ip saddr map @outside4
    oifname "${uplink.link}" snat ip6 to ip6 saddr map @outside6
  }`;
  const arrivals = internal
    ? ''
    : `
    iifname "${uplink.link}" dnat ip to ip daddr map @inside4
    iifname "${uplink.link}" dnat ip6 to ip6 daddr map @inside6`;
  return {
    netns,
    family: 'inet',
    name: tableName,
    text: `${admission}
  chain entry {
    type filter hook prerouting priority raw; policy drop;
    iifname { "lo", "${uplink.link}" } accept
    iifname "cwx*" goto carried
    iifname "cww*" goto carried${admit}
    counter comment "not a member: wrong link, MAC or address"
  }
  chain admitted {
    meta l4proto { tcp, udp } th dport 53 accept
    ip daddr @ranges4 notrack accept
    ip6 daddr @ranges6 notrack accept
    accept
  }
  chain carried {
    ip saddr @ranges4 ip daddr @ranges4 notrack accept
    ip6 saddr @ranges6 ip6 daddr @ranges6 notrack accept
    counter drop
  }
  chain to_agent {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
    iifname "cwe*" meta l4proto { tcp, udp } th dport 53 accept
    iifname "cwe*" icmp type echo-request accept
    iifname "cwe*" meta l4proto ipv6-icmp accept
    meta l4proto ipv6-icmp icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    ct state untracked meta l4proto { icmp, ipv6-icmp } accept
    counter drop
  }
  chain inbound {
    type nat hook prerouting priority dstnat; policy accept;${redirectNames}${arrivals}
  }${border}
`.replace(/^\n/, ''),
  };
}

/** What the host has containers of. */
interface Special {
  readonly hasCompanions?: boolean;
  /** Of a subnet of the cloud that the host is not in (kernel/trunk.ts). */
  readonly hasOutside?: boolean;
  /** Of a network that the host routes itself and that takes short cuts (fast.ts). */
  readonly hasShort?: boolean;
  /** With addresses that are to be seen outside. */
  readonly keepsSenders?: boolean;
  /** Ranges are led to it of which not all addresses are of services. */
  readonly drains?: boolean;
  /** The host has further interfaces by which answers leave. */
  readonly ways?: WaysOut | undefined;
}

/** Of containers without a port of the cloud. */
const besideCloud = {
  sets: `
  set companions4 { type ipv4_addr; flags interval; }
  set companions6 { type ipv6_addr; flags interval; }`,
  departures: `
    oifname "cwx*" ip daddr @companions4 ip saddr != @companions4 masquerade comment "to containers without a port of the cloud, which answer the host"
    oifname "cwx*" ip6 daddr @companions6 ip6 saddr != @companions6 masquerade comment "to containers without a port of the cloud, which answer the host"`,
};

/** Addresses to which routers outside know the way. */
const seenOutside = {
  sets: `
  set seen4 { type ipv4_addr; flags interval; }
  set seen6 { type ipv6_addr; flags interval; }`,
  departures: `
    ip saddr @seen4 accept
    ip6 saddr @seen6 accept`,
};

/** A mark comes after addresses are translated and before it is asked for the way. */
const declareOutside = `
  set outside4 { type ipv4_addr; flags interval; }
  set outside6 { type ipv6_addr; flags interval; }
  chain translated {
    type filter hook prerouting priority dstnat + 5; policy accept;
    iifname "cwe*" ct status dnat meta mark set meta mark | ${translatedMark} comment "goes where the host's own packets go"
  }`;

const keepOutside = `
    iifname "cwe*" oifname "cwe*" ip daddr @outside4 ip saddr . ip daddr != @own4 counter drop comment "networks of the cloud are reached by the cloud"
    iifname "cwe*" oifname "cwe*" ip6 daddr @outside6 ip6 saddr . ip6 daddr != @own6 counter drop comment "networks of the cloud are reached by the cloud"`;

/** A flow of which only some packets come this way is none that could be tracked: to those who drop what is invalid it would be that. */
const untracked = {
  sets: `
  set short4 { type ipv4_addr . ipv4_addr; flags interval; }
  set short6 { type ipv6_addr . ipv6_addr; flags interval; }`,
  arrivals: `
    iifname @uplinks ip saddr . ip daddr @short4 notrack
    iifname @uplinks ip6 saddr . ip6 daddr @short6 notrack`,
  departures: `
    meta l4proto { tcp, udp } th dport 53 accept
    ip saddr . ip daddr @short4 notrack
    ip6 saddr . ip6 daddr @short6 notrack`,
};
/**
 * A range of services is led here as a whole, though not every address and port of it is of a service; where those lead the routers are.
 * Before the host is asked for the way, as it would tell who sent it of a shorter one, and that is then where services are sought, too.
 * What is refused is so further on, in words.
 */
const drain = (hasServices: boolean): Partial<typeof nothing> => ({
  sets: `
  set drained4 { type ipv4_addr; flags interval; }
  set drained6 { type ipv6_addr; flags interval; }`,
  arrivals: `
  chain drain {
    type filter hook prerouting priority dstnat + 5; policy accept;
    iifname @uplinks ct state new ip daddr @drained4 fib daddr oifname @uplinks goto drained
    iifname @uplinks ct state new ip6 daddr @drained6 fib daddr oifname @uplinks goto drained
  }
  chain drained {${hasServices ? leaveUnserved : ''}
    counter drop comment "of no service that is there: it would come back"
  }`,
});
const nothing = { sets: '', arrivals: '', departures: '' };
/** What is in the table only where something on the host needs it. */
const partIf = (isNeeded: boolean | undefined, part: Partial<typeof nothing>): typeof nothing =>
  isNeeded === true ? { ...nothing, ...part } : nothing;

/**
 * Who comes to a published port from a network that may not talk to the endpoint's gets another sender. Where there are services one of
 * the same network is seen as itself: who meets itself has had another sender before (leaveServices).
 */
function toPublished(hasServices: boolean): string {
  const [apart4, apart6] = hasServices ? [' ip saddr . ip daddr != @own4', ' ip6 saddr . ip6 daddr != @own6'] : ['', ''];
  return `
    oifname "cwe*" ct status dnat ip saddr @ranges4${apart4} masquerade
    oifname "cwe*" ct status dnat ip6 saddr @ranges6${apart6} masquerade`;
}

/**
 * What connection tracking takes for none of a connection's packets it does not translate either, so it would come to the client from an
 * endpoint that it never spoke to, and be answered by a reset. An endpoint's packets of both directions pass here, whatever way they come.
 */
const stopInvalid = `
    iifname "cwe*" meta l4proto tcp ct state invalid counter drop comment "would arrive untranslated"
    oifname "cwe*" meta l4proto tcp ct state invalid counter drop comment "would arrive untranslated"`;

/**
 * The table of the host itself: published ports, masquerading, the border between domains, and networks routed by the host.
 * `uplinks` are the host's own ways to other hosts, which may well be bridges named like Docker's (br-ex).
 * VXLAN's own packets are not tracked: every flow inside has a source port of its own, so each would take an entry per
 * direction of the host's table.
 * Every packet of the host passes here, so what most of them miss for least comes first in a rule, look-ups in the routing tables (`fib`)
 * last, and what belongs to a connection leaves the chain by its first rule.
 */
export function hostTable(
  services?: ServiceRules,
  { hasCompanions, hasOutside = false, hasShort, keepsSenders, drains, ways }: Special = {},
): NftTable {
  const translate = services === undefined ? '' : translateServices;
  const companions = partIf(hasCompanions, besideCloud);
  const seen = partIf(keepsSenders, seenOutside);
  const drained = partIf(drains, drain(services !== undefined));
  const short = partIf(hasShort, untracked);
  const translateAtEntry = services === undefined ? '' : `${translateArrivals}${translateServices}`;
  return {
    netns: '',
    family: 'inet',
    name: tableName,
    text: `${admission}
  set uplinks { type ifname; }
  set own4 { type ipv4_addr . ipv4_addr; flags interval; }
  set own6 { type ipv6_addr . ipv6_addr; flags interval; }
  map published4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
  map published6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
  map published_any4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
  map published_any6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
  map names4 { type ipv4_addr : ipv4_addr . inet_service; flags interval; }
  map names6 { type ipv6_addr : ipv6_addr . inet_service; flags interval; }
  set restricted { type inet_proto . inet_service; }
  set sources4 { type inet_proto . inet_service . ipv4_addr; flags interval; }
  set sources6 { type inet_proto . inet_service . ipv6_addr; flags interval; }
  set restricted4 { type ipv4_addr . inet_proto . inet_service; }
  set restricted6 { type ipv6_addr . inet_proto . inet_service; }
  set clients4 { type ipv4_addr . inet_proto . inet_service . ipv4_addr; flags interval; }
  set clients6 { type ipv6_addr . inet_proto . inet_service . ipv6_addr; flags interval; }${short.sets}${companions.sets}${seen.sets}${drained.sets}${services === undefined ? '' : declareServices(services)}
  chain entry {
    type filter hook prerouting priority raw; policy accept;
    ip daddr 127.0.0.0/8 iifname != "lo" counter drop comment "links let the host's own questions out from loopback addresses; nobody asks them"
    iifname "cwe*" goto members
    udp dport ${vxlanPort} notrack${short.arrivals}
  }
  chain departure {
    type filter hook output priority raw; policy accept;
    udp dport ${vxlanPort} notrack
  }
  chain members {${admit}
    counter drop
  }
  chain admitted {${short.departures}
    accept
  }
  chain clients {
    type filter hook prerouting priority mangle; policy accept;
    ip daddr . meta l4proto . th dport @restricted4 goto clients_of_address
    ip6 daddr . meta l4proto . th dport @restricted6 goto clients_of_address
    meta l4proto . th dport @restricted fib daddr type local goto restricted_clients
  }
  chain clients_of_address {
    ip daddr . meta l4proto . th dport . ip saddr @clients4 accept
    ip6 daddr . meta l4proto . th dport . ip6 saddr @clients6 accept
    counter drop
  }
  chain restricted_clients {
    meta l4proto . th dport . ip saddr @sources4 accept
    meta l4proto . th dport . ip6 saddr @sources6 accept
    counter drop
  }
  chain inbound {
    type nat hook prerouting priority dstnat - 5; policy accept;${redirectNamesByRange}${translateAtEntry}
    goto published
  }
  chain local {
    type nat hook output priority dstnat - 5; policy accept;
    ip6 daddr ::1 accept comment "answers to ::1 cannot come in by a link; refused at once, clients turn to 127.0.0.1"${translate}
    fib daddr type local goto published
  }
  chain published {
    dnat ip to ip daddr . meta l4proto . th dport map @published4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6
    fib daddr type local dnat ip to meta l4proto . th dport map @published_any4
    fib daddr type local dnat ip6 to meta l4proto . th dport map @published_any6
  }${hasOutside ? declareOutside : ''}${drained.arrivals}${markWaysBack(ways)}
  chain forward {
    type filter hook forward priority filter; policy accept;${services === undefined ? '' : '\n    jump unserved'}
    ct state established,related iifname != "cwu*" accept${services === undefined ? '' : stopInvalid}
    oifname "cwu*" ct state established,related accept
    oifname "cwu*" ct status dnat accept
    oifname "cwu*" counter drop comment "domains are entered by published ports only"
    iifname "cwu*" ip saddr != ${transitBase[4]} counter drop
    iifname "cwu*" ip6 saddr != ${transitBase[6]} counter drop
    ct state established,related accept
    ct status dnat accept
    ip saddr @ranges4 ip daddr @ranges4 ip saddr . ip daddr != @own4 counter drop comment "networks that the host routes are apart"
    ip6 saddr @ranges6 ip6 daddr @ranges6 ip6 saddr . ip6 daddr != @own6 counter drop comment "networks that the host routes are apart"${hasOutside ? keepOutside : ''}
    iifname @uplinks accept
    iifname "cwu*" ip daddr @ranges4 counter drop comment "networks that the host routes are other networks"
    iifname "cwu*" ip6 daddr @ranges6 counter drop comment "networks that the host routes are other networks"
    iifname "docker*" ip daddr @ranges4 counter drop comment "Docker's bridges are other networks"
    iifname "docker*" ip6 daddr @ranges6 counter drop comment "Docker's bridges are other networks"
    iifname "br-*" ip daddr @ranges4 counter drop comment "Docker's bridges are other networks"
    iifname "br-*" ip6 daddr @ranges6 counter drop comment "Docker's bridges are other networks"
    oifname @uplinks accept
    iifname "cwu*" oifname "docker*" counter drop comment "Docker's bridges are entered by published ports only"
    iifname "cwu*" oifname "br-*" counter drop comment "Docker's bridges are entered by published ports only"
    iifname "cwe*" oifname "docker*" counter drop comment "Docker's bridges are entered by published ports only"
    iifname "cwe*" oifname "br-*" counter drop comment "Docker's bridges are entered by published ports only"
  }
  chain outbound {
    type nat hook postrouting priority srcnat; policy accept;${companions.departures}${services === undefined ? '' : leaveServices}
    oifname "cwu*" ip saddr 127.0.0.0/8 masquerade
    oifname "cwu*" accept
    ip saddr ${transitBase[4]} masquerade fully-random
    ip6 saddr ${transitBase[6]} masquerade fully-random
    oifname "cwe*" ip saddr 127.0.0.0/8 masquerade${toPublished(services !== undefined)}
    oifname "cwe*" accept${services === undefined ? '' : leaveAsGuests}
    oifname "cwx*" accept
    oifname "cww*" accept${seen.departures}
    ip saddr @ranges4 ip daddr != @ranges4 masquerade fully-random
    ip6 saddr @ranges6 ip6 daddr != @ranges6 masquerade fully-random
  }
`.replace(/^\n/, ''),
  };
}

/** Port of a network's name server: 53 in a domain of its own. */
export const resolverPort = (network: Network): number => (network.choices.domain === 'own' ? 53 : 10_053 + (network.vni % portRange));

/** Elements of one set, from keys. */
export const elements = (netns: string, set: string, keys: readonly string[]): NftElement[] =>
  keys.map((key) => ({ netns, table: tableName, set, key }));
