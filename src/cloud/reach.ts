// What of a project can be reached from where, read from the cloud's own state, whoever has opened it: rules of security groups,
// ports without port security, floating IPs and what these forward. What lies behind a NAT router is reached from outside by a
// floating IP only; IPv6 is routed as it is (docs.openstack.org/neutron/latest/admin/config-ipv6). Pure.
import { familyOf, parseIp } from '#model/ip.ts';
import type { Fault } from '#model/fault.ts';
import { isOfCauseway, isOfRouter } from './named.ts';
import { virtualOwner } from './virtual.ts';
import type { Listener, LoadBalancer } from './octavia-schemas.ts';
import type { FloatingIp, NeutronNetwork, NeutronPort, NeutronRouter, SecurityGroup, SecurityGroupRule } from './neutron-schemas.ts';

export interface ReachState {
  readonly ports: readonly NeutronPort[];
  /** Also those of other projects that are shared with this one. */
  readonly groups: readonly SecurityGroup[];
  readonly floatingIps: readonly FloatingIp[];
  readonly routers: readonly NeutronRouter[];
  readonly networks: readonly NeutronNetwork[];
  readonly balancers: readonly { readonly balancer: LoadBalancer; readonly listeners: readonly Listener[] }[];
  /** Why there are none of those; absent: they are all. */
  readonly unread?: Fault;
}

/** `outside`: by addresses that the world may know; `inside`: from networks that the project's routers join. */
export type Scope = 'outside' | 'inside';

export interface Opening {
  readonly scope: Scope;
  /** Names of ports, or their ids where they have none. */
  readonly ports: readonly string[];
  /** Where packets are sent: floating IPs, and addresses of ports where there are none. */
  readonly addresses: readonly string[];
  readonly ethertype: 'IPv4' | 'IPv6';
  /** `tcp`, `udp`, `1` and so on, or `every protocol`. */
  readonly protocol: string;
  /** `80`, `80-90`, or `all`. */
  readonly portRange: string;
  /** A range, `everybody`, or what the members of a group are called. */
  readonly from: string;
  readonly because: string;
  /** Of Causeway, whichever installation. */
  readonly isOurs: boolean;
}

const numbers: Readonly<Record<string, string>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 50: 'esp', 58: 'ipv6-icmp', 132: 'sctp' };
const everything = { protocol: 'every protocol', portRange: 'all', from: 'everybody' };

/** Of routers, DHCP and so on; of OVN's probes of a load balancer's members. */
const isOfCloud = (owner: string): boolean => owner.startsWith('network:') || owner.startsWith('ovn-lb-hm');

/** An address of a load balancer: Octavia's own, and by the name that OVN's provider gives (ovn_octavia_provider/common/constants.py). */
const isOfBalancer = ({ owner, name }: NeutronPort): boolean => owner === 'Octavia' || name.startsWith('ovn-lb-vip-');

/** What one port lets in. Ports of the cloud's own (routers, DHCP) are left out. Those from outside come first, everybody before ranges. */
export function openingsTo(state: ReachState): Opening[] {
  // What a load balancer takes is decided by itself, not by the groups of its port.
  const vips = new Set(state.balancers.map(({ balancer }) => balancer.portId));
  const own = state.ports.filter(({ id, owner }) => !isOfCloud(owner) && !vips.has(id)).map((port) => asItsHosts(port, state));
  const single = [...own.flatMap((port) => distinct(openingsOf(port, state))), ...balanced(state)];
  const together = Map.groupBy(single, ({ ports: _ports, addresses: _addresses, ...rest }) => JSON.stringify(rest));
  return [...together.values()]
    .flatMap((alike) => {
      const [first] = alike;
      if (first === undefined) return [];
      return [
        {
          ...first,
          ports: alike.flatMap(({ ports }) => ports).toSorted(),
          addresses: [...new Set(alike.flatMap(({ addresses }) => addresses))].toSorted(),
        },
      ];
    })
    .toSorted((a, b) => rank(a) - rank(b));
}

/** Several groups of a port may let in the same. */
const distinct = (openings: readonly Opening[]): Opening[] => [...new Map(openings.map((one) => [JSON.stringify(one), one])).values()];

/** What an address that moves between hosts takes is decided by the groups of the host that has it. */
function asItsHosts(port: NeutronPort, { ports }: ReachState): NeutronPort {
  if (port.owner !== virtualOwner) return port;
  const hosts = ports.filter(({ pairs }) => pairs.some((pair) => port.addresses.some(({ ip }) => ip === pair.ip_address)));
  return {
    ...port,
    groups: [...new Set(hosts.flatMap(({ groups }) => groups))],
    portSecurity: hosts.every(({ portSecurity }) => portSecurity),
  };
}

const rank = ({ scope, from }: Opening): number => (scope === 'outside' ? 0 : 2) + (from === 'everybody' ? 0 : 1);

function openingsOf(port: NeutronPort, state: ReachState): Opening[] {
  const name = port.name || port.id;
  return (['IPv4', 'IPv6'] as const).flatMap((ethertype): Opening[] => {
    const { own, floating } = addressesOf(port, state, ethertype);
    if (own.length === 0) return [];
    const base = { ports: [name], ethertype };
    const reached = [
      ...(floating.length === 0 ? [] : [{ ...base, scope: 'outside' as const, addresses: floating }]),
      ...(floating.length > 0 ? [] : [{ ...base, scope: scopeOf(port, state, ethertype), addresses: own }]),
    ];
    const admitted = [...admittedBy(port, state, ethertype)];
    const whole = reached.flatMap((one) => admitted.map((by): Opening => ({ ...one, ...by })));
    return ethertype === 'IPv4' ? [...whole, ...forwarded(port, state, admitted)] : whole;
  });
}

/** OVN's load balancers pass packets on with the clients' addresses, for the members' groups to judge. */
const judgedByMembers = 'whom its members let in';

function balanced(state: ReachState): Opening[] {
  return state.balancers.flatMap(({ balancer, listeners }) => {
    const port = state.ports.find(({ id }) => id === balancer.portId);
    const ethertype = balancer.address.includes(':') ? 'IPv6' : 'IPv4';
    const floating = port === undefined ? [] : addressesOf(port, state, ethertype).floating;
    const inside = port === undefined ? 'inside' : scopeOf(port, state, ethertype);
    return listeners.flatMap(({ protocol, port: number, allowedCidrs, tags }) => {
      const anybody = balancer.provider === 'ovn' ? judgedByMembers : everything.from;
      return (allowedCidrs.length === 0 ? [anybody] : allowedCidrs).map((from): Opening => ({
        scope: floating.length > 0 ? 'outside' : inside,
        ports: [balancer.name || balancer.id],
        addresses: floating.length > 0 ? floating : [balancer.address],
        ethertype,
        protocol: protocol.toLowerCase(),
        portRange: String(number),
        from,
        because: `load balancer${balancer.description === '' ? '' : `: ${balancer.description}`}`,
        isOurs: isOfCauseway(balancer) || isOfCauseway({ tags }),
      }));
    });
  });
}

type Admitted = Pick<Opening, 'protocol' | 'portRange' | 'from' | 'because' | 'isOurs'>;

function addressesOf(port: NeutronPort, { floatingIps }: ReachState, ethertype: Opening['ethertype']) {
  const own = port.addresses.map(({ ip }) => ip).filter((ip) => (familyOf(parseIp(ip)) === 4) === (ethertype === 'IPv4'));
  const floating = floatingIps.filter(({ portId, fixedAddress }) => portId === port.id && own.includes(fixedAddress ?? ''));
  return { own, floating: floating.map(({ address }) => address) };
}

/** Without a floating IP. */
function scopeOf(port: NeutronPort, { networks, ports, routers }: ReachState, ethertype: Opening['ethertype']): Scope {
  if (networks.some(({ id, isExternal }) => id === port.networkId && isExternal)) return 'outside';
  if (ethertype === 'IPv4') return 'inside';
  // A network may have subnets that no router is on.
  const subnets = new Set(port.addresses.filter(({ ip }) => familyOf(parseIp(ip)) === 6).map(({ subnetId }) => subnetId));
  const leading = ports.filter((one) => isOfRouter(one) && one.addresses.some(({ subnetId }) => subnets.has(subnetId)));
  const isRouted = leading.some(({ device }) => routers.some(({ id, externalNetwork }) => id === device && externalNetwork !== undefined));
  return isRouted ? 'outside' : 'inside';
}

function admittedBy(port: NeutronPort, { groups, unread }: ReachState, ethertype: Opening['ethertype']): Admitted[] {
  if (unread !== undefined && isOfBalancer(port))
    return [{ ...everything, because: 'load balancer, of which Octavia does not tell this login', isOurs: false }];
  if (!port.portSecurity) return [{ ...everything, because: 'port security is off', isOurs: false }];
  return port.groups.flatMap((id): Admitted[] => {
    const group = groups.find((one) => one.id === id);
    // What the login may not see may let in anything.
    if (group === undefined) return [{ ...everything, because: `security group ${id}, which this login cannot see`, isOurs: false }];
    const rules = group.rules.filter((rule) => rule.direction === 'ingress' && rule.ethertype === ethertype);
    return rules.map((rule) => admittedByRule(rule, group, groups));
  });
}

function admittedByRule(rule: SecurityGroupRule, group: SecurityGroup, groups: readonly SecurityGroup[]): Admitted {
  const isOurs = isOfCauseway(group) && rule.description.startsWith('causeway: ');
  const whose = rule.description === '' ? '' : `: ${rule.description}`;
  return {
    protocol: rule.protocol === undefined ? everything.protocol : (numbers[rule.protocol] ?? rule.protocol),
    portRange: rangeText(rule),
    from: remoteText(rule, groups),
    because: isOurs ? rule.description.replace('causeway: ', '') : `security group ${group.name || group.id}${whose}`,
    isOurs,
  };
}

function rangeText({ protocol, portMin, portMax }: SecurityGroupRule): string {
  if (portMin === undefined && portMax === undefined) return 'all';
  // Of ICMP these are type and code.
  if (['icmp', '1', 'ipv6-icmp', 'icmpv6', '58'].includes(protocol ?? '')) return `type ${portMin ?? portMax}`;
  return portMin === portMax ? String(portMin) : `${portMin}-${portMax}`;
}

function remoteText({ remoteGroup, remotePrefix, remoteAddressGroup }: SecurityGroupRule, groups: readonly SecurityGroup[]): string {
  if (remoteGroup !== undefined) return `members of ${groups.find(({ id }) => id === remoteGroup)?.name ?? remoteGroup}`;
  if (remoteAddressGroup !== undefined) return `address group ${remoteAddressGroup}`;
  return remotePrefix === undefined || remotePrefix === '0.0.0.0/0' || remotePrefix === '::/0' ? 'everybody' : remotePrefix;
}

/** Single ports of floating IPs, as far as the port lets them in: a forwarding by itself opens nothing. */
function forwarded(port: NeutronPort, { floatingIps }: ReachState, admitted: readonly Admitted[]): Opening[] {
  const own = new Set(port.addresses.map(({ ip }) => ip));
  return floatingIps.flatMap(({ address, forwards }) =>
    forwards
      .filter(({ portId, internalAddress }) => (portId === undefined || portId === port.id) && own.has(internalAddress))
      .flatMap(({ protocol, internalPort, externalPort }) =>
        admitted
          .filter((by) => (by.protocol === protocol || by.protocol === everything.protocol) && holds(by.portRange, internalPort))
          .map(({ from, because, isOurs }): Opening => ({
            scope: 'outside',
            ports: [port.name || port.id],
            addresses: [address],
            ethertype: 'IPv4',
            protocol,
            portRange: String(externalPort),
            from,
            because: `forwarded to port ${internalPort}; ${because}`,
            isOurs,
          })),
      ),
  );
}

function holds(range: string, port: number): boolean {
  if (range === 'all') return true;
  const [low = '', high = low] = range.split('-');
  return Number(low) <= port && port <= Number(high);
}
