// What a node's own network has to bear: another carriage under way, a node of flannel among its peers, limits of pods.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import * as v from 'valibot';
import { buildCni } from '#lab/cni.ts';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import type { Host } from '#lab/host.ts';
import { boxPodImage, Kubernetes } from '#lab/kubernetes.ts';
import { until } from '#lab/until.ts';

const name = 'cni-test';
let lab: Lab;
let cluster: Kubernetes;

before(async () => {
  await destroyLab(name);
  lab = await createLab({ name, hosts: 2 });
  cluster = new Kubernetes(lab);
  await cluster.start();
  await cluster.apply(pod('one', 'host1'), pod('two', 'host2'));
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod', '--all', '--timeout=90s');
});
after(() => destroyLab(name));

function pod(podName: string, nodeName: string, annotations: object = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: podName, annotations },
    spec: {
      nodeName,
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'box', image: boxPodImage, imagePullPolicy: 'Never', command: ['sleep', '86400'] }],
    },
  };
}
const ipOf = (podName: string): Promise<string> => cluster.kubectl('get', 'pod', podName, '--output=jsonpath={.status.podIP}');

/** Runs a line of shell in the network namespace of the pod with that address. */
const inside = (ip: string, line: string): string[] => [
  'sh',
  '-c',
  `for ns in $(ip netns list | cut -d' ' -f1); do
     ip -n $ns -o addr | grep -qF '${ip}/' && exec ip netns exec $ns sh -c '${line}'
   done; exit 1`,
];
const annotation = (node: string, key: string): Promise<string> =>
  cluster.kubectl('get', 'node', node, `--output=jsonpath={.metadata.annotations.${key.replaceAll('.', '\\.')}}`);

const statistics = v.pipe(
  v.string(),
  v.transform((text) => /(\d+) packets transmitted, (\d+) received/.exec(text)?.slice(1).map(Number)),
  v.tuple([v.number(), v.number()]),
);

/** A packet every millisecond from one pod to the other; how many were lost when it is told to stop. */
function pinging(from: Host, ips: readonly [string, string]): () => Promise<number> {
  const ping = from.spawn(inside(ips[0], `exec ping -n -q -i 0.001 ${ips[1]}`));
  let printed = '';
  ping.child.stdout?.on('data', (bytes) => (printed += String(bytes)));
  return async () => {
    ping.kill('SIGINT');
    await ping.ended;
    const [sent, received] = v.parse(statistics, printed);
    assert.ok(sent > 100, printed);
    return sent - received;
  };
}

/** A connection that says numbers, from one pod to the other, until told to stop. */
async function traffic(from: Host, to: Host, ips: readonly [string, string]) {
  const listener = to.spawn(inside(ips[1], 'exec socat -u TCP-LISTEN:9100,reuseaddr STDOUT'));
  let heard = '';
  listener.child.stdout?.on('data', (bytes) => (heard += String(bytes)));
  await until('the listener', async () => (await to.exec(inside(ips[1], 'ss -Hltn sport = :9100'), { anyStatus: true })).stdout !== '');
  const numbers = 'i=0; while :; do echo $i; i=$((i+1)); sleep 0.005; done';
  const talker = from.spawn(inside(ips[0], `(${numbers}) | socat -u STDIN TCP:${ips[1]}:9100`));
  await until('numbers', () => Promise.resolve(heard.length > 20));
  return {
    /** How many numbers have come, without one missing. */
    count(): number {
      const lines = heard.split('\n').slice(0, -1).map(Number);
      assert.deepEqual(lines, [...lines.keys()]);
      return lines.length;
    },
    stop(): void {
      talker.kill('SIGKILL');
      listener.kill('SIGKILL');
    },
  };
}

/** What was under way when ping was told to stop counts as lost; while two hosts agree on keys a few milliseconds may be. */
const most = { wireguard: 100, bgp: 3, 'host-gateway': 3, vxlan: 3 } as const;

test('a running cluster changes its carriage node by node, and no connection is lost', async () => {
  const [one, two] = [lab.host('host1'), lab.host('host2')];
  const ips = [await ipOf('one'), await ipOf('two')] as const;
  const flow = await traffic(one, two, ips);
  const lost: [carry: keyof typeof most, packets: number][] = [];
  for (const carry of ['bgp', 'vxlan', 'wireguard', 'bgp', 'host-gateway', 'vxlan'] as const) {
    const stop = pinging(one, ips);
    for (const host of lab.hosts) {
      await host.stopService('agent');
      await cluster.startAgent(host, '--carry', carry);
      const seen = flow.count();
      await until('more numbers', () => Promise.resolve(flow.count() > seen + 20));
    }
    for (const { name: node } of lab.hosts)
      await until(`${node} to take nothing but ${carry}`, async () => (await annotation(node, 'causeway.dev/receives')) === carry);
    lost.push([carry, await stop()]);
    if (carry === 'bgp') assert.match(await one.ask(['ip', 'route', 'get', ips[1]]), new RegExp(`via ${two.address} dev eth0`));
  }
  flow.stop();
  const links = await one.ask(['ip', '-br', 'link']);
  assert.match(links, /^cwx1\W/m);
  assert.doesNotMatch(links, /^cww1\W/m);
  assert.equal(await one.ask(['ip', 'route', 'show', 'proto', 'bird']), '');
  assert.ok(
    lost.every(([carry, packets]) => packets <= most[carry]),
    `packets lost: ${JSON.stringify(lost)}`,
  );
});

test('nodes say in the API that the network is there', async () => {
  const status = '{.status.conditions[?(@.type=="NetworkUnavailable")].status}';
  assert.equal(await cluster.kubectl('get', 'node', 'host1', `--output=jsonpath=${status}`), 'False');
  assert.equal(await annotation('host1', 'flannel.alpha.coreos.com/backend-type'), 'vxlan');
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
  await host.exec(['ping', '-n', '-c1', '-W2', '-I', '10.244.200.1', await ipOf('one')]);
  await host.exec(['ping', '-n', '-c1', '-W2', await ipOf('one')]);
  await cluster.kubectl('delete', 'node', 'flannel');
});

test("annotations of a pod limit its bandwidth on its host's end", async () => {
  const limits = { 'kubernetes.io/ingress-bandwidth': '8M', 'kubernetes.io/egress-bandwidth': '16M' };
  await cluster.apply(pod('slow', 'host1', limits));
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod', 'slow', '--timeout=60s');
  const qdiscs = await lab.host('host1').ask(['tc', 'qdisc', 'show']);
  assert.match(qdiscs, /qdisc tbf \w+: dev cwe\w+ root .*rate 8Mbit burst 64Kb/);
  assert.match(qdiscs, /qdisc tbf \w+: dev cwi\w+ root .*rate 16Mbit burst /);
  await cluster.kubectl('delete', 'pod', 'slow', '--wait');
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
