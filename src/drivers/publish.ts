// Published ports and exposures: which port of this host leads to which endpoint, as elements of the host table's maps.
// Endpoints of isolated networks are reached through their transit address, others directly; the client's address is kept.
import { type Cidr, covers, familyOf, type Family, type Ip } from '#model/ip.ts';
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

function elementsOf(attachment: LocalAttachment, opening: Opening): NftElement[] {
  const service = `${opening.protocol} . ${opening.hostPort}`;
  const unspecified = opening.hostIp === undefined || opening.hostIp === '0.0.0.0' || opening.hostIp === '::';
  const wanted: readonly Family[] = opening.hostIp === undefined ? [4, 6] : [familyOf(opening.hostIp)];
  const mappings = wanted.flatMap((family) => {
    const target = targetOf(attachment, family);
    if (target === undefined) return [];
    const value = `${target} . ${opening.port}`;
    return [
      unspecified ? set(`published_any${family}`, service, value) : set(`published${family}`, `${opening.hostIp} . ${service}`, value),
    ];
  });
  return opening.sources.length === 0 ? mappings : [...mappings, set('restricted', service)];
}

/** Who may come to a service. Ranges of one set must not overlap (nf_tables, EEXIST), and one inside of another adds nothing to it. */
function sourcesOf(openings: readonly Opening[]): NftElement[] {
  const byService = Map.groupBy(openings, ({ protocol, hostPort }) => `${protocol} . ${hostPort}`);
  return [...byService].flatMap(([service, ofService]) => {
    const sources = [...new Set(ofService.flatMap((opening) => opening.sources))];
    return sources
      .filter((source) => !sources.some((other) => other !== source && covers(other, source)))
      .map((source) => set(`sources${familyOf(source)}`, `${service} . ${source}`));
  });
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
  return [...taken.values(), ...sourcesOf(openings.map(({ opening }) => opening))];
}
