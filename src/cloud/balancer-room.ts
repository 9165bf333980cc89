// How many services may share a load balancer, as the cloud provider counts them (max-shared-lb, kubernetes/cloud-provider-openstack): whatever says
// by a tag of Causeway's or the cloud provider's that it is there, whichever cluster's, and the one that it was made for. Pure.
import { isOwn, listenersFor } from './balancer-changes.ts';
import type { FoundBalancer } from './balancer-steps.ts';
import { exposureTag } from './floating.ts';

/** As usual with the cloud provider. */
export const usualShare = 2;

/** What is exposed, and the load balancer that there is for it. */
export interface Placed {
  readonly id: string;
  readonly there?: FoundBalancer;
}

/** Ids of those that are not on theirs yet and find no room there, in this order. Who is on one stays. */
export function crowdedOut(placed: readonly Placed[], tag: string, most: number): ReadonlySet<string> {
  const isOn = ({ id, there }: Placed): boolean =>
    there !== undefined && (isOwn(there.balancer, tag, id) || listenersFor(there, tag, id).length > 0);
  const room = new Map<FoundBalancer, number>();
  const out = new Set<string>();
  for (const one of placed) {
    const { id, there } = one;
    if (there === undefined || isOn(one)) continue;
    const inside = placed.filter((other) => other.there === there && isOn(other)).length;
    const left = room.get(there) ?? most - inside - othersOn(there, tag);
    if (left <= 0) out.add(id);
    room.set(there, left - 1);
  }
  return out;
}

function othersOn({ balancer, listeners }: FoundBalancer, tag: string): number {
  const tags = new Set([...balancer.tags, ...listeners.flatMap(({ listener }) => listener.tags)]);
  const isService = (one: string): boolean =>
    one.startsWith('kube_service_') || (one.startsWith('causeway.') && one.includes('.exposure.') && !one.startsWith(exposureTag(tag, '')));
  return [...tags].filter(isService).length;
}
