// What a cloud offers to networks of containers, as far as this login can tell: read, and of rights tried what can be tried without
// harm. Nothing is changed.
import { Fault } from '#model/fault.ts';
import { type Cidr, type Family, familyOf, parseCidr } from '#model/ip.ts';
import type { Neutron } from './neutron.ts';
import type { NeutronNetwork, NeutronPort, NeutronRouter, Quota } from './neutron-schemas.ts';
import { Octavia } from './octavia.ts';
import { takesChosenPorts } from './pools.ts';
import { mayWritePairs, mayWritePortSecurity, mayWriteRoutes } from './rights.ts';
import type { CloudSession } from './session.ts';

/** `unknown`: there is nothing to try it on, an instance's port or a router. */
export type Right = 'yes' | 'no' | 'unknown';

export interface Survey {
  /** Aliases of Neutron's extensions, sorted. */
  readonly extensions: readonly string[];
  /** Where the hosts are. */
  readonly network: {
    readonly name: string;
    /** 0: the cloud does not tell it. */
    readonly mtu: number;
    /** `vxlan`, `geneve`, `vlan`, `flat`; absent: Neutron tells it to administrators only. */
    readonly type?: string | undefined;
    /** Of its subnets. */
    readonly families: readonly Family[];
    /** Names, or ids of those without. */
    readonly subnets: readonly { readonly name: string; readonly cidr: Cidr }[];
    /** Whether the login may choose addresses of ports there. */
    readonly takesPorts: boolean;
  };
  /** Ports of instances there. */
  readonly instances: number;
  /** Those of them with port security off. */
  readonly unguarded: number;
  /** Instances whose port is the parent of a trunk. */
  readonly parents: number;
  readonly quotas: Readonly<Record<string, Quota>>;
  /** Names of the project's routers. */
  readonly routers: readonly string[];
  /** Providers of Octavia's load balancers; absent: there is no Octavia. */
  readonly balancers?: readonly string[] | undefined;
  /** Of routers, whether one of them takes routes of this login. */
  readonly rights: { readonly pairs: Right; readonly portSecurity: Right; readonly routes: Right };
}

const isInstances = ({ owner }: NeutronPort): boolean => owner.startsWith('compute:');

/**
 * `wanted`: name or id of the hosts' network; absent: the only one that has instances, else the only one of the project. Faults:
 * `not-found`, `invalid` when there are several, and as CloudSession.ask.
 */
export async function readSurvey(session: CloudSession, neutron: Neutron, wanted?: string): Promise<Survey> {
  const project = await neutron.project();
  const extensions = [...(await neutron.extensions())].toSorted();
  const [networks, ports, routers, quotas, balancers] = await Promise.all([
    neutron.list('networks'),
    neutron.list('ports', { project_id: project }),
    neutron.list('routers', { project_id: project }),
    extensions.includes('quota_details') ? neutron.quotas() : {},
    balancersOf(session),
  ]);
  const instances = ports.filter(isInstances);
  const network = hostsNetwork(networks, { instances, project, wanted });
  const here = instances.filter(({ networkId }) => networkId === network.id);
  const subnets = (await neutron.list('subnets', { network_id: network.id })).map(({ name, id, cidr }) => ({
    name: name || id,
    cidr: parseCidr(cidr, 'cidr', false),
  }));
  const guarded = here.filter(({ portSecurity }) => portSecurity);
  return {
    extensions,
    network: {
      name: network.name === '' ? network.id : network.name,
      mtu: network.mtu,
      type: network.type,
      families: [...new Set(subnets.map(({ cidr }) => familyOf(cidr)))].toSorted((a, b) => a - b),
      subnets,
      takesPorts: takesChosenPorts(network, project),
    },
    instances: here.length,
    unguarded: here.length - guarded.length,
    parents: here.filter(({ trunk }) => trunk !== undefined).length,
    quotas,
    routers: routers.map(({ name, id }) => (name === '' ? id : name)).toSorted(),
    balancers,
    rights: await rightsOf(neutron, { extensions, port: guarded[0], routers }),
  };
}

interface Known {
  readonly instances: readonly NeutronPort[];
  readonly project: string;
  readonly wanted: string | undefined;
}

const listed = (all: readonly NeutronNetwork[]): string => all.map(({ id, name }) => `${name} (${id})`).join(', ') || 'none';

function hostsNetwork(networks: readonly NeutronNetwork[], { instances, project, wanted }: Known): NeutronNetwork {
  const used = new Set(instances.map(({ networkId }) => networkId));
  const own = networks.filter(({ projectId, isExternal }) => projectId === project && !isExternal);
  const occupied = networks.filter(({ id }) => used.has(id));
  const named = networks.filter(({ id, name }) => id === wanted || name === wanted);
  const found = wanted === undefined ? (occupied.length > 0 ? occupied : own) : named;
  const [one, other] = found;
  if (one !== undefined && other === undefined) return one;
  if (one !== undefined) {
    throw new Fault('invalid', `Which network are the hosts on? It may be ${listed(found)}`, {
      field: 'network',
      hint: 'Name it: --network',
    });
  }
  const what = wanted === undefined ? 'The project has no network for hosts' : `The cloud has no network ${wanted} that you can see`;
  throw new Fault('not-found', `${what}; there are ${listed(networks)}`, { field: 'network' });
}

async function balancersOf(session: CloudSession): Promise<string[] | undefined> {
  const providers = await (await Octavia.of(session))?.providers();
  return providers?.map(({ name }) => name).toSorted();
}

interface Tried {
  readonly extensions: readonly string[];
  readonly port: NeutronPort | undefined;
  readonly routers: readonly NeutronRouter[];
}

/** What the cloud does not know cannot be tried: it would call the attribute a mistake. */
async function rightsOf(neutron: Neutron, { extensions, port, routers }: Tried): Promise<Survey['rights']> {
  const tried = async <T>(extension: string, on: readonly T[], may: (one: T) => Promise<boolean>): Promise<Right> => {
    if (on.length === 0) return 'unknown';
    if (!extensions.includes(extension)) return 'no';
    for (const one of on) if (await may(one)) return 'yes';
    return 'no';
  };
  const ports = port === undefined ? [] : [port];
  return {
    pairs: await tried('allowed-address-pairs', ports, (one) => mayWritePairs(neutron, one)),
    portSecurity: await tried('port-security', ports, (one) => mayWritePortSecurity(neutron, one)),
    routes: await tried('extraroute', routers, (one) => mayWriteRoutes(neutron, one)),
  };
}
