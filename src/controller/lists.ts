// Lists, a page at a time, in the order of ids, holding only what the asker may see.
import type { ResourceKind, Resources } from '#model/resources.ts';
import type { Page } from '#api/answers.ts';
import type { ListQuery } from '#api/routes.ts';
import { mayRead, type Principal, shownTo } from './access.ts';
import type { Control } from './control.ts';
import { find } from './find.ts';
import { fromEntry, keys } from './records.ts';

type Fits = (item: Resources[ResourceKind]) => boolean;

async function filterOf(control: Control, principal: Principal, kind: ResourceKind, query: ListQuery): Promise<Fits> {
  const network = query.network === undefined ? undefined : (await find(control, principal, 'networks', query.network)).id;
  const { host } = query;
  return (item) =>
    (network === undefined || ('network' in item && item.network === network)) &&
    (host === undefined || ('host' in item && item.host === host)) &&
    mayRead(control, principal, kind, item);
}

/** Faults: `not-found` for an unknown network in the filter. */
export async function listPage<K extends ResourceKind>(
  control: Control,
  { principal, kind, query }: { principal: Principal; kind: K; query: ListQuery },
): Promise<Page<Resources[K]>> {
  const fits = await filterOf(control, principal, kind, query);
  const items: Resources[K][] = [];
  let after = query.after === undefined ? undefined : keys.resource(kind, query.after);
  for (;;) {
    const limit = query.limit + 1 - items.length;
    const page = await control.store.list(`${kind}/`, { limit: Math.max(limit, 50), ...(after === undefined ? {} : { after }) });
    for (const entry of page.entries) {
      const item = fromEntry(kind, entry);
      if (fits(item)) items.push(shownTo(principal, item));
    }
    after = page.entries.at(-1)?.key;
    const isFull = items.length > query.limit;
    if (!isFull && page.more && after !== undefined) continue;
    const shown = items.slice(0, query.limit);
    const last = shown.at(-1);
    return { items: shown, revision: page.revision, ...(isFull && last !== undefined ? { next: last.id } : {}) };
  }
}
