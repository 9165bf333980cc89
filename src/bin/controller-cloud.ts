// The controller's part that keeps an OpenStack cloud as the networks need it; loaded only where --cloud names one.
import type { Logger } from 'pino';
import { routersIn } from '#api/bgp-routers.ts';
import { type Cloud, findCloud } from '#cloud/clouds.ts';
import { Keeper } from '#cloud/keeper.ts';
import { Neutron } from '#cloud/neutron.ts';
import { withPlace } from '#cloud/placing.ts';
import { findSubnets, occupiedOf } from '#cloud/pools.ts';
import { CloudSession } from '#cloud/session.ts';
import { checkName } from '#cloud/wish.ts';
import {
  carryAsWanted,
  carryInstead,
  cloudFacts,
  cloudLease,
  holdLease,
  onCloudNews,
  placeExposures,
  readCloudReport,
  writeCloudReport,
} from '#controller/cloud.ts';
import type { Control } from '#controller/control.ts';
import type { PortPools } from '#controller/neutron.ts';
import { refusals } from '#kubernetes/cloud-facts.ts';
import type { KubernetesClient } from '#kubernetes/client.ts';
import type { CloudSource } from '#kubernetes/cloud-source.ts';
import { PortGranter } from '#kubernetes/port-granter.ts';
import { withoutRequests } from '#model/fault.ts';
import { cloudSurroundings } from './cloud-surroundings.ts';

export interface CloudOptions {
  /** In clouds.yaml; true: what OS_* variables say. */
  readonly cloud: string | true;
  readonly cloudName: string;
  readonly cloudNetwork?: string;
  readonly cloudRoutes?: string;
  /** Of Octavia. */
  readonly cloudProvider?: string;
  readonly cloudMaxSharedLb?: number;
  /** Seconds. */
  readonly cloudInterval: number;
  /** Of a cluster: load balancers of services that name no class are Octavia's, too. */
  readonly cloudAllBalancers?: true;
  /** JSON. */
  readonly cloudClasses?: string;
}

/** The login, and what it is for in words. */
interface Login {
  readonly neutron: Neutron;
  /** Project and cloud. */
  readonly where: () => Promise<string>;
  readonly cloudText: string;
}

/** `mayWrite`: whether it is this one's turn. Faults as findCloud. That the cloud cannot be reached is none: it may come. */
async function logIn(
  { cloud: wanted, cloudName }: CloudOptions,
  env: NodeJS.ProcessEnv,
  { mayWrite, closing, signal }: { readonly mayWrite: () => boolean; readonly closing: AsyncDisposableStack; readonly signal: AbortSignal },
): Promise<Login> {
  checkName(cloudName);
  const reread = (): Promise<Cloud> => findCloud(cloudSurroundings(env), wanted === true ? undefined : wanted);
  const cloud = await reread();
  const session = closing.use(new CloudSession(cloud, { mayWrite, reread, signal }));
  const cloudText = cloud.name === 'environment' ? cloud.authUrl : `cloud ${cloud.name}`;
  let project: string | undefined;
  const where = async (): Promise<string> => {
    project ??= await session.token().then(
      (token) => token.project.name,
      () => undefined,
    );
    return project === undefined ? cloudText : `project ${project} of ${cloudText}`;
  };
  return { neutron: new Neutron(session), where, cloudText };
}

const keeping = (options: CloudOptions) => ({
  name: options.cloudName,
  scope: {
    network: options.cloudNetwork,
    router: options.cloudRoutes,
    provider: options.cloudProvider,
    mostShared: options.cloudMaxSharedLb,
    mayLackRouter: true,
  },
  intervalMs: options.cloudInterval * 1000,
});

/** What it does not foresee ends the process, as everywhere else. */
function unforeseen(working: Promise<unknown>): void {
  working.catch((error: unknown) => {
    throw error;
  });
}

const portsBy = (neutron: Neutron, { cloudName }: CloudOptions, keeper: () => Keeper): PortPools => ({
  find: async (asked, families) => {
    await keeper().knock();
    return findSubnets(neutron, asked, families);
  },
  occupied: async (at) => {
    await keeper().knock();
    return occupiedOf(neutron, cloudName, at);
  },
  hold: (block, commit) => keeper().hold(block, commit),
  regroup: (block, wanted, commit) => keeper().regroup(block, wanted, commit),
});

/** Faults as logIn. */
export async function keepCloud(control: Control, options: CloudOptions, env: NodeJS.ProcessEnv): Promise<AsyncDisposable> {
  const { log } = control;
  await using undo = new AsyncDisposableStack();
  const lease = cloudLease(control);
  const stop = new AbortController();
  const { signal } = stop;
  const { neutron, where, cloudText } = await logIn(options, env, { mayWrite: () => lease.isHeld, closing: undo, signal });
  const keeper = new Keeper({
    ...keeping(options),
    neutron,
    facts: () => {
      const { bgp, ...facts } = cloudFacts(control);
      return { ...facts, routers: routersIn(bgp) };
    },
    isLeading: () => lease.isHeld,
    tell: (report) => writeCloudReport(control, report),
    told: () => readCloudReport(control),
    place: (plan) => placeExposures(control, (exposure) => withPlace(exposure, plan)),
    carriages: {
      instead: ({ networks, because }) => carryInstead(control, networks, because),
      asWanted: (networks) => carryAsWanted(control, networks),
    },
    where,
    log,
  });
  control.cloud.ports = portsBy(neutron, options, () => keeper);
  const working = Promise.all([keeper.run(signal), holdLease(lease, () => keeper.kick(), signal)]);
  unforeseen(working);
  undo.defer(async () => {
    stop.abort();
    await working;
  });
  undo.use(onCloudNews(control.mirror, () => keeper.kick()));
  log.info({ cloud: cloudText, name: options.cloudName }, 'The cloud is kept as the networks need it');
  const stack = undo.move();
  return { [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

const reasonsOf = ({ message, hint }: { readonly message: string; readonly hint?: string }): string[] => [
  withoutRequests(message),
  ...(hint === undefined ? [] : [hint]),
];

/** The same for a Kubernetes cluster. `kick`: it is this one's turn now. Faults as logIn. */
export async function keepClusterCloud(
  {
    client,
    source,
    isLeading,
    log,
  }: {
    readonly client: KubernetesClient;
    readonly source: CloudSource;
    readonly isLeading: () => boolean;
    readonly log: Logger;
  },
  options: CloudOptions,
  env: NodeJS.ProcessEnv,
): Promise<{ run(signal: AbortSignal): Promise<void>; kick(): void }> {
  const closing = new AsyncDisposableStack();
  const stop = new AbortController();
  const { neutron, where, cloudText } = await logIn(options, env, { mayWrite: isLeading, closing, signal: stop.signal });
  let told = '';
  const granter = new PortGranter({
    client,
    source,
    cloud: portsBy(neutron, options, () => keeper),
    isLeading,
    log,
  });
  const keeper: Keeper = new Keeper({
    ...keeping(options),
    neutron,
    facts: () => source.wish.facts,
    isLeading,
    // Nobody serves it: what concerns a service is in its status, everything else in the log.
    tell: async ({ problems, failure }) => {
      const words = failure === undefined ? [...problems, ...refusals(source.wish.asked)] : reasonsOf(failure);
      if (failure !== undefined) await source.tellFailure(words);
      const text = withoutRequests(words.join('\n'));
      if (text !== told && text !== '') log.warn({ problems: words }, 'The cloud is not as the cluster needs it');
      told = text;
    },
    carriages: { instead: (fallback) => source.carryInstead(fallback), asWanted: (networks) => source.carryAsWanted(networks) },
    balanced: (found) => source.tell(found),
    routed: (found) => source.tellRouted(found),
    where,
    log,
  });
  return {
    kick: () => {
      keeper.kick();
      granter.kick();
    },
    run: async (signal) => {
      await using _ = closing;
      signal.addEventListener('abort', () => stop.abort());
      const following = source.run(signal);
      await Promise.race([source.whole, following]);
      log.info({ cloud: cloudText, name: options.cloudName }, 'The cloud is kept as the cluster needs it');
      await Promise.all([following, keeper.run(signal), granter.run(signal)]);
    },
  };
}
