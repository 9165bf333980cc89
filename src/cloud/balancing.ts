// Reads load balancers with all that belongs to them, and takes the steps of a plan for them. Those of OVN are settled within seconds,
// which is waited for; of others, for which machines start, only what a step has to come after is: the rest is seen by a later look.
import { isFault } from '#model/fault.ts';
import type { BalancerStep, FoundBalancer } from './balancer-steps.ts';
import type { FoundListener } from './balancer-requests.ts';
import { isOfCauseway } from './named.ts';
import type { Neutron } from './neutron.ts';
import { Octavia } from './octavia.ts';
import type { Listener, LoadBalancer, Member } from './octavia-schemas.ts';
import type { CloudState } from './plan.ts';
import { isPassing } from './providers.ts';
import type { ReachState } from './reach.ts';
import type { CloudSession } from './session.ts';

type Balancing = Pick<CloudState, 'balancers' | 'providers' | 'subnets' | 'unread'>;

/** All of the project; with subnets, from which some speak to hosts and their floating IPs are. */
export async function readBalancers(neutron: Neutron): Promise<Balancing> {
  const octavia = await Octavia.of(neutron.session);
  if (octavia === undefined) return { balancers: [] };
  try {
    return await readAll(neutron, octavia);
  } catch (error) {
    // Octavia has roles of its own, which a project's members may lack who need no load balancer.
    if (isFault(error, 'forbidden')) return { balancers: [], unread: error };
    throw error;
  }
}

async function readAll(neutron: Neutron, octavia: Octavia): Promise<Balancing> {
  const own = { project_id: (await neutron.session.token()).project.id };
  const [offered, found] = await Promise.all([octavia.providers(), octavia.list('loadbalancers', own)]);
  const providers = offered.map(({ name }) => name);
  const [balancers, subnets] = await Promise.all([found.length === 0 ? [] : withParts(octavia, found, own), neutron.list('subnets')]);
  return { balancers, providers, subnets };
}

/** All parts of a kind at once; only members are told a pool at a time, and are read of what Causeway has made, whichever installation. */
async function withParts(
  octavia: Octavia,
  balancers: readonly LoadBalancer[],
  own: { readonly project_id: string },
): Promise<FoundBalancer[]> {
  const [listeners, pools, monitors] = await Promise.all([
    octavia.list('listeners', own),
    octavia.list('pools', own),
    octavia.list('healthmonitors', own),
  ]);
  const read = async (listener: Listener, isOurs: boolean): Promise<FoundListener> => {
    const pool = pools.find(({ id }) => id === listener.pool);
    if (pool === undefined || !isOurs) return { listener, pool, members: [] };
    const monitor = monitors.find(({ id }) => id === pool.monitor);
    return { listener, pool, members: await membersOf(octavia, pool.id), ...(monitor === undefined ? {} : { monitor }) };
  };
  return Promise.all(
    balancers.map(async (balancer) => {
      const its = listeners.filter(({ loadBalancers }) => loadBalancers.includes(balancer.id));
      const isOurs = isOfCauseway(balancer);
      return { balancer, listeners: await Promise.all(its.map((listener) => read(listener, isOurs || isOfCauseway(listener)))) };
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

export async function readListeners(session: CloudSession): Promise<ReachState['balancers']> {
  const octavia = await Octavia.of(session);
  if (octavia === undefined) return [];
  const own = { project_id: (await session.token()).project.id };
  const [balancers, listeners] = await Promise.all([octavia.list('loadbalancers', own), octavia.list('listeners', own)]);
  return balancers.map((balancer) => ({ balancer, listeners: listeners.filter(({ id }) => balancer.listeners.includes(id)) }));
}

/** Waits until nothing of it is in motion before and, of OVN's, after: in between Octavia takes no change. */
export async function changeBalancer(octavia: Octavia, step: BalancerStep): Promise<void> {
  if (step.type === 'make-balancer') {
    const { id } = await octavia.create(step.request);
    if (isPassing(step.request.provider)) await octavia.wholeSettled(id);
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
