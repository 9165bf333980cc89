// What policies do not decide: the node's own packets, services' translation, connections that stand, what is not known yet.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { checkPolicyPage } from '#test/policy-page.ts';
import { eventually, type NetnsHost, type Peer, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { forbidden } from '#agent/policed-connections.ts';
import { reportOf } from '#agent/policy-report.ts';
import { EndedConnections } from '#agent/ended-connections.ts';
import { checksum } from '#kernel/checksum.ts';
import { type ConntrackSelection, cutConnections, flushConntrack } from '#kernel/conntrack.ts';
import { ipBytes } from '#kernel/netlink/codec.ts';
import { inNetns } from '#kernel/netns.ts';
import { ruleCounts } from '#kernel/nft-counters.ts';
import { readGlobalPolicy, readStagedPolicy } from '#kubernetes/calico-policy.ts';
import { PolicyIndex } from '#kubernetes/policy-index.ts';
import { readNetworkPolicy } from '#kubernetes/network-policy.ts';
import { type Ip, parseIp } from '#model/ip.ts';
import type { OwnedAddresses, PolicyFacts } from '#model/policy.ts';
import type { LocalEndpoint, Service } from '#model/resources.ts';
import { makeFlatCluster, makeHost, makeNetwork } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const network = makeNetwork('aaaaaaaaaa', { model: 'flannel' });
const self = makeHost(1);
const {
  local: [web, client],
  snapshot,
} = makeFlatCluster(network, [self, makeHost(2)], '/run/policy');
const at = ({ endpoint }: LocalEndpoint): Ip => endpoint.addresses[0] ?? assert.fail();
const owners = new Map([
  [web, 'shop/web'],
  [client, 'shop/client'],
]);
const service: Service = {
  key: 'web',
  ip: parseIp('10.96.0.5'),
  protocol: 'udp',
  port: 80,
  backends: [{ ip: at(web), port: 7000 }],
};

/** The policies of one namespace, with two pods whose labels are their names; `free`: owners of which this is a further network. */
function factsOf(specs: readonly object[], known = ['web', 'client'], free: readonly string[] = []): PolicyFacts {
  const index = indexWith(known);
  for (const [number, spec] of specs.entries()) {
    const { policy } = readNetworkPolicy({ metadata: { namespace: 'shop', name: `policy-${number}` }, spec });
    index.putPolicy(policy ?? assert.fail());
  }
  const all = owned().map((bound) => (free.includes(bound.owner) ? { ...bound, isFree: true as const } : bound));
  return index.facts(all) ?? assert.fail('no facts');
}
const owned = (): OwnedAddresses[] => [...owners].map(([{ endpoint }, owner]) => ({ owner, addresses: endpoint.addresses }));

/** Two pods whose labels are their names. */
function indexWith(known: readonly string[] = ['web', 'client']): PolicyIndex {
  const index = new PolicyIndex();
  index.putNamespace('shop', {});
  for (const name of known)
    index.putPod(`shop/${name}`, { namespace: 'shop', labels: { app: name }, account: 'default', ips: [], ports: [] });
  return index;
}

let wire: Wire;
let host: NetnsHost;
let [webBox, clientBox]: [Place, Place] = [undefined as never, undefined as never];
let listener: Peer;
const apply = (policy: PolicyFacts | undefined) => host.apply(plan(snapshot, [web, client], self, { policy, services: [service] }));

before(async () => {
  wire = new Wire();
  host = wire.host('host-1', ['10.213.0.1/16']);
  apply(undefined);
  webBox = wire.container(host, web);
  clientBox = wire.container(host, client);
  listener = await webBox.udp(at(web), 7000);
});
after(() => {
  listener[Symbol.dispose]();
  wire[Symbol.dispose]();
});

let words = 0;
/** Packets between namespaces of one host are there when sending has returned, or never. */
async function isHeard(from: Peer, target = { ip: at(web), port: 7000 }): Promise<boolean> {
  const text = `word ${(words += 1)}`;
  await from.send(text, target);
  // One more from the host itself, which nothing forbids: once it is there, the other one would be.
  using own = await host.udp('10.213.0.1');
  await own.send(`after ${text}`, { ip: at(web), port: 7000 });
  await listener.hears(`after ${text}`);
  return listener.messages.some((message) => message.text === text);
}

const closed = { podSelector: { matchLabels: { app: 'web' } } };
const open = { podSelector: { matchLabels: { app: 'web' } }, ingress: [{}] };

test('the node reaches a pod that is closed to everybody, and the pod its node', async () => {
  apply(factsOf([closed]));
  using stranger = await clientBox.udp(at(client));
  assert.equal(await isHeard(stranger), false);
  assert.ok(webBox.ping('10.213.0.1') && host.ping(at(web)));
});

/** What Calico says of what the client sends, or may get. */
const ofClient = (more: object): PolicyFacts => {
  const { policy } = readGlobalPolicy({ metadata: { name: 'out' }, spec: { selector: "app == 'client'", ...more } });
  const index = indexWith();
  index.putPolicy(policy ?? assert.fail());
  return index.facts(owned()) ?? assert.fail('no facts');
};

test("what a pod sends to its own node is policed where a policy of Calico's says what it may send", async () => {
  const node = parseIp('10.213.0.1');
  using kubelet = await host.udp(node, 10_250);
  using resolver = await host.udp(node, 5353);
  const heard = async (from: Peer): Promise<boolean[]> => {
    const text = `call ${(words += 1)}`;
    for (const { port } of [kubelet, resolver]) await from.send(text, { ip: node, port });
    using own = await host.udp('10.213.0.1');
    for (const peer of [kubelet, resolver]) {
      await own.send(`after ${text}`, { ip: node, port: peer.port });
      await peer.hears(`after ${text}`);
    }
    return [kubelet, resolver].map(({ messages }) => messages.some((message) => message.text === text));
  };
  const rule = { action: 'Allow', protocol: 'UDP', destination: { ports: [5353] } };
  apply(factsOf([{ podSelector: {}, policyTypes: ['Egress'], egress: [] }]));
  using early = await clientBox.udp(at(client));
  assert.deepEqual(await heard(early), [true, true]);
  apply(ofClient({ egress: [rule] }));
  using fresh = await clientBox.udp(at(client));
  using other = await webBox.udp(at(web));
  assert.deepEqual(
    [await heard(fresh), await heard(other)],
    [
      [false, true],
      [true, true],
    ],
  );
  assert.ok(host.ping(at(client)));
  // What is said of the other direction alone is not about that.
  apply(ofClient({ types: ['Ingress'] }));
  using last = await clientBox.udp(at(client));
  assert.deepEqual(await heard(last), [true, true]);
});

test('a policy sees the backend of a service and the client itself', async () => {
  const from = [{ podSelector: { matchLabels: { app: 'client' } } }];
  apply(factsOf([{ ...closed, ingress: [{ from, ports: [{ protocol: 'UDP', port: 7000 }] }] }]));
  using friend = await clientBox.udp(at(client));
  assert.equal(await isHeard(friend, { ip: service.ip, port: service.port }), true);
  apply(factsOf([{ ...closed, ingress: [{ from, ports: [{ protocol: 'UDP', port: 80 }] }] }]));
  using other = await clientBox.udp(at(client));
  assert.equal(await isHeard(other, { ip: service.ip, port: service.port }), false);
});

test('a pod whose labels are not known is closed in both directions', async () => {
  apply(factsOf([open], ['web']));
  using stranger = await clientBox.udp(at(client));
  assert.equal(await isHeard(stranger), false);
  apply(factsOf([open], ['web', 'client']));
  assert.equal(await isHeard(stranger), true);
});

test('no policy closes what is a further network of its pod', async () => {
  using stranger = await clientBox.udp(at(client));
  apply(factsOf([closed]));
  assert.equal(await isHeard(stranger), false);
  apply(factsOf([closed], ['web', 'client'], ['shop/web', 'shop/client']));
  assert.equal(await isHeard(stranger), true);
});

test('a connection that stands goes on until it is cut, and nothing brings it back', async () => {
  apply(factsOf([open]));
  using friend = await clientBox.udp(at(client));
  assert.equal(await isHeard(friend), true);
  await listener.send('answer', { ip: at(client), port: friend.port });
  await friend.hears('answer');
  const facts = factsOf([closed]);
  apply(facts);
  assert.equal(await isHeard(friend), true);
  const cut = (own: string): number =>
    inNetns(host.path, () => cutConnections(forbidden(facts, { own: new Set([own]), wayTo: () => undefined })));
  assert.ok(cut('10.213.0.1') > 0);
  assert.equal(await isHeard(friend), false);
  assert.equal(cut('10.213.0.1'), 0);
});

test('TCP that begins in the middle is dropped, also from the one that may begin', async () => {
  apply(factsOf([closed]));
  // An acknowledgement (flags 0x10) from port 7000 to port 40000, of no connection.
  const header = Buffer.from('1b589c4000000001000000015010100000000000', 'hex');
  const pseudo = Buffer.concat([ipBytes(at(web)), ipBytes(at(client)), Buffer.of(0, 6, 0, header.length)]);
  header.writeUInt16BE(checksum(Buffer.concat([pseudo, header])), 16);
  const escaped = header.toString('hex').replaceAll(/../g, String.raw`\x$&`);
  webBox.run('bash', '-c', `printf '${escaped}' | socat -u - IP4-SENDTO:${at(client)}:6`);
  const [table, isCounted] = [['nft', 'list', 'table', 'inet', 'causeway_policy'], /packets 1 .*no beginning/];
  await eventually(() => isCounted.test(host.run(...table)), 'it to be counted');
});

test('counters tell which rule of which policy has met a packet', async () => {
  const facts = factsOf([open]);
  apply(factsOf([closed]));
  apply(facts);
  using friend = await clientBox.udp(at(client));
  assert.equal(await isHeard(friend), true);
  const counts = inNetns(host.path, () => ruleCounts('causeway_policy'));
  const known = [...facts.policies.values()].map((policy) => ({ policy, generation: 2, problems: [] }));
  const [report] = reportOf(known, facts, { counts, cluster: new Map() });
  assert.deepEqual(
    [report?.policy, report?.generation, report?.endpoints, report?.rules.map(({ rule, action, packets }) => [rule, action, packets])],
    ['NetworkPolicy shop/policy-0', 2, 1, [['ingress 1', 'allow', 1]]],
  );
});

test('a staged policy counts what it would decide, alone in its tier and before others, and decides nothing', async () => {
  const index = new PolicyIndex();
  index.putNamespace('shop', {});
  for (const name of ['web', 'client'])
    index.putPod(`shop/${name}`, { namespace: 'shop', labels: { app: name }, account: 'default', ips: [], ports: [] });
  const staged = (name: string, spec: object): void => {
    const item = { metadata: { namespace: 'shop', name }, spec: { selector: "app == 'web'", ...spec } };
    index.putPolicy(readStagedPolicy(item).policy ?? assert.fail());
  };
  staged('strict', {
    order: 1,
    ingress: [{ action: 'Log' }, { action: 'Deny', protocol: 'UDP', source: { selector: "app == 'client'" } }],
  });
  staged('other', { order: 2, ingress: [{ action: 'Allow', protocol: 'TCP' }] });
  const local = [...owners].map(([{ endpoint }, owner]) => ({ owner, addresses: endpoint.addresses }));
  const counted = async (): Promise<unknown> => {
    const facts = index.facts(local) ?? assert.fail();
    apply(facts);
    using friend = await clientBox.udp(at(client));
    assert.equal(await isHeard(friend), true);
    const known = [...index.policies.values()].map((policy) => ({ policy, generation: 1, problems: [] }));
    const counts = inNetns(host.path, () => ruleCounts('causeway_policy'));
    return reportOf(known, facts, { counts, cluster: new Map() })
      .filter(({ staged: is }) => is)
      .map(({ policy, rules }) => [policy, rules.map(({ rule, action, packets }) => `${rule} ${action} ${packets}`)]);
  };
  const expected = [
    ['StagedNetworkPolicy shop/other', ['ingress 1 allow 0', 'ingress otherwise deny 1']],
    ['StagedNetworkPolicy shop/strict', ['ingress 1 log 0', 'ingress 2 deny 1', 'ingress otherwise deny 0']],
  ];
  assert.deepEqual(await counted(), expected);
  // TCP that begins in the middle is not the business of staged policies alone.
  assert.ok(!host.run('nft', 'list', 'table', 'inet', 'causeway_policy').includes('no beginning'));
  const { policy } = readNetworkPolicy({ metadata: { namespace: 'shop', name: 'open' }, spec: open });
  index.putPolicy(policy ?? assert.fail());
  assert.deepEqual(await counted(), expected);
});

const forget = (selections: readonly ConntrackSelection[]): number =>
  inNetns(host.path, () => flushConntrack(host.kinds.sockets, '', selections));

test('who gets the address of a pod that has gone is not met by what that one had begun', async () => {
  apply(factsOf([closed]));
  using friend = await clientBox.udp(at(client));
  await listener.send('question', { ip: at(client), port: friend.port });
  await friend.hears('question');
  assert.equal(await isHeard(friend), true);
  const ended = new EndedConnections({ forget: (selections) => assert.ok(forget(selections) > 0), forgetAside: () => Promise.resolve() });
  const element = { netns: '', table: 'causeway', set: 'members4', key: `"cwe1" . ${web.endpoint.mac} . ${at(web)}` };
  ended.changed([element], []);
  ended.changed([], [element]);
  assert.equal(await isHeard(friend), false);
});

test('what is denied can be logged with its rule, and is denied all the same', async () => {
  const facts = { ...factsOf([closed]), logDenied: true };
  apply(facts);
  using stranger = await clientBox.udp(at(client));
  assert.equal(await isHeard(stranger), false);
  const rules = host.run('nft', 'list', 'table', 'inet', 'causeway_policy');
  assert.match(rules, /log prefix "causeway: ingress: no policy of tier default allows it "/);
});

test('docs/rules/policy.md says what is in the kernel', (t) => {
  const from = [{ podSelector: { matchLabels: { app: 'client' } } }, { ipBlock: { cidr: '192.0.2.0/24', except: ['192.0.2.128/25'] } }];
  const spec = { podSelector: { matchLabels: { app: 'web' } }, ingress: [{ from, ports: [{ port: 80 }, { port: 8000, endPort: 8080 }] }] };
  apply(factsOf([spec]));
  checkPolicyPage(t, host.run('nft', 'list', 'table', 'inet', 'causeway_policy'), {
    file: 'policy.md',
    title: 'Policy of pods',
    about: [
      'Read back from a kernel by `src/drivers/policy-edges.netns.test.ts`; not written by hand. The pod `shop/web`, 10.44.0.2, is selected by',
      'a policy that lets in `shop/client`, 10.44.0.3, and half of 192.0.2.0/24 at the ports 80 and 8000 to 8080. See [policy](../policy.md).',
      '',
      '`leaving4` and `entering4` lead from the address of a pod to the chain of its combination of policies, or accept where it has none;',
      '`itself4` says who speaks with itself. The sets `a…` are whom a rule means. In `ingress_of_…` what begins no connection ends; then come',
      'the tiers, in each the policies, and what happens when none of them decides. `egress` and `ingress` are where packets come from.',
    ],
  });
});

test('no short cut leads past policies', () => {
  assert.deepEqual(plan(snapshot, [web, client], self, { policy: factsOf([closed]) }).fast, []);
});

test('another combination of policies leaves no moment without any', () => {
  apply(factsOf([closed]));
  const tables = plan(snapshot, [web, client], self, { policy: factsOf([closed, open]) }).table;
  const [policy] = tables.filter(({ name }) => name === 'causeway_policy');
  assert.ok(policy?.elements?.some(({ set, value }) => set === 'entering4' && value?.startsWith('goto ')));
});
