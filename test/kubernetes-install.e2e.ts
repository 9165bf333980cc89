// Causeway installed as its users do it: an image without a registry, one file for kubectl, and nothing of it on the nodes
// before and after.
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { docker, startDockerd } from '#lab/engine.ts';
import { manifestsFolder } from '#lab/helm-chart.ts';
import type { Host } from '#lab/host.ts';
import { buildImageOf, type BuiltImage, defaultImage, imageRepository } from '#lab/image.ts';
import { agentDaemonSet, applyFile, chartFor, controllerDeployment, importImage, manifestFor } from '#lab/kubernetes-install.ts';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { destroyLab, type Lab } from '#lab/lab.ts';
import { silentProgress } from '#lab/progress.ts';
import { until } from '#lab/until.ts';
import { Capture, tcpdump } from './capture.ts';
import { pinging, traffic, untilByWireguard, wireguardDevices } from './carriage-streams.ts';
import { assertWhole, streaming, type Streams } from './streams.ts';
import { askedForPage, cniStatus, KubernetesBed, podOf, type PodObject, serviceOf } from './kubernetes-bed.ts';

const name = 'pods-install';
const folder = mkdtempSync(join(tmpdir(), 'causeway-image-'));
const patient = { timeoutMs: 240_000, intervalMs: 200 };
let bed: KubernetesBed;
let lab: Lab;
let cluster: Kubernetes;
let image: BuiltImage;
/** What nodes held before anything of Causeway was there. */
let untouched: readonly string[][] = [];

before(async () => {
  image = await buildImageOf(join(folder, 'image.tar'), defaultImage, silentProgress);
  bed = await KubernetesBed.make(name);
  ({ lab, cluster } = bed);
  await cluster.startWithoutNetwork();
  await Promise.all(lab.hosts.map((host) => importImage(host, image.path)));
  // Plugins that the hosts have from somebody else.
  for (const host of lab.hosts) {
    mkdirSync(host.file('/opt/cni/bin'), { recursive: true });
    for (const plugin of ['bridge', 'host-local']) copyFileSync(join('/usr/lib/cni', plugin), host.file(`/opt/cni/bin/${plugin}`));
  }
  untouched = await Promise.all(lab.hosts.map(tracesOf));
});
after(async () => {
  await destroyLab(name);
  rmSync(folder, { recursive: true });
});

/** The kernel's state and the files of a node, without what the kubelet counts and changes by itself. */
async function tracesOf(host: Host): Promise<string[]> {
  const commands = [
    'ip -o link | cut -d" " -f2',
    'ip -o address | grep -o "inet.*/[0-9]*"',
    'ip route show table all',
    'ip -6 route show table all | grep -v fe80',
    'ip rule',
    'ip neigh | grep PERMANENT',
    'ip netns list',
    'nft --stateless list tables | grep -v -e " filter$" -e " mangle$" -e " nat$"',
    'iptables-save | grep -i causeway',
    'ls -A /opt/cni/bin /etc/cni/net.d',
    'find /var/lib/causeway /run/causeway -mindepth 1',
    'ls -d /run/netns/* 2>/dev/null',
  ];
  return Promise.all(commands.map((command) => host.ask(['sh', '-c', `${command}; true`])));
}

const pod = (podName: string, node: string): PodObject => podOf(podName, { node, labels: { app: 'web' }, container: askedForPage });
const ask = (what: string, path: string): Promise<string> =>
  cluster.kubectl('get', what, path, '--output=jsonpath={.status.podIP}{.spec.clusterIP}');
const inPod = (podName: string, script: string): Promise<string> => bed.inPod(podName, 'sh', '-c', script);
const rolledOut = (what: string): Promise<string> =>
  cluster.kubectl('rollout', 'status', '--namespace=kube-system', what, '--timeout=300s');

test('the same input is the same image, bit for bit, and Docker loads it', async () => {
  const again = await buildImageOf(join(folder, 'again.tar'), defaultImage, silentProgress);
  assert.equal(again.digest, image.digest);
  const host = lab.controller;
  await startDockerd(host);
  await docker(host, ['load', '--input', image.path]);
  assert.match(await docker(host, ['run', '--rm', '--network=none', image.name, 'agent', '--help']), /causeway agent/);
  assert.match(await docker(host, ['run', '--rm', '--network=none', image.name, 'version', '--output', 'json']), /"client": "/);
});

test('one file makes the nodes ready, and their pods and services work', async () => {
  await applyFile(cluster, 'causeway.yaml');
  await cluster.untilReady();
  await rolledOut(agentDaemonSet);
  const filtered = await cluster.kubectl('exec', '--namespace=kube-system', agentDaemonSet, '--', 'grep', '^Seccomp:', '/proc/1/status');
  assert.match(filtered, /\b2$/, "agents live with the runtime's usual filter of system calls");
  await cluster.apply(serviceOf('web', { app: 'web' }));
  await bed.run(pod('one', 'host1'), pod('two', 'host2'));
  assert.equal(await inPod('one', `wget -qO- -T 5 http://${await ask('pod', 'two')}:8080/`), 'two');
  const address = await ask('service', 'web');
  const seen = async (): Promise<boolean> =>
    (await inPod('one', `for i in 1 2 3 4 5 6 7 8 9; do wget -qO- -T 5 http://${address}/; done | sort -u | xargs`)) === 'one two';
  await until('both pods to serve', seen, patient);
});

const podsOf = (component: string, path: string): Promise<string> => {
  const which = ['--namespace=kube-system', `--selector=app.kubernetes.io/component=${component}`];
  return cluster.kubectl('get', 'pods', ...which, `--output=jsonpath={.items[*].${path}}`);
};
const imagePath = 'spec.containers[0].image';
const addressPool = (poolName: string, addresses: string): object => ({
  apiVersion: 'causeway.dev/v1alpha1',
  kind: 'AddressPool',
  metadata: { name: poolName },
  spec: { addresses: [addresses] },
});

/** Nodes that hold an address, which they answer for on the wire. */
async function holdersOf(ip: string): Promise<Host[]> {
  const shown = await Promise.all(lab.hosts.map(async (host) => ({ host, text: await host.ask(['ip', '-o', 'address']) })));
  return shown.filter(({ text }) => text.includes(` ${ip}/`)).map(({ host }) => host);
}

async function answersOutside(ip: string): Promise<boolean> {
  const { stdout } = await lab.controller.exec(['curl', '-s', '-m', '2', `http://${ip}/`], { anyStatus: true });
  return ['one', 'two'].includes(stdout.trim());
}

test('one of the controllers holds the Lease, and load balancers get addresses of pools that answer outside', async () => {
  await rolledOut(controllerDeployment);
  const leaseHolder = '--output=jsonpath={.spec.holderIdentity}';
  const leader = (): Promise<string> => cluster.kubectl('get', '--namespace=kube-system', 'lease', 'causeway-controller', leaseHolder);
  assert.equal((await podsOf('controller', 'metadata.name')).split(' ').length, 2);
  await until('one to lead', async () => /^host[12]-/.test(await leader()), patient);
  for (const addresses of ['no address', '10.213.0.256', '10.213.0.0/33']) {
    const input = JSON.stringify(addressPool('bad', addresses));
    const refused = await cluster.tryKubectl(['apply', '--filename=-'], { input, anyStatus: true });
    assert.match(refused.stderr, /spec\.addresses/, addresses);
  }
  // Of the nodes' own range: whoever is beside them asks the wire.
  await cluster.apply(addressPool('edge', '10.213.0.201-10.213.0.209'), addressPool('late', '10.213.0.209'), {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'edge' },
    spec: { type: 'LoadBalancer', selector: { app: 'web' }, ports: [{ port: 80, targetPort: 8080 }] },
  });
  const given = (): Promise<string> => cluster.kubectl('get', 'service', 'edge', '--output=jsonpath={.status.loadBalancer.ingress[*].ip}');
  await until('an address', async () => (await given()) === '10.213.0.201', patient);
  const reason = '--output=jsonpath={.status.conditions[?(@.type=="Ready")].reason}';
  for (const [pool, said] of [
    ['edge', 'Usable'],
    ['late', 'Overlaps'],
  ] as const)
    await until(`${pool} to be judged`, async () => (await cluster.kubectl('get', 'addresspool', pool, reason)) === said, patient);
  await until('it to answer outside', () => answersOutside('10.213.0.201'), patient);
  const [holder, ...others] = await holdersOf('10.213.0.201');
  assert.ok(holder !== undefined && others.length === 0);
  await cluster.kubectl('label', 'node', holder.name, 'node.kubernetes.io/exclude-from-external-load-balancers=');
  const isElsewhere = (holders: readonly Host[]): boolean => holders.length === 1 && holders[0] !== holder;
  await until('the other node to have it', async () => isElsewhere(await holdersOf('10.213.0.201')), patient);
  await until('it to answer again', () => answersOutside('10.213.0.201'), patient);
  await cluster.kubectl('label', 'node', holder.name, 'node.kubernetes.io/exclude-from-external-load-balancers-');
  await cluster.kubectl('delete', 'service', 'edge');
  await until('nobody to have it', async () => (await holdersOf('10.213.0.201')).length === 0, patient);
});

/** Whether a service account may: yes or no. */
async function can(account: string, ...words: readonly string[]): Promise<string> {
  const as = `--as=system:serviceaccount:kube-system:${account}`;
  return (await cluster.tryKubectl(['auth', 'can-i', ...words, as], { anyStatus: true })).stdout.trim();
}
const may = (...words: readonly string[]): Promise<string> => can('causeway-agent', ...words, '--all-namespaces');
const decides = (...words: readonly string[]): Promise<string> => can('causeway-controller', ...words);

test('agents and controllers may do what they need, and nothing else', async () => {
  for (const what of ['nodes', 'services', 'endpointslices.discovery.k8s.io']) assert.equal(await may('list', what), 'yes', what);
  for (const what of ['secrets', 'configmaps', 'serviceaccounts', 'pods', 'services']) assert.equal(await may('get', what), 'no', what);
  assert.equal(await may('patch', 'pods', '--subresource=status'), 'yes');
  for (const what of ['nodes', 'services', 'pods']) for (const verb of ['patch', 'delete']) assert.equal(await may(verb, what), 'no', what);
  for (const what of ['services', 'secrets', 'pods', 'nodes']) assert.equal(await decides('get', what, '--all-namespaces'), 'no', what);
  for (const what of ['services', 'addresspools.causeway.dev']) assert.equal(await decides('update', what), 'no', what);
  assert.equal(await decides('update', 'lease/causeway-controller', '--namespace=kube-system'), 'yes');
  assert.equal(await decides('update', 'lease/other', '--namespace=kube-system'), 'no');
  for (const who of [may, decides]) {
    assert.equal(await who('watch', 'customresourcedefinitions/clusternetworkpolicies.policy.networking.k8s.io'), 'yes');
    assert.equal(await who('watch', 'customresourcedefinitions'), 'no');
  }
});

test('agents in pods execute the plugins of their hosts for further networks', async () => {
  const host = lab.host('host1');
  const definitions = join(manifestsFolder, 'network-attachment-definitions.yaml');
  await cluster.applyText(readFileSync(definitions, 'utf8'));
  await cluster.untilDefined();
  assert.equal(await may('get', 'network-attachment-definitions.k8s.cni.cncf.io'), 'yes');
  const ipam = { type: 'host-local', subnet: '10.98.0.0/24' };
  await cluster.apply({
    apiVersion: 'k8s.cni.cncf.io/v1',
    kind: 'NetworkAttachmentDefinition',
    metadata: { name: 'lan' },
    spec: { config: JSON.stringify({ cniVersion: '1.0.0', type: 'bridge', bridge: 'br-lan', ipam }) },
  });
  const wish = { node: host.name, annotations: { 'k8s.v1.cni.cncf.io/networks': 'lan' } };
  await bed.run(podOf('three', wish), podOf('four', wish));
  const shown = await inPod('four', 'ip -o -4 addr show net1');
  const address = /10\.98\.0\.\d+/.exec(shown)?.[0] ?? assert.fail(shown);
  assert.equal(await bed.page('three', address), 'four');
  await bed.remove('three', 'four');
  const left = async (): Promise<string> =>
    await host.ask(['sh', '-c', 'find /var/lib/cni/networks/lan -name "10.*"; ip -br link show master br-lan']);
  await until('nothing of it to be left', async () => (await left()) === '', patient);
  await cluster.kubectl('delete', '--filename', definitions);
  await host.exec(['ip', 'link', 'del', 'br-lan']);
});

/** Between pods of two nodes, and by the service. */
const streamed = async (work: () => Promise<void>): Promise<Streams> =>
  streaming({ sh: (script) => inPod('one', script), target: await ask('pod', 'two'), url: `http://${await ask('service', 'web')}/` }, work);

/** What the runtime is answered meanwhile that keeps asking whether the node is ready, as containerd does since 2.0. */
async function readiness(host: Host, signal: AbortSignal): Promise<ReadonlySet<string>> {
  const answers = new Set<string>();
  for (; !signal.aborted; await setTimeout(200)) answers.add(await cniStatus(host));
  return answers;
}

test('an upgrade loses no packet, and nodes stay ready', async (t) => {
  const next = await buildImageOf(join(folder, 'next.tar'), `${imageRepository}:next`, silentProgress);
  await Promise.all(lab.hosts.map((host) => importImage(host, next.path)));
  const over = new AbortController();
  t.after(() => over.abort());
  const answers = Promise.all(lab.hosts.map((host) => readiness(host, over.signal)));
  const streams = await streamed(async () => {
    await applyFile(cluster, 'causeway.yaml', next.name);
    await rolledOut(agentDaemonSet);
    await rolledOut(controllerDeployment);
  });
  const all = [next.name, next.name].join(' ');
  assert.equal(await podsOf('agent', imagePath), all);
  await until('the earlier controllers to be gone', async () => (await podsOf('controller', imagePath)) === all, patient);
  over.abort();
  for (const said of await answers) assert.deepEqual([...said], ['']);
  assertWhole(streams);
});

const remove = (manifest: string): Promise<unknown> => cluster.tryKubectl(['delete', '--wait', '--filename=-'], { input: manifest });

test('without agents pods keep talking', async () => {
  const streams = await streamed(async () => {
    await remove(manifestFor(cluster, 'causeway.yaml'));
    const left = (): Promise<string> => cluster.kubectl('get', 'pods', '--namespace=kube-system', '--output=name');
    await until('the agents and controllers to be gone', async () => (await left()) === '', patient);
    assert.equal(await cluster.kubectl('get', 'crd', '--output=name'), '');
  });
  assertWhole(streams);
});

const encrypted = (): string => chartFor(cluster, { carry: 'wireguard', userspaceWireguard: true });
const mark = 'attack-at-dawn';
/** One pod asks the other for a page of this name, which there is not. */
const shout = async (): Promise<string> => inPod('one', `wget -qO- -T 5 http://${await ask('pod', 'two')}:8080/${mark} 2>&1; true`);
const wire = (): Promise<Capture> => Capture.start(lab.underlay.spawn(tcpdump('-i', 'wire', '-A', '-s0')));
/** Of a DaemonSet, all pods or one node's; on return there are others, which are ready. */
async function replacePods(component: string, ...which: readonly string[]): Promise<void> {
  const selector = ['--namespace=kube-system', `--selector=app.kubernetes.io/component=${component}`];
  await cluster.kubectl('delete', 'pod', ...selector, ...which);
  const isWhole = async (): Promise<boolean> =>
    (await podsOf(component, 'status.containerStatuses[0].ready')) === lab.hosts.map(() => 'true').join(' ');
  await until(`the pods of ${component}`, isWhole, patient);
}

test('by a WireGuard that the kernel has not nothing is seen in clear text, and pods keep talking while agents are replaced', async (t) => {
  const [ips, host] = [[await ask('pod', 'one'), await ask('pod', 'two')] as const, lab.host('host1')];
  {
    await using plain = await wire();
    await shout();
    await until('the wire to show clear text', () => plain.text.includes(mark), patient);
  }
  await cluster.applyText(chartFor(cluster, { carry: 'wireguard' }));
  const logs = ['logs', '--namespace=kube-system', '--selector=app.kubernetes.io/component=agent', '--tail=-1'];
  const isSaid = async (): Promise<boolean> => /nobody starts wireguard-go here/.test(await cluster.kubectl(...logs));
  await until('an agent to say what it lacks', isSaid, patient);
  assert.match(await shout(), /404/);
  await cluster.applyText(encrypted());
  await rolledOut(agentDaemonSet);
  await untilByWireguard(lab.hosts, ips, patient.timeoutMs);
  await using capture = await wire();
  const earlier = await wireguardDevices(lab.hosts);
  const whileAgents = pinging(host, ips);
  await replacePods('agent');
  const fewLost = await whileAgents();
  t.diagnostic(`${fewLost} packets lost while agents are replaced`);
  assert.deepEqual(await wireguardDevices(lab.hosts), earlier, 'they are the same ones');
  // On a busy machine wireguard-go may lose some by itself: it gets no processor when a packet comes. A new one would cost seconds.
  assert.ok(fewLost < 1000, `${fewLost}`);
  assert.match(await shout(), /404/);

  const whileOwner = pinging(host, ips);
  const connection = await traffic(host, lab.host('host2'), ips);
  await replacePods('wireguard', '--field-selector=spec.nodeName=host1');
  await until('pods to talk again', async () => /404/.test(await shout()), patient);
  const lost = await whileOwner();
  const heard = connection.count();
  await until('a connection of before to go on', async () => connection.count() > heard, patient);
  connection.stop();
  t.diagnostic(`${lost} ms without a way while the pod of wireguard-go is replaced`);
  await until('the wire to show the tunnel', () => / UDP, length /.test(capture.text), patient);
  assert.ok(!capture.text.includes(mark));
  assert.ok(!ips.some((ip) => new RegExp(`\\b${ip.replaceAll('.', '\\.')}\\b`).test(capture.text)), 'addresses of pods');
});

test('uninstalled, nodes are as before', async () => {
  await cluster.kubectl('delete', 'pod', '--all', '--wait');
  for (const host of lab.hosts)
    await until(`${host.name} to have no pod's namespace`, async () => (await host.ask(['ls', '/run/netns'])) === '', patient);
  await remove(encrypted());
  await applyFile(cluster, 'causeway-uninstall.yaml');
  await rolledOut('daemonset/causeway-uninstall');
  await remove(manifestFor(cluster, 'causeway-uninstall.yaml'));
  const said = await cluster.kubectl('get', 'nodes', '--output=jsonpath={.items[*].metadata.annotations} {.items[*].status.conditions}');
  assert.doesNotMatch(said, /causeway|NetworkUnavailable/);
  for (const [index, host] of lab.hosts.entries())
    await until(
      `${host.name} to be as before`,
      async () => {
        assert.deepEqual(await tracesOf(host), untouched[index]);
        return true;
      },
      patient,
    );
});
