// Which of a cloud's ports is a host's: the one with its address. Networks of a project may have the same addresses, and a host may
// have several ports; there the instance decides that the host is: its label says which, a cluster knows it (a port's device is its
// instance's id), or it bears the host's name. Which servers there are and which ports are theirs is Nova's to tell.
import { isFault } from '#model/fault.ts';
import type { NeutronPort } from './neutron-schemas.ts';
import { Nova, type Server } from './nova.ts';
import type { CloudSession } from './session.ts';
import { instanceLabel, type WishedPort } from './wish.ts';

/** The instance that a host is. */
interface HostServer {
  readonly server: Server;
  /** Ids. */
  readonly ports: readonly string[];
}

export interface Instances {
  /** Of the project; none where the cloud has no Nova, or that does not tell. */
  readonly servers: readonly Server[];
  /** By name, those hosts whose address does not tell or whose label does: what they are, or why that is not known. */
  readonly hosts: ReadonlyMap<string, HostServer | string>;
}

const none: Instances = { servers: [], hosts: new Map() };

/** For whom instances are looked for. */
interface Asking {
  readonly hosts: readonly WishedPort[];
  /** Also to name them; otherwise Nova is not asked where no host needs its answer. */
  readonly isNamed: boolean;
}

/**
 * Without Nova, hosts are known by their addresses alone. Faults as CloudSession.ask, and only where a host needs an answer: to
 * take its port for unknown then would take back what the port is allowed.
 */
export async function readInstances(session: CloudSession, ports: readonly NeutronPort[], { hosts, isNamed }: Asking): Promise<Instances> {
  const unsure = hosts.filter((host) => host.instance !== undefined || likelyOf(host, ports).length > 1);
  const nova = unsure.length > 0 || (isNamed && hosts.length > 0) ? await Nova.of(session) : undefined;
  if (nova === undefined) return none;
  try {
    const servers = await nova.servers();
    const told = unsure.map(async (host): Promise<readonly [string, HostServer | string] | undefined> => {
      const server = host.instance === undefined ? guessed(host, servers, ports) : labelled(host.instance, servers);
      if (server === undefined || typeof server === 'string') return server === undefined ? undefined : [host.host, server];
      return [host.host, { server, ports: await nova.ports(server.id) }];
    });
    return { servers, hosts: new Map((await Promise.all(told)).filter((one) => one !== undefined)) };
  } catch (error) {
    if (isFault(error) && unsure.length === 0) return none;
    throw error;
  }
}

/** Ids are unique, names need not be. */
function labelled(wanted: string, servers: readonly Server[]): Server | string {
  const found = servers.filter(({ id, name }) => id === wanted || name === wanted);
  const [one, other] = found;
  const says = `its label ${instanceLabel} says ${wanted}`;
  if (one === undefined) return `${says}, and the project has no such instance`;
  if (other === undefined) return one;
  return `${says}, and there are several of that name; use an id: ${found.map(({ id }) => id).join(', ')}`;
}

/** The only instance with such an address, or the only one of them with the host's name. */
function guessed({ host, addresses }: WishedPort, servers: readonly Server[], ports: readonly NeutronPort[]): Server | undefined {
  const devices = new Set(withAddress(ports, addresses).map(({ device }) => device));
  const having = servers.filter(({ id }) => devices.has(id));
  const likely = having.length > 1 ? having.filter(({ name }) => name === host) : having;
  return likely.length === 1 ? likely[0] : undefined;
}

function withAddress(ports: readonly NeutronPort[], addresses: readonly string[]): NeutronPort[] {
  const wanted = new Set(addresses);
  return ports.filter((port) => port.addresses.some(({ ip }) => wanted.has(ip)));
}

/** Of those with its address the ones of the instance that a cluster says the host to be, where it has any. */
function likelyOf({ addresses, server }: WishedPort, ports: readonly NeutronPort[]): NeutronPort[] {
  const having = withAddress(ports, addresses);
  const own = having.filter(({ device }) => device === server);
  return own.length > 0 ? own : having;
}

/** Name of the instance that has the port. */
export const instanceOf = ({ device }: NeutronPort, { servers }: Instances): string | undefined =>
  servers.find(({ id }) => id === device)?.name;

interface Known {
  readonly ports: readonly NeutronPort[];
  readonly instances: Instances;
}

/** A host's port, or why there is none to speak of. */
export function findPort(wished: WishedPort, { ports, instances }: Known): NeutronPort | string {
  const { host, addresses } = wished;
  const known = instances.hosts.get(host);
  if (typeof known === 'string') return `Host ${host} is left out: ${known}`;
  const found = likelyOf(wished, known === undefined ? ports : ports.filter(({ id }) => known.ports.includes(id)));
  const [port, other] = found;
  if (port === undefined) {
    const whose = known === undefined ? 'the project' : `its instance ${known.server.name} (${known.server.id})`;
    return `Host ${host} is left out: no port of ${whose} has the address ${addresses.join(' or ')}`;
  }
  if (other === undefined) return port;
  // All of one instance: the address that the host prefers.
  const [first, second] = known === undefined ? [] : withAddress(found, addresses.slice(0, 1));
  if (first !== undefined && second === undefined) return first;
  const names = found.map((one) => {
    const instance = instanceOf(one, instances);
    return instance === undefined ? one.id : `${one.id} (instance ${instance})`;
  });
  const how = instances.servers.length === 0 ? '' : `, or its instance with the label ${instanceLabel}`;
  return `Host ${host} is left out: ports ${names.join(' and ')} have its address; name the network with --network${how}`;
}
