// A cluster that runs as flannel has made it, taken over node by node while its pods talk, by each of flannel's backends: real pods on
// the bridge that flannel's plugins made (flannel-bed.ts).
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, before, test } from 'node:test';
import type { Backend } from '#agent/flannel.fixture.ts';
import { stopAgent, uninstallAgent } from '#lab/causeway.ts';
import type { Host } from '#lab/host.ts';
import { accessByHand } from '#lab/kubernetes-install.ts';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { destroyLab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';
import { contains, parseCidr, parseIp } from '#model/ip.ts';
import type { Counted } from './answered.ts';
import { pingingFrom } from './carriage-streams.ts';
import { families, FlannelNodes } from './flannel-bed.ts';
import { KubernetesBed, podOf, type PodObject, stay } from './kubernetes-bed.ts';

const name = 'pods-flannel-test';
const patience = { timeoutMs: 180_000, intervalMs: 200 };
let bed: KubernetesBed;
let cluster: Kubernetes;
let nodes: FlannelNodes;
const hosts = [1, 2, 3] as const;
type Index = (typeof hosts)[number];
const host = (index: Index): Host => nodes.host(index);
const rangeOf = (index: Index): string => nodes.end(index, 4).subnet;
const pod = (podName: string, index: Index): PodObject => podOf(podName, { node: `host${index}`, command: stay });

before(async () => {
  bed = await KubernetesBed.make(name, { hosts: 3, families });
  ({ cluster } = bed);
  nodes = new FlannelNodes(bed);
  await cluster.startWithoutNetwork();
  for (const index of hosts) nodes.install(index);
  await cluster.untilReady();
  await bed.run(...hosts.map((index) => pod(`old${index}`, index)));
  await cluster.applyText(accessByHand());
});
after(() => destroyLab(name));

/** Packets every millisecond between two pods until it is told to stop. */
async function stream(from: Index, target: string): Promise<() => Promise<Counted>> {
  const pid = await sandboxPid(from, `old${from}`);
  return pingingFrom(host(from), (line) => ['nsenter', `--net=/proc/${pid}/ns/net`, 'sh', '-c', line], target);
}

/** A process in the pod, as the node counts. */
async function sandboxPid(index: Index, podName: string): Promise<string> {
  const id = (await bed.field(podName, '.status.containerStatuses[0].containerID')).replace('containerd://', '');
  const tasks = await host(index).ask(['ctr', '--namespace=k8s.io', 'tasks', 'list']);
  return new RegExp(`^${id}\\s+(\\d+)`, 'm').exec(tasks)?.[1] ?? '';
}

/** The agent is started as the documentation says, and has said how it carries. */
async function takeOver(index: Index, backend: Backend): Promise<void> {
  await cluster.startNode(host(index), index, ['--carry', backend]);
  const receives = (): Promise<string> =>
    cluster.kubectl('get', 'node', `host${index}`, '--output=jsonpath={.metadata.annotations.causeway\\.dev/receives}');
  await until(`host${index} to say how it carries`, async () => (await receives()).split(',').includes(backend), patience);
  const left = hosts.filter((other) => other > index);
  if (backend === 'wireguard') await nodes.hear(left, index);
}

/** A connection of host1 itself, which begins from the address of flannel's device where it has one. */
async function holdConnection(target: string) {
  await bed.inPod('old2', 'sh', '-c', 'pidof nc || nc -ll -p 8080 -e cat >/dev/null 2>&1 &');
  const held = host(1).spawn(['busybox', 'nc', target, '8080']);
  let heard = '';
  held.child.stdout?.on('data', (bytes) => (heard += String(bytes)));
  const isHeard = (text: string): Promise<unknown> => {
    held.child.stdin?.write(`${text}\n`);
    return until(`the connection to answer ${text}`, () => heard.includes(text), patience);
  };
  await isHeard('before');
  return {
    async end(): Promise<void> {
      await isHeard('afterwards');
      held.kill();
    },
  };
}

/** What ours has instead of what flannel had. */
const links: Readonly<Record<Backend, readonly string[]>> = { 'host-gateway': [], wireguard: ['cww1'], vxlan: ['cwx1', 'cwx1v6'] };
/**
 * Packets of one stream, one a millisecond, in all three changes. While nodes agree on keys those of some milliseconds may be lost, and of
 * some hundred where a message of theirs is; WireGuard by itself would begin again only after five seconds.
 */
const most: Readonly<Record<Backend, number>> = { 'host-gateway': 0, wireguard: 4500, vxlan: 0 };

for (const backend of ['host-gateway', 'wireguard', 'vxlan'] as const) {
  test(`from flannel's ${backend} node by node, the pods that run keep their addresses and their packets`, async (t) => {
    await nodes.carryBy(backend);
    const addresses = await Promise.all(hosts.map((index) => bed.ipsOf(`old${index}`)));
    const [[one = '', one6 = ''] = [], [two = '', two6 = ''] = [], [three = '', three6 = ''] = []] = addresses;
    const byIpv6 = [
      [1, two6],
      [2, three6],
      [3, one6],
    ] as const;
    const pairs = [
      [1, two] as const,
      [2, three] as const,
      [3, one] as const,
      [2, one] as const,
      ...(backend === 'wireguard' ? [] : byIpv6),
    ];
    const streams = await Promise.all(pairs.map(([from, target]) => stream(from, target)));
    const held = await holdConnection(two);
    for (const index of hosts) {
      await takeOver(index, backend);
      await until(`${links[backend].join(' ')} in the place of what flannel had`, async () => {
        const there = (await host(index).ask(['ip', '-br', 'link'])).match(/^(?:flannel|cw[xw])[\w.-]*/gm) ?? [];
        assert.deepEqual(there.toSorted(), links[backend]);
        return true;
      });
      for (const [place, targets] of addresses.entries()) {
        const reached = backend === 'wireguard' && place >= index ? targets.slice(0, 1) : targets;
        for (const target of reached)
          await until(
            `a node to reach ${target}`,
            () =>
              host(index)
                .ask(['ping', '-c1', '-W1', target])
                .catch(() => undefined),
            patience,
          );
      }
    }
    const counted = await Promise.all(streams.map((stop) => stop()));
    t.diagnostic(JSON.stringify(counted));
    for (const { sent, lost } of counted) assert.ok(sent > 1000 && lost <= most[backend], JSON.stringify(counted));
    await held.end();
    assert.deepEqual(await Promise.all(hosts.map((index) => bed.ipsOf(`old${index}`))), addresses);
    for (const index of hosts)
      assert.equal((await host(index).ask(['ip', '-br', 'link'])).includes('cwe'), false, 'they are on their bridge');
    if (backend !== 'vxlan') await leave();
  });
}

/** Nothing of ours is left, and the pods of before are as they were. */
async function leave(): Promise<void> {
  for (const index of hosts) {
    await stopAgent(host(index));
    await uninstallAgent(host(index));
  }
}

test('new pods are Causeway’s, with addresses that nobody has, and reach those of before on every node', async () => {
  await bed.run(...hosts.map((index) => pod(`new${index}`, index)));
  const old = await Promise.all(hosts.map((index) => bed.ipsOf(`old${index}`)));
  const fresh = await Promise.all(hosts.map((index) => bed.ipsOf(`new${index}`)));
  const bridges = hosts.flatMap((index) => [rangeOf(index).replace('0/24', '1'), nodes.end(index, 6).subnet.replace('/64', '1')]);
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
          if (!isApart) await bed.inPod(from, 'ping', '-c3', '-W5', target);
        }
      }
    }
  }
});

/** Of addresses that flannel's plugins have given. */
const files = (): string[] => readdirSync(host(1).file('/var/lib/cni/networks/cbr0'));

test('a pod of before that ends gives its address back, and its successor is Causeway’s', async () => {
  const [ip = '', ip6 = ''] = await bed.ipsOf('old1');
  assert.ok(files().includes(ip) && files().includes(ip6));
  await bed.remove('old1');
  await until('the file of its address to be gone', () => !files().includes(ip) && !files().includes(ip6), patience);
  await bed.run(pod('old1', 1));
  for (const target of (await Promise.all(['old2', 'new1', 'new3'].map((key) => bed.ipsOf(key)))).flat())
    await bed.inPod('old1', 'ping', '-c3', '-W5', target);
  await until('two pods of ours', async () => (await host(1).ask(['ip', '-br', 'link'])).match(/^cwe/gm)?.length === 2, patience);
});
