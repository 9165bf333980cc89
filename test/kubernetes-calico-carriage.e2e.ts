// A running cluster of the model `calico` changes how it carries packets, by what its pools say and node by node by what agents are told,
// under a packet each millisecond and a connection that says numbers.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { findBird } from '#kernel/bird.ts';
import { accessByHand, calicoModelDefinitions } from '#lab/kubernetes-install.ts';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { destroyLab, type Lab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';
import { inside, mostLost, pinging, traffic } from './carriage-streams.ts';
import { KubernetesBed, podOf, stay } from './kubernetes-bed.ts';

const name = 'calico-carriage-test';
const skip = findBird() === undefined ? 'missing: bird' : false;
const patience = { timeoutMs: 180_000, intervalMs: 200 };
let bed: KubernetesBed;
let lab: Lab;
let cluster: Kubernetes;

const pool = (vxlanMode: string): object => ({
  apiVersion: 'projectcalico.org/v3',
  kind: 'IPPool',
  metadata: { name: 'default-ipv4-ippool' },
  spec: { cidr: '10.50.0.0/16', vxlanMode, ipipMode: 'Never', natOutgoing: true, nodeSelector: 'all()' },
});

before(async () => {
  if (skip !== false) return;
  bed = await KubernetesBed.make(name);
  ({ lab, cluster } = bed);
  await cluster.startWithoutNetwork();
  await cluster.applyText(calicoModelDefinitions());
  await cluster.untilDefined();
  await cluster.applyText(accessByHand('calico'));
  await cluster.apply(pool('Always'));
  for (const [place, host] of lab.hosts.entries()) await cluster.startNode(host, place + 1, ['--model', 'calico']);
  await cluster.untilReady();
  await bed.run(podOf('one', { node: 'host1', command: stay }), podOf('two', { node: 'host2', command: stay }));
});
after(() => (skip === false ? destroyLab(name) : undefined));

const receives = (node: string): Promise<string> =>
  cluster.kubectl('get', 'node', node, '--output=jsonpath={.metadata.annotations.causeway\\.dev/receives}');
const speaks = async (): Promise<boolean> => (await lab.host('host1').ask(['sh', '-c', 'pidof bird || true'])) !== '';
const wayTo = (ip: string): Promise<string> => lab.host('host1').ask(['ip', 'route', 'get', ip]);

test('pools with vxlanMode Always go in VXLAN within a subnet, too, and nobody speaks BGP', { skip }, async () => {
  const [one, two] = [await bed.ipOf('one'), await bed.ipOf('two')];
  await bed.inPod('one', 'ping', '-c3', '-W5', two);
  await lab.host('host1').exec(['ping', '-c1', '-w20', two]);
  await lab.host('host2').exec(inside(two, `ping -c1 -w20 ${one}`));
  assert.match(await wayTo(two), / dev cwx1 /);
  await until('it to be said', async () => (await receives('host1')) === 'vxlan', patience);
  assert.equal(await speaks(), false);
  assert.equal(
    await cluster.kubectl('get', 'node', 'host1', '--output=jsonpath={.metadata.annotations.flannel\\.alpha\\.coreos\\.com/backend-type}'),
    '',
  );
});

type Carry = 'vxlan' | 'bgp' | 'bgp-cross-subnet' | 'wireguard';
/**
 * What is asked for: by the pools, all nodes at once; by agents' command lines, one after the other; by what the controller that keeps a cloud says
 * on all nodes that it does not let be.
 */
type Step = readonly [carry: Carry, by: { readonly pool: string } | { readonly agents: readonly string[] } | { readonly refused: string }];
const refusal = 'the login to the cloud may not write allowed address pairs';
const steps: readonly Step[] = [
  ['bgp', { pool: 'Never' }],
  ['bgp-cross-subnet', { pool: 'CrossSubnet' }],
  ['wireguard', { agents: ['--carry', 'wireguard'] }],
  ['bgp', { agents: ['--carry', 'bgp'] }],
  ['vxlan', { refused: `=bgp: ${refusal}` }],
  ['bgp', { refused: '-' }],
  ['vxlan', { agents: ['--carry', 'vxlan'] }],
  ['wireguard', { agents: ['--carry', 'wireguard'] }],
  ['vxlan', { agents: ['--carry', 'vxlan'] }],
  ['bgp-cross-subnet', { agents: [] }],
  ['vxlan', { pool: 'Always' }],
];

const told = new RegExp(`^CarriedByVxlan .* vxlan instead of bgp, as ${refusal}$`);
const says = (words: RegExp) => async (): Promise<boolean> => {
  const path = '.status.conditions[?(@.type=="NetworkUnavailable")]';
  const said = await Promise.all(
    ['host1', 'host2'].map((node) => cluster.kubectl('get', 'node', node, `--output=jsonpath={${path}.reason} {${path}.message}`)),
  );
  return said.every((one) => words.test(one));
};

test('a running cluster changes its carriage, and no connection is lost', { skip }, async (t) => {
  const [host1, host2] = [lab.host('host1'), lab.host('host2')];
  const ips = [await bed.ipOf('one'), await bed.ipOf('two')] as const;
  const flow = await traffic(host1, host2, ips);
  const lost: [Carry, number][] = [];
  for (const [carry, by] of steps) {
    const stop = pinging(host1, ips);
    const more = async (): Promise<void> => {
      const seen = flow.count();
      await until('more numbers', () => Promise.resolve(flow.count() > seen + 20), patience);
    };
    if ('pool' in by) await cluster.apply(pool(by.pool));
    else if ('refused' in by) await cluster.kubectl('annotate', 'nodes', '--all', `causeway.dev/not-allowed${by.refused}`);
    else
      for (const host of lab.hosts) {
        await host.stopService('agent');
        await cluster.startAgent(host, '--model', 'calico', ...by.agents);
        await more();
      }
    for (const node of ['host1', 'host2'])
      await until(`${node} to take nothing but ${carry}`, async () => (await receives(node)) === carry, patience);
    await more();
    lost.push([carry, await stop()]);
    const dev = { vxlan: 'cwx1', wireguard: 'cww1', bgp: 'eth0', 'bgp-cross-subnet': 'eth0' }[carry];
    await until(`the way to be by ${dev}`, async () => (await wayTo(ips[1])).includes(` dev ${dev} `), patience);
    await host1.exec(['ping', '-c1', '-w20', ips[1]]);
    if ('refused' in by) await until('nodes to say why', says(carry === 'bgp' ? /^CausewayIsUp / : told), patience);
  }
  flow.stop();
  t.diagnostic(JSON.stringify(lost));
  assert.ok(
    lost.every(([carry, packets]) => packets <= mostLost[carry]),
    `packets lost: ${JSON.stringify(lost)}`,
  );
  await until('the speakers to have ended', async () => !(await speaks()), patience);
});
