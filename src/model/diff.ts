// The difference between what should be and what is, for one kind of object. Pure: the caller says what makes two items
// the same object (`key`) and what makes them equal (`same`).

export interface Comparison<T> {
  readonly key: (item: T) => string;
  readonly same: (wanted: T, found: T) => boolean;
}

export interface Difference<T> {
  readonly add: readonly T[];
  /** Found with the same key but different content. How to get from one to the other is the kind's business. */
  readonly change: readonly { readonly wanted: T; readonly found: T }[];
  readonly remove: readonly T[];
}

/** There may be a hundred thousand: no pair is made for each. */
function byKey<T>(items: readonly T[], { key }: Comparison<T>): Map<string, T> {
  const found = new Map<string, T>();
  for (const item of items) found.set(key(item), item);
  return found;
}

/** Later duplicates of a key in `wanted` replace earlier ones. Cost is linear in the two lengths. */
export function diff<T>(wanted: readonly T[], found: readonly T[], comparison: Comparison<T>): Difference<T> {
  const rest = byKey(found, comparison);
  const wishes = byKey(wanted, comparison);
  if (rest.size === 0) return { add: [...wishes.values()], change: [], remove: [] };
  const add: T[] = [];
  const change: { wanted: T; found: T }[] = [];
  for (const [key, item] of wishes) {
    const existing = rest.get(key);
    rest.delete(key);
    if (existing === undefined) add.push(item);
    else if (!comparison.same(item, existing)) change.push({ wanted: item, found: existing });
  }
  return { add, change, remove: [...rest.values()] };
}

/**
 * What is left of two lists without what they have in common at both ends, for a list that is worked out again and again and
 * changes in one place: cheap where the items are the very same values.
 */
export function changedPart<T>(
  wanted: readonly T[],
  before: readonly T[],
  { key, same }: Comparison<T>,
): { readonly wanted: T[]; readonly before: T[] } {
  const isSame = (a: T | undefined, b: T | undefined): boolean =>
    a === b || (a !== undefined && b !== undefined && key(a) === key(b) && same(a, b));
  const shorter = Math.min(wanted.length, before.length);
  let start = 0;
  while (start < shorter && isSame(wanted[start], before[start])) start++;
  let end = 0;
  while (end < shorter - start && isSame(wanted.at(-1 - end), before.at(-1 - end))) end++;
  return { wanted: wanted.slice(start, wanted.length - end), before: before.slice(start, before.length - end) };
}
