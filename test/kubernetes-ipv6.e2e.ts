// A cluster without IPv4: pods, services and the API server's own service by IPv6 alone.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { destroyLab, type Lab } from '#lab/lab.ts';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { askedForPage, KubernetesBed, podOf, type PodObject, serviceOf } from './kubernetes-bed.ts';

const name = 'ipv6-test';
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
  assert.equal(await bed.page('one', two, 8080), 'two');
  assert.equal(await bed.page('two', one, 8080), 'one');
  assert.equal(await bed.pageOn(lab.host('host1'), two, 8080), 'two');
});

test('services are reached from pods and nodes, the API server’s own among them', async () => {
  await cluster.apply(serviceOf('two', { app: 'two' }));
  const ip = await cluster.kubectl('get', 'service', 'two', '--output=jsonpath={.spec.clusterIP}');
  assert.equal(await bed.page('one', ip, 80), 'two');
  for (const host of lab.hosts) assert.equal(await bed.pageOn(host, ip, 80), 'two');
  const server = await cluster.kubectl('get', 'service', 'kubernetes', '--output=jsonpath={.spec.clusterIP}');
  await bed.inPod('one', 'sh', '-c', `nc -w 5 ${server} 443 </dev/null`);
});
