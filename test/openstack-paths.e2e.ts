// Ways between instances with port security on: hosts find out by themselves which of them the cloud drops, and name it; and Calico's over
// a router of the cloud, and with one on an instance.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, afterEach, before, test } from 'node:test';
import { frrCommands, hasFrr } from '#agent/frr.fixture.ts';
import { bootBeyond, type CloudBed, makeCloudBed } from '#lab/openstack-bed.ts';
import { missingOf, openstackNeeds } from '#lab/packages.ts';
import { until } from '#lab/until.ts';

const skip = missingOf(openstackNeeds);
const skipFrr = skip === false && !hasFrr() ? 'missing: frr' : skip;
// BGP sessions that the cloud has dropped are begun again by TCP later and later.
const patience = { timeoutMs: 240_000, intervalMs: 300 };
/** Where hosts have to tell something, as they do every ten seconds: each question of ours starts a program. */
const unhurried = { timeoutMs: 240_000, intervalMs: 4000 };
let bed: CloudBed;

interface Planned {
  readonly steps: readonly object[];
  readonly needs: readonly { readonly what: string; readonly without: string; readonly isAllowed: boolean }[];
  readonly problems: readonly string[];
}

before(async () => {
  if (skip === false) bed = await makeCloudBed({ name: 'os-paths' });
});
after(async () => bed?.[Symbol.asyncDispose]());

afterEach(async () => (skip === false ? bed.clear() : undefined));

const post = <T extends object>(path: string, body: object): Promise<T> => bed.member.send<T>('neutron', 'POST', `/v2.0/${path}`, body);

interface HostStatus {
  readonly ready: boolean;
  readonly failing: readonly string[];
  readonly paths?: { readonly lost: readonly object[] };
}
const host = async (name: string): Promise<HostStatus> => (await bed.json<{ status: HostStatus }>('host', 'show', name)).status;
/** What a host's probes say is wrong. */
const failing = async (name: string): Promise<string> => (await host(name)).failing.join('\n');
const areReady = async (): Promise<boolean> => {
  const all = await bed.json<{ status: HostStatus }[]>('host', 'ls');
  const isWell = ({ status: { ready, failing: none, paths } }: { status: HostStatus }): boolean =>
    ready && none.length === 0 && paths?.lost.length === 0;
  return all.length === 2 && all.every(isWell);
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
    unhurried,
  );
  assert.equal((await host('node1')).ready, false);
  assert.match(await failing('node1'), /security group or another firewall.*causeway cloud plan/);
  assert.match(await failing('node1'), /allowed address pairs \(port security\)/);
  assert.equal((await bed.tryCauseway(['status'])).status, 10);
  await bed.causeway('cloud', 'apply', '--yes');
  await until('both hosts to be ready', areReady, unhurried);
  assert.match(await bed.causeway('host', 'show', 'node1'), /Paths: +2 of 2 pass/);

  // One rule, and one address pair, withdrawn behind Causeway's back. What the plain network needs admits the tunnel, too.
  const groups = await bed.member.get<
    { id: string; security_group_rules: { id: string; remote_group_id: string | null; direction: string }[] }[]
  >('neutron', '/v2.0/security-groups?name=causeway', 'security_groups');
  const rule = groups[0]?.security_group_rules.find(({ remote_group_id: from, direction }) => from !== null && direction === 'ingress');
  await bed.member.send('neutron', 'DELETE', `/v2.0/security-group-rules/${rule?.id}`);
  await until('the tunnel to be lost', async () => tunnel.test(await failing('node1')), unhurried);
  assert.doesNotMatch(await failing('node1'), plain);
  await bed.member.send('neutron', 'PUT', `/v2.0/ports/${bed.instances[1]?.port.id}`, { port: { allowed_address_pairs: [] } });
  await until('the range to be lost', async () => plain.test(await failing('node1')), unhurried);
  await bed.causeway('cloud', 'apply', '--yes');
  await until('both hosts to be ready again', areReady, unhurried);
});

test('a router on an instance is spoken BGP with by what the cloud is made to allow, and by nothing else', { skip: skipFrr }, async () => {
  const router = '10.20.0.60';
  // It lets nothing in, so hosts do not reach it: its own attempts are what the hosts' ports must admit.
  const closed = await post<{ id: string }>('security-groups', { security_group: { name: 'closed' } });
  const port = { network_id: bed.site.network, name: 'router', security_groups: [closed.id], fixed_ips: [{ ip_address: router }] };
  const made = await post<{ id: string }>('ports', { port });
  const { host: fabric } = await bed.cloud.boot('router', made.id, 2);
  const neighbours = [1, 2].map((index) => `neighbor ${bed.host(index).address} remote-as external`);
  const config = ['router bgp 64600', `bgp router-id ${router}`, 'no bgp ebgp-requires-policy', ...neighbours, ''].join('\n');
  const folder = '/run/fabric';
  const [zebra = [], bgpd = []] = frrCommands(folder, config, fabric.file(folder));
  await fabric.startService({ name: 'zebra', argv: [...zebra], env: {} });
  await fabric.startService({ name: 'bgpd', argv: [...bgpd], env: {} });
  const peer = {
    apiVersion: 'projectcalico.org/v3',
    kind: 'BGPPeer',
    metadata: { name: 'fabric' },
    spec: { peerIP: router, asNumber: 64_600 },
  };
  writeFileSync(bed.cloud.controller.file('/run/peer.json'), JSON.stringify(peer));
  await bed.spread('hills', '--model', 'calico', '--subnet', '10.84.0.0/16');
  await bed.causeway('cloud', 'apply', '--yes');
  await bed.causeway('apply', '-f', '/run/peer.json');
  const block = (await bed.addressOf(1, 'hills')).replace(/\.\d+$/, '');
  const knows = async (): Promise<boolean> =>
    (await fabric.ask(['ip', 'route', 'show', 'proto', 'bgp'], { netOnly: true })).includes(block);
  const need = async () => (await bed.json<Planned>('cloud', 'plan')).needs.find(({ what }) => what.includes('BGPPeer fabric'));
  assert.deepEqual([(await need())?.isAllowed, (await need())?.without], [false, 'security groups drop it']);
  assert.equal(await knows(), false);
  await bed.causeway('cloud', 'apply', '--yes');
  assert.equal((await need())?.isAllowed, true);
  await until('the router to learn where containers are', knows, patience);
  await bed.causeway('bgp', 'rm', '--yes', 'bgppeer.fabric');
  await bed.causeway('cloud', 'apply', '--yes');
  await until('the router to be told of nothing', async () => !(await knows()), patience);
});

// Last, as the bed is larger from here on.
const beyond = [
  {
    carry: 'bgp-cross-subnet',
    more: [],
    needs: [/^TCP 179/, /addresses of 10\.88\.0\.0\/16/, /^UDP 8472/],
    lost: /UDP port 8472 does not reach host node3.*A security group or another firewall/,
  },
  {
    carry: 'bgp',
    more: ['--routes', 'main'],
    needs: [/^TCP 179/, /addresses of 10\.88\.0\.0\/16/],
    lost: /TCP port 179 does not reach host node3.*A security group or another firewall/,
  },
] as const;
for (const { carry, more, needs, lost } of beyond) {
  test(`calico by ${carry} over two subnets behind a router: passes when allowed, and what is lost is named`, { skip }, async () => {
    if (bed.instances.length === 2) bed = await bootBeyond(bed);
    await bed.spread('hills', '--model', 'calico', '--carry', carry, '--subnet', '10.88.0.0/16');
    const [near, far] = [await bed.addressOf(2, 'hills'), await bed.addressOf(3, 'hills')];
    const planned = await bed.json<Planned>('cloud', 'plan', ...more);
    assert.deepEqual(
      planned.needs.map(({ what }, index) => needs[index]?.test(what)),
      needs.map(() => true),
    );
    await until('hosts to have noticed', async () => lost.test(await failing('node1')), unhurried);
    assert.equal(await bed.pings(1, 'hills1', far), false);
    assert.deepEqual((await bed.json<Planned>('cloud', 'apply', ...more)).problems, []);
    await until('packets within the subnet to pass', () => bed.pings(1, 'hills1', near), patience);
    await until('packets to the other subnet to pass', () => bed.pings(1, 'hills1', far), patience);
    await until('packets from there to pass', async () => bed.pings(3, 'hills3', await bed.addressOf(1, 'hills')), patience);
    await until('all ways to be found to pass', async () => (await failing('node1')) === '', unhurried);
    await bed.causeway('cloud', 'destroy', '--yes');
    await until('packets to be dropped', async () => !(await bed.pings(1, 'hills1', far)), patience);
    await until('what is lost to be named', async () => lost.test(await failing('node1')), unhurried);
  });
}
