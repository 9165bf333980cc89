// Pods of a real cluster get their network from Causeway and nothing else.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { destroyLab, type Lab } from '#lab/lab.ts';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { podRange } from '#lab/kubernetes-control-plane.ts';
import { until } from '#lab/until.ts';
import { contains, parseCidr, parseIp } from '#model/ip.ts';
import { agentStatus } from './bed.ts';
import { askedForPage, askPage, KubernetesBed, podOf, type PodObject, servePage } from './kubernetes-bed.ts';

const name = 'pods-test';
let bed: KubernetesBed;
let lab: Lab;
let cluster: Kubernetes;

before(async () => {
  bed = await KubernetesBed.start(name);
  ({ lab, cluster } = bed);
});
after(() => destroyLab(name));

const pod = (podName: string, node: string, hostPort?: number): PodObject =>
  podOf(podName, {
    node,
    command: `echo started; ${servePage}`,
    container: { ...askedForPage, ports: [{ containerPort: 8080, ...(hostPort === undefined ? {} : { hostPort }) }] },
  });

test('pods on two nodes reach each other, hosts reach pods, and the kubelet its probes', async () => {
  await bed.run(pod('one', 'host1'), pod('two', 'host2'), pod('three', 'host2'));
  const [one, two, three] = await Promise.all(['one', 'two', 'three'].map((each) => bed.ipOf(each)));
  assert.ok([one, two, three].every((ip) => contains(parseCidr(podRange), parseIp(ip ?? ''))));
  assert.equal(await bed.page('one', two ?? ''), 'two');
  assert.equal(await bed.page('two', one ?? ''), 'one');
  assert.equal(await bed.page('two', three ?? ''), 'three');
  for (const host of lab.hosts) {
    const [first, second] = [await bed.pageOn(host, one ?? ''), await bed.pageOn(host, two ?? '')];
    assert.deepEqual([first, second], ['one', 'two']);
  }
  assert.equal(await cluster.kubectl('logs', 'one'), 'started');
});

test('a pod reaches other nodes and the API server', async () => {
  for (const { address } of lab.hosts) await bed.inPod('one', 'ping', '-c3', '-W5', address);
  await bed.inPod('one', 'sh', '-c', `nc -w 5 ${lab.controller.address} 6443 </dev/null`);
});

test('a node that is said to be at an address it does not have says where it is, and pods are reached there again', async () => {
  const key = 'flannel.alpha.coreos.com/public-ip';
  const told = (): Promise<string> =>
    cluster.kubectl('get', 'node', 'host2', `--output=jsonpath={.metadata.annotations.${key.replaceAll('.', String.raw`\.`)}}`);
  const { address } = lab.host('host2');
  assert.equal(await told(), address);
  await cluster.kubectl('annotate', '--overwrite', 'node', 'host2', `${key}=192.0.2.1`);
  await until('the node to say its address', async () => (await told()) === address);
  const two = await bed.ipOf('two');
  const isReached = async (): Promise<boolean> => (await bed.inPod('one', 'sh', '-c', `${askPage(two).join(' ')} || true`)) === 'two';
  await until('its pods to be reached', isReached);
});

test('a host port leads to its pod from other machines and its own, and is closed with it', async () => {
  await bed.run(pod('open', 'host1', 18_080));
  const { address } = lab.host('host1');
  const url = ['busybox', 'wget', '-qO-', '-T', '5', `http://${address}:18080/`];
  for (const host of [lab.controller, ...lab.hosts]) assert.equal(await bed.pageOn(host, address, 18_080), 'open');
  for (const client of ['one', 'two', 'open']) assert.equal(await bed.page(client, address, 18_080), 'open', client);
  await bed.remove('open');
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
  assert.equal(await bed.page('two', await bed.ipOf('one')), 'one');
  await cluster.startAgent(host);
  // Services are there, too: the API server's own.
  await until(
    'the agent to be in step',
    async () => host.log('agent').split('agent is running').at(-1)?.includes('following the controller') === true,
  );
  await until('services to be in step', async () => (await agentStatus(host)).desired > 0);
  assert.equal((await agentStatus(host)).kernelWrites, 0);
  await bed.run(pod('four', 'host1'));
  assert.equal(await bed.page('two', await bed.ipOf('four')), 'four');
  await bed.remove('four');
  await onlyOneIsLeft();
});

/** By a firewall that lets in TCP alone. */
const shut = `table inet own {
  chain input { type filter hook input priority 10; policy drop; iifname lo accept; meta l4proto tcp accept; ct state established,related accept; }
  chain forward { type filter hook forward priority 10; policy drop; ct state established,related accept; }
}`;

const ways = (node: string): Promise<string> => {
  const one = '@.type=="causeway.dev/Paths"';
  const fields = ['status', 'reason', 'message'].map((field) => `{.status.conditions[?(${one})].${field}}`);
  return cluster.kubectl('get', 'node', node, `--output=jsonpath=${fields.join(' ')}`);
};

const says = (node: string, pattern: RegExp): Promise<true> =>
  until(
    `${node} to say ${pattern.source}`,
    async () => {
      const said = await ways(node);
      if (!pattern.test(said)) throw new Error(said);
      return true;
    },
    { timeoutMs: 240_000, intervalMs: 1_000 },
  );

test('a node whose own firewall drops packets of pods says which and where, until it drops them no more', async () => {
  await says('host1', /^True PacketsPass/);
  const host = lab.host('host1');
  await host.exec(['nft', '-f', '-'], { input: shut });
  await says('host1', /^False PacketsDropped UDP port 8472: packets of host2 come in, .*\(inet own input\).*\(inet own forward\) drops/);
  await says('host2', /^False PacketsLost UDP port 8472 does not reach node host1/);
  const lets = ['input udp dport 8472 accept', 'forward iifname "cw*" accept', 'forward oifname "cw*" accept'];
  await host.exec(['nft', '-f', '-'], { input: lets.map((rule) => `add rule inet own ${rule}`).join('\n') });
  for (const node of ['host1', 'host2']) await says(node, /^True PacketsPass/);
  assert.equal(await bed.page('two', await bed.ipOf('one')), 'one');
  await host.exec(['nft', 'delete', 'table', 'inet', 'own']);
});
