// `causeway agent --uninstall`: takes off the host what an agent leaves there on purpose when it ends: what it has in the
// kernel, its files, and the networks in Docker's list. Everything of ours is found by its marks (link prefix and alias, route protocol, table, namespace
// names), so no journal is asked; a cluster is told only.
import { mkdirSync, rmdirSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { leaveEngine } from '#docker/leaving.ts';
import { Reconciler } from '#agent/reconcile.ts';
import { removeForwarding } from '#kernel/forwarding.ts';
import { emptyDesired } from '#model/desired.ts';
import { KubernetesClient } from '#kubernetes/client.ts';
import { readKubeconfig } from '#kubernetes/kubeconfig.ts';
import { leaveNode } from '#kubernetes/leaving.ts';
import { Fault, isFault } from '#model/fault.ts';
import { openKernel } from './kernel.ts';

export interface Traces {
  readonly state: string;
  readonly run: string;
  readonly cniConf: string;
  /** Docker's socket; absent: there is no engine. */
  readonly engine?: string;
  readonly plugin: string;
  readonly driver: string;
  /** Kubeconfig of a cluster, in which this host's Node has the name. */
  readonly leaving?: string;
  readonly host: string;
}

function isServed(socket: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const asked = connect(socket);
  asked.once('connect', () => {
    asked.destroy();
    resolve(true);
  });
  asked.once('error', () => resolve(false));
  return promise;
}

/**
 * Nothing of it there is success. Pods are cut off, Docker's containers must have gone; settings below /proc/sys stay. The
 * runtime's configuration goes first, so that no container is attached any more. Faults: `in-use` (an agent runs, or Docker's
 * containers use its networks), `unavailable` (an engine does not answer), `kernel`.
 */
export async function uninstall(traces: Traces, log: Logger): Promise<void> {
  const { state, run, cniConf, engine, plugin, driver } = traces;
  if (await isServed(join(run, 'agent.sock'))) {
    throw new Fault('in-use', 'Cannot uninstall: an agent is running on this host', { hint: 'Stop it, or delete its DaemonSet, first.' });
  }
  if (engine !== undefined) log.info({ networks: await leaveEngine({ engine, plugin, driver }) }, 'removed from the engine');
  rmSync(cniConf, { force: true });
  // Before the rules go by which the API server may be reached.
  await leaveCluster(traces, log);
  mkdirSync(state, { recursive: true, mode: 0o700 });
  const { kinds } = openKernel({ state, run });
  try {
    const { changed, failing } = new Reconciler(kinds).apply(emptyDesired, true);
    const [first] = failing;
    if (first !== undefined) throw first.fault;
    log.info({ removed: changed }, 'nothing of ours is in the kernel');
  } finally {
    kinds[Symbol.dispose]();
  }
  removeForwarding();
  clear(state, ['agent.db', 'agent.db-wal', 'agent.db-shm', 'identity.json', 'wireguard.key', 'talk.key', 'compile']);
  clear(run, ['agent.sock', 'cni.sock', 'cni.ready', 'wireguard', 'bird']);
  log.info({ state, run }, 'files removed');
}

/** A cluster that is away, or no more, keeps nothing from being taken off. */
async function leaveCluster({ leaving, host }: Traces, log: Logger): Promise<void> {
  if (leaving === undefined) return;
  try {
    await using client = new KubernetesClient(readKubeconfig(leaving));
    await leaveNode(client, host);
    log.info({ node: host }, 'the Node says nothing of us any more');
  } catch (error) {
    if (!isFault(error)) throw error;
    log.warn({ error, node: host }, 'cannot take away what the Node says of us');
  }
}

/** A controller of this machine, or a mount, may need the folder itself further on. */
function clear(folder: string, names: readonly string[]): void {
  for (const name of names) rmSync(join(folder, name), { recursive: true, force: true });
  try {
    rmdirSync(folder);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code !== 'ENOTEMPTY' && code !== 'EBUSY' && code !== 'ENOENT') throw error;
  }
}
