// `causeway controller --kubernetes`: what has to be decided by one mind in a cluster that agents follow by its own API. Any number
// may run; the one that holds the Lease decides.
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { AutoHostEndpoints } from '#kubernetes/auto-host-endpoints.ts';
import { Balancers } from '#kubernetes/balancers.ts';
import { KubernetesClient } from '#kubernetes/client.ts';
import { readKubeconfig } from '#kubernetes/kubeconfig.ts';
import { Leader } from '#kubernetes/leader.ts';
import { ObjectConditions } from '#kubernetes/object-conditions.ts';
import { octaviaClass } from '#kubernetes/openstack-service.ts';
import { calicoPolicyKinds, policyKinds } from '#kubernetes/policy-kinds.ts';
import { PolicyStatuses } from '#kubernetes/policy-statuses.ts';
import type { CloudOptions } from './controller-cloud.ts';

export interface KubernetesControllerOptions {
  readonly kubeconfig: string;
  /** Where its Lease is. */
  readonly namespace: string;
  /** Absent: there is no cloud to keep. */
  readonly cloud?: CloudOptions;
}

const stepMs = 3_000;

interface Deciding {
  readonly client: KubernetesClient;
  readonly log: Logger;
  readonly isLeading: () => boolean;
  readonly date: () => Date;
}

/** What speaks with clouds is loaded where there is one. Faults as keepClusterCloud. */
async function cloudPart(decides: Deciding, cloud: CloudOptions) {
  const [{ keepClusterCloud }, { CloudSource }, { readClasses }] = await Promise.all([
    import('./controller-cloud.ts'),
    import('#kubernetes/cloud-source.ts'),
    import('#kubernetes/balancer-classes.ts'),
  ]);
  let part: Awaited<ReturnType<typeof keepClusterCloud>> | undefined;
  const source = new CloudSource({
    ...decides,
    serving: { isDefault: cloud.cloudAllBalancers === true, classes: readClasses(cloud.cloudClasses) },
    changed: () => part?.kick(),
  });
  part = await keepClusterCloud({ ...decides, source }, cloud, process.env);
  return part;
}

/** Runs until a signal ends it. Faults as readKubeconfig, findCloud. */
export async function runKubernetesController({ kubeconfig, namespace, cloud }: KubernetesControllerOptions, log: Logger): Promise<void> {
  await using client = new KubernetesClient(readKubeconfig(kubeconfig));
  const stop = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stop.abort());
  const leader = new Leader({
    client,
    namespace,
    name: 'causeway-controller',
    identity: `${hostname()}-${randomBytes(4).toString('hex')}`,
    log,
    now: () => performance.now(),
    date: () => new Date(),
  });
  const decides = { client, log, isLeading: () => leader.isLeading, date: () => new Date() };
  const kinds = [...policyKinds, ...calicoPolicyKinds];
  const parts = [
    new Balancers({ ...decides, ...(cloud?.cloudAllBalancers === true ? { usualClass: octaviaClass } : {}) }),
    new PolicyStatuses({ ...decides, kinds }),
    new AutoHostEndpoints(decides),
    new ObjectConditions(decides),
    ...(cloud === undefined ? [] : [await cloudPart(decides, cloud)]),
  ];
  const following = Promise.all(parts.map((part) => part.run(stop.signal)));
  log.info({ namespace }, 'The controller of a Kubernetes cluster is running');
  while (!stop.signal.aborted) {
    const was = leader.isLeading;
    await leader.step();
    if (leader.isLeading && !was) for (const part of parts) part.kick();
    await delay(stepMs, undefined, { signal: stop.signal }).catch(() => undefined);
  }
  await following;
  await leader.release();
  log.info({}, 'The controller ends');
}
