// Tells Nodes that are carried by the cloud's router what it knows of them: which of their ranges it leads to them, and why not others.
// Agents tell the others that they may be sent to so, and the cluster by the condition NetworkUnavailable. A Node whose
// annotations say so already is not written, so with nothing new there is no call.
import * as v from 'valibot';
import { type Fault, isFault } from '#model/fault.ts';
import type { RoutedBlocks } from '#model/resources.ts';
import { writeRouted } from './annotations.ts';
import type { KubernetesClient } from './client.ts';

export interface RoutedNode extends RoutedBlocks {
  /** Name of the Node. */
  readonly host: string;
}

export interface RoutedOptions {
  readonly client: Pick<KubernetesClient, 'patch'>;
  /** One that cannot be written keeps no other from being told. */
  readonly failed: (node: string, fault: Fault) => void;
}

const node = v.object({
  metadata: v.object({ name: v.string(), annotations: v.nullish(v.record(v.string(), v.string()), {}) }),
  spec: v.nullish(v.object({ podCIDRs: v.nullish(v.array(v.string()), []) }), {}),
});

/** `found`: undefined where nothing is carried by a router. */
export async function tellRouted(
  { client, failed }: RoutedOptions,
  nodes: Iterable<unknown>,
  found: readonly RoutedNode[] | undefined,
): Promise<void> {
  const byName = new Map(found?.map(({ host, ...routed }) => [host, routed]));
  for (const item of nodes) {
    const read = v.safeParse(node, item);
    if (!read.success) continue;
    const { name, annotations } = read.output.metadata;
    const routed = byName.get(name);
    const led = new Set<string>(routed?.to);
    const isWhole = (read.output.spec?.podCIDRs ?? []).every((cidr) => led.has(cidr));
    const words = writeRouted(routed === undefined || !isWhole ? routed : { to: routed.to });
    const changed = Object.entries(words).filter(([key, value]) => (annotations?.[key] ?? null) !== value);
    if (changed.length === 0) continue;
    try {
      await client.patch(`/api/v1/nodes/${name}/status`, { metadata: { annotations: Object.fromEntries(changed) } });
    } catch (error) {
      if (!isFault(error)) throw error;
      if (!isFault(error, 'not-found')) failed(name, error);
    }
  }
}
