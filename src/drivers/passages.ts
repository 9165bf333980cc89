// What the underlay must let pass between hosts for a network, whoever carries it. `causeway explain` tells it, and the cloud's
// security groups are made of it.
import type { Network } from '#model/resources.ts';
import type { Passage } from './driver.ts';
import { drivers } from './drivers.ts';

export const passagesOf = (network: Network): readonly Passage[] =>
  network.choices.carry === 'docker'
    ? [
        { protocol: 17, port: 4789, why: "Docker's VXLAN" },
        { protocol: 6, port: 2377, why: 'Swarm management' },
        { protocol: 6, port: 7946, why: 'Swarm gossip' },
        { protocol: 17, port: 7946, why: 'Swarm gossip' },
        ...(network.encrypted ? [{ protocol: 50, why: 'IPsec of encrypted Docker overlays' }] : []),
      ]
    : (drivers[network.choices.carry]?.passages(network) ?? []);

/** Whether packets of containers travel as they are. */
export const travelsPlain = (network: Network): boolean => passagesOf(network).some(({ protocol }) => protocol === 0);
