// The cluster that `causeway demo --kubernetes` shows: a control plane and two nodes, Causeway installed as anybody would, and a
// small application. A cluster that is found is completed; one that is half built is built again.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Screen } from './demo-screen.ts';
import { all } from './demo-site.ts';
import type { ImageRecipe } from './images.ts';
import { buildImageOf, defaultImage } from './image.ts';
import { agentDaemonSet, applyFile, importImage } from './kubernetes-install.ts';
import { kubernetesVersion } from './kubernetes-programs.ts';
import { Kubernetes } from './kubernetes.ts';
import { createLab, destroyLab, type Lab, openLab } from './lab.ts';
import { silentProgress } from './progress.ts';
import { labDisk } from './state.ts';

export const underlayMtu = 1450;
export const replicas = 4;
export const nodePort = 30_080;
const podImage = 'localhost/causeway/demo:1';

/** A page that says who serves it, where, and to whom; and the real ping, for packets that must not be fragmented. */
const pageImage: ImageRecipe = {
  name: 'causeway/page',
  programs: { '/usr/bin/ping': '/usr/bin/ping' },
  scripts: {
    '/srv/cgi-bin/index.cgi': [
      '#!/bin/sh',
      'printf "Content-Type: text/plain\\r\\n\\r\\n"',
      'client=${REMOTE_ADDR#[}; client=${client%]}',
      'echo "pod $(hostname) on $NODE to ${client#::ffff:}"',
      '',
    ].join('\n'),
  },
  changes: [],
};

export class ClusterSite {
  readonly lab: Lab;
  readonly cluster: Kubernetes;
  readonly screen: Screen;

  constructor(lab: Lab, screen: Screen) {
    this.lab = lab;
    this.cluster = new Kubernetes(lab, { images: [{ name: podImage, recipe: pageImage, command: ['sh'] }] });
    this.screen = screen;
  }
}

/** Builds or completes it. Faults as `createLab`, `run`, and `timeout`. */
export async function openCluster(name: string, screen: Screen): Promise<ClusterSite> {
  const site = (await findCluster(name, screen)) ?? (await buildCluster(name, screen));
  await screen.step(`web server of ${replicas} pods, two clients, a service with node port ${nodePort}`, () =>
    startApplication(site.cluster),
  );
  return site;
}

async function findCluster(name: string, screen: Screen): Promise<ClusterSite | undefined> {
  const found = openLab(name);
  if (found === undefined) return undefined;
  const site = new ClusterSite(found, screen);
  const machines = [found.controller, ...found.hosts];
  if ([found.underlay, ...machines].every((host) => host.isOn)) {
    const isThere = await screen.step(`cluster of lab ${name}: looked for`, async () => {
      for (const host of machines) for (const service of host.services()) await host.startService(service, 60_000);
      return (await site.cluster.tryKubectl(['get', 'deployment', 'web'], { anyStatus: true })).status === 0;
    });
    if (isThere) return site;
  }
  await screen.step(`removing what is left of lab ${name}`, () => destroyLab(name));
  return undefined;
}

async function buildCluster(name: string, screen: Screen): Promise<ClusterSite> {
  const title = `lab ${name}: host1, host2 and a host for the control plane, underlay MTU ${underlayMtu}`;
  const lab = await screen.step(title, () => createLab({ name, hosts: 2, mtu: underlayMtu }));
  const site = new ClusterSite(lab, screen);
  const { cluster } = site;
  const folder = labDisk(name);
  mkdirSync(folder, { recursive: true });
  const image = await screen.step(`container image ${defaultImage} made of this checkout`, () =>
    buildImageOf(join(folder, 'causeway.tar'), defaultImage, silentProgress),
  );
  await screen.step(`Kubernetes ${kubernetesVersion}: control plane, and two nodes that wait for a network`, () =>
    cluster.startWithoutNetwork(),
  );
  await screen.step('the image given to both nodes’ containerd', () => all(lab.hosts.map((host) => importImage(host, image.path))));
  await screen.step('kubectl apply -f packaging/kubernetes/causeway.yaml: both nodes ready', async () => {
    await applyFile(cluster, 'causeway.yaml');
    await cluster.untilReady();
    await cluster.kubectl('rollout', 'status', '--namespace=kube-system', agentDaemonSet, '--timeout=120s');
  });
  return site;
}

const container = {
  name: 'main',
  image: podImage,
  imagePullPolicy: 'Never',
  command: ['httpd', '-f', '-p', '8080', '-h', '/srv'],
  env: [{ name: 'NODE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }],
};

const client = (name: string, nodeName: string): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, labels: { app: name } },
  spec: { nodeName, terminationGracePeriodSeconds: 0, containers: [container] },
});

const labels = { app: 'web' };
const objects: readonly object[] = [
  {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web' },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          terminationGracePeriodSeconds: 0,
          topologySpreadConstraints: [
            {
              maxSkew: 1,
              topologyKey: 'kubernetes.io/hostname',
              whenUnsatisfiable: 'DoNotSchedule',
              labelSelector: { matchLabels: labels },
            },
          ],
          containers: [{ ...container, readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 } }],
        },
      },
    },
  },
  {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web' },
    spec: { type: 'NodePort', selector: labels, ports: [{ port: 80, targetPort: 8080, nodePort }] },
  },
  client('client', 'host1'),
  client('stranger', 'host1'),
];

async function startApplication(cluster: Kubernetes): Promise<void> {
  await cluster.apply(...objects);
  await cluster.kubectl('rollout', 'status', 'deployment/web', '--timeout=90s');
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod/client', 'pod/stranger', '--timeout=60s');
}
