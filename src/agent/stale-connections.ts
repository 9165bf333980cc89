// What the kernel remembers of services beyond their end: translations of connections that know no end by themselves, and
// clients that are to be led to the backend they had. Pure: from the plan before and the plan now to what has to go.
//
// As kube-proxy does it, connections by TCP are left alone: a backend that takes no new ones keeps those it has, and one that is
// gone ends them by itself. UDP's and SCTP's are cut where their backend is no longer one of the service's, and also where a
// client began to speak to a service's address before the service was known here: those are not translated at all.
import type { Desired, NftElement } from '#model/desired.ts';
import { parseIp } from '#model/ip.ts';
import type { ConntrackSelection } from '#kernel/conntrack.ts';

export interface Front {
  readonly protocol: string;
  /** Who may answer, `address . port`. */
  readonly backends: ReadonlySet<string>;
  readonly keepsClients: boolean;
}

/** By `address . protocol . port`: those that anything is remembered of. */
export type Fronts = ReadonlyMap<string, Front>;

interface Draft {
  readonly protocol: string;
  readonly backends: Set<string>;
  keepsClients: boolean;
}

const carriers = ['udp', 'sctp'] as const;

const isOfConcern = ({ key }: NftElement, kept: Pick<ReadonlySet<string>, 'size' | 'has'>): boolean =>
  carriers.some((protocol) => key.includes(` . ${protocol} . `)) || (kept.size > 0 && kept.has(placeOf(key)));

const placeOf = (key: string): string => key.split(' . ', 3).join(' . ');
const isFront = (set: string): boolean => set === 'fronts4' || set === 'fronts6';
const isBackend = (set: string): boolean => set.startsWith('backends') || set.startsWith('outer_backends');

/** Whether an element that comes or goes has a say in what follows, where `before` is what did so far. */
export const isOfFronts = (one: NftElement, before: Fronts): boolean =>
  one.set.startsWith('stays') || ((isFront(one.set) || isBackend(one.set)) && isOfConcern(one, before));

/** Fronts by TCP whose clients are free are left out: nothing is remembered of them that has to go. */
export function frontsOf({ element }: Desired): Fronts {
  const kept = new Set(element.filter(({ set }) => set.startsWith('stays')).map(({ key }) => key));
  const fronts = new Map<string, Draft>();
  for (const one of element) {
    const isKnown = isFront(one.set) || isBackend(one.set);
    if (!isKnown || !isOfConcern(one, kept)) continue;
    const place = placeOf(one.key);
    const front = fronts.get(place) ?? {
      protocol: place.split(' . ')[1] ?? '',
      backends: new Set<string>(),
      keepsClients: kept.has(place),
    };
    for (const backend of one.values ?? []) front.backends.add(backend);
    fronts.set(place, front);
  }
  return fronts;
}

const sameBackends = (a: Front, b: Front): boolean =>
  a.backends.size === b.backends.size && [...a.backends].every((one) => b.backends.has(one));

function selectionOf(place: string): ConntrackSelection | undefined {
  const [destination = '', protocol, port] = place.split(' . ');
  if (protocol !== 'udp' && protocol !== 'sctp') return undefined;
  return { protocol, destination: parseIp(destination), destinationPort: Number(port) };
}

/** Connections to cut. `before` undefined: nothing is known of what was, so all that is wrong now is meant. */
export function staleConnections(before: Fronts | undefined, now: Fronts): ConntrackSelection[] {
  const stale: ConntrackSelection[] = [];
  for (const [place, front] of now) {
    const earlier = before?.get(place);
    const selection = selectionOf(place);
    if (selection !== undefined && (earlier === undefined || !sameBackends(earlier, front)))
      stale.push({ ...selection, except: front.backends });
  }
  for (const [place, { backends }] of before ?? []) {
    const selection = now.has(place) ? undefined : selectionOf(place);
    if (selection === undefined) continue;
    for (const backend of backends) {
      const [ip = '', port] = backend.split(' . ');
      stale.push({ ...selection, replySource: parseIp(ip), replySourcePort: Number(port) });
    }
  }
  return stale;
}

const keeps = ([, { keepsClients }]: [string, Front]): boolean => keepsClients;

/** Whether clients may be noted whose backend has gone: a service that keeps clients is new, lost a backend, or is gone. */
export function mayNoteStale(before: Fronts | undefined, now: Fronts): boolean {
  return (
    [...now].filter(keeps).some(([place]) => before?.get(place)?.keepsClients !== true) ||
    [...(before ?? [])].filter(keeps).some(([place, { backends }]) => {
      const later = now.get(place);
      return later === undefined || [...backends].some((backend) => !later.backends.has(backend));
    })
  );
}

/** Whether the backend that is noted for a client, under `client . address . protocol . port`, is no longer one of the service's. */
export const isNotedStale = (now: Fronts, { key, value }: { readonly key: string; readonly value?: string }): boolean =>
  now.get(key.split(' . ').slice(1).join(' . '))?.backends.has(value ?? '') !== true;
