// Reads a cloud as far as a plan needs it, or all of a project that is open.
import { Fault, isFault } from '#model/fault.ts';
import { readBalancers, readListeners } from './balancing.ts';
import { readInstances } from './instances.ts';
import { named } from './named.ts';
import type { Neutron } from './neutron.ts';
import type { NeutronRouter, SecurityGroup } from './neutron-schemas.ts';
import type { CloudState } from './plan.ts';
import type { ReachState } from './reach.ts';
import type { Wish } from './wish.ts';

export interface Scope {
  /** Only ports on this network, by name or id. */
  readonly network?: string | undefined;
  /** Router that is to know ways to containers, by name or id. */
  readonly router?: string | undefined;
  /** The router may be missing for a while: networks that are carried by it have a problem then, and all else goes on. */
  readonly mayLackRouter?: boolean;
  /** Which of Octavia's providers makes load balancers that name none; absent: the first of the usual ones. */
  readonly provider?: string | undefined;
  /** Services that may share a load balancer; absent: as usual. */
  readonly mostShared?: number | undefined;
  /** Without what exposures are reached by from outside: floating IPs, and Octavia. */
  readonly isInnerOnly?: boolean;
}

/** Extensions of Neutron that Causeway cannot do without, and what for. */
const extensions: Readonly<Record<string, string>> = {
  'security-group': 'security groups',
  'allowed-address-pairs': 'addresses of containers on ports',
  'standard-attr-tag': 'tags, by which Causeway knows what is its own',
};

/** Fault `unsupported` naming every one that is missing. */
function checkExtensions(aliases: ReadonlySet<string>): void {
  const missing = Object.entries(extensions).filter(([alias]) => !aliases.has(alias));
  if (missing.length === 0) return;
  const list = missing.map(([alias, why]) => `${alias} (${why})`).join(', ');
  throw new Fault('unsupported', `The cloud's Neutron lacks ${list}`, { hint: 'Ask the operator of the cloud for the extension' });
}

/** What a cloud is read for. */
export type Sought = Pick<Wish, 'ports' | 'balancers'>;

/**
 * `sought`: whose ports are to be found, and who is to share which load balancer. Faults: `unsupported` (extensions), `not-found` (network or router), `invalid` when a name is
 * not unique, and as Neutron's and readInstances.
 */
export async function readState(neutron: Neutron, scope: Scope, sought: Sought = { ports: [], balancers: [] }): Promise<CloudState> {
  const { network, isInnerOnly = false, provider, mostShared } = scope;
  const aliases = await neutron.extensions();
  checkExtensions(aliases);
  const project = await neutron.project();
  const [groups, ports, quotas, routers, networks, floatingIps, balancing] = await Promise.all([
    groupsOf(neutron),
    neutron.list('ports', { project_id: project }),
    aliases.has('quota_details') ? neutron.quotas() : {},
    neutron.list('routers', { project_id: project }),
    neutron.list('networks'),
    aliases.has('router') && !isInnerOnly ? neutron.list('floatingips', { project_id: project }) : [],
    isInnerOnly ? { balancers: [] } : readBalancers(neutron, new Set(sought.balancers.map(({ shared }) => shared))),
  ]);
  const only = network === undefined ? undefined : named(networks, network, 'network').id;
  const seen = ports.filter(({ networkId }) => only === undefined || networkId === only);
  return {
    groups,
    ports: seen,
    instances: await readInstances(neutron.session, seen, { hosts: sought.ports, isNamed: !isInnerOnly }),
    quotas,
    mostPairs: neutron.mostPairs,
    networks,
    routers,
    floatingIps,
    ...balancing,
    ...(provider === undefined ? {} : { provider }),
    ...(mostShared === undefined ? {} : { mostShared }),
    ...targetOf(routers, scope),
  };
}

function targetOf(routers: readonly NeutronRouter[], { router, mayLackRouter = false }: Scope): Pick<CloudState, 'target' | 'noTarget'> {
  if (router === undefined) return {};
  try {
    return { target: named(routers, router, 'router').id };
  } catch (error) {
    if (!mayLackRouter || !isFault(error)) throw error;
    return { noTarget: error.message };
  }
}

export type ReadState = (sought: Sought) => Promise<CloudState>;

/** At first the cloud as it was read a moment ago, if it was, and then anew. */
export function readFirst(known: CloudState | undefined, read: ReadState): ReadState {
  let first = known;
  return async (sought) => {
    const state = first ?? (await read(sought));
    first = undefined;
    return state;
  };
}

/** What of the project is open, by whomever. Faults as Neutron's. */
export async function readReach(neutron: Neutron): Promise<ReachState> {
  const own = { project_id: await neutron.project() };
  const [ports, groups, floatingIps, routers, networks, balancing] = await Promise.all([
    neutron.list('ports', own),
    // Also what others share.
    neutron.list('security-groups'),
    neutron.list('floatingips', own),
    neutron.list('routers', own),
    neutron.list('networks'),
    readListeners(neutron.session),
  ]);
  return { ports, groups, floatingIps, routers, networks, ...balancing };
}

export const groupsOf = async (neutron: Neutron): Promise<SecurityGroup[]> =>
  neutron.list('security-groups', { project_id: await neutron.project() });
