// What a host tells others by BGP, from the plan of its networks: read once, as the rules of the host depend on it as well.
import type { BgpSettings } from '#model/bgp.ts';
import type { Desired } from '#model/desired.ts';
import type { Cidr } from '#model/ip.ts';
import type { Host, LocalEndpoint, Network, Pool, Service, Snapshot } from '#model/resources.ts';
import { renderBird } from './bird.ts';
import { carriesOn } from './carriages.ts';
import type { Carriage } from './driver.ts';
import { ownBlocks } from './inside.ts';
import { announcedServices, rangesTold } from './service-routes.ts';
import { isSpoken, speakerOf, type Spoken } from './speaker.ts';

/** A network on this host. */
interface Present {
  readonly network: Network;
  readonly pools: readonly Pool[];
  readonly local: readonly LocalEndpoint[];
  readonly carriage: Carriage;
}

interface Facts {
  readonly snapshot: Snapshot;
  readonly self: Host;
  readonly services: readonly Service[] | undefined;
}

/** What of this host is told by BGP, and the ranges of services with it. */
export interface Told {
  readonly spoken: readonly Spoken[];
  readonly ranges: readonly Cidr[];
}

export function toldBy(presents: readonly Present[], snapshot: Snapshot, bgp: BgpSettings | 'unknown'): Told {
  if (bgp === 'unknown') return { spoken: [], ranges: [] };
  const spoken = presents.flatMap(({ network, pools, local, carriage }): Spoken[] => {
    const carries = carriesOn(carriage, carriage.remotes);
    if (!carries.some(isSpoken)) return [];
    return [{ isNear: !carries.includes('bgp'), pools, local, blocks: ownBlocks({ snapshot, network, self: carriage.self }) }];
  });
  const [first] = presents;
  return { spoken, ranges: spoken.length === 0 || first === undefined ? [] : rangesTold(first.carriage.self, bgp.services) };
}

/** The speaker that all networks of this host share which are carried by BGP. */
export function planSpeaker({ spoken, ranges }: Told, { snapshot, self, services }: Facts, bgp: BgpSettings | 'unknown'): Partial<Desired> {
  if (bgp === 'unknown') return {};
  const settings = { ...bgp, services: announcedServices(ranges, services ?? []) };
  const speaker = speakerOf(self, snapshot.hosts.values(), spoken, settings);
  return speaker === undefined ? {} : { bird: [{ netns: '', ...renderBird(speaker) }] };
}
