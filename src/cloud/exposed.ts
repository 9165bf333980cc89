// What of the wish is for exposures and for a cluster's services: what leads to them (floating IPs, load balancers, addresses that move
// between hosts), and what hosts let in by their ports. Pure.
import type { NodePort, ServiceBalancer } from '#model/cloud-services.ts';
import { type Cidr, type Family, familyOf } from '#model/ip.ts';
import { virtualPort } from '#model/numbers.ts';
import type { Endpoint, Exposure, Host } from '#model/resources.ts';
import { directions, ethertypes, fewest } from './rules.ts';
import type { CloudFacts, WishedBalancer, WishedFloatingIp, WishedListener, WishedRule, WishedVirtual } from './wish.ts';

const numbers = { tcp: 6, udp: 17, sctp: 132 } as const;

/** Several where containers share an alias; in an order that stays. */
function hostsOf({ network, endpoint }: Exposure, { endpoints, hosts }: CloudFacts): Host[] {
  const names = (one: Endpoint): boolean => one.name === endpoint || one.names.includes(endpoint);
  const ids = new Set(endpoints.filter((one) => one.network === network && names(one)).map(({ host }) => host));
  return hosts.filter(({ id }) => ids.has(id)).toSorted((a, b) => (a.id < b.id ? -1 : 1));
}

export const floatingOf = (facts: CloudFacts): WishedFloatingIp[] =>
  facts.exposures.flatMap((exposure) => {
    const { id, name, floatingIp: wanted, loadBalancer, virtualIp } = exposure;
    return wanted === undefined || loadBalancer !== undefined || virtualIp !== undefined
      ? []
      : [{ id, kind: 'Exposure', name, wanted, hosts: targetsOf(exposure, facts) }];
  });

/** No name has a slash. */
const keyOfVirtual = ({ network, endpoint, family }: Exposure): string => `${network}.${endpoint}${family === undefined ? '' : '/6'}`;

export function virtualOf(facts: CloudFacts): WishedVirtual[] {
  const wanted = facts.exposures.filter(({ virtualIp, loadBalancer }) => virtualIp !== undefined && loadBalancer === undefined);
  const together = Map.groupBy(wanted, keyOfVirtual);
  return [...together.keys()].toSorted().flatMap((key): WishedVirtual[] => {
    const exposures = together.get(key) ?? [];
    const [first] = exposures;
    if (first === undefined) return [];
    const network = facts.networks.find(({ id }) => id === first.network)?.name ?? first.network;
    const { family = 4 } = first;
    return [
      {
        key,
        what: `${first.endpoint} of ${network}${family === 4 ? '' : ' by IPv6'}`,
        family,
        exposures: exposures.map(({ id }) => id).toSorted(),
        floating: exposures.flatMap(({ id, name, floatingIp }) =>
          floatingIp === undefined ? [] : [{ id, kind: 'Exposure' as const, name, wanted: floatingIp, hosts: [] }],
        ),
        hosts: targetsOf(first, facts, family),
        without: withoutAddress(first, facts),
      },
    ];
  });
}

/** By which hosts settle among themselves who has an address: from the address that each prefers. */
export function talkOf(virtual: readonly WishedVirtual[], hosts: readonly Host[]): WishedRule[] {
  if (virtual.length === 0) return [];
  const families = new Set(hosts.flatMap(({ underlay }) => underlay.slice(0, 1)).map(({ ip }) => familyOf(ip)));
  const why = 'which host has a virtual address';
  return [...families].flatMap((family) =>
    directions.map((direction): WishedRule => ({
      direction,
      ethertype: ethertypes[family],
      protocol: 17,
      port: virtualPort,
      remote: 'hosts',
      why,
    })),
  );
}

export const balancersOf = (facts: CloudFacts): WishedBalancer[] => [
  ...facts.exposures.flatMap((exposure) => {
    const { id, name, protocol, port, hostPort, loadBalancer, family, floatingIp = 'auto', sources, provider } = exposure;
    if (loadBalancer === undefined) return [];
    return [
      {
        id,
        kind: 'Exposure' as const,
        name,
        listeners: [{ protocol, port, hostPort, monitor: {} }],
        family: family ?? (4 as const),
        sources,
        ...(provider === undefined ? {} : { provider }),
        hosts: targetsOf(exposure, facts, family),
        without: withoutAddress(exposure, facts),
        ...(loadBalancer === 'public' && family === undefined ? { floating: { wanted: floatingIp } } : {}),
      },
    ];
  }),
  ...(facts.services ?? []).map((service) => balancerOfService(service, facts.hosts)),
];

function balancerOfService(wanted: ServiceBalancer, all: readonly Host[]): WishedBalancer {
  const {
    id,
    service,
    family = 4,
    ports,
    sources,
    floating,
    place,
    shared,
    memberSubnet,
    monitor,
    hosts: leading,
    proxy,
    notPassed,
  } = wanted;
  const listeners = ports.map(({ protocol, port, nodePort }): WishedListener => ({
    protocol,
    port,
    hostPort: nodePort,
    ...(monitor === undefined ? {} : { monitor }),
  }));
  return {
    id,
    kind: 'Service',
    name: service,
    listeners,
    place,
    family,
    sources,
    ...(shared === undefined ? {} : { shared }),
    ...(memberSubnet === undefined ? {} : { memberSubnet }),
    ...(proxy === undefined ? {} : { proxy }),
    ...(notPassed === undefined ? {} : { notPassed }),
    hosts: withAddresses(
      all.filter((host) => leading === undefined || leading.includes(host.id)),
      family,
    ),
    ...(floating === undefined ? {} : { floating }),
  };
}

const targetsOf = (exposure: Exposure, facts: CloudFacts, family?: Family): WishedVirtual['hosts'] =>
  withAddresses(hostsOf(exposure, facts), family);

/** Names of hosts that have the container, and no address of the family by which it is to be reached. */
const withoutAddress = (exposure: Exposure, facts: CloudFacts): string[] =>
  hostsOf(exposure, facts)
    .filter(({ underlay }) => !underlay.some(({ ip }) => familyOf(ip) === (exposure.family ?? 4)))
    .map(({ name }) => name);

const withAddresses = (hosts: readonly Host[], family: Family = 4): WishedVirtual['hosts'] =>
  hosts.flatMap(({ id, name: host, underlay }) => {
    const address = underlay.find(({ ip }) => familyOf(ip) === family)?.ip;
    return address === undefined ? [] : [{ id, host, address }];
  });

const nodePortRule = ({ service, protocol, port }: Omit<NodePort, 'sources'>, family: Family, remote?: Cidr): WishedRule => ({
  direction: 'ingress',
  ethertype: ethertypes[family],
  protocol: numbers[protocol],
  port,
  remote,
  why: `service ${service}`,
});
const forBalancer = (rule: WishedRule, balancer: string): WishedRule => ({ ...rule, balancer });

/** Of every host alike, so their number is that of ports and not of hosts. */
export function nodePortRules({ nodePorts = [], services = [] }: CloudFacts): WishedRule[] {
  const opened = nodePorts.flatMap((one) => one.sources.map((source) => nodePortRule(one, familyOf(source), source)));
  const balanced = services.flatMap(({ id, service, family = 4, ports, sources }) =>
    ports.flatMap(({ protocol, nodePort: port }) => {
      const rules =
        sources.length > 0
          ? sources.map((source) => nodePortRule({ service, protocol, port }, familyOf(source), source))
          : [nodePortRule({ service, protocol, port }, family)];
      return rules.map((rule) => forBalancer(rule, id));
    }),
  );
  return fewest([...opened, ...balanced]);
}

/** Of several with one meaning the last counts: one that is not for an address that moves. */
export function openingsOf(facts: CloudFacts): { host: string; rule: WishedRule }[] {
  const all = facts.exposures.flatMap((exposure) => hostsOf(exposure, facts).flatMap((host) => openingsOn(host, exposure)));
  return all.toSorted((a, b) => Number(a.rule.virtual === undefined) - Number(b.rule.virtual === undefined));
}

function openingsOn(host: Host, exposure: Exposure): { host: string; rule: WishedRule }[] {
  const why = `exposure ${exposure.name}`;
  const isMoving = exposure.virtualIp !== undefined && exposure.loadBalancer === undefined;
  const rule = (family: Family, remote: Cidr | undefined): WishedRule => ({
    direction: 'ingress',
    ethertype: ethertypes[family],
    protocol: numbers[exposure.protocol],
    port: exposure.hostPort,
    remote,
    why,
    ...(isMoving ? { virtual: keyOfVirtual(exposure) } : {}),
    ...(exposure.loadBalancer === undefined ? {} : { balancer: exposure.id }),
  });
  const { family: own = 4, sources } = exposure;
  const families = new Set<Family>(isMoving ? [own] : host.underlay.map(({ ip }) => familyOf(ip)));
  const rules =
    sources.length > 0
      ? sources.map((source) => rule(familyOf(source), source)).filter(({ ethertype }) => !isMoving || ethertype === ethertypes[own])
      : [...families].map((family) => rule(family, undefined));
  return rules.map((one) => ({ host: host.id, rule: one }));
}
