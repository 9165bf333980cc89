// What PUT has in common: the revision that the asker has seen, fields that cannot change, names that stay unique.
import { isDeepStrictEqual } from 'node:util';
import { Fault } from '#model/fault.ts';
import type { Meta, ResourceKind } from '#model/resources.ts';
import type { Operation } from '#store/store.ts';
import { Refusal } from '#api/faults.ts';
import type { Control } from './control.ts';
import type { Principal } from './access.ts';
import { find } from './find.ts';
import { keys, singular } from './records.ts';

/** Faults: `conflict` (412) when the asker has seen another revision, or what is gone. `match` undefined: the asker does not mind. */
export function checkMatch(found: Meta | undefined, match: number | undefined): void {
  if (match === undefined || match === found?.revision) return;
  const now = found === undefined ? 'It is gone' : `${found.name || found.id} is at revision ${found.revision} now`;
  throw new Refusal(412, 'conflict', `${now}, not at revision ${match}`, {
    field: 'If-Match',
    hint: 'Read it again and repeat the change',
  });
}

/** `next` is what would be stored; where `wanted` differs from it, it asks for what cannot be. Fault `invalid` naming the field. */
export function checkUnchanged(kind: ResourceKind, wanted: object, next: object): void {
  const [asked, kept] = [new Map(Object.entries(wanted)), new Map(Object.entries(next))];
  for (const field of new Set([...asked.keys(), ...kept.keys()])) {
    if (field === 'revision' || isDeepStrictEqual(asked.get(field), kept.get(field))) continue;
    throw new Fault('invalid', `${field} of a ${singular[kind]} cannot be changed`, { field, hint: `Make a new ${singular[kind]}` });
  }
}

/** Moves the entry of the name index. Fault `exists`. */
export async function renaming(control: Control, kind: ResourceKind, found: Meta, next: Meta): Promise<Operation[]> {
  if (found.name === next.name) return [];
  if ((await control.store.get(keys.name(kind, next.name))) !== undefined) {
    throw new Fault('exists', `A ${singular[kind]} named ${next.name} exists`, { field: 'name', hint: 'Choose another name' });
  }
  return [
    { type: 'delete', key: keys.name(kind, found.name) },
    { type: 'put', key: keys.name(kind, next.name), value: next.id, expect: 0 },
  ];
}

/** The path of a PUT may say id or name, but the same resource as the body. Faults: `not-found`, `invalid` (`id`). */
export async function sameId(
  control: Control,
  principal: Principal,
  kind: ResourceKind,
  { path, body }: { path: string; body: string },
): Promise<void> {
  if (path === body) return;
  const found = await find(control, principal, kind, path);
  if (found.id !== body) throw new Fault('invalid', `id is ${body} but the path leads to ${found.id}`, { field: 'id' });
}
