// Health monitors of pools that stay while a load balancer is changed: which are made, which go, and which have to be away meanwhile.
// OVN's provider keeps for all pools of a protocol together from where it probes an address (`ip_port_mappings` of OVN's Load_Balancer).
// With each member that goes it removes the address there, though other pools have a member with it, or the same pool another port
// of it (_remove_member in ovn_octavia_provider/helper.py): OVN leads no packet to such members any more, for good. While no pool
// has a monitor it leaves that alone, and OVN leads to all members; a monitor that is made writes all addresses of its pool. Pure.
import { type FoundListener, isLost } from './balancer-requests.ts';
import type { ListenerRequest, MonitorRequest } from './octavia.ts';
import type { HealthMonitor } from './octavia-schemas.ts';
import { isPassing } from './providers.ts';

/** A listener that stays, with its pool. */
export interface Staying {
  /** Of what is exposed. */
  readonly id: string;
  readonly found: FoundListener;
  readonly request: ListenerRequest;
}

export interface MonitorChanges {
  /** To go before anything else is changed. */
  readonly gone: readonly HealthMonitor[];
  /** To be made after all else; `pool`: its id. */
  readonly made: readonly { readonly id: string; readonly pool: string; readonly request: MonitorRequest; readonly again?: true }[];
  /** Same ones with other times. */
  readonly retimed: readonly { readonly monitor: HealthMonitor; readonly request: MonitorRequest }[];
}

export function monitorChanges(
  provider: string | undefined,
  staying: readonly Staying[],
  leaving: readonly FoundListener[],
): MonitorChanges {
  const lost = isPassing(provider) ? lostOf(staying, leaving) : nothing;
  const all = staying.map(({ id, found, request }) => {
    const wanted = request.default_pool.healthmonitor;
    const isPaused = request.default_pool.members.some(({ address }) => lost.has(`${found.listener.protocol} ${address}`));
    const isThere = found.monitor?.type === wanted?.type && !isPaused;
    const again = isThere && found.monitor !== undefined && isLost(found.monitor);
    return { id, found, wanted, kept: isThere && !again ? found.monitor : undefined, again };
  });
  return {
    gone: all.flatMap(({ found, kept }) => (found.monitor === undefined || kept !== undefined ? [] : [found.monitor])),
    made: all.flatMap(({ id, found, wanted, kept, again }) =>
      found.pool === undefined || wanted === undefined || kept !== undefined
        ? []
        : [{ id, pool: found.pool.id, request: wanted, ...(again ? { again } : {}) }],
    ),
    retimed: all.flatMap(({ wanted, kept }) =>
      kept === undefined || wanted === undefined || isTimed(kept, wanted) ? [] : [{ monitor: kept, request: wanted }],
    ),
  };
}

/** Others' listener of which a member is probed that one of ours leads to as well: only its owner may have it probed anew. */
export function probedBeside(others: readonly FoundListener[], requests: readonly ListenerRequest[]): string | undefined {
  const ours = new Set(
    requests.flatMap(({ protocol, default_pool: { members } }) => members.map(({ address }) => `${protocol} ${address}`)),
  );
  for (const { listener, pool, members } of others) {
    const same = pool?.monitor === undefined ? undefined : members.find(({ address }) => ours.has(`${listener.protocol} ${address}`));
    if (same !== undefined) return `its listener ${listener.name || listener.id}, which is somebody else's, has ${same.address} probed`;
  }
  return undefined;
}

const nothing: ReadonlySet<string> = new Set();

/** Of members that go, by protocol and address. */
function lostOf(staying: readonly Staying[], leaving: readonly FoundListener[]): ReadonlySet<string> {
  const going = staying.map(({ found, request }) => {
    const wanted = new Set(request.default_pool.members.map(({ address, protocol_port: port }) => `${address} ${port}`));
    return { ...found, members: found.members.filter(({ address, port }) => !wanted.has(`${address} ${port}`)) };
  });
  return new Set(
    [...leaving, ...going].flatMap(({ listener, members }) => members.map(({ address }) => `${listener.protocol} ${address}`)),
  );
}

const isTimed = ({ delay, timeout, retries, retriesDown }: HealthMonitor, request: MonitorRequest): boolean =>
  delay === request.delay &&
  timeout === request.timeout &&
  retries === request.max_retries &&
  retriesDown === (request.max_retries_down ?? retriesDown);
