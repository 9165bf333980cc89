// The claims of `causeway demo --kubernetes`, each proved on the running cluster by what a person could type as well.
import { Fault } from '#model/fault.ts';
import type { CheckOf } from './demo-check.ts';
import { type ClusterSite, nodePort, replicas } from './demo-cluster.ts';
import { seconds } from './demo-screen.ts';
import { commandMs, lineWith, part, type Proof, shell, type Witness } from './demo-witness.ts';
import { until } from './until.ts';

type Check = CheckOf<ClusterSite>;

/** How long after a start names, routes and rules may take to be everywhere. */
const patienceMs = 60_000;
const path = '/cgi-bin/index.cgi';

interface PodStatus {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly nodeName: string };
  readonly status: { readonly podIP: string };
}

async function podsOf({ cluster }: ClusterSite, label: string): Promise<PodStatus[]> {
  const listing = JSON.parse(await cluster.kubectl('get', 'pods', '--selector', label, '--output=json')) as { items: PodStatus[] };
  return listing.items;
}

/** A web server's pod on that node. */
async function webOn(site: ClusterSite, node: string): Promise<PodStatus> {
  const pod = (await podsOf(site, 'app=web')).find(({ spec }) => spec.nodeName === node);
  if (pod === undefined) throw new Fault('not-found', `No web server's pod is on ${node}`);
  return pod;
}

const addressOf = ({ cluster }: ClusterSite, service: string): Promise<string> =>
  cluster.kubectl('get', 'service', service, '--output=jsonpath={.spec.clusterIP}');

interface Asking {
  readonly argv: readonly string[];
  readonly proof: Proof;
  readonly patienceMs?: number;
}

function kubectl({ cluster }: ClusterSite, witness: Witness, { argv, proof, patienceMs: patience = 0 }: Asking): Promise<void> {
  const ask = () => cluster.tryKubectl(argv, { anyStatus: true, timeoutMs: commandMs });
  return witness.other({ where: 'controller', command: shell(['kubectl', ...argv]), ask }, proof, patience);
}

const inPod = (pod: string, ...argv: readonly string[]): string[] => ['exec', pod, '--', ...argv];
const fetch = (url: string): string[] => ['wget', '-T', '3', '-qO-', url];

const bothReady: Proof = (said) => {
  const ready = said.match(/^host\d +Ready(?= )/gm);
  return ready?.length === 2 ? ready.join(', ').replaceAll(/ +/g, ' ') : undefined;
};

const only: Check = {
  title: 'both nodes are ready, and Causeway is their only network',
  async prove(site, witness) {
    await kubectl(site, witness, { argv: ['get', 'nodes'], proof: bothReady, patienceMs });
    const agents = ['get', 'daemonset', '--namespace=kube-system'];
    await kubectl(site, witness, { argv: agents, proof: part(/causeway-agent +2 +2 +2 +2/), patienceMs });
    for (const host of site.lab.hosts) {
      await witness.host(host, ['ls', '/etc/cni/net.d'], (said) => (said === '10-causeway.conflist' ? said : undefined));
      await witness.host(host, ['ls', '/opt/cni/bin'], (said) =>
        /^causeway\s+loopback$/.test(said) ? said.replace('\n', ' ') : undefined,
      );
    }
  },
};

const acrossNodes: Check = {
  title: 'pods reach each other across nodes, each under its own address',
  async prove(site, witness) {
    const [client] = await podsOf(site, 'app=client');
    for (const node of ['host1', 'host2']) {
      const { metadata, status } = await webOn(site, node);
      const seen = `pod ${metadata.name} on ${node} to ${client?.status.podIP}`;
      const argv = inPod('client', ...fetch(`http://${status.podIP}:8080${path}`));
      await kubectl(site, witness, { argv, proof: (said) => (said === seen ? said : undefined), patienceMs });
    }
  },
};

/** Every pod has been met, and nobody else; 40 times in all. */
const shares: Proof = (said) => {
  const rows = said.split('\n').map((row) => row.trim().split(/\s+/));
  const total = rows.reduce((sum, [count]) => sum + Number(count), 0);
  const nodes = new Set(rows.map(([, , node]) => node));
  if (rows.length < replicas || total !== 40 || nodes.size !== 2) return undefined;
  return rows.map(([count, pod, node]) => `${count} × …${pod?.slice(-5)} on ${node}`).join(', ');
};

const balanced: Check = {
  title: 'a service is balanced over the pods of both nodes, from pods and from nodes',
  async prove(site, witness) {
    const url = `http://${await addressOf(site, 'web')}${path}`;
    const script = `for i in $(seq 40); do wget -T 3 -qO- ${url}; done | cut -d' ' -f2,4 | sort | uniq -c`;
    await kubectl(site, witness, { argv: inPod('client', 'sh', '-c', script), proof: shares, patienceMs });
    const onNode = script.replace('wget', 'busybox wget');
    await witness.host(site.lab.host('host2'), ['sh', '-c', onNode], shares, patienceMs);
  },
};

const get = (to: string): string[] => ['busybox', ...fetch(`http://${to}${path}`)];
const isUnreached: Proof = lineWith(/timed out|unreachable|refused|reset|No route/i);

const exposed: Check = {
  title: 'the node port answers clients outside on every node, other ports and the pods themselves do not',
  async prove(site, witness) {
    const { outside, hosts } = site.lab;
    for (const { address } of hosts)
      await witness.host(outside, get(`${address}:${nodePort}`), lineWith(/^pod web-\S+ on host\d to /), patienceMs);
    const { status } = await webOn(site, 'host1');
    await witness.host(outside, get(`${hosts[0]?.address}:${nodePort + 1}`), isUnreached);
    await witness.host(outside, get(`${status.podIP}:8080`), isUnreached);
  },
};

const policy = {
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name: 'clients-only' },
  spec: { podSelector: { matchLabels: { app: 'web' } }, ingress: [{ from: [{ podSelector: { matchLabels: { app: 'client' } } }] }] },
};

const obeyed: Check = {
  title: 'a network policy for app=client cuts off the stranger, and nobody else; without it all is as before',
  async prove(site, witness) {
    const url = `http://${await addressOf(site, 'web')}${path}`;
    const asked = (pod: string, proof: Proof): Promise<void> =>
      kubectl(site, witness, { argv: inPod(pod, ...fetch(url)), proof, patienceMs });
    const served = lineWith(/^pod web-\S+ on host\d to /);
    await asked('stranger', served);
    try {
      await site.cluster.apply(policy);
      witness.see('controller', 'kubectl apply -f -', `NetworkPolicy ${JSON.stringify(policy.spec)}`);
      await asked('stranger', isUnreached);
      await asked('client', served);
    } finally {
      await site.cluster.kubectl('delete', 'networkpolicy', policy.metadata.name, '--ignore-not-found');
    }
    await asked('stranger', served);
  },
};

const unfragmented = (bytes: number, to: string): string[] =>
  inPod('client', 'ping', '-c1', '-W1', '-M', 'do', '-s', String(bytes - 28), to);

const fullSize: Check = {
  title: 'a packet of full size passes unfragmented between nodes, one byte more does not',
  async prove(site, witness) {
    const { status } = await webOn(site, 'host2');
    const argv = inPod('client', 'cat', '/sys/class/net/eth0/mtu');
    let mtu = 0;
    const proof: Proof = (said) => {
      mtu = Number(said);
      return mtu > 1280 ? `${said}: the nodes' ${site.lab.hosts[0]?.record.mtu} less what the tunnel adds` : undefined;
    };
    await kubectl(site, witness, { argv, proof });
    await kubectl(site, witness, { argv: unfragmented(mtu, status.podIP), proof: part(/1 packets transmitted, 1 received/), patienceMs });
    await kubectl(site, witness, { argv: unfragmented(mtu + 1, status.podIP), proof: lineWith(/too long|Frag needed|mtu ?=/) });
  },
};

/** How often the agent's container on that node has been started again, and whether it is in step now. */
async function agentOn({ cluster }: ClusterSite, node: string): Promise<{ readonly restarts: number; readonly isReady: boolean }> {
  const chosen = ['--namespace=kube-system', '--selector=app.kubernetes.io/component=agent', `--field-selector=spec.nodeName=${node}`];
  const field = '{.items[0].status.containerStatuses[0]';
  const said = await cluster.kubectl('get', 'pods', ...chosen, `--output=jsonpath=${field}.restartCount} ${field}.ready}`);
  const [restarts, ready] = said.split(' ');
  return { restarts: Number(restarts), isReady: ready === 'true' };
}

/** Of ping's batches of a thousand, each of which waits for its last answer. */
const nothingLost: Proof = (said) => {
  const batches = said.split('\n');
  const isWhole = batches.every((line) => /^1000 packets transmitted, 1000 (?:packets )?received, 0% packet loss/.test(line));
  return isWhole ? `${batches.length}000 packets transmitted, ${batches.length}000 received, 0% packet loss` : undefined;
};

const agentless: Check = {
  title: 'a packet each millisecond: none is lost while the agent is killed and comes back',
  async prove(site, witness) {
    const { status } = await webOn(site, 'host2');
    const { restarts } = await agentOn(site, 'host2');
    const script = `while [ ! -e /stop ]; do ping -q -i 0.001 -c 1000 ${status.podIP} | grep loss; done; rm /stop`;
    const argv = inPod('client', 'sh', '-c', script);
    const ask = () => site.cluster.tryKubectl(argv, { timeoutMs: 300_000 });
    const command = shell(['kubectl', ...inPod('client', 'ping', '-q', '-i', '0.001', status.podIP)]);
    const pinging = witness.other({ where: 'controller', command, ask }, nothingLost);
    try {
      const began = async (): Promise<boolean> => (await site.cluster.kubectl(...inPod('client', 'sh', '-c', 'pidof ping; true'))) !== '';
      await until('the packets to flow', began, { timeoutMs: patienceMs, intervalMs: 200 });
      await witness.host(site.lab.host('host2'), ['pkill', '-e', '-KILL', '-f', 'causeway/src/bin/agent.ts'], lineWith(/killed/));
      const beganMs = performance.now();
      const back = async (): Promise<boolean> => {
        const agent = await agentOn(site, 'host2');
        return agent.isReady && agent.restarts > restarts;
      };
      await until('the agent to be back', back, { timeoutMs: 180_000, intervalMs: 200 });
      witness.see('host2', 'kubelet', `has started the agent again; in step after ${seconds(beganMs)}`);
    } finally {
      await site.cluster.kubectl(...inPod('client', 'touch', '/stop'));
      await pinging;
    }
  },
};

export const clusterChecks: readonly Check[] = [only, acrossNodes, balanced, exposed, obeyed, fullSize, agentless];
