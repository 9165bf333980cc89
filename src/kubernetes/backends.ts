// Which endpoints a service's connections are led to on one node, as kube-proxy chooses them (pkg/proxy/topology.go,
// CategorizeEndpoints): the ready ones; where none is left those that are ending but still answer (KEP-1669); of the ready ones
// those that hints name for this node or zone, provided that all have hints and some are for here (KEP-2433, KEP-3015).
import { everyAddress } from '#drivers/services.ts';
import { familyOf, type Family, type Ip } from '#model/ip.ts';
import type { Backend, Service } from '#model/resources.ts';
import type { EndpointFacts, ServiceFacts, ServicePort, SliceFacts } from './services.ts';

/** Where the node is that translates. */
export interface NodePlace {
  readonly node: string;
  /** Its label topology.kubernetes.io/zone. */
  readonly zone?: string | undefined;
  /** Whether hosts answer for a load balancer's address on the wire. */
  readonly isAnnounced?: (ip: Ip) => boolean;
}

/** More backends of one service and port are not used: rules and look-ups would go on, but nobody balances that many. */
const mostBackends = 5_000;
/** How many elsewhere are chosen from, ready ones and others each: what is to be sorted at each change of a slice. */
const mostConsidered = 20_000;

interface Candidate {
  readonly endpoint: EndpointFacts;
  readonly backend: Backend;
  /** By which they are ordered. */
  readonly text: string;
}

interface Wanted {
  readonly family: Family;
  /** All that are here are wanted. */
  readonly node: string;
}

/** Terminating, and still serving. */
const isEnding = ({ isServing, isTerminating }: EndpointFacts): boolean => isServing && isTerminating;

/** Which of several entries of one endpoint counts: the readier one, and of equal ones the one that says that it is here. */
const rankOf = (endpoint: EndpointFacts, here: string): number =>
  (endpoint.isReady ? 4 : isEnding(endpoint) ? 2 : 0) + (endpoint.node === here ? 1 : 0);

/**
 * Each endpoint once: while slices are rearranged one may be in two of them, and in slices of others' making for as long as they are
 * there, so the order in which they came must not tell which entry counts.
 */
function candidatesOf(slices: readonly SliceFacts[], { name, protocol }: ServicePort, { family, node }: Wanted): Candidate[] {
  const found = new Map<string, Candidate>();
  const considered = { ready: 0, others: 0 };
  for (const { endpoints, ports } of slices) {
    const target = ports.find((candidate) => candidate.name === name && candidate.protocol === protocol);
    if (target === undefined) continue;
    const { port } = target;
    for (const endpoint of endpoints) {
      const { ip } = endpoint;
      if (familyOf(ip) !== family) continue;
      const sort = endpoint.isReady ? 'ready' : 'others';
      if (considered[sort] >= mostConsidered && endpoint.node !== node) continue;
      considered[sort] += 1;
      const text = `${ip} ${port}`;
      const other = found.get(text);
      if (other === undefined || rankOf(other.endpoint, node) < rankOf(endpoint, node))
        found.set(text, { endpoint, backend: { ip, port }, text });
    }
  }
  return [...found.values()].toSorted((a, b) => (a.text < b.text ? -1 : 1));
}

const ready = (candidates: readonly Candidate[]): Candidate[] => candidates.filter(({ endpoint }) => endpoint.isReady);
const ending = (candidates: readonly Candidate[]): Candidate[] => candidates.filter(({ endpoint }) => isEnding(endpoint));
const usable = (candidates: readonly Candidate[]): Candidate[] => {
  const first = ready(candidates);
  return first.length > 0 ? first : ending(candidates);
};

/** Those that hints name for here; all, when the hints are not for everybody or none of them is for here. */
function near(
  candidates: readonly Candidate[],
  hintsOf: (endpoint: EndpointFacts) => readonly string[] | undefined,
  here: string,
): Candidate[] {
  const isHinted = candidates.every(({ endpoint }) => (hintsOf(endpoint) ?? []).length > 0);
  return isHinted ? candidates.filter(({ endpoint }) => hintsOf(endpoint)?.includes(here)) : [];
}

function preferred(candidates: readonly Candidate[], { node, zone }: NodePlace): readonly Candidate[] {
  const sameNode = near(candidates, ({ forNodes }) => forNodes, node);
  if (sameNode.length > 0) return sameNode;
  const sameZone = zone === undefined ? [] : near(candidates, ({ forZones }) => forZones, zone);
  return sameZone.length > 0 ? sameZone : candidates;
}

const backendsOf = (candidates: readonly Candidate[]): Backend[] => candidates.slice(0, mostBackends).map(({ backend }) => backend);

interface Choice {
  readonly anywhere: readonly Backend[];
  readonly here: readonly Backend[];
}

function choose(candidates: readonly Candidate[], place: NodePlace): Choice {
  const local = candidates.filter(({ endpoint }) => endpoint.node === place.node);
  return { anywhere: backendsOf(preferred(usable(candidates), place)), here: backendsOf(usable(local)) };
}

/** Nodes that may answer for a balanced address: those that would lead connections on. Of all ports, as they share the address. */
function announcersOf({ isExternalLocal }: ServiceFacts, slices: readonly SliceFacts[]): 'every' | readonly string[] {
  if (!isExternalLocal) return 'every';
  const able = slices.flatMap(({ endpoints }) =>
    endpoints.flatMap(({ node, isReady, isServing, isTerminating }) =>
      node !== undefined && (isReady || (isServing && isTerminating)) ? [node] : [],
    ),
  );
  return [...new Set(able)].toSorted();
}

/** One for each address and port of the service, node ports included; backends sorted, each once. */
export function joinService(facts: ServiceFacts, slices: readonly SliceFacts[], place: NodePlace): Service[] {
  const { key, ips, ports, externalIps, balancerIps, sources, isExternalLocal, isInternalLocal, affinitySeconds } = facts;
  const families = ([4, 6] as const).filter((family) => [...ips, ...externalIps, ...balancerIps].some((ip) => familyOf(ip) === family));
  const announcers = announcersOf(facts, slices);
  return ports.flatMap((port) =>
    families.flatMap((family) => {
      const { anywhere, here } = choose(candidatesOf(slices, port, { family, node: place.node }), place);
      const front = (ip: Ip, number: number, more: Pick<Service, 'backends'> & Partial<Service>): Service => ({
        key: `${key} ${ip} ${port.protocol} ${number}`,
        ip,
        protocol: port.protocol,
        port: number,
        ...(affinitySeconds === undefined ? {} : { affinitySeconds }),
        ...more,
      });
      const inside = isInternalLocal
        ? { backends: here, ...(here.length === 0 && anywhere.length > 0 ? { servedElsewhere: true as const } : {}) }
        : { backends: anywhere };
      // Clients on this host are not bound to it: they would be refused where everybody else is served.
      const outside = { backends: anywhere, ...(isExternalLocal ? { outer: here } : {}) };
      const balanced = (ip: Ip): Partial<Service> => ({
        ...(sources === undefined ? {} : { sources }),
        ...(place.isAnnounced?.(ip) === true ? { announcers } : {}),
      });
      const of = (some: readonly Ip[]): Ip[] => some.filter((ip) => familyOf(ip) === family);
      const isServed = ips.some((ip) => familyOf(ip) === family);
      return [
        ...of(ips).map((ip) => front(ip, port.port, { ...inside, refusesOthers: true })),
        ...of(externalIps).map((ip) => front(ip, port.port, outside)),
        ...of(balancerIps).map((ip) => front(ip, port.port, { ...outside, ...balanced(ip) })),
        ...(port.nodePort === undefined || !isServed ? [] : [front(everyAddress[family], port.nodePort, outside)]),
      ];
    }),
  );
}

/** How many endpoints of the service are ready on the node, whatever their family: what its health-check port tells. */
export function localEndpoints(slices: readonly SliceFacts[], { node }: NodePlace): number {
  const ips = slices.flatMap(({ endpoints }) =>
    endpoints.filter((endpoint) => endpoint.isReady && endpoint.node === node).map(({ ip }) => ip),
  );
  return new Set(ips).size;
}
