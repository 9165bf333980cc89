// An agent's probes to other hosts, put together: what is to be tried comes from its facts, packets go by the host's own sockets.
import { setTimeout as wait } from 'node:timers/promises';
import type { Agent, Log } from '#agent/agent.ts';
import { isBetweenHosts, Prober } from '#agent/prober.ts';
import { presentNetworks } from '#drivers/plan.ts';
import { type PeerChecks, probesOf } from '#drivers/probes.ts';
import type { RealKinds } from '#kernel/kinds.ts';
import { ProbeSockets } from '#kernel/probe-sockets.ts';
import { isFault } from '#model/fault.ts';
import type { Options } from './agent-options.ts';

const turnMs = 10_000;

interface Surroundings {
  readonly kinds: RealKinds;
  /** Known as soon as this turn of the event loop is over. */
  readonly agent: () => Agent;
  readonly log: Log;
  readonly closing: AsyncDisposableStack;
}

/**
 * Begins when the agent is there, and ends with `closing`. Undefined in clusters without controllers, which are who judges what is
 * found.
 */
export function probing({ node, flannel }: Pick<Options, 'node' | 'flannel'>, surroundings: Surroundings): Prober | undefined {
  if (node !== undefined || flannel !== undefined) return undefined;
  const { kinds, agent, log, closing } = surroundings;
  const stop = new AbortController();
  const prober: Prober = new Prober({
    checks: () => checksOf(agent()),
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
    }),
  );
  closing.defer(() => stop.abort());
  setImmediate(() => void run(prober, { sockets, agent, log, signal: stop.signal }));
  return prober;
}

function checksOf(agent: Agent): readonly PeerChecks[] {
  const { snapshot } = agent.view;
  const self = snapshot.hosts.get(agent.local.host);
  if (self === undefined) return [];
  return probesOf(presentNetworks(snapshot, agent.endpoints.all(), { self, learned: undefined }).map(({ carriage }) => carriage));
}

interface Run {
  readonly sockets: ProbeSockets;
  readonly agent: () => Agent;
  readonly log: Log;
  readonly signal: AbortSignal;
}

async function run(prober: Prober, { sockets, agent, log, signal }: Run): Promise<void> {
  let said = '';
  while (!signal.aborted) {
    try {
      const { hosts } = agent().view.snapshot;
      const self = hosts.get(agent().local.host);
      // Alone there is nobody to ask or to answer.
      sockets.listen(hosts.size > 1 ? self?.underlay[0]?.interface : undefined);
      await prober.turn();
      said = '';
    } catch (error) {
      if (!isFault(error, 'kernel')) throw error;
      if (error.message !== said) log.warn({ error }, 'cannot try the ways to other hosts');
      said = error.message;
    }
    await wait(turnMs, undefined, { signal, ref: false }).catch(() => undefined);
  }
}
