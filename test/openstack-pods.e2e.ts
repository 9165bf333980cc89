// Pods that are ports of the cloud: a Kubernetes cluster whose nodes are instances, with a network of the cloud in the place of its own.
// Ports are there before the first pod, a pod makes no call to Neutron, an instance that knows nothing of Causeway reaches pods without
// encapsulation, the kubelet's probes and services work, and nothing of the ports stays.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { manifestsFolder } from '#lab/helm-chart.ts';
import type { Host } from '#lab/host.ts';
import { Kubernetes } from '#lab/kubernetes.ts';
import { demo } from '#lab/openstack.ts';
import { type CloudBed, makeInstances } from '#lab/openstack-bed.ts';
import { missingOf, openstackNeeds } from '#lab/packages.ts';
import { until } from '#lab/until.ts';
import { askedForPage, askPage, podOf, type PodObject, serviceOf } from './kubernetes-bed.ts';
import { NeutronCalls } from './neutron-calls.ts';

const skip = missingOf(openstackNeeds);
const patience = { timeoutMs: 180_000, intervalMs: 300 };
const subnet = '10.20.0.0/24';
const installation = 'cluster';
const defaultNetwork = { 'v1.multus-cni.io/default-network': 'default/ports' };
let bed: CloudBed;
let cluster: Kubernetes;
/** An instance of the project that has nothing to do with Causeway. */
let instance: Host;
let calls: NeutronCalls;

interface Port {
  readonly id: string;
  readonly status: string;
  readonly mac_address: string;
  readonly security_groups: readonly string[];
  readonly fixed_ips: readonly { readonly ip_address: string }[];
}

/** Those of a node's pods. */
const portsOf = (node: string): Promise<Port[]> => bed.portsBy<Port>(`description=causeway.${installation}.${node}`);
const allPorts = async (): Promise<Port[]> => (await Promise.all(['node1', 'node2'].map(portsOf))).flat();
const idsOf = (ports: readonly Port[]): string[] => ports.map(({ id }) => id).toSorted();

const field = (kind: string, name: string, path: string): Promise<string> =>
  cluster.kubectl('get', kind, name, `--output=jsonpath={${path}}`);
const ipOf = (pod: string): Promise<string> => field('pod', pod, '.status.podIP');
const ready = (...pods: readonly string[]): Promise<string> =>
  cluster.kubectl('wait', '--for=condition=Ready', ...pods.map((pod) => `pod/${pod}`), '--timeout=150s');
/** In the cloud's network; ready when the kubelet has its page. */
const cloudPod = (name: string, node: string): PodObject =>
  podOf(name, { node, labels: { app: 'cloud' }, annotations: defaultNetwork, container: askedForPage });

/** In the cluster's own. */
const plainPod = (name: string, node: string): PodObject => podOf(name, { node, labels: { app: name }, container: askedForPage });

/** What a host gets from a web server. */
async function page(host: Host, ip: string, port = 8080): Promise<string | undefined> {
  const { status, stdout } = await host.exec(['busybox', ...askPage(ip, port, 2)], { anyStatus: true });
  return status === 0 ? stdout.trim() : undefined;
}
let executed = 0;
/** What a pod gets, asked by its runtime: nobody outside of the cloud reaches a kubelet. */
async function pageIn(pod: string, ip: string, port = 8080): Promise<string | undefined> {
  const [node, container] = [
    await field('pod', pod, '.spec.nodeName'),
    await field('pod', pod, '.status.containerStatuses[0].containerID'),
  ];
  const argv = ['ctr', '--namespace=k8s.io', 'tasks', 'exec', '--exec-id', `ask${executed++}`, container.replace(/^.*\/\//, '')];
  const { status, stdout } = await bed.cloud.lab.host(node).exec([...argv, ...askPage(ip, port, 2)], { anyStatus: true });
  return status === 0 ? stdout.trim() : undefined;
}

async function startController(): Promise<void> {
  await cluster.startController({
    service: 'cluster-controller',
    arguments: ['--cloud', '--cloud-name', installation, '--cloud-interval', '3600'],
    env: bed.cloud.environment(demo),
  });
}

before(async () => {
  if (skip !== false) return;
  bed = await makeInstances({ name: 'os-pods' }, 2);
  const { cloud, site, member } = bed;
  for (const { host, port } of bed.instances)
    await member.send('neutron', 'POST', '/v2.0/trunks', { trunk: { port_id: port.id, name: host.name } });
  const own = { network_id: site.network, name: 'plain', security_groups: [site.group], fixed_ips: [{ ip_address: '10.20.0.50' }] };
  const { id } = await member.send<Port>('neutron', 'POST', '/v2.0/ports', { port: own });
  instance = (await cloud.boot('plain', id, 2)).host;
  const { lab } = cloud;
  const hosts = bed.instances.map(({ host }) => host);
  cluster = new Kubernetes({ name: lab.name, controller: lab.controller, outside: lab.outside, hosts }, { isApart: true });
  await cluster.start();
  await cluster.applyText(readFileSync(join(manifestsFolder, 'network-attachment-definitions.yaml'), 'utf8'));
  await cluster.untilDefined();
  await startController();
  calls = await NeutronCalls.count(cloud.controller);
});
after(async () => bed?.[Symbol.asyncDispose]());

const definition = (name: string, config: object): object => ({
  apiVersion: 'k8s.cni.cncf.io/v1',
  kind: 'NetworkAttachmentDefinition',
  metadata: { name, namespace: 'default' },
  spec: { config: JSON.stringify({ cniVersion: '1.0.0', name, type: 'causeway', ...config }) },
});
const problemOf = (network: string): Promise<string> =>
  cluster.kubectl('get', 'portpools', `--output=jsonpath={.items[?(@.spec.network.key=="default/${network}")].status.problem}`);

test('what the cloud does not have is said where the pool is, and nothing is made', { skip }, async () => {
  await cluster.apply(definition('odd', { subnets: ['10.99.0.0/24'], neutron: { network: 'hosts' } }));
  await until('the problem', async () => /in Neutron it is 10\.20\.0\.0\/24/.test(await problemOf('odd')), patience);
  assert.deepEqual(await allPorts(), []);
  await cluster.kubectl('delete', 'net-attach-def', 'odd');
  await until('its pools to be gone', async () => (await cluster.kubectl('get', 'portpools', '--output=name')) === '', patience);
});

test('ports are there before the first pod, and pods that an instance reaches make no call to Neutron', { skip }, async () => {
  const group = { security_group: { name: 'pods' } };
  const { id } = await bed.member.send<{ id: string }>('neutron', 'POST', '/v2.0/security-groups', group);
  const rule = { security_group_id: id, direction: 'ingress', protocol: 'tcp', port_range_min: 8080, port_range_max: 8080 };
  await bed.member.send('neutron', 'POST', '/v2.0/security-group-rules', {
    security_group_rule: { ...rule, remote_ip_prefix: subnet },
  });
  await cluster.apply(definition('ports', { subnets: [subnet], neutron: { network: 'hosts', groups: ['pods'] } }));
  await until('the first ports of both nodes', async () => (await allPorts()).length === 16, patience);
  const blocks = (): Promise<string> => cluster.kubectl('get', 'portpools', '--output=jsonpath={.items[*].status.blocks[*].vlan}');
  await until('nodes to be told of them', async () => (await blocks()) === '2 2', patience);
  const earlier = await calls.calm(patience.timeoutMs);
  assert.ok(earlier > 0, 'ports were made by calls that are counted');

  await cluster.apply(cloudPod('one', 'node1'), cloudPod('two', 'node2'));
  await ready('one', 'two');
  assert.equal(await calls.made(), earlier, 'calls to Neutron of two pods');
  const [one, two] = [await ipOf('one'), await ipOf('two')];
  const ownPort = async (): Promise<Port | undefined> =>
    (await portsOf('node1')).find(({ fixed_ips: ips }) => ips.some(({ ip_address: ip }) => ip === one));
  const port = await until(
    'its port to be active',
    async () => {
      const found = await ownPort();
      return found?.status === 'ACTIVE' ? found : undefined;
    },
    patience,
  );
  assert.deepEqual(port.security_groups, [id]);
  await until('the instance to reach a pod', async () => (await page(instance, one)) === 'one', patience);
  const neighbours = await instance.ask(['ip', 'neigh', 'show', one], { netOnly: true });
  assert.match(neighbours, new RegExp(`lladdr ${port.mac_address}`));
  assert.equal(await pageIn('one', two), 'two', 'one pod from the other');
  assert.equal(await page(instance, one, 8081), undefined);
});

test("services lead to such pods and from them, also to the cluster's pods on the other node", { skip }, async () => {
  await cluster.apply(
    serviceOf('cloud', { app: 'cloud' }),
    serviceOf('far', { app: 'far' }),
    plainPod('near', 'node1'),
    plainPod('far', 'node2'),
  );
  await ready('near', 'far');
  const [cloud, far] = [await field('service', 'cloud', '.spec.clusterIP'), await field('service', 'far', '.spec.clusterIP')];
  await until('the cluster to have its tunnel', async () => (await pageIn('near', await ipOf('far'))) === 'far', patience);
  await until('a pod of the cloud to reach one of the other node', async () => (await pageIn('one', far, 80)) === 'far', patience);
  assert.equal(await pageIn('one', await ipOf('near')), 'near');
  assert.equal(await pageIn('one', await ipOf('far')), 'far');
  const seen = new Set<string | undefined>();
  await until(
    'both pods behind the service',
    async () => seen.add(await pageIn('near', cloud, 80)).isSupersetOf(new Set(['one', 'two'])),
    patience,
  );
});

test('when ports run out more are made, and those of pods that have ended are given again', { skip }, async () => {
  const names = Array.from({ length: 8 }, (_, index) => `many${index}`);
  await cluster.apply(...names.map((name) => cloudPod(name, 'node1')));
  await ready(...names);
  const ports = await portsOf('node1');
  assert.equal(ports.length, 16);
  const addresses = await Promise.all(names.map(ipOf));
  assert.equal(new Set(addresses).size, 8);
  await cluster.kubectl('delete', 'pod', ...names);
  const earlier = await calls.calm(patience.timeoutMs);
  await cluster.apply(cloudPod('again1', 'node1'), cloudPod('again2', 'node1'));
  await ready('again1', 'again2');
  assert.equal(await calls.made(), earlier, 'calls to Neutron of two more');
  assert.deepEqual(idsOf(await portsOf('node1')), idsOf(ports));
  await cluster.kubectl('delete', 'pod', 'again1', 'again2');
});

test('what a crash left goes, and pods keep their ports while controller and agent come and go', { skip }, async () => {
  const kept = idsOf(await allPorts());
  await bed.cloud.controller.stopService('cluster-controller', 'SIGKILL');
  const stray = { network_id: bed.site.network, name: 'left', description: `causeway.${installation}.node2` };
  await bed.member.send('neutron', 'POST', '/v2.0/ports', { port: stray });
  const host = bed.host(1);
  await host.stopService('agent', 'SIGKILL');
  await cluster.startAgent(host);
  await startController();
  await until('the port that was left to be gone', async () => idsOf(await allPorts()).join() === kept.join(), patience);
  assert.equal(await page(instance, await ipOf('one')), 'one');
});

test('while pods are in a network it stays when its definition goes, and goes with the last of them', { skip }, async () => {
  await cluster.kubectl('delete', 'net-attach-def', 'ports');
  await cluster.kubectl('delete', 'pod', 'two');
  await until('the ports of the node without pods to be gone', async () => (await portsOf('node2')).length === 0, patience);
  assert.equal(await page(instance, await ipOf('one')), 'one');
  await cluster.kubectl('delete', 'pod', 'one');
  await until('all ports to be gone', async () => (await allPorts()).length === 0, patience);
  await until('all pools to be gone', async () => (await cluster.kubectl('get', 'portpools', '--output=name')) === '', patience);
  const hasRules = /lookup 197/;
  await until(
    'the node to have nothing of them',
    async () => !hasRules.test(await bed.host(1).ask(['ip', 'rule'], { netOnly: true })),
    patience,
  );
});

test('of two ports with the address of a node it is that of the instance that the node is said to be', { skip }, async () => {
  const { id } = await bed.member.send<{ id: string }>('neutron', 'POST', '/v2.0/networks', { network: { name: 'like' } });
  await bed.member.send('neutron', 'POST', '/v2.0/subnets', { subnet: { network_id: id, ip_version: 4, cidr: subnet } });
  await bed.member.send('neutron', 'POST', '/v2.0/ports', { port: { network_id: id, fixed_ips: [{ ip_address: '10.20.0.11' }] } });
  const problems = async (): Promise<string> => {
    const plan = ['cloud', 'plan', '--name', installation, '--kubernetes', cluster.kubeconfig] as const;
    return (await bed.json<{ problems: readonly string[] }>(...plan)).problems.join();
  };
  assert.match(await problems(), /Host node1 is left out: ports .* have its address/);
  const [port] = await bed.portsBy<{ id: string; device_id: string }>('name=node1');
  await cluster.kubectl('patch', 'node', 'node1', '--patch', JSON.stringify({ spec: { providerID: `openstack:///${port?.device_id}` } }));
  assert.equal(await problems(), '');
});
