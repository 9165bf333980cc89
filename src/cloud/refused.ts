// What of the wish for exposures and of ports' address pairs the cloud does not let be: it is told, and keeps nothing else from being done. Pure.
import { type Fault, isFault } from '#model/fault.ts';
import type { Step } from './plan.ts';
import { quotaName, type QuotaUse } from './quotas.ts';
import type { Wish } from './wish.ts';

/** Why, a sentence without a full stop each; it is not asked again. */
export interface RefusedParts {
  /** By id of what is exposed: floating IPs that are not made, or stay where they are. */
  readonly floating: ReadonlyMap<string, string>;
  /** By key: addresses that move between hosts, which are not made. */
  readonly virtual: ReadonlyMap<string, string>;
  /** By id of a port: its address pairs, which may not be written and stay as they are. */
  readonly pairs: ReadonlyMap<string, string>;
}

export const nothingRefused: RefusedParts = { floating: new Map(), virtual: new Map(), pairs: new Map() };

/** What no other attempt would change: the wish, the project's limits and rights, and a provider that has failed. */
export const isRefusal = (error: unknown): error is Fault =>
  (['invalid', 'unsupported', 'exhausted', 'forbidden', 'internal'] as const).some((code) => isFault(error, code));

/** `more`: why, by key. */
export function withoutPart(wish: Wish, part: keyof RefusedParts, more: ReadonlyMap<string, string>): Wish {
  const { refused = nothingRefused } = wish;
  return { ...wish, refused: { ...refused, [part]: new Map([...refused[part], ...more]) } };
}

/** The wish with as many exposures less as a quota is short of, the last of them; undefined where that does not help. */
export function lessFor(wish: Wish, steps: readonly Step[], short: QuotaUse): Wish | undefined {
  const part = short.name === 'floatingip' ? 'floating' : 'virtual';
  const takers = steps.flatMap((step): (readonly string[])[] => {
    if (short.name === 'floatingip' && step.type === 'make-floating-ip') return [step.exposures];
    if (step.type !== 'make-virtual-port') return [];
    if (short.name === 'port') return [[step.wished.key]];
    return short.name === 'floatingip' && step.isFloating ? [step.wished.floating.map(({ id }) => id)] : [];
  });
  if (takers.length === 0) return undefined;
  const why = `the quota of ${quotaName(short)}s would not do: ${short.most} needed, ${short.limit} allowed`;
  const keys = takers.slice(-(short.most - short.limit)).flat();
  return withoutPart(wish, part, new Map(keys.map((key) => [key, why])));
}
