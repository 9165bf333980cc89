// Published ports and exposures: which port of this host leads to which endpoint, as elements of the host table's maps.
// Endpoints of isolated networks are reached through their transit address, others directly; the client's address is kept.
import { type Cidr, everything, familyOf, type Family, type Ip } from '#model/ip.ts';
import { disjoint } from '#model/ranges.ts';
import type { NftElement } from '#model/desired.ts';
import { tableName, transitAddress } from '#model/numbers.ts';
import type { Endpoint, Exposure, LocalEndpoint, Network, Protocol } from '#model/resources.ts';

export interface LocalAttachment extends LocalEndpoint {
  readonly network: Network;
}

interface Opening {
  readonly protocol: Protocol;
  readonly hostIp?: Ip | undefined;
  readonly hostPort: number;
  readonly port: number;
  readonly sources: readonly Cidr[];
}

/** Whether it is the endpoint that the exposure means. */
export const names = (endpoint: Endpoint, exposure: Exposure): boolean =>
  endpoint.name === exposure.endpoint || endpoint.names.includes(exposure.endpoint);

function openingsOf({ network, endpoint }: LocalAttachment, exposures: readonly Exposure[]): Opening[] {
  const exposed = exposures.filter((exposure) => exposure.network === network.id && names(endpoint, exposure));
  return [...endpoint.ports.map((port) => ({ ...port, sources: [] })), ...exposed.flatMap(openingOf)];
}

/** By an address that moves between hosts only there, so not at all while the cloud has none. */
function openingOf({ virtualIp, balancerRanges, ...opening }: Exposure): Opening[] {
  if (virtualIp === undefined) return [{ ...opening, sources: balancerRanges ?? opening.sources }];
  return virtualIp.ip === undefined ? [] : [{ ...opening, hostIp: virtualIp.ip }];
}

/** Where a packet for the endpoint goes on this host: its transit address, or itself where the host routes it. */
function targetOf({ network, endpoint, slot }: LocalAttachment, family: Family): Ip | undefined {
  const address = endpoint.addresses.find((ip) => familyOf(ip) === family);
  if (address === undefined || network.choices.domain !== 'own') return address;
  return transitAddress(slot, family);
}

const set = (name: string, key: string, value?: string): NftElement => ({
  netns: '',
  table: tableName,
  set: name,
  key,
  ...(value === undefined ? {} : { value }),
});

const serviceOf = ({ protocol, hostPort }: Opening): string => `${protocol} . ${hostPort}`;
const isEverywhere = ({ hostIp }: Opening): boolean => hostIp === undefined || hostIp === '0.0.0.0' || hostIp === '::';

function elementsOf(attachment: LocalAttachment, opening: Opening): NftElement[] {
  const service = serviceOf(opening);
  const wanted: readonly Family[] = opening.hostIp === undefined ? [4, 6] : [familyOf(opening.hostIp)];
  return wanted.flatMap((family) => {
    const target = targetOf(attachment, family);
    if (target === undefined) return [];
    const value = `${target} . ${opening.port}`;
    return [
      isEverywhere(opening)
        ? set(`published_any${family}`, service, value)
        : set(`published${family}`, `${opening.hostIp} . ${service}`, value),
    ];
  });
}

/** Who may come to a port of every address. */
function clientsOf(openings: readonly Opening[]): NftElement[] {
  return [...Map.groupBy(openings, serviceOf)].flatMap(([service, ofService]) => {
    const sources = disjoint(ofService.flatMap((opening) => opening.sources));
    if (sources.length === 0) return [];
    return [set('restricted', service), ...sources.map((source) => set(`sources${familyOf(source)}`, `${service} . ${source}`))];
  });
}

/** Who may come to a port of one address: not by what is said of the same port of others, so of `restricted` services it is always said. */
function clientsOfAddresses(openings: readonly Opening[], restricted: ReadonlySet<string>): NftElement[] {
  return [...Map.groupBy(openings, ({ hostIp }) => hostIp)].flatMap(([ip, ofAddress]) => {
    if (ip === undefined) return [];
    const family = familyOf(ip);
    return [...Map.groupBy(ofAddress, serviceOf)].flatMap(([service, ofService]) => {
      const named = ofService.flatMap((opening) => opening.sources);
      if (named.length === 0 && !restricted.has(service)) return [];
      const sources = named.length === 0 ? [everything[family]] : disjoint(named.filter((source) => familyOf(source) === family));
      const place = `${ip} . ${service}`;
      return [set(`restricted${family}`, place), ...sources.map((source) => set(`clients${family}`, `${place} . ${source}`))];
    });
  });
}

function admissionsOf(openings: readonly Opening[]): NftElement[] {
  const everywhere = clientsOf(openings.filter(isEverywhere));
  const restricted = new Set(everywhere.flatMap((one) => (one.set === 'restricted' ? [one.key] : [])));
  return [
    ...everywhere,
    ...clientsOfAddresses(
      openings.filter((opening) => !isEverywhere(opening)),
      restricted,
    ),
  ];
}

/**
 * Elements for every published port of the local endpoints and every exposure that names one of them. Internal networks
 * publish nothing. When two openings ask for one host port the endpoint with the lower id has it (attaching refuses the second).
 */
export function publish(attachments: readonly LocalAttachment[], exposures: readonly Exposure[]): NftElement[] {
  const taken = new Map<string, NftElement>();
  const openings = attachments
    .filter(({ network }) => !network.internal)
    .flatMap((attachment) => openingsOf(attachment, exposures).map((opening) => ({ attachment, opening })));
  for (const { attachment, opening } of openings) {
    for (const element of elementsOf(attachment, opening)) {
      const key = `${element.set} ${element.key}`;
      if (!taken.has(key)) taken.set(key, element);
    }
  }
  return [...taken.values(), ...admissionsOf(openings.map(({ opening }) => opening))];
}
