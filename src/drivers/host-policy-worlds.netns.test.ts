// Host endpoints in the kernel, with real packets: for a sample of random nodes, what arrives is what the reference says.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import * as fc from 'fast-check';
import { mustBeIsolated } from '#test/isolated.ts';
import { eventually, type NetnsHost, type Peer, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { flushConntrack } from '#kernel/conntrack.ts';
import { hostFacts } from '#kubernetes/host-facts.fixture.ts';
import { type HostPacket, HostReference, linkAddresses, type Outcome, podAddress } from '#kubernetes/host-reference.fixture.ts';
import { hostPackets, hostWorlds, nodePort, outsiders, podPort, worldPorts } from '#kubernetes/host-worlds.fixture.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { PolicyFacts } from '#model/policy.ts';
import type { LocalEndpoint, Service } from '#model/resources.ts';
import { makeEndpoint, makeFlatCluster, makeHost, makeNetwork } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const network = { ...makeNetwork('aaaaaaaaaa', { model: 'flannel' }), names: 'elsewhere' as const };
const self = makeHost(1, {
  underlay: [
    { interface: 'eth0', ip: parseIp(linkAddresses.eth0), subnet: parseCidr('10.213.0.0/16'), mtu: 1450 },
    { interface: 'eth1', ip: parseIp(linkAddresses.eth1), subnet: parseCidr('10.214.0.0/16'), mtu: 1450 },
  ],
});
const { snapshot } = makeFlatCluster(network, [self, makeHost(2)], '/run/host-policy');
const pod: LocalEndpoint = {
  endpoint: makeEndpoint(network.id, 'host-1', 1, [parseIp(podAddress)]),
  slot: 1,
  sandbox: '/run/host-policy/1',
  order: 1,
};
const services: readonly Service[] = [
  { key: 'web', ip: parseIp('0.0.0.0'), protocol: 'udp', port: nodePort, backends: [{ ip: parseIp(podAddress), port: podPort }] },
];

let wire: Wire;
let host: NetnsHost;
/** By every address. */
const places = new Map<string, Place>();
const listeners: Peer[] = [];
const apply = (policy: PolicyFacts | undefined) => host.apply(plan(snapshot, [pod], self, { policy, services }));

before(async () => {
  wire = new Wire();
  host = wire.host('host-1', [`${linkAddresses.eth0}/16`]);
  const first = wire.place('first', [`${outsiders.eth0}/16`]);
  const second = wire.place('second', []);
  host.ip('link', 'add', 'eth1', 'type', 'veth', 'peer', 'name', 'eth1', 'netns', second.path);
  host.ip('addr', 'add', `${linkAddresses.eth1}/16`, 'dev', 'eth1');
  host.ip('link', 'set', 'eth1', 'up');
  second.ip('addr', 'add', `${outsiders.eth1}/16`, 'dev', 'eth1');
  second.ip('link', 'set', 'eth1', 'up');
  first.ip('route', 'add', 'default', 'via', linkAddresses.eth0);
  second.ip('route', 'add', 'default', 'via', linkAddresses.eth1);
  apply(undefined);
  const box = wire.container(host, pod);
  const found = [
    [outsiders.eth0, first],
    [outsiders.eth1, second],
    [linkAddresses.eth0, host],
    [linkAddresses.eth1, host],
    [podAddress, box],
  ] as const;
  for (const [ip, place] of found) {
    places.set(ip, place);
    for (const port of worldPorts) listeners.push(await place.udp(ip, port));
  }
});
after(() => {
  for (const listener of listeners) listener[Symbol.dispose]();
  wire[Symbol.dispose]();
});

const isHeard = (text: string): boolean => listeners.some(({ messages }) => messages.some((message) => message.text === text));

let words = 0;
/** Whether each arrives; the kernel forwards between namespaces in order, so what has not come when later ones have is lost. */
async function arrives(some: readonly HostPacket[], expected: readonly boolean[]): Promise<boolean[]> {
  const texts = some.map(() => `word ${(words += 1)}`);
  for (const [index, packet] of some.entries()) {
    const { destination, port } = { ...packet, ...packet.before };
    using sender = await (places.get(packet.source) ?? assert.fail(packet.source)).udp(packet.source);
    await sender.send(texts[index] ?? '', { ip: destination, port });
  }
  const due = texts.filter((_, index) => expected[index]);
  await eventually(() => due.every(isHeard), 'packets that are allowed', 30_000).catch(() => undefined);
  return texts.map(isHeard);
}

const samples = fc.sample(fc.tuple(hostWorlds, fc.array(hostPackets, { minLength: 40, maxLength: 40 })), { numRuns: 60, seed: 7 });

test('packets to, from and through random nodes arrive exactly where the reference lets them', async () => {
  const seen: Record<Outcome, number> = { allow: 0, deny: 0, untracked: 0 };
  for (const [world, packets] of samples) {
    apply(hostFacts(world));
    const reference = new HostReference(world);
    const outcomes = packets.map((packet) => reference.outcome(packet));
    // What is not tracked is not translated, and nobody listens at the node port itself.
    const expected = packets.map(
      ({ before: sent }, index) => outcomes[index] !== 'deny' && (sent === undefined || outcomes[index] === 'allow'),
    );
    assert.deepEqual(await arrives(packets, expected), expected, JSON.stringify({ world, packets }));
    for (const outcome of outcomes) seen[outcome] += 1;
    flushConntrack(host.kinds.sockets, '', [{ protocol: 'udp' }]);
  }
  assert.ok(seen.allow > 100 && seen.deny > 100 && seen.untracked > 5, JSON.stringify(seen));
});
