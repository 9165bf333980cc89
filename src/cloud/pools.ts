// Pools of Neutron ports: each host's block of addresses of a network with the model `neutron`, one port for each address, which is a
// sub-port of the host's port where that is the parent of a trunk, and otherwise an address pair of it. A port of ours is told by its
// owner and the device that it names; of sub-ports both are Neutron's to write (and one with a device is refused: PortInUse), so they
// are told by their description.
import type { NeutronRequest } from '#api/local.ts';
import { spaceOf } from '#model/block.ts';
import { Fault } from '#model/fault.ts';
import { type Cidr, cidrBase, cidrSize, type Family, familyOf, formatIp, type Ip, ipToBigint, parseCidr, parseIp } from '#model/ip.ts';
import { endpointMac } from '#model/numbers.ts';
import type { Block, FoundPlace, NeutronPlace, Pool } from '#model/resources.ts';
import { inLanes } from './lanes.ts';
import { named } from './named.ts';
import type { Neutron } from './neutron.ts';
import type { NeutronNetwork, NeutronPort, NeutronSubnet, SubPort } from './neutron-schemas.ts';
import type { WishedBlock, WishedPort } from './wish.ts';

export const portOwner = 'causeway:container';
/** Neutron's `device_id` of the ports that are kept for a host's containers. */
export const deviceOf = (name: string, host: string): string => `causeway.${name}.${host}`.slice(0, 255);
const subPortOwners = new Set(['', 'trunk:subport']);
/** As deviceOf; of others' ports it may be anything else. */
const labelOf = ({ owner, device, description }: NeutronPort): string =>
  owner === portOwner ? device : subPortOwners.has(owner) ? description.replace(choice, '') : '';
/** In the description of a sub-port that is in groups which its container has asked for. Others' changes of groups stay. */
const choice = ', in groups of its container';
export const isPooled = (name: string, port: NeutronPort): boolean => labelOf(port).startsWith(deviceOf(name, ''));

/** Addresses that containers may get. */
export function addressesOf(pool: Pool, { cidr }: Pick<Block, 'cidr'>): Ip[] {
  return spaceOf(pool, cidr).spans.flatMap(({ first, last }) =>
    Array.from({ length: Number(last - first) + 1 }, (_, index) => formatIp(first + BigInt(index), familyOf(cidr))),
  );
}

export interface PooledPort {
  readonly host: string;
  readonly place: NeutronPlace;
  readonly ip: Ip;
  /** With this one it is a sub-port of the host's trunk. */
  readonly vlan?: number;
  /** Ids; that its container has asked for. */
  readonly groups?: readonly string[] | undefined;
}

/** One that is there, and is to be a sub-port. */
export interface LooseSubPort {
  readonly id: string;
  readonly ip: Ip;
  readonly vlan: number;
}

export type PooledStep =
  | { readonly type: 'make-ports'; readonly host: string; readonly trunk?: string; readonly ports: readonly PooledPort[] }
  | { readonly type: 'attach-ports'; readonly host: string; readonly trunk: string; readonly ports: readonly LooseSubPort[] }
  | { readonly type: 'regroup-port'; readonly id: string; readonly port: PooledPort }
  | { readonly type: 'remove-ports'; readonly ports: readonly NeutronPort[]; readonly attached: readonly Attached[] };
/** Ids; of sub-ports. */
export interface Attached {
  readonly trunk: string;
  readonly ports: readonly string[];
}

const stepTypes = new Set(['make-ports', 'attach-ports', 'regroup-port', 'remove-ports']);
export const isPooledStep = (step: { readonly type: string }): step is PooledStep => stepTypes.has(step.type);

interface Wanted {
  readonly name: string;
  readonly ports: readonly Pick<WishedPort, 'host' | 'blocks' | 'tagged'>[];
  /** Of the host's port. */
  readonly trunkOf: (host: string) => NeutronPort['trunk'];
  /** As holding() has it. */
  readonly isHeld: (port: NeutronPort) => boolean;
}

type Place = { readonly trunk: string; readonly vlan: number };
/** What is there: ports of ours by label and address, and where sub-ports are. */
interface There {
  /** Without those that are not as they should be. */
  readonly ours: ReadonlyMap<string, NeutronPort>;
  readonly places: ReadonlyMap<string, Place>;
}
/** As we write them: the one that was asked for, and what Neutron adds by itself from subnets with SLAAC, in the order of their text. */
const ipsOf = ({ addresses }: Pick<NeutronPort, 'addresses'>): Ip[] => addresses.map(({ ip }) => parseIp(ip));
const keyOf = (label: string, ip: string): string => `${label} ${ip}`;

/**
 * Ports for containers that are to be made or attached, by one call each for a block, and those that nothing wants any more; those that
 * are in the way of what is wanted come first.
 */
export function poolSteps(wanted: Wanted, all: readonly NeutronPort[]): { first: PooledStep[]; last: PooledStep[] } {
  const { name, ports, trunkOf, isHeld } = wanted;
  const ours = new Map(
    all.filter((port) => isPooled(name, port)).flatMap((port) => ipsOf(port).map((ip) => [keyOf(labelOf(port), ip), port] as const)),
  );
  const places = new Map(all.flatMap(({ trunk }) => trunk?.subPorts.map(({ id, vlan }) => [id, { trunk: trunk.id, vlan }] as const) ?? []));
  const wrong: NeutronPort[] = [];
  const kept = new Set<NeutronPort>();
  for (const { host, blocks, tagged = [] } of ports)
    for (const pooled of [...blocks, ...tagged].flatMap((block) => pooledIn(host, block))) {
      const key = keyOf(deviceOf(name, host), pooled.ip);
      const port = ours.get(key);
      if (port === undefined) continue;
      kept.add(port);
      if (!isWrong(port, pooled, { place: places.get(port.id), trunk: trunkOf(host)?.id })) continue;
      wrong.push(port);
      ours.delete(key);
    }
  const removal = (those: readonly NeutronPort[]): PooledStep[] =>
    those.length === 0 ? [] : [{ type: 'remove-ports', ports: those, attached: attachedOf(those, places) }];
  const made = ports.flatMap(({ host, blocks, tagged = [] }) =>
    [...blocks, ...tagged].flatMap((block) => stepsFor(wanted, { host, block }, { ours, places })),
  );
  return {
    first: [...removal(wrong), ...made],
    last: removal(all.filter((port) => isPooled(name, port) && !kept.has(port) && !isHeld(port))),
  };
}

/** Whether it is of the other sort, or elsewhere than it should be. */
function isWrong(
  port: NeutronPort,
  { vlan }: PooledPort,
  at: { readonly place: Place | undefined; readonly trunk: string | undefined },
): boolean {
  if ((vlan === undefined) !== (port.owner === portOwner)) return true;
  return at.place !== undefined && at.trunk !== undefined && (at.place.vlan !== vlan || at.place.trunk !== at.trunk);
}

function stepsFor(
  { name, trunkOf }: Wanted,
  { host, block }: { readonly host: string; readonly block: WishedBlock },
  { ours, places }: There,
): PooledStep[] {
  const trunk = block.vlan === undefined ? undefined : trunkOf(host)?.id;
  if (block.vlan !== undefined && trunk === undefined) return [];
  const pooled = pooledIn(host, block);
  const there = ({ ip }: PooledPort): NeutronPort | undefined => ours.get(keyOf(deviceOf(name, host), ip));
  const lacking = pooled.filter((port) => there(port) === undefined);
  const loose = pooled.flatMap((port): LooseSubPort[] => {
    const id = there(port)?.id;
    return port.vlan === undefined || id === undefined || places.has(id) ? [] : [{ id, ip: port.ip, vlan: port.vlan }];
  });
  return [
    ...(lacking.length === 0 ? [] : [{ type: 'make-ports' as const, host, ports: lacking, ...(trunk === undefined ? {} : { trunk }) }]),
    ...(loose.length === 0 || trunk === undefined ? [] : [{ type: 'attach-ports' as const, host, trunk, ports: loose }]),
    ...pooled.flatMap((port): PooledStep[] => {
      const found = there(port);
      return found === undefined || isGroupedAs(found, port) ? [] : [{ type: 'regroup-port', id: found.id, port }];
    }),
  ];
}

function isGroupedAs({ description, groups: has }: NeutronPort, { vlan, groups: wanted }: PooledPort): boolean {
  if (vlan === undefined) return true;
  if (wanted === undefined) return !description.endsWith(choice);
  return description.endsWith(choice) && has.length === wanted.length && wanted.every((id) => has.includes(id));
}

const pooledIn = (host: string, { cidr, place, addresses, vlan, groups }: WishedBlock): PooledPort[] =>
  addresses.map((ip) => ({ host, place, ip, ...(vlan === undefined ? {} : { vlan: vlanOf({ cidr, vlan }, ip), groups: groups?.[ip] }) }));

const vlanOf = ({ cidr, vlan }: { readonly cidr: Cidr; readonly vlan: number }, ip: Ip): number =>
  vlan + Number(ipToBigint(ip) - ipToBigint(cidrBase(cidr)));

function attachedOf(ports: readonly NeutronPort[], places: ReadonlyMap<string, { readonly trunk: string }>): Attached[] {
  const attached = ports.flatMap(({ id }) => {
    const place = places.get(id);
    return place === undefined ? [] : [{ id, trunk: place.trunk }];
  });
  return [...Map.groupBy(attached, ({ trunk }) => trunk)].map(([trunk, those]) => ({ trunk, ports: those.map(({ id }) => id) }));
}

const firstVlan = 2;
const lastVlan = 4094;

const vlansOf = ({ cidr, vlan }: Pick<Block, 'cidr' | 'vlan'>): number[] =>
  vlan === undefined ? [] : Array.from({ length: Number(cidrSize(cidr)) }, (_, index) => vlan + index);

/** The first of as many VLANs in a row as the block has addresses, which nobody uses in that trunk. Fault `exhausted`. */
export function chooseVlan(cidr: Cidr, trunk: NeutronPort['trunk'] & {}, others: readonly Pick<Block, 'cidr' | 'vlan'>[]): number {
  const used = new Set([...trunk.subPorts.map(({ vlan }) => vlan), ...others.flatMap(vlansOf)]);
  const size = Number(cidrSize(cidr));
  for (let first = firstVlan, vlan = first; vlan <= lastVlan; vlan++) {
    if (used.has(vlan)) first = vlan + 1;
    else if (vlan - first + 1 === size) return first;
  }
  throw new Fault('exhausted', `Trunk ${trunk.id} has no ${size} VLANs in a row left`, {
    hint: 'Make the blocks of the network smaller (--block-length)',
  });
}

/**
 * The body by which it is made: a sub-port in groups of its own, another one in the hosts'. Its MAC is the container's; of one that is a
 * pair instances see the host's, which answers for it.
 */
export function bodyOfPooled({ name, group }: Naming, { host, place, ip, vlan, groups }: PooledPort): object {
  const body = {
    name: `causeway-${host}`.slice(0, 255),
    network_id: place.network,
    fixed_ips: [{ subnet_id: familyOf(ip) === 6 ? (place.subnet6 ?? place.subnet) : place.subnet, ip_address: ip }],
    mac_address: endpointMac(ip),
  };
  if (vlan === undefined) {
    const owned = { device_owner: portOwner, device_id: deviceOf(name, host), description: `Kept for a container on ${host}` };
    return { ...body, security_groups: [group()], ...owned };
  }
  const chosen = groups ?? place.groups;
  return { ...body, ...(chosen === undefined ? {} : { security_groups: chosen }), description: descriptionOf(name, { host, groups }) };
}

export const descriptionOf = (name: string, { host, groups }: Pick<PooledPort, 'host' | 'groups'>): string =>
  groups === undefined ? deviceOf(name, host) : `${deviceOf(name, host)}${choice}`;

/** Of the installation, and id of its hosts' group. */
interface Naming {
  readonly name: string;
  readonly group: () => string;
}

export async function regroup(
  neutron: Neutron,
  name: string,
  { id, port }: { readonly id: string; readonly port: PooledPort },
): Promise<void> {
  const groups = port.groups ?? port.place.groups ?? (await findGroups(neutron, ['default']));
  await neutron.update('ports', { id }, { security_groups: groups, description: descriptionOf(name, port) });
}

/** Of groups by name or id. Faults: `not-found` (a group, or the port itself), `invalid` when several groups have the name. */
export async function regroupStep(
  neutron: Neutron,
  name: string,
  { groups, ...port }: Omit<PooledPort, 'vlan'>,
): Promise<PooledStep & { readonly type: 'regroup-port' }> {
  const ids = groups === undefined ? undefined : await findGroups(neutron, groups);
  const found = await neutron.list('ports', { network_id: port.place.network, fixed_ips: `ip_address=${port.ip}` });
  const own = found.find((one) => isPooled(name, one));
  if (own === undefined) throw new Fault('not-found', `Address ${port.ip} of host ${port.host} has no port in the cloud`);
  return { type: 'regroup-port', id: own.id, port: { ...port, groups: ids } };
}

const subPort = (id: string, vlan: number): SubPort => ({ port_id: id, segmentation_type: 'vlan', segmentation_id: vlan });

/** Whoever is interrupted leaves ports that the next plan attaches or removes. */
export async function changePool(neutron: Neutron, step: PooledStep, { name, group }: Naming): Promise<void> {
  if (step.type === 'remove-ports') {
    for (const { trunk, ports } of step.attached)
      await neutron.setSubPorts(
        trunk,
        ports.map((id) => subPort(id, 0)),
        'removed',
      );
    await inLanes(step.ports, ({ id }) => neutron.remove('ports', { id }));
    return;
  }
  if (step.type === 'regroup-port') return regroup(neutron, name, step);
  if (step.type === 'attach-ports')
    return neutron.setSubPorts(
      step.trunk,
      step.ports.map(({ id, vlan }) => subPort(id, vlan)),
      'added',
    );
  const made = await neutron.createAll(
    'ports',
    step.ports.map((port) => bodyOfPooled({ name, group }, port)),
  );
  if (step.trunk === undefined) return;
  const vlans = new Map(step.ports.map(({ ip, vlan }) => [ip, vlan]));
  const subPorts = made.flatMap(({ id, addresses }) => {
    const vlan = ipsOf({ addresses })
      .map((ip) => vlans.get(ip))
      .find((one) => one !== undefined);
    return vlan === undefined ? [] : [subPort(id, vlan)];
  });
  await neutron.setSubPorts(step.trunk, subPorts, 'added');
}

/**
 * Faults: `not-found`, `invalid` when a name is not unique or the network has no single subnet of a family, `forbidden` where the
 * network is another project's, and as Neutron's.
 */
export async function findSubnets(neutron: Neutron, asked: NeutronRequest, families: readonly Family[]): Promise<FoundPlace> {
  const network = named(await neutron.list('networks'), asked.network, 'network');
  await mustBeOwn(neutron, network);
  const all = await neutron.list('subnets', { network_id: network.id });
  const found = families.map((family) =>
    subnetOf(all, { family, network: network.name || network.id, wanted: asked[options[family].field] }),
  );
  const [first, second] = found;
  if (first === undefined) throw new TypeError('Broken invariant: no family was asked for');
  const groups = asked.groups === undefined ? {} : { groups: await findGroups(neutron, asked.groups) };
  return {
    place: {
      network: network.id,
      subnet: first.id,
      ...(second === undefined ? {} : { subnet6: second.id }),
      // Of clouds that do not know it is 0.
      ...(network.mtu === 0 ? {} : { mtu: network.mtu }),
      ...groups,
    },
    subnets: found.map(({ cidr, gateway }) => ({ cidr: parseCidr(cidr), ...(gateway === undefined ? {} : { gateway: parseIp(gateway) }) })),
  };
}

/** How a network is carried is told to administrators only, and they may make any port. */
export const takesChosenPorts = ({ projectId, type }: NeutronNetwork, project: string): boolean =>
  type !== undefined || projectId === project;

async function mustBeOwn(neutron: Neutron, network: NeutronNetwork): Promise<void> {
  if (takesChosenPorts(network, await neutron.project())) return;
  const { name, id } = network;
  throw new Fault('forbidden', `Network ${name || id} of the cloud is another project's, which alone may choose addresses of ports there`, {
    field: 'neutron.network',
    hint: 'Name a network of your own project; a router between the two leads to the other one',
  });
}

const options = {
  4: { field: 'subnet', hint: 'Name one of IPv4: --neutron-subnet, with Docker -o neutron.subnet=NAME' },
  6: { field: 'subnet6', hint: 'Name one of IPv6: --neutron-subnet6, with Docker -o neutron.subnet6=NAME' },
} as const;

interface Asked {
  readonly family: Family;
  readonly network: string;
  readonly wanted: string | undefined;
}

function subnetOf(all: readonly NeutronSubnet[], { family, network, wanted }: Asked): NeutronSubnet {
  const usable = all.filter(({ cidr }) => familyOf(parseCidr(cidr)) === family);
  const [subnet, other] = wanted === undefined ? usable : [named(all, wanted, 'subnet')];
  if (subnet !== undefined && other === undefined && usable.includes(subnet)) return subnet;
  const names = usable.map(({ name, id }) => name || id).join(', ');
  const what = usable.length > 1 ? `several subnets of IPv${family}: ${names}` : `no subnet of IPv${family}`;
  const { field, hint } = options[family];
  throw new Fault('invalid', `Network ${network} of the cloud has ${what}`, { field: `neutron.${field}`, hint });
}

async function findGroups(neutron: Neutron, names: readonly string[]): Promise<string[]> {
  const all = await neutron.list('security-groups', { project_id: await neutron.project() });
  return [...new Set(names.map((name) => named(all, name, 'security group').id))];
}

/** Of ports on the subnet that are not ours. Of some clouds' ports one sees only the own project's. */
export async function occupiedOf(neutron: Neutron, name: string, { network, subnet, subnet6 }: NeutronPlace): Promise<Ip[]> {
  const ports = await neutron.list('ports', { network_id: network });
  return ports
    .filter((port) => !isPooled(name, port))
    .flatMap(({ addresses }) =>
      addresses.flatMap(({ ip, subnetId }) => (subnetId === subnet || subnetId === subnet6 ? [parseIp(ip)] : [])),
    );
}
