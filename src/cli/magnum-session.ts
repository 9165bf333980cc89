// What all commands of `causeway magnum` begin with: the login, a cluster's network, and how one waits for Magnum.
import { setTimeout as delay } from 'node:timers/promises';
import { findCloud } from '#cloud/clouds.ts';
import { Magnum } from '#cloud/magnum.ts';
import type { MagnumCluster } from '#cloud/magnum-schemas.ts';
import { type ClusterNetwork, networkOf } from '#cloud/magnum-network.ts';
import { CloudSession } from '#cloud/session.ts';
import { Fault, isFault } from '#model/fault.ts';
import type { Command } from 'commander';
import { seconds } from './command.ts';
import type { Session } from './session.ts';

export interface CloudOptions {
  readonly cloud?: string;
}
export interface WaitOptions extends CloudOptions {
  readonly wait?: true;
  readonly timeout: string;
}

export const withCloud = (command: Command): Command =>
  command.option('--cloud <name>', 'cloud of clouds.yaml; otherwise OS_CLOUD or the other OS_* variables');

export const withWait = (command: Command, usual: string): Command =>
  withCloud(command).option('--wait', 'until it is done, with progress').option('--timeout <duration>', 'how long at most', usual);

/** Logs in and hands over; the connection ends with the work. */
export async function inMagnum<T>(session: Session, options: CloudOptions, work: (magnum: Magnum) => Promise<T>): Promise<T> {
  const cloud = await findCloud(session.surroundings.cloud, options.cloud);
  session.waitingFor = `the cloud at ${cloud.authUrl}`;
  await using login = new CloudSession(cloud);
  return await work(new Magnum(login));
}

/** Of a cluster: its own labels where it has some, as Magnum has them. Faults as networkOf. */
export async function networkOfCluster(magnum: Magnum, cluster: MagnumCluster): Promise<ClusterNetwork> {
  const { networkDriver } = await magnum.template(cluster.template);
  return networkOf({ networkDriver, labels: cluster.labels, cluster });
}

/** What is not done as a label says, a line on standard error each. */
export function tellNotes(session: Session, { notes }: ClusterNetwork): void {
  for (const note of notes) session.surroundings.stderr.write(`note: ${note}\n`);
}

/** One line on standard error for each thing that has changed. */
export function teller(session: Session, what: string): (news: string) => void {
  let before = '';
  return (news) => {
    if (news === before) return;
    before = news;
    session.waitingFor = `${what}: ${news}`;
    session.surroundings.stderr.write(`${what}: ${news}\n`);
  };
}

export interface Waiting {
  /** As the user wrote it. */
  readonly timeout: string;
  readonly intervalMs?: number;
}

/** Asks until there is an answer. Fault `timeout`, which says what was seen last. */
export async function waitFor<T>(
  { timeout, intervalMs = 2000 }: Waiting,
  seen: () => string,
  ask: () => Promise<T | undefined>,
): Promise<T> {
  const end = performance.now() + seconds(timeout, 'timeout') * 1000;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() > end)
      throw new Fault('timeout', `Not done within ${timeout}: ${seen()}`, { hint: 'It may go on: look again later' });
    await delay(intervalMs);
  }
}

/** `HEALTHY`, with what is not well. */
export function healthText({ health, healthReason }: MagnumCluster): string {
  const bad = Object.entries(healthReason).filter(([, value]) => !/^(true|ok)$/i.test(value));
  const about = bad.map(([name, value]) => `${name}=${value}`).join(', ');
  return about === '' ? (health ?? 'not known') : `${health ?? 'not known'} (${about})`;
}

export interface Settling extends Waiting {
  readonly id: string;
  /** Whether Magnum has taken up what it is waited for; absent: it has. */
  readonly isBegun?: (cluster: MagnumCluster) => boolean;
}

/** Waits until Magnum has done what it was at. Faults: `unavailable` with its reason when that failed, `timeout`. */
export async function settled(session: Session, magnum: Magnum, { id, timeout, isBegun }: Settling): Promise<MagnumCluster> {
  let seen = 'not begun';
  const tell = teller(session, 'status');
  return waitFor(
    { timeout },
    () => seen,
    async () => {
      const found = await present(magnum.cluster(id));
      seen = found?.status ?? 'not begun';
      tell(seen);
      if (found === undefined || found.status.endsWith('_IN_PROGRESS') || isBegun?.(found) === false) return undefined;
      if (!found.status.endsWith('_FAILED')) return found;
      throw new Fault('unavailable', `Magnum says of cluster ${found.name}: ${found.status}: ${found.reason ?? 'no reason given'}`, {
        hint: 'Remove it with "causeway magnum cluster delete", or ask the operator of the cloud',
      });
    },
  );
}

/** Waits until there is no such cluster any more. Faults as `settled`. */
export async function gone(
  session: Session,
  magnum: Pick<Magnum, 'cluster'>,
  { id, ...waiting }: Waiting & { readonly id: string },
): Promise<void> {
  let seen = '';
  const tell = teller(session, 'status');
  await waitFor(
    waiting,
    () => seen,
    async () => {
      const found = await present(magnum.cluster(id)).catch(takenApart);
      if (found === 'taken apart') return undefined;
      if (found === undefined) return true;
      seen = found.status;
      tell(seen);
      if (found.status !== 'DELETE_FAILED') return undefined;
      throw new Fault('unavailable', `Magnum cannot remove cluster ${found.name}: ${found.reason ?? 'no reason given'}`);
    },
  );
}

/** Node groups go before their cluster, and of a cluster without any Magnum says that it is invalid itself (`master_count`). */
function takenApart(error: unknown): 'taken apart' {
  if (isFault(error, 'invalid')) return 'taken apart';
  throw error;
}

/** Undefined for what is not there, yet or any more. */
export async function present<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (isFault(error, 'not-found')) return undefined;
    throw error;
  }
}
