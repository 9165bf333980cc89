// Addresses of exposures that move between hosts (Neutron's guide calls them virtual IPs): a port of ours that no machine has, so that
// nobody else gets its address, and that address a pair of the port of every host that may have it. ML2/OVN finds the port whose
// address is a pair of others' and makes it one of type `virtual`, which goes to whoever tells the wire that it has the address
// (ovn-nb(5), options of virtual ports). Exposures of one endpoint share one. Pure.
import { familyOf, hostPrefix, type Ip, parseIp } from '#model/ip.ts';
import { subnetOf } from './named.ts';
import type { NeutronPort } from './neutron-schemas.ts';
import { fitted, type Fitting } from './pairs.ts';
import { deviceOf } from './pools.ts';
import type { RefusedParts } from './refused.ts';
import { type Wish, type WishedBlock, type WishedFloatingIp, type WishedGroup, type WishedPort, type WishedVirtual } from './wish.ts';

export const virtualOwner = 'causeway:virtual';
/** Enough to outlive some; each has the address as a pair, of which a port takes few. */
const mostHosts = 4;

export const isVirtual = (name: string, { owner, device }: NeutronPort): boolean =>
  owner === virtualOwner && device.startsWith(deviceOf(name, ''));

export type VirtualStep =
  | {
      readonly type: 'make-virtual-port';
      readonly wished: WishedVirtual;
      /** Ids. */
      readonly network: string;
      readonly subnet: string;
      /** A floating IP will be made for it. */
      readonly isFloating: boolean;
    }
  | { readonly type: 'remove-virtual-port'; readonly port: NeutronPort };

export const isVirtualStep = (step: { readonly type: string }): step is VirtualStep => step.type.endsWith('virtual-port');

/** What hosts are to be told of an exposure. */
export interface PlacedVirtual {
  /** Id. */
  readonly exposure: string;
  readonly ip: Ip;
  /** Ids. */
  readonly hosts: readonly string[];
}

export interface VirtualPlan {
  readonly made: readonly VirtualStep[];
  readonly left: readonly VirtualStep[];
  /** Keys of addresses that a host may have, by name of the host. */
  readonly carried: ReadonlyMap<string, ReadonlySet<string>>;
  /** Pairs of the hosts' ports, by name of the host: blocks of one address each, which are never joined. */
  readonly pairs: ReadonlyMap<string, readonly WishedBlock[]>;
  readonly placed: readonly PlacedVirtual[];
  readonly floating: readonly WishedFloatingIp[];
  /** By what stands in their place among the hosts of `floating`: ids of Neutron's ports. */
  readonly ports: ReadonlyMap<string, string>;
  readonly problems: readonly string[];
}

interface Planning extends Fitting {
  readonly ports: readonly NeutronPort[];
  readonly wished: readonly WishedPort[];
  /** A host's port, or why there is none. */
  readonly portOf: (host: string) => NeutronPort | string;
  readonly refused: RefusedParts;
  /** As holding() has it. */
  readonly isHeld: (port: NeutronPort) => boolean;
}

/** Neutron's `device_id` of its port. */
export const virtualDevice = (name: string, { key }: WishedVirtual): string => deviceOf(name, `virtual.${key}`);

export function virtualPlan(all: readonly WishedVirtual[], planning: Planning): VirtualPlan {
  const { name, ports, refused, isHeld } = planning;
  const ours = ports.filter((port) => isVirtual(name, port)).toSorted((a, b) => (a.id < b.id ? -1 : 1));
  const kept = new Set<NeutronPort>();
  const made: VirtualStep[] = [];
  const carried = new Map<string, Set<string>>();
  const pairs = new Map<string, WishedBlock[]>();
  const placed: PlacedVirtual[] = [];
  const floating: WishedFloatingIp[] = [];
  const places = new Map<string, string>();
  const problems: string[] = [];
  for (const wished of all) {
    const port = ours.find(({ device }) => device === virtualDevice(name, wished));
    const ip = port === undefined ? undefined : addressOf(port, wished, planning);
    const { hosts, troubles } = hostsOf(wished, { ip, pairs, planning });
    problems.push(...troubles.map((trouble) => `Exposures of ${wished.what}: ${trouble}`));
    const [first] = hosts;
    const refusal = port === undefined ? refused.virtual.get(wished.key) : undefined;
    if (refusal !== undefined) problems.push(`Exposures of ${wished.what} have no address: ${refusal}`);
    if (first === undefined || refusal !== undefined) continue;
    for (const { host } of hosts) carried.set(host, (carried.get(host) ?? new Set()).add(wished.key));
    if (port === undefined || ip === undefined) {
      const subnet = subnetOf(first.port, first.address) ?? '';
      const isFloating = wished.floating.some(({ id }) => !refused.floating.has(id));
      made.push({ type: 'make-virtual-port', wished, network: first.port.networkId, subnet, isFloating });
      continue;
    }
    kept.add(port);
    for (const { host, port: own } of hosts) if (own.portSecurity) pairs.set(host, [...(pairs.get(host) ?? []), pairOf(wished, ip, port)]);
    const place = `virtual address of ${wished.what}`;
    places.set(place, port.id);
    floating.push(...wished.floating.map((one) => ({ ...one, hosts: [{ host: place, address: ip }] })));
    const ids = hosts.map(({ id }) => id).toSorted();
    placed.push(...wished.exposures.map((exposure) => ({ exposure, ip: parseIp(ip), hosts: ids })));
  }
  const left = ours.filter((port) => !kept.has(port) && !isHeld(port)).map((port): VirtualStep => ({ type: 'remove-virtual-port', port }));
  return { made, left, carried, pairs, placed, floating, ports: places, problems };
}

/** Without what opens hosts for an address that they are not to have. */
export function carriedOnly(wish: Wish, { carried }: VirtualPlan): Wish {
  const groups = wish.groups.flatMap((group): WishedGroup[] => {
    const has = carried.get(group.host ?? '');
    const rules = group.rules.filter(({ virtual }) => virtual === undefined || has?.has(virtual) === true);
    return rules.length === 0 && group.isPartial !== true ? [] : [{ ...group, rules }];
  });
  const names = new Set(groups.map(({ name }) => name));
  return { ...wish, groups, ports: wish.ports.map((port) => ({ ...port, groups: port.groups.filter((name) => names.has(name)) })) };
}

/** Neutron gives a port also addresses that nobody has asked for, of subnets of IPv6 that give them by SLAAC. */
function addressOf({ addresses }: NeutronPort, { hosts, family }: WishedVirtual, { portOf }: Planning): string | undefined {
  const subnets = new Set(
    hosts.map(({ host, address }) => {
      const port = portOf(host);
      return typeof port === 'string' ? undefined : subnetOf(port, address);
    }),
  );
  const own = addresses.filter(({ ip }) => familyOf(parseIp(ip)) === family).toSorted((a, b) => (a.ip < b.ip ? -1 : 1));
  return (own.find(({ subnetId }) => subnets.has(subnetId)) ?? own[0])?.ip;
}

interface Carrier {
  readonly id: string;
  readonly host: string;
  readonly address: string;
  readonly port: NeutronPort;
}

interface Choosing {
  /** Undefined: the cloud has not chosen it yet. */
  readonly ip: string | undefined;
  /** Of others before it. */
  readonly pairs: ReadonlyMap<string, readonly WishedBlock[]>;
  readonly planning: Planning;
}

/** Those that have it already come first, so that it is not taken from them for others. */
function hostsOf(wished: WishedVirtual, choosing: Choosing): { hosts: readonly Carrier[]; troubles: readonly string[] } {
  const { ip, planning } = choosing;
  const { hosts, without, family } = wished;
  const hasIt = ({ pairs }: NeutronPort): boolean => pairs.some((pair) => pair.ip_address === ip);
  const troubles = without.map((host) => `host ${host} has no address of IPv${family}: give its port one, and its interface the same`);
  if (hosts.length + without.length === 0) troubles.push('their container is on no host');
  const able = hosts.flatMap(({ id, host, address }): Carrier[] => {
    const port = planning.portOf(host);
    const refusal = typeof port === 'string' ? undefined : planning.refused.pairs.get(port.id);
    const trouble =
      typeof port === 'string'
        ? port
        : refusal !== undefined && !hasIt(port)
          ? `host ${host} cannot have their address: ${refusal}`
          : (placeTrouble(host, address, port) ?? (hasIt(port) ? undefined : roomTrouble(wished, { host, port }, choosing)));
    if (trouble !== undefined) troubles.push(trouble);
    return typeof port === 'string' || trouble !== undefined ? [] : [{ id, host, address, port }];
  });
  const sorted = able.toSorted((a, b) => Number(hasIt(b.port)) - Number(hasIt(a.port)));
  const [first] = sorted;
  const beside = sorted.filter(({ port }) => port.networkId === first?.port.networkId);
  for (const { host } of sorted.filter((one) => !beside.includes(one)))
    troubles.push(`host ${host} is on another network of the cloud than host ${first?.host}, and cannot have its addresses`);
  return { hosts: beside.slice(0, mostHosts), troubles };
}

/** The address that moves is of the same subnet. */
function placeTrouble(host: string, address: string, { id, addresses }: NeutronPort): string | undefined {
  if (addresses.some(({ ip }) => ip === address)) return undefined;
  const own = addresses.map(({ ip }) => ip).join(', ') || 'none';
  return `host ${host} has the address ${address}, and its port ${id} has not (${own}), so nothing is known of its subnet`;
}

const pairOf = ({ key: virtual }: WishedVirtual, text: string, port: NeutronPort): WishedBlock => {
  const ip = parseIp(text);
  return { cidr: hostPrefix(ip), place: { network: port.networkId, subnet: subnetOf(port, text) ?? '' }, addresses: [ip], virtual };
};

/** It counts as one, also before the cloud has chosen it. */
const unknown = '0.0.0.0';

function roomTrouble(
  wished: WishedVirtual,
  { host, port }: Pick<Carrier, 'host' | 'port'>,
  { ip, pairs, planning }: Choosing,
): string | undefined {
  const found = planning.wished.find((one) => one.host === host);
  if (found === undefined) return undefined;
  const blocks = [...found.blocks, ...(pairs.get(host) ?? []), pairOf(wished, ip ?? unknown, port)];
  return fitted({ ...found, blocks }, port, planning).trouble;
}
