// Clusters of a real Magnum: every call that Causeway makes of it, by the commands that users have.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Output } from '#lab/command.ts';
import { createOpenStack, type OpenStack, publicNetwork } from '#lab/openstack.ts';
import { glance, magnum, magnumNeeds, makeImage } from '#lab/openstack-magnum.ts';
import { missingOf, openstackNeeds } from '#lab/packages.ts';
import { silentProgress } from '#lab/progress.ts';

const program = join(import.meta.dirname, '..', 'src', 'bin', 'cli.ts');
const skip = missingOf([...openstackNeeds, ...magnumNeeds]);
let cloud: OpenStack;

before(async () => {
  if (skip !== false) return;
  cloud = await createOpenStack({ name: 'os-magnum', hypervisors: 1, services: [glance, magnum] }, silentProgress);
  await makeImage(cloud.operator);
});
after(async () => {
  await cloud?.[Symbol.asyncDispose]();
});

/** `causeway magnum` on the controller's host, as the project's member, to whatever end. */
const tryMagnum = (...argv: readonly string[]): Promise<Output> =>
  cloud.controller.exec([process.execPath, '--disable-warning=ExperimentalWarning', program, 'magnum', ...argv], {
    env: cloud.environment(),
    anyStatus: true,
  });
async function ask<T>(...argv: readonly string[]): Promise<T> {
  const output = await tryMagnum(...argv, '--output', 'json');
  if (output.status !== 0) throw new Error(`causeway magnum ${argv.join(' ')}: ${output.stderr}${output.stdout}`);
  return JSON.parse(output.stdout) as T;
}
async function refused(words: RegExp, ...argv: readonly string[]): Promise<number> {
  const { status, stderr } = await tryMagnum(...argv);
  assert.match(stderr, words);
  return status;
}

interface Template {
  readonly name: string;
  readonly networkDriver: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly causeway: { readonly values: { readonly model: string; readonly podCidrs: readonly string[]; readonly carry: string } };
}
const made = ['template', 'create'] as const;

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
}

test(
  'a cluster that there are no machines for fails, and Magnum says why; it is removed with all that was made for it',
  { skip },
  async () => {
    await ask<Template>(...made, 'web', '--image', 'machines', '--external-network', publicNetwork);
    const words = /status: CREATE_FAILED\n.*4 machines are wanted and 0 are free/s;
    assert.equal(await refused(words, 'cluster', 'create', 'big', '--template', 'web', '--nodes', '3', '--wait'), 6);
    const [listed, ...others] = await ask<Cluster[]>('cluster', 'ls');
    assert.deepEqual([listed?.status, others.length], ['CREATE_FAILED', 0]);
    const values = { model: 'flannel', podCidrs: ['10.100.0.0/16'], carry: 'vxlan' };
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
    await ask('template', 'delete', 'web', '--yes');
  },
);
