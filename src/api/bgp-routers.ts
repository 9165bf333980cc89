// Routers outside of an installation that its hosts speak BGP with, as users name them by Calico's BGPPeer with `peerIP`.
import { isFault } from '#model/fault.ts';
import type { Ip } from '#model/ip.ts';
import type { BgpResource } from '#model/resources.ts';
import { readPeer } from './calico-bgp.ts';

export interface BgpRouter {
  /** Of the BGPPeer. */
  readonly name: string;
  readonly ip: Ip;
  /** Where it listens. */
  readonly port: number;
}

/** Of those that can be read; what is wrong with another one is told by the hosts that are to speak with it. */
export function routersOf(peers: Iterable<{ readonly name: string; readonly spec: unknown }>): BgpRouter[] {
  return [...peers].flatMap(({ name, spec }) => {
    try {
      const { with: peer } = readPeer(name, spec, () => 'not needed here');
      return 'ip' in peer ? [{ name, ip: peer.ip, port: peer.port }] : [];
    } catch (error) {
      if (!isFault(error)) throw error;
      return [];
    }
  });
}

/** Of all that is said of BGP. */
export const routersIn = (resources: readonly BgpResource[]): BgpRouter[] => routersOf(resources.filter(({ sort }) => sort === 'BGPPeer'));
