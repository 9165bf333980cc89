// What hosts have to know of what the cloud has for exposures: addresses that move between them, and from where load balancers speak to
// them. It is part of the exposures, by which hosts learn of it. Pure.
import { isDeepStrictEqual } from 'node:util';
import type { Exposure } from '#model/resources.ts';
import type { CloudPlan } from './plan.ts';

/** The same where it says so already. */
export function withPlace(exposure: Exposure, { placed, ranges }: Pick<CloudPlan, 'placed' | 'ranges'>): Exposure {
  const { virtualIp, balancerRanges, ...rest } = exposure;
  const place = placed.find((one) => one.exposure === exposure.id);
  const own = place === undefined ? { hosts: [] } : { ip: place.ip, hosts: place.hosts };
  const from = exposure.loadBalancer === undefined ? undefined : ranges.get(exposure.id);
  const isSame = (virtualIp === undefined || isDeepStrictEqual(virtualIp, own)) && from?.join() === balancerRanges?.join();
  if (isSame) return exposure;
  return {
    ...rest,
    ...(virtualIp === undefined ? {} : { virtualIp: own }),
    ...(from === undefined ? {} : { balancerRanges: from }),
  };
}
