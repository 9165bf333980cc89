// An agent's probes to other hosts, put together: what is to be tried comes from its facts, packets go by the host's own sockets.
import { setTimeout as wait } from 'node:timers/promises';
import type { Agent, Log } from '#agent/agent.ts';
import { HostFirewall } from '#agent/host-firewall.ts';
import type { LearnedRoutes } from '#agent/learned-routes.ts';
import { isBetweenHosts, Prober } from '#agent/prober.ts';
import { presentNetworks } from '#drivers/plan.ts';
import { type PeerChecks, probesOf, virtualChecks } from '#drivers/probes.ts';
import { virtualAddresses } from '#drivers/virtual.ts';
import { readHostFilters } from '#kernel/host-filters.ts';
import type { RealKinds } from '#kernel/kinds.ts';
import { ProbeSockets } from '#kernel/probe-sockets.ts';
import { isFault } from '#model/fault.ts';
import { unknownInterface } from '#model/numbers.ts';
import { answersProbes, type HostPackets, type Paths } from '#model/paths.ts';
import type { Host, Underlay } from '#model/resources.ts';
import type { Options } from './agent-options.ts';
import type { HostItself } from './host-itself.ts';

const turnMs = 10_000;
/** How soon the next turn comes after the agent has heard everything, as long as the host is not called ready for want of one. */
const firstTurnMs = 500;

interface Surroundings {
  readonly kinds: RealKinds;
  /** Known as soon as this turn of the event loop is over. */
  readonly agent: () => Agent;
  readonly learned: Pick<LearnedRoutes, 'last'>;
  /** Links that the host has. Fault `invalid`. */
  readonly underlay: () => Underlay[];
  /** Told after each turn what is known by then, where nobody else asks for it. */
  readonly turned?: ((paths: Paths, here: HostPackets) => void) | undefined;
  readonly itself: Pick<HostItself, 'crowded'>;
  readonly log: Log;
  readonly closing: AsyncDisposableStack;
}

/** Begins when the agent is there, and ends with `closing`. Undefined among hosts of flannel, which answer nobody. */
export function probing({ flannel }: Pick<Options, 'flannel'>, surroundings: Surroundings): Prober | undefined {
  if (flannel !== undefined) return undefined;
  const { kinds, agent, learned, log, closing } = surroundings;
  const stop = new AbortController();
  const prober: Prober = new Prober({
    checks: () => checksOf(selfOf(surroundings), agent(), learned.last),
    isWhole: () => agent().view.isSynced,
    send: (probe) => sockets.send(probe),
    wait: (ms) => wait(ms, undefined, { signal: stop.signal, ref: false }).catch(() => undefined),
    now: () => performance.now(),
    changed: () => agent().loop.kick(),
    log: (fields, message) => log.warn(fields, message),
  });
  const sockets = closing.use(
    new ProbeSockets(kinds.sockets, {
      answered: (nonce) => prober.answered(nonce),
      mayAnswer: (from, to) => isBetweenHosts(agent().view.snapshot, agent().local.host, from, to),
      now: () => performance.now(),
    }),
  );
  const firewall = new HostFirewall({
    read: readHostFilters,
    desired: () => agent().desired,
    uplink: () => selfOf(surroundings)?.underlay[0]?.interface,
    shut: () => sockets.shut(),
    hostOf: (ip) => [...agent().view.snapshot.hosts.values()].find(({ underlay }) => underlay.some((one) => one.ip === ip))?.name ?? ip,
    now: () => performance.now(),
  });
  closing.defer(() => stop.abort());
  setImmediate(() => {
    agent().onReport(() => problemsOf(firewall, log));
    void run(prober, { ...surroundings, sockets, firewall, signal: stop.signal });
  });
  return prober;
}

function problemsOf(firewall: HostFirewall, log: Log): readonly string[] {
  try {
    return firewall.problems();
  } catch (error) {
    if (!isFault(error)) throw error;
    log.warn({ error }, 'cannot read what other packet filters this host has');
    return [];
  }
}

/** With the links that it has here: Nodes do not tell of them. Fault `invalid` when it has none. */
function selfOf({ agent, underlay }: Pick<Surroundings, 'agent' | 'underlay'>): Host | undefined {
  const { view, local } = agent();
  const self = view.snapshot.hosts.get(local.host);
  const isTold = self === undefined || self.underlay.some((one) => one.interface !== unknownInterface);
  return isTold ? self : { ...self, underlay: underlay() };
}

function checksOf(self: Host | undefined, { view: { snapshot }, endpoints }: Agent, last: LearnedRoutes['last']): readonly PeerChecks[] {
  if (self === undefined) return [];
  const carriages = presentNetworks(snapshot, endpoints.all(), { self, learned: last }).map(({ carriage }) => carriage);
  const virtual = virtualChecks(virtualAddresses(snapshot, endpoints.all(), self), self, snapshot);
  return probesOf(carriages, virtual).filter(({ host }) => snapshot.hosts.get(host)?.status.features[answersProbes] !== false);
}

interface Run extends Pick<Surroundings, 'agent' | 'underlay' | 'turned' | 'itself' | 'log'> {
  readonly sockets: ProbeSockets;
  readonly firewall: HostFirewall;
  readonly signal: AbortSignal;
}

async function run(prober: Prober, { sockets, firewall, agent, underlay, turned, itself, log, signal }: Run): Promise<void> {
  let said = '';
  while (!signal.aborted) {
    try {
      const { hosts } = agent().view.snapshot;
      // Alone there is nobody to ask or to answer.
      sockets.listen(hosts.size > 1 ? selfOf({ agent, underlay })?.underlay[0]?.interface : undefined, {
        isFiltered: firewall.isFiltering(),
      });
      await prober.turn();
      if (!signal.aborted) turned?.(prober.paths(), { dropped: problemsOf(firewall, log), crowded: itself.crowded() });
      said = '';
    } catch (error) {
      if (!isFault(error, 'kernel') && !isFault(error, 'invalid')) throw error;
      if (error.message !== said) log.warn({ error }, 'cannot try the ways to other hosts');
      said = error.message;
      prober.giveUp();
    }
    await pause(prober, { agent, signal });
  }
}

async function pause(prober: Prober, { agent, signal }: Pick<Run, 'agent' | 'signal'>): Promise<void> {
  for (let left = turnMs; left > 0 && !signal.aborted;) {
    const step = prober.hasTriedAll ? left : firstTurnMs;
    await wait(step, undefined, { signal, ref: false }).catch(() => undefined);
    left = !prober.hasTriedAll && agent().view.isSynced ? 0 : left - step;
  }
}
