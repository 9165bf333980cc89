// Policy on the nodes themselves in a real cluster: Calico's HostEndpoint, GlobalNetworkPolicy and FelixConfiguration as their
// users write them, and what Kubernetes says of nodes and pods in their network.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { buildImageOf, defaultImage } from '#lab/image.ts';
import { importImage, manifestFor } from '#lab/kubernetes-install.ts';
import { boxPodImage, Kubernetes } from '#lab/kubernetes.ts';
import type { Host } from '#lab/host.ts';
import { createLab, destroyLab, type Lab } from '#lab/lab.ts';
import { silentProgress } from '#lab/progress.ts';
import { labDisk } from '#lab/state.ts';
import { until } from '#lab/until.ts';

const name = 'host-endpoints-test';
let lab: Lab;
let cluster: Kubernetes;
let [guarded, other]: [Host, Host] = [undefined as never, undefined as never];

const calico = (kind: string, objectName: string, spec: object, labels: Readonly<Record<string, string>> = {}): object => ({
  apiVersion: 'projectcalico.org/v3',
  kind,
  metadata: { name: objectName, labels },
  spec,
});
const pod = (podName: string, nodeName: string, { port = 8080, hostNetwork = false } = {}): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { namespace: 'default', name: podName, labels: { app: podName } },
  spec: {
    nodeName,
    hostNetwork,
    terminationGracePeriodSeconds: 0,
    containers: [
      {
        name: 'web',
        image: boxPodImage,
        imagePullPolicy: 'Never',
        command: ['sh', '-c', `mkdir /www && echo ${podName} >/www/index.html && exec httpd -f -p ${port} -h /www`],
        readinessProbe: { httpGet: { path: '/', port }, periodSeconds: 1, failureThreshold: 1 },
      },
    ],
  },
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

const words = (ip: string, port: number): string[] => ['busybox', 'wget', '-qO-', '-T', '1', `http://${ip}:${port}/`];
/** What is at that port, `refused` where nobody listens, `nothing` where no answer comes. */
async function found(from: Host, ip: string, port: number): Promise<string> {
  const { status, stdout, stderr } = await from.exec(words(ip, port), { anyStatus: true });
  if (status === 0) return stdout.trim();
  return stderr.includes('refused') ? 'refused' : 'nothing';
}
const becomes = (expected: string, from: Host, ip: string, port: number): Promise<true> =>
  until(`${expected} at ${ip}:${port} from ${from.name}`, async () => (await found(from, ip, port)) === expected);
async function fromPod(podName: string, ip: string, port = 8080): Promise<string> {
  const { status, stdout } = await cluster.tryKubectl(['exec', podName, '--', ...words(ip, port).slice(1)], { anyStatus: true });
  return status === 0 ? stdout.trim() : 'nothing';
}
const field = (kind: string, objectName: string, path: string, ...more: readonly string[]): Promise<string> =>
  cluster.kubectl('get', kind, objectName, `--output=jsonpath={${path}}`, ...more);
const ipOf = (podName: string): Promise<string> => field('pod', podName, '.status.podIP');

before(async () => {
  await destroyLab(name);
  lab = await createLab({ name, hosts: 2 });
  cluster = new Kubernetes(lab);
  [guarded, other] = [lab.host('host1'), lab.host('host2')];
  const folder = labDisk(name);
  mkdirSync(folder, { recursive: true });
  const image = await buildImageOf(join(folder, 'causeway.tar'), defaultImage, silentProgress);
  await cluster.startWithoutNetwork();
  await Promise.all(lab.hosts.map((host) => importImage(host, image.path)));
  await cluster.applyText(manifestFor(cluster, 'causeway-calico.yaml'));
  await cluster.kubectl('wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s');
  await cluster.apply(calico('IPPool', 'default-ipv4-ippool', { cidr: '10.244.0.0/16', ipipMode: 'Never', nodeSelector: 'all()' }));
  await cluster.untilReady();
  await cluster.apply(
    pod('near', 'host1'),
    pod('far', 'host2'),
    pod('node-web', 'host1', { port: 8081, hostNetwork: true }),
    pod('node-more', 'host1', { port: 8082, hostNetwork: true }),
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { namespace: 'default', name: 'near' },
      spec: { type: 'NodePort', selector: { app: 'near' }, ports: [{ port: 80, targetPort: 8080, nodePort: 30_080 }] },
    },
  );
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod', '--all', '--timeout=90s');
});
after(() => destroyLab(name));

test("NetworkPolicies: a node reaches its own pods, and pods in their node's network are nobody's subject", async () => {
  const near = await ipOf('near');
  await becomes('near', other, near, 8080);
  const spec = { podSelector: {}, policyTypes: ['Ingress', 'Egress'] };
  await cluster.apply({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { namespace: 'default', name: 'closed' },
    spec,
  });
  await becomes('nothing', other, near, 8080);
  assert.equal(await found(guarded, near, 8080), 'near');
  assert.equal(await found(other, guarded.address, 8081), 'node-web');
  assert.equal(await fromPod('near', guarded.address, 8081), 'node-web');
  assert.equal(await field('pod', 'near', '.status.conditions[?(@.type=="Ready")].status'), 'True');
  await cluster.kubectl('delete', 'networkpolicy', 'closed');
  await becomes('near', other, near, 8080);
});

test('a host endpoint that cannot be is refused by the name of its field', async () => {
  for (const [wrong, said] of [
    ['spec.node', calico('HostEndpoint', 'wrong', { interfaceName: 'eth0' })],
    ['spec.interfaceName', hostEndpoint({ interfaceName: 'a link of many words' })],
    ['spec.ports.port', hostEndpoint({ ports: [{ name: 'x', port: 0, protocol: 'TCP' }] })],
  ] as const) {
    const { status, stderr } = await cluster.tryKubectl(['apply', '--filename=-'], { input: JSON.stringify(said), anyStatus: true });
    assert.notEqual(status, 0);
    assert.match(stderr, new RegExp(wrong.replaceAll('.', String.raw`\.`)));
  }
});

test('without a policy a host endpoint is closed but for failsafe ports; its node and its pods go on', async () => {
  await cluster.apply(hostEndpoint());
  await becomes('nothing', other, guarded.address, 8081);
  assert.equal(await found(other, guarded.address, 22), 'refused');
  assert.equal(await found(guarded, other.address, 8081), 'nothing');
  assert.equal(await found(guarded, guarded.address, 8081), 'node-web');
  // Pods of both nodes reach each other, and the node its own.
  assert.equal(await fromPod('far', await ipOf('near')), 'near');
  assert.equal(await found(guarded, await ipOf('near'), 8080), 'near');
  assert.equal(await found(other, guarded.address, 30_080), 'near');
  const renewed = (): Promise<string> => field('lease', 'host1', '.spec.renewTime', '--namespace=kube-node-lease');
  const before1 = await renewed();
  await until('the kubelet to tell that it is there', async () => (await renewed()) !== before1, { timeoutMs: 30_000 });
  assert.equal(await field('node', 'host1', '.status.conditions[?(@.type=="Ready")].status'), 'True');
});

test('what a GlobalNetworkPolicy allows is open, and follows the API', async () => {
  await cluster.apply(policy('web', { types: ['Ingress'], ingress: [allow(8081, 10_250)] }));
  await becomes('node-web', other, guarded.address, 8081);
  assert.equal(await found(other, guarded.address, 8082), 'nothing');
  assert.equal(await cluster.kubectl('exec', 'near', '--', 'cat', '/www/index.html'), 'near');
  await cluster.apply(policy('web', { types: ['Ingress'], ingress: [allow(8082)] }));
  await becomes('node-more', other, guarded.address, 8082);
  assert.equal(await found(other, guarded.address, 8081), 'nothing');
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
  assert.equal(await found(other, guarded.address, 22), 'nothing');
  await cluster.kubectl('delete', 'felixconfiguration', 'default');
  await becomes('nothing', other, guarded.address, 8081);
});

test('its profile opens what no policy is for, and without the endpoint all is open again', async () => {
  await cluster.apply(hostEndpoint({ profiles: ['projectcalico-default-allow'] }));
  assert.equal(await found(other, guarded.address, 8081), 'nothing');
  await cluster.kubectl('delete', 'globalnetworkpolicy', 'web');
  await becomes('node-web', other, guarded.address, 8081);
  await cluster.apply(hostEndpoint());
  await becomes('nothing', other, guarded.address, 8081);
  await cluster.kubectl('delete', 'hostendpoint', 'host1-eth0');
  await becomes('node-web', other, guarded.address, 8081);
  await until('the rules to be gone', async () => !(await guarded.ask(['nft', 'list', 'tables'])).includes('causeway_policy'));
});
