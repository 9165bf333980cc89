// Where an agent has the policies for its host from, and which endpoints they are about.
import type { OwnedAddresses, PolicyFacts } from '#model/policy.ts';
import type { LocalEndpoint, Snapshot } from '#model/resources.ts';

export interface PolicySource {
  /** For these endpoints of the host; undefined where nobody has any policy. The same value for as long as nothing has changed. */
  current(local: readonly OwnedAddresses[]): PolicyFacts | undefined;
  /** Whether that is all there is, as listings have said. */
  isSynced(): boolean;
}

/** Those that the host itself routes: between the endpoints of other networks stands the domain. */
export const guarded = ({ networks }: Snapshot, local: readonly LocalEndpoint[]): OwnedAddresses[] =>
  local
    .filter(({ endpoint }) => networks.get(endpoint.network)?.choices.domain === 'host')
    .map(({ endpoint: { owner, addresses } }) => ({ owner, addresses }));
