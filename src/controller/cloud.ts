// What of the cloud the controllers of an installation share: which of them keeps it, and what that one has last seen there. Whoever
// speaks with the cloud itself is in src/cloud, and put together with this by src/bin, only where there is a cloud to keep.
import { hostname } from 'node:os';
import { type CloudReport, cloudReport } from '#api/answers.ts';
import { parseAnswer } from '#api/parse.ts';
import { Fault } from '#model/fault.ts';
import type { Exposure, Network, Resources } from '#model/resources.ts';
import { type Control, transact } from './control.ts';
import { Lease, renewMs } from './lease.ts';
import { type Change, type Mirror, pause } from './mirror.ts';
import { keys, putResource, readResource, toJson } from './records.ts';

/** Fault `not-found` while nobody keeps a cloud. */
export async function readCloudReport({ store }: Pick<Control, 'store'>): Promise<CloudReport> {
  const entry = await store.get(keys.cloudReport);
  if (entry === undefined)
    throw new Fault('not-found', 'No controller keeps a cloud', { hint: 'Start one with --cloud, as docs/openstack.md says' });
  return parseAnswer(cloudReport, entry.value, keys.cloudReport);
}

export async function writeCloudReport({ store }: Pick<Control, 'store'>, report: CloudReport): Promise<void> {
  await store.commit([{ type: 'put', key: keys.cloudReport, value: toJson(report) }]);
}

type Facts = { readonly [K in (typeof factKinds)[number]]: readonly Resources[K][] };
const factKinds = ['hosts', 'networks', 'pools', 'blocks', 'endpoints', 'exposures', 'bgp'] as const;

/** What a cloud may have to know of. */
export const cloudFacts = ({ mirror }: Pick<Control, 'mirror'>): Facts => {
  const all = <K extends (typeof factKinds)[number]>(kind: K): Resources[K][] => [...mirror.all(kind).values()];
  return {
    hosts: all('hosts'),
    networks: all('networks'),
    pools: all('pools'),
    blocks: all('blocks'),
    endpoints: all('endpoints'),
    exposures: all('exposures'),
    bgp: all('bgp'),
  };
};

/** Hosts report every few seconds, and most of it is no news to a cloud. */
function concernsCloud(change: Change): boolean {
  if (change.kind !== 'hosts') return factKinds.some((kind) => kind === change.kind);
  const news = (host: typeof change.before): string => JSON.stringify([host?.underlay, host?.labels]);
  return news(change.before) !== news(change.after);
}

export function onCloudNews(mirror: Pick<Mirror, 'listen'>, tell: () => void): Disposable {
  return mirror.listen({
    changed: (change) => {
      if (concernsCloud(change)) tell();
    },
    privateChanged: () => undefined,
    restarted: tell,
  });
}

type Instead = NonNullable<Network['instead']>;

/** What the networks' hosts follow as soon as they see it; containers stay as they are. */
async function carry(control: Control, networks: readonly Network[], how: (found: Network) => Network): Promise<void> {
  for (const { id } of networks) {
    const revision = await transact(control, async () => {
      const found = await readResource(control.store, 'networks', id);
      const next = found === undefined ? undefined : how(found);
      const isNews = found !== undefined && next !== undefined && next !== found;
      return { operations: isNews ? [putResource('networks', next, found.revision)] : [], answer: (at) => at };
    });
    await control.mirror.reached(revision);
  }
}

export const carryInstead = (control: Control, networks: readonly Network[], because: Instead['because']): Promise<void> =>
  carry(control, networks, (found) =>
    found.instead === undefined
      ? { ...found, choices: { ...found.choices, carry: 'vxlan' }, instead: { carry: found.choices.carry, because: because.slice(0, 256) } }
      : found,
  );

export const carryAsWanted = (control: Control, networks: readonly Network[]): Promise<void> =>
  carry(control, networks, (found) => {
    const { instead, ...rest } = found;
    return instead === undefined ? found : { ...rest, choices: { ...found.choices, carry: instead.carry } };
  });

/** `placing`: what hosts have to know of it by the exposure; they follow as soon as they see it. */
export async function placeExposures(control: Control, placing: (exposure: Exposure) => Exposure): Promise<void> {
  for (const exposure of control.mirror.all('exposures').values()) {
    if (placing(exposure) === exposure) continue;
    await transact(control, async () => {
      const found = await readResource(control.store, 'exposures', exposure.id);
      const next = found === undefined ? undefined : placing(found);
      const isNews = found !== undefined && next !== undefined && next !== found;
      return { operations: isNews ? [putResource('exposures', next, found.revision)] : [], answer: () => undefined };
    });
  }
}

/** Of the controllers that keep one cloud. */
export const cloudLease = ({ store, log, newId }: Control): Lease =>
  new Lease({ store, log, name: 'cloud', holder: `${hostname()} ${newId()}` });

/** Takes and renews it until `signal` aborts, and gives it back then. `won` is called whenever it has become ours. */
export async function holdLease(lease: Lease, won: () => void, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const was = lease.isHeld;
    await lease.step();
    if (!was && lease.isHeld) won();
    await pause(renewMs, signal);
  }
  await lease.release();
}
