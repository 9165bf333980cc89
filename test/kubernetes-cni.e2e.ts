// What a node's own network has to bear: another carriage under way, a node of flannel among its peers, limits of pods.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import * as v from 'valibot';
import { buildCni } from '#lab/cni.ts';
import { destroyLab, type Lab } from '#lab/lab.ts';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { until } from '#lab/until.ts';
import { inside, mostLost, pinging, type Traffic, traffic } from './carriage-streams.ts';
import { KubernetesBed, podOf, type PodObject, stay } from './kubernetes-bed.ts';

const name = 'cni-test';
let bed: KubernetesBed;
let lab: Lab;
let cluster: Kubernetes;

before(async () => {
  bed = await KubernetesBed.start(name, { families: [4, 6] });
  ({ lab, cluster } = bed);
  await bed.run(pod('one', 'host1'), pod('two', 'host2'));
});
after(() => destroyLab(name));

const pod = (podName: string, node: string, annotations: Readonly<Record<string, string>> = {}): PodObject =>
  podOf(podName, { node, annotations, command: stay });
const ipOf = (podName: string): Promise<string> => bed.ipOf(podName);
const annotation = (node: string, key: string): Promise<string> =>
  cluster.kubectl('get', 'node', node, `--output=jsonpath={.metadata.annotations.${key.replaceAll('.', '\\.')}}`);

/** Addresses of both pods, of each family. */
async function pairs(): Promise<(readonly [string, string])[]> {
  const [one, two] = [await bed.ipsOf('one'), await bed.ipsOf('two')];
  return one.map((ip, family) => [ip, two[family] ?? ''] as const);
}

test('a running cluster changes its carriage node by node, and no connection of either family is lost', async () => {
  const [one, two] = [lab.host('host1'), lab.host('host2')];
  const both = await pairs();
  assert.equal(both.length, 2);
  const flows: Traffic[] = [];
  for (const ips of both) flows.push(await traffic(one, two, ips));
  const counts = (): number[] => flows.map((flow) => flow.count());
  const lost: [carry: keyof typeof mostLost, packets: readonly number[]][] = [];
  for (const carry of ['bgp', 'vxlan', 'wireguard', 'bgp', 'host-gateway', 'vxlan'] as const) {
    const stops = both.map((ips) => pinging(one, ips));
    for (const host of lab.hosts) {
      await host.stopService('agent');
      await cluster.startAgent(host, '--carry', carry);
      const seen = counts();
      await until('more numbers', () => Promise.resolve(counts().every((count, index) => count > (seen[index] ?? 0) + 20)));
    }
    for (const { name: node } of lab.hosts)
      await until(`${node} to take nothing but ${carry}`, async () => (await annotation(node, 'causeway.dev/receives')) === carry);
    lost.push([carry, await Promise.all(stops.map((stop) => stop()))]);
    for (const [, far] of both) {
      const way = await one.ask(['ip', 'route', 'get', far]);
      if (carry === 'bgp') assert.match(way, new RegExp(`via (${two.address}|fe80:\\S+|${two.address6}) dev eth0`));
      if (carry === 'wireguard') assert.match(way, / dev cww1 /);
    }
  }
  for (const flow of flows) flow.stop();
  await until('the devices of before to be gone', async () => {
    const links = await one.ask(['ip', '-br', 'link']);
    return /^cwx1\W/m.test(links) && !/^cww1\W/m.test(links);
  });
  for (const family of ['-4', '-6'])
    await until('no route of BIRD', async () => (await one.ask(['ip', family, 'route', 'show', 'proto', 'bird'])) === '');
  // What wireguard-go holds as it is left may be lost on a busy machine, too.
  const most = lost.map(([carry], index) => Math.max(mostLost[carry], mostLost[lost[index - 1]?.[0] ?? carry]));
  assert.ok(
    lost.every(([, packets], index) => packets.every((some) => some <= (most[index] ?? 0))),
    `packets lost: ${JSON.stringify(lost)}`,
  );
});

test('nodes say in the API that the network is there', async () => {
  const status = '{.status.conditions[?(@.type=="NetworkUnavailable")].status}';
  await until('it to be said', async () => (await cluster.kubectl('get', 'node', 'host1', `--output=jsonpath=${status}`)) === 'False');
  await until('the carriage', async () => (await annotation('host1', 'flannel.alpha.coreos.com/backend-type')) === 'vxlan');
});

test('a node of flannel joins: its pods and those of ours reach each other', async () => {
  const { controller: host } = lab;
  const mac = '6a:00:00:00:00:07';
  await cluster.apply({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name: 'flannel',
      annotations: {
        'flannel.alpha.coreos.com/kube-subnet-manager': 'true',
        'flannel.alpha.coreos.com/backend-type': 'vxlan',
        'flannel.alpha.coreos.com/backend-data': JSON.stringify({ VNI: 1, VtepMAC: mac }),
        'flannel.alpha.coreos.com/public-ip': host.address,
      },
    },
    spec: { podCIDR: '10.244.200.0/24', podCIDRs: ['10.244.200.0/24'] },
  });
  const { VtepMAC: peer } = v.parse(
    v.object({ VtepMAC: v.string() }),
    JSON.parse(await annotation('host1', 'flannel.alpha.coreos.com/backend-data')),
  );
  const base = (await cluster.kubectl('get', 'node', 'host1', '--output=jsonpath={.spec.podCIDR}')).replace(/\/.*/, '');
  const lines = [
    `ip link add flannel.1 address ${mac} type vxlan id 1 dev eth0 local ${host.address} dstport 8472 nolearning`,
    'ip addr add 10.244.200.0/32 dev flannel.1 && ip link set flannel.1 up mtu 1400',
    `ip neigh add ${base} lladdr ${peer} dev flannel.1 nud permanent`,
    `bridge fdb append ${peer} dev flannel.1 dst ${lab.host('host1').address}`,
    // The lab has led the API server's host to the pods by a plain route.
    `ip route replace ${base}/24 via ${base} dev flannel.1 onlink`,
    // Its pods' bridge, and one address on it.
    'ip link add cni0 type bridge && ip link set cni0 up && ip addr add 10.244.200.1/24 dev cni0',
  ];
  await host.exec(['sh', '-ec', lines.join('\n')]);
  await until('a pod of ours to reach it', async () => {
    const { status } = await cluster.tryKubectl(['exec', 'one', '--', 'ping', '-c1', '-W1', '10.244.200.1'], { anyStatus: true });
    return status === 0;
  });
  const one = await ipOf('one');
  for (const source of [['-I', '10.244.200.1'], []]) await host.exec(['ping', '-n', '-c1', '-w20', ...source, one]);
  await cluster.kubectl('delete', 'node', 'flannel');
});

test("annotations of a pod limit its bandwidth on its host's end", async () => {
  const limits = { 'kubernetes.io/ingress-bandwidth': '8M', 'kubernetes.io/egress-bandwidth': '16M' };
  await bed.run(pod('slow', 'host1', limits));
  const qdiscs = await lab.host('host1').ask(['tc', 'qdisc', 'show']);
  assert.match(qdiscs, /qdisc tbf \w+: dev cwe\w+ root .*rate 8Mbit burst 64Kb/);
  assert.match(qdiscs, /qdisc tbf \w+: dev cwi\w+ root .*rate 16Mbit burst /);
  await bed.remove('slow');
  await until('the limit to be gone', async () => !(await lab.host('host1').ask(['tc', 'qdisc', 'show'])).includes('tbf'));
});

test('what is attached to a sandbox that containerd does not have is detached, and its pods are not', async () => {
  const host = lab.host('host1');
  const at = await ipOf('one');
  await host.stopService('agent');
  await cluster.startAgent(host, '--lost-seconds', '2');
  const plugin = await buildCni();
  const uid = 'K8S_POD_UID=0b6f3f8e-5a4e-4f0e-9f39-0d7c9c1f7a11';
  const conf = JSON.stringify({ cniVersion: '1.0.0', name: 'pods', type: 'causeway' });
  const add = (container: string, args: string): string =>
    `ip netns add ${container}; printf %s '${conf}' | CNI_COMMAND=ADD CNI_CONTAINERID=${container} CNI_NETNS=/run/netns/${container} \
     CNI_IFNAME=eth0 CNI_PATH=/ CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=${container}${args}' ${plugin}`;
  const has = async (container: string): Promise<boolean> => (await host.ask(['ip', '-n', container, '-o', 'link'])).includes('eth0');
  try {
    await host.exec(['sh', '-ec', add('lost', `;${uid}`)]);
    await host.exec(['sh', '-ec', add('engine', '')]);
    assert.deepEqual([await has('lost'), await has('engine')], [true, true]);
    await until('the lost one to be detached', async () => !(await has('lost')));
    assert.equal(await has('engine'), true, 'that of no Kubernetes runtime stays');
    await host.exec(inside(at, 'ip -o link show eth0'));
  } finally {
    await host.exec(['sh', '-c', 'ip netns del lost; ip netns del engine'], { anyStatus: true });
  }
});
