// What happens to nodes and to the cluster's own parts, and what people do with pods every day, in both families at once:
// pods, services and addresses are right after it, and where possible all the while. CAUSEWAY_TEST_OUTAGE sets for how many seconds the
// API server is away.
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import type { Host } from '#lab/host.ts';
import { boxPodImage, Kubernetes, staticPods } from '#lab/kubernetes.ts';
import { hostDisk, labDisk } from '#lab/state.ts';
import { until } from '#lab/until.ts';

const name = 'survival-test';
const patience = { timeoutMs: 240_000, intervalMs: 200 };
let lab: Lab;
let cluster: Kubernetes;
let first: Host;
let second: Host;

before(async () => {
  await destroyLab(name);
  lab = await createLab({ name, hosts: 3 });
  cluster = new Kubernetes(lab, { families: [4, 6] });
  [first, second] = [lab.host('host1'), lab.host('host2')];
  await cluster.start([first, second]);
});
after(() => destroyLab(name));

interface PodSpec {
  readonly [field: string]: unknown;
}
const serve = 'mkdir -p /www && hostname >/www/index.html && touch /www/alive && echo started && exec httpd -f -p 8080 -h /www';
const container = (more: object = {}): object => ({
  name: 'web',
  image: boxPodImage,
  imagePullPolicy: 'Never',
  command: ['sh', '-c', serve],
  readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1 },
  ...more,
});
const pod = (podName: string, spec: PodSpec): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: podName, labels: { app: podName } },
  spec: { terminationGracePeriodSeconds: 0, containers: [container()], ...spec },
});
const ready = (...names: string[]): Promise<string> => cluster.kubectl('wait', '--for=condition=Ready', 'pod', ...names, '--timeout=240s');
const inPod = (podName: string, ...argv: readonly string[]): Promise<string> => cluster.kubectl('exec', podName, '--', ...argv);
const ipsOf = async (podName: string): Promise<string[]> =>
  (await cluster.kubectl('get', 'pod', podName, '--output=jsonpath={.status.podIPs[*].ip}')).split(' ').filter((ip) => ip !== '');
const page = (ip: string, port = 8080): string[] => ['wget', '-qO-', '-T', '10', `http://${ip.includes(':') ? `[${ip}]` : ip}:${port}/`];
/** What the pod answers to `client` at this moment on each of the addresses that it has at this moment. */
const pagesNow = async (client: string, podName: string): Promise<string[]> =>
  Promise.all((await ipsOf(podName)).map((ip) => inPod(client, ...page(ip))));
/** What the pod answers to `client` on each of its addresses, once it does: other nodes may still have to learn of its own. */
async function answers(client: string, podName: string): Promise<string[]> {
  const ips = await ipsOf(podName);
  return Promise.all(ips.map((ip) => until(`${podName} to answer ${client} at ${ip}`, () => inPod(client, ...page(ip)), patience)));
}
const answered = (podName: string): string[] => [podName, podName];

test('every pod has an address of each family and is reached by both, over nodes and from nodes', async () => {
  await cluster.apply(pod('one', { nodeName: 'host1' }), pod('two', { nodeName: 'host2' }));
  await ready('one', 'two');
  assert.deepEqual(await answers('one', 'two'), answered('two'));
  assert.deepEqual(await answers('two', 'one'), answered('one'));
  for (const ip of await ipsOf('two'))
    assert.equal(await until(`${ip} to answer`, () => first.ask(['busybox', ...page(ip)]), patience), 'two');
});

test('logs, exec and port-forward reach a pod', async () => {
  await until('its log', async () => (await cluster.kubectl('logs', 'two')) === 'started', patience);
  assert.equal(await inPod('two', 'hostname'), 'two');
  const config = `--kubeconfig=${cluster.kubeconfig}`;
  const forward = lab.controller.spawn(['kubectl', config, 'port-forward', 'pod/two', '18080:8080']);
  try {
    await until(
      'the forwarded port to answer',
      async () => (await lab.controller.ask(['busybox', ...page('127.0.0.1', 18_080)])) === 'two',
      patience,
    );
  } finally {
    forward.kill();
    await forward.ended;
  }
});

test('a pod of the node’s own network reaches pods and is reached; its address is the node’s', async () => {
  const hosted = container({ command: ['httpd', '-f', '-p', '18090'], readinessProbe: { tcpSocket: { port: 18_090 }, periodSeconds: 1 } });
  await cluster.apply(pod('hosted', { nodeName: 'host1', hostNetwork: true, containers: [hosted] }));
  await ready('hosted');
  assert.ok((await ipsOf('hosted')).includes(first.address));
  assert.deepEqual(await answers('hosted', 'two'), answered('two'));
  await inPod('two', 'sh', '-c', `nc -w 10 ${first.address} 18090 </dev/null`);
});

test('an init container has the network that the pod is going to have', async () => {
  const [ip = ''] = await ipsOf('two');
  const init = { name: 'before', image: boxPodImage, imagePullPolicy: 'Never', command: [...page(ip), '-O', '/shared/page'] };
  const volumes = { volumes: [{ name: 'shared', emptyDir: {} }] };
  const mounts = { volumeMounts: [{ name: 'shared', mountPath: '/shared' }] };
  const containers = [container(mounts)];
  await cluster.apply(pod('prepared', { nodeName: 'host1', ...volumes, initContainers: [{ ...init, ...mounts }], containers }));
  await ready('prepared');
  assert.equal(await inPod('prepared', 'cat', '/shared/page'), 'two');
});

test('probes decide who is served: one that fails takes the pod out, and restarts it where it is alive no more', async () => {
  const liveness = {
    livenessProbe: { httpGet: { path: '/alive', port: 8080 }, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 2 },
  };
  await cluster.apply(pod('probed', { nodeName: 'host2', containers: [container(liveness)] }));
  await ready('probed');
  await inPod('probed', 'mv', '/www/index.html', '/www/later.html');
  await cluster.kubectl('wait', '--for=condition=Ready=false', 'pod', 'probed', '--timeout=240s');
  const restarts = (): Promise<string> =>
    cluster.kubectl('get', 'pod', 'probed', '--output=jsonpath={.status.containerStatuses[0].restartCount}');
  assert.equal(await restarts(), '0');
  const ips = await ipsOf('probed');
  await inPod('probed', 'rm', '/www/alive');
  await until('the container to be restarted', async () => (await restarts()) !== '0', patience);
  await ready('probed');
  assert.deepEqual(await ipsOf('probed'), ips);
  assert.deepEqual(await answers('one', 'probed'), answered('probed'));
});

const replicas = (count: number): object => ({
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'shop' },
  spec: {
    replicas: count,
    selector: { matchLabels: { app: 'shop' } },
    template: { metadata: { labels: { app: 'shop' } }, spec: { terminationGracePeriodSeconds: 10, containers: [container()] } },
  },
});
const shop = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'shop' },
  spec: { selector: { app: 'shop' }, ports: [{ port: 80, targetPort: 8080 }] },
};
const shopAddress = (): Promise<string> => cluster.kubectl('get', 'service', 'shop', '--output=jsonpath={.spec.clusterIP}');

test('a drained node’s pods go elsewhere, and no request to their service is lost', async () => {
  await cluster.apply(replicas(4), shop);
  await cluster.kubectl('rollout', 'status', 'deployment/shop', '--timeout=240s');
  const ip = await shopAddress();
  await until('the service to answer', () => inPod('two', ...page(ip, 80)), patience);
  const loop = `rm -f /stop; while [ ! -e /stop ]; do wget -qO /dev/null -T 5 http://${ip}/ 2>&1 && echo served || echo lost $(date +%T); sleep 0.05; done`;
  const client = cluster.tryKubectl(['exec', 'two', '--', 'sh', '-c', loop]);
  await cluster.kubectl('drain', 'host1', '--ignore-daemonsets', '--force', '--delete-emptydir-data', '--timeout=240s');
  await cluster.kubectl('rollout', 'status', 'deployment/shop', '--timeout=240s');
  await inPod('two', 'touch', '/stop');
  const { stdout } = await client;
  const lines = stdout.trim().split('\n');
  assert.ok(lines.includes('served'));
  assert.deepEqual(
    lines.filter((line) => line !== 'served'),
    [],
  );
  await cluster.kubectl('uncordon', 'host1');
});

test('pods of a node that was rebooted are back, with their network', async () => {
  await lab.reboot(second);
  await cluster.apply(pod('one', { nodeName: 'host1' }));
  await ready('one');
  const back = async (): Promise<boolean> => (await pagesNow('one', 'two')).join() === answered('two').join();
  await until('the pod to answer again', back, patience);
  await ready('two');
  assert.deepEqual(await answers('two', 'one'), answered('one'));
  const ip = await shopAddress();
  await until('the service to answer on the rebooted node', () => inPod('two', ...page(ip, 80)), patience);
});

test('a third node joins, and its pods are reached from everywhere', async () => {
  const third = lab.host('host3');
  await cluster.startNode(third);
  await cluster.kubectl('wait', '--for=condition=Ready', 'node', 'host3', '--timeout=240s');
  await cluster.apply(pod('three', { nodeName: 'host3' }));
  await ready('three');
  for (const client of ['one', 'two']) assert.deepEqual(await answers(client, 'three'), answered('three'));
  assert.deepEqual(await answers('three', 'one'), answered('one'));
});

test('a new machine of an old name takes its place, with another range', async () => {
  const third = lab.host('host3');
  await cluster.kubectl('delete', 'node', 'host3');
  await third.powerOff();
  for (const service of third.services()) await third.stopService(service.name);
  rmSync(hostDisk(name, 'host3'), { recursive: true, force: true });
  await cluster.tryKubectl(['delete', 'pod', 'three', '--force', '--grace-period=0'], { anyStatus: true });
  await lab.powerOn(third);
  await cluster.startNode(third, 9);
  await cluster.kubectl('wait', '--for=condition=Ready', 'node', 'host3', '--timeout=240s');
  await cluster.apply(pod('three', { nodeName: 'host3' }));
  await ready('three');
  assert.ok((await ipsOf('three')).every((ip) => ip.startsWith('10.244.9.') || ip.startsWith('fd00:10:244:9:')));
  for (const client of ['one', 'two']) assert.deepEqual(await answers(client, 'three'), answered('three'));
  await until('the routes to the old range to be gone', async () => !(await first.ask(['ip', 'route'])).includes('10.244.3.0/24'));
});

/** A few seconds are enough to see most of it; ten minutes outlive the time-outs of everybody who watches. */
const outageSeconds = Number(process.env['CAUSEWAY_TEST_OUTAGE'] ?? 5);

test(`while the API server is away, ${outageSeconds} s, pods and services work, agents restart, and static pods are made`, async (t) => {
  const { controller } = lab;
  const hosts = [first, second];
  const ip = await shopAddress();
  const [own = ''] = await ipsOf('one');
  const [other = ''] = await ipsOf('two');
  const restarted = (): Promise<string> =>
    cluster.kubectl('get', 'pods', 'one', 'two', '--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}');
  const agentStarts = (): number => second.log('agent').split('agent is running').length;
  const untouched = [await restarted(), agentStarts()];
  const began = performance.now();
  await controller.stopService('kube-apiserver', 'SIGKILL');
  const manifest = join(staticPods, 'fixed.json');
  mkdirSync(first.file(dirname(manifest)), { recursive: true });
  writeFileSync(first.file(manifest), JSON.stringify(pod('fixed', {})));
  await first.stopService('agent', 'SIGKILL');
  assert.equal(await second.ask(['busybox', ...page(own)]), 'one');
  await cluster.startAgent(first);
  assert.equal(await first.ask(['busybox', ...page(other)]), 'two');
  await until('the service to answer', () => first.ask(['busybox', ...page(ip, 80)]), patience);
  const sandbox = async (): Promise<string> =>
    first.ask(['sh', '-c', 'ctr --namespace=k8s.io containers ls -q "labels.\\"io.kubernetes.pod.name\\"==fixed-host1" | wc -l']);
  await until('the static pod to run', async () => Number(await sandbox()) >= 2, patience);
  let beats = 0;
  const beat = async (): Promise<void> => {
    assert.equal(await second.ask(['busybox', ...page(own)]), 'one');
    assert.equal(await first.ask(['busybox', ...page(other)]), 'two');
    beats += 1;
    await delay(1000);
  };
  while (performance.now() - began < outageSeconds * 1000) {
    await beat();
    for (const host of hosts) await host.ask(['busybox', ...page(ip, 80)]);
  }
  t.diagnostic(`${beats * 4} requests answered in ${Math.round((performance.now() - began) / 1000)} s without the API server`);
  await cluster.controlPlane.startApi();
  // Kubernetes may take nodes for lost until their kubelets have spoken again, and with them endpoints of services.
  let lost = 0;
  for (let turn = 0; turn < 10; turn++) {
    await beat();
    for (const host of hosts) lost += (await host.exec(['busybox', ...page(ip, 80)], { anyStatus: true })).status === 0 ? 0 : 1;
  }
  t.diagnostic(`${lost} of 20 requests to the service lost in the ten seconds after it is back`);
  const isKnown = async (): Promise<boolean> => (await cluster.tryKubectl(['get', 'pod', 'fixed-host1'], { anyStatus: true })).status === 0;
  await until('the kubelet to have told of the static pod', isKnown, patience);
  await ready('fixed-host1');
  assert.deepEqual(await answers('two', 'fixed-host1'), answered('fixed-host1'));
  await until('the service to answer', () => second.ask(['busybox', ...page(ip, 80)]), patience);
  assert.deepEqual([await restarted(), agentStarts()], untouched);
  rmSync(first.file(manifest));
});

test('etcd restored from an older backup: no address is given twice, and what changes from then on is followed', async () => {
  const backup = join(labDisk(name), 'backup');
  await cluster.controlPlane.backUp(backup);
  const [later, newer] = ['later', 'newer'].map((kind) => [first, second].map((host) => ({ name: `${kind}-${host.name}`, host })));
  const start = async (pods: typeof later = []): Promise<string[]> => {
    await cluster.apply(...pods.map((each) => pod(each.name, { nodeName: each.host.name })));
    await ready(...pods.map((each) => each.name));
    return (await Promise.all(pods.map((each) => ipsOf(each.name)))).flat();
  };
  const forgotten = await start(later);
  await cluster.controlPlane.restore(backup);
  // Kubelets follow nothing after that until they are restarted, and take away then what the cluster no longer knows of.
  for (const host of [first, second, lab.host('host3')]) await cluster.restartKubelet(host);
  const given = await start(newer);
  assert.equal(new Set([...forgotten, ...given]).size, 8);
  assert.deepEqual(await answers('newer-host1', 'newer-host2'), answered('newer-host2'));
  await cluster.apply({ ...shop, metadata: { name: 'again' }, spec: { ...shop.spec, selector: { app: 'newer-host2' } } });
  const ip = await cluster.kubectl('get', 'service', 'again', '--output=jsonpath={.spec.clusterIP}');
  for (const host of [first, second]) {
    await until(`the new service to answer on ${host.name}`, () => host.ask(['busybox', ...page(ip, 80)]), patience);
  }
});
