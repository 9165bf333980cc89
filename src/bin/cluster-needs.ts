// What a Kubernetes cluster needs of the cloud that it is in, for the command line: read once from its API, and told once what the
// cloud's router knows of its nodes.
import { join } from 'node:path';
import type { ClusterChoice, ClusterNeeds } from '#cli/session.ts';
import { readClasses } from '#kubernetes/balancer-classes.ts';
import { KubernetesClient } from '#kubernetes/client.ts';
import { refusals } from '#kubernetes/cloud-facts.ts';
import { readCluster } from '#kubernetes/cloud-source.ts';
import { readKubeconfig } from '#kubernetes/kubeconfig.ts';
import { tellRouted } from '#kubernetes/routed-nodes.ts';

/** Of several files in KUBECONFIG the first is read. */
function usualKubeconfig(env: Readonly<Record<string, string | undefined>>): string {
  const named = env['KUBECONFIG']?.split(':').find((file) => file !== '');
  return named ?? join(env['HOME'] ?? '/root', '.kube', 'config');
}

export async function clusterNeeds(
  { kubeconfig, context, allBalancers, classes }: ClusterChoice,
  env: Readonly<Record<string, string | undefined>>,
): Promise<ClusterNeeds> {
  const connect = (): KubernetesClient => new KubernetesClient(readKubeconfig(kubeconfig ?? usualKubeconfig(env), context));
  await using client = connect();
  const { facts, asked, nodes, problems: ofPorts } = await readCluster(client, { isDefault: allBalancers, classes: readClasses(classes) });
  return {
    facts,
    problems: [...refusals(asked), ...ofPorts],
    tellRouted: async (found) => {
      const problems: string[] = [];
      await using later = connect();
      const failed = (node: string, { message }: Error): void =>
        void problems.push(`Node ${node} cannot be told what the router knows of it: ${message}`);
      await tellRouted({ client: later, failed }, nodes, found);
      return problems;
    },
  };
}
