// Exposures: wishes that a port of an endpoint be reachable from outside. Whether the endpoint exists is for its host to find
// out and report; a wish may come before its endpoint.
import { Fault } from '#model/fault.ts';
import type { Exposure } from '#model/resources.ts';
import type { ExposureRequest } from '#api/requests.ts';
import type { Principal } from './access.ts';
import { type Control, transact } from './control.ts';
import { find } from './find.ts';
import { keys, putResource } from './records.ts';
import { checkMatch, checkUnchanged, renaming } from './replace.ts';

/** Faults: `exists` (name), `not-found` (network), `invalid`. */
export function createExposure(control: Control, principal: Principal, request: ExposureRequest): Promise<Exposure> {
  return transact(control, async () => {
    const network = await find(control, principal, 'networks', request.network);
    if (network.deletedAt !== undefined) throw new Fault('not-found', `Network ${network.name} is being deleted`, { field: 'network' });
    if (network.internal)
      throw new Fault('invalid', `Network ${network.name} is internal: nothing of it is reachable from outside`, { field: 'network' });
    const name = request.name ?? `${request.endpoint.slice(0, 40).replace(/^[^a-zA-Z0-9]+/, 'e')}-${request.hostPort}-${request.protocol}`;
    if ((await control.store.get(keys.name('exposures', name))) !== undefined) {
      throw new Fault('exists', `An exposure named ${name} exists`, { field: 'name', hint: 'Choose another name' });
    }
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

/** Everything but the network may change. Faults: `invalid`, `conflict`, `exists`. */
export function replaceExposure(control: Control, principal: Principal, wanted: Exposure, match: number | undefined): Promise<Exposure> {
  return transact(control, async () => {
    const found = await find(control, principal, 'exposures', wanted.id);
    checkMatch(found, match);
    const next: Exposure = { ...wanted, network: found.network, createdAt: found.createdAt };
    checkUnchanged('exposures', wanted, next);
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
