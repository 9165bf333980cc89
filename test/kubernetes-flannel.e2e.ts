// A cluster that runs as flannel has made it, taken over node by node while its pods talk: each node has flannel's device, its routes
// and rules, the plugins `bridge`, `host-local` and `portmap`, and real pods on the bridge. flannel itself is not at hand; what it
// would have done is done here by its documentation, with ip(8), bridge(8), iptables(8) and the Node's annotations.
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { addPeer, type Told } from '#agent/flannel.fixture.ts';
import { Place } from '#agent/namespaces.fixture.ts';
import type { Host, LabProcess } from '#lab/host.ts';
import { accessByHand } from '#lab/kubernetes-install.ts';
import { boxPodImage, Kubernetes } from '#lab/kubernetes.ts';
import { podRange, podRanges } from '#lab/kubernetes-control-plane.ts';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';
import { contains, type Family, parseCidr, parseIp } from '#model/ip.ts';

const name = 'pods-flannel-test';
const patience = { timeoutMs: 60_000, intervalMs: 200 };
const plugins = ['bridge', 'host-local', 'portmap', 'loopback'];
let lab: Lab;
let cluster: Kubernetes;
const hosts = [1, 2, 3] as const;
type Index = (typeof hosts)[number];
const host = (index: Index): Host => lab.host(`host${index}`);
const placeOf = (index: Index): Place => new Place(host(index).netns);
const families = [4, 6] as const;
/** What a node of flannel has of one family. */
const endOf = (index: Index, family: Family) => {
  const four = { subnet: `10.244.${index}.0/24`, ip: host(index).address, link: 'flannel.1', mac: `6a:01:02:03:04:0${index}` };
  const six = { subnet: `fd00:10:244:${index}::/64`, ip: host(index).address6, link: 'flannel-v6.1', mac: `6a:01:02:03:06:0${index}` };
  const { mac, ...end } = family === 4 ? four : six;
  return { ...end, data: { VNI: 1, VtepMAC: mac } };
};
const rangeOf = (index: Index): string => endOf(index, 4).subnet;

const podOf = (podName: string, index: Index): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: podName },
  spec: {
    nodeName: `host${index}`,
    terminationGracePeriodSeconds: 0,
    containers: [{ name: 'box', image: boxPodImage, imagePullPolicy: 'Never', command: ['sleep', '2147483647'] }],
  },
});
const inPod = (podName: string, ...argv: readonly string[]): Promise<string> => cluster.kubectl('exec', podName, '--', ...argv);
/** First the IPv4 one. */
const ipsOf = (podName: string): Promise<string[]> =>
  cluster.kubectl('get', 'pod', podName, '--output=jsonpath={.status.podIPs[*].ip}').then((text) => text.split(' '));

/** What the `flannel` plugin would have the others do. */
const conflist = (index: Index): object => ({
  name: 'cbr0',
  cniVersion: '0.3.1',
  plugins: [
    {
      type: 'bridge',
      bridge: 'cni0',
      hairpinMode: true,
      isDefaultGateway: true,
      mtu: 1400,
      ipam: {
        type: 'host-local',
        ranges: families.map((family) => [{ subnet: endOf(index, family).subnet }]),
        routes: families.map((family) => ({ dst: podRanges[family] })),
      },
    },
    { type: 'portmap', capabilities: { portMappings: true } },
  ],
});

/** Its masquerading and forwarding rules (pkg/trafficmngr/iptables). */
function writeRules(place: Place, own: string): void {
  const nat = (...words: readonly string[]): string => place.run('iptables', '-t', 'nat', ...words);
  nat('-N', 'FLANNEL-POSTRTG');
  nat('-A', 'POSTROUTING', '-j', 'FLANNEL-POSTRTG');
  const post = ['-A', 'FLANNEL-POSTRTG'];
  nat(...post, '-s', own, '-d', podRange, '-j', 'RETURN');
  nat(...post, '-s', podRange, '-d', own, '-j', 'RETURN');
  nat(...post, '!', '-s', podRange, '-d', own, '-j', 'RETURN');
  nat(...post, '-s', podRange, '!', '-d', '224.0.0.0/4', '-j', 'MASQUERADE', '--random-fully');
  nat(...post, '!', '-s', podRange, '-d', podRange, '-j', 'MASQUERADE', '--random-fully');
  place.run('iptables', '-N', 'FLANNEL-FWD');
  place.run('iptables', '-A', 'FORWARD', '-j', 'FLANNEL-FWD');
  for (const side of ['-s', '-d']) place.run('iptables', '-A', 'FLANNEL-FWD', side, podRange, '-j', 'ACCEPT');
}

async function startFlannel(index: Index): Promise<void> {
  const [node, place] = [host(index), placeOf(index)];
  const [four, six] = [endOf(index, 4), endOf(index, 6)];
  const annotations = {
    'kube-subnet-manager': 'true',
    'backend-type': 'vxlan',
    'backend-data': JSON.stringify(four.data),
    'backend-v6-data': JSON.stringify(six.data),
    'public-ip': four.ip,
    'public-ipv6': six.ip,
  };
  const words = Object.entries(annotations).map(([key, value]) => `flannel.alpha.coreos.com/${key}=${value}`);
  await cluster.kubectl('annotate', 'node', node.name, ...words);
  place.run('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
  for (const family of families) {
    const { subnet, ip, link, data } = endOf(index, family);
    const [mtu, one] = family === 4 ? ['1400', '/32'] : ['1380', '/128'];
    const device = ['type', 'vxlan', 'id', '1', 'local', ip, 'dstport', '8472', 'nolearning'];
    place.ip('link', 'add', link, 'address', data.VtepMAC, 'mtu', mtu, ...device);
    place.ip('addr', 'add', subnet.replace(/\/.*/, one), 'dev', link, ...(family === 6 ? ['nodad'] : []));
    place.ip('link', 'set', link, 'up');
    for (const other of hosts.filter((peer) => peer !== index)) {
      const end = endOf(other, family);
      const told: Told = { subnet: end.subnet, publicIp: end.ip, data: end.data };
      addPeer(place, 'vxlan', told);
    }
  }
  writeRules(place, rangeOf(index));
  mkdirSync(node.file('/opt/cni/bin'), { recursive: true });
  for (const plugin of plugins) copyFileSync(join('/usr/lib/cni', plugin), node.file(`/opt/cni/bin/${plugin}`));
  mkdirSync(node.file('/etc/cni/net.d'), { recursive: true });
  writeFileSync(node.file('/etc/cni/net.d/10-flannel.conflist'), JSON.stringify(conflist(index)));
}

before(async () => {
  await destroyLab(name);
  lab = await createLab({ name, hosts: 3 });
  cluster = new Kubernetes(lab, { families });
  await cluster.startWithoutNetwork();
  for (const index of hosts) await startFlannel(index);
  await cluster.untilReady();
  await cluster.apply(...hosts.map((index) => podOf(`old${index}`, index)));
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod', '--all', '--timeout=90s');
  await cluster.applyText(accessByHand());
});
after(() => destroyLab(name));

interface Counted {
  readonly sent: number;
  readonly lost: number;
}

/** Packets every millisecond between two pods until it is told to stop. */
async function stream(from: Index, target: string): Promise<() => Promise<Counted>> {
  const pid = await sandboxPid(from, `old${from}`);
  // Its socket has room for some 150 packets: it gets the answers to its own ones alone, and a processor whenever it needs one.
  const script = `echo 0 0 >/proc/sys/net/ipv4/ping_group_range && exec nice -n -20 ping -n -i 0.001 ${target}`;
  const ping: LabProcess = host(from).spawn(['nsenter', `--net=/proc/${pid}/ns/net`, 'sh', '-c', script]);
  let said = '';
  ping.child.stdout?.on('data', (bytes) => (said += String(bytes)));
  return async () => {
    ping.kill('SIGINT');
    await ping.ended;
    // Not the one that was on its way in the end.
    const answered = new Set([...said.matchAll(/icmp_seq=(\d+) ttl/g)].map(([, number]) => Number(number)));
    const sent = Math.max(0, ...answered);
    return { sent, lost: sent - answered.size };
  };
}

/** A process in the pod, as the node counts. */
async function sandboxPid(index: Index, podName: string): Promise<string> {
  const id = (await cluster.kubectl('get', 'pod', podName, '--output=jsonpath={.status.containerStatuses[0].containerID}')).replace(
    'containerd://',
    '',
  );
  const tasks = await host(index).ask(['ctr', '--namespace=k8s.io', 'tasks', 'list']);
  return new RegExp(`^${id}\\s+(\\d+)`, 'm').exec(tasks)?.[1] ?? '';
}

test('node by node, the pods that run keep their addresses and lose no packet', async () => {
  const addresses = await Promise.all(hosts.map((index) => ipsOf(`old${index}`)));
  const [[one = '', one6 = ''] = [], [two = '', two6 = ''] = [], [three = '', three6 = ''] = []] = addresses;
  const pairs = [
    [1, two],
    [2, three],
    [3, one],
    [2, one],
    [1, two6],
    [2, three6],
    [3, one6],
  ] as const;
  const streams = await Promise.all(pairs.map(([from, target]) => stream(from, target)));
  // Connections of nodes themselves begin from the address of flannel's device.
  await inPod('old2', 'sh', '-c', 'nc -ll -p 8080 -e cat >/dev/null 2>&1 &');
  const held = host(1).spawn(['busybox', 'nc', two, '8080']);
  let heard = '';
  held.child.stdout?.on('data', (bytes) => (heard += String(bytes)));
  const isHeard = (text: string): Promise<unknown> => {
    held.child.stdin?.write(`${text}\n`);
    return until(`the connection to answer ${text}`, () => heard.includes(text), patience);
  };
  await isHeard('before');
  for (const index of hosts) {
    await cluster.startNode(host(index), index);
    await until(
      `host${index} to say how it carries`,
      async () =>
        (await cluster.kubectl('get', 'node', `host${index}`, '--output=jsonpath={.metadata.annotations}')).includes(
          'causeway.dev/receives',
        ),
      patience,
    );
    const links = await host(index).ask(['ip', '-br', 'link']);
    assert.ok(!links.includes('flannel') && links.includes('cwx1') && links.includes('cwx1v6'), links);
    for (const target of addresses.flat())
      await until(
        `a node to reach ${target}`,
        () =>
          host(index)
            .ask(['ping', '-c1', '-W1', target])
            .catch(() => undefined),
        patience,
      );
  }
  const counted = await Promise.all(streams.map((stop) => stop()));
  for (const { sent, lost } of counted) assert.ok(sent > 1000 && lost === 0, JSON.stringify(counted));
  await isHeard('afterwards');
  held.kill();
  assert.deepEqual(await Promise.all(hosts.map((index) => ipsOf(`old${index}`))), addresses);
  for (const index of hosts)
    assert.equal((await host(index).ask(['ip', '-br', 'link'])).includes('cwe'), false, 'they are on their bridge');
});

test('new pods are Causeway’s, with addresses that nobody has, and reach those of before on every node', async () => {
  await cluster.apply(...hosts.map((index) => podOf(`new${index}`, index)));
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod', '--all', '--timeout=90s');
  const old = await Promise.all(hosts.map((index) => ipsOf(`old${index}`)));
  const fresh = await Promise.all(hosts.map((index) => ipsOf(`new${index}`)));
  const bridges = hosts.flatMap((index) => [rangeOf(index).replace('0/24', '1'), endOf(index, 6).subnet.replace('/64', '1')]);
  assert.equal(new Set([...old, ...fresh, bridges].flat()).size, 18, `${old.join(' ')} ${fresh.join(' ')}`);
  for (const [place, index] of hosts.entries()) {
    assert.ok(contains(parseCidr(rangeOf(index)), parseIp(fresh[place]?.[0] ?? '')));
    assert.ok((await host(index).ask(['ip', '-br', 'link'])).includes('cwe'));
  }
  for (const [place, index] of hosts.entries()) {
    for (const [from, others] of [
      [`old${index}`, fresh],
      [`new${index}`, old],
    ] as const) {
      for (const [where, targets] of [...old, ...fresh].entries()) {
        for (const target of targets) {
          // The bridge's pods take each other's whole range to be on it, and nobody answers for a neighbour by IPv6.
          const isApart = target.includes(':') && where % hosts.length === place && others.includes(targets);
          if (!isApart) await inPod(from, 'ping', '-c1', '-W5', target);
        }
      }
    }
  }
});

test('a pod of before that ends gives its address back, and its successor is Causeway’s', async () => {
  const [ip = '', ip6 = ''] = await ipsOf('old1');
  const files = (): string[] => readdirSync(host(1).file('/var/lib/cni/networks/cbr0'));
  assert.ok(files().includes(ip) && files().includes(ip6));
  await cluster.kubectl('delete', 'pod', 'old1', '--wait');
  await until('the file of its address to be gone', () => !files().includes(ip) && !files().includes(ip6), patience);
  await cluster.apply(podOf('old1', 1));
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod', 'old1', '--timeout=90s');
  for (const target of (await Promise.all(['old2', 'new1', 'new3'].map(ipsOf))).flat()) await inPod('old1', 'ping', '-c1', '-W5', target);
  assert.equal((await host(1).ask(['ip', '-br', 'link'])).match(/^cwe/gm)?.length, 2);
});
