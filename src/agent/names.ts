// Name service for the networks that are present on this host: one zone per network, answered on sockets that were opened in
// the network's own domain, so that the way in already says whose names may be told.
import { closeSync } from 'node:fs';
import { domainName } from '#model/numbers.ts';
import { familyOf, type Family } from '#model/ip.ts';
import type { Endpoint, LocalEndpoint, Network, Snapshot } from '#model/resources.ts';
import { resolver, resolverPort } from '#drivers/guard.ts';
import { bindUdpInNetns, listenTcpInNetns, netnsIdentity, netnsPath } from '#kernel/netns.ts';
import { isFault } from '#model/fault.ts';
import { embeddedResolver, openInsideForNames } from '#kernel/name-redirect.ts';
import type { DnsOptions, DnsServer, DnsSocket, EngineDoor } from './dns.ts';

export interface NamesOptions {
  readonly server: DnsServer;
  readonly netnsDirectory: string;
  readonly log: (fields: object, message: string) => void;
}

interface Served {
  /** Inode of the namespace that the sockets are in. */
  readonly identity: number | undefined;
  readonly families: string;
}

/** Endpoints by network and id; sorted only when somebody asks. */
class Grouped {
  readonly all: Snapshot['endpoints'];
  #byNetwork: Map<string, Map<string, Endpoint>> | undefined;

  constructor(all: Snapshot['endpoints']) {
    this.all = all;
  }

  of(network: string): ReadonlyMap<string, Endpoint> {
    this.#byNetwork ??= this.#group();
    return this.#byNetwork.get(network) ?? noEndpoints;
  }

  #group(): Map<string, Map<string, Endpoint>> {
    const groups = new Map<string, Map<string, Endpoint>>();
    for (const [id, endpoint] of this.all) {
      const group = groups.get(endpoint.network);
      if (group === undefined) groups.set(endpoint.network, new Map([[id, endpoint]]));
      else group.set(id, endpoint);
    }
    return groups;
  }
}

const noEndpoints: ReadonlyMap<string, Endpoint> = new Map();

export class Names implements Disposable {
  readonly #options: NamesOptions;
  readonly #served = new Map<string, Served>();
  #grouped: Grouped | undefined;

  constructor(options: NamesOptions) {
    this.#options = options;
  }

  /** After every run of the loop, when the domains of `present` exist. Idempotent; unchanged zones cost nothing. */
  update(snapshot: Snapshot, present: readonly Network[]): void {
    if (this.#grouped?.all !== snapshot.endpoints) this.#grouped = new Grouped(snapshot.endpoints);
    const grouped = this.#grouped;
    const pools = Map.groupBy(snapshot.pools.values(), ({ network }) => network);
    const wanted = new Set(present.map(({ id }) => id));
    for (const id of this.#served.keys()) if (!wanted.has(id)) this.#stop(id);
    for (const network of present) {
      const ranges = (pools.get(network.id) ?? []).map(({ cidr }) => cidr);
      const families = [...new Set(ranges.map(familyOf))].toSorted((a, b) => a - b);
      const wish = this.#wish(network, families);
      const before = this.#served.get(network.id);
      const stale = before !== undefined && (before.identity !== wish.identity || before.families !== wish.families);
      // The domain has been made anew, or a family was added: the old sockets hear nothing.
      if (stale) this.#stop(network.id);
      this.#options.server.setZone(network.id, {
        name: network.name,
        isInternal: network.internal,
        pools: ranges,
        get endpoints() {
          return grouped.of(network.id);
        },
      });
      if (before === undefined || stale) this.#listen(network, families, wish);
    }
  }

  [Symbol.dispose](): void {
    for (const id of this.#served.keys()) this.#stop(id);
  }

  #stop(id: string): void {
    this.#served.delete(id);
    this.#options.server.remove(id);
  }

  /** What the network's sockets must belong to now. */
  #wish(network: Network, families: readonly Family[]): Served & { readonly path: string } {
    const path = network.choices.domain === 'own' ? netnsPath(domainName(network.id), this.#options.netnsDirectory) : '/proc/self/ns/net';
    return { path, identity: netnsIdentity(path), families: families.join(' ') };
  }

  /** Opens the network's sockets inside its domain. */
  #listen(network: Network, families: readonly Family[], wish: Served & { readonly path: string }): void {
    const { server, log } = this.#options;
    const sockets: DnsSocket[] = [];
    try {
      for (const family of families) {
        const binding = { ip: resolver[family], port: resolverPort(network) };
        sockets.push(
          { fd: bindUdpInNetns(wish.path, binding), protocol: 'udp', family },
          { fd: listenTcpInNetns(wish.path, binding), protocol: 'tcp', family },
        );
      }
    } catch (error) {
      for (const { fd } of sockets) closeSync(fd);
      log({ network: network.name, error: error instanceof Error ? error.message : error }, 'cannot open name service sockets');
      return;
    }
    this.#served.set(network.id, wish);
    server.listen(network.id, sockets).catch((error: unknown) => {
      this.#served.delete(network.id);
      log({ network: network.name, error }, 'name service sockets failed');
    });
  }
}

const askerOf = (local: readonly LocalEndpoint[], network: string, client: string): LocalEndpoint | undefined =>
  local.find(({ endpoint }) => endpoint.network === network && endpoint.addresses.some((ip) => ip === client));

/** The other networks of the container that has address `client` in `network`. */
export function companionsOf(local: readonly LocalEndpoint[], network: string, client: string): string[] {
  const asker = askerOf(local, network, client);
  if (asker?.sandbox === undefined) return [];
  return local
    .filter(({ endpoint, sandbox }) => sandbox === asker.sandbox && endpoint.network !== network)
    .map(({ endpoint }) => endpoint.network);
}

/** The resolver of the engine of the container that has address `client` in `network`, if its questions come here first. */
function engineResolver(local: readonly LocalEndpoint[], network: string, client: string): EngineDoor | undefined {
  const { sandbox, answersFirst } = askerOf(local, network, client) ?? {};
  if (sandbox === undefined || answersFirst !== true) return undefined;
  return () => {
    try {
      return { fd: openInsideForNames(sandbox), address: embeddedResolver, port: 53 };
    } catch (error) {
      if (isFault(error)) return undefined;
      throw error;
    }
  };
}

/** What the name server asks about its clients. */
export const clientsOf = (local: () => readonly LocalEndpoint[]): Required<Pick<DnsOptions, 'companions' | 'engine'>> => ({
  companions: (network, client) => companionsOf(local(), network, client),
  engine: (network, client) => engineResolver(local(), network, client),
});
