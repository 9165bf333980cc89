// Exposures: wishes that a port of an endpoint be reachable from outside. Whether the endpoint exists is for its host to find
// out and report; a wish may come before its endpoint.
import { isIPv6 } from 'node:net';
import { Fault } from '#model/fault.ts';
import { familyOf } from '#model/ip.ts';
import type { Exposure, Network, VirtualIp } from '#model/resources.ts';
import type { ExposureRequest } from '#api/requests.ts';
import type { Principal } from './access.ts';
import { type Control, transact } from './control.ts';
import { find } from './find.ts';
import { idOf, keys, listResources, putResource, readResource } from './records.ts';
import { checkMatch, checkUnchanged, renaming } from './replace.ts';

/** By endpoint and port; where another network's has that name, with this one's name before it. */
async function nameOf({ store }: Control, network: Network, { endpoint, hostPort, protocol }: ExposureRequest): Promise<string> {
  const start = endpoint.replace(/^[^a-zA-Z0-9]+/, 'e');
  const end = `${hostPort}-${protocol}`;
  const short = `${start.slice(0, 40)}-${end}`;
  const id = idOf(await store.get(keys.name('exposures', short)));
  const found = id === undefined ? undefined : await readResource(store, 'exposures', id);
  return found === undefined || found.network === network.id ? short : `${network.name.slice(0, 25)}-${start.slice(0, 25)}-${end}`;
}

/** Faults: `exists` (name), `not-found` (network), `invalid`. */
export function createExposure(control: Control, principal: Principal, request: ExposureRequest): Promise<Exposure> {
  return transact(control, async () => {
    const network = await find(control, principal, 'networks', request.network);
    if (network.deletedAt !== undefined) throw new Fault('not-found', `Network ${network.name} is being deleted`, { field: 'network' });
    if (network.internal)
      throw new Fault('invalid', `Network ${network.name} is internal: nothing of it is reachable from outside`, { field: 'network' });
    if (network.choices.domain === 'docker')
      throw new Fault('invalid', `Network ${network.name} is of Docker's own driver, whose containers only Docker makes reachable`, {
        field: 'network',
        hint: 'Publish the port with Docker: docker service update --publish-add',
      });
    const name = request.name ?? (await nameOf(control, network, request));
    if ((await control.store.get(keys.name('exposures', name))) !== undefined) {
      throw new Fault('exists', `An exposure named ${name} exists`, { field: 'name', hint: 'Choose another name' });
    }
    checkPlace(request);
    checkProvider(request);
    checkFamily(request);
    await checkRange(control, network, request.family);
    const exposure: Exposure = {
      id: control.newId(),
      name,
      revision: 0,
      createdAt: control.now().toISOString(),
      labels: request.labels ?? {},
      network: network.id,
      endpoint: request.endpoint,
      protocol: request.protocol,
      port: request.port,
      hostPort: request.hostPort,
      ...(request.hostIp === undefined ? {} : { hostIp: request.hostIp }),
      sources: request.sources ?? [],
      ...(request.floatingIp === undefined ? {} : { floatingIp: request.floatingIp }),
      ...(request.loadBalancer === undefined ? {} : { loadBalancer: request.loadBalancer }),
      ...(request.provider === undefined ? {} : { provider: request.provider }),
      ...(request.virtualIp === undefined ? {} : { virtualIp: noPlace }),
      ...(request.family === undefined ? {} : { family: request.family }),
    };
    return {
      operations: [
        putResource('exposures', exposure, 0),
        { type: 'put', key: keys.name('exposures', name), value: exposure.id, expect: 0 },
        { type: 'check', key: keys.resource('networks', network.id), expect: network.revision },
      ],
      answer: (revision) => ({ ...exposure, revision }),
    };
  });
}

/** As long as the cloud has not made any. */
const noPlace: VirtualIp = { hosts: [] };

type Reached = Pick<ExposureRequest, 'floatingIp' | 'hostIp' | 'loadBalancer' | 'provider' | 'sources'> & {
  readonly virtualIp?: unknown;
  readonly family?: Exposure['family'] | undefined;
};

const refused = (field: string, message: string, hint: string): Fault => new Fault('invalid', message, { field, hint });

/** Fault `invalid`. */
function checkPlace({ virtualIp, loadBalancer, hostIp }: Reached): void {
  if (virtualIp === undefined || (loadBalancer === undefined && hostIp === undefined)) return;
  const other = loadBalancer === undefined ? 'an address of the host' : 'a load balancer';
  throw refused(
    'virtualIp',
    `An exposure is reached by an address that moves between hosts or by ${other}, not by both`,
    'Leave out one of them',
  );
}

/** Fault `invalid`. */
function checkProvider({ provider, loadBalancer }: Reached): void {
  if (provider === undefined || loadBalancer !== undefined) return;
  throw refused('provider', 'Only a load balancer has a provider', 'Ask for a load balancer (--load-balancer), or leave the provider out');
}

/** Fault `invalid`. */
function checkFamily({ family, floatingIp, loadBalancer, virtualIp, sources = [] }: Reached): void {
  if (floatingIp !== undefined && (family === 6 || isIPv6(floatingIp)))
    throw refused('floatingIp', noFloating, 'Leave out the floating IP; who may come is said by the sources (--from)');
  if (family === undefined) return;
  if (virtualIp === undefined && loadBalancer === undefined)
    throw refused(
      'family',
      'By addresses of its hosts an exposure is reached by both families',
      'Leave out the family, or ask for an address that moves between hosts (--virtual-ip) or a load balancer (--load-balancer)',
    );
  if (loadBalancer === 'internal')
    throw refused(
      'loadBalancer',
      'A load balancer of IPv6 has no floating IP, and is reached from wherever the routes of its subnet lead to it',
      'Say by the sources who may come (--from), and leave out --internal',
    );
  if (sources.length > 0 && !sources.some((source) => familyOf(source) === family))
    throw refused('sources', 'None of the sources is of IPv6, so nobody could come', 'Name ranges of IPv6, or none for everybody');
}

const noFloating = 'Neutron has no floating IPs of IPv6: an address of IPv6 is reached from wherever the routes of its subnet lead to it';

/** Fault `invalid`. */
async function checkRange({ store }: Control, { id, name }: Network, family: Exposure['family']): Promise<void> {
  if (family === undefined) return;
  const pools = await listResources(store, 'pools');
  if (pools.some(({ network, cidr }) => network === id && familyOf(cidr) === family)) return;
  throw refused('family', `Containers of network ${name} have no IPv6`, 'Expose a container of a network with a range of IPv6');
}

/** Which address hosts have on the wire is for those to say who speak for the cloud, not for tenants. */
const virtualOf = (principal: Principal, wanted: Exposure, found: Exposure): VirtualIp | undefined =>
  wanted.virtualIp === undefined || principal.type === 'role' ? wanted.virtualIp : (found.virtualIp ?? noPlace);

/** Whom hosts let in instead of the sources, likewise. */
const rangesOf = (principal: Principal, wanted: Exposure, found: Exposure): Exposure['balancerRanges'] =>
  wanted.loadBalancer === undefined ? undefined : principal.type === 'role' ? wanted.balancerRanges : found.balancerRanges;

/** Everything but the network and the family may change. Faults: `invalid`, `conflict`, `exists`. */
export function replaceExposure(control: Control, principal: Principal, wanted: Exposure, match: number | undefined): Promise<Exposure> {
  return transact(control, async () => {
    const found = await find(control, principal, 'exposures', wanted.id);
    checkMatch(found, match);
    checkPlace(wanted);
    checkProvider(wanted);
    checkFamily({ ...wanted, family: found.family });
    const virtualIp = virtualOf(principal, wanted, found);
    const ranges = rangesOf(principal, wanted, found);
    const { family: _, balancerRanges: __, ...rest } = wanted;
    const next: Exposure = {
      ...rest,
      network: found.network,
      createdAt: found.createdAt,
      ...(virtualIp === undefined ? {} : { virtualIp }),
      ...(ranges === undefined ? {} : { balancerRanges: ranges }),
      ...(found.family === undefined ? {} : { family: found.family }),
    };
    checkUnchanged('exposures', { ...wanted, balancerRanges: ranges }, next);
    const renames = await renaming(control, 'exposures', found, next);
    return { operations: [putResource('exposures', next, found.revision), ...renames], answer: (revision) => ({ ...next, revision }) };
  });
}

export function deleteExposure(control: Control, principal: Principal, idOrName: string, match?: number): Promise<void> {
  return transact(control, async () => {
    const found = await find(control, principal, 'exposures', idOrName);
    checkMatch(found, match);
    return {
      operations: [
        { type: 'delete', key: keys.resource('exposures', found.id), expect: found.revision },
        { type: 'delete', key: keys.name('exposures', found.name) },
      ],
      answer: () => undefined,
    };
  });
}
