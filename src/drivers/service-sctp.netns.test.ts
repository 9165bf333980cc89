// Services and policies for SCTP, which the kernel translates and tracks also where it has no SCTP of its own: both ends are programs
// that bring theirs along (usrsctp).
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { after, before, describe, test, type TestContext } from 'node:test';
import { missingOf, sctpNeeds } from '#lab/packages.ts';
import { mustBeIsolated } from '#test/isolated.ts';
import { eventually, type NetnsHost, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { frontsOf, staleConnections } from '#agent/stale-connections.ts';
import { flushConntrack } from '#kernel/conntrack.ts';
import { inNetns } from '#kernel/netns.ts';
import { readNetworkPolicy } from '#kubernetes/network-policy.ts';
import { PolicyIndex } from '#kubernetes/policy-index.ts';
import { type Family, familyOf, type Ip, parseIp } from '#model/ip.ts';
import type { PolicyFacts } from '#model/policy.ts';
import type { LocalEndpoint, Service } from '#model/resources.ts';
import { makeDualHost, makeFlatCluster, makeNetwork } from './cluster.fixture.ts';
import { plan } from './plan.ts';
import { everyAddress } from './services.ts';

mustBeIsolated();

const skip = missingOf(sctpNeeds);
const programs = '/usr/lib/usrsctp';
/** Where its echo server listens. */
const inside = 7;
const ports = { service: 80, node: 30_080 };

const pick = (family: Family, four: string, six: string): Ip => parseIp(family === 4 ? four : six);

interface Running {
  readonly process: ChildProcess;
  readonly said: () => string;
}

/** Its output as it comes, which a pipe would hold back. */
function running(t: TestContext, place: Place, words: readonly string[]): Running {
  const child = inNetns(place.path, () => spawn('stdbuf', ['--output=0', ...words], { stdio: 'pipe' }));
  t.after(() => child.kill('SIGKILL'));
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes: Buffer) => (said += bytes.toString()));
  return { process: child, said: () => said };
}

const serve = (t: TestContext, place: Place): Running => running(t, place, [`${programs}/echo_server`]);
const call = (t: TestContext, place: Place, to: Ip, port: number): Running => running(t, place, [`${programs}/client`, to, String(port)]);

/** Says a word and hears it again. Who calls before the server listens is refused, and calls again. */
async function talk(begin: () => Running, word: string): Promise<void> {
  let client = begin();
  await eventually(
    () => {
      if (client.said().includes('usrsctp_connect: ')) client = begin();
      return client.said().includes('SCTP_COMM_UP');
    },
    'an association',
    30_000,
  );
  client.process.stdin?.write(`${word}\n`);
  await eventually(() => client.said().includes(`${word}\n`), `to hear ${word}`);
}

for (const family of [4, 6] as const) {
  describe(`SCTP, IPv${family}`, { concurrency: false, skip }, () => {
    const network = makeNetwork('aaaaaaaaaa', { model: 'flannel' });
    const hosts = [1, 2].map((index) => makeDualHost(index));
    const {
      local: [a, b, c],
      snapshot,
    } = makeFlatCluster(network, hosts, '/run/sctp');
    const addressOf = ({ endpoint }: LocalEndpoint): Ip => endpoint.addresses.find((ip) => familyOf(ip) === family) ?? assert.fail();
    const virtual = pick(family, '10.96.0.5', 'fd96::5');
    const front = (ip: Ip, port: number, ...backends: readonly LocalEndpoint[]): Service => ({
      key: `${ip} ${port}`,
      ip,
      protocol: 'sctp',
      port,
      backends: backends.map((backend) => ({ ip: addressOf(backend), port: inside })),
    });
    const services = [front(virtual, ports.service, c), front(everyAddress[family], ports.node, c)];
    let wire: Wire;
    let [one, two]: [NetnsHost, NetnsHost] = [undefined as never, undefined as never];
    let client: Place;
    const places = new Map<LocalEndpoint, Place>();
    const boxOf = (of: LocalEndpoint): Place => places.get(of) ?? assert.fail('no such box');
    const planned = (more: { readonly services?: readonly Service[]; readonly policy?: PolicyFacts } = {}) =>
      plan(snapshot, [a, b], hosts[0] ?? assert.fail(), { services, ...more });

    before(() => {
      wire = new Wire();
      one = wire.host('host-1', ['10.213.0.1/16', 'fd00:213::1/64']);
      two = wire.host('host-2', ['10.213.0.2/16', 'fd00:213::2/64']);
      client = wire.place('client', ['10.213.0.98/16', 'fd00:213::98/64']);
      one.apply(planned());
      two.apply(plan(snapshot, [c], hosts[1] ?? assert.fail(), { services }));
      for (const host of [one, two]) host.ip('route', 'add', 'default', 'via', pick(family, '10.213.0.98', 'fd00:213::98'));
      for (const [each, host] of [
        [a, one],
        [b, one],
        [c, two],
      ] as const)
        places.set(each, wire.container(host, each));
    });
    after(() => wire[Symbol.dispose]());

    test('a container speaks to a backend on another host', async (t) => {
      serve(t, boxOf(c));
      await talk(() => call(t, boxOf(a), virtual, ports.service), 'from a container');
    });

    test('a client outside speaks to it by a node port', async (t) => {
      serve(t, boxOf(c));
      await talk(() => call(t, client, pick(family, '10.213.0.1', 'fd00:213::1'), ports.node), 'from outside');
    });

    test('a service without a backend refuses', async (t) => {
      one.apply(planned({ services: [front(virtual, ports.service)] }));
      const earlier = one.count('unserved');
      const refused = call(t, boxOf(a), virtual, ports.service);
      await eventually(() => one.count('unserved') > earlier, 'the packet to be counted');
      assert.ok(!refused.said().includes('SCTP_COMM_UP'));
      one.apply(planned());
    });

    test('what is tracked to a backend that has gone is cut, and what goes to another is not', async (t) => {
      const others = [front(virtual, ports.service, c), front(virtual, ports.node, b)];
      const first = planned({ services: others });
      one.apply(first);
      for (const box of [b, c]) serve(t, boxOf(box));
      await talk(() => call(t, boxOf(a), virtual, ports.service), 'to the one');
      await talk(() => call(t, boxOf(a), virtual, ports.node), 'to the other');
      const second = planned({ services: [front(virtual, ports.service, b), front(virtual, ports.node, b)] });
      one.apply(second);
      const tracked = (backend: LocalEndpoint): string =>
        one.run('conntrack', '-L', '-p', 'sctp', '--orig-dst', virtual, '--reply-src', addressOf(backend));
      assert.match(tracked(c), /sctp/);
      const stale = staleConnections(frontsOf(first), frontsOf(second));
      assert.ok(inNetns(one.path, () => flushConntrack(one.kinds.sockets, '', stale)) > 0);
      assert.doesNotMatch(tracked(c), /sctp/);
      assert.match(tracked(b), /sctp/);
      one.apply(planned());
    });

    test('a policy that lets in TCP and UDP only lets no SCTP in, and one of SCTP does', async (t) => {
      const policyOf = (...protocols: readonly string[]): PolicyFacts => {
        const index = new PolicyIndex();
        index.putNamespace('shop', {});
        for (const app of ['a', 'b'])
          index.putPod(`shop/${app}`, { namespace: 'shop', labels: { app }, account: 'default', ips: [], ports: [] });
        const spec = {
          podSelector: { matchLabels: { app: 'b' } },
          ingress: [{ ports: protocols.map((protocol) => ({ protocol, port: inside })) }],
        };
        index.putPolicy(readNetworkPolicy({ metadata: { namespace: 'shop', name: 'b' }, spec }).policy ?? assert.fail());
        const owned = [a, b].map(({ endpoint }, at) => ({ owner: at === 0 ? 'shop/a' : 'shop/b', addresses: endpoint.addresses }));
        return index.facts(owned) ?? assert.fail('no facts');
      };
      serve(t, boxOf(b));
      one.apply(planned({ policy: policyOf('TCP', 'UDP') }));
      for (const [box, hook] of [
        [a, 'output'],
        [b, 'input'],
      ] as const)
        boxOf(box).run('nft', `table inet seen { chain packets { type filter hook ${hook} priority 0; meta l4proto sctp counter; }; }`);
      const early = call(t, boxOf(a), addressOf(b), inside);
      await eventually(() => boxOf(a).count('packets', 'seen') > 0, 'the packet to be sent');
      assert.equal(boxOf(b).count('packets', 'seen'), 0);
      early.process.kill('SIGKILL');
      one.apply(planned({ policy: policyOf('SCTP') }));
      await talk(() => call(t, boxOf(a), addressOf(b), inside), 'allowed');
      one.apply(planned());
    });
  });
}
