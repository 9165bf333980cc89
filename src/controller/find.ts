// Finding a resource by id or name, as the store has it now, and only what the asker may see.
import { Fault } from '#model/fault.ts';
import type { ResourceKind, Resources } from '#model/resources.ts';
import { mayRead, type Principal } from './access.ts';
import type { Control } from './control.ts';
import { idOf, keys, notFound, readResource, singular } from './records.ts';

/** Kinds whose names are unique, with an index in the store. Hosts and tenants are their names. */
const indexed: ReadonlySet<ResourceKind> = new Set(['networks', 'exposures']);

async function idFor(control: Control, principal: Principal, kind: ResourceKind, name: string): Promise<string | undefined> {
  if (indexed.has(kind)) return idOf(await control.store.get(keys.name(kind, name)));
  const matches = [...control.mirror.all(kind).values()].filter((item) => item.name === name && mayRead(control, principal, kind, item));
  if (matches.length > 1) {
    throw new Fault('invalid', `${matches.length} ${kind} are named ${JSON.stringify(name)}`, {
      field: 'id',
      hint: `Use the ${singular[kind]}'s id`,
    });
  }
  return matches[0]?.id;
}

/** Ids win over names. Faults: `not-found`, also for what the asker may not see; `invalid` when a name is not unique. */
export async function find<K extends ResourceKind>(
  control: Control,
  principal: Principal,
  kind: K,
  idOrName: string,
): Promise<Resources[K]> {
  const direct = await readResource(control.store, kind, idOrName);
  const id = direct === undefined ? await idFor(control, principal, kind, idOrName) : undefined;
  const item = direct ?? (id === undefined ? undefined : await readResource(control.store, kind, id));
  if (item === undefined || !mayRead(control, principal, kind, item)) throw notFound(kind, idOrName);
  return item;
}
