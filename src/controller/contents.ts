// Which pools, blocks, endpoints and exposures belong to a network, and which hosts take part in it (by an endpoint, a block
// or a loan). Kept from the mirror's changes, because lists, deletion and each watching host's filter ask for it all the time.
import { assertNever } from '#model/fault.ts';
import type { ResourceKind, Resources } from '#model/resources.ts';
import type { Change } from './mirror.ts';

export type ContentKind = 'pools' | 'blocks' | 'endpoints' | 'exposures';
type Tables = { readonly [K in ContentKind]: Map<string, Resources[K]> };

interface NetworkContents {
  readonly tables: Tables;
  /** Host to the number of its endpoints, blocks and loans here. */
  readonly hosts: Map<string, number>;
}

/** Hosts that now begin or cease to take part in a network. */
export interface Participation {
  readonly gained: readonly string[];
  readonly lost: readonly string[];
}

const nothing: Participation = { gained: [], lost: [] };
const emptyTables = (): Tables => ({ pools: new Map(), blocks: new Map(), endpoints: new Map(), exposures: new Map() });

const hostsOf = (kind: ResourceKind, item: Change['after']): string[] => {
  if (item === undefined) return [];
  if (kind === 'endpoints' && 'sequence' in item) return [item.host];
  if (kind === 'blocks' && 'loans' in item) return [item.host, ...item.loans.map(({ host }) => host)];
  return [];
};

export const networkOf = (item: Exclude<Change['after'], undefined>): string | undefined => ('network' in item ? item.network : undefined);

export class Contents {
  readonly #networks = new Map<string, NetworkContents>();

  of<K extends ContentKind>(network: string, kind: K): ReadonlyMap<string, Resources[K]> {
    return this.#networks.get(network)?.tables[kind] ?? emptyTables()[kind];
  }

  takesPart(host: string, network: string): boolean {
    return this.#networks.get(network)?.hosts.has(host) ?? false;
  }

  hosts(network: string): Iterable<string> {
    return this.#networks.get(network)?.hosts.keys() ?? [];
  }

  networksOf(host: string): string[] {
    return [...this.#networks].filter(([, { hosts }]) => hosts.has(host)).map(([network]) => network);
  }

  apply(change: Change): Participation {
    switch (change.kind) {
      case 'pools':
        return this.#set('pools', change.id, change.before, change.after);
      case 'blocks':
        return this.#set('blocks', change.id, change.before, change.after);
      case 'endpoints':
        return this.#set('endpoints', change.id, change.before, change.after);
      case 'exposures':
        return this.#set('exposures', change.id, change.before, change.after);
      case 'tenants':
      case 'hosts':
      case 'networks':
      case 'bgp':
      case 'secrets':
        return nothing;
      default:
        return assertNever(change);
    }
  }

  /** A resource never changes its network. */
  #set<K extends ContentKind>(kind: K, id: string, before: Resources[K] | undefined, after: Resources[K] | undefined): Participation {
    const network = (after ?? before)?.network;
    if (network === undefined) return nothing;
    const contents = this.#networks.get(network) ?? { tables: emptyTables(), hosts: new Map<string, number>() };
    this.#networks.set(network, contents);
    const table = contents.tables[kind];
    if (after === undefined) table.delete(id);
    else table.set(id, after);
    const participation = count(contents.hosts, hostsOf(kind, before), hostsOf(kind, after));
    if (contents.hosts.size === 0 && Object.values(contents.tables).every(({ size }) => size === 0)) this.#networks.delete(network);
    return participation;
  }
}

function count(counts: Map<string, number>, less: readonly string[], more: readonly string[]): Participation {
  const touched = new Set([...less, ...more]);
  const had = new Set([...touched].filter((host) => counts.has(host)));
  for (const host of more) counts.set(host, (counts.get(host) ?? 0) + 1);
  for (const host of less) {
    const left = (counts.get(host) ?? 0) - 1;
    if (left > 0) counts.set(host, left);
    else counts.delete(host);
  }
  return {
    gained: [...touched].filter((host) => counts.has(host) && !had.has(host)),
    lost: [...had].filter((host) => !counts.has(host)),
  };
}
