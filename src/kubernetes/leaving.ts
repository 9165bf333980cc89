// What a Node says of a node that Causeway has left: nothing any more. The next network finds the condition NetworkUnavailable as on a new
// node, without it: flannel, Calico and route controllers of cloud providers set it themselves, and where nobody does nothing may keep
// pods away. One that somebody else has written since stays, and so do flannel's annotations, which flannel writes anew.
import * as v from 'valibot';
import { reasons } from './availability.ts';
import type { KubernetesClient } from './client.ts';

const node = v.object({
  metadata: v.object({ annotations: v.optional(v.record(v.string(), v.string()), {}) }),
  status: v.optional(
    v.object({
      conditions: v.optional(
        v.array(v.object({ type: v.string(), reason: v.optional(v.string()), message: v.optional(v.string(), '') })),
        [],
      ),
    }),
    {},
  ),
});
const isOurs = (reason: string | undefined): boolean => reasons.some((one) => one === reason);

/** A strategic merge patch; undefined: it says nothing of ours. */
export function leavingPatch(item: unknown): object | undefined {
  const read = v.safeParse(node, item);
  if (!read.success) return undefined;
  const { metadata, status } = read.output;
  const annotations = Object.keys(metadata.annotations).filter((key) => key.startsWith('causeway.dev/'));
  const conditions = status.conditions.filter(
    ({ type, reason, message }) =>
      type.startsWith('causeway.dev/') ||
      // Route controllers have some of the same reasons, and say so.
      (type === 'NetworkUnavailable' && isOurs(reason) && !message.startsWith('RouteController ')),
  );
  if (annotations.length === 0 && conditions.length === 0) return undefined;
  return {
    metadata: { annotations: Object.fromEntries(annotations.map((key) => [key, null])) },
    status: { conditions: conditions.map(({ type }) => ({ $patch: 'delete', type })) },
  };
}

/** Faults as KubernetesClient.list. */
export async function leaveNode(client: Pick<KubernetesClient, 'get' | 'patch'>, name: string): Promise<void> {
  const patch = leavingPatch(await client.get(`/api/v1/nodes/${name}`));
  if (patch !== undefined) await client.patch(`/api/v1/nodes/${name}/status`, patch);
}
