// Tenants: who owns networks. `default` is always there. A tenant is its name.
import { Fault, isFault } from '#model/fault.ts';
import type { Tenant } from '#model/resources.ts';
import type { TenantRequest } from '#api/requests.ts';
import type { Principal } from './access.ts';
import { type Control, transact } from './control.ts';
import { find } from './find.ts';
import { keys, listResources, putResource } from './records.ts';
import { checkMatch, checkUnchanged } from './replace.ts';
import { noTokensOf, removalOfTokens, removeTokensOf } from './tokens.ts';

/** Fault `exists`. */
export function createTenant(control: Control, request: TenantRequest): Promise<Tenant> {
  return transact(control, async () => {
    if ((await control.store.get(keys.resource('tenants', request.name))) !== undefined) {
      throw new Fault('exists', `Tenant ${request.name} exists`, { field: 'name' });
    }
    await removeTokensOf(control, request.name);
    const tenant: Tenant = {
      id: request.name,
      name: request.name,
      revision: 0,
      createdAt: control.now().toISOString(),
      labels: request.labels ?? {},
      description: request.description ?? '',
    };
    return { operations: [putResource('tenants', tenant, 0), noTokensOf(tenant.id)], answer: (revision) => ({ ...tenant, revision }) };
  });
}

/** Several controllers may start at once; whoever is first makes it. */
export async function ensureDefaultTenant(control: Control): Promise<void> {
  try {
    await createTenant(control, { name: 'default', description: 'Whatever names no other tenant' });
  } catch (error) {
    if (!isFault(error, 'exists')) throw error;
  }
}

/** Description and labels may change. Faults: `invalid`, `conflict`. */
export function replaceTenant(control: Control, principal: Principal, wanted: Tenant, match: number | undefined): Promise<Tenant> {
  return transact(control, async () => {
    const found = await find(control, principal, 'tenants', wanted.id);
    checkMatch(found, match);
    const next: Tenant = { ...found, description: wanted.description, labels: wanted.labels };
    checkUnchanged('tenants', wanted, next);
    return { operations: [putResource('tenants', next, found.revision)], answer: (revision) => ({ ...next, revision }) };
  });
}

/**
 * Its tokens go with it: as many as one commit takes at once, the rest right after, when nobody can make another. Interrupted
 * between, the sweep finishes, or whoever makes a tenant of that name. Faults: `in-use` while it has networks, `forbidden` for
 * `default`.
 */
export async function deleteTenant(control: Control, principal: Principal, id: string, match?: number): Promise<void> {
  await transact(control, async () => {
    const found = await find(control, principal, 'tenants', id);
    checkMatch(found, match);
    if (found.id === 'default')
      throw new Fault('forbidden', 'Tenant default cannot be deleted', { hint: 'It owns whatever names no other tenant' });
    // Making a network writes this guard, so none can come between looking and deleting.
    const guard = (await control.store.get(keys.guard('pools')))?.revision ?? 0;
    const network = (await listResources(control.store, 'networks')).find(({ tenant }) => tenant === found.id);
    if (network !== undefined)
      throw new Fault('in-use', `Tenant ${found.id} has networks, for example ${network.name}`, { hint: 'Delete them first' });
    return {
      operations: [
        { type: 'delete', key: keys.resource('tenants', found.id), expect: found.revision },
        { type: 'check', key: keys.guard('pools'), expect: guard },
        ...(await removalOfTokens(control, found.id)).operations,
      ],
      answer: () => undefined,
    };
  });
  await removeTokensOf(control, id);
}
