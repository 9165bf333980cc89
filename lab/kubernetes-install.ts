// Causeway in a cluster as its users install it: the image in every node's runtime, and one file for kubectl.
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { renderChart } from '#cli/helm-chart.ts';
import type { Host } from './host.ts';
import { manifestsFolder, placeholder } from './helm-chart.ts';
import { buildImageOf, defaultImage } from './image.ts';
import type { Kubernetes } from './kubernetes.ts';
import { kubernetesVersion } from './kubernetes-programs.ts';
import { silentProgress } from './progress.ts';
import { labDisk } from './state.ts';

export const agentDaemonSet = 'daemonset/causeway-agent';
export const controllerDeployment = 'deployment/causeway-controller';

/** The text of a file for kubectl, for this cluster. `image`: another than the file's. */
export function manifestFor(
  cluster: Kubernetes,
  file: 'causeway.yaml' | 'causeway-calico.yaml' | 'causeway-uninstall.yaml',
  image?: string,
): string {
  const content = readFileSync(join(manifestsFolder, file), 'utf8').replaceAll(placeholder, cluster.server);
  return image === undefined ? content : content.replaceAll(/(?<= image: ).*/g, image);
}

/** As servers before 1.30 are given it, which do not know all of its fields (docs/kubernetes.md). */
export const applyFile = (cluster: Kubernetes, file: Parameters<typeof manifestFor>[1], image?: string): Promise<void> =>
  cluster.applyText(manifestFor(cluster, file, image), '--validate=false');

/** What Helm would install in this cluster with these values. */
export const chartFor = (cluster: Kubernetes, values: Parameters<typeof renderChart>[0]): string =>
  renderChart({ apiServer: cluster.server, podCidrs: cluster.podCidrs, ...values }, kubernetesVersion).join('\n---\n');

/** Gives a node's runtime an image from a tar file. */
export async function importImage(host: Host, path: string): Promise<void> {
  await host.exec(['ctr', '--namespace=k8s.io', 'images', 'import', path]);
}

/** Causeway by the file for the model calico, with `pools` and whatever else of Calico's is to be there from the beginning. */
export async function installCalico(cluster: Kubernetes, pools: readonly object[]): Promise<void> {
  const folder = labDisk(cluster.lab.name);
  mkdirSync(folder, { recursive: true });
  const image = await buildImageOf(join(folder, 'causeway.tar'), defaultImage, silentProgress);
  await cluster.startWithoutNetwork();
  await Promise.all(cluster.lab.hosts.map((host) => importImage(host, image.path)));
  await cluster.applyText(readFileSync(join(manifestsFolder, 'network-attachment-definitions.yaml'), 'utf8'));
  await applyFile(cluster, 'causeway-calico.yaml');
  await cluster.untilDefined();
  await cluster.apply(...pools);
  await cluster.untilReady();
}

/** Documents of the chart of this kind whose names are like that. */
const ofChart = (kind: string, names: RegExp, model = 'flannel'): string[] =>
  renderChart({ apiServer: placeholder, model }).filter((document) => {
    const [, found = ''] = new RegExp(`^kind: ${kind}\nmetadata:\n {2}name: (.*)$`, 'm').exec(document) ?? [];
    return names.test(found);
  });

const rbac = 'rbac.authorization.k8s.io';
const bound = (kind: 'ClusterRole' | 'Role', role: string, subject: { readonly kind: 'Group' | 'User'; readonly name: string }): string =>
  JSON.stringify({
    apiVersion: `${rbac}/v1`,
    kind: `${kind}Binding`,
    metadata: { name: `${role}-by-hand`, ...(kind === 'Role' ? { namespace: 'kube-system' } : {}) },
    roleRef: { apiGroup: rbac, kind, name: role },
    subjects: [{ ...subject, apiGroup: rbac }],
  });

/** What the chart brings of Calico, whatever the model: its sorts of policy. */
export const calicoDefinitions = (): string => ofChart('CustomResourceDefinition', /\.projectcalico\.org$/).join('\n---\n');
/** What it brings for the model `calico`, pools and blocks too. */
export const calicoModelDefinitions = (): string =>
  ofChart('CustomResourceDefinition', /\.projectcalico\.org$|^blocks\./, 'calico').join('\n---\n');

/** What agents that are started by hand may do: as much as the chart's, for the group that their certificates name. */
export function accessByHand(model: 'flannel' | 'calico' = 'flannel'): string {
  const definitions = ofChart('CustomResourceDefinition', /^(hostpolicies|policystatuses|clusterpolicystatuses|portpools)\./);
  const role = ofChart('ClusterRole', /^causeway-agent$/, model);
  return [...definitions, ...role, bound('ClusterRole', 'causeway-agent', { kind: 'Group', name: 'causeway:agents' })].join('\n---\n');
}

/** What a controller that is started by hand may do, as that user. */
export function controllerByHand(user: string): string {
  const subject = { kind: 'User', name: user } as const;
  const kinds = ['ClusterRole', 'Role'] as const;
  return kinds.flatMap((kind) => [...ofChart(kind, /^causeway-controller$/), bound(kind, 'causeway-controller', subject)]).join('\n---\n');
}
