// A cluster without IPv4: pods, services and the API server's own service by IPv6 alone.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { destroyLab, type Lab } from '#lab/lab.ts';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { until } from '#lab/until.ts';
import { askedForPage, askPage, KubernetesBed, podOf, type PodObject, serviceOf } from './kubernetes-bed.ts';

const name = 'ipv6-test';
const patience = { timeoutMs: 60_000, intervalMs: 200 };
let bed: KubernetesBed;
let lab: Lab;
let cluster: Kubernetes;

before(async () => {
  bed = await KubernetesBed.start(name, { families: [6], firstRange: 0 });
  ({ lab, cluster } = bed);
});
after(() => destroyLab(name));

const pod = (podName: string, node: string): PodObject => podOf(podName, { node, labels: { app: podName }, container: askedForPage });

test('pods have an address of IPv6 and no other, and reach each other over nodes', async () => {
  await bed.run(pod('one', 'host1'), pod('two', 'host2'));
  const [one, two] = [(await bed.ipsOf('one')).join(' '), (await bed.ipsOf('two')).join(' ')];
  assert.ok(one.startsWith('fd00:10:244::') && two.startsWith('fd00:10:244:1:'), `${one} ${two}`);
  assert.equal(await bed.inPod('one', ...askPage(two, 8080)), 'two');
  assert.equal(await bed.inPod('two', ...askPage(one, 8080)), 'one');
  assert.equal(await lab.host('host1').ask(['busybox', ...askPage(two, 8080)]), 'two');
});

test('services are reached from pods and nodes, the API server’s own among them', async () => {
  await cluster.apply(serviceOf('two', { app: 'two' }));
  const ip = await cluster.kubectl('get', 'service', 'two', '--output=jsonpath={.spec.clusterIP}');
  await until('the service to answer', async () => (await bed.inPod('one', ...askPage(ip, 80))) === 'two', patience);
  for (const host of lab.hosts) {
    await until(`the service to answer on ${host.name}`, async () => (await host.ask(['busybox', ...askPage(ip, 80)])) === 'two', patience);
  }
  const server = await cluster.kubectl('get', 'service', 'kubernetes', '--output=jsonpath={.spec.clusterIP}');
  await bed.inPod('one', 'sh', '-c', `nc -w 5 ${server} 443 </dev/null`);
});
