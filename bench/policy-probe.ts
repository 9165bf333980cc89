// Measures for policy.ts in the namespaces that test/isolated-node has made, and prints them as JSON.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type NetnsHost, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import { inNetns } from '#kernel/netns.ts';
import { readNetworkPolicy } from '#kubernetes/network-policy.ts';
import { PolicyIndex } from '#kubernetes/policy-index.ts';
import { Fault } from '#model/fault.ts';
import { formatIp, type Ip, parseCidr } from '#model/ip.ts';
import type { OwnedAddresses } from '#model/policy.ts';
import type { LocalEndpoint } from '#model/resources.ts';

const namespaces = 100;
const perNamespace = 100;
const policiesPer = 10;
const local = 100;
const changes = 100;
const rounds = 5;
const seconds = '1';

const addressOf = (index: number): Ip => formatIp(0x0a2c0000n + BigInt(index + 1), 4);
const network = { ...makeNetwork('aaaaaaaaaa', { model: 'flannel' }), names: 'elsewhere' as const };
const self = makeHost(1);
const pool = makePool(network.id, parseCidr('10.44.0.0/16'), 16);
const snapshot = snapshotOf({ hosts: [self], networks: [network], pools: [pool], blocks: [makeBlock(pool, 0, 'host-1')] });

/** This host has one pod of each namespace; pod `index` is in namespace `index % namespaces`. */
const ownerOf = (index: number): string => `space-${index % namespaces}/pod-${index}`;
const endpoints = Array.from({ length: local }, (_, index): LocalEndpoint => ({
  endpoint: makeEndpoint(network.id, 'host-1', index + 1, [addressOf(index)]),
  slot: index + 1,
  sandbox: `/run/policy/${index}`,
  order: 1,
}));
const owned = endpoints.map(({ endpoint }, index): OwnedAddresses => ({ owner: ownerOf(index), addresses: endpoint.addresses }));

const put = (index: PolicyIndex, pod: number, labels: Readonly<Record<string, string>> = {}): void =>
  index.putPod(ownerOf(pod), {
    namespace: `space-${pod % namespaces}`,
    labels: { app: `app-${Math.floor(pod / namespaces) % policiesPer}`, ...labels },
    account: 'default',
    ips: [addressOf(pod)],
    ports: [],
  });
function putPolicy(index: PolicyIndex, namespace: string, name: string, spec: object): void {
  const { policy } = readNetworkPolicy({ metadata: { namespace, name }, spec });
  if (policy !== undefined) index.putPolicy(policy);
}

/** Ten policies in each namespace, one for each application, that let in its ten pods and whoever is called a friend anywhere. */
function largeCluster(): PolicyIndex {
  const index = new PolicyIndex();
  for (let space = 0; space < namespaces; space++) {
    index.putNamespace(`space-${space}`, { team: `team-${space % 7}` });
    for (let number = 0; number < policiesPer; number++) {
      const app = { matchLabels: { app: `app-${number}` } };
      const friends = { namespaceSelector: {}, podSelector: { matchLabels: { friend: `of-${space}` } } };
      putPolicy(index, `space-${space}`, `allow-${number}`, { podSelector: app, ingress: [{ from: [{ podSelector: app }, friends] }] });
    }
  }
  for (let pod = 0; pod < namespaces * perNamespace; pod++) put(index, pod);
  return index;
}

function apply(host: NetnsHost, index: PolicyIndex | undefined): void {
  host.apply(plan(snapshot, endpoints, self, { policy: index?.facts(owned) }));
}

/** Milliseconds from the notice until the kernel obeys, which a packet then proves. */
async function changing(boxes: Boxes, index: PolicyIndex, change: (isOpen: boolean) => void): Promise<number[]> {
  const { host, web, client } = boxes;
  using listener = await web.udp(addressOf(0), 7000);
  const times: number[] = [];
  for (let turn = 0; turn < changes; turn++) {
    const isOpen = turn % 2 === 0;
    const start = performance.now();
    change(isOpen);
    apply(host, index);
    times.push(performance.now() - start);
    using sender = await client.udp(addressOf(1));
    await sender.send(`word ${turn}`, { ip: addressOf(0), port: 7000 });
    using own = await host.udp('10.213.0.1');
    await own.send(`after ${turn}`, { ip: addressOf(0), port: 7000 });
    await listener.hears(`after ${turn}`);
    const isHeard = listener.messages.some(({ text }) => text === `word ${turn}`);
    if (isHeard !== isOpen) throw new Fault('internal', `Change ${turn} was not obeyed`);
  }
  return times;
}

interface Boxes {
  readonly host: NetnsHost;
  readonly web: Place;
  readonly client: Place;
}

const perSecond = (text: string): number => Number(/^([\d.]+)\s*$/m.exec(text)?.[1]);

/** The client's own role is allowed by the last of so many policies. */
function manyPolicies(count: number): PolicyIndex {
  const index = new PolicyIndex();
  for (let space = 0; space < namespaces; space++) index.putNamespace(`space-${space}`, {});
  for (let pod = 0; pod < local; pod++) put(index, pod, pod === 1 ? { role: `role-${count - 1}` } : {});
  for (let number = 0; number < count; number++) {
    const from = [{ namespaceSelector: {}, podSelector: { matchLabels: { role: `role-${number}` } } }];
    putPolicy(index, 'space-0', `allow-${String(number).padStart(4, '0')}`, { podSelector: {}, ingress: [{ from }] });
  }
  return index;
}

async function requests({ host, web, client }: Boxes): Promise<Record<string, number[]>> {
  const server = inNetns(web.path, () => spawn('netserver', ['-D', '-4'], { stdio: 'ignore' }));
  const rates: Record<string, number[]> = {};
  try {
    for (let round = 0; round < rounds; round++) {
      for (const count of [0, 100, 1000]) {
        apply(host, count === 0 ? undefined : manyPolicies(count));
        for (const test of ['TCP_RR', 'TCP_CRR']) {
          const words = ['netperf', '-H', addressOf(0), '-L', addressOf(1), '-t', test, '-l', seconds, '-P', '0', '-T', '0,0'];
          const output = client.run(...words, '--', '-o', 'THROUGHPUT');
          (rates[`${test} ${count}`] ??= []).push(perSecond(output));
        }
      }
    }
  } finally {
    const ended = once(server, 'exit');
    server.kill('SIGKILL');
    await ended;
  }
  return rates;
}

async function measure(): Promise<void> {
  using wire = new Wire();
  const host = wire.host('host-1', ['10.213.0.1/16']);
  apply(host, undefined);
  const [first, second] = endpoints;
  if (first === undefined || second === undefined) throw new RangeError('No endpoints');
  const boxes = { host, web: wire.container(host, first), client: wire.container(host, second) };
  const index = largeCluster();
  apply(host, index);
  const peers = await changing(boxes, index, (isOpen) => put(index, 1, isOpen ? { friend: 'of-0' } : {}));
  put(index, 1);
  // Selected by a policy that lets nobody in, or by none.
  const subjects = await changing(boxes, index, (isOpen) => put(index, 0, isOpen ? { app: 'other' } : {}));
  const rates = await requests(boxes);
  process.stdout.write(JSON.stringify({ peers, subjects, rates }));
}

await measure();
