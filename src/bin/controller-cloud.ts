// The controller's part that keeps an OpenStack cloud as the networks need it; loaded only where --cloud names one.
import { findCloud } from '#cloud/clouds.ts';
import { Keeper } from '#cloud/keeper.ts';
import { Neutron } from '#cloud/neutron.ts';
import { findSubnet, occupiedOf } from '#cloud/pools.ts';
import { CloudSession } from '#cloud/session.ts';
import { checkName } from '#cloud/wish.ts';
import {
  carryAsWanted,
  carryInstead,
  cloudFacts,
  cloudLease,
  holdLease,
  onCloudNews,
  placeVirtual,
  writeCloudReport,
} from '#controller/cloud.ts';
import type { Control } from '#controller/control.ts';
import { cloudSurroundings } from './cloud-surroundings.ts';

export interface CloudOptions {
  /** In clouds.yaml; true: what OS_* variables say. */
  readonly cloud: string | true;
  readonly cloudName: string;
  readonly cloudNetwork?: string;
  readonly cloudRoutes?: string;
  /** Seconds. */
  readonly cloudInterval: number;
}

/** Faults as findCloud. That the cloud cannot be reached is none: it may come. */
export async function keepCloud(control: Control, options: CloudOptions, env: NodeJS.ProcessEnv): Promise<AsyncDisposable> {
  const { log } = control;
  checkName(options.cloudName);
  const cloud = await findCloud(cloudSurroundings(env), options.cloud === true ? undefined : options.cloud);
  await using undo = new AsyncDisposableStack();
  const lease = cloudLease(control);
  const session = undo.use(new CloudSession(cloud, { mayWrite: () => lease.isHeld }));
  const where = cloud.name === 'environment' ? cloud.authUrl : `cloud ${cloud.name}`;
  let project: string | undefined;
  const neutron = new Neutron(session);
  const keeper = new Keeper({
    neutron,
    name: options.cloudName,
    scope: { network: options.cloudNetwork, router: options.cloudRoutes },
    facts: () => cloudFacts(control),
    isLeading: () => lease.isHeld,
    tell: (report) => writeCloudReport(control, report),
    carryInstead: ({ networks, because }) => carryInstead(control, networks, because),
    carryAsWanted: (networks) => carryAsWanted(control, networks),
    place: (placed) => placeVirtual(control, placed),
    where: async () => {
      project ??= await session.token().then(
        (token) => token.project.name,
        () => undefined,
      );
      return project === undefined ? where : `project ${project} of ${where}`;
    },
    intervalMs: options.cloudInterval * 1000,
    log,
  });
  control.cloud.ports = {
    find: (asked) => findSubnet(neutron, asked),
    occupied: (place) => occupiedOf(neutron, options.cloudName, place),
    hold: (block, commit) => keeper.hold(block, commit),
  };
  const stop = new AbortController();
  const working = Promise.all([keeper.run(stop.signal), holdLease(lease, () => keeper.kick(), stop.signal)]);
  // What it does not foresee ends the process, as everywhere else.
  working.catch((error: unknown) => {
    throw error;
  });
  undo.defer(async () => {
    stop.abort();
    await working;
  });
  undo.use(onCloudNews(control.mirror, () => keeper.kick()));
  log.info({ cloud: where, name: options.cloudName }, 'The cloud is kept as the networks need it');
  const stack = undo.move();
  return { [Symbol.asyncDispose]: () => stack.disposeAsync() };
}
