// Where an agent has the policies for its host from, and which endpoints they are about.
import type { OwnedAddresses, PolicyFacts } from '#model/policy.ts';
import type { LocalEndpoint, Snapshot } from '#model/resources.ts';

export interface PolicySource {
  /** For these endpoints of the host; undefined where nobody has any policy. The same value for as long as nothing has changed. */
  current(local: readonly OwnedAddresses[]): PolicyFacts | undefined;
  /** Id of the network that they are about, beside those in its place; absent: all that hosts route. */
  readonly network?: string;
  /** Whether that is all there is, as listings have said. */
  isSynced(): boolean;
}

/** What a runtime calls the link with the container's own address; no further network may have that name. */
const firstLink = 'eth0';

/**
 * Those that the host itself routes: between the endpoints of other networks stands the domain. Of networks other than `only` those
 * that are their containers' first are bound; the others have to be known as well, as what nobody knows is closed.
 */
export const guarded = ({ networks }: Snapshot, local: readonly LocalEndpoint[], only?: string): OwnedAddresses[] =>
  local
    .filter(({ endpoint }) => networks.get(endpoint.network)?.choices.domain === 'host')
    .flatMap(({ endpoint: { network, owner, addresses }, ownerId, sandbox, ifname }): OwnedAddresses[] => {
      const owned = { owner, ...(ownerId === undefined ? {} : { ownerId }), addresses };
      if (only === undefined || network === only) return [owned];
      // Before it is in the container nobody can say which it is, and it has no link.
      if (sandbox === undefined || ifname === undefined) return [];
      return [{ ...owned, ...(ifname === firstLink ? {} : { isFree: true }) }];
    });
