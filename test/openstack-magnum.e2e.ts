// A cluster of Magnum's for Calico whose nodes are instances behind Neutron's ports, with Causeway in pods: its controllers log in to the
// cloud by a Secret, by which the cloud allows what the cluster needs and serves its load balancers, OVN's and those of real amphorae; and
// a Docker host that has one.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { findCloud } from '#cloud/clouds.ts';
import { Octavia } from '#cloud/octavia.ts';
import type { LoadBalancer } from '#cloud/octavia-schemas.ts';
import { CloudSession } from '#cloud/session.ts';
import type { Host } from '#lab/host.ts';
import { boxImage } from '#lab/images.ts';
import { buildImageOf, defaultImage } from '#lab/image.ts';
import type { Kubernetes } from '#lab/kubernetes.ts';
import { chartFor, controllerDeployment, importImage } from '#lab/kubernetes-install.ts';
import { Machines } from '#lab/magnum-machines.ts';
import { Amphorae, memory as machineMemory } from '#lab/octavia-machines.ts';
import { createOpenStack, demo, type OpenStack, publicNetwork } from '#lab/openstack.ts';
import { bootDockerHost, CloudBed, makeSite, pageOf } from '#lab/openstack-bed.ts';
import { glance } from '#lab/openstack-glance.ts';
import { magnum, magnumNeeds, makeImage } from '#lab/openstack-magnum.ts';
import { amphoraNeeds, detailsOf, keepCertificate, type KeptCertificate } from '#lab/openstack-amphora.ts';
import { octaviaNeeds, octaviaWithAmphorae } from '#lab/openstack-octavia.ts';
import { missingOf, openstackNeeds } from '#lab/packages.ts';
import { silentProgress } from '#lab/progress.ts';
import { until } from '#lab/until.ts';
import { inside } from './carriage-streams.ts';
import { answerUdp, askUdp } from './datagrams.ts';
import { askedForPage, podOf } from './kubernetes-bed.ts';
import { magnumUser, made, type Template } from './magnum-user.ts';
import { wayInto } from './openstack-way.ts';

const skip = missingOf([...openstackNeeds, ...magnumNeeds, ...octaviaNeeds, ...amphoraNeeds]);
const folder = mkdtempSync(join(tmpdir(), 'causeway-magnum-'));
const imageFile = join(folder, 'image.tar');
let cloud: OpenStack;
let machines: Machines | undefined;
let amphorae: Amphorae | undefined;

before(async () => {
  if (skip !== false) return;
  const services = [glance, magnum, octaviaWithAmphorae];
  cloud = await createOpenStack({ name: 'os-magnum', hypervisors: 1, machines: 1, services }, silentProgress);
  await makeImage(cloud.operator);
  await buildImageOf(imageFile, defaultImage, silentProgress);
  amphorae = new Amphorae(cloud, cloud.lab.hosts.slice(1), cloud.lab.host('host1'));
});
after(async () => {
  await machines?.[Symbol.asyncDispose]();
  await amphorae?.[Symbol.asyncDispose]();
  await cloud?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const { tryMagnum, ask, refused } = magnumUser(() => cloud);
/** Its nodes are instances of the project; its control plane is outside of the cloud. */
let bed: CloudBed;
let cluster: Kubernetes;
/** Of the chart, as its labels say. */
let chartValues: Template['causeway']['values'];
const installation = 'cluster';
/** Load balancers are made one after the other, which takes the processor that each look of ours takes as well. */
const unhurried = { timeoutMs: 300_000, intervalMs: 2000 };
/** For looks that cost next to nothing: at a page. */
const keen = { ...unhurried, intervalMs: 300 };
/** Waits until a check passes; what it has seen last is told when it never does. */
const passes = (what: string, check: () => Promise<void>): Promise<boolean> =>
  until(
    what,
    async () => {
      await check();
      return true;
    },
    unhurried,
  );
const nodeNames = ['kube1', 'kube2'];
/** An instance beside them. */
const neighbour = 'neighbour';
interface Planned {
  readonly steps: readonly object[];
  readonly problems: readonly string[];
  readonly needs: readonly { readonly network: string; readonly what: string; readonly without: string; readonly isAllowed: boolean }[];
  readonly balancers: readonly { readonly name: string; readonly address?: string }[];
}
/** Of Docker hosts. */
interface Applied extends Planned {
  readonly exposures: readonly { readonly exposure: string; readonly address?: string }[];
  readonly busy: readonly object[];
}
const clusterCloud = (verb: 'plan' | 'apply', ...more: readonly string[]): Promise<Planned> =>
  bed.json<Planned>('cloud', verb, '--name', installation, '--kubernetes', cluster.kubeconfig, ...more);
/** As which the host `outside` speaks to the cloud. */
const outsideRange = '198.51.100.0/24';

/** Octavia, asked from here as the project's member. */
async function withOctavia<T>(work: (client: Octavia) => Promise<T>): Promise<T> {
  const found = await findCloud({ environment: cloud.environment(), configFiles: [], secureFiles: [] });
  await using session = new CloudSession(found, { connect: wayInto(cloud.controller), retries: 1 });
  return await work(new Octavia(session));
}
const namesOf = async (kind: string): Promise<string[]> =>
  (await bed.member.list<{ name: string }>('neutron', `/v2.0/${kind}`, kind.replaceAll('-', '_'))).map(({ name }) => name);
const floatingIps = async (): Promise<string[]> =>
  (await bed.member.list<{ floating_ip_address: string }>('neutron', '/v2.0/floatingips', 'floatingips')).map(
    (one) => one.floating_ip_address,
  );

const node = (index: number): Host => cloud.lab.host(nodeNames[index - 1] ?? '');
const field = (kind: string, name: string, path: string): Promise<string> =>
  cluster.kubectl('get', kind, name, `--output=jsonpath={${path}}`);

const ipOfPod = (name: string): Promise<string> => field('pod', name, '.status.podIP');

interface Cluster {
  readonly id: string;
  readonly status: string;
  readonly health?: string;
  readonly workerAddresses: readonly string[];
}
const podRanges = ['10.83.0.0/16', 'fd00:10:244::/56'];

/** Instances, on one of which is no node. */
async function bootNodes(): Promise<Host[]> {
  bed = new CloudBed(cloud, await makeSite(cloud), []);
  const six = { name: 'hosts6', network_id: bed.site.network, ip_version: 6, cidr: 'fd00:20::/64' };
  const { id: subnet } = await bed.member.send<{ id: string }>('neutron', 'POST', '/v2.0/subnets', { subnet: six });
  await bed.member.send('neutron', 'PUT', `/v2.0/routers/${bed.site.router}/add_router_interface`, { subnet_id: subnet });
  return await Promise.all(
    [...nodeNames, neighbour].map(async (name, index) => {
      const fixed = [`10.20.0.${21 + index}`, `fd00:20::${21 + index}`].map((ip) => ({ ip_address: ip }));
      const port = { network_id: bed.site.network, name, security_groups: [bed.site.group], fixed_ips: fixed };
      const { id } = await bed.member.send<{ id: string }>('neutron', 'POST', '/v2.0/ports', { port });
      return (await cloud.boot(name, id, 1)).host;
    }),
  );
}

/** As the template's labels say it. */
const kept = { secret: 'causeway-cloud', cloud: 'mycloud', name: installation, allBalancers: true };

test(
  "a template with Calico's driver makes a cluster of the model calico, whose nodes wait for what the cloud drops",
  { skip },
  async () => {
    const instances = await bootNodes();
    machines = new Machines(cloud.lab, [cloud.controller, ...instances.slice(0, 2)], {
      prepare: (host) => importImage(host, imageFile),
      isApart: true,
    });
    const calico = ['--network-driver', 'calico', '--image', 'machines', '--external-network', publicNetwork];
    const login = ['causeway_cloud_secret=causeway-cloud', 'causeway_cloud=mycloud', `causeway_cloud_name=${installation}`];
    const labels = [`causeway_pod_cidr=${podRanges.join('+')}`, 'calico_tag=v3.26.4', ...login, 'causeway_cloud_all_balancers=true'];
    const { causeway } = await ask<Template>(...made, 'calico', ...calico, ...labels.flatMap((label) => ['--label', label]));
    chartValues = causeway.values;
    assert.deepEqual(chartValues, { model: 'calico', podCidrs: podRanges, carry: 'bgp', cloud: kept });
    const created = await tryMagnum('cluster', 'create', 'hills', '--template', 'calico', '--nodes', '2', '--wait');
    assert.equal(created.status, 0, created.stderr);
    const { id, workerAddresses } = await ask<Cluster>('cluster', 'show', 'hills');
    assert.deepEqual(workerAddresses, ['10.20.0.21', '10.20.0.22']);
    cluster = machines.cluster(id);
    assert.equal(await refused(/no Secret causeway-cloud in the namespace kube-system/, 'network', 'install', 'hills'), 3);
    await cluster.apply(secretOf('mistyped'));
    const installed = await tryMagnum('network', 'install', 'hills');
    assert.equal(installed.status, 0, installed.stderr);
    const words = /^note: calico_tag=v3\.26\.4: no image of calico's.*\nnetwork: calico by bgp\n(.*\n)*network: every node is ready\n/m;
    assert.match(installed.stderr, words);
    await ask<Template>(...made, 'wider', ...calico, '--label', 'calico_ipv4pool=10.80.0.0/12');
    const others = /Template wider is of model calico with pods in 10\.80\.0\.0\/12, and the cluster of model calico with pods in 10\.83/;
    assert.equal(await refused(others, 'network', 'upgrade', 'hills', '--template', 'wider'), 7);
    assert.equal((await ask<Cluster>('cluster', 'show', 'hills')).status, 'CREATE_COMPLETE');
  },
);

/** What the node kube1 gets of a pod that asks the pod on the other node again and again: nobody but its node can ask it. */
const seen = async (): Promise<string | undefined> => pageOf(node(1), await ipOfPod('seeker'), 8080);
async function runPods(): Promise<void> {
  const ready = (): Promise<string> => cluster.kubectl('wait', '--for=condition=Ready', 'pod', '--all', '--timeout=120s');
  const pods = nodeNames.map((name, index) => podOf(`web${index + 1}`, { node: name, labels: { app: 'web' }, container: askedForPage }));
  await cluster.apply(...pods);
  await ready();
  const fetched = `wget -T 2 -qO /tmp/page http://${await ipOfPod('web2')}:8080/ && cp /tmp/page /www/index.html || rm -f /www/index.html`;
  const command = `mkdir -p /www; (while :; do ${fetched}; sleep 0.3; done) & exec httpd -f -p 8080 -h /www`;
  await cluster.apply(podOf('seeker', { node: 'kube1', command }));
  await ready();
}
const pairsOf = async (name: string): Promise<string[]> =>
  (await bed.portsBy<{ id: string; allowed_address_pairs: { ip_address: string }[] }>(`name=${name}`))
    .flatMap((port) => port.allowed_address_pairs.map(({ ip_address: ip }) => ip))
    .toSorted();

test('what it needs of its cloud is planned from its API, and its pods talk as long as that is allowed', { skip }, async () => {
  await runPods();
  const first = await until('nodes to have told their network', () => clusterCloud('plan').catch(() => undefined), unhurried);
  const [speaking, ranges] = [
    'TCP 179 between hosts',
    `packets with addresses of ${podRanges.join(', ')} between hosts, by every protocol and to every port of hosts`,
  ];
  const ownOnly = "port security drops packets whose address is not the port's own, and security groups admit none of them";
  assert.deepEqual(
    first.needs.map(({ what, without, isAllowed }) => [what.replace(/ \(.*/, ''), without, isAllowed]),
    [
      [speaking, 'security groups drop it between hosts', false],
      [ranges, ownOnly, false],
    ],
  );
  assert.equal(await seen(), undefined, 'security groups let nothing in');
  // Without it no node knows a way to another's pods.
  const lost = /^TCP port 179 does not reach node kube2\. A security group or another firewall between them drops it/;
  const path = '.status.conditions[?(@.type=="causeway.dev/Paths")].message';
  const isTold = async (): Promise<boolean> => lost.test(await field('node', 'kube1', path));
  await until('the node to say what is lost', isTold, unhurried);
  const applied = await clusterCloud('apply', '--yes');
  assert.deepEqual([applied.problems, applied.needs.every(({ isAllowed }) => isAllowed)], [[], true]);
  await until('a page of a pod on the other node', async () => (await seen()) === 'web2', unhurried);
  const second = await ipOfPod('web2');
  await passes('a node to reach the pods of another', async () => assert.equal(await pageOf(node(1), second, 8080), 'web2'));
  const byBgp = /^10\.83\.\S+ via 10\.20\.0\.22 dev eth0/m;
  assert.match(await node(1).ask(['ip', 'route', 'show', 'proto', 'bird'], { netOnly: true }), byBgp);
  for (const name of nodeNames) assert.deepEqual(await pairsOf(name), podRanges);
  assert.deepEqual((await clusterCloud('apply', '--yes')).steps, [], 'a second one has nothing to do');

  const [port] = await bed.portsBy<{ id: string }>('name=kube2');
  await bed.member.send('neutron', 'PUT', `/v2.0/ports/${port?.id}`, { port: { allowed_address_pairs: [] } });
  await until('no page', async () => (await seen()) === undefined, unhurried);
  const { needs } = await clusterCloud('plan');
  assert.deepEqual(
    needs.map(({ isAllowed }) => isAllowed),
    [true, false],
    'what was withdrawn',
  );
  await clusterCloud('apply', '--yes');
  await until('the page again', async () => (await seen()) === 'web2', unhurried);
  await until('Magnum to have looked', async () => (await ask<Cluster>('cluster', 'show', 'hills')).health === 'HEALTHY', unhurried);
  await cluster.kubectl('delete', 'pod', 'seeker', '--wait=false');
});

/** Of a pod. */
const isWeb = (found: string | undefined): boolean => found === 'web1' || found === 'web2';
const addressOf = (service: string): Promise<string> => field('service', service, '.status.loadBalancer.ingress[0].ip');
const http = { name: 'http', port: 80, targetPort: 8080 };
/** Beside a port of TCP with the same number. */
const byDatagram = { name: 'words', protocol: 'UDP', port: 80, targetPort: 5353 };
/** Of no class, which this server does not know yet: the controller is told that they are Octavia's. */
const serviceOf = (name: string, spec: object, annotations: object = {}) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, annotations },
  spec: {
    type: 'LoadBalancer',
    selector: { app: 'web' },
    ports: [http],
    ...spec,
  },
});

const prefixed = (annotations: Readonly<Record<string, string>>): object =>
  Object.fromEntries(Object.entries(annotations).map(([key, value]) => [`loadbalancer.openstack.org/${key}`, value]));
const internally = { 'service.beta.kubernetes.io/openstack-internal-load-balancer': 'true' };

/** As `kubectl create secret generic causeway-cloud --from-file=clouds.yaml` makes it. */
const secretOf = (password: string): object => {
  const auth = { auth_url: cloud.authUrl, username: demo.user, password, project_name: demo.project };
  const clouds = { mycloud: { auth: { ...auth, user_domain_name: 'Default', project_domain_name: 'Default' }, region_name: 'RegionOne' } };
  const metadata = { name: 'causeway-cloud', namespace: 'kube-system' };
  return { apiVersion: 'v1', kind: 'Secret', metadata, stringData: { 'clouds.yaml': JSON.stringify({ clouds }) } };
};
const ours = (component: string): string[] => ['--namespace=kube-system', `--selector=app.kubernetes.io/component=${component}`];
/** Pods of a component, each with its own id, node and restarts. */
async function podsOf(component: string): Promise<string[]> {
  const path = '{.metadata.name}_{.metadata.uid} {.spec.nodeName} {.status.containerStatuses[0].restartCount}';
  const found = await cluster.kubectl('get', 'pods', ...ours(component), `--output=jsonpath={range .items[*]}${path}{"\\n"}{end}`);
  return found.split('\n').toSorted();
}
/** What controllers have written, read where their runtimes keep it: nobody outside of the cloud reaches a kubelet. */
async function logs(): Promise<string> {
  const parts = (await podsOf('controller')).map(async (pod) => {
    const [id, on = ''] = pod.split(' ');
    return await cloud.lab.host(on).ask(['sh', '-c', `cat /var/log/pods/kube-system_${id}/controller/*.log; true`]);
  });
  return (await Promise.all(parts)).join('\n');
}
const events = (): Promise<string> =>
  cluster.kubectl('get', 'events', '--output=jsonpath={range .items[*]}{.involvedObject.name} {.reason} {.message}{"\\n"}{end}');

test(
  'controllers in pods log in by a Secret; what is wrong with it is told, and a right one is taken without a restart',
  { skip },
  async () => {
    const agents = await podsOf('agent');
    const there = { 'loadbalancer.openstack.org/floating-subnet': publicNetwork };
    const nowhere = { 'loadbalancer.openstack.org/floating-subnet': 'nowhere' };
    await cluster.apply(serviceOf('web', {}, nowhere));
    const why = /^web LoadBalancerNoAddress Keystone refuses POST \/v3\/auth\/tokens: .*\. Check user, password and project/m;
    await until('the service to tell why it has no address', async () => why.test(await events()), unhurried);
    const advice = /"problems":\["Keystone refuses .*","Check user, password and project of the cloud in clouds\.yaml/;
    await passes('the log to tell it', async () => {
      const told = await logs();
      assert.match(told, /"msg":"The cloud cannot be made as it should be, trying again"/);
      assert.match(told, advice);
    });
    assert.doesNotMatch(await logs(), /mistyped/);
    // What there are no labels for.
    const values = { interval: 5, maxSharedLb: 1, classes: { outside: { 'floating-subnet': publicNetwork } } };
    await cluster.applyText(chartFor(cluster, { ...chartValues, cloud: { ...kept, ...values } }));
    await cluster.kubectl('rollout', 'status', '--namespace=kube-system', controllerDeployment, '--timeout=120s');
    // Those of before may still be ending.
    const theTwo = async (): Promise<string[] | undefined> => {
      const found = await podsOf('controller');
      return found.length === 2 ? found : undefined;
    };
    const controllers = await until('no others', theTwo, unhurried);

    await cluster.apply(secretOf(demo.password));
    // A kubelet looks at what has changed of a pod's Secrets when the pod itself changes, else once a minute.
    await cluster.kubectl('annotate', 'pod', ...ours('controller'), '--overwrite', `seen=${Date.now()}`);
    const noSubnet =
      /^web LoadBalancerNoAddress .*no floating IP: the external network public has no subnet nowhere of IPv4; there is public/m;
    await until('the service to tell that there is no such subnet', async () => noSubnet.test(await events()), unhurried);
    await cluster.apply(serviceOf('web', {}, there));
    await until('an address', async () => (await addressOf('web')) || undefined, unhurried);
    assert.deepEqual(await podsOf('controller'), controllers);
    assert.deepEqual(await podsOf('agent'), agents, 'which have nothing to do with a cloud');
  },
);

/** A service of such pods, for clients of these ranges; annotations without their prefix. */
const told = (sources: readonly string[], annotations: Readonly<Record<string, string>> = {}, spec: object = {}): object =>
  serviceOf(
    'told',
    { selector: { app: 'told' }, loadBalancerSourceRanges: sources, ...spec },
    prefixed({ 'proxy-protocol': 'true', ...annotations }),
  );
/** With POST nothing is open yet, and nobody is told of an address. */
const isUnread = async (method: 'POST' | 'PUT'): Promise<boolean> => {
  const reason = method === 'POST' ? 'NoAddress' : 'Incomplete';
  const words = `^told LoadBalancer${reason} .*refuses ${method} \\S+: Could not retrieve certificate: \\['nowhere'\\]`;
  return new RegExp(words, 'm').test(await events());
};
const balancerOf = async (service: string): Promise<LoadBalancer> =>
  (await withOctavia((client) => client.list('loadbalancers', { name: `${installation}-default-${service}` })))[0] ??
  assert.fail(`no load balancer of ${service}`);
/** Of a port of Octavia's. */
const isOfVip = (name: string): boolean => /^octavia-lb-(?!vrrp)/.test(name);
const balancerOfTold = () => withOctavia((client) => client.list('loadbalancers', { name: `${installation}-default-told` }));

const makeAlone = (kind: string, one: string, body: object): Promise<{ readonly id: string }> =>
  cloud.operator.send('octavia', 'POST', `/v2/lbaas/${kind}`, { [one]: { name: 'alone', ...body } });
/** A flavor and an availability zone, as an operator of the cloud makes them. */
async function machinesOfKind(): Promise<Readonly<Record<'flavor-id' | 'availability-zone', string>>> {
  const flavored = { provider_name: 'amphora', flavor_data: '{"loadbalancer_topology":"SINGLE"}' };
  const { id: profile } = await makeAlone('flavorprofiles', 'flavorprofile', flavored);
  const { id: flavor } = await makeAlone('flavors', 'flavor', { flavor_profile_id: profile, enabled: true });
  const zoned = { provider_name: 'amphora', availability_zone_data: '{"compute_zone":"nova"}' };
  const { id: zone } = await makeAlone('availabilityzoneprofiles', 'availability_zone_profile', zoned);
  await makeAlone('availabilityzones', 'availability_zone', { availability_zone_profile_id: zone, enabled: true });
  return { 'flavor-id': flavor, 'availability-zone': 'alone' };
}

/** What a client outside is answered that knows the other end by this certificate; nothing where that has another. */
async function answerByTls(address: string, { name, file }: KeptCertificate): Promise<string> {
  const argv = ['curl', '--silent', '--max-time', '5', '--cacert', file, '--connect-to', `${name}:443:${address}:80`, `https://${name}/`];
  return (await cloud.lab.outside.exec(argv, { anyStatus: true, netOnly: true })).stdout;
}

/** A pod that answers with the first line that it was told, and with what a header says of the client. */
const listening = podOf('told', {
  node: 'kube2',
  labels: { app: 'told' },
  command: `exec nc -ll -p 8080 -e sh -c '${[
    'IFS= read -r told',
    'while IFS= read -r more && [ "${#more}" -gt 1 ]; do case $more in [Xx]-[Ff]orwarded-[Ff]or*) from=${more#*: };; esac; done',
    'printf "HTTP/1.0 200 OK\\r\\n\\r\\n%s %s\\n" "$told" "$from"',
  ].join('; ')}'`,
});

test(
  'a service that OVN cannot serve as it is meant has a load balancer of amphora: a machine that says who the client is and lets in whom it may',
  { skip },
  async () => {
    // Of a certificate that there is not nothing is made but a load balancer that has no port yet, and others are served meanwhile.
    const kind = await machinesOfKind();
    await cluster.apply(
      listening,
      told([outsideRange], { ...kind, 'default-tls-container-ref': 'nowhere' }),
      serviceOf('beside', {}, internally),
    );
    await until('another service to have an address', async () => (await addressOf('beside')) !== '', unhurried);
    await until('the certificate that there is not to be told', () => isUnread('POST'), unhurried);
    await passes('a load balancer without a port', async () =>
      assert.deepEqual([(await namesOf('ports')).filter(isOfVip).length, (await balancerOfTold()).map((one) => one.listeners)], [1, [[]]]),
    );
    const { memory } = await detailsOf(cloud.controller, cloud.lab.hosts.at(-1)?.address ?? '');
    assert.equal(memory.total, machineMemory.MemTotal, 'by which haproxy keeps what it knows of TLS');

    await cluster.apply(told([outsideRange], kind));
    const address = await until('an address', async () => (await addressOf('told')) || undefined, unhurried);
    const answer = async (host: Host): Promise<string> => (await pageOf(host, address, 80)) ?? '';
    const own = /^PROXY TCP4 198\.51\.100\.10 /;
    await until('the client to be known to the pod', async () => own.test(await answer(cloud.lab.outside)), keen);
    assert.equal(await answer(cloud.controller), '', 'which has another address than the source ranges');
    assert.deepEqual(amphorae?.free, []);
    const balancer = await balancerOf('told');
    assert.equal(balancer.provider, 'amphora');
    const path = `/v2/lbaas/loadbalancers/${balancer.id}`;
    const there = await bed.member.get<{ flavor_id: string; availability_zone: string }>('octavia', path, 'loadbalancer');
    assert.deepEqual([there.flavor_id, there.availability_zone], [kind['flavor-id'], kind['availability-zone']]);
    const nodePort = await field('service', 'told', '.spec.ports[0].nodePort');
    const rules = await bed.member.list<{ remote_ip_prefix: string }>(
      'neutron',
      `/v2.0/security-group-rules?direction=ingress&port_range_min=${nodePort}`,
      'security_group_rules',
    );
    assert.deepEqual(
      rules.map(({ remote_ip_prefix: remote }) => remote),
      ['10.20.0.0/24'],
      'nodes let in the subnet of the load balancer and nobody else',
    );

    const changed = { 'lb-method': 'LEAST_CONNECTIONS', 'health-monitor-delay': '7' };
    await cluster.apply(told([outsideRange, `${cloud.controller.address}/32`], changed));
    const also = new RegExp(`^PROXY TCP4 ${cloud.controller.address.replaceAll('.', '\\.')} `);
    await until('another client', async () => also.test(await answer(cloud.controller)), keen);
    const [same] = await balancerOfTold();
    assert.deepEqual([same?.id, await addressOf('told')], [balancer.id, address]);
    const isAsked = async (): Promise<boolean> => {
      const [[pool], monitors] = await withOctavia(async (client) => [
        await client.list('pools', { loadbalancer_id: balancer.id }),
        await client.list('healthmonitors'),
      ]);
      return pool?.algorithm === 'LEAST_CONNECTIONS' && monitors.some(({ delay }) => delay === 7);
    };
    await until('its method and its probes to be those asked for', isAsked, unhurried);
    await passes('who reaches it to be told', async () => {
      const reached = await bed.json<{ ports: string[]; from: string; protocol: string }[]>('exposure', 'ls', '--cloud');
      const clients = reached.filter(({ ports }) => ports.includes(balancer.name)).map(({ from }) => from);
      assert.deepEqual(clients.toSorted(), [`${cloud.controller.address}/32`, outsideRange].toSorted());
      const nodes = reached.filter(({ from }) => from === `members of ${installation}`);
      assert.ok(
        nodes.some(({ ports, protocol }) => protocol === 'every protocol' && nodeNames.every((name) => ports.includes(name))),
        'nodes let in each other, as plain packets need it',
      );
    });

    // HTTP instead, on the nodes only that say by HTTP that they have a pod.
    const byHeader = { 'proxy-protocol': 'false', 'x-forwarded-for': 'true', 'timeout-client-data': '60000', 'connection-limit': '100' };
    await cluster.apply(told([outsideRange], byHeader, { externalTrafficPolicy: 'Local' }));
    const named = /^GET \/ HTTP\/1\.1\s+198\.51\.100\.10\s*$/;
    await until('the client to be named by a header', async () => named.test(await answer(cloud.lab.outside)), keen);
    const parts = (): Promise<unknown[]> =>
      withOctavia(async (client) => {
        const [listener] = await client.list('listeners', { loadbalancer_id: balancer.id });
        const [pool] = await client.list('pools', { loadbalancer_id: balancer.id });
        const monitor = pool?.monitor === undefined ? undefined : await client.get('healthmonitors', pool.monitor);
        const members = pool === undefined ? [] : await client.members(pool.id);
        const { timeout_client_data: idle, connection_limit: limit } = listener?.settings ?? {};
        return [listener?.protocol, idle, limit, monitor?.type, members.map(({ name }) => name).join()];
      });
    // Its monitor is made last, and packets flow without.
    await passes('its parts to be those asked for', async () => assert.deepEqual(await parts(), ['HTTP', 60_000, 100, 'HTTP', 'kube2']));

    // TLS ends there, by a certificate that Octavia has; where it has not the other one it goes on with this.
    const [first, second] = [
      await keepCertificate(cloud.controller, 'first.example.org'),
      await keepCertificate(cloud.controller, 'second.example.org'),
    ];
    const ending = (reference: string): object =>
      told([outsideRange], { ...byHeader, 'default-tls-container-ref': reference }, { externalTrafficPolicy: 'Local' });
    const listenerOfTold = () => withOctavia(async (client) => (await client.list('listeners', { loadbalancer_id: balancer.id }))[0]);
    await cluster.apply(ending(first.reference));
    await until('an answer by TLS', async () => named.test(await answerByTls(address, first)), keen);
    const ended = await listenerOfTold();
    assert.deepEqual([ended?.protocol, ended?.certificate], ['TERMINATED_HTTPS', first.reference]);
    assert.equal(await answerByTls(address, second), '', 'by another certificate');
    await cluster.apply(ending('nowhere'));
    await until('the certificate that there is not to be told', () => isUnread('PUT'), unhurried);
    await passes('it to go on with the first', async () => assert.match(await answerByTls(address, first), named));
    await cluster.apply(ending(second.reference));
    await until('an answer by the other certificate', async () => named.test(await answerByTls(address, second)), keen);
    assert.equal((await listenerOfTold())?.id, ended?.id, 'which is exchanged in place');

    await cluster.kubectl('delete', 'service', 'told', 'beside');
    await until('it to be gone', async () => (await balancerOfTold()).length === 0, unhurried);
    await until('its machine to be free', () => amphorae?.free.length === 1, keen);
    await cluster.kubectl('delete', 'pod', 'told');
  },
);

/** Ports of the members of the first pool. */
const leadsTo = async (service: string): Promise<number[]> => {
  const { pools } = await balancerOf(service);
  return (await withOctavia((client) => client.members(pools[0] ?? ''))).map(({ port }) => port);
};
/** So many pages in a row. Any member that does not serve would be asked for one of them. */
const areAllOf = (pod: string, address: string, times: number): Promise<boolean> =>
  passes(`nothing but pages of ${pod}`, async () => {
    for (let time = 0; time < times; time++) assert.equal(await pageOf(cloud.lab.outside, address, 80), pod);
  });
/** OVN probes the node, and packets go on to it. */
async function staysServed(service: string, { address, node: member }: { readonly address: string; readonly node: string }): Promise<void> {
  const { id } = await balancerOf(service);
  const columns = ['--bare', '--columns=ip_port_mappings', 'find', 'Load_Balancer', `name=${id}`];
  const isProbed = async (): Promise<boolean> =>
    (await cloud.controller.ask(['ovn-nbctl', '--db=unix:/run/ovn/nb.sock', ...columns])).includes(`${member}=`);
  await until('OVN to probe the node', isProbed, unhurried);
  await areAllOf('web1', address, 6);
  await until('Octavia to know that all is well', async () => (await balancerOf(service)).operating === 'ONLINE', unhurried);
}

/** A load balancer that somebody in the project has made, with a port of theirs. */
const theirBalancer = (): Promise<LoadBalancer> =>
  withOctavia(async (client) => {
    const common = { name: 'own', protocol: 'TCP' } as const;
    const pool = { ...common, lb_algorithm: 'SOURCE_IP_PORT', members: [] };
    const listeners = [{ ...common, protocol_port: 80, default_pool: pool }];
    const { id } = await client.create({ name: 'theirs', vip_subnet_id: bed.site.subnet, provider: 'ovn', listeners });
    return (await client.settled(id)) ?? assert.fail('it has gone');
  });
const namesOfBalancers = async (): Promise<string> =>
  (await withOctavia((client) => client.list('loadbalancers'))).map(({ name }) => name).join();

/** What answers datagrams in a pod with its name, until it is told to stop. */
async function answerWords(pod: string, host: Host): Promise<() => void> {
  const answering = host.spawn(inside(await ipOfPod(pod), answerUdp(byDatagram.targetPort, pod)));
  return () => answering.kill('SIGKILL');
}
const wordOf = (from: Host, address: string): Promise<string> => askUdp(from, address, byDatagram.port);
/** Who answers so many datagrams, all of them; empty: one was lost. */
async function whoAnswers(from: Host, address: string, times = 12): Promise<string> {
  const said = new Set<string>();
  for (let time = 0; time < times; time++) {
    const word = await wordOf(from, address);
    if (word === '') return '';
    said.add(word);
  }
  return [...said].toSorted().join();
}
/** How each port is probed, and what Octavia says of its members. */
const probesOf = (service: string): Promise<string[]> =>
  withOctavia(async (client) => {
    const { pools } = await balancerOf(service);
    const lines = pools.map(async (id) => {
      const { protocol, monitor } = await client.get('pools', id);
      const { type } = monitor === undefined ? {} : await client.get('healthmonitors', monitor);
      const members = (await client.members(id)).map(({ name, operating }) => `${name} ${operating}`);
      return `${protocol} by ${type}: ${members.toSorted().join(', ')}`;
    });
    return (await Promise.all(lines)).toSorted();
  });

/** Of the service `inner`, with members of its port of UDP. */
const areProbed = async (...members: readonly string[]): Promise<void> =>
  assert.deepEqual(await probesOf('inner'), ['TCP by TCP: kube1 ONLINE, kube2 ONLINE', `UDP by UDP-CONNECT: ${members.join(', ')}`]);

const byNodePort = (from: Host, port: number): Promise<string | undefined> => pageOf(from, '10.20.0.21', port);

test('they keep the cloud so, and services get load balancers of Octavia that follow them', { skip }, async () => {
  const theirs = await theirBalancer();
  const [, stopSecond] = await Promise.all([1, 2].map((index) => answerWords(`web${index}`, node(index))));
  const onTheirs = prefixed({ 'load-balancer-id': theirs.id, 'member-subnet-id': bed.site.subnet });
  const guestPorts = [80, 8082].map((port) => ({ name: `port${port}`, port, targetPort: 8080 }));
  await cluster.apply(
    serviceOf('web', {}),
    serviceOf('guest', { ports: guestPorts }, { ...internally, ...onTheirs }),
    serviceOf('inner', { ports: [http, byDatagram], externalTrafficPolicy: 'Local' }, internally),
    serviceOf(
      'few',
      { ports: [http, byDatagram], loadBalancerSourceRanges: [outsideRange], externalTrafficPolicy: 'Local' },
      { 'loadbalancer.openstack.org/class': 'outside', 'loadbalancer.openstack.org/floating-subnet': 'nowhere' },
    ),
    serviceOf('six', { ipFamilies: ['IPv6'] }),
    serviceOf('odd', {}, { ...onTheirs, ...prefixed({ 'default-tls-container-ref': 'nowhere' }) }),
    serviceOf('ports', { type: 'NodePort' }, { 'causeway.dev/node-port-sources': '10.20.0.23/32' }),
    serviceOf('shut', { type: 'NodePort' }, { 'causeway.dev/node-port-sources': '10.20.0.24/32' }),
  );
  const known = (name: string): Promise<string> =>
    until(`an address of ${name}`, async () => (await addressOf(name)) || undefined, unhurried);
  const [web, inner, few] = [await known('web'), await known('inner'), await known('few')];
  await passes('a floating IP for each from outside', async () =>
    assert.deepEqual((await floatingIps()).toSorted(), [web, few].toSorted()),
  );
  await until('a page from outside', async () => isWeb(await pageOf(cloud.lab.outside, web, 80)), keen);
  assert.match((await until('a page by the inner one', () => pageOf(cloud.lab.host(neighbour), inner, 80), keen)) ?? '', /^web/);
  const six = await known('six');
  assert.match(six, /^fd00:20::/);
  assert.match((await until('a page by IPv6', () => pageOf(cloud.lab.host(neighbour), six, 80), keen)) ?? '', /^web/);
  assert.match((await until('a page for some', () => pageOf(cloud.lab.outside, few, 80), keen)) ?? '', /^web/);
  assert.equal(await pageOf(cloud.controller, few, 80), undefined, 'which has another address than the source ranges');
  for (const [from, address] of [
    [cloud.lab.host(neighbour), inner],
    [cloud.lab.outside, few],
  ] as const)
    await until('both pods to answer datagrams', async () => (await whoAnswers(from, address)) === 'web1,web2', keen);
  assert.equal(await wordOf(cloud.controller, few), '', 'which has another address than the source ranges');
  await passes('Octavia to know that all are well', () => areProbed('kube1 ONLINE', 'kube2 ONLINE'));
  stopSecond?.();
  const guest = (): Promise<string | undefined> => pageOf(cloud.lab.host(neighbour), theirs.address, 8082);
  await until('a page by a load balancer of others', async () => isWeb(await guest()), keen);
  assert.equal(await known('guest'), theirs.address);
  await cluster.apply(serviceOf('late', { ports: [{ name: 'late', port: 8083, targetPort: 8080 }] }, { ...internally, ...onTheirs }));
  const crowded = /^late LoadBalancerNoAddress .*load balancer theirs is shared by as many services as may, 1 \(max-shared-lb\)/m;
  await until('the one that finds no room there to be told', async () => crowded.test(await events()), unhurried);
  const taken = /^guest LoadBalancerIncomplete .*port 80 of load balancer theirs is taken by listener own/m;
  await until('the port that others have to be told', async () => taken.test(await events()), unhurried);
  const endless = /^odd LoadBalancerNoAddress .*load balancer theirs: provider ovn passes packets on as they are, and cannot end TLS/m;
  await until('the one whose TLS it cannot end to be told', async () => endless.test(await events()), unhurried);
  assert.equal(await addressOf('odd'), '');
  const portOf = async (name: string): Promise<number> => Number(await field('service', name, '.spec.ports[0].nodePort'));
  const [nodePort, shutPort] = [await portOf('ports'), await portOf('shut')];
  const beside = cloud.lab.host(neighbour);
  await until('the node port for who is named', async () => isWeb(await byNodePort(beside, nodePort)), unhurried);
  assert.equal(await byNodePort(beside, shutPort), undefined, 'that for another machine that is no node');
  // Nodes may always: where packets of pods travel as they are, nodes let in each other by every port.
  await until('it for a node', async () => isWeb(await byNodePort(node(2), shutPort)), unhurried);

  await passes('Octavia to know whom nobody answers datagrams', () => areProbed('kube1 ONLINE', 'kube2 ERROR'));
  await until('the other to be led to alone', async () => (await whoAnswers(cloud.lab.host(neighbour), inner)) === 'web1', keen);
  assert.match((await until('still a page by the inner one', () => pageOf(cloud.lab.host(neighbour), inner, 80), keen)) ?? '', /^web/);

  // Other ports, the first of UDP among them: the address stays. Fewer pods: by the policy Local only their node is led to.
  const later = { ...byDatagram, port: 5300 };
  await cluster.apply(serviceOf('web', { ports: [http, { name: 'more', port: 8081, targetPort: 8080 }, later] }));
  await until('the further port', async () => isWeb(await pageOf(cloud.lab.outside, web, 8081)), keen);
  await until('that of UDP', async () => (await askUdp(cloud.lab.outside, web, later.port)) === 'web1', keen);
  assert.equal(await addressOf('web'), web);
  const membersOf = async (service: string): Promise<string[]> => {
    const members = await withOctavia(async (client) => {
      const [balancer] = await client.list('loadbalancers', { name: `${installation}-default-${service}` });
      return await Promise.all((balancer?.pools ?? []).map((pool) => client.members(pool)));
    });
    return members
      .flat()
      .map(({ name }) => name)
      .toSorted();
  };
  await passes('both nodes', async () => assert.deepEqual(await membersOf('few'), ['kube1', 'kube1', 'kube2', 'kube2']));
  await cluster.kubectl('delete', 'pod', 'web2', '--grace-period=1');
  await until('the node of the pod that is left', async () => (await membersOf('few')).join() === 'kube1,kube1', unhurried);
  const thrice = ['kube1', 'kube1', 'kube1', 'kube2', 'kube2', 'kube2'];
  await passes('all nodes by its own policy', async () => assert.deepEqual(await membersOf('web'), thrice));
  await until('datagrams to go to it alone', async () => (await whoAnswers(cloud.lab.outside, few)) === 'web1', keen);
  // Every other connection is led to the other node, which sends it on.
  await areAllOf('web1', web, 12);
  const inCluster = await field('service', 'web', '.spec.clusterIP');
  await passes('a node to reach services, too', async () => assert.equal(await pageOf(node(2), inCluster, 80), 'web1'));

  await cluster.kubectl('annotate', 'service', 'web', 'loadbalancer.openstack.org/node-selector=kubernetes.io/hostname=kube2');
  await until('the node that is selected alone', async () => (await membersOf('web')).join() === 'kube2,kube2,kube2', unhurried);

  await cluster.apply(serviceOf('web', {}));
  const ofWeb = async (): Promise<(number | undefined)[]> => {
    const [balancer] = await withOctavia((client) => client.list('loadbalancers', { name: `${installation}-default-web` }));
    return [balancer?.listeners.length, balancer?.pools.length];
  };
  await until('the further ports to go, with their pools', async () => (await ofWeb()).join() === '1,1', unhurried);
  await staysServed('web', { address: web, node: '10.20.0.22' });
  // The member's address stays and its port is another.
  const otherPort = JSON.stringify({ spec: { ports: [{ name: 'http', port: 80, nodePort: 31900 }] } });
  await cluster.kubectl('patch', 'service', 'web', '--patch', otherPort);
  await until('the member to have the other port', async () => (await leadsTo('web')).join() === '31900', unhurried);
  await staysServed('web', { address: web, node: '10.20.0.22' });

  await cluster.kubectl('delete', 'service', 'web', 'few', 'inner', 'six', 'odd', 'ports', 'shut', 'guest', 'late');
  await until("all load balancers to be gone but that of others'", async () => (await namesOfBalancers()) === 'theirs', unhurried);
  const ofTheirs = (): Promise<{ readonly name: string }[]> => withOctavia((client) => client.list('listeners'));
  await until('it to have their own port only', async () => (await ofTheirs()).map(({ name }) => name).join() === 'own', unhurried);
  await withOctavia((client) => client.remove(theirs.id));
  await until('it to be gone', async () => (await namesOfBalancers()) === '', unhurried);
  await until('their floating IPs to be gone', async () => (await floatingIps()).length === 0, unhurried);
  await until('node ports to be closed', async () => !(await namesOf('security-groups')).includes(`${installation}-node-ports`), unhurried);
  // What OVN's provider still has to say of a member makes a load balancer that has gone ACTIVE once more; the controller's next look removes it.
  await until('nothing to be left to do', async () => (await clusterCloud('plan')).steps.length === 0, unhurried);
  await cluster.kubectl('delete', '--namespace=kube-system', controllerDeployment);
  await until('controllers to end', async () => (await podsOf('controller')).join('') === '', unhurried);
  await bed.causeway('cloud', 'destroy', '--name', installation, '--yes');
  assert.ok(!(await namesOf('security-groups')).some((name) => name.startsWith(installation)));
});

test(
  'an exposure of a Docker host has a load balancer of amphora where that is asked for, which its host lets in instead of the clients',
  { skip },
  async () => {
    const docker = await bootDockerHost(cloud, bed.site);
    await docker.causeway('network', 'create', 'shop');
    await docker.untilKnown(1, 'shop');
    const serve = ['sh', '-c', 'mkdir /www; echo goods >/www/index.html; exec httpd -f -p 80 -h /www'];
    await docker.docker(1, 'run', '--detach', '--init', '--name', 'front', '--network', 'shop', boxImage.name, ...serve);
    const how = ['--host-port', '8080', '--name', 'web', '--from', outsideRange, '--load-balancer', '--provider'];
    await docker.causeway('expose', 'shop', 'front', '80', ...how, 'amphora');
    const isKnown = async (): Promise<boolean> => (await docker.json<object[]>('endpoint', 'ls')).length > 0;
    await until('the container to be known', isKnown, unhurried);
    const applied = await docker.json<Applied>('cloud', 'apply', '--yes');
    assert.deepEqual([applied.problems, applied.busy], [[], []], 'which waits until the machine has started');
    const address = applied.exposures[0]?.address ?? assert.fail('no floating IP');
    await until('the page', async () => (await pageOf(cloud.lab.outside, address, 80)) === 'goods', keen);
    assert.equal(await pageOf(cloud.controller, address, 80), undefined, 'which has another address than the sources');
    const [exposure] = await docker.json<{ sources: string[]; balancerRanges: string[] }[]>('exposure', 'ls');
    assert.deepEqual([exposure?.sources, exposure?.balancerRanges], [[outsideRange], ['10.20.0.0/24']]);
    assert.deepEqual((await docker.json<Applied>('cloud', 'apply', '--yes')).steps, [], 'a second one has nothing to do');

    await docker.causeway('exposure', 'rm', '--yes', 'web');
    await docker.causeway('expose', 'shop', 'front', '80', ...how, 'nobody');
    const lacking = /Exposure web has no load balancer: Octavia has no provider nobody, only (ovn, amphora|amphora, ovn)/;
    const isSaid = async (): Promise<boolean> => lacking.test((await docker.json<Applied>('cloud', 'plan')).problems.join());
    await until('the plan to say what there is', isSaid, unhurried);
    await docker.causeway('cloud', 'destroy', '--yes');
    assert.deepEqual([await withOctavia((client) => client.list('loadbalancers')), await floatingIps()], [[], []]);
    await until('its machine to be free', () => amphorae?.free.length === 1, keen);
    assert.ok(!(await namesOf('security-groups')).some((name) => name.startsWith('causeway')));
  },
);
