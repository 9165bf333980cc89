// A plan is put together from parts, each of which says what it wants and nothing of the rest.
import type { Desired, NftElement } from '#model/desired.ts';

export type Part = Partial<Desired>;

export function desiredOf(parts: readonly Part[]): Desired {
  return {
    netns: parts.flatMap((part) => part.netns ?? []),
    rule: parts.flatMap((part) => part.rule ?? []),
    sysctl: parts.flatMap((part) => part.sysctl ?? []),
    link: parts.flatMap((part) => part.link ?? []),
    wireguard: parts.flatMap((part) => part.wireguard ?? []),
    addr: parts.flatMap((part) => part.addr ?? []),
    neigh: parts.flatMap((part) => part.neigh ?? []),
    proxy: parts.flatMap((part) => part.proxy ?? []),
    trunk: parts.flatMap((part) => part.trunk ?? []),
    fdb: parts.flatMap((part) => part.fdb ?? []),
    route: parts.flatMap((part) => part.route ?? []),
    table: parts.flatMap((part) => part.table ?? []),
    // A hundred thousand of them are copied as a block, not one by one.
    element: ([] as NftElement[]).concat(...parts.map((part) => part.element ?? [])),
    shaper: parts.flatMap((part) => part.shaper ?? []),
    fast: parts.flatMap((part) => part.fast ?? []),
    bird: parts.flatMap((part) => part.bird ?? []),
  };
}
