// What an agent answers where somebody else decides: which networks there are, and which range a host has.
import { Fault } from '#model/fault.ts';
import type { ClusterAddresses } from './address-cluster.ts';
import type { ClusterNetworks } from './local.ts';

export interface Decider {
  /** As in "… is decided by Kubernetes here". */
  readonly who: string;
  /** How what it decides is changed. */
  readonly hint: string;
}

const decided = (what: string, { who, hint }: Decider): Promise<never> =>
  Promise.reject(new Fault('unsupported', `${what} is decided by ${who} here`, { hint }));

export const networksOf = (decider: Decider): ClusterNetworks => ({
  create: () => decided('Which networks there are', decider),
  rename: () => decided('What the network is called', decider),
  remove: () => decided('Which networks there are', decider),
  proposePool: () => decided('Which ranges there are', decider),
});

/** A host has the range that it was given: it gets no further one, lends nothing, and never gives it back. `full`: why no address is left. */
export function rangeOf(decider: Decider, full: () => Fault): ClusterAddresses {
  const exhausted = (): Promise<never> => Promise.reject(full());
  return {
    claimBlock: exhausted,
    blocksOf: () => Promise.resolve([]),
    askLoan: exhausted,
    settleLoan: () => decided('A loan', decider),
    returnLoan: () => Promise.resolve(),
    releaseBlock: () => Promise.reject(new Fault('in-use', "The host's range stays the host's")),
  };
}
