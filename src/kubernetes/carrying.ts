// What this host tells its Node of the network: how it carries, from what is planned and in place, and whether another pod could
// have an address.
import { carriesOn, carryTo } from '#drivers/carriages.ts';
import type { Remote } from '#drivers/driver.ts';
import type { Snapshot } from '#model/resources.ts';
import { writeAnnotations } from './annotations.ts';
import type { NodeWish } from './node-teller.ts';
import { podNetwork } from './nodes.ts';

export interface Applied {
  /** What was planned from. */
  readonly facts: Snapshot;
  /** Whether everything is in place that packets of other hosts are received by. */
  readonly isInPlace: boolean;
  /** Free addresses of a pool. */
  readonly free: (pool: string) => number;
}

/** Undefined while there is no such host, or while what is in place is not what it should be. */
export function wishFor(host: string, publicKey: string | undefined, { facts, isInPlace, free }: Applied): NodeWish | undefined {
  const self = facts.hosts.get(host);
  const network = facts.networks.get(podNetwork.id);
  const own = [...facts.blocks.values()].filter((block) => block.host === host && block.network === podNetwork.id);
  if (self?.carrying === undefined || network === undefined || own.length === 0 || !isInPlace) return undefined;
  const remotes: Remote[] = [...facts.hosts.values()]
    .filter(({ id }) => id !== host)
    .map((one) => ({ host: one, blocks: [], exceptions: [] }));
  const { vtepMac, wants } = self.carrying;
  const carrying = {
    wants,
    sends: [...new Set(remotes.map((remote) => carryTo(network, self, remote.host)))].toSorted(),
    receives: carriesOn(network, self, remotes).toSorted(),
    ...(vtepMac === undefined ? {} : { vtepMac }),
  };
  const underlay = self.underlay.map(({ ip }) => ip);
  const full = own.find(({ pool }) => free(pool) === 0);
  return {
    annotations: writeAnnotations({ carrying, publicKey, index: self.index, vni: podNetwork.vni, underlay }),
    network:
      full === undefined
        ? { isAvailable: true, reason: 'CausewayIsUp', message: 'Pods can be attached' }
        : { isAvailable: false, reason: 'NoFreeAddresses', message: `No address is free in ${full.cidr}` },
  };
}
