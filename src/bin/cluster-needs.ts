// What a Kubernetes cluster needs of the cloud that it is in, for the command line: read once from its API.
import { join } from 'node:path';
import type { ClusterChoice, ClusterNeeds } from '#cli/session.ts';
import { KubernetesClient } from '#kubernetes/client.ts';
import { refusals } from '#kubernetes/cloud-facts.ts';
import { readCluster } from '#kubernetes/cloud-source.ts';
import { readKubeconfig } from '#kubernetes/kubeconfig.ts';

/** Of several files in KUBECONFIG the first is read. */
function usualKubeconfig(env: Readonly<Record<string, string | undefined>>): string {
  const named = env['KUBECONFIG']?.split(':').find((file) => file !== '');
  return named ?? join(env['HOME'] ?? '/root', '.kube', 'config');
}

export async function clusterNeeds(
  { kubeconfig, context, allBalancers }: ClusterChoice,
  env: Readonly<Record<string, string | undefined>>,
): Promise<ClusterNeeds> {
  await using client = new KubernetesClient(readKubeconfig(kubeconfig ?? usualKubeconfig(env), context));
  const { facts, asked } = await readCluster(client, allBalancers);
  return { facts, problems: refusals(asked) };
}
