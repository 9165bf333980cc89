// Bandwidth limits of endpoints as the kernel has them: bytes instead of bits, and a bucket that a packet always fits into.
import type { Netns, Shaper } from '#model/desired.ts';
import { endpointLink } from '#model/numbers.ts';
import type { Limit, LocalEndpoint } from '#model/resources.ts';

/** Without a wish a bucket holds what the rate makes in this time: less would not reach the rate, more would not be a limit. */
const usualMs = 50;
/** A segment of 64 KiB that a container hands over at once. */
const leastBurst = 65_536;
const mostBurst = 0xffff_ffff;

/** Bytes that may go at once. */
const burstOf = ({ rate, burst }: Limit): number =>
  Math.min(Math.max(Math.ceil((burst ?? (rate * usualMs) / 1000) / 8), burst === undefined ? leastBurst : 1), mostBurst);

/** The limits of an endpoint on its link. */
export function shapers(netns: Netns, { endpoint, bandwidth = {} }: LocalEndpoint): Shaper[] {
  const link = endpointLink(endpoint.id);
  const { ingress, egress } = bandwidth;
  const shaper = (direction: Shaper['direction'], limit: Limit | undefined): Shaper[] =>
    limit === undefined ? [] : [{ netns, link, direction, rate: Math.ceil(limit.rate / 8), burst: burstOf(limit) }];
  return [...shaper('to', ingress), ...shaper('from', egress)];
}
