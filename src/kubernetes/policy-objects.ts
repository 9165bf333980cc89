// What is kept of a policy object: what it says, and not who wrote it when.
import * as v from 'valibot';

const policy = v.object({
  metadata: v.object({ namespace: v.optional(v.string()), name: v.string(), generation: v.optional(v.number()) }),
  spec: v.optional(v.unknown()),
});

export const keptPolicy = (item: unknown): unknown => {
  const read = v.safeParse(policy, item);
  return read.success ? read.output : {};
};

/** 0: it has none. */
export function generationOf(item: unknown): number {
  const read = v.safeParse(policy, item);
  return read.success ? (read.output.metadata.generation ?? 0) : 0;
}
