// Measures for policy.ts in the namespaces that test/isolated-node has made, and prints them as JSON.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { openJournal } from '#agent/journal.ts';
import { Loop } from '#agent/loop.ts';
import { type NetnsHost, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import { inNetns } from '#kernel/netns.ts';
import { KubernetesClient } from '#kubernetes/client.ts';
import { readNetworkPolicy } from '#kubernetes/network-policy.ts';
import { PolicyIndex } from '#kubernetes/policy-index.ts';
import { KubernetesPolicies } from '#kubernetes/policy-source.ts';
import { Fault } from '#model/fault.ts';
import { formatIp, type Ip, parseCidr } from '#model/ip.ts';
import type { OwnedAddresses } from '#model/policy.ts';
import type { LocalEndpoint } from '#model/resources.ts';
import { ClusterApi, type Labels, labelsOf, namespaces, ownerOf } from './policy-cluster.ts';

const local = 100;
const changes = 100;
const rounds = 5;
const seconds = '1';

const addressOf = (index: number): Ip => formatIp(0x0a2c0000n + BigInt(index + 1), 4);
const network = { ...makeNetwork('aaaaaaaaaa', { model: 'flannel' }), names: 'elsewhere' as const };
const self = makeHost(1);
const pool = makePool(network.id, parseCidr('10.44.0.0/16'), 16);
const snapshot = snapshotOf({ hosts: [self], networks: [network], pools: [pool], blocks: [makeBlock(pool, 0, 'host-1')] });

/** This host has one pod of each namespace. */
const endpoints = Array.from({ length: local }, (_, index): LocalEndpoint => ({
  endpoint: makeEndpoint(network.id, 'host-1', index + 1, [addressOf(index)]),
  slot: index + 1,
  sandbox: `/run/policy/${index}`,
  order: 1,
}));
const owned = endpoints.map(({ endpoint }, index): OwnedAddresses => ({ owner: ownerOf(index), addresses: endpoint.addresses }));

const put = (index: PolicyIndex, pod: number, labels: Labels = {}): void =>
  index.putPod(ownerOf(pod), {
    namespace: `space-${pod % namespaces}`,
    labels: { ...labelsOf(pod), ...labels },
    account: 'default',
    ips: [addressOf(pod)],
    ports: [],
  });
function putPolicy(index: PolicyIndex, namespace: string, name: string, spec: object): void {
  const { policy } = readNetworkPolicy({ metadata: { namespace, name }, spec });
  if (policy !== undefined) index.putPolicy(policy);
}

function apply(host: NetnsHost, index: PolicyIndex | undefined): void {
  host.apply(plan(snapshot, endpoints, self, { policy: index?.facts(owned) }));
}

interface Taken {
  readonly wall: number;
  /** The same without the time for which others had the processor. */
  readonly alone: number;
}

/** Milliseconds for which this thread has waited for a processor that others had (Documentation/scheduler/sched-stats.rst). */
const waited = (): number => Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[1]) / 1e6;

/** An agent's way from what the API server tells to the kernel. */
class AgentPath implements AsyncDisposable {
  readonly api: ClusterApi = new ClusterApi(addressOf);
  readonly #closing = new AsyncDisposableStack();
  #heard = 0;
  #done = 0;
  #wake: (() => void) | undefined;

  async start(host: NetnsHost, folder: string): Promise<void> {
    this.#closing.use(this.api);
    const client = this.#closing.use(new KubernetesClient({ server: await this.api.listen() }));
    const journal = this.#closing.use(openJournal(join(folder, 'agent.db')));
    const log = { warn: (fields: object, message: string) => process.stderr.write(`${message} ${JSON.stringify(fields)}\n`) };
    const hosts = { node: self.name, apiPort: 6443, pods: [], links: () => new Map<Ip, string>() };
    const changed = (): void => {
      this.#heard += 1;
      loop.hurry();
    };
    const policies = this.#closing.use(new KubernetesPolicies({ client, journal, log, changed, hosts }));
    const loop: Loop = this.#closing.use(
      new Loop({
        reconciler: { apply: (desired) => host.apply(desired), suspect: () => host.forget(), forget: () => host.forget() },
        plan: () => plan(snapshot, endpoints, self, { policy: policies.current(owned) }),
        maySweep: () => true,
        done: () => {
          this.#done = this.#heard;
          this.#wake?.();
        },
        failed: (error) => {
          throw error;
        },
      }),
    );
    policies.start();
    await this.#until(() => this.api.isWatched && policies.isSynced() && this.#done > 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#closing.disposeAsync();
  }

  async #until(isSo: () => boolean): Promise<void> {
    while (!isSo()) await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  /** From the notice of other labels until the kernel has what follows from them. */
  async change(pod: number, labels: Labels): Promise<Taken> {
    const heard = this.#heard;
    const [start, before] = [performance.now(), waited()];
    this.api.tell(pod, labels);
    await this.#until(() => this.#done > heard);
    const wall = performance.now() - start;
    return { wall, alone: wall - (waited() - before) };
  }
}

/** Each change comes at some time while the loop rests from the one before, or after that, and a packet proves what was measured. */
async function changing(boxes: Boxes, agent: AgentPath, change: (isOpen: boolean) => [number, Labels]): Promise<Taken[]> {
  const { host, web, client } = boxes;
  using listener = await web.udp(addressOf(0), 7000);
  const times: Taken[] = [];
  for (let turn = 0; turn < changes; turn++) {
    const isOpen = turn % 2 === 0;
    await delay((turn * 37) % 150);
    times.push(await agent.change(...change(isOpen)));
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

async function labelChanges(boxes: Boxes, folder: string): Promise<{ readonly peers: Taken[]; readonly subjects: Taken[] }> {
  await using agent = new AgentPath();
  await agent.start(boxes.host, folder);
  const peers = await changing(boxes, agent, (isOpen) => [1, { ...labelsOf(1), ...(isOpen ? { friend: 'of-0' } : {}) }]);
  // Selected by a policy that lets nobody else in, or by none.
  const subjects = await changing(boxes, agent, (isOpen) => [0, isOpen ? { app: 'other' } : labelsOf(0)]);
  return { peers, subjects };
}

async function measure(): Promise<void> {
  using wire = new Wire();
  const host = wire.host('host-1', ['10.213.0.1/16']);
  apply(host, undefined);
  const [first, second] = endpoints;
  if (first === undefined || second === undefined) throw new RangeError('No endpoints');
  const boxes = { host, web: wire.container(host, first), client: wire.container(host, second) };
  const { peers, subjects } = await labelChanges(boxes, wire.folder);
  const rates = await requests(boxes);
  process.stdout.write(JSON.stringify({ peers, subjects, rates }));
}

await measure();
