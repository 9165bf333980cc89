/** For sorting: the older first; of those of one moment, as `keyOf` says. */
export const byAge =
  <T extends { readonly createdAt: string }>(keyOf: (one: T) => string) =>
  (a: T, b: T): number =>
    `${a.createdAt} ${keyOf(a)}` < `${b.createdAt} ${keyOf(b)}` ? -1 : 1;
