// Conditions in the status of objects, as the API's conventions have them ("Typical status properties").
import { withoutRequests } from '#model/fault.ts';

export type Condition = Readonly<Record<string, unknown>>;

/** What is said now. Never without a message: an API server of 1.20 that was built by a newer Go refuses empty texts of custom resources. */
export interface Told {
  readonly type: string;
  readonly status: 'True' | 'False';
  readonly reason: string;
  readonly message: string;
  readonly observedGeneration?: number;
}

/** With what is told in the place of earlier words of its type, whose time it keeps while the status is the same; words of another try stay. */
export function withCondition(before: readonly Condition[] | null | undefined, told: Told, now: Date): Condition[] {
  const earlier = before?.find((one) => one['type'] === told.type);
  const since = earlier?.['status'] === told.status ? earlier['lastTransitionTime'] : undefined;
  const others = (before ?? []).filter((one) => one['type'] !== told.type);
  const was = earlier?.['message'];
  const message = typeof was === 'string' && withoutRequests(was) === withoutRequests(told.message) ? was : told.message;
  return [...others, { ...told, message, lastTransitionTime: since ?? now.toISOString().replace(/\.\d+Z$/, 'Z') }];
}

/** Keys in order, so that two texts are equal when the values are. */
export function inOrder(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(inOrder);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]): [string, unknown] => [key, inOrder(inner)]),
  );
}

export const isAlike = (one: unknown, other: unknown): boolean => JSON.stringify(inOrder(one)) === JSON.stringify(inOrder(other));
