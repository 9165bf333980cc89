// What the cloud drops between hosts is found out by the hosts themselves, all the time, and told with the layer that drops it.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { type CloudBed, makeCloudBed } from '#lab/openstack-bed.ts';
import { missingOf, openstackNeeds } from '#lab/packages.ts';
import { until } from '#lab/until.ts';

const skip = missingOf(openstackNeeds);
const patience = { timeoutMs: 120_000, intervalMs: 500 };
let bed: CloudBed;

before(async () => {
  if (skip === false) bed = await makeCloudBed({ name: 'os-probes' });
});
after(async () => bed?.[Symbol.asyncDispose]());

afterEach(async () => (skip === false ? bed.clear() : undefined));

interface Host {
  readonly status: { readonly ready: boolean; readonly failing: readonly string[]; readonly paths?: { readonly lost: readonly object[] } };
}
const host = async (name: string): Promise<Host['status']> => (await bed.json<Host>('host', 'show', name)).status;
const failing = async (name: string): Promise<string> => (await host(name)).failing.join('\n');
const isReady = async (): Promise<boolean> => {
  const both = await Promise.all([host('node1'), host('node2')]);
  return both.every(({ ready, failing: none, paths }) => ready && none.length === 0 && paths?.lost.length === 0);
};

test('hosts find out by themselves what the cloud drops between them, and name it', { skip }, async () => {
  await bed.spread('over', '--subnet', '10.87.0.0/24');
  await bed.spread('plain', '--model', 'flannel', '--carry', 'host-gateway', '--subnet', '10.88.0.0/16');
  const [tunnel, plain] = [
    /UDP port 8472 does not reach host node2.*\(networks over\)/,
    /as it is does not reach host node2.*\(networks plain\)/,
  ];
  await until(
    'both ways to be lost',
    async () => {
      const told = await failing('node1');
      return [tunnel, plain].every((text) => text.test(told));
    },
    patience,
  );
  assert.equal((await host('node1')).ready, false);
  assert.match(await failing('node1'), /security group or another firewall.*causeway cloud plan/);
  assert.match(await failing('node1'), /allowed address pairs \(port security\)/);
  assert.equal((await bed.tryCauseway(['status'])).status, 10);
  await bed.causeway('cloud', 'apply', '--yes');
  await until('both hosts to be ready', isReady, patience);
  assert.match(await bed.causeway('host', 'show', 'node1'), /Paths: +2 of 2 pass/);

  // One rule, and one address pair, withdrawn behind Causeway's back. What the plain network needs admits the tunnel, too.
  const groups = await bed.member.get<
    { id: string; security_group_rules: { id: string; remote_group_id: string | null; direction: string }[] }[]
  >('neutron', '/v2.0/security-groups?name=causeway', 'security_groups');
  const rule = groups[0]?.security_group_rules.find(({ remote_group_id: from, direction }) => from !== null && direction === 'ingress');
  await bed.member.send('neutron', 'DELETE', `/v2.0/security-group-rules/${rule?.id}`);
  await until('the tunnel to be lost', async () => tunnel.test(await failing('node1')), patience);
  assert.doesNotMatch(await failing('node1'), plain);
  await bed.member.send('neutron', 'PUT', `/v2.0/ports/${bed.instances[1]?.port.id}`, { port: { allowed_address_pairs: [] } });
  await until('the range to be lost', async () => plain.test(await failing('node1')), patience);
  await bed.causeway('cloud', 'apply', '--yes');
  await until('both hosts to be ready again', isReady, patience);
});
