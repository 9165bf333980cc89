// Causeway in a cluster as its users install it: the image in every node's runtime, and one file for kubectl.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from './host.ts';
import { manifestsFolder, renderChart } from './helm-chart.ts';
import type { Kubernetes } from './kubernetes.ts';

export const agentDaemonSet = 'daemonset/causeway-agent';
export const controllerDeployment = 'deployment/causeway-controller';

/** The text of a file for kubectl, for this cluster. `image`: another than the file's. */
export function manifestFor(
  cluster: Kubernetes,
  file: 'causeway.yaml' | 'causeway-calico.yaml' | 'causeway-uninstall.yaml',
  image?: string,
): string {
  const content = readFileSync(join(manifestsFolder, file), 'utf8').replaceAll('https://API-SERVER:6443', cluster.server);
  return image === undefined ? content : content.replaceAll(/(?<= image: ).*/g, image);
}

/** Gives a node's runtime an image from a tar file. */
export async function importImage(host: Host, path: string): Promise<void> {
  await host.exec(['ctr', '--namespace=k8s.io', 'images', 'import', path]);
}

/** What agents that are started by hand may do: as much as the chart's, for the group that their certificates name. */
export function accessByHand(): string {
  const role = renderChart().filter((document) => /^kind: ClusterRole\nmetadata:\n {2}name: causeway-agent$/m.test(document));
  const binding = {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: 'causeway-agents-by-hand' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'causeway-agent' },
    subjects: [{ kind: 'Group', apiGroup: 'rbac.authorization.k8s.io', name: 'causeway:agents' }],
  };
  return [...role, JSON.stringify(binding)].join('\n---\n');
}
