// Policies in the kernel, with real packets: for a sample of random clusters, what arrives is what the reference says.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import * as fc from 'fast-check';
import { mustBeIsolated } from '#test/isolated.ts';
import { eventually, type NetnsHost, type Peer, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { flushConntrack } from '#kernel/conntrack.ts';
import { calicoPackets, calicoWorlds } from '#kubernetes/calico-worlds.fixture.ts';
import { indexOf, localOf } from '#kubernetes/policy-cluster.fixture.ts';
import { Reference } from '#kubernetes/policy-reference.fixture.ts';
import type { World, WorldPacket } from '#kubernetes/policy-world.fixture.ts';
import { outsiders, packets, worlds } from '#kubernetes/policy-worlds.fixture.ts';
import { parseIp } from '#model/ip.ts';
import type { LocalEndpoint } from '#model/resources.ts';
import { makeEndpoint, makeFlatCluster, makeHost, makeNetwork } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const count = 4;
const ports = [53, 80, 81, 8080];
const network = { ...makeNetwork('aaaaaaaaaa', { model: 'flannel' }), names: 'elsewhere' as const };
const self = makeHost(1);
const { snapshot } = makeFlatCluster(network, [self, makeHost(2)], '/run/policy');
const local = Array.from({ length: count }, (_, index): LocalEndpoint => {
  const addresses = [parseIp(`10.44.0.${index + 1}`), parseIp(`fd44::${index + 1}`)];
  return { endpoint: makeEndpoint(network.id, 'host-1', index + 1, addresses), slot: index + 1, sandbox: `/run/policy/${index}`, order: 1 };
});

let wire: Wire;
let host: NetnsHost;
/** By every address. */
const places = new Map<string, Place>();
const listeners: Peer[] = [];

const apply = (world: World) => host.apply(plan(snapshot, local, self, { policy: indexOf(world).facts(localOf(world)) }));
const placeOf = (ip: string): Place => places.get(ip) ?? assert.fail(`nobody is at ${ip}`);

before(async () => {
  wire = new Wire();
  host = wire.host('host-1', ['10.213.0.1/16', 'fd00:213::1/64']);
  const outside = wire.place('outside', ['10.213.9.9/16', 'fd00:213::9:9/64']);
  host.apply(plan(snapshot, local, self));
  for (const [outsider, via, range, gateway] of [
    [outsiders[0], '10.213.9.9', '10.44.0.0/16', '10.213.0.1'],
    [outsiders[1], 'fd00:213::9:9', 'fd44::/64', 'fd00:213::1'],
  ] as const) {
    outside.ip('addr', 'add', outsider, 'dev', 'lo', ...(outsider.includes(':') ? ['nodad'] : []));
    outside.ip('route', 'add', range, 'via', gateway, 'src', outsider);
    host.ip('route', 'add', outsider, 'via', via);
    places.set(outsider, outside);
  }
  for (const each of local) {
    const box = wire.container(host, each);
    for (const ip of each.endpoint.addresses) places.set(ip, box);
  }
  for (const [ip, place] of places) for (const port of ports) listeners.push(await place.udp(ip, port));
});
after(() => {
  for (const listener of listeners) listener[Symbol.dispose]();
  wire[Symbol.dispose]();
});

const isHeard = (text: string): boolean => listeners.some(({ messages }) => messages.some((message) => message.text === text));

let words = 0;
/** Whether each arrives; the kernel forwards between namespaces in order, so what has not come when later ones have is lost. */
async function arrives(some: readonly WorldPacket[], expected: readonly boolean[]): Promise<boolean[]> {
  const texts = some.map(() => `word ${(words += 1)}`);
  for (const [index, { source, destination, port }] of some.entries()) {
    using sender = await placeOf(source).udp(source);
    await sender.send(texts[index] ?? '', { ip: destination, port });
  }
  const due = texts.filter((_, index) => expected[index]);
  await eventually(() => due.every(isHeard), 'packets that are allowed', 30_000).catch(() => undefined);
  return texts.map(isHeard);
}

/** A closed port answers a first packet at once: refused is allowed. */
function connects({ source, destination, port }: WorldPacket, seconds: string): boolean {
  const from = source.includes(':') ? `[${source}]` : source;
  const to = destination.includes(':') ? `[${destination}]` : destination;
  const words2 = ['timeout', seconds, 'socat', '-u', `TCP:${to}:${port},bind=${from}:0`, '-'];
  return placeOf(source)
    .try(...words2)
    .output.includes('refused');
}

type Sample = readonly [World, readonly WorldPacket[]];
const sampled = (some: fc.Arbitrary<World>, packet: fc.Arbitrary<WorldPacket>): readonly Sample[] =>
  fc.sample(fc.tuple(some, fc.array(packet, { minLength: 60, maxLength: 60 })), { numRuns: 25, seed: 4 });
const samples = sampled(worlds(count), packets(count));
const calicoSamples = sampled(calicoWorlds(count), calicoPackets(count));

const isEcho = ({ icmp }: WorldPacket): boolean => icmp?.type === 8 && icmp.code === 0;

/** One of each protocol after the other, since what has been let through stands. */
async function compare([world, all]: Sample, seen: { allowed: number; denied: number }): Promise<void> {
  apply(world);
  const reference = new Reference(world);
  const between = all.filter(({ source, destination }) => placeOf(source) !== placeOf(destination));
  const datagrams = between.filter(({ protocol }) => protocol === 'UDP');
  const expected = datagrams.map((packet) => reference.allows(packet));
  assert.deepEqual(await arrives(datagrams, expected), expected, JSON.stringify({ world, datagrams }));
  for (const allowed of expected) seen[allowed ? 'allowed' : 'denied'] += 1;
  for (const packet of between.filter(({ protocol }) => protocol === 'TCP').slice(0, 3)) {
    const isAllowed = reference.allows(packet);
    assert.equal(connects(packet, isAllowed ? '30' : '0.1'), isAllowed, JSON.stringify({ world, packet }));
  }
  for (const packet of between.filter(isEcho).slice(0, 3)) {
    const isAllowed = reference.allows(packet);
    assert.equal(isEchoed(packet, isAllowed ? '30' : '0.2'), isAllowed, JSON.stringify({ world, packet }));
  }
  flushConntrack(host.kinds.sockets, '', [{ protocol: 'udp' }, { protocol: 'tcp' }, { protocol: 'icmp' }]);
}

const isEchoed = ({ source, destination }: WorldPacket, seconds: string): boolean =>
  placeOf(source).try('ping', '-c', '1', '-W', seconds, '-I', source, destination).status === 0;

for (const [what, some] of [
  ['random clusters', samples],
  ['random clusters with Calico’s policies', calicoSamples],
] as const) {
  test(`packets of ${what} arrive exactly where the reference lets them`, async () => {
    const seen = { allowed: 0, denied: 0 };
    for (const sample of some) await compare(sample, seen);
    assert.ok(seen.allowed > 50 && seen.denied > 50, JSON.stringify(seen));
  });

  test(`a second run finds everything as it should be, for every sample of ${what}`, () => {
    for (const [world] of some) {
      apply(world);
      host.forget();
      assert.equal(apply(world).changed, 0, JSON.stringify(world));
    }
  });
}
