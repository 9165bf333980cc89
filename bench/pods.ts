// A hundred pods from the moment they are asked for until all are ready, in a real cluster of two nodes: with Causeway, and with
// the reference plugins' bridge, host-local and portmap, routes between the nodes and kube-proxy. Pods of the nodes' own network
// take as long as everything else does; what pods take longer is the network's part.
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from '#lab/host.ts';
import { boxPodImage, Kubernetes } from '#lab/kubernetes.ts';
import { podRange } from '#lab/kubernetes-control-plane.ts';
import { buildKubernetes, clusterPrograms, needsOfKubernetes, pathOf, proxyProgram } from '#lab/kubernetes-programs.ts';
import { testNeeds } from '#lab/packages.ts';
import { terminalProgress } from '#lab/progress.ts';
import { until } from '#lab/until.ts';
import { makeBed } from './bed.ts';
import { compare, median, type Row } from './report.ts';

const count = 100;
const rounds = 3;
const peer = 'bridge + host-local + portmap, kube-proxy';
const plugins = ['bridge', 'host-local', 'portmap', 'loopback'];

interface Times {
  /** Milliseconds until all pods are ready, by round: of the cluster's network, and of the nodes' own. */
  readonly pods: number[];
  readonly ownNetwork: number[];
}

const rangeOf = (host: Host, cluster: Kubernetes): Promise<string> =>
  cluster.kubectl('get', 'node', host.name, '--output=jsonpath={.spec.podCIDR}');

/** What a node needs that has the reference plugins and kube-proxy. */
async function equip(host: Host, cluster: Kubernetes): Promise<void> {
  const programs = host.file('/opt/cni/bin');
  const configurations = host.file('/etc/cni/net.d');
  for (const folder of [programs, configurations]) mkdirSync(folder, { recursive: true });
  for (const name of plugins) copyFileSync(join('/usr/lib/cni', name), join(programs, name));
  const proxy = [
    pathOf('kube-proxy'),
    `--kubeconfig=${cluster.kubeconfig}`,
    '--proxy-mode=iptables',
    `--hostname-override=${host.name}`,
    `--cluster-cidr=${podRange}`,
    '--conntrack-max-per-core=0',
    '--conntrack-tcp-timeout-established=0',
    '--conntrack-tcp-timeout-close-wait=0',
    '--healthz-bind-address=',
    '--metrics-bind-address=127.0.0.1:10249',
  ];
  await host.startService({ name: 'kube-proxy', argv: proxy, env: {} });
  for (const other of cluster.lab.hosts)
    if (other !== host) await host.exec(['ip', 'route', 'replace', await rangeOf(other, cluster), 'via', other.address]);
  await host.exec(['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
  const ipam = { type: 'host-local', ranges: [[{ subnet: await rangeOf(host, cluster) }]], routes: [{ dst: '0.0.0.0/0' }] };
  const bridge = { type: 'bridge', bridge: 'cni0', isGateway: true, ipMasq: true, hairpinMode: true, ipam };
  const chain = { cniVersion: '0.4.0', name: 'pods', plugins: [bridge, { type: 'portmap', capabilities: { portMappings: true } }] };
  writeFileSync(join(configurations, '10-pods.conflist'), JSON.stringify(chain));
}

const pod = (name: string, hostNetwork: boolean): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, labels: { app: 'many' } },
  spec: {
    hostNetwork,
    terminationGracePeriodSeconds: 0,
    containers: [{ name: 'box', image: boxPodImage, imagePullPolicy: 'Never', command: ['sleep', '86400'] }],
  },
});

/** A pod that the API has no more is taken down by its node for some seconds longer. */
async function untilGone(host: Host): Promise<void> {
  const isGone = async () => (await host.exec(['pgrep', 'containerd-shim'], { anyStatus: true })).status !== 0;
  await until(`pods of ${host.name} to be taken down`, isGone, { timeoutMs: 120_000, intervalMs: 500 });
}

async function timed(cluster: Kubernetes, hostNetwork: boolean): Promise<number> {
  const pods = Array.from({ length: count }, (_, number) => pod(`many-${number}`, hostNetwork));
  const began = performance.now();
  await cluster.apply(...pods);
  await cluster.tryKubectl(['wait', '--for=condition=Ready', 'pod', '--selector=app=many', '--timeout=600s'], { timeoutMs: 660_000 });
  const took = performance.now() - began;
  await cluster.tryKubectl(['delete', 'pod', '--selector=app=many', '--timeout=300s'], { timeoutMs: 330_000 });
  await Promise.all(cluster.lab.hosts.map(untilGone));
  process.stderr.write(`  ${count} pods${hostNetwork ? " of the nodes' own network" : ''}: ${(took / 1000).toFixed(1)} s\n`);
  return took;
}

async function measure(network: 'ours' | 'theirs'): Promise<Times> {
  const needs = [
    ...needsOfKubernetes([...clusterPrograms, proxyProgram]),
    ...testNeeds.filter(({ program }) => program === 'host-local' || program === 'gcc'),
  ];
  await using bed = await makeBed({ hosts: 2, engines: false, needs });
  const cluster = new Kubernetes(bed.lab);
  if (network === 'ours') await cluster.start();
  else {
    await cluster.startWithoutNetwork();
    for (const host of bed.hosts) await equip(host, cluster);
    await cluster.untilReady();
  }
  const times: Times = { pods: [], ownNetwork: [] };
  for (let round = 0; round < rounds; round++) {
    for (const own of round % 2 === 0 ? [true, false] : [false, true])
      (own ? times.ownNetwork : times.pods).push(await timed(cluster, own));
  }
  return times;
}

const seconds = (values: readonly number[]): number => median(values) / 1000;
const part = ({ pods, ownNetwork }: Times): number => seconds(pods) - seconds(ownNetwork);

export async function podsBench(): Promise<Row[]> {
  await buildKubernetes(terminalProgress(), [...clusterPrograms, proxyProgram]);
  const [theirs, ours] = [await measure('theirs'), await measure('ours')];
  return [
    compare(`${count} pods, from asked for to ready`, seconds(ours.pods), seconds(theirs.pods), { unit: 's', peer, atMost: 1 }),
    compare("the same, longer than with the nodes' own network", part(ours), part(theirs), { unit: 's', peer, atMost: 0.3 }),
  ];
}
