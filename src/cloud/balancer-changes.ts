// What is changed about a load balancer that is there. Its listeners are those of what it is for; what is exposed on one that is not its own
// has listeners there that say so by their tags. Listeners of others, by tags of theirs or on a load balancer of theirs, are never
// touched. Pure.
import { endsTls, fieldsOf, type FoundListener, isBalancing, isLedTo, isLost, isSame, isSet, poolFields } from './balancer-requests.ts';
import type { BalancerStep, FoundBalancer } from './balancer-steps.ts';
import { exposureTag } from './floating.ts';
import type { ListenerRequest } from './octavia.ts';
import type { Listener, LoadBalancer } from './octavia-schemas.ts';
import { monitorChanges, type Staying } from './probes.ts';
import { isPassing } from './providers.ts';
import type { WishedBalancer } from './wish.ts';

/** What is exposed by it, with its listeners as they are to be; undefined: they stay as they are. */
export interface Asked {
  readonly one: WishedBalancer;
  readonly wanted: readonly ListenerRequest[] | undefined;
}

/** `tag`: what every tag of the installation begins with. */
export const isOwn = ({ tags }: LoadBalancer, tag: string, id: string): boolean =>
  tags.includes(tag) && tags.includes(exposureTag(tag, id));

/** Of another installation, or of the cloud provider's (pkg/openstack/loadbalancer.go). */
const isOthers = ({ tags }: Listener, tag: string): boolean =>
  !tags.includes(tag) && tags.some((one) => one.startsWith('causeway.') || one.startsWith('kube_service_'));

/** What is removed with it would be somebody else's. */
export const isSharedWithOthers = ({ listeners }: FoundBalancer, tag: string): boolean =>
  listeners.some(({ listener }) => isOthers(listener, tag));

const isOurs = ({ balancer }: FoundBalancer, listener: Listener, tag: string): boolean =>
  listener.tags.includes(tag) || (balancer.tags.includes(tag) && !isOthers(listener, tag));

/** Listeners that are for somebody else to change. */
export const othersOn = (found: FoundBalancer, tag: string): FoundListener[] =>
  found.listeners.filter(({ listener }) => !isOurs(found, listener, tag));

/** Listeners of all protocols on TCP exclude each other. */
export const placeOn = (protocol: string, port: number): string =>
  `${protocol === 'UDP' || protocol === 'SCTP' ? protocol : 'TCP'} ${port}`;

/** Listeners of what is exposed. */
export const listenersFor = ({ balancer, listeners }: FoundBalancer, tag: string, id: string): FoundListener[] =>
  listeners.filter(
    ({ listener }) =>
      listener.tags.includes(exposureTag(tag, id)) ||
      (isOwn(balancer, tag, id) && !listener.tags.includes(tag) && !isOthers(listener, tag)),
  );

/**
 * Of listeners that nothing wants any more as well. Ports that go before those that come: the one may be the other with another protocol.
 * What Octavia may refuse for a certificate is last, so that all else has been done.
 */
export function changesOf(found: FoundBalancer, asked: readonly Asked[], tag: string): BalancerStep[] {
  const { balancer } = found;
  const parts = asked.map(({ one, wanted }) => {
    const its = listenersFor(found, tag, one.id);
    const staying = (wanted ?? []).flatMap((request): (Staying & { readonly one: WishedBalancer })[] => {
      const same = its.find((candidate) => isSame(candidate, request));
      return same === undefined ? [] : [{ id: one.id, one, found: same, request }];
    });
    const added = (wanted ?? []).filter((request) => !staying.some((stays) => stays.request === request));
    const kept = new Set(wanted === undefined ? its : staying.map((stays) => stays.found));
    return { one, its, staying, added, leaving: its.filter((listener) => !kept.has(listener)) };
  });
  const known = new Set(parts.flatMap(({ its }) => its));
  const ours = found.listeners.filter(({ listener }) => isOurs(found, listener, tag));
  const staying = parts.flatMap((part) => part.staying);
  const leaving = [...ours.filter((listener) => !known.has(listener)), ...parts.flatMap((part) => part.leaving)];
  const { gone, made, retimed } = monitorChanges(balancer.provider, staying, leaving);
  const added = parts.flatMap((part) => part.added.map((request) => ({ id: part.one.id, request })));
  const { going, coming, last } = endings(balancer, { staying, leaving, added });
  return [
    ...gone.map((monitor): BalancerStep => ({ type: 'remove-monitor', balancer, monitor, ...(isLost(monitor) ? { again: true } : {}) })),
    ...going.map(({ listener }): BalancerStep => ({ type: 'remove-listener', balancer, listener })),
    ...coming.map((one): BalancerStep => ({ type: 'add-listener', balancer, ...one })),
    ...staying.flatMap((stays) => stepsFor(balancer, stays, stays.one)),
    ...retimed.map((change): BalancerStep => ({ type: 'set-monitor', balancer, ...change })),
    ...made.map((change): BalancerStep => ({ type: 'add-monitor', balancer, ...change })),
    ...last,
  ];
}

interface Coming {
  /** Of what is exposed. */
  readonly id: string;
  readonly request: ListenerRequest;
}
interface Changing {
  readonly staying: readonly Staying[];
  readonly leaving: readonly FoundListener[];
  readonly added: readonly Coming[];
}

/** What Octavia may refuse for a certificate, in `last`, and the rest. In whose place TLS is to end stays until that certificate has been read. */
function endings(
  balancer: LoadBalancer,
  { staying, leaving, added }: Changing,
): { readonly going: readonly FoundListener[]; readonly coming: readonly Coming[]; readonly last: readonly BalancerStep[] } {
  const ending = added.filter(({ request }) => endsTls(request));
  const nextOf = ({ listener: { protocol, port } }: FoundListener): Coming | undefined =>
    ending.find(({ request }) => placeOn(request.protocol, request.protocol_port) === placeOn(protocol, port));
  const exchanged = staying.flatMap(({ id, found: { listener }, request: { default_tls_container_ref: certificate } }): BalancerStep[] =>
    certificate === undefined || certificate === listener.certificate
      ? []
      : [{ type: 'set-certificate', id, balancer, listener, certificate }],
  );
  const replaced = leaving.flatMap((one): BalancerStep[] => {
    const { listener } = one;
    const next = nextOf(one);
    if (next === undefined) return [];
    const fields = { allowed_cidrs: next.request.allowed_cidrs ?? [] };
    const narrowed: BalancerStep[] = isSet(listener, fields) ? [] : [{ type: 'set-listener', id: next.id, balancer, listener, fields }];
    return [...narrowed, { type: 'remove-listener', balancer, listener, next }];
  });
  return {
    going: leaving.filter((one) => nextOf(one) === undefined),
    coming: added.filter(({ request }) => !endsTls(request)),
    last: [...exchanged, ...replaced, ...ending.map((one): BalancerStep => ({ type: 'add-listener', balancer, ...one }))],
  };
}

/** Who may come first, so that nobody is let in by what follows. */
function stepsFor(balancer: LoadBalancer, { found, request }: Staying, one: WishedBalancer): BalancerStep[] {
  const { provider } = balancer;
  const { listener, pool, members: there } = found;
  const fields = fieldsOf(one, provider);
  const wanted = poolFields(one, provider);
  const { members } = request.default_pool;
  const steps: BalancerStep[] = [];
  if (!isSet(listener, fields)) steps.push({ type: 'set-listener', id: one.id, balancer, listener, fields });
  if (pool !== undefined && !isPassing(provider) && !isBalancing(pool, wanted))
    steps.push({ type: 'set-pool', balancer, pool: pool.id, fields: { session_persistence: null, ...wanted } });
  if (pool === undefined) return steps;
  if (!isLedTo(there, members)) steps.push({ type: 'set-members', balancer, pool: pool.id, members });
  else if (there.some(isLost)) steps.push({ type: 'set-members', balancer, pool: pool.id, members, again: true });
  return steps;
}
