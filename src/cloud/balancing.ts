// Reads load balancers with all that belongs to them, and takes the steps of a plan for them. Those of OVN are settled within seconds,
// which is waited for; of others, for which machines start, only what a step has to come after is: the rest is seen by a later look.
import { isFault } from '#model/fault.ts';
import type { BalancerStep, FoundBalancer } from './balancer-steps.ts';
import type { FoundListener } from './balancer-requests.ts';
import { isOfCauseway } from './named.ts';
import type { Neutron } from './neutron.ts';
import { type LoadBalancerRequest, Octavia } from './octavia.ts';
import type { Listener, LoadBalancer, Member } from './octavia-schemas.ts';
import type { CloudState } from './plan.ts';
import { isPassing } from './providers.ts';
import { isRefusal } from './refused.ts';
import type { ReachState } from './reach.ts';
import type { CloudSession } from './session.ts';

type Balancing = Pick<CloudState, 'balancers' | 'providers' | 'subnets' | 'unread'>;

/** All of the project; with subnets, from which some speak to hosts and their floating IPs are. `shared`: ids of those that are to be shared. */
export async function readBalancers(neutron: Neutron, shared: ReadonlySet<string | undefined>): Promise<Balancing> {
  const octavia = await Octavia.of(neutron.session);
  if (octavia === undefined) return { balancers: [] };
  try {
    return await readAll(neutron, octavia, shared);
  } catch (error) {
    // Octavia has roles of its own, which a project's members may lack who need no load balancer.
    if (isFault(error, 'forbidden')) return { balancers: [], unread: error };
    throw error;
  }
}

async function readAll(neutron: Neutron, octavia: Octavia, shared: ReadonlySet<string | undefined>): Promise<Balancing> {
  const own = { project_id: (await neutron.session.token()).project.id };
  const [offered, found] = await Promise.all([octavia.providers(), octavia.list('loadbalancers', own)]);
  const providers = offered.map(({ name }) => name);
  const isKnown = (balancer: LoadBalancer): boolean => isOfCauseway(balancer) || shared.has(balancer.id);
  const [balancers, subnets] = await Promise.all([
    found.length === 0 ? [] : withParts(octavia, { found, isKnown }, own),
    neutron.list('subnets'),
  ]);
  return { balancers, providers, subnets };
}

/** All parts of a kind at once; only members are told a pool at a time, and are read of what Causeway has made, whichever installation, or is to be on. */
async function withParts(
  octavia: Octavia,
  { found, isKnown }: { readonly found: readonly LoadBalancer[]; readonly isKnown: (balancer: LoadBalancer) => boolean },
  own: { readonly project_id: string },
): Promise<FoundBalancer[]> {
  const [listeners, pools, monitors] = await Promise.all([
    octavia.list('listeners', own),
    octavia.list('pools', own),
    octavia.list('healthmonitors', own),
  ]);
  const read = async (listener: Listener, isSought: boolean): Promise<FoundListener> => {
    const pool = pools.find(({ id }) => id === listener.pool);
    if (pool === undefined || !isSought) return { listener, pool, members: [] };
    const monitor = monitors.find(({ id }) => id === pool.monitor);
    return { listener, pool, members: await membersOf(octavia, pool.id), ...(monitor === undefined ? {} : { monitor }) };
  };
  return Promise.all(
    found.map(async (balancer) => {
      const its = listeners.filter(({ loadBalancers }) => loadBalancers.includes(balancer.id));
      return { balancer, listeners: await Promise.all(its.map((listener) => read(listener, isKnown(balancer) || isOfCauseway(listener)))) };
    }),
  );
}

/** What is being removed, by whomever, may have gone since it was listed. */
async function membersOf(octavia: Octavia, pool: string): Promise<readonly Member[]> {
  try {
    return await octavia.members(pool);
  } catch (error) {
    if (isFault(error, 'not-found')) return [];
    throw error;
  }
}

/** Where Octavia does not tell them: why. Faults as Octavia.of. */
export async function readListeners(session: CloudSession): Promise<Pick<ReachState, 'balancers' | 'unread'>> {
  const octavia = await Octavia.of(session);
  if (octavia === undefined) return { balancers: [] };
  const own = { project_id: (await session.token()).project.id };
  try {
    const [found, listeners] = await Promise.all([octavia.list('loadbalancers', own), octavia.list('listeners', own)]);
    const listenersOf = (balancer: LoadBalancer): Listener[] => listeners.filter(({ id }) => balancer.listeners.includes(id));
    return { balancers: found.map((balancer) => ({ balancer, listeners: listenersOf(balancer) })) };
  } catch (error) {
    if (!isFault(error)) throw error;
    return { balancers: [], unread: error };
  }
}

/** Waits until nothing of it is in motion before and, of OVN's, after: in between Octavia takes no change. */
export async function changeBalancer(octavia: Octavia, step: BalancerStep): Promise<void> {
  if (step.type === 'make-balancer') {
    await makeBalancer(octavia, step.request);
    return;
  }
  const { id, provider } = step.balancer;
  if (step.type === 'remove-balancer') {
    await octavia.remove(id);
    if (isPassing(provider)) await octavia.settled(id, { isGoing: true });
    return;
  }
  if ((await octavia.settled(id)) === undefined) return;
  await changePart(octavia, step);
  if (isPassing(provider)) await octavia.wholeSettled(id);
}

/**
 * Of one that Octavia refuses for what is to belong to it, the port that it is to have at Neutron stays, each time (octavia/api/v2/controllers/
 * load_balancer.py, post). So it is made without: whatever is refused then leaves nothing.
 */
async function makeBalancer(octavia: Octavia, request: LoadBalancerRequest): Promise<void> {
  const made = await octavia.create(request).catch((error: unknown) => {
    if (isRefusal(error) && error.code !== 'forbidden' && request.listeners.length > 0) return error;
    throw error;
  });
  const { id } = isFault(made) ? await octavia.create({ ...request, listeners: [] }) : made;
  if (isPassing(request.provider)) await octavia.wholeSettled(id);
  if (isFault(made)) throw made;
}

function changePart(octavia: Octavia, step: Exclude<BalancerStep, { type: 'make-balancer' | 'remove-balancer' }>): Promise<unknown> {
  switch (step.type) {
    case 'add-listener':
      return octavia.addListener(step.balancer.id, step.request);
    case 'remove-listener':
      return removeListener(octavia, step);
    case 'set-listener':
      return octavia.update('listeners', step.listener.id, step.fields);
    case 'set-certificate':
      return octavia.update('listeners', step.listener.id, { default_tls_container_ref: step.certificate });
    case 'set-pool':
      return octavia.update('pools', step.pool, step.fields);
    case 'set-members':
      return octavia.setMembers(step.pool, step.members);
    case 'add-monitor':
      return octavia.addMonitor(step.pool, step.request);
    case 'remove-monitor':
      return octavia.removeMonitor(step.balancer.id, step.monitor.id);
    case 'set-monitor': {
      const { type: _, ...fields } = step.request;
      return octavia.update('healthmonitors', step.monitor.id, fields);
    }
    default:
      throw new TypeError('Broken invariant: a step of no known type');
  }
}

async function removeListener(
  octavia: Octavia,
  { balancer, listener, next }: Extract<BalancerStep, { type: 'remove-listener' }>,
): Promise<void> {
  if (next !== undefined) await octavia.tryListener(balancer.id, next.request);
  await octavia.removeListener(balancer.id, listener);
}

/** To repair it is beyond Octavia's users. */
export const wasNothing = ({ provider, provisioning }: LoadBalancer): boolean => !isPassing(provider) && provisioning === 'ERROR';
