// Nodes that take no pods: whose addresses are all given, or whose pods would have those of hosts. What runs goes on.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { destroyLab, type Lab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';
import { askedForPage, cniStatus, KubernetesBed, podOf, stay } from './kubernetes-bed.ts';

const name = 'full-test';
const patience = { timeoutMs: 240_000 };
let bed: KubernetesBed;
let lab: Lab;
let cluster: Kubernetes;

before(async () => {
  // Eight addresses for each node, of which the first is the node's own.
  bed = await KubernetesBed.start(name, { nodeLength: 29 });
  ({ lab, cluster } = bed);
});
after(() => destroyLab(name));

/** Status, reason and message of the condition NetworkUnavailable. */
const condition = (node: string): Promise<string> => {
  const path = '{.status.conditions[?(@.type=="NetworkUnavailable")]';
  return cluster.kubectl(
    'get',
    'node',
    node,
    `--output=jsonpath=${['status', 'reason', 'message'].map((key) => `${path}.${key}}`).join(' ')}`,
  );
};
const taints = (node: string): Promise<string> => cluster.kubectl('get', 'node', node, '--output=jsonpath={.spec.taints[*].key}');
const becomes = (node: string, word: RegExp): Promise<true> =>
  until(`${node} to say ${word}`, async () => word.test(await condition(node)), patience);

const events = (podName: string): Promise<string> =>
  cluster.kubectl('get', 'events', `--field-selector=involvedObject.name=${podName}`, '--output=jsonpath={.items[*].message}');

test('a node whose addresses are all given says so by its condition and gets no more pods, and stays ready for those that it has', async () => {
  const host = lab.host('host1');
  assert.equal(await cniStatus(host), '');
  assert.match(await condition('host1'), /^False CausewayIsUp/);
  const names = ['one', 'two', 'three', 'four', 'five', 'six', 'seven'];
  await bed.run(...names.map((each) => podOf(each, { node: 'host1', container: askedForPage })));
  await cluster.apply(podOf('one-too-many', { node: 'host1', command: stay }));
  await until('its event', async () => /No free address/.test(await events('one-too-many')), patience);
  await becomes('host1', /^True NoFreeAddresses No address is free in 10\.244\.1\.0\/29$/);
  assert.equal(await cniStatus(host), '', 'a runtime that hears of it says that the node is not ready');
  await until('the taint', async () => (await taints('host1')).includes('node.kubernetes.io/network-unavailable'), patience);
  await bed.run(podOf('elsewhere', { command: stay }));
  assert.equal(await bed.field('elsewhere', '.spec.nodeName'), 'host2');
  assert.equal(await bed.page('seven', await bed.ipOf('five')), 'five');
  // Their addresses rest for a minute.
  await bed.remove('one-too-many', 'one', 'two');
});

test('a node on whose underlay others may have addresses of pods names both ranges and gets no more pods', async () => {
  const host = lab.host('host2');
  await host.exec(['ip', 'addr', 'add', '10.244.77.1/24', 'dev', 'eth0']);
  await becomes('host2', /^True PodsAmongHosts The range of pods 10\.244\.0\.0\/16 overlaps 10\.244\.77\.0\/24 of eth0/);
  assert.equal(await bed.page('elsewhere', await bed.ipOf('five')), 'five');
  await host.exec(['ip', 'addr', 'del', '10.244.77.1/24', 'dev', 'eth0']);
  await becomes('host2', /^False CausewayIsUp/);
});

test('with an address that is free again it takes pods again', async () => {
  await becomes('host1', /^False CausewayIsUp/);
  await until('no taint', async () => (await taints('host1')) === '', patience);
  assert.equal(await cniStatus(lab.host('host1')), '');
  await bed.run(podOf('eight', { node: 'host1', container: askedForPage }));
  assert.equal(await bed.page('eight', await bed.ipOf('five')), 'five');
});
