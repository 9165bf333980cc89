// Which history of the store a revision belongs to. After a restore from a backup the same revisions come again and mean something
// else. So every start of a controller, without which nothing is restored, begins an epoch: a record whose own revision says where.
// A reader that has come to a revision of an epoch may go on from there if the store, as it is now, had that epoch then.
import type { Store } from '#store/store.ts';
import type { Mirror } from './mirror.ts';
import { keys, listAll } from './records.ts';

/** Whoever saw an earlier one last begins anew. */
const kept = 32;

/** Whether the store had one before, so that it may have been restored. Faults as of Store.commit. */
export async function beginEpoch(store: Store, id: string): Promise<boolean> {
  const known = (await listAll(store, keys.epoch(''))).toSorted((a, b) => b.revision - a.revision);
  await store.commit([
    { type: 'put', key: keys.epoch(id), value: null, expect: 0 },
    ...known.slice(kept - 1).map(({ key }) => ({ type: 'delete', key }) as const),
  ]);
  return known.length > 0;
}

/** The epoch that `revision` is of; undefined when it is older than those that are kept. */
export function epochAt(mirror: Pick<Mirror, 'entries'>, revision: number): string | undefined {
  const begun = mirror.entries('epochs').filter((epoch) => epoch.revision <= revision);
  return begun
    .toSorted((a, b) => a.revision - b.revision)
    .at(-1)
    ?.key.slice(keys.epoch('').length);
}
