// Causeway installed as its users do it: an image without a registry, one file for kubectl, and nothing of it on the nodes
// before and after.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { docker, startDockerd } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import { buildImageOf, type BuiltImage, defaultImage, imageRepository } from '#lab/image.ts';
import { agentDaemonSet, importImage, manifestFor } from '#lab/kubernetes-install.ts';
import { boxPodImage, Kubernetes } from '#lab/kubernetes.ts';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { silentProgress } from '#lab/progress.ts';
import { until } from '#lab/until.ts';

const name = 'pods-install';
const folder = mkdtempSync(join(tmpdir(), 'causeway-image-'));
const patient = { timeoutMs: 90_000, intervalMs: 200 };
let lab: Lab;
let cluster: Kubernetes;
let image: BuiltImage;
/** What nodes held before anything of Causeway was there. */
let untouched: readonly string[][] = [];

before(async () => {
  await destroyLab(name);
  image = await buildImageOf(join(folder, 'image.tar'), defaultImage, silentProgress);
  lab = await createLab({ name, hosts: 2 });
  cluster = new Kubernetes(lab);
  await cluster.startWithoutNetwork();
  await Promise.all(lab.hosts.map((host) => importImage(host, image.path)));
  untouched = await Promise.all(lab.hosts.map(tracesOf));
});
after(async () => {
  await destroyLab(name);
  rmSync(folder, { recursive: true });
});

/** The kernel's state and the files of a node, without what the kubelet counts and changes by itself. */
async function tracesOf(host: Host): Promise<string[]> {
  const commands = [
    'ip -o link | cut -d" " -f2',
    'ip -o address | grep -o "inet.*/[0-9]*"',
    'ip route show table all',
    'ip -6 route show table all | grep -v fe80',
    'ip rule',
    'ip neigh | grep PERMANENT',
    'ip netns list',
    'nft --stateless list tables | grep -v -e " filter$" -e " mangle$" -e " nat$"',
    'iptables-save | grep -i causeway',
    'ls -A /opt/cni/bin /etc/cni/net.d',
    'find /var/lib/causeway /run/causeway -mindepth 1',
    'ls -d /run/netns/* 2>/dev/null',
  ];
  return Promise.all(commands.map((command) => host.ask(['sh', '-c', `${command}; true`])));
}

const pod = (podName: string, nodeName: string): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: podName, labels: { app: 'web' } },
  spec: {
    nodeName,
    terminationGracePeriodSeconds: 0,
    containers: [
      {
        name: 'web',
        image: boxPodImage,
        imagePullPolicy: 'Never',
        command: ['sh', '-c', 'mkdir /www && hostname >/www/index.html && exec httpd -f -p 8080 -h /www'],
        readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1 },
      },
    ],
  },
});
const ask = (what: string, path: string): Promise<string> =>
  cluster.kubectl('get', what, path, '--output=jsonpath={.status.podIP}{.spec.clusterIP}');
const inPod = (podName: string, script: string): Promise<string> => cluster.kubectl('exec', podName, '--', 'sh', '-c', script);
const rolledOut = (what: string): Promise<string> =>
  cluster.kubectl('rollout', 'status', '--namespace=kube-system', what, '--timeout=120s');

test('the same input is the same image, bit for bit, and Docker loads it', async () => {
  const again = await buildImageOf(join(folder, 'again.tar'), defaultImage, silentProgress);
  assert.equal(again.digest, image.digest);
  const host = lab.controller;
  await startDockerd(host);
  await docker(host, ['load', '--input', image.path]);
  assert.match(await docker(host, ['run', '--rm', '--network=none', image.name, 'agent', '--help']), /causeway agent/);
  assert.match(await docker(host, ['run', '--rm', '--network=none', image.name, 'version', '--output', 'json']), /"client": "/);
});

test('one file makes the nodes ready, and their pods and services work', async () => {
  await cluster.applyText(manifestFor(cluster, 'causeway.yaml'));
  await cluster.untilReady();
  await rolledOut(agentDaemonSet);
  await cluster.apply(pod('one', 'host1'), pod('two', 'host2'), {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web' },
    spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 8080 }] },
  });
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod', '--all', '--timeout=90s');
  assert.equal(await inPod('one', `wget -qO- -T 5 http://${await ask('pod', 'two')}:8080/`), 'two');
  const address = await ask('service', 'web');
  const seen = async (): Promise<boolean> =>
    (await inPod('one', `for i in 1 2 3 4 5 6 7 8 9; do wget -qO- -T 5 http://${address}/; done | sort -u | xargs`)) === 'one two';
  await until('both pods to serve', seen, patient);
});

test('an agent may read what it follows, and nothing else', async () => {
  const as = '--as=system:serviceaccount:kube-system:causeway-agent';
  const may = async (...words: readonly string[]): Promise<string> =>
    (await cluster.tryKubectl(['auth', 'can-i', ...words, as, '--all-namespaces'], { anyStatus: true })).stdout.trim();
  for (const what of ['nodes', 'services', 'endpointslices.discovery.k8s.io']) assert.equal(await may('list', what), 'yes', what);
  for (const what of ['secrets', 'configmaps', 'serviceaccounts']) assert.equal(await may('get', what), 'no', what);
  for (const what of ['nodes', 'services', 'pods']) for (const verb of ['patch', 'delete']) assert.equal(await may(verb, what), 'no', what);
});

interface Streams {
  readonly packets: number;
  readonly pages: number;
  readonly lostPackets: number;
  readonly lostPages: number;
}

/** A packet each millisecond, and a page after the other by the service, between pods of two nodes while `work` goes on. */
async function streaming(work: () => Promise<void>): Promise<Streams> {
  const [far, service] = [await ask('pod', 'two'), await ask('service', 'web')];
  // Each batch waits for its last answer, so that nothing is on its way when it is counted.
  const pinging = inPod('one', `while [ ! -e /stop ]; do ping -q -i 0.001 -c 1000 ${far}; done`);
  const page = `wget -qO- -T 5 http://${service}/ >/dev/null && echo page || echo lost`;
  const fetching = inPod('one', `while [ ! -e /stop ]; do ${page}; done`);
  try {
    await until('the streams to begin', async () => (await inPod('one', 'pidof ping; true')) !== '', patient);
    await work();
  } finally {
    await inPod('one', 'touch /stop');
  }
  const [batches, pages] = [[...(await pinging).matchAll(/(\d+) packets transmitted, (\d+)/g)], (await fetching).split('\n')];
  await inPod('one', 'rm /stop');
  const sum = (group: 1 | 2): number => batches.reduce((total, match) => total + Number(match[group]), 0);
  const lostPages = pages.filter((line) => line !== 'page').length;
  return { packets: sum(1), pages: pages.length, lostPackets: sum(1) - sum(2), lostPages };
}

function assertWhole({ packets, pages, ...lost }: Streams): void {
  assert.deepEqual(lost, { lostPackets: 0, lostPages: 0 });
  assert.ok(packets >= 1000 && pages > 10, `only ${packets} packets and ${pages} pages`);
}

test('an upgrade loses no packet', async () => {
  const next = await buildImageOf(join(folder, 'next.tar'), `${imageRepository}:next`, silentProgress);
  await Promise.all(lab.hosts.map((host) => importImage(host, next.path)));
  const streams = await streaming(async () => {
    await cluster.applyText(manifestFor(cluster, 'causeway.yaml', next.name));
    await rolledOut(agentDaemonSet);
  });
  const images = await cluster.kubectl('get', 'pods', '--namespace=kube-system', '--output=jsonpath={.items[*].spec.containers[0].image}');
  assert.equal(images, [next.name, next.name].join(' '));
  assertWhole(streams);
});

test('without agents pods keep talking; uninstalled, nodes are as before', async () => {
  const streams = await streaming(async () => {
    await cluster.tryKubectl(['delete', '--wait', '--filename=-'], { input: manifestFor(cluster, 'causeway.yaml') });
    const agents = (): Promise<string> => cluster.kubectl('get', 'pods', '--namespace=kube-system', '--output=name');
    await until('the agents to be gone', async () => (await agents()) === '', patient);
  });
  assertWhole(streams);
  // Who removes pods takes their agents back first: the runtime asks them.
  await cluster.applyText(manifestFor(cluster, 'causeway.yaml'));
  await rolledOut(agentDaemonSet);
  await cluster.kubectl('delete', 'pod', '--all', '--wait');
  for (const host of lab.hosts)
    await until(`${host.name} to have no pod's namespace`, async () => (await host.ask(['ls', '/run/netns'])) === '', patient);
  await cluster.tryKubectl(['delete', '--wait', '--filename=-'], { input: manifestFor(cluster, 'causeway.yaml') });
  await cluster.applyText(manifestFor(cluster, 'causeway-uninstall.yaml'));
  await rolledOut('daemonset/causeway-uninstall');
  await cluster.tryKubectl(['delete', '--wait', '--filename=-'], { input: manifestFor(cluster, 'causeway-uninstall.yaml') });
  for (const [index, host] of lab.hosts.entries())
    await until(
      `${host.name} to be as before`,
      async () => {
        assert.deepEqual(await tracesOf(host), untouched[index]);
        return true;
      },
      patient,
    );
});
