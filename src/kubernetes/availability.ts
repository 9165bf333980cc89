// Whether a node takes pods, as its condition NetworkUnavailable says it. Ranges that overlap are named both: pods that have
// addresses already go on, and nobody new comes to have one that leads elsewhere.
import type { Cidr } from '#model/ip.ts';
import { overlaps } from '#model/ip.ts';
import { exhaustedOf } from '#model/ranges.ts';
import type { Network, Underlay } from '#model/resources.ts';
import type { NodeWish } from './node-teller.ts';

export interface Availability {
  /** That the range of pods is that of others as well: each a sentence, absent where it is not. */
  readonly hosts?: string | undefined;
  readonly services?: string | undefined;
  /** Of which pods get their addresses here, one of each family. */
  readonly ranges: readonly { readonly cidr: Cidr; readonly pool: string }[];
  readonly isExhausted: (pool: string) => boolean;
  /** Of a node that wants to be sent to by the hosts' router. */
  readonly route?: AwaitedRoute;
  /** Of a node that carries by VXLAN, as the cloud does not let be what it was told to. */
  readonly instead?: NonNullable<Network['instead']>;
}

export interface AwaitedRoute {
  /** A range of the node's pods that the router does not lead to it; undefined: it knows all. */
  readonly missing: Cidr | undefined;
  /** Whether the node is sent to in no other way meanwhile. */
  readonly isOnly: boolean;
  readonly problem?: string | undefined;
}

/** Of the condition, all that there are. */
export const reasons = [
  'CausewayIsUp',
  'CarriedByVxlan',
  'NoFreeAddresses',
  'ServiceAmongPods',
  'PodsAmongHosts',
  'UnusableNode',
  'RouteCreated',
  'RouteAwaited',
  'NoRouteCreated',
] as const;
type Reason = (typeof reasons)[number];
type Word = NodeWish['network'] & { readonly reason: Reason };

const unavailable = (reason: Reason, message: string): Word => ({ isAvailable: false, reason, message });

/** Before the node can be used at all, because of what is said of it. */
export const unusable = (problem: string): Word => unavailable('UnusableNode', problem);

/** As the route controllers of cloud providers call it. */
function routeWord({ missing, isOnly, problem }: AwaitedRoute): Word {
  if (missing === undefined)
    return { isAvailable: true, reason: 'RouteCreated', message: 'Pods can be attached, and the router leads to them' };
  const why =
    problem ?? 'nobody who keeps the cloud has told it yet ("causeway cloud apply --routes", or a controller with --cloud-routes)';
  const words = `The router does not lead to ${missing}: ${why}`;
  return isOnly
    ? unavailable('NoRouteCreated', words)
    : { isAvailable: true, reason: 'RouteAwaited', message: `${words}. Pods are reached otherwise meanwhile` };
}

function availableWord({ route, instead }: Pick<Availability, 'route' | 'instead'>): Word {
  if (route !== undefined) return routeWord(route);
  if (instead === undefined) return { isAvailable: true, reason: 'CausewayIsUp', message: 'Pods can be attached' };
  const message = `Pods can be attached. They are carried by vxlan instead of ${instead.carry}, as ${instead.because}`;
  return { isAvailable: true, reason: 'CarriedByVxlan', message };
}

export function availabilityOf({ hosts, services, ranges, isExhausted, ...rest }: Availability): Word {
  if (hosts !== undefined) return unavailable('PodsAmongHosts', hosts);
  if (services !== undefined) return unavailable('ServiceAmongPods', services);
  const full = exhaustedOf(ranges, ({ pool }) => isExhausted(pool));
  if (full === undefined) return availableWord(rest);
  const where = full.map(({ cidr }) => cidr).join(', ');
  return unavailable('NoFreeAddresses', where === '' ? 'No range of addresses is for pods here' : `No address is free in ${where}`);
}

/** That hosts reach each other by addresses which pods may have as well, in words; by `underlay`, the preferred one first. */
export function hostsAmong(ranges: readonly Cidr[], underlay: readonly Underlay[]): string | undefined {
  // Other links may be another system's, on which pods of before live on.
  for (const { interface: link, subnet } of underlay.filter((one) => one.interface === underlay[0]?.interface)) {
    const range = ranges.find((one) => overlaps(one, subnet));
    if (range !== undefined) return `The range of pods ${range} overlaps ${subnet} of ${link}, where hosts have their addresses`;
  }
  return undefined;
}
