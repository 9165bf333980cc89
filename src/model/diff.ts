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

/** Later duplicates of a key in `wanted` replace earlier ones. Cost is linear in the two lengths. */
export function diff<T>(wanted: readonly T[], found: readonly T[], comparison: Comparison<T>): Difference<T> {
  const rest = new Map(found.map((item) => [comparison.key(item), item]));
  const wishes = new Map(wanted.map((item) => [comparison.key(item), item]));
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
