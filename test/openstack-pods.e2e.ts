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
import { NeutronCalls } from '#lab/neutron-calls.ts';
import { demo, limited, unrouted } from '#lab/openstack.ts';
import { type CloudBed, makeInstances } from '#lab/openstack-bed.ts';
import type { Account } from '#lab/openstack-operator.ts';
import { apiPorts } from '#lab/openstack-services.ts';
import { missingOf, openstackNeeds } from '#lab/packages.ts';
import { until } from '#lab/until.ts';
import { Capture, tcpdump } from './capture.ts';
import { pinging } from './carriage-streams.ts';
import { askedForPage, askPage, podOf, type PodObject, serviceOf } from './kubernetes-bed.ts';

const skip = missingOf(openstackNeeds);
/** Looking takes processor time that what is waited for needs, too: a program's start, or an answer of Neutron's. */
const patience = { timeoutMs: 240_000, intervalMs: 1000 };
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
interface Whereabouts {
  readonly node: string;
  readonly container: string;
  readonly ip: string;
}
const whereabouts = new Map<string, Whereabouts>();
/** A pod that has all of them keeps them; no two have one name here. */
async function whereaboutsOf(pod: string): Promise<Whereabouts> {
  const known = whereabouts.get(pod);
  if (known !== undefined) return known;
  const paths = '.spec.nodeName} {.status.containerStatuses[0].containerID} {.status.podIP';
  const [node = '', container = '', ip = ''] = (await field('pod', pod, paths)).split(' ');
  const found = { node, container: container.replace(/^.*\/\//, ''), ip };
  if (Object.values(found).every((word) => word !== '')) whereabouts.set(pod, found);
  return found;
}
const ipOf = async (pod: string): Promise<string> => (await whereaboutsOf(pod)).ip;
const processes = new Map<string, string>();
/** The first one of a pod's container, as its node counts. */
async function processOf({ node, container }: Whereabouts): Promise<string> {
  const known = processes.get(container);
  if (known !== undefined) return known;
  const tasks = await bed.cloud.lab.host(node).ask(['ctr', '--namespace=k8s.io', 'tasks', 'list']);
  const [, pid] = new RegExp(`^${container} +(\\d+) +RUNNING`, 'm').exec(tasks) ?? assert.fail(`container ${container} does not run`);
  assert.ok(pid !== undefined);
  processes.set(container, pid);
  return pid;
}
const ready = (...pods: readonly string[]): Promise<string> =>
  cluster.kubectl('wait', '--for=condition=Ready', ...pods.map((pod) => `pod/${pod}`), '--timeout=300s');
/** In the cloud's network; ready when the kubelet has its page. */
const cloudPod = (name: string, node: string): PodObject =>
  podOf(name, { node, labels: { app: 'cloud' }, annotations: defaultNetwork, container: askedForPage });

/** In the cluster's own. */
const plainPod = (name: string, node: string): PodObject => podOf(name, { node, labels: { app: name }, container: askedForPage });

interface PodLink {
  readonly interface: string;
  readonly ips: readonly string[];
  readonly mtu?: number;
}
/** As the pod's annotation tells of it. */
async function linkOf(pod: string, name: string): Promise<PodLink | undefined> {
  const status = await field('pod', pod, '.metadata.annotations.k8s\\.v1\\.cni\\.cncf\\.io/network-status');
  return (JSON.parse(status) as PodLink[]).find((link) => link.interface === name);
}

/** What a host gets from a web server. */
async function page(host: Host, ip: string, port = 8080): Promise<string | undefined> {
  const { status, stdout } = await host.exec(['busybox', ...askPage(ip, port, 2)], { anyStatus: true });
  return status === 0 ? stdout.trim() : undefined;
}
/** What a pod gets, asked in its namespaces: nobody outside of the cloud reaches a kubelet. */
async function pageIn(pod: string, ip: string, port = 8080): Promise<string | undefined> {
  const place = await whereaboutsOf(pod);
  const enter = ['nsenter', `--target=${await processOf(place)}`, '--all', '--'];
  const { status, stdout } = await bed.cloud.lab.host(place.node).exec([...enter, ...askPage(ip, port, 2)], { anyStatus: true });
  return status === 0 ? stdout.trim() : undefined;
}

/** Waits until a pod gets that page: a pod is told to other nodes a moment after it runs. Fault `timeout`. */
const isAnswered = (wanted: string, pod: string, ip: string, port?: number): Promise<true> =>
  until(`${pod} to get the page of ${wanted} at ${ip}`, async () => (await pageIn(pod, ip, port)) === wanted, patience);

/** Waits until a pod of the cluster's has been answered by each of these behind the service's address. */
async function serving(service: string, ...pods: readonly string[]): Promise<void> {
  const seen = new Set<string | undefined>();
  await until('all behind a service', async () => seen.add(await pageIn('near', service, 80)).isSupersetOf(new Set(pods)), patience);
}

async function startControllerAs(account: Account, ...more: readonly string[]): Promise<void> {
  await cluster.startController({
    service: 'cluster-controller',
    arguments: ['--cloud', '--cloud-name', installation, '--cloud-interval', '3600', ...more],
    env: bed.cloud.environment(account),
  });
}
const startController = (...more: readonly string[]): Promise<void> => startControllerAs(demo, ...more);

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
  await isAnswered('two', 'one', two);
  assert.equal(await page(instance, one, 8081), undefined);
  assert.equal((await linkOf('one', 'eth0'))?.mtu, Number(await bed.host(1).ask(['cat', '/sys/class/net/eth0/mtu'])), 'its largest packet');
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
  await isAnswered('near', 'one', await ipOf('near'));
  await isAnswered('far', 'one', await ipOf('far'));
  const seen = new Set<string | undefined>();
  await until(
    'both pods behind the service',
    async () => seen.add(await pageIn('near', cloud, 80)).isSupersetOf(new Set(['one', 'two'])),
    patience,
  );
});

const networkPolicy = (name: string, app: string, spec: object): object => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name },
  spec: { podSelector: { matchLabels: { app } }, ...spec },
});
const podsOf = (app: string): object => ({ podSelector: { matchLabels: { app } } });

/** A pod of the cluster's network that has a port of that one as well. */
const furtherPod = (name: string, network: string): PodObject => {
  const annotations = { 'k8s.v1.cni.cncf.io/networks': network };
  return podOf(name, { node: 'node1', labels: { app: name }, annotations, container: askedForPage });
};
const furtherIpOf = async (pod: string): Promise<string> => (await linkOf(pod, 'net1'))?.ips[0] ?? '';

test("as a further network it is net1 beside the pod's address in the cluster, and reached from the subnet", { skip }, async () => {
  await cluster.apply(furtherPod('both', 'ports'));
  await ready('both');
  const [own, further] = [await ipOf('both'), await furtherIpOf('both')];
  assert.ok(!own.startsWith('10.20.'), own);
  assert.ok((await portsOf('node1')).some(({ fixed_ips: ips }) => ips.some(({ ip_address: ip }) => ip === further)));
  await until('the instance to reach it', async () => (await page(instance, further)) === 'both', patience);
  await isAnswered('two', 'both', await ipOf('two'));
  await isAnswered('both', 'two', further);
  await isAnswered('far', 'both', await ipOf('far'));
});

test('network policies bind pods of the cloud on their nodes, and no further network', { skip }, async () => {
  const [one, further] = [await ipOf('one'), await furtherIpOf('both')];
  await until('a host to get the page of one', async () => (await page(instance, one)) === 'one', patience);
  await cluster.apply(
    networkPolicy('cloud-in', 'cloud', { policyTypes: ['Ingress'], ingress: [{ from: [podsOf('cloud')] }] }),
    networkPolicy('both-in', 'both', { policyTypes: ['Ingress'] }),
  );
  await until('the instance to be kept out', async () => (await page(instance, one)) === undefined, patience);
  await until('a pod of the node to be kept out', async () => (await pageIn('near', one)) === undefined, patience);
  await isAnswered('one', 'two', one);
  await until(
    'a pod to be kept out of the cluster network',
    async () => (await pageIn('near', await ipOf('both'))) === undefined,
    patience,
  );
  await until('a host to get the page of both', async () => (await page(instance, further)) === 'both', patience);
  assert.equal(await field('pod', 'one', '.status.containerStatuses[0].ready'), 'true', "for its node's kubelet");

  await cluster.apply(networkPolicy('cloud-out', 'cloud', { policyTypes: ['Egress'], egress: [{ to: [podsOf('near')] }] }));
  await until('it to be kept from the other one', async () => (await pageIn('one', await ipOf('two'))) === undefined, patience);
  await isAnswered('near', 'one', await ipOf('near'));

  await cluster.kubectl('delete', 'networkpolicy', 'cloud-in', 'cloud-out', 'both-in');
  await until('the instance to be let in again', async () => (await page(instance, one)) === 'one', patience);
  await cluster.kubectl('delete', 'pod', 'both');
});

test(
  "pods on another network than the nodes' own reach each other there, services, and through its router are reached",
  { skip },
  async () => {
    const post = (what: string, fields: object): Promise<{ id: string }> =>
      bed.member.send<{ id: string }>('neutron', 'POST', `/v2.0/${what}s`, { [what]: fields });
    const { id: network } = await post('network', { name: 'apart' });
    const range = '10.30.0.0/24';
    const { id: subnetId } = await post('subnet', { name: 'apart', network_id: network, ip_version: 4, cidr: range });
    await bed.member.send('neutron', 'PUT', `/v2.0/routers/${bed.site.router}/add_router_interface`, { subnet_id: subnetId });
    await cluster.apply(definition('apart', { subnets: [range], ports: 2, neutron: { network: 'apart', groups: ['pods'] } }));
    await cluster.apply(podIn('apart', 'away1', 'node1'), podIn('apart', 'away2', 'node2'), serviceOf('apart', { app: 'apart' }));
    await ready('away1', 'away2');
    const [first, second] = [await ipOf('away1'), await ipOf('away2')];
    assert.ok([first, second].every((ip) => ip.startsWith('10.30.')));
    // Their group lets in the page from the nodes' subnet, and nobody of their own.
    await until(
      'the instance to reach both',
      async () => (await page(instance, first)) === 'away1' && (await page(instance, second)) === 'away2',
      patience,
    );
    assert.equal(await pageIn('away1', second), undefined);
    const [pods] = await bed.member.get<{ id: string }[]>('neutron', '/v2.0/security-groups?name=pods', 'security_groups');
    const rule = { security_group_id: pods?.id, direction: 'ingress', protocol: 'tcp', port_range_min: 8080, port_range_max: 8080 };
    const { id: lettingIn } = await bed.member.send<{ id: string }>('neutron', 'POST', '/v2.0/security-group-rules', {
      security_group_rule: { ...rule, remote_ip_prefix: range },
    });
    await until('one to reach the other', async () => (await pageIn('away1', second)) === 'away2', patience);
    await isAnswered('one', 'away2', await ipOf('one'));
    await isAnswered('near', 'away1', await ipOf('near'));
    await isAnswered('far', 'away1', await ipOf('far'));
    await isAnswered('far', 'away1', await field('service', 'far', '.spec.clusterIP'), 80);
    const service = await field('service', 'apart', '.spec.clusterIP');
    await serving(service, 'away1', 'away2');
    await cluster.apply(furtherPod('aside', 'apart'));
    await ready('aside');
    const further = await furtherIpOf('aside');
    await until('net1 of a pod to be reached from the subnet', async () => (await pageIn('away2', further)) === 'aside', patience);
    await cluster.apply(networkPolicy('apart-in', 'apart', { policyTypes: ['Ingress'], ingress: [{ from: [podsOf('apart')] }] }));
    await until('the instance to be kept out by a policy', async () => (await page(instance, first)) === undefined, patience);
    await isAnswered('away1', 'away2', first);
    await cluster.kubectl('delete', 'networkpolicy', 'apart-in');
    await cluster.kubectl('delete', 'pod', 'away1', 'away2', 'aside');
    await cluster.kubectl('delete', 'service', 'apart');
    await bed.member.send('neutron', 'DELETE', `/v2.0/security-group-rules/${lettingIn}`);
    await cluster.kubectl('delete', 'net-attach-def', 'apart');
    await until(
      'its ports to be gone',
      async () => (await bed.portsBy(`network_id=${network}&description=causeway.${installation}.node1`)).length === 0,
      patience,
    );
  },
);

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

const eventsOf = (pod: string): Promise<string> =>
  cluster.kubectl('get', 'events', `--field-selector=involvedObject.name=${pod}`, '--output=jsonpath={.items[*].message}');
const podIn = (network: string, name: string, node: string): PodObject => {
  const annotations = { 'v1.multus-cni.io/default-network': `default/${network}` };
  return podOf(name, { node, labels: { app: network }, annotations, container: askedForPage });
};
const inSubnet = (ip: string): boolean => ip.startsWith('10.20.');
const planned = async (): Promise<string> => {
  const plan = ['cloud', 'plan', '--name', installation, '--kubernetes', cluster.kubeconfig] as const;
  return (await bed.json<{ problems: readonly string[] }>(...plan)).problems.join('\n');
};

/** Pods of both nodes start, reach each other and the cluster's pods, and are told why they have no port. */
async function startWithoutPorts(): Promise<void> {
  await cluster.apply(podIn('spare', 'poor1', 'node1'), podIn('spare', 'poor2', 'node2'), serviceOf('spare', { app: 'spare' }));
  await ready('poor1', 'poor2');
  const [first, second] = [await ipOf('poor1'), await ipOf('poor2')];
  assert.deepEqual([inSubnet(first), inSubnet(second)], [false, false]);
  const reason = await field('pod', 'poor1', '.metadata.annotations.causeway\\.dev/without-port');
  assert.match(reason, new RegExp(`^${first} of default/spare is carried by an overlay.*quota of ports would not do`));
  await until('one to reach the other', async () => (await pageIn('poor1', second)) === 'poor2', patience);
  await until("a pod of the cluster's to reach one of the other node", async () => (await pageIn('near', second)) === 'poor2', patience);
  await isAnswered('poor1', 'near', first);
  await isAnswered('far', 'poor1', await ipOf('far'));
  await isAnswered('far', 'poor1', await field('service', 'far', '.spec.clusterIP'), 80);
  const service = await field('service', 'spare', '.spec.clusterIP');
  await serving(service, 'poor1', 'poor2');
  assert.equal(await page(instance, first), undefined);
  const told = /1 pod of default\/spare on node1 without ports of the cloud, in its overlay 10\..*quota of ports would not do/;
  await until('the plan to tell of them', async () => told.test(await planned()), patience);
}

/** Pods that start from then on have ports; both sorts reach each other. */
async function portsAgain(): Promise<void> {
  await until('ports for those that wait, too', async () => (await problemOf('spare')) + (await problemOf('strict')) === '', patience);
  await cluster.apply(podIn('spare', 'rich', 'node1'));
  await ready('rich', 'waits');
  const rich = await ipOf('rich');
  assert.ok(inSubnet(rich) && inSubnet(await ipOf('waits')));
  assert.equal(await field('pod', 'rich', '.metadata.annotations.causeway\\.dev/without-port'), '');
  await until('the instance to reach it', async () => (await page(instance, rich)) === 'rich', patience);
  for (const [from, to] of [
    ['rich', 'poor1'],
    ['rich', 'poor2'],
    ['poor1', 'rich'],
    ['poor2', 'rich'],
  ] as const)
    await isAnswered(to, from, await ipOf(to));
}

const within = (range: string, neutron: object): object => ({
  subnets: [subnet],
  ranges: [range],
  neutron: { network: 'hosts', groups: ['pods'], ...neutron },
});
const networksWithPools = (): Promise<string> => cluster.kubectl('get', 'portpools', '--output=jsonpath={.items[*].spec.network.key}');

async function portsUsed(project: string): Promise<number> {
  const { operator } = bed.cloud;
  return (await operator.get<{ port: { used: number } }>('neutron', `/v2.0/quotas/${project}/details`, 'quota')).port.used;
}

test('where the definition lets them, pods start without ports while the cloud gives none', { skip }, async () => {
  const [host] = await bed.portsBy<Port & { project_id: string }>('name=node1');
  const project = host?.project_id ?? '';
  const quota = (port: number): Promise<object> => bed.cloud.operator.setQuota(project, { port });
  await calls.calm(patience.timeoutMs);
  await quota(await portsUsed(project));
  try {
    await cluster.apply(
      definition('spare', within('10.20.0.64/27', { fallback: 'overlay' })),
      definition('strict', within('10.20.0.96/27', {})),
      podIn('strict', 'waits', 'node1'),
    );
    await startWithoutPorts();
    await until('one that must have a port to be told', async () => /quota of ports would not do/.test(await eventsOf('waits')), patience);
    assert.equal(await ipOf('waits'), '');
    await quota(100);
    await portsAgain();
  } finally {
    await quota(100);
    await cluster.kubectl('delete', 'pod', '--ignore-not-found', 'poor1', 'poor2', 'rich', 'waits');
    await cluster.kubectl('delete', '--ignore-not-found', 'net-attach-def', 'spare', 'strict');
  }
  const ofUpperHalf = ({ fixed_ips: ips }: Port): boolean => ips.every(({ ip_address: ip }) => Number(ip.split('.')[3]) > 127);
  await until('their ports to be gone', async () => (await allPorts()).every(ofUpperHalf), patience);
  await until('their pools to be gone', async () => (await networksWithPools()) === 'default/ports default/ports', patience);
  const links = (): Promise<string> => bed.host(1).ask(['ip', '-brief', 'link', 'show', 'type', 'vxlan'], { netOnly: true });
  await until('the node to have but its tunnel', async () => (await links()).split('\n').length === 1, patience);
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
  await until('a host to get the page of one', async () => (await page(instance, await ipOf('one'))) === 'one', patience);
});

test('while pods are in a network it stays when its definition goes, and goes with the last of them', { skip }, async () => {
  await cluster.kubectl('delete', 'net-attach-def', 'ports');
  await cluster.kubectl('delete', 'pod', 'two');
  await until('the ports of the node without pods to be gone', async () => (await portsOf('node2')).length === 0, patience);
  await until('a host to get the page of one', async () => (await page(instance, await ipOf('one'))) === 'one', patience);
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

const pairsOf = async (node: string): Promise<string[]> => {
  const ports = await bed.portsBy<Port & { allowed_address_pairs: { ip_address: string }[] }>(`name=${node}`);
  return ports.flatMap((port) => port.allowed_address_pairs.map((pair) => pair.ip_address)).toSorted();
};
/** Of pods that are address pairs. */
const pairedPorts = (node: string): Promise<Port[]> =>
  bed.portsBy<Port>(`device_owner=causeway:container&device_id=causeway.${installation}.${node}`);
const addressesOf = (ports: readonly Port[]): string[] => ports.flatMap((port) => port.fixed_ips.map((ip) => ip.ip_address)).toSorted();

async function removeTrunks(): Promise<void> {
  for (const { id } of await bed.member.list<{ id: string }>('neutron', '/v2.0/trunks', 'trunks'))
    await bed.member.send('neutron', 'DELETE', `/v2.0/trunks/${id}`);
}

test("without trunks ports are address pairs of the nodes', whose groups say what reaches pods", { skip }, async () => {
  await removeTrunks();
  await cluster.apply(definition('paired', { subnets: [subnet], neutron: { network: 'hosts', groups: ['pods'] } }));
  await until('groups to be refused', async () => /is no parent of a trunk/.test(await problemOf('paired')), patience);
  await cluster.kubectl('delete', 'net-attach-def', 'paired');
  await until('its pools to be gone', async () => (await cluster.kubectl('get', 'portpools', '--output=name')) === '', patience);

  await cluster.apply(definition('paired', { subnets: [subnet], neutron: { network: 'hosts' } }));
  const blocks = (): Promise<string> => cluster.kubectl('get', 'portpools', '--output=jsonpath={.items[*].status.blocks[*].cidr}');
  await until('both nodes to have ports', async () => (await blocks()).split(' ').length === 2, patience);
  for (const node of ['node1', 'node2']) {
    const addresses = addressesOf(await pairedPorts(node));
    assert.equal(addresses.length, 8);
    assert.deepEqual(await pairsOf(node), addresses);
  }
  const earlier = await calls.calm(patience.timeoutMs);
  await cluster.apply(podIn('paired', 'pair1', 'node1'), podIn('paired', 'pair2', 'node2'));
  await ready('pair1', 'pair2');
  assert.equal(await calls.made(), earlier, 'calls to Neutron of two pods');
  const [first, second] = [await ipOf('pair1'), await ipOf('pair2')];
  assert.ok(addressesOf(await pairedPorts('node1')).includes(first));
  await until('one pod to reach the other', async () => (await pageIn('pair1', second)) === 'pair2', patience);

  assert.equal(await page(instance, first), undefined);
  const rule = { security_group_id: bed.site.group, direction: 'ingress', protocol: 'tcp', port_range_min: 8080, port_range_max: 8080 };
  const { id } = await bed.member.send<{ id: string }>('neutron', 'POST', '/v2.0/security-group-rules', {
    security_group_rule: { ...rule, remote_ip_prefix: subnet },
  });
  await until('the instance to reach a pod', async () => (await page(instance, first)) === 'pair1', patience);
  const neighbours = await instance.ask(['ip', 'neigh', 'show', first], { netOnly: true });
  assert.match(neighbours, new RegExp(`lladdr ${bed.instances[0]?.port.mac_address}`));
  await cluster.apply(furtherPod('aside', 'paired'));
  await ready('aside');
  await until('the instance to reach net1 of a pod', async () => (await page(instance, await furtherIpOf('aside'))) === 'aside', patience);
  await cluster.kubectl('delete', 'pod', 'aside');
  await bed.member.send('neutron', 'DELETE', `/v2.0/security-group-rules/${id}`);
  await until('the group to close', async () => (await page(instance, first)) === undefined, patience);
});

test('services lead to them and from them, and policies bind them', { skip }, async () => {
  await cluster.apply(serviceOf('paired', { app: 'paired' }));
  const [paired, far] = [await field('service', 'paired', '.spec.clusterIP'), await field('service', 'far', '.spec.clusterIP')];
  await isAnswered('far', 'pair1', far, 80);
  await isAnswered('near', 'pair1', await ipOf('near'));
  const seen = new Set<string | undefined>();
  await until(
    'both pods behind the service',
    async () => seen.add(await pageIn('near', paired, 80)).isSupersetOf(new Set(['pair1', 'pair2'])),
    patience,
  );
  await cluster.apply(networkPolicy('paired-in', 'paired', { policyTypes: ['Ingress'], ingress: [{ from: [podsOf('paired')] }] }));
  const first = await ipOf('pair1');
  await until('a pod of the node to be kept out', async () => (await pageIn('near', first)) === undefined, patience);
  await isAnswered('pair1', 'pair2', first);
  await cluster.kubectl('delete', 'networkpolicy', 'paired-in');
  await until('it to be let in again', async () => (await pageIn('near', first)) === 'pair1', patience);
});

test('a node has eight of them, the ninth pod waits and is told why, and nothing of them stays', { skip }, async () => {
  const names = Array.from({ length: 7 }, (_, index) => `eight${index}`);
  await cluster.apply(...names.map((name) => podIn('paired', name, 'node1')));
  await ready(...names);
  await cluster.apply(podIn('paired', 'ninth', 'node1'));
  await until('it to be told', async () => /No free address in this host's blocks/.test(await eventsOf('ninth')), patience);
  await cluster.kubectl('delete', 'pod', 'eight0');
  await ready('ninth');
  await cluster.kubectl('delete', 'pod', 'ninth', 'pair1', 'pair2', ...names.slice(1));
  await cluster.kubectl('delete', 'net-attach-def', 'paired');
  await until('all pools to be gone', async () => (await cluster.kubectl('get', 'portpools', '--output=name')) === '', patience);
  for (const [index, node] of ['node1', 'node2'].entries()) {
    await until('ports and pairs to be gone', async () => [...(await pairedPorts(node)), ...(await pairsOf(node))].length === 0, patience);
    const proxied = (): Promise<string> => bed.host(index + 1).ask(['ip', 'neigh', 'show', 'proxy'], { netOnly: true });
    await until('the node to answer for nobody', async () => (await proxied()) === '', patience);
  }
});

interface Router {
  readonly routes: readonly { readonly destination: string; readonly nexthop: string }[];
  readonly tags: readonly string[];
}

const nodeNames = ['node1', 'node2'];
const routerPath = (): string => `/v2.0/routers/${bed.site.router}`;
const router = (): Promise<Router> => bed.member.get<Router>('neutron', routerPath(), 'router');
const annotation = (node: string, key: string): Promise<string> => field('node', node, `.metadata.annotations.causeway\\.dev/${key}`);
/** Of the condition. */
const availability = (node: string): Promise<string> => {
  const one = '@.type=="NetworkUnavailable"';
  return field(
    'node',
    node,
    `.status.conditions[?(${one})].status}{" "}{.status.conditions[?(${one})].reason}{": "}{.status.conditions[?(${one})].message`,
  );
};
const both = async (check: (node: string) => Promise<boolean>): Promise<boolean> =>
  (await Promise.all(nodeNames.map(check))).every(Boolean);
/** Of the condition in which a node tells of its ways to others. */
const paths = (node: string): Promise<string> => {
  const one = '@.type=="causeway.dev/Paths"';
  const [status, reason, message] = ['status', 'reason', 'message'].map((key) => `.status.conditions[?(${one})].${key}`);
  return field('node', node, `${status}}{" "}{${reason}}{": "}{${message}`);
};
const says = (words: RegExp) => (): Promise<boolean> => both(async (node) => words.test(await availability(node)));
const takesOnly = (carry: string) => (): Promise<boolean> => both(async (node) => (await annotation(node, 'receives')) === carry);
const carryBy = async (...more: readonly string[]): Promise<void> => {
  for (const { host } of bed.instances) {
    await host.stopService('agent');
    await cluster.startAgent(host, ...more);
  }
};
/** Pairs of the nodes' ports that are of pods. */
async function pairs(): Promise<string[][]> {
  const ports = await Promise.all(
    nodeNames.map((node) => bed.portsBy<{ id: string; allowed_address_pairs: { ip_address: string }[] }>(`name=${node}`)),
  );
  return ports.map((found) => found.flatMap((port) => port.allowed_address_pairs.map(({ ip_address: ip }) => ip)));
}
/** Each of the two asks for the other's page, whose connection is a new one. */
const reachEachOther = async (): Promise<boolean> =>
  (await pageIn('near', await ipOf('far'))) === 'far' && (await pageIn('far', await ipOf('near'))) === 'near';

const ledTo = says(/^False RouteCreated: /);
const inOrder = ({ routes }: Router): Router['routes'] => routes.toSorted((a, b) => (a.destination < b.destination ? -1 : 1));

test(
  'a cluster goes over to the router of the cloud, which carries its pods as they are, once it knows all nodes by one update',
  { skip },
  async (t) => {
    const ranges = await Promise.all(nodeNames.map((node) => field('node', node, '.spec.podCIDR')));
    await carryBy('--carry', 'routes');
    await until('nodes to say that no router is named', says(/^False RouteAwaited: .* carried by a router, and none is named/), patience);
    assert.deepEqual([await annotation('node1', 'sends'), await annotation('node1', 'receives')], ['vxlan', 'vxlan']);
    await until('the tunnel to serve meanwhile', reachEachOther, patience);
    assert.deepEqual((await router()).routes, []);

    const { controller } = bed.cloud;
    const stop = pinging(bed.host(1), [await ipOf('near'), await ipOf('far')]);
    await bed.cloud.operator.seedRestricted(unrouted);
    await controller.stopService('cluster-controller');
    await startControllerAs(unrouted, '--cloud-routes', 'main');
    const refused = /^False CarriedByVxlan: .* vxlan instead of routes, as the login to the cloud may not write routes of router main$/;
    await until('nodes to say that the login may not tell the router', says(refused), patience);
    assert.deepEqual([await annotation('node1', 'sends'), (await router()).routes], ['vxlan', []]);
    await controller.stopService('cluster-controller');
    await using requests = await Capture.start(controller.spawn(tcpdump('-A', '-i', 'lo', 'tcp', 'dst', 'port', String(apiPorts.neutron))));
    await startController('--cloud-routes', 'main');
    await until('nodes to be led to by the router', ledTo, patience);
    await until('nodes to be sent to by nothing else', takesOnly('routes'), patience);
    await until('pods to reach each other by the router', reachEachOther, patience);
    // Those of the moment that the cloud takes to do what its API has said already.
    t.diagnostic(`lost packets, one a millisecond: ${await stop()}`);
    assert.deepEqual(
      inOrder(await router()),
      ranges.map((destination, index) => ({ destination, nexthop: `10.20.0.${11 + index}` })),
    );
    // What was tried without harm had none.
    assert.equal([...requests.text.matchAll(/"routes": ?\[\{/g)].length, 1, 'updates of the router');
    assert.deepEqual(
      await pairs(),
      ranges.map((range) => [range]),
    );

    const node = bed.host(1);
    const ways = await node.ask(['ip', 'route'], { netOnly: true });
    assert.doesNotMatch(ways, new RegExp(`${ranges[1]}|cwx1`));
    const [, mac] = /lladdr (\S+)/.exec(await node.ask(['ip', 'neigh', 'show', '10.20.0.1'], { netOnly: true })) ?? [];
    const [near, far] = [await ipOf('near'), await ipOf('far')];
    await using wire = await Capture.start(node.spawn(tcpdump('-e', '-i', 'eth0', 'host', '10.20.0.12', 'or', 'net', '10.244.0.0/16')));
    await until('pods to reach each other', reachEachOther, patience);
    const plain = new RegExp(`> ${mac}, ethertype IPv4 .*: ${near}\\.\\d+ > ${far}\\.8080: `);
    await until('a packet between the pods, to the router', () => plain.test(wire.text), patience);
    assert.doesNotMatch(wire.text, /VXLAN|\.8472/);
  },
);

test('where the router loses its routes nodes say why, and none of their pods is reached', { skip }, async () => {
  const plan = ['cloud', 'plan', '--name', installation, '--kubernetes', cluster.kubeconfig] as const;
  const isAllowed = async (...more: readonly string[]): Promise<readonly boolean[]> =>
    (await bed.json<{ needs: { isAllowed: boolean }[] }>(...plan, ...more)).needs.map((need) => need.isAllowed);
  await bed.cloud.controller.stopService('cluster-controller');
  assert.deepEqual(await isAllowed('--routes', 'main'), [true]);
  await startController();
  await until('nodes to say that they are not led to', says(/^True NoRouteCreated: .* carried by a router, and none is named/), patience);
  assert.deepEqual((await router()).routes, []);
  await until('no pod to be reached', async () => (await pageIn('near', await ipOf('far'))) === undefined, patience);
  await bed.cloud.controller.stopService('cluster-controller');
  assert.deepEqual([await isAllowed('--routes', 'main'), await isAllowed()], [[false], [false]]);

  const apply = ['cloud', 'apply', '--name', installation, '--kubernetes', cluster.kubeconfig, '--routes', 'main', '--yes'] as const;
  const problems = async (...argv: readonly string[]): Promise<string> =>
    (await bed.json<{ problems: readonly string[] }>(...argv)).problems.join();
  const theirs = Array.from({ length: 29 }, (_, index) => ({ destination: `172.31.${index}.0/24`, nexthop: '10.20.0.50' }));
  const setRoutes = (routes: Router['routes']): Promise<Router> =>
    bed.member.send<Router>('neutron', 'PUT', routerPath(), { router: { routes } });
  await setRoutes(theirs);
  assert.match(await problems(...plan, '--routes', 'main'), /Router main would have 31 extra routes, and takes 30 unless/);
  const full = /Router main is not told the ways to hosts: .*The number of routes exceeds the maximum 30/;
  assert.match(await problems(...apply), full);
  await until('nodes to say that the router is full', says(new RegExp(`^True NoRouteCreated: .*${full.source}`)), patience);
  assert.equal((await router()).routes.length, theirs.length, "others' stay");
  const lost = /^False PacketsLost: Packets of pods as they are do not reach node node\d\. The ports' allowed address pairs/;
  await until('nodes to say that packets are lost, and who drops them', () => both(async (node) => lost.test(await paths(node))), patience);
  await setRoutes([]);
  assert.equal(await problems(...apply), '');
  await until('nodes to be led to again', ledTo, patience);
  await until('pods to reach each other again', reachEachOther, patience);
});

/** The cloud, of ways to pods. */
const isClear = async (): Promise<boolean> => {
  const { routes, tags } = await router();
  return routes.length === 0 && tags.length === 0 && (await pairs()).flat().length === 0;
};

test('going back to a tunnel leaves nothing of it, on nodes or in the cloud', { skip }, async (t) => {
  await startController('--cloud-routes', 'main');
  const stop = pinging(bed.host(1), [await ipOf('near'), await ipOf('far')]);
  await carryBy();
  await until('nodes to be sent to by nothing else', takesOnly('vxlan'), patience);
  await until('pods to reach each other by the tunnel', reachEachOther, patience);
  const lost = await stop();
  t.diagnostic(`lost packets, one a millisecond: ${lost}`);
  await until('nothing to be left in the cloud', isClear, patience);
  await until('nodes to be told of nothing', () => both(async (node) => (await annotation(node, 'routed')) === ''), patience);
  assert.ok(await says(/^False CausewayIsUp: /)());
  assert.equal(lost, 0);
});

/** Takes nothing larger to the node `to`, and says so to nobody. */
async function narrow(host: Host, to: string, mtu: number): Promise<void> {
  // With the Ethernet header.
  const rule = `ip daddr ${to} meta length > ${mtu + 14} drop`;
  const table = ['table netdev narrow {', 'chain out {', 'type filter hook egress device eth0 priority 0;', rule, '}', '}', ''];
  await host.exec(['nft', '--file', '-'], { netOnly: true, input: table.join('\n') });
}

test(
  'who may not write address pairs has a cluster of plain routes by VXLAN, and with the right it goes over to them',
  { skip },
  async () => {
    const { controller } = bed.cloud;
    await controller.stopService('cluster-controller');
    await startControllerAs(limited);
    await until(
      'packets to pass by the tunnel',
      () => both(async (node) => (await paths(node)).startsWith('True PacketsPass: ')),
      patience,
    );
    await narrow(bed.host(1), '10.20.0.12', 1350);
    await carryBy('--carry', 'host-gateway');
    const because = 'the login to the cloud may not write allowed address pairs';
    const told = new RegExp(`^False CarriedByVxlan: .* vxlan instead of host-gateway, as ${because}$`);
    await until('nodes to say why they are carried otherwise', says(told), patience);
    await until('pods to reach each other by the tunnel', reachEachOther, patience);
    assert.deepEqual(await Promise.all(['carry', 'instead-of', 'not-allowed'].map((key) => annotation('node1', key))), [
      'vxlan',
      'host-gateway',
      `host-gateway: ${because}`,
    ]);
    assert.deepEqual((await pairs()).flat(), []);

    await controller.stopService('cluster-controller');
    await startController();
    await until('nodes to be sent to by nothing but plain routes', takesOnly('host-gateway'), patience);
    await until('pods to reach each other by them', reachEachOther, patience);
    const ways = await bed.host(1).ask(['ip', 'route'], { netOnly: true });
    assert.match(ways, /^10\.244\.\S+ via 10\.20\.0\.12 dev eth0/m);
    assert.deepEqual(await pairs(), [['10.244.0.0/16'], ['10.244.0.0/16']]);
    await until('nodes to be told of nothing', () => both(async (node) => (await annotation(node, 'not-allowed')) === ''), patience);
    await until('nodes to say that all is well', says(/^False CausewayIsUp: /), patience);

    // Found out meanwhile.
    const large = /^False LargePacketsLost: Packets of more than 1350 bytes do not reach node node2, though this node's link takes 1442: /;
    await until('the node to say what the largest packet is', async () => large.test(await paths('node1')), patience);
    assert.match(await paths('node2'), /^True PacketsPass: /);
    const [far, near] = [await ipOf('far'), await processOf(await whereaboutsOf('near'))];
    const inPod = (...argv: readonly string[]): Promise<string> =>
      bed
        .host(1)
        .exec(['nsenter', `--target=${near}`, '--net', '--', ...argv], { anyStatus: true })
        .then(({ stdout }) => stdout);
    await inPod('ping', '-c1', '-W1', '-Mdo', '-s1400', far);
    assert.match(await inPod('ip', 'route', 'get', far), / mtu 1350/, 'a pod that runs is told');
    assert.match(await inPod('ping', '-c1', '-W2', '-Mdo', '-s1322', far), / 1 received/);
    await bed.host(1).exec(['nft', 'delete', 'table', 'netdev', 'narrow'], { netOnly: true });
  },
);

test('of two ports with the address of a node it is that of the instance that the node is said to be', { skip }, async () => {
  const { id } = await bed.member.send<{ id: string }>('neutron', 'POST', '/v2.0/networks', { network: { name: 'like' } });
  await bed.member.send('neutron', 'POST', '/v2.0/subnets', { subnet: { network_id: id, ip_version: 4, cidr: subnet } });
  await bed.member.send('neutron', 'POST', '/v2.0/ports', { port: { network_id: id, fixed_ips: [{ ip_address: '10.20.0.11' }] } });
  assert.match(await planned(), /Host node1 is left out: ports .* have its address/);
  const [port] = await bed.portsBy<{ id: string; device_id: string }>('name=node1');
  await cluster.kubectl('patch', 'node', 'node1', '--patch', JSON.stringify({ spec: { providerID: `openstack:///${port?.device_id}` } }));
  assert.equal(await planned(), '');
});
