// Where an agent has the policies for its host from, and which endpoints they are about.
import type { OwnedAddresses, PolicyFacts } from '#model/policy.ts';
import type { LocalEndpoint, Snapshot } from '#model/resources.ts';

export interface PolicySource {
  /** For these endpoints of the host; undefined where nobody has any policy. The same value for as long as nothing has changed. */
  current(local: readonly OwnedAddresses[]): PolicyFacts | undefined;
  /** Id of the only network that they are about; absent: all that hosts route. */
  readonly network?: string;
  /** Whether that is all there is, as listings have said. */
  isSynced(): boolean;
}

/** Those that the host itself routes: between the endpoints of other networks stands the domain. */
export const guarded = ({ networks }: Snapshot, local: readonly LocalEndpoint[], only?: string): OwnedAddresses[] =>
  local
    .filter(({ endpoint }) => only === undefined || endpoint.network === only)
    .filter(({ endpoint }) => networks.get(endpoint.network)?.choices.domain === 'host')
    .map(({ endpoint: { owner, addresses } }) => ({ owner, addresses }));
