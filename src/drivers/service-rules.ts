// The nft text for services. It depends on two things only: which numbers of backends occur, and which times for which clients
// stay with a backend; all else is elements of sets and maps (services.ts). A client that is to stay is noted in a map of the
// kernel's own, with a time-out, after its first packet has been translated; there the agent only deletes.
import type { Service } from '#model/resources.ts';

/** What of the services the rules depend on, ascending. */
export interface ServiceRules {
  /** Numbers of backends that occur. */
  readonly sizes: readonly number[];
  /** For how many seconds clients stay with a backend. */
  readonly stays: readonly number[];
}

/** Few services have more; these chains are always there, so that the rules hardly ever change: that costs a reload of all. */
const usualSizes = 64;
/** Clients that are noted at a time, per family; more are served by chance. */
const mostClients = 262_144;

const ascending = (numbers: ReadonlySet<number>): number[] => [...numbers].toSorted((a, b) => a - b);

/** Services are values, and so are lists of them. */
const known = new WeakMap<readonly Service[], ServiceRules>();

/** Also without any service: the first ones are then a change of elements, too. */
export function serviceRules(services: readonly Service[]): ServiceRules {
  const rules = known.get(services) ?? rulesOf(services);
  known.set(services, rules);
  return rules;
}

function rulesOf(services: readonly Service[]): ServiceRules {
  const usual = Array.from({ length: usualSizes }, (_, index) => index + 1);
  const sizes = new Set(usual);
  const stays = new Set<number>();
  for (const { backends, outer, affinitySeconds } of services) {
    for (const { length } of [backends, outer ?? []]) if (length > usualSizes) sizes.add(length);
    if (affinitySeconds !== undefined) stays.add(affinitySeconds);
  }
  return { sizes: ascending(sizes), stays: ascending(stays) };
}

const families = [
  { family: 4, ip: 'ip', type: 'ipv4_addr' },
  { family: 6, ip: 'ip6', type: 'ipv6_addr' },
] as const;
type Words = (typeof families)[number];
const both = (lines: (words: Words) => string): string => families.map(lines).join('');

/** A service's address, protocol and port: of a packet before translation, and of a connection afterwards. */
const place = (ip: string): string => `${ip} daddr . meta l4proto . th dport`;
const original = (ip: string): string => `ct original ${ip} daddr . meta l4proto . ct original proto-dst`;

/** `clients4` and `clients6` are there already: who may come to a port of one address, exposed or of a service (guard.ts). */
const declareSets = ({ family, ip, type }: Words): string => `
  map services${family} { type ${type} . inet_proto . inet_service : verdict; }
  map outer${family} { type ${type} . inet_proto . inet_service : verdict; }
  map backends${family} { typeof ${place(ip)} . numgen random mod 65536 : ${ip} daddr . th dport; }
  map outer_backends${family} { typeof ${place(ip)} . numgen random mod 65536 : ${ip} daddr . th dport; }
  set fronts${family} { type ${type} . inet_proto . inet_service; }
  set unserved${family} { type ${type} . inet_proto . inet_service; }
  set addresses${family} { type ${type}; }
  set guarded${family} { type ${type} . inet_proto . inet_service; }
  set loops${family} { type ${type} . ${type}; }
  map hosts${family} { type nf_proto : ${type}; }
  map insides${family} { type nf_proto : ${type}; }
  set guests${family} { type ${type}; flags interval; }
  set announced${family} { type ${type}; }`;

const declareStays = ({ family, ip, type }: Words): string => `
  map stays${family} { type ${type} . inet_proto . inet_service : verdict; }
  map affinity${family} { typeof ${ip} saddr . ${place(ip)} : ${ip} daddr . th dport; flags dynamic,timeout; size ${mostClients}; }`;

const chains = (prefix: string, size: number, areThereStays: boolean): string => {
  const choose = `
  chain ${prefix}backends_${size} {${both(
    ({ family, ip }) => `
    dnat ${ip} to ${place(ip)} . numgen random mod ${size} map @${prefix}backends${family}`,
  )}
  }`;
  if (!areThereStays) return choose;
  return `${choose}
  chain ${prefix}sticky_${size} {${both(
    ({ family, ip }) => `
    dnat ${ip} to ${ip} saddr . ${place(ip)} map @affinity${family}`,
  )}
    goto ${prefix}backends_${size}
  }`;
};

const remember = (seconds: number): string => `
  chain remember_${seconds} {${both(
    ({ family, ip }) => `
    update @affinity${family} { ${ip} saddr . ${original(ip)} timeout ${seconds}s : ${ip} daddr . th dport }`,
  )}
  }`;

/** Behind the translation, and before the sender's address is changed. */
const remembering = (stays: readonly number[]): string =>
  stays.length === 0
    ? ''
    : `${both(declareStays)}${stays.map(remember).join('')}
  chain remembered_there {
    type filter hook postrouting priority mangle; policy accept;
    ct state new ct status dnat goto remembered
  }
  chain remembered_here {
    type filter hook input priority mangle; policy accept;
    ct state new ct status dnat goto remembered
  }
  chain remembered {${both(
    ({ family, ip }) => `
    ${original(ip)} vmap @stays${family}`,
  )}
  }`;

/** Goes on to where the chain `unserved` refuses it in words. */
export const leaveUnserved: string = both(
  ({ family, ip }) => `
    ${place(ip)} @unserved${family} accept
    ${ip} daddr @addresses${family} accept`,
);

const throughTunnels = ({ family, ip }: Words): string => `
    oifname "cwx*" snat ${ip} to meta nfproto map @insides${family} fully-random
    oifname "cww*" snat ${ip} to meta nfproto map @insides${family} fully-random`;

/** Sets, maps and chains that elements of planServices() fill. */
export const declareServices = ({ sizes, stays }: ServiceRules): string => `${both(declareSets)}${remembering(stays)}${['', 'outer_']
  .flatMap((prefix) => sizes.map((size) => chains(prefix, size, stays.length > 0)))
  .join('')}
  chain from_elsewhere {${both(
    ({ family, ip }) => `
    ${place(ip)} vmap @outer${family}`,
  )}
  }
  chain refused {
    type filter hook output priority filter; policy accept;
    jump unserved
  }
  chain unserved {${both(
    ({ family, ip }) => `
    ${place(ip)} @unserved${family} counter reject
    ct state new ${ip} daddr @addresses${family} counter reject comment "no service has that port"`,
  )}
  }
  chain callers {
    type filter hook prerouting priority mangle; policy accept;
    ct state new jump guarded
  }
  chain callers_here {
    type filter hook output priority mangle; policy accept;
    ct state new jump guarded
  }
  chain guarded {${both(
    ({ family, ip }) => `
    ${place(ip)} @guarded${family} ${place(ip)} . ${ip} saddr != @clients${family} counter drop comment "not in the service's source ranges"`,
  )}
  }
  chain to_announced {
    type filter hook input priority filter; policy accept;
    ct status dnat accept${both(
      ({ family, ip }) => `
    ${ip} daddr @announced${family} meta l4proto != { icmp, ipv6-icmp } counter reject comment "of a load balancer: its services' ports only"`,
    )}
  }
  chain leaving {
    oifname "cwe*" accept
    iifname "cwe*" return${both(throughTunnels)}
    oifname @uplinks fib saddr type local masquerade
    fib saddr type local return${both(
      ({ family, ip }) => `
    snat ${ip} to meta nfproto map @hosts${family} fully-random`,
    )}
    masquerade fully-random
  }
  chain guests {${both(throughTunnels)}
    masquerade fully-random
  }`;

/** In chains of the hooks prerouting and output, type nat. */
export const translateServices: string = both(
  ({ family, ip }) => `
    ${place(ip)} vmap @services${family}`,
);

/** Before that, at prerouting: connections from other machines may have other backends than those from here. */
export const translateArrivals = `
    iifname != "cwe*" jump from_elsewhere`;

/**
 * First in the chain of the hook postrouting: a backend that meets itself needs another sender; a backend here sees the client
 * itself; who comes from outside and is sent on to another host gets this host's address, so that the answer comes back here; through
 * a tunnel its address inside, so that the answer comes by the tunnel as well (inside.ts), and so does the host itself, which chose
 * its sender on the way to the service's address: by plain routes it gets that of the link by which it leaves.
 */
export const leaveServices: string = both(
  ({ family, ip }) => `
    ct status dnat ${ip} saddr . ${ip} daddr @loops${family} masquerade
    ct status dnat ${original(ip)} @fronts${family} jump leaving`,
);

/**
 * Once what stays on this host is let go: pods that are on the hosts' own network go to pods of other hosts under this host's address,
 * for whose hosts theirs are none that answers come back for by a tunnel, nor that Neutron lets in to hosts.
 */
export const leaveAsGuests: string = both(
  ({ family, ip }) => `
    ${ip} saddr @guests${family} ${ip} daddr @ranges${family} goto guests`,
);
