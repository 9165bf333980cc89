// How large a packet of a network may be, and why: the underlay's MTU minus what the carriage adds, as a sum that can be
// shown. A black hole on an OpenStack tenant network is nearly always this sum done wrong.
import type { Host, Network } from '#model/resources.ts';
import { Fault } from '#model/fault.ts';
import { drivers } from './drivers.ts';
import type { Overhead } from './driver.ts';

export interface MtuSum {
  readonly underlay: number;
  readonly overhead: readonly Overhead[];
  /** Bound set by the user or by the cloud's network, when it is the smaller one. */
  readonly bound?: number;
  readonly mtu: number;
}

/** The sum for a network on `self`; 1500 stands in while a host has not reported its underlay. */
export function mtuSum(network: Network, self: Host): MtuSum {
  const underlay = self.underlay[0]?.mtu ?? 1500;
  const driver = drivers[network.choices.carry];
  const overhead = driver?.overhead(network, self) ?? [];
  const left = overhead.reduce((mtu, { bytes }) => mtu - bytes, underlay);
  const bound = Math.min(network.mtu ?? left, network.neutron?.mtu ?? left);
  return { underlay, overhead, ...(bound < left ? { bound } : {}), mtu: Math.min(bound, left) };
}

/**
 * Fault `invalid` when the host's underlay leaves less than every link must carry: 1280 bytes for IPv6 (RFC 8200, 5) and
 * 576 for IPv4, which every host must be able to take (RFC 791, 3.1).
 */
export function checkMtu(network: Network, self: Host, hasIpv6: boolean): void {
  const { mtu, underlay, overhead } = mtuSum(network, self);
  const least = hasIpv6 ? 1280 : 576;
  if (mtu >= least) return;
  const sum = overhead.map(({ what, bytes }) => ` - ${bytes} (${what})`).join('');
  throw new Fault(
    'invalid',
    `On host ${self.name} network ${network.name} would have an MTU of ${mtu} = ${underlay} (underlay)${sum}; ${hasIpv6 ? 'IPv6' : 'IPv4'} needs ${least}`,
    { field: 'mtu', hint: 'Raise the MTU of the underlay or choose another carriage' },
  );
}
