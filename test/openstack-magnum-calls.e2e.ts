// Clusters of a real Magnum: every call that Causeway makes of it, by the commands that users have. The machines of a cluster are
// hosts of the lab (lab/magnum-machines.ts); certificates, status and health are Magnum's own, and Kubernetes is real.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Output } from '#lab/command.ts';
import { buildImageOf, defaultImage, imageRepository } from '#lab/image.ts';
import { importImage } from '#lab/kubernetes-install.ts';
import { Machines } from '#lab/magnum-machines.ts';
import { createOpenStack, demo, type OpenStack, publicNetwork } from '#lab/openstack.ts';
import { glance } from '#lab/openstack-glance.ts';
import { magnum, magnumNeeds, makeImage } from '#lab/openstack-magnum.ts';
import { missingOf, openstackNeeds } from '#lab/packages.ts';
import { silentProgress } from '#lab/progress.ts';
import { until } from '#lab/until.ts';
import { askedForPage, podOf } from './kubernetes-bed.ts';
import { magnumUser, made, type Template } from './magnum-user.ts';

const skip = missingOf([...openstackNeeds, ...magnumNeeds]);
const folder = mkdtempSync(join(tmpdir(), 'causeway-magnum-calls-'));
const kubeconfig = join(folder, 'web.kubeconfig');
const nextImage = `${imageRepository}:next`;
const imageFile = join(folder, 'image.tar');
let cloud: OpenStack;
let machines: Machines | undefined;

before(async () => {
  if (skip !== false) return;
  cloud = await createOpenStack({ name: 'os-magnum-calls', hypervisors: 0, machines: 3, services: [glance, magnum] }, silentProgress);
  await makeImage(cloud.operator);
  await buildImageOf(imageFile, defaultImage, silentProgress);
  machines = new Machines(cloud.lab, cloud.lab.hosts, {
    prepare: async (host) => {
      await importImage(host, imageFile);
      await host.exec(['ctr', '--namespace=k8s.io', 'images', 'tag', defaultImage, nextImage]);
    },
  });
});
after(async () => {
  await machines?.[Symbol.asyncDispose]();
  await cloud?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const { tryMagnum, ask, refused } = magnumUser(() => cloud);

test('templates are made, listed over several pages, shown with their network, and removed', { skip }, async () => {
  const image = ['--image', 'machines', '--external-network', publicNetwork];
  const flannel = await ask<Template>(...made, 'plain', ...image);
  assert.deepEqual(flannel.causeway.values, { model: 'flannel', podCidrs: ['10.100.0.0/16'], carry: 'vxlan' });
  const labels = ['flannel_backend=host-gw', 'flannel_network_cidr=10.82.0.0/16', 'kube_tag=v1.20.2'];
  await ask<Template>(...made, 'fast', ...image, ...labels.flatMap((label) => ['--label', label]));
  const shown = await ask<Template>('template', 'show', 'fast');
  assert.deepEqual(shown.causeway.values, { model: 'flannel', podCidrs: ['10.82.0.0/16'], carry: 'host-gateway' });
  const calico = ['--network-driver', 'calico', '--label', 'calico_ipv4pool=10.83.0.0/16'];
  const routed = await ask<Template>(...made, 'routed', ...image, ...calico);
  assert.deepEqual(routed.causeway.values, { model: 'calico', podCidrs: ['10.83.0.0/16'], carry: 'bgp' });
  await ask<Template>(...made, 'own', ...image, '--label', 'causeway_carry=direct-routing');
  const post = { name: 'theirs', coe: 'kubernetes', image_id: 'machines', network_driver: 'flannel', labels: { flannel_backend: 'udp' } };
  await cloud.operator.as(demo).send('magnum', 'POST', '/v1/clustertemplates', { ...post, external_network_id: publicNetwork });
  const theirs = await tryMagnum('template', 'show', 'theirs');
  assert.match(theirs.stdout, /Causeway: +none \(Causeway does not carry as flannel's backend udp\)/);
  await ask('template', 'delete', 'theirs', '--yes');
  const names = (await ask<Template[]>('template', 'ls')).map(({ name }) => name);
  assert.deepEqual(names.toSorted(), ['fast', 'own', 'plain', 'routed']);
  for (const name of ['fast', 'own', 'plain', 'routed']) await ask('template', 'delete', name, '--yes');
  assert.deepEqual(await ask('template', 'ls'), []);
  assert.equal(await refused(/Cannot find|could not be found|request req-/, 'template', 'show', 'fast'), 3);
});

test('what Magnum or a label does not allow is said with its name, and nothing is made', { skip }, async () => {
  const image = ['--image', 'machines', '--external-network', publicNetwork];
  assert.equal(await refused(/There is no label causeway_carryy/, ...made, 'bad', ...image, '--label', 'causeway_carryy=vxlan'), 2);
  assert.equal(await refused(/backend udp/, ...made, 'bad', ...image, '--label', 'flannel_backend=udp'), 7);
  assert.equal(
    await refused(
      /Magnum refuses .*external network.*\(request req-/is,
      ...made,
      'bad',
      '--image',
      'machines',
      '--external-network',
      'nowhere',
    ),
    2,
  );
  assert.notEqual(await refused(/Magnum refuses .*(request req-)/is, ...made, 'bad', '--image', 'no-such-image'), 0);
  assert.deepEqual(await ask('template', 'ls'), []);
});

interface Cluster {
  readonly id: string;
  readonly status: string;
  readonly reason?: string;
  readonly health?: string;
  readonly healthReason: Readonly<Record<string, string>>;
  readonly api: string;
  readonly masterAddresses: readonly string[];
  readonly workerAddresses: readonly string[];
}
const show = (name: string): Promise<Cluster> => ask<Cluster>('cluster', 'show', name);
const tryKubectl = (words: readonly string[], input?: string, config = kubeconfig): Promise<Output> =>
  cloud.controller.exec(['kubectl', `--kubeconfig=${config}`, `--cache-dir=${join(folder, 'kubectl')}`, ...words], {
    anyStatus: true,
    ...(input === undefined ? {} : { input }),
  });
async function kubectl(...words: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await tryKubectl(words);
  assert.equal(status, 0, stderr);
  return stdout.trim();
}
const patient = { timeoutMs: 120_000, intervalMs: 1000 };
const webLabels = ['flannel_network_cidr=10.82.0.0/16', 'causeway_controllers=1'];
const templateOf = (name: string, ...labels: readonly string[]): Promise<Template> =>
  ask<Template>(
    ...made,
    name,
    '--image',
    'machines',
    '--external-network',
    publicNetwork,
    ...[...webLabels, ...labels].flatMap((label) => ['--label', label]),
  );
const create = ['cluster', 'create'] as const;

test(
  'a cluster that there are too few machines for fails, and Magnum says why; it is removed with all that was made for it',
  { skip },
  async () => {
    await templateOf('web');
    const words = /status: CREATE_FAILED\n.*4 machines are wanted and 3 are free/s;
    assert.equal(await refused(words, 'cluster', 'create', 'big', '--template', 'web', '--nodes', '3', '--wait'), 6);
    const [listed, ...others] = await ask<Cluster[]>('cluster', 'ls');
    assert.deepEqual([listed?.status, others.length], ['CREATE_FAILED', 0]);
    const values = { model: 'flannel', podCidrs: ['10.82.0.0/16'], carry: 'vxlan', controller: { replicas: 1 } };
    assert.deepEqual(await ask('network', 'values', 'big'), values);
    const addon = ['network', 'addon', 'big', '--chart-repo', 'https://charts.example.org'] as const;
    assert.equal(await refused(/has not named it yet: CREATE_FAILED/, ...addon), 6);
    assert.match((await ask<Cluster>('cluster', 'show', 'big')).reason ?? '', /4 machines are wanted/);
    const [domain] = await cloud.operator.get<{ id: string }[]>('keystone', '/v3/domains?name=magnum', 'domains');
    const users = async (): Promise<number> =>
      (await cloud.operator.get<object[]>('keystone', `/v3/users?domain_id=${domain?.id}`, 'users')).length;
    // The domain's administrator, and as whom the cluster would act.
    assert.equal(await users(), 2);
    await ask('cluster', 'delete', 'big', '--yes', '--wait');
    assert.deepEqual(await ask('cluster', 'ls'), []);
    assert.equal(await users(), 1);
  },
);

test('a cluster is made with progress, and its certificates are signed by Magnum for a key that is made here', { skip }, async () => {
  const { status, stderr } = await tryMagnum(...create, 'web', '--template', 'web', '--nodes', '2', '--wait');
  assert.equal(status, 0, stderr);
  assert.match(stderr, /status: CREATE_IN_PROGRESS\n(.*\n)*status: CREATE_COMPLETE\n/);
  const cluster = await show('web');
  assert.equal(cluster.status, 'CREATE_COMPLETE');
  assert.equal(cluster.api, `https://${cluster.masterAddresses[0]}:6443`);
  assert.equal(cluster.workerAddresses.length, 2);
  await ask('cluster', 'kubeconfig', 'web', '--file', kubeconfig);
  assert.equal(statSync(kubeconfig).mode & 0o777, 0o600);
  assert.equal(await refused(/There is a file/, 'cluster', 'kubeconfig', 'web', '--file', kubeconfig), 4);
  assert.equal((await kubectl('get', 'nodes', '--output=name')).split('\n').length, 2);
  const ann = join(folder, 'ann.kubeconfig');
  await ask('cluster', 'kubeconfig', 'web', '--user', 'ann', '--group', 'readers', '--file', ann);
  const asAnn = await tryKubectl(['get', 'nodes'], undefined, ann);
  assert.match(asAnn.stderr, /User "ann" cannot list resource "nodes"/);
  assert.ok(!readFileSync(ann, 'utf8').includes(readFileSync(kubeconfig, 'utf8').match(/client-key-data: (\S+)/)?.[1] ?? ''));
});

test('without a network Magnum calls the cluster unhealthy; Causeway is installed, pods talk, and it is healthy', { skip }, async () => {
  const isSeen = async (): Promise<boolean> => {
    const { health, healthReason } = await show('web');
    return health === 'UNHEALTHY' && Object.values(healthReason).toSorted().join(' ') === 'False False ok';
  };
  await until('Magnum to see an API that answers and two nodes that are not ready', isSeen, patient);
  assert.equal(await refused(/not the network of cluster web/, 'network', 'upgrade', 'web'), 3);
  const { status, stderr } = await tryMagnum('network', 'install', 'web');
  assert.equal(status, 0, stderr);
  assert.match(stderr, /network: flannel by vxlan\n(.*\n)*network: every node is ready\n/);
  const { health, healthReason } = await show('web');
  assert.equal(health, 'HEALTHY');
  assert.equal(healthReason['api'], 'ok');
  assert.equal(await refused(/has a network already: causeway-agent/, 'network', 'install', 'web'), 4);
  const nodes = (await kubectl('get', 'nodes', '--output=jsonpath={.items[*].metadata.name}')).split(' ');
  const pods = ['one', 'two'].map((name, index) => podOf(name, { node: nodes[index] ?? '', container: askedForPage }));
  const applied = await tryKubectl(['apply', '--filename=-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items: pods }));
  assert.equal(applied.status, 0, applied.stderr);
  await kubectl('wait', '--for=condition=Ready', 'pod', '--all', '--timeout=120s');
  assert.match(await ipOf('two'), /^10\.82\.\d+\.\d+$/);
  await talk();
});

const ipOf = (pod: string): Promise<string> => kubectl('get', 'pod', pod, '--output=jsonpath={.status.podIP}');
async function talk(): Promise<void> {
  assert.equal(await kubectl('exec', 'one', '--', 'wget', '-qO-', '-T', '5', `http://${await ipOf('two')}:8080/`), 'two');
}
const agentImages = (): Promise<string> =>
  kubectl(
    'get',
    'pods',
    '--namespace=kube-system',
    '--selector=app.kubernetes.io/component=agent',
    '--output=jsonpath={.items[*].spec.containers[0].image}',
  );

test(
  'an upgrade whose image there is not is taken back; one to a template with an image that there is goes through',
  { skip },
  async () => {
    await templateOf('bad', `causeway_image=${imageRepository}:absent`);
    await templateOf('next', `causeway_image=${nextImage}`);
    const words = /taken back, as the cluster did not become well/;
    assert.notEqual(await refused(words, 'network', 'upgrade', 'web', '--template', 'bad', '--timeout', '10s'), 0);
    await until('the agents of before', async () => (await agentImages()) === `${defaultImage} ${defaultImage}`, patient);
    await talk();
    await ask('network', 'upgrade', 'web', '--template', 'next');
    await until('agents of the next image only', async () => (await agentImages()) === `${nextImage} ${nextImage}`, patient);
    assert.equal((await show('web')).status, 'UPDATE_COMPLETE');
    await talk();
  },
);

test('a cluster is removed with its machines, which are free again, and nothing of it is left', { skip }, async () => {
  const { api } = await show('web');
  await ask('cluster', 'delete', 'web', '--yes', '--wait');
  assert.deepEqual(await ask('cluster', 'ls'), []);
  await until('its machines to be free', () => machines?.free.length === 3, patient);
  const { status } = await cloud.controller.exec(['curl', '-sk', '-m', '5', `${api}/healthz`], { anyStatus: true });
  assert.notEqual(status, 0);
  for (const name of ['web', 'bad', 'next']) await ask('template', 'delete', name, '--yes');
  assert.equal(await refused(/could not be found|Cannot find/, 'cluster', 'kubeconfig', 'web'), 3);
});
