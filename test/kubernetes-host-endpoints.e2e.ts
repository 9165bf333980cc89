// Policy on the nodes themselves in a real cluster: Calico's HostEndpoint, GlobalNetworkPolicy and FelixConfiguration as their
// users write them, and what Kubernetes says of nodes and pods in their network.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Host } from '#lab/host.ts';
import { installCalico } from '#lab/kubernetes-install.ts';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { destroyLab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';
import { askPage, found, KubernetesBed, podOf, type PodObject, serviceOf } from './kubernetes-bed.ts';
import { networkPolicy } from './policy-bed.ts';

const name = 'host-endpoints-test';
let bed: KubernetesBed;
let cluster: Kubernetes;
let [guarded, other]: [Host, Host] = [undefined as never, undefined as never];

const calico = (kind: string, objectName: string, spec: object, labels: Readonly<Record<string, string>> = {}): object => ({
  apiVersion: 'projectcalico.org/v3',
  kind,
  metadata: { name: objectName, labels },
  spec,
});
/** It serves a page with its name, as pods in their node's network all have the node's. */
const pod = (podName: string, node: string, { port = 8080, hostNetwork = false } = {}): PodObject =>
  podOf(podName, {
    node,
    labels: { app: podName },
    command: `mkdir /www && echo ${podName} >/www/index.html && exec httpd -f -p ${port} -h /www`,
    container: { readinessProbe: { httpGet: { path: '/', port }, periodSeconds: 1, failureThreshold: 1 } },
    spec: { hostNetwork },
  });
const hostEndpoint = (more: object = {}): object =>
  calico(
    'HostEndpoint',
    'host1-eth0',
    { node: 'host1', interfaceName: 'eth0', expectedIPs: [guarded.address], ...more },
    { role: 'guarded' },
  );
const policy = (policyName: string, spec: object): object =>
  calico('GlobalNetworkPolicy', policyName, { selector: "role == 'guarded'", ...spec });
const allow = (...ports: readonly number[]): object => ({ action: 'Allow', protocol: 'TCP', destination: { ports } });

const becomes = (expected: string, from: Host, ip: string, port: number): Promise<true> =>
  until(`${expected} at ${ip}:${port} from ${from.name}`, async () => (await found(from, ip, port)) === expected);
async function fromPod(podName: string, ip: string, port = 8080): Promise<string> {
  const { status, stdout } = await cluster.tryKubectl(['exec', podName, '--', ...askPage(ip, port, 1)], { anyStatus: true });
  return status === 0 ? stdout.trim() : 'nothing';
}
const becomesInPod = (expected: string, podName: string, ip: string, port?: number): Promise<true> =>
  until(`${expected} at ${ip} from ${podName}`, async () => (await fromPod(podName, ip, port)) === expected);

const field = (kind: string, objectName: string, path: string, ...more: readonly string[]): Promise<string> =>
  cluster.kubectl('get', kind, objectName, `--output=jsonpath={${path}}`, ...more);

before(async () => {
  bed = await KubernetesBed.make(name);
  cluster = bed.cluster;
  [guarded, other] = [bed.lab.host('host1'), bed.lab.host('host2')];
  await installCalico(cluster, [
    calico('IPPool', 'default-ipv4-ippool', { cidr: '10.50.0.0/16', ipipMode: 'Never', natOutgoing: true, nodeSelector: 'all()' }),
  ]);
  await cluster.apply(serviceOf('near', { app: 'near' }, { type: 'NodePort', ports: [{ port: 80, targetPort: 8080, nodePort: 30_080 }] }));
  await bed.run(
    pod('near', 'host1'),
    pod('far', 'host2'),
    pod('node-web', 'host1', { port: 8081, hostNetwork: true }),
    pod('node-more', 'host1', { port: 8082, hostNetwork: true }),
  );
});
after(() => destroyLab(name));

test("NetworkPolicies: a node reaches its own pods, and pods in their node's network are nobody's subject", async () => {
  const near = await bed.ipOf('near');
  await becomes('near', other, near, 8080);
  await cluster.apply(networkPolicy('default/closed', { podSelector: {}, policyTypes: ['Ingress', 'Egress'] }));
  await becomes('nothing', other, near, 8080);
  await becomes('near', guarded, near, 8080);
  await becomes('node-web', other, guarded.address, 8081);
  await becomesInPod('node-web', 'near', guarded.address, 8081);
  assert.equal(await field('pod', 'near', '.status.conditions[?(@.type=="Ready")].status'), 'True');
  await cluster.kubectl('delete', 'networkpolicy', 'closed');
  await becomes('near', other, near, 8080);
});

/** `reason: message` of one of its conditions. */
const said = (kind: string, objectName: string, type: string): Promise<string> => {
  const path = `.status.conditions[?(@.type=="causeway.dev/${type}")]`;
  return cluster.kubectl('get', kind, objectName, `--output=jsonpath={${path}.reason}: {${path}.message}`);
};
const isSaid = (kind: string, objectName: string, type: string, words: RegExp): Promise<true> =>
  until(`${words} of ${kind} ${objectName}`, async () => words.test(await said(kind, objectName, type)), {
    timeoutMs: 180_000,
    intervalMs: 200,
  });

test("kubectl shows what of Calico's resources is not followed, and which host endpoints have no effect", async () => {
  await cluster.apply(
    calico('HostEndpoint', 'nowhere', { node: 'host1', expectedIPs: ['192.0.2.99'] }),
    calico('HostEndpoint', 'odd', { node: 'host1', interfaceName: 'eth7', expectedIPs: ['1.2.3.4.5'] }),
    calico('BGPPeer', 'odd', { peerIP: '192.0.2.1', peerSelector: 'all()' }),
    calico('Tier', 'kube-admin', { order: 5 }),
  );
  await isSaid('hostendpoint', 'nowhere', 'InForce', /^WithoutEffect: no link has its address$/);
  await isSaid('hostendpoint', 'odd', 'Accepted', /^Invalid: spec\.expectedIPs\.0: .*nothing is under policy by it$/);
  await isSaid('bgppeer', 'odd', 'Accepted', /^Invalid: spec/);
  await isSaid('tier', 'kube-admin', 'Accepted', /^Unsupported: spec: stays as it always is/);
  assert.match(await cluster.kubectl('get', 'hostendpoints', 'odd', '--output=wide'), /Invalid .*spec\.expectedIPs\.0: /);
  await cluster.kubectl('delete', 'hostendpoint', 'nowhere', 'odd');
  await cluster.kubectl('delete', 'bgppeer', 'odd');
  await cluster.kubectl('delete', 'tier', 'kube-admin');
});

test('a host endpoint that cannot be is refused by the name of its field', async () => {
  for (const [wrong, written] of [
    ['spec.node', calico('HostEndpoint', 'wrong', { interfaceName: 'eth0' })],
    ['spec.interfaceName', hostEndpoint({ interfaceName: 'a link of many words' })],
    ['spec.ports.port', hostEndpoint({ ports: [{ name: 'x', port: 0, protocol: 'TCP' }] })],
  ] as const) {
    const { status, stderr } = await cluster.tryKubectl(['apply', '--filename=-'], { input: JSON.stringify(written), anyStatus: true });
    assert.notEqual(status, 0);
    assert.match(stderr, new RegExp(wrong.replaceAll('.', String.raw`\.`)));
  }
});

test('without a policy a host endpoint is closed but for failsafe ports; its node and its pods go on', async () => {
  // A connection that stands: cut, although its packets would be those of one that is tracked.
  const held = other.exec(['timeout', '30', 'sh', '-c', `sleep 30 | busybox nc ${guarded.address} 8081`], { anyStatus: true });
  const isTracked = async (): Promise<boolean> =>
    (await guarded.ask(['conntrack', '-L', '-p', 'tcp', '--src', other.address, '--dport', '8081'])).includes('ESTABLISHED');
  await until('the connection to stand', isTracked);
  await cluster.apply(hostEndpoint());
  await becomes('nothing', other, guarded.address, 8081);
  await until('it to be cut', async () => !(await isTracked()));
  await held;
  await isSaid('hostendpoint', 'host1-eth0', 'InForce', /^InForce: /);
  await becomes('refused', other, guarded.address, 22);
  await becomes('nothing', guarded, other.address, 8081);
  await becomes('node-web', guarded, guarded.address, 8081);
  // Pods of both nodes reach each other, and the node its own.
  await becomesInPod('near', 'far', await bed.ipOf('near'));
  await becomes('near', guarded, await bed.ipOf('near'), 8080);
  await becomes('near', other, guarded.address, 30_080);
  const renewed = (): Promise<string> => field('lease', 'host1', '.spec.renewTime', '--namespace=kube-node-lease');
  const before1 = await renewed();
  await until('the kubelet to tell that it is there', async () => (await renewed()) !== before1);
  assert.equal(await field('node', 'host1', '.status.conditions[?(@.type=="Ready")].status'), 'True');
});

test('what a GlobalNetworkPolicy allows is open, and follows the API', async () => {
  await cluster.apply(policy('web', { types: ['Ingress'], ingress: [allow(8081, 10_250)] }));
  await becomes('node-web', other, guarded.address, 8081);
  await becomes('nothing', other, guarded.address, 8082);
  assert.equal(await cluster.kubectl('exec', 'near', '--', 'cat', '/www/index.html'), 'near');
  await cluster.apply(policy('web', { types: ['Ingress'], ingress: [allow(8082)] }));
  await becomes('node-more', other, guarded.address, 8082);
  await becomes('nothing', other, guarded.address, 8081);
});

test('a node port is met before it is translated, and forwarded packets by policies that say so', async () => {
  await cluster.apply(
    policy('node-ports', {
      preDNAT: true,
      applyOnForward: true,
      types: ['Ingress'],
      ingress: [{ action: 'Deny', protocol: 'TCP', destination: { ports: [30_080] } }],
    }),
  );
  await becomes('nothing', other, guarded.address, 30_080);
  await cluster.kubectl('delete', 'globalnetworkpolicy', 'node-ports');
  await becomes('near', other, guarded.address, 30_080);
  await cluster.apply(policy('through', { applyOnForward: true, order: 10, types: ['Ingress'], ingress: [allow(8082)] }));
  await becomes('nothing', other, guarded.address, 30_080);
  await cluster.kubectl('delete', 'globalnetworkpolicy', 'through');
  await becomes('near', other, guarded.address, 30_080);
});

test('failsafe ports are those of FelixConfiguration', async () => {
  await cluster.apply(calico('FelixConfiguration', 'default', { failsafeInboundHostPorts: [{ protocol: 'TCP', port: 8081 }] }));
  await becomes('node-web', other, guarded.address, 8081);
  await becomes('nothing', other, guarded.address, 22);
  await cluster.kubectl('delete', 'felixconfiguration', 'default');
  await becomes('nothing', other, guarded.address, 8081);
});

test('every link of a node at once: its pods and those of others go on, and what is forwarded', async () => {
  await cluster.kubectl('delete', 'globalnetworkpolicy', 'web');
  await cluster.apply(hostEndpoint({ interfaceName: '*' }));
  await becomes('nothing', other, guarded.address, 8082);
  const near = await bed.ipOf('near');
  await becomesInPod('near', 'far', near);
  await becomesInPod('nothing', 'far', guarded.address, 8081);
  await becomes('near', other, guarded.address, 30_080);
  await becomes('near', guarded, near, 8080);
  // To execute something in a pod there, the API asks the kubelet.
  await cluster.apply(policy('web', { types: ['Ingress'], ingress: [allow(10_250)] }));
  await until('exec to work', async () => (await fromPod('near', guarded.address, 8081)) === 'node-web');
  await becomesInPod('far', 'near', await bed.ipOf('far'));
  await cluster.apply(hostEndpoint());
});

test('its profile opens what no policy is for, and without the endpoint all is open again', async () => {
  await cluster.apply(hostEndpoint({ profiles: ['projectcalico-default-allow'] }));
  await becomes('nothing', other, guarded.address, 8081);
  await cluster.kubectl('delete', 'globalnetworkpolicy', 'web');
  await becomes('node-web', other, guarded.address, 8081);
  await cluster.apply(hostEndpoint());
  await becomes('nothing', other, guarded.address, 8081);
  await cluster.kubectl('delete', 'hostendpoint', 'host1-eth0');
  await becomes('node-web', other, guarded.address, 8081);
  await until('the rules to be gone', async () => !(await guarded.ask(['nft', 'list', 'tables'])).includes('causeway_policy'));
});

test('host endpoints of every node are made by themselves where that is said, follow their node, and go again', async () => {
  const controllers = (autoCreate: string): Promise<void> =>
    cluster.apply(calico('KubeControllersConfiguration', 'default', { controllers: { node: { hostEndpoint: { autoCreate } } } }));
  await controllers('Enabled');
  for (const host of ['host1', 'host2']) {
    await until(`that of ${host}`, async () =>
      (await cluster.kubectl('get', 'hostendpoints', '--output=name')).includes(`/${host}-auto-hep`),
    );
    await isSaid('hostendpoint', `${host}-auto-hep`, 'InForce', /^InForce: /);
  }
  // Its profile allows what no policy is for.
  await becomes('node-web', other, guarded.address, 8081);
  await cluster.kubectl('label', 'node', 'host1', 'role=guarded');
  await cluster.apply(policy('web', { types: ['Ingress'], ingress: [allow(8082, 10_250)] }));
  await becomes('nothing', other, guarded.address, 8081);
  await becomes('node-more', other, guarded.address, 8082);
  await becomesInPod('near', 'far', await bed.ipOf('near'));
  await controllers('Disabled');
  await becomes('node-web', other, guarded.address, 8081);
  await until('all of them to be gone', async () => (await cluster.kubectl('get', 'hostendpoints', '--output=name')) === '');
  await cluster.kubectl('delete', 'globalnetworkpolicy', 'web');
});
