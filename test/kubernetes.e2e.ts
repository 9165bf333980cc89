// Pods of a real cluster get their network from Causeway and nothing else.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { boxPodImage, Kubernetes } from '#lab/kubernetes.ts';
import { podRange } from '#lab/kubernetes-control-plane.ts';
import { until } from '#lab/until.ts';
import { contains, parseCidr, parseIp } from '#model/ip.ts';
import { agentStatus } from './bed.ts';

const name = 'pods-test';
let lab: Lab;
let cluster: Kubernetes;

before(async () => {
  await destroyLab(name);
  lab = await createLab({ name, hosts: 2 });
  cluster = new Kubernetes(lab);
  await cluster.start();
});
after(() => destroyLab(name));

const pod = (podName: string, nodeName: string, hostPort?: number): object => ({
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
        command: ['sh', '-c', 'mkdir /www && hostname >/www/index.html && echo started && exec httpd -f -p 8080 -h /www'],
        ports: [{ containerPort: 8080, ...(hostPort === undefined ? {} : { hostPort }) }],
        readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1 },
      },
    ],
  },
});
const ipOf = (podName: string): Promise<string> => cluster.kubectl('get', 'pod', podName, '--output=jsonpath={.status.podIP}');
const inPod = (podName: string, ...argv: readonly string[]): Promise<string> => cluster.kubectl('exec', podName, '--', ...argv);
const page = (ip: string): string[] => ['wget', '-qO-', '-T', '5', `http://${ip}:8080/`];

test('pods on two nodes reach each other, hosts reach pods, and the kubelet its probes', async () => {
  await cluster.apply(pod('one', 'host1'), pod('two', 'host2'), pod('three', 'host2'));
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod', '--all', '--timeout=90s');
  const [one, two, three] = await Promise.all(['one', 'two', 'three'].map(ipOf));
  assert.ok([one, two, three].every((ip) => contains(parseCidr(podRange), parseIp(ip ?? ''))));
  assert.equal(await inPod('one', ...page(two ?? '')), 'two');
  assert.equal(await inPod('two', ...page(one ?? '')), 'one');
  assert.equal(await inPod('two', ...page(three ?? '')), 'three');
  for (const host of lab.hosts) {
    const [first, second] = [await host.ask(['busybox', ...page(one ?? '')]), await host.ask(['busybox', ...page(two ?? '')])];
    assert.deepEqual([first, second], ['one', 'two']);
  }
  assert.equal(await cluster.kubectl('logs', 'one'), 'started');
});

test('a pod reaches other nodes and the API server', async () => {
  for (const { address } of lab.hosts) await inPod('one', 'ping', '-c1', '-W2', address);
  await inPod('one', 'sh', '-c', `nc -w 5 ${lab.controller.address} 6443 </dev/null`);
});

test('a host port leads to its pod from other machines and its own, and is closed with it', async () => {
  await cluster.apply(pod('open', 'host1', 18_080));
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod', 'open', '--timeout=60s');
  const { address } = lab.host('host1');
  const url = ['busybox', 'wget', '-qO-', '-T', '5', `http://${address}:18080/`];
  for (const host of [lab.controller, ...lab.hosts]) assert.equal(await host.ask(url), 'open');
  await cluster.kubectl('delete', 'pod', 'open', '--wait');
  await until('the port to be closed', async () => (await lab.controller.exec(url, { anyStatus: true })).status !== 0);
});

/** The API calls a pod gone before the runtime has told the agent of it. */
const onlyOneIsLeft = (): Promise<unknown> =>
  until('the link of the other pod on host1 to be gone', async () => {
    const links = (await lab.host('host1').ask(['ip', '-br', 'link'])).split('\n');
    return links.filter((line) => line.startsWith('cwe')).length === 1;
  });

test('an agent that is restarted changes nothing; pods come and go afterwards', async () => {
  const host = lab.host('host1');
  await onlyOneIsLeft();
  await host.stopService('agent', 'SIGKILL');
  assert.equal(await inPod('two', ...page(await ipOf('one'))), 'one');
  await cluster.startAgent(host);
  // Services are there, too: the API server's own.
  await until(
    'the agent to be in step',
    async () => host.log('agent').split('agent is running').at(-1)?.includes('following the controller') === true,
  );
  await until('services to be in step', async () => (await agentStatus(host)).desired > 0);
  assert.equal((await agentStatus(host)).kernelWrites, 0);
  await cluster.apply(pod('four', 'host1'));
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod', 'four', '--timeout=60s');
  assert.equal(await inPod('two', ...page(await ipOf('four'))), 'four');
  await cluster.kubectl('delete', 'pod', 'four', '--wait');
  await onlyOneIsLeft();
});
