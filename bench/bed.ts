// The hosts that figures are taken on: a lab of its own with real engines that form a Swarm, so that Docker's built-in
// overlay and Causeway run on the same engines at the same time. Gone afterwards, also after a failure or an interrupt.
import { docker, startDockerd } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import { type ImageRecipe, importImages } from '#lab/images.ts';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { ensurePackages, labNeeds, type Need } from '#lab/packages.ts';
import { refOf } from '#lab/process.ts';
import { terminalProgress } from '#lab/progress.ts';
import { labNames } from '#lab/state.ts';
import { until } from '#lab/until.ts';

const progress = terminalProgress();

/** The underlay's. The built-in overlay takes its own 50 bytes off what it is told, but does not ask the underlay. */
const overlayMtu = 1450;

export interface BedOptions {
  readonly hosts: number;
  readonly images?: readonly ImageRecipe[];
  readonly needs?: readonly Need[];
  /** False: hosts only, no engines. */
  readonly engines?: boolean;
  readonly swarm?: boolean;
}

export class Bed implements AsyncDisposable {
  readonly lab: Lab;
  constructor(lab: Lab) {
    this.lab = lab;
  }

  get hosts(): readonly Host[] {
    return this.lab.hosts;
  }

  /** The `index`-th Docker host from 1. */
  host(index: number): Host {
    return this.lab.host(`host${index}`);
  }

  /** A built-in overlay network over all engines. Needs the Swarm. */
  async createOverlay(name: string, subnet: string): Promise<void> {
    const mtu = `com.docker.network.driver.mtu=${overlayMtu}`;
    await docker(this.host(1), ['network', 'create', '--driver=overlay', '--attachable', `--opt=${mtu}`, `--subnet=${subnet}`, name]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await progress.step(`Removing lab ${this.lab.name}`, () => removeBed(this.lab.name));
    beds.delete(this.lab.name);
  }
}

const beds = new Set<string>();

/** One bed at a time, a name for each process. */
const bedName = `bench-${process.pid}`;

/** A name for a lab that is removed by an interrupt, and by a later run. */
export async function claimBed(needs: readonly Need[]): Promise<string> {
  await ensurePackages(needs, progress);
  await removeLeftovers();
  beds.add(bedName);
  return bedName;
}

/** Builds the hosts, starts their engines and joins them to one Swarm. Labs of benchmarks that were killed are removed first. */
export async function makeBed({ hosts, images = [], needs = [], engines = true, swarm = true }: BedOptions): Promise<Bed> {
  const name = await claimBed([...labNeeds, ...needs]);
  await using undo = new AsyncDisposableStack();
  const lab = await progress.step(`Building lab ${name}`, () => createLab({ name, hosts }));
  const bed = undo.use(new Bed(lab));
  if (engines) {
    await progress.step('Starting engines', async () => {
      await Promise.all(lab.hosts.map((host) => startDockerd(host)));
      await Promise.all(lab.hosts.map((host) => importImages(host, images)));
      if (swarm) await joinSwarm(lab.hosts);
    });
  }
  undo.move();
  return bed;
}

async function joinSwarm([first, ...others]: readonly Host[]): Promise<void> {
  if (first === undefined) return;
  await docker(first, ['swarm', 'init', `--advertise-addr=${first.address}`]);
  const token = await docker(first, ['swarm', 'join-token', '--quiet', 'worker']);
  await Promise.all(
    others.map((host) => docker(host, ['swarm', 'join', `--advertise-addr=${host.address}`, `--token=${token}`, `${first.address}:2377`])),
  );
}

async function removeLeftovers(): Promise<void> {
  for (const name of labNames()) {
    const pid = /^bench-(\d+)$/.exec(name)?.[1];
    if (pid !== undefined && refOf(Number(pid)) === undefined) await destroyLab(name);
  }
}

const removals = new Map<string, Promise<void>>();

/** One removal at a time, also when an interrupt and the failure that it causes both ask for it. */
async function removeBed(name: string): Promise<void> {
  // The builder of a half-built lab holds its lock for two seconds or so.
  const remove = () =>
    until(`lab ${name} to be removed`, async () => (await destroyLab(name), true), { timeoutMs: 30_000, intervalMs: 200 });
  const removal = removals.get(name) ?? remove().then(() => undefined);
  removals.set(name, removal);
  try {
    await removal;
  } finally {
    removals.delete(name);
  }
}

/** For an interrupt: ends what is being measured and removes it. */
export async function removeBeds(): Promise<void> {
  for (const name of beds) await removeBed(name);
}
