// Policy at a host's own links, with real packets: its own processes, what is forwarded, what is translated, and what is
// never cut off.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { checkPolicyPage } from '#test/policy-page.ts';
import { eventually, type NetnsHost, type Peer, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { forbidden } from '#agent/policed-connections.ts';
import { cutConnections } from '#kernel/conntrack.ts';
import { inNetns } from '#kernel/netns.ts';
import { everything, type Ip, parseIp } from '#model/ip.ts';
import type { Action, Failsafe, GuardedLink, OrderedPolicy, PolicyFacts, Rule } from '#model/policy.ts';
import { protocols } from '#model/policy.ts';
import type { Service } from '#model/resources.ts';
import { makeFlatCluster, makeHost, makeNetwork } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const network = makeNetwork('aaaaaaaaaa', { model: 'flannel' });
const self = makeHost(1);
const {
  local: [pod],
  snapshot,
} = makeFlatCluster(network, [self, makeHost(2)], '/run/host-policy');
const podIp = ((endpoint): Ip => endpoint.endpoint.addresses[0] ?? assert.fail())(pod);
const hostIp = '10.213.0.1';
const outsideIp = '10.213.9.9';
const services: readonly Service[] = [
  { key: 'near', ip: parseIp('0.0.0.0'), protocol: 'udp', port: 30_080, backends: [{ ip: podIp, port: 7000 }] },
  { key: 'far', ip: parseIp('10.96.0.9'), protocol: 'udp', port: 80, backends: [{ ip: parseIp(outsideIp), port: 5000 }] },
];

const failsafes: readonly Failsafe[] = [
  { direction: 'in', protocol: protocols.udp, port: 68, cidr: everything[4] },
  { direction: 'in', protocol: protocols.tcp, port: 22, cidr: everything[4] },
  { direction: 'in', protocol: protocols.tcp, port: 22, cidr: everything[6] },
  { direction: 'out', protocol: protocols.udp, port: 54, cidr: everything[4] },
  { direction: 'out', protocol: protocols.tcp, port: 6443, cidr: everything[4] },
];

/** One protocol's port, of the destination. */
const rule = (action: Action, port: number, more: Partial<Rule> = {}): Rule => ({
  name: `${action} ${port}`,
  action,
  protocol: protocols.udp,
  source: {},
  destination: { ports: { ranges: [[port, port]], named: [] } },
  ...more,
});
const policy = (name: string, more: Partial<OrderedPolicy>): OrderedPolicy => ({
  key: name,
  name,
  tier: 'default',
  order: 1000,
  subject: { type: 'all' },
  onHosts: 'local',
  sets: {},
  ...more,
});
const eth0: Omit<GuardedLink, 'policies'> = { name: 'HostEndpoint eth0', link: 'eth0', otherwise: 'deny' };

/** All of them are for every link. */
const factsOf = (policies: readonly OrderedPolicy[], links: readonly Omit<GuardedLink, 'policies'>[] = [eth0]): PolicyFacts => ({
  tiers: [{ name: 'default', order: 1_000_000, otherwise: 'deny' }],
  policies: new Map(policies.map((one) => [one.key, one])),
  sets: new Map(),
  named: new Map(),
  endpoints: [{ owner: 'shop/web', addresses: pod.endpoint.addresses, policies: [] }],
  host: { links: links.map((link) => ({ ...link, policies: policies.map(({ key }) => key) })), spared: [], failsafes },
});

let wire: Wire;
let host: NetnsHost;
let outside: Place;
let box: Place;
const listeners: Peer[] = [];
const apply = (facts: PolicyFacts | undefined) => host.apply(plan(snapshot, [pod], self, { policy: facts, services }));

before(async () => {
  wire = new Wire();
  host = wire.host('host-1', [`${hostIp}/16`, 'fd00:213::1/64']);
  outside = wire.place('outside', [`${outsideIp}/16`, 'fd00:213::9:9/64']);
  outside.ip('route', 'add', '10.44.0.0/16', 'via', hostIp);
  // Where a service is, as it seems before it is translated.
  host.ip('route', 'add', '10.96.0.0/16', 'dev', 'lo');
  apply(undefined);
  box = wire.container(host, pod);
  for (const port of [68, 5000, 5001]) listeners.push(await host.udp(hostIp, port));
  listeners.push(await box.udp(podIp, 7000));
  for (const port of [54, 5000]) listeners.push(await outside.udp(outsideIp, port));
});
after(() => {
  for (const listener of listeners) listener[Symbol.dispose]();
  wire[Symbol.dispose]();
});

const isThere = (text: string): boolean => listeners.some(({ messages }) => messages.some((message) => message.text === text));
let words = 0;

/** Whether a datagram arrives: one to a port that is always open is sent after it by the same way. */
async function arrives(from: Place, source: string, target: { readonly ip: string; readonly port: number }): Promise<boolean> {
  const text = `word ${(words += 1)}`;
  using sender = await from.udp(source);
  await sender.send(text, target);
  await sender.send(`after ${text}`, from === outside ? { ip: hostIp, port: 68 } : { ip: outsideIp, port: 54 });
  await eventually(() => isThere(`after ${text}`), 'the next one');
  return isThere(text);
}
const comesIn = (port: number): Promise<boolean> => arrives(outside, outsideIp, { ip: hostIp, port });
const goesOut = (port: number): Promise<boolean> => arrives(host, hostIp, { ip: outsideIp, port });
const toPod = (): Promise<boolean> => arrives(outside, outsideIp, { ip: podIp, port: 7000 });
const fromPod = (): Promise<boolean> => arrives(box, podIp, { ip: outsideIp, port: 5000 });
const reachesNodePort = (): Promise<boolean> => arrives(outside, outsideIp, { ip: hostIp, port: 30_080 });
const untracked = (more: Partial<OrderedPolicy>): OrderedPolicy => policy('untracked', { onHosts: 'untracked', ...more });
const early = (...rules: Rule[]): OrderedPolicy => policy('early', { onHosts: 'untranslated', ingress: rules });
/** Whether TCP gets an answer, be it that nobody listens. Who expects none does not wait long for it. */
const isAnswered = (from: Place, to: string, port: number, seconds = '30'): boolean =>
  from.try('timeout', seconds, 'socat', '-u', `TCP:${to.includes(':') ? `[${to}]` : to}:${port}`, '-').output.includes('refused');
const isSilent = (from: Place, to: string, port: number): boolean => !isAnswered(from, to, port, '0.3');

test('a link without a policy is closed for the host, but for failsafe ports; containers are not touched', async () => {
  apply(factsOf([]));
  assert.deepEqual([await comesIn(5000), await goesOut(5000)], [false, false]);
  assert.ok(outside.loses(hostIp));
  assert.ok(isAnswered(outside, hostIp, 22) && isAnswered(outside, 'fd00:213::1', 22) && isSilent(outside, hostIp, 23));
  assert.ok(box.ping(hostIp) && host.ping(podIp) && host.ping(hostIp));
  assert.equal(await arrives(outside, outsideIp, { ip: podIp, port: 7000 }), true);
});

test('ingress and egress rules decide, and a direction without a policy stays closed', async () => {
  apply(factsOf([policy('in', { ingress: [rule('allow', 5000)] })]));
  assert.deepEqual([await comesIn(5000), await comesIn(5001), await goesOut(5000)], [true, false, false]);
  apply(factsOf([policy('out', { egress: [rule('allow', 5000)] })]));
  assert.deepEqual([await comesIn(5000), await goesOut(5000)], [false, true]);
  apply(factsOf([policy('in', { ingress: [rule('deny', 5000)] })], [{ ...eth0, otherwise: 'allow' }]));
  assert.deepEqual([await comesIn(5000), await comesIn(5001), await goesOut(5000)], [false, false, true]);
});

test('a connection that stands goes on until it is cut', async () => {
  apply(undefined);
  using there = await outside.udp(outsideIp);
  using here = await host.udp(hostIp, 5005);
  await there.send('hello', { ip: hostIp, port: 5005 });
  await here.hears('hello');
  await here.send('welcome', { ip: outsideIp, port: there.port });
  await there.hears('welcome');
  apply(factsOf([]));
  await there.send('still there?', { ip: hostIp, port: 5005 });
  await here.hears('still there?');
  await here.send('yes', { ip: outsideIp, port: there.port });
  await there.hears('yes');
  const surroundings = { own: new Set([hostIp]), wayTo: () => 'eth0' };
  const cut = (facts: PolicyFacts): number => inNetns(host.path, () => cutConnections(forbidden(facts, surroundings)));
  assert.equal(cut(factsOf([], [{ ...eth0, otherwise: 'allow' }])), 0);
  assert.ok(cut(factsOf([])) > 0);
  await there.send('and now?', { ip: hostIp, port: 5005 });
  await there.send('after that', { ip: hostIp, port: 68 });
  await eventually(() => isThere('after that'), 'the next one');
  assert.ok(!here.messages.some(({ text }) => text === 'and now?'));
});

test('TCP that begins in the middle is dropped at a link under policy, also where it could begin', async () => {
  apply(factsOf([policy('in', { ingress: [rule('allow', 5000)] })], [{ ...eth0, otherwise: 'allow' }]));
  // An acknowledgement (flags 0x10) from port 7000 to port 40000, of no connection.
  const header = String.raw`\x1b\x58\x9c\x40\0\0\0\1\0\0\0\1\x50\x10\x10\0\0\0\0\0`;
  // Who sends it is told that it may not.
  host.try('bash', '-c', `printf '${header}' | socat -u - IP4-SENDTO:${outsideIp}:6`);
  const [table, isCounted] = [
    ['nft', 'list', 'table', 'inet', 'causeway_policy'],
    /packets [1-9].* comment "no beginning of a connection"/,
  ];
  await eventually(() => isCounted.test(host.run(...table)), 'it to be counted');
});

test('every link is meant by none, unless another names it', async () => {
  const every = { name: 'HostEndpoint all', otherwise: 'deny' } as const;
  apply(factsOf([], [every]));
  assert.deepEqual([await comesIn(5000), await goesOut(5000)], [false, false]);
  assert.ok(box.ping(hostIp) && host.ping(podIp) && host.ping(hostIp) && isAnswered(outside, hostIp, 22));
  apply(factsOf([], [every, { ...eth0, otherwise: 'allow' }]));
  assert.deepEqual([await comesIn(5000), await goesOut(5000)], [true, true]);
  const facts = factsOf([], [every]);
  apply({ ...facts, host: { failsafes, links: [], ...facts.host, spared: ['eth0'] } });
  assert.deepEqual([await comesIn(5000), await goesOut(5000)], [true, true]);
  apply(factsOf([], [{ ...eth0, link: 'eth1' }]));
  assert.equal(await comesIn(5000), true);
});

test('what is forwarded is met by policies that say so, and by no others', async () => {
  apply(factsOf([policy('here', { ingress: [], egress: [] })]));
  assert.deepEqual([await toPod(), await fromPod()], [true, true]);
  apply(factsOf([policy('through', { ingress: [], onHosts: 'forwarded' })]));
  assert.deepEqual([await toPod(), await fromPod()], [false, true]);
  apply(factsOf([policy('through', { egress: [rule('allow', 54)], onHosts: 'forwarded' })]));
  assert.deepEqual([await toPod(), await fromPod()], [true, false]);
  apply(
    factsOf([
      policy('through', { ingress: [rule('allow', 7000)], egress: [rule('allow', 5000), rule('allow', 54)], onHosts: 'forwarded' }),
    ]),
  );
  assert.deepEqual([await toPod(), await fromPod()], [true, true]);
});

test('before a node port is translated a policy sees the node port, and what it allows no other policy asks again', async () => {
  const through = policy('through', { order: 2000, ingress: [], onHosts: 'forwarded' });
  apply(factsOf([]));
  assert.equal(await reachesNodePort(), true);
  apply(factsOf([early(rule('deny', 30_080))]));
  assert.equal(await reachesNodePort(), false);
  apply(factsOf([early(rule('deny', 7000))]));
  assert.equal(await reachesNodePort(), true);
  apply(factsOf([early(rule('deny', 7000)), through]));
  assert.equal(await reachesNodePort(), false);
  apply(factsOf([early(rule('allow', 30_080)), through]));
  assert.equal(await reachesNodePort(), true);
  apply(factsOf([early(rule('allow', 5000), rule('deny', 5001), rule('deny', 68))]));
  assert.deepEqual([await comesIn(5000), await comesIn(5001)], [true, false]);
});

test('untracked policy lets both directions through without a connection, and asks nobody else', async () => {
  const tracked = (): string[] =>
    host
      .run('cat', '/proc/net/nf_conntrack')
      .split('\n')
      .filter((line) => line.includes('dport=5000'));
  const answering = rule('allow', 0, { destination: {}, source: { ports: { ranges: [[5000, 5000]], named: [] } } });
  host.run('conntrack', '-F');
  apply(factsOf([untracked({ ingress: [rule('allow', 5000)], egress: [answering] })]));
  const [, here] = listeners;
  using there = await outside.udp(outsideIp);
  await there.send('no connection', { ip: hostIp, port: 5000 });
  await here?.hears('no connection');
  await here?.send('none at all', { ip: outsideIp, port: there.port });
  await there.hears('none at all');
  assert.deepEqual(tracked(), []);
  assert.equal(await comesIn(5001), false);
  apply(factsOf([untracked({ ingress: [rule('deny', 5000), rule('deny', 68), rule('deny', 54)] })], [{ ...eth0, otherwise: 'allow' }]));
  assert.deepEqual([await comesIn(5000), await comesIn(5001), await goesOut(5000)], [false, true, true]);
  apply(factsOf([untracked({ ingress: [rule('deny', 5000)] })], [{ name: 'HostEndpoint all', otherwise: 'allow' }]));
  assert.equal(await comesIn(5000), true);
});

test('a process of the host that asks a service is met where the service leads', async () => {
  apply(factsOf([]));
  assert.equal(await arrives(host, hostIp, { ip: hostIp, port: 30_080 }), true);
  const far = { ip: '10.96.0.9', port: 80 };
  apply(factsOf([policy('backend', { egress: [rule('allow', 5000)] })]));
  assert.equal(await arrives(host, hostIp, far), true);
  apply(factsOf([policy('service', { egress: [rule('allow', 80)] })]));
  assert.equal(await arrives(host, hostIp, far), false);
});

test('what carries networks and leads the agent passes', async () => {
  apply(factsOf([]));
  const denied = (): number => {
    const lines = host.run('nft', 'list', 'table', 'inet', 'causeway_policy').split('\n');
    return lines
      .flatMap((line) => /packets (\d+) .* comment "ingress: no policy/.exec(line)?.[1] ?? [])
      .reduce((sum, count) => sum + Number(count), 0);
  };
  using sender = await outside.udp(outsideIp);
  await sender.send('not even a packet of a network', { ip: hostIp, port: 8472 });
  assert.equal(await comesIn(5001), false);
  assert.equal(denied(), 1);
  assert.ok(isAnswered(host, outsideIp, 6443) && isAnswered(host, outsideIp, 179) && isSilent(host, outsideIp, 6444));
});

test('docs/rules/host-policy.md says what is in the kernel', (t) => {
  const ssh = failsafes.filter(({ port }) => port === 22);
  const facts = factsOf([
    policy('GlobalNetworkPolicy node-ports', { onHosts: 'untranslated', ingress: [rule('deny', 30_080)] }),
    policy('GlobalNetworkPolicy web', { ingress: [rule('allow', 5000)] }),
  ]);
  apply({ ...facts, host: { links: [], spared: [], ...facts.host, failsafes: ssh }, endpoints: [] });
  checkPolicyPage(t, host.run('nft', 'list', 'table', 'inet', 'causeway_policy'), {
    file: 'host-policy.md',
    title: 'Policy of a host',
    about: [
      'Read back from a kernel by `src/drivers/host-policy.netns.test.ts`; not written by hand. The link eth0 is under policy: one that allows',
      'UDP 5000 in, and one that denies the node port 30080 before it is translated. See [policy on nodes themselves](../host-policy.md).',
      '',
      '`host_early`, `host_in` and `host_out` are where packets come by; there are others where policies have something to say. Each first',
      'lets pass what is never cut off, then leads by the link to the chain of its combination of policies: `host_early_links` and the',
      'others, behind which stands what is done with all other links. `allowed_early` marks what needs no more questions.',
    ],
  });
});

test('the same facts change nothing a second time, and without a host endpoint all is open again', async () => {
  const facts = factsOf([policy('in', { ingress: [rule('allow', 5000)], onHosts: 'forwarded' })]);
  apply(facts);
  host.forget();
  assert.equal(apply(facts).changed, 0);
  apply(undefined);
  assert.equal(await comesIn(5001), true);
  assert.ok(!host.run('nft', 'list', 'tables').includes('causeway_policy'));
});
