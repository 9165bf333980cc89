// Services as elements of nft maps: the address, protocol and port of a packet choose a chain by the number of backends, and
// that chain one of so many backends by chance. So the rules only change when a number comes up that no service had before,
// everything else is a change of elements, and a packet costs two look-ups however many services there are.
import type { NftElement } from '#model/desired.ts';
import { type Cidr, type Family, familyOf, type Ip, parseIp } from '#model/ip.ts';
import { disjoint } from '#model/ranges.ts';
import { tableName } from '#model/numbers.ts';
import type { Backend, Service } from '#model/resources.ts';

/** Of the host that translates. */
export interface ServiceHost {
  /** Its own addresses on the underlay: node ports are open on them. */
  readonly own: readonly Ip[];
  /** Addresses of its endpoints. */
  readonly local: readonly Ip[];
  /** Its own addresses inside of the network of its endpoints, one a family at most. */
  readonly inside?: readonly Ip[];
  /** Blocks of its own whose addresses are of the hosts' own network. */
  readonly guests?: readonly Cidr[];
}

const element = (set: string, key: string, value?: string): NftElement =>
  value === undefined ? { netns: '', table: tableName, set, key } : { netns: '', table: tableName, set, key, value };

const row = (set: string, key: string, values: readonly string[]): NftElement => ({ netns: '', table: tableName, set, key, values });

/** Names of sets, once: ten thousands of elements have them, and the very same string is compared at a glance. */
const setsOf = (family: Family) =>
  ({
    fronts: `fronts${family}`,
    services: `services${family}`,
    unserved: `unserved${family}`,
    backends: `backends${family}`,
    outer: `outer${family}`,
    outerBackends: `outer_backends${family}`,
    stays: `stays${family}`,
    guarded: `guarded${family}`,
    clients: `clients${family}`,
    addresses: `addresses${family}`,
  }) as const;
const sets = { 4: setsOf(4), 6: setsOf(6) } as const;

/** Mostly they are in order already, each once. */
function targetsOf(backends: readonly Backend[]): readonly string[] {
  const targets = backends.map(({ ip, port }) => `${ip} . ${port}`);
  const isInOrder = targets.every((target, index) => index === 0 || (targets[index - 1] ?? '') < target);
  return isInOrder ? targets : [...new Set(targets)].toSorted();
}

/** One address, protocol and port. */
function planFront(place: string, service: Service, ownsAddress: boolean): NftElement[] {
  const { backends, outer, servedElsewhere, affinitySeconds, sources } = service;
  const family = familyOf(service.ip);
  const set = sets[family];
  const chain = affinitySeconds === undefined ? 'backends' : 'sticky';
  const targets = targetsOf(backends);
  const planned: NftElement[] = [element(set.fronts, place)];
  if (targets.length > 0) planned.push(element(set.services, place, `goto ${chain}_${targets.length}`));
  else if (servedElsewhere === true) planned.push(element(set.services, place, 'drop'));
  // At an address of the host's own the host itself refuses.
  else if (!ownsAddress) planned.push(element(set.unserved, place));
  if (targets.length > 0) planned.push(row(set.backends, place, targets));
  if (outer !== undefined && targets.length > 0) {
    const nearby = targetsOf(outer);
    planned.push(element(set.outer, place, nearby.length === 0 ? 'drop' : `goto outer_${chain}_${nearby.length}`));
    if (nearby.length > 0) planned.push(row(set.outerBackends, place, nearby));
  }
  if (affinitySeconds !== undefined) planned.push(element(set.stays, place, `goto remember_${affinitySeconds}`));
  if (sources !== undefined) {
    planned.push(element(set.guarded, place));
    const ranges = disjoint(sources.filter((range) => familyOf(range) === family)).toSorted();
    planned.push(...ranges.map((range) => element(set.clients, `${place} . ${range}`)));
  }
  return planned;
}

const unspecified: ReadonlySet<string> = new Set(['0.0.0.0', '::']);

/** What a service is at an address, protocol and port, or at an address as a whole. */
type Front = readonly [place: string, elements: readonly NftElement[]];

/** Services are values: what one means is worked out once, and a node port again when the host has other addresses. */
const known = new WeakMap<Service, { readonly own: readonly Ip[]; readonly fronts: readonly Front[] }>();

function frontsOf(service: Service, own: readonly Ip[]): readonly Front[] {
  const isNodePort = unspecified.has(service.ip);
  const before = known.get(service);
  if (before !== undefined && (!isNodePort || (before.own.length === own.length && before.own.every((ip, index) => ip === own[index]))))
    return before.fronts;
  const addresses = isNodePort ? own.filter((ip) => familyOf(ip) === familyOf(service.ip)) : [service.ip];
  const fronts = addresses.map((ip): Front => {
    const place = `${ip} . ${service.protocol} . ${service.port}`;
    return [place, planFront(place, service, isNodePort)];
  });
  if (service.refusesOthers === true) fronts.push([service.ip, [element(sets[familyOf(service.ip)].addresses, service.ip)]]);
  known.set(service, { own, fronts });
  return fronts;
}

/** Copied as blocks, as many at a time as a call may have arguments. */
function joined(lists: readonly (readonly NftElement[])[]): readonly NftElement[] {
  const atOnce = 5_000;
  const none: readonly NftElement[] = [];
  const portions = Array.from({ length: Math.ceil(lists.length / atOnce) }, (_, index) =>
    none.concat(...lists.slice(index * atOnce, (index + 1) * atOnce)),
  );
  return none.concat(...portions);
}

/** So are lists of them. */
const plannedBefore = new WeakMap<readonly Service[], { readonly own: string; readonly elements: readonly NftElement[] }>();

/** Of two services with one address, protocol and port the first by key is served; each backend counts once. */
function planFronts(services: readonly Service[], own: readonly Ip[]): readonly NftElement[] {
  const before = plannedBefore.get(services);
  if (before?.own === own.join(' ')) return before.elements;
  const taken = new Set<string>();
  const planned: (readonly NftElement[])[] = [];
  for (const service of services.toSorted((a, b) => (a.key < b.key ? -1 : 1))) {
    for (const [place, elements] of frontsOf(service, own)) {
      if (taken.has(place)) continue;
      taken.add(place);
      planned.push(elements);
    }
  }
  const elements = joined(planned);
  plannedBefore.set(services, { own: own.join(' '), elements });
  return elements;
}

/** What the rules of services (service-rules.ts) look up. */
export function planServices(services: readonly Service[], { own, local, inside = [], guests = [] }: ServiceHost): NftElement[] {
  if (services.length === 0) return [];
  const loops = [...new Set(local)].toSorted().map((ip) => element(`loops${familyOf(ip)}`, `${ip} . ${ip}`));
  const hosts = ([4, 6] as const).flatMap((family) => {
    const ip = own.find((candidate) => familyOf(candidate) === family);
    return ip === undefined ? [] : [element(`hosts${family}`, `ipv${family}`, ip)];
  });
  const insides = inside.map((ip) => element(`insides${familyOf(ip)}`, `ipv${familyOf(ip)}`, ip));
  const others = guests.map((cidr) => element(`guests${familyOf(cidr)}`, cidr));
  return planFronts(services, own).concat(loops, hosts, insides, others);
}

/** Stands in a Service for every address of the host on the underlay. */
export const everyAddress: Readonly<Record<Family, Ip>> = { 4: parseIp('0.0.0.0'), 6: parseIp('::') };
