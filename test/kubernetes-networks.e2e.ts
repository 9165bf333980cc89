// Further networks of pods: by plugins of others and by Causeway, as Multus' users ask for them.
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import * as v from 'valibot';
import { manifestsFolder } from '#lab/helm-chart.ts';
import { boxPodImage, Kubernetes } from '#lab/kubernetes.ts';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';
import { agentStatus } from './bed.ts';

const name = 'networks-test';
const plugins = ['bridge', 'macvlan', 'host-local', 'static'];
const annotation = 'k8s.v1.cni.cncf.io/networks';
let lab: Lab;
let cluster: Kubernetes;

before(async () => {
  await destroyLab(name);
  lab = await createLab({ name, hosts: 2 });
  cluster = new Kubernetes(lab);
  await cluster.start();
  for (const host of lab.hosts) {
    for (const plugin of plugins) copyFileSync(join('/usr/lib/cni', plugin), host.file(`/opt/cni/bin/${plugin}`));
  }
  await cluster.applyText(readFileSync(join(manifestsFolder, 'network-attachment-definitions.yaml'), 'utf8'));
  await cluster.kubectl('wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s');
  await cluster.apply(
    definition('lan', { type: 'bridge', bridge: 'br-lan', ipam: { type: 'host-local', subnet: '10.98.0.0/24' } }),
    definition('blue', { type: 'causeway', subnets: ['10.96.0.0/16', 'fd96::/48'] }),
    definition('green', { type: 'causeway', subnets: ['10.95.0.0/20'], vni: 77 }),
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

const pod = (podName: string, nodeName: string, networks: string): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: podName, annotations: { [annotation]: networks } },
  spec: {
    nodeName,
    terminationGracePeriodSeconds: 0,
    containers: [
      {
        name: 'box',
        image: boxPodImage,
        imagePullPolicy: 'Never',
        command: ['sh', '-c', 'mkdir /www && hostname >/www/index.html && exec httpd -f -p 8080 -h /www'],
      },
    ],
  },
});
const inPod = (podName: string, ...argv: readonly string[]): Promise<string> => cluster.kubectl('exec', podName, '--', ...argv);
const page = (podName: string, ip: string | undefined): Promise<string> =>
  inPod(podName, 'wget', '-qO-', '-T', '5', `http://${ip ?? 'none'}:8080/`);
const ready = (...names: readonly string[]): Promise<string> =>
  cluster.kubectl('wait', '--for=condition=Ready', '--timeout=90s', ...names.map((one) => `pod/${one}`));

const status = v.pipe(
  v.string(),
  v.parseJson(),
  v.array(
    v.object({ name: v.string(), interface: v.string(), ips: v.array(v.string()), mac: v.string(), default: v.optional(v.boolean()) }),
  ),
);
async function statusOf(podName: string) {
  const pods = await cluster.kubectl(
    'get',
    'pod',
    podName,
    '--output=jsonpath={.metadata.annotations.k8s\\.v1\\.cni\\.cncf\\.io/network-status}',
  );
  return v.parse(status, pods);
}
const events = (podName: string): Promise<string> =>
  cluster.kubectl('get', 'events', `--field-selector=involvedObject.name=${podName}`, '--output=jsonpath={.items[*].message}');
const reservations = async (network: string): Promise<string[]> =>
  (await lab.host('host1').exec(['ls', `/var/lib/cni/networks/${network}`], { anyStatus: true })).stdout
    .split('\n')
    .filter((file) => /^\d/.test(file));

test("pods share a bridge by Debian's plugins beside the cluster's network, and nothing is left of it", async () => {
  const earlier = await reservations('lan');
  await cluster.apply(pod('one', 'host1', 'lan'), pod('two', 'host1', 'default/lan@lan0'));
  await ready('one', 'two');
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
    const shown = await inPod(all === one ? 'one' : 'two', 'ip', 'addr');
    for (const { interface: link, ips, mac } of all) assert.match(shown, new RegExp(`${link}[^]*${mac}[^]*${ips[0]}/`));
  }
  assert.equal(await page('one', two[1]?.ips[0]), 'two');
  assert.equal(await page('two', one[1]?.ips[0]), 'one');
  assert.equal(await page('one', two[0]?.ips[0]), 'two');
  assert.equal((await reservations('lan')).length, earlier.length + 2);
  await cluster.kubectl('delete', 'pod', 'one', 'two', '--wait');
  await until('the addresses to be given back', async () => (await reservations('lan')).length === earlier.length);
  const ports = await lab.host('host1').ask(['ip', '-br', 'link', 'show', 'master', 'br-lan']);
  assert.equal(ports.trim(), '');
});

const asked = (ip: string, mac: string): string =>
  JSON.stringify([{ name: 'wire', namespace: 'default', interface: 'wire0', ips: [`${ip}/24`], mac }]);

test('JSON says addresses, MAC and link of a macvlan', async () => {
  await cluster.apply(
    pod('three', 'host1', asked('10.97.0.3', '02:00:00:00:97:03')),
    pod('four', 'host1', asked('10.97.0.4', '02:00:00:00:97:04')),
  );
  await ready('three', 'four');
  assert.deepEqual((await statusOf('three'))[1], {
    name: 'default/wire',
    interface: 'wire0',
    ips: ['10.97.0.3'],
    mac: '02:00:00:00:97:03',
  });
  assert.equal(await page('three', '10.97.0.4'), 'four');
  await cluster.kubectl('delete', 'pod', 'three', 'four', '--wait');
});

test('a network of ours leads from node to node beside that of the cluster, and to no other network', async () => {
  await cluster.apply(pod('five', 'host1', 'blue'), pod('six', 'host2', 'blue,green@green0'), pod('seven', 'host1', 'green'));
  await ready('five', 'six', 'seven');
  const [five, six, seven] = await Promise.all(['five', 'six', 'seven'].map(statusOf));
  assert.deepEqual(
    six?.map((of) => [of.name, of.interface, of.ips.length]),
    [
      ['pods', 'eth0', 1],
      ['default/blue', 'net1', 2],
      ['default/green', 'green0', 1],
    ],
  );
  for (const ip of six?.[1]?.ips ?? []) assert.equal(await page('five', ip.includes(':') ? `[${ip}]` : ip), 'six');
  assert.equal(await page('seven', six?.[2]?.ips[0]), 'six');
  assert.equal(await page('six', seven?.[1]?.ips[0]), 'seven');
  assert.equal(await page('six', five?.[0]?.ips[0]), 'five');
  const blue = five?.[1]?.ips[0] ?? '';
  const strange = await cluster.tryKubectl(['exec', 'seven', '--', 'wget', '-qO-', '-T', '2', `http://${blue}:8080/`], { anyStatus: true });
  assert.notEqual(strange.status, 0);
});

test('while its definition is gone and its agent restarts a network stays with its pods, and goes with the last of them', async () => {
  const host = lab.host('host1');
  const [six] = [await statusOf('six')];
  await cluster.kubectl('delete', 'net-attach-def', 'blue');
  await host.stopService('agent', 'SIGKILL');
  await cluster.startAgent(host);
  await until('the agent to be in step', async () => (await agentStatus(host)).synced);
  assert.equal(await page('five', six[1]?.ips[0]), 'six');
  assert.equal((await agentStatus(host)).kernelWrites, 0);
  await cluster.kubectl('delete', 'pod', 'five', 'six', 'seven', '--wait');
  for (const one of lab.hosts) {
    await until(`${one.name} to have nothing of it`, async () => {
      const links = (await one.ask(['ip', '-br', 'link'])).split('\n').filter((line) => /^cw[ext]/.test(line));
      return links.every((line) => line.startsWith('cwx1 '));
    });
    assert.doesNotMatch(await one.ask(['ip', 'route']), /10\.9[56]\./);
  }
  await cluster.apply(pod('five', 'host1', 'blue'));
  await until('the event', async () => /definition default\/blue: there is no such/.test(await events('five')));
  await cluster.kubectl('delete', 'pod', 'five', '--wait');
});

test('a pod that asks for what is not there is told which annotation and definition it is, and gets nothing', async () => {
  const earlier = await reservations('lan');
  await cluster.apply(pod('lost', 'host1', 'lan,nowhere'));
  await until('the event', async () => /networks\[1\], definition default\/nowhere: there is no such/.test(await events('lost')));
  assert.deepEqual(await reservations('lan'), earlier);
  await cluster.kubectl('delete', 'pod', 'lost', '--wait');
});
