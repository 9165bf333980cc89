// A cluster without IPv4: pods, services and the API server's own service by IPv6 alone.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { boxPodImage, Kubernetes } from '#lab/kubernetes.ts';
import { until } from '#lab/until.ts';

const name = 'ipv6-test';
const patience = { timeoutMs: 60_000, intervalMs: 200 };
let lab: Lab;
let cluster: Kubernetes;

before(async () => {
  await destroyLab(name);
  lab = await createLab({ name, hosts: 2 });
  cluster = new Kubernetes(lab, { families: [6] });
  await cluster.start();
});
after(() => destroyLab(name));

const pod = (podName: string, nodeName: string): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: podName, labels: { app: podName } },
  spec: {
    nodeName,
    terminationGracePeriodSeconds: 0,
    containers: [
      {
        name: 'web',
        image: boxPodImage,
        imagePullPolicy: 'Never',
        command: ['sh', '-c', 'mkdir -p /www && hostname >/www/index.html && exec httpd -f -p 8080 -h /www'],
        readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1 },
      },
    ],
  },
});
const page = (ip: string, port: number): string[] => ['wget', '-qO-', '-T', '3', `http://[${ip}]:${port}/`];
const inPod = (podName: string, ...argv: readonly string[]): Promise<string> => cluster.kubectl('exec', podName, '--', ...argv);

test('pods have an address of IPv6 and no other, and reach each other over nodes', async () => {
  await cluster.apply(pod('one', 'host1'), pod('two', 'host2'));
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod', '--all', '--timeout=90s');
  const [one = '', two = ''] = await Promise.all(
    ['one', 'two'].map((each) => cluster.kubectl('get', 'pod', each, '--output=jsonpath={.status.podIPs[*].ip}')),
  );
  assert.ok(one.startsWith('fd00:10:244:1:') && two.startsWith('fd00:10:244:2:'), `${one} ${two}`);
  assert.equal(await inPod('one', ...page(two, 8080)), 'two');
  assert.equal(await inPod('two', ...page(one, 8080)), 'one');
  assert.equal(await lab.host('host1').ask(['busybox', ...page(two, 8080)]), 'two');
});

test('services are reached from pods and nodes, the API server’s own among them', async () => {
  const ports = [{ port: 80, targetPort: 8080 }];
  await cluster.apply({ apiVersion: 'v1', kind: 'Service', metadata: { name: 'two' }, spec: { selector: { app: 'two' }, ports } });
  const ip = await cluster.kubectl('get', 'service', 'two', '--output=jsonpath={.spec.clusterIP}');
  await until('the service to answer', async () => (await inPod('one', ...page(ip, 80))) === 'two', patience);
  for (const host of lab.hosts) {
    await until(`the service to answer on ${host.name}`, async () => (await host.ask(['busybox', ...page(ip, 80)])) === 'two', patience);
  }
  const server = await cluster.kubectl('get', 'service', 'kubernetes', '--output=jsonpath={.spec.clusterIP}');
  await inPod('one', 'sh', '-c', `nc -w 5 ${server} 443 </dev/null`);
});
