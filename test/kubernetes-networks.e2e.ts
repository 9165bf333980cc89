// Further networks of pods: by plugins of others and by Causeway, as Multus' users ask for them.
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import * as v from 'valibot';
import { manifestsFolder } from '#lab/helm-chart.ts';
import type { Host } from '#lab/host.ts';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { destroyLab, type Lab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';
import { agentStatus } from './bed.ts';
import { KubernetesBed, podOf, type PodObject } from './kubernetes-bed.ts';

const name = 'networks-test';
const plugins = ['bridge', 'macvlan', 'host-local', 'static'];
const annotation = 'k8s.v1.cni.cncf.io/networks';
const defaultAnnotation = 'v1.multus-cni.io/default-network';
let bed: KubernetesBed;
let lab: Lab;
let cluster: Kubernetes;

before(async () => {
  bed = await KubernetesBed.start(name);
  ({ lab, cluster } = bed);
  for (const host of lab.hosts) {
    for (const plugin of plugins) copyFileSync(join('/usr/lib/cni', plugin), host.file(`/opt/cni/bin/${plugin}`));
  }
  await cluster.applyText(readFileSync(join(manifestsFolder, 'network-attachment-definitions.yaml'), 'utf8'));
  await cluster.untilDefined();
  await cluster.apply(
    definition('lan', { type: 'bridge', bridge: 'br-lan', ipam: { type: 'host-local', subnet: '10.98.0.0/24' } }),
    definition('blue', { type: 'causeway', subnets: ['10.60.0.0/16', 'fd60::/48'] }),
    definition('green', { type: 'causeway', subnets: ['10.61.0.0/20'], vni: 77 }),
    definition('wire', {
      plugins: [{ type: 'macvlan', master: 'eth0', capabilities: { ips: true, mac: true }, ipam: { type: 'static' } }],
    }),
  );
});
after(() => destroyLab(name));

const definition = (of: string, config: object, namespace = 'default'): object => ({
  apiVersion: 'k8s.cni.cncf.io/v1',
  kind: 'NetworkAttachmentDefinition',
  metadata: { name: of, namespace },
  spec: { config: JSON.stringify({ cniVersion: '1.0.0', name: of, ...config }) },
});

const pod = (podName: string, node: string, networks: string): PodObject =>
  podOf(podName, { node, annotations: { [annotation]: networks } });
const page = (podName: string, ip = 'none'): Promise<string> => bed.page(podName, ip);

const status = v.pipe(
  v.string(),
  v.parseJson(),
  v.array(
    v.object({ name: v.string(), interface: v.string(), ips: v.array(v.string()), mac: v.string(), default: v.optional(v.boolean()) }),
  ),
);
async function statusOf(podName: string) {
  return v.parse(status, await bed.field(podName, '.metadata.annotations.k8s\\.v1\\.cni\\.cncf\\.io/network-status'));
}
const events = (podName: string): Promise<string> =>
  cluster.kubectl('get', 'events', `--field-selector=involvedObject.name=${podName}`, '--output=jsonpath={.items[*].message}');
const reservations = async (network: string): Promise<string[]> =>
  (await lab.host('host1').exec(['ls', `/var/lib/cni/networks/${network}`], { anyStatus: true })).stdout
    .split('\n')
    .filter((file) => /^\d/.test(file));

test("pods share a bridge by Debian's plugins beside the cluster's network, and nothing is left of it", async () => {
  const earlier = await reservations('lan');
  await bed.run(pod('one', 'host1', 'lan'), pod('two', 'host1', 'default/lan@lan0'));
  const [one, two] = [await statusOf('one'), await statusOf('two')];
  assert.deepEqual(
    [one, two].map((all) => all.map((of) => [of.name, of.interface, of.default === true])),
    [
      [
        ['pods', 'eth0', true],
        ['default/lan', 'net1', false],
      ],
      [
        ['pods', 'eth0', true],
        ['default/lan', 'lan0', false],
      ],
    ],
  );
  for (const all of [one, two]) {
    const shown = await bed.inPod(all === one ? 'one' : 'two', 'ip', 'addr');
    for (const { interface: link, ips, mac } of all) assert.match(shown, new RegExp(`${link}[^]*${mac}[^]*${ips[0]}/`));
  }
  assert.equal(await page('one', two[1]?.ips[0]), 'two');
  assert.equal(await page('two', one[1]?.ips[0]), 'one');
  assert.equal(await page('one', two[0]?.ips[0]), 'two');
  assert.equal((await reservations('lan')).length, earlier.length + 2);
  await bed.remove('one', 'two');
  await until('the addresses to be given back', async () => (await reservations('lan')).length === earlier.length);
  const ports = ['ip', '-br', 'link', 'show', 'master', 'br-lan'];
  await until('its ports to be gone', async () => (await lab.host('host1').ask(ports)) === '');
});

const asked = (ip: string, mac: string): string =>
  JSON.stringify([{ name: 'wire', namespace: 'default', interface: 'wire0', ips: [`${ip}/24`], mac }]);

test('JSON says addresses, MAC and link of a macvlan', async () => {
  await bed.run(
    pod('three', 'host1', asked('10.97.0.3', '02:00:00:00:97:03')),
    pod('four', 'host1', asked('10.97.0.4', '02:00:00:00:97:04')),
  );
  assert.deepEqual((await statusOf('three'))[1], {
    name: 'default/wire',
    interface: 'wire0',
    ips: ['10.97.0.3'],
    mac: '02:00:00:00:97:03',
  });
  assert.equal(await page('three', '10.97.0.4'), 'four');
  await bed.remove('three', 'four');
});

test('a network of ours leads from node to node beside that of the cluster, and to no other network', async () => {
  await bed.run(pod('five', 'host1', 'blue'), pod('six', 'host2', 'blue,green@green0'), pod('seven', 'host1', 'green'));
  const [five, six, seven] = await Promise.all(['five', 'six', 'seven'].map(statusOf));
  assert.deepEqual(
    six?.map((of) => [of.name, of.interface, of.ips.length]),
    [
      ['pods', 'eth0', 1],
      ['default/blue', 'net1', 2],
      ['default/green', 'green0', 1],
    ],
  );
  for (const ip of six?.[1]?.ips ?? []) assert.equal(await page('five', ip), 'six');
  assert.equal(await page('seven', six?.[2]?.ips[0]), 'six');
  assert.equal(await page('six', seven?.[1]?.ips[0]), 'seven');
  assert.equal(await page('six', five?.[0]?.ips[0]), 'five');
  const blue = five?.[1]?.ips[0] ?? '';
  const strange = await cluster.tryKubectl(['exec', 'seven', '--', 'wget', '-qO-', '-T', '2', `http://${blue}:8080/`], { anyStatus: true });
  assert.notEqual(strange.status, 0);
});

/** Kills the agent and waits until the next one is in step. */
async function restartAgent(host: Host): Promise<void> {
  await host.stopService('agent', 'SIGKILL');
  await cluster.startAgent(host);
  await until('the agent to be in step', async () => (await agentStatus(host)).synced);
}

test('while its definition is gone and its agent restarts a network stays with its pods, and goes with the last of them', async () => {
  const host = lab.host('host1');
  const [six] = [await statusOf('six')];
  await cluster.kubectl('delete', 'net-attach-def', 'blue');
  await restartAgent(host);
  assert.equal(await page('five', six[1]?.ips[0]), 'six');
  assert.equal((await agentStatus(host)).kernelWrites, 0);
  await bed.remove('five', 'six', 'seven');
  for (const one of lab.hosts) {
    await until(`${one.name} to have nothing of it`, async () => {
      const links = (await one.ask(['ip', '-br', 'link'])).split('\n').filter((line) => /^cw[ext]/.test(line));
      return links.every((line) => line.startsWith('cwx1 '));
    });
    await until(`${one.name} to have no way to it`, async () => !/10\.6[01]\./.test(await one.ask(['ip', 'route'])));
  }
  await cluster.apply(pod('five', 'host1', 'blue'));
  await until('the event', async () => /definition default\/blue: there is no such/.test(await events('five')));
  await bed.remove('five');
});

test("a network of ours in the place of the cluster's is the pod's only one", async () => {
  const eight = podOf('eight', { node: 'host1', annotations: { [defaultAnnotation]: 'default/green' } });
  await bed.run(eight, pod('nine', 'host2', 'green'));
  const [only, both] = [await statusOf('eight'), await statusOf('nine')];
  assert.deepEqual(
    only.map((of) => [of.name, of.interface, of.default === true]),
    [['default/green', 'eth0', true]],
  );
  assert.equal(await bed.ipOf('eight'), only[0]?.ips[0]);
  assert.equal(await page('nine', only[0]?.ips[0]), 'eight');
  assert.equal(await page('eight', both[1]?.ips[0]), 'nine');
  const outside = ['exec', 'eight', '--', 'wget', '-qO-', '-T', '2', `http://${both[0]?.ips[0]}:8080/`];
  assert.notEqual((await cluster.tryKubectl(outside, { anyStatus: true })).status, 0);
  const host = lab.host('host1');
  await restartAgent(host);
  assert.equal(await page('nine', only[0]?.ips[0]), 'eight');
  assert.equal((await agentStatus(host)).kernelWrites, 0);
  await bed.remove('eight', 'nine');
});

test('a pod that asks for what is not there is told which annotation and definition it is, and gets nothing', async () => {
  const earlier = await reservations('lan');
  await cluster.apply(pod('lost', 'host1', 'lan,nowhere'));
  await until('the event', async () => /networks\[1\], definition default\/nowhere: there is no such/.test(await events('lost')));
  await until('its address to be given back', async () => (await reservations('lan')).join() === earlier.join());
  await cluster.apply(podOf('stray', { node: 'host1', annotations: { [defaultAnnotation]: 'default/lan' } }));
  await until('its event', async () => /default-network\[0\], definition default\/lan: .*causeway alone/.test(await events('stray')));
  await bed.remove('lost', 'stray');
});
