// What differs of one sort of kernel object, and what becomes of elements of sets and maps that have to go: while others come in
// their place, no packet may meet what is in between.
import type { Desired, KindName, Netns, NftElement } from '#model/desired.ts';
import type { Failure, Kind } from '#kernel/kind.ts';

export type Item = Desired[KindName][number];
export type AnyKind = Kind<Item>;

export const netnsOf = (item: Item): Netns => ('netns' in item ? item.netns : item.name);
export const placeOf = (item: Item): string => ('name' in item ? `${netnsOf(item)} ${item.name}` : '');
/** Of an element, as placeOf() of its table. */
export const tableOf = (item: Item): string => ('table' in item ? `${item.netns} ${item.table}` : '');

export interface Changes {
  readonly kind: KindName;
  /** What is missing, and what is there but different. */
  readonly add: readonly Item[];
  readonly remove: readonly Item[];
  /** What is there but different, as it is. */
  readonly replaced: readonly Item[];
  /** What of `add` is to be in the place of those, each with its own; or of something that is not known. */
  readonly changed: ReadonlyMap<Item, Item | undefined>;
  /** Whether something is missing that had been wanted before. */
  readonly isLoss: boolean;
  /** Namespaces in which a link changes in more than its alias: the kernel may throw away what hangs on it. */
  readonly disturbed: ReadonlySet<Netns>;
}

export interface Exchange {
  readonly gone?: readonly Item[];
  readonly come?: readonly Item[];
}

/** Failures of both. */
export function exchange(kind: AnyKind, { gone = [], come = [] }: Exchange, changed: Changes['changed']): Failure<Item>[] {
  if (gone.length > 0 && come.length > 0 && kind.exchange !== undefined) return kind.exchange(gone, come, changed);
  return [...(gone.length === 0 ? [] : kind.remove(gone)), ...(come.length === 0 ? [] : kind.add(come, changed))];
}

/** Elements that do not simply go before others come. */
export interface ElementsAside {
  /** With those that come, in one step. */
  readonly exchanged: readonly Item[];
  /** With their table, which is loaded anew with all that it has. */
  readonly reloaded: readonly Item[];
  /** Afterwards. */
  readonly late: readonly Item[];
}

/**
 * What goes from maps of tables that stay goes late: until another element has its new value it may lead to one of these, as the number of
 * a service's backends leads to each of so many. Not ranges, which could be in the way of others.
 */
export function elementsAside(changes: readonly Changes[]): ElementsAside {
  const tables = changes.find(({ kind }) => kind === 'table');
  const { add = [], remove = [] } = changes.find(({ kind }) => kind === 'element') ?? {};
  const changing = [...(tables?.add ?? []), ...(tables?.remove ?? [])];
  const places = new Set(changing.map(placeOf));
  const whole = new Set(changing.filter((table) => 'elements' in table && table.elements !== undefined).map(placeOf));
  const filled = new Set(add.map(tableOf));
  const late = changing.length > 0 ? [] : remove.filter(isOfMap);
  const isLate = new Set<Item>(late);
  return {
    late,
    exchanged: remove.filter((item) => !isLate.has(item) && !places.has(tableOf(item)) && filled.has(tableOf(item))),
    reloaded: remove.filter((item) => whole.has(tableOf(item))),
  };
}

/** What goes in one step with those of that kind that come. */
export const goneWith = (come: readonly Item[], kind: KindName, { exchanged }: ElementsAside): readonly Item[] =>
  kind === 'element' && come.length > 0 ? exchanged : [];

const isOfMap = (item: Item): boolean => 'set' in item && (item.values ?? item.value) !== undefined && !item.key.includes('/');

/** Tables that are there already are loaded with the elements that change in the same run; to new ones elements are added as ever. */
export function withRenewed(changes: readonly Changes[]): readonly Changes[] {
  const elements = changes.find(({ kind }) => kind === 'element')?.add ?? [];
  const renewedFor = (table: Item): Item => {
    if (!('text' in table && 'name' in table)) return table;
    const renewed = elements.filter((one): one is NftElement => 'set' in one && one.table === table.name && one.netns === table.netns);
    return { ...table, renewed };
  };
  const withThem = (change: Changes): Changes => ({
    ...change,
    add: change.add.map((item) => (change.changed.has(item) ? renewedFor(item) : item)),
  });
  return changes.map((change) => (change.kind === 'table' ? withThem(change) : change));
}
