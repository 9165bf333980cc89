// Services as elements of nft maps: the address, protocol and port of a packet choose a chain by the number of backends, and
// that chain one of so many backends by chance. So the rules only change when a number comes up that no service had before,
// everything else is a change of elements, and a packet costs two look-ups however many services there are.
import type { NftElement } from '#model/desired.ts';
import { familyOf } from '#model/ip.ts';
import { tableName } from '#model/numbers.ts';
import type { Service } from '#model/resources.ts';

/** What of the services the rules depend on: the numbers of backends that occur, ascending. */
export interface ServiceRules {
  readonly sizes: readonly number[];
}

/** Few services have more; these chains are always there, so that the rules hardly ever change. */
const usualSizes = 8;

/** Undefined without any service: then the table is as if there were no such thing. */
export function serviceRules(services: readonly Service[]): ServiceRules | undefined {
  if (services.length === 0) return undefined;
  const sizes = new Set(services.map(({ backends }) => backends.length).filter((size) => size > usualSizes));
  for (let size = 1; size <= usualSizes; size++) sizes.add(size);
  return { sizes: [...sizes].toSorted((a, b) => a - b) };
}

const element = (set: string, key: string, value?: string): NftElement => ({
  netns: '',
  table: tableName,
  set,
  key,
  ...(value === undefined ? {} : { value }),
});

/** Of two services with one address, protocol and port the first by key is served; each backend counts once. */
export function planServices(services: readonly Service[]): NftElement[] {
  const taken = new Set<string>();
  const loops = new Set<string>();
  const planned: NftElement[] = [];
  for (const { ip, protocol, port, backends } of services.toSorted((a, b) => (a.key < b.key ? -1 : 1))) {
    const family = familyOf(ip);
    const place = `${ip} . ${protocol} . ${port}`;
    if (taken.has(place)) continue;
    taken.add(place);
    const targets = [...new Set(backends.map((backend) => `${backend.ip} . ${backend.port}`))].toSorted();
    if (targets.length === 0) planned.push(element(`unserved${family}`, place));
    else planned.push(element(`services${family}`, place, `goto backends_${targets.length}`));
    planned.push(...targets.map((target, index) => element(`backends${family}`, `${place} . ${index}`, target)));
    for (const { ip: own } of backends) loops.add(own);
  }
  for (const ip of [...loops].toSorted()) planned.push(element(`loops${ip.includes(':') ? 6 : 4}`, `${ip} . ${ip}`));
  for (const ip of new Set([...taken].map((place) => place.split(' ')[0] ?? '').toSorted())) {
    planned.push(element(`virtual${ip.includes(':') ? 6 : 4}`, ip));
  }
  return planned;
}

const chosen = (size: number): string => `. numgen random mod ${size}`;

/** Sets, maps and chains that elements of planServices() fill. */
export const declareServices = ({ sizes }: ServiceRules): string => `
  map services4 { type ipv4_addr . inet_proto . inet_service : verdict; }
  map services6 { type ipv6_addr . inet_proto . inet_service : verdict; }
  map backends4 { typeof ip daddr . meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport; }
  map backends6 { typeof ip6 daddr . meta l4proto . th dport . numgen random mod 65536 : ip6 daddr . th dport; }
  set unserved4 { type ipv4_addr . inet_proto . inet_service; }
  set unserved6 { type ipv6_addr . inet_proto . inet_service; }
  set virtual4 { type ipv4_addr; }
  set virtual6 { type ipv6_addr; }
  set loops4 { type ipv4_addr . ipv4_addr; }
  set loops6 { type ipv6_addr . ipv6_addr; }${sizes
    .map(
      (size) => `
  chain backends_${size} {
    dnat ip to ip daddr . meta l4proto . th dport ${chosen(size)} map @backends4
    dnat ip6 to ip6 daddr . meta l4proto . th dport ${chosen(size)} map @backends6
  }`,
    )
    .join('')}
  chain refused {
    type filter hook output priority filter; policy accept;
    jump unserved
  }
  chain unserved {
    ip daddr . meta l4proto . th dport @unserved4 counter reject
    ip6 daddr . meta l4proto . th dport @unserved6 counter reject
  }`;

/** In chains of the hooks prerouting and output, type nat. */
export const translateServices = `
    ip daddr . meta l4proto . th dport vmap @services4
    ip6 daddr . meta l4proto . th dport vmap @services6`;

/** First in the chain of the hook postrouting: a backend that meets itself needs another sender, anyone else is itself. */
export const leaveServices = `
    ct status dnat ip saddr . ip daddr @loops4 masquerade
    ct status dnat ip6 saddr . ip6 daddr @loops6 masquerade
    oifname "cwe*" ct original ip daddr @virtual4 accept
    oifname "cwe*" ct original ip6 daddr @virtual6 accept`;
