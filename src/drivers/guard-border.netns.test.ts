// Borders on one host, with real packets: two networks that the host routes itself, an isolated one, a bridge of an engine, and
// the host's own loopback addresses. Links that let the host's questions to localhost out to a published port
// (net.ipv4.conf.*.route_localnet) must let nobody else's in: CVE-2020-8558.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { asked, listen, word } from '#agent/conversation.fixture.ts';
import { eventually, type NetnsHost, type Peer, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { type Ip, parseIp } from '#model/ip.ts';
import type { LocalEndpoint, PublishedPort } from '#model/resources.ts';
import { makeBlock, makeDualHost, makeDualLocal, makeDualPools, makeNetwork, snapshotOf } from './cluster.fixture.ts';
import { plan } from './plan.ts';
import { mustBeIsolated } from '#test/isolated.ts';

mustBeIsolated();

const port = 7000;
const flat = makeNetwork('aaaaaaaaaa', { model: 'flannel', carry: 'direct-routing' });
const other = makeNetwork('bbbbbbbbbb', { model: 'flannel', carry: 'host-gateway', vni: 4097 });
const isolated = makeNetwork('cccccccccc', { vni: 4098 });
const networks = [flat, other, isolated];
const pools = makeDualPools(networks);
const hosts = [1, 2].map((index) => makeDualHost(index));

/** Endpoint of network `of` on a host, with a port open everywhere and one only for the host's localhost. */
function local(number: number, of: number, host: number): LocalEndpoint {
  const ports: PublishedPort[] = [
    { protocol: 'udp', hostPort: 5000 + number, port },
    { protocol: 'udp', hostPort: 6000 + number, port, hostIp: parseIp('127.0.0.1') },
  ];
  return makeDualLocal(networks, { number, of, host, ports, sandboxes: '/run/border' });
}

const [a, b, c, d, far] = [local(1, 0, 1), local(2, 0, 1), local(3, 1, 1), local(4, 2, 1), local(5, 1, 2)];
const snapshot = snapshotOf({
  hosts,
  networks,
  pools,
  blocks: pools.flatMap((pool) => [makeBlock(pool, 0, 'host-1'), makeBlock(pool, 1, 'host-2')]),
  endpoints: [a, b, c, d, far].map(({ endpoint }) => endpoint),
});

let wire: Wire;
let [one, two]: [NetnsHost, NetnsHost] = [undefined as never, undefined as never];
let outside: Place;
let bridged: Place;
const boxes = new Map<LocalEndpoint, Place>();
const box = (of: LocalEndpoint): Place => boxes.get(of) ?? assert.fail('no such box');

before(() => {
  wire = new Wire();
  one = wire.host('host-1', ['10.213.0.1/16', 'fd00:213::1/64']);
  two = wire.host('host-2', ['10.213.0.2/16', 'fd00:213::2/64']);
  outside = wire.place('outside', ['10.213.9.9/16', 'fd00:213::9:9/64']);
  for (const [host, index, here] of [
    [one, 0, [a, b, c, d]],
    [two, 1, [far]],
  ] as const) {
    host.apply(plan(snapshot, here, hosts[index] ?? assert.fail()));
    host.ip('route', 'add', 'default', 'via', '10.213.9.9');
    for (const each of here) boxes.set(each, wire.container(host, each));
  }
  // What an engine's bridge looks like from here: a link by its name, with containers behind it.
  bridged = wire.place('bridged', []);
  bridged.ip('link', 'set', 'eth0', 'down');
  one.ip('link', 'add', 'docker0', 'type', 'veth', 'peer', 'eth1', 'netns', bridged.path);
  for (const [place, link, last] of [
    [one, 'docker0', 1],
    [bridged, 'eth1', 2],
  ] as const) {
    place.ip('addr', 'add', `172.17.0.${last}/16`, 'dev', link);
    place.ip('addr', 'add', `fd17::${last}/64`, 'dev', link, 'nodad');
    place.ip('link', 'set', link, 'up');
  }
  bridged.ip('route', 'add', 'default', 'via', '172.17.0.1');
  bridged.ip('route', 'add', 'default', 'via', 'fd17::1');
});
after(() => wire[Symbol.dispose]());

/** Nothing of what is sent arrives, though what is sent afterwards from elsewhere does. */
async function unheard(from: Peer, server: Peer, target: { ip: string; port: number }): Promise<void> {
  const text = word();
  await from.send(text, target);
  await eventually(() => server.messages.some((message) => message.text === text), 'nothing', 200).then(
    () => assert.fail(`${text} to ${target.ip} arrived`),
    () => undefined,
  );
}

for (const family of [4, 6] as const) {
  describe(`IPv${family}`, { concurrency: false }, () => {
    const pick = (four: string, six: string): string => (family === 4 ? four : six);
    const at = ({ endpoint }: LocalEndpoint): Ip => endpoint.addresses.find((ip) => ip.includes(':') === (family === 6)) ?? assert.fail();
    const hostAddress = pick('10.213.0.1', 'fd00:213::1');
    const localhost = pick('127.0.0.1', '::1');

    test(`localhost of the host ${family === 4 ? 'leads' : 'does not lead'} to a published port, of either sort of network`, async (t) => {
      for (const [index, each] of [a, d].entries()) {
        const server = await listen(t, box(each), at(each), port);
        const number = index === 0 ? 1 : 4;
        const asker = await listen(t, one, localhost);
        if (family === 4) for (const base of [5000, 6000]) await asked(asker, server, { ip: localhost, port: base + number });
        // The kernel takes answers to ::1 from no link, so the question is not led astray either.
        else await unheard(asker, server, { ip: localhost, port: 5000 + number });
      }
    });

    test('a published port sees the address of a client, and a container reaches its own', async (t) => {
      const server = await listen(t, box(a), at(a), port);
      const target = { ip: hostAddress, port: 5001 };
      const client = await listen(t, outside, pick('10.213.9.9', 'fd00:213::9:9'));
      assert.equal(await asked(client, server, target), pick('10.213.9.9', 'fd00:213::9:9'));
      // Itself, its neighbour, another flat network, an isolated one, a bridge.
      for (const each of [a, b, c, d]) await asked(await listen(t, box(each), at(each)), server, target);
      await asked(await listen(t, bridged, pick('172.17.0.2', 'fd17::2')), server, target);
    });

    test('networks, domains and bridges do not reach each other', async (t) => {
      const servers = new Map<LocalEndpoint, Peer>();
      for (const each of [a, c, d, far]) servers.set(each, await listen(t, box(each), at(each), port));
      const bridge = await listen(t, bridged, pick('172.17.0.2', 'fd17::2'), port);
      const to = (each: LocalEndpoint) => [servers.get(each) ?? assert.fail(), { ip: at(each), port }] as const;
      const toBridge = [bridge, { ip: pick('172.17.0.2', 'fd17::2'), port }] as const;
      const wrong = [
        [box(b), at(b), to(c)],
        [box(b), at(b), to(far)],
        [box(b), at(b), to(d)],
        [box(b), at(b), toBridge],
        [box(c), at(c), to(a)],
        [box(far), at(far), to(a)],
        [box(d), at(d), to(a)],
        [box(d), at(d), to(far)],
        [box(d), at(d), toBridge],
        [bridged, pick('172.17.0.2', 'fd17::2'), to(a)],
        [bridged, pick('172.17.0.2', 'fd17::2'), to(far)],
        [bridged, pick('172.17.0.2', 'fd17::2'), to(d)],
      ] as const;
      await Promise.all(wrong.map(async ([place, ip, [server, target]]) => unheard(await listen(t, place, ip), server, target)));
      // Their own they do reach, so the silence was no fault of theirs.
      await asked(await listen(t, box(b), at(b)), ...to(a));
      await asked(await listen(t, box(c), at(c)), ...to(far));
      await asked(await listen(t, one, pick('172.17.0.1', 'fd17::1')), ...toBridge);
    });
  });
}

test('nobody but the host itself reaches its loopback addresses', async (t) => {
  const service = await listen(t, one, '127.0.0.1', 5555);
  const server = await listen(t, box(a), at4(a), port);
  const isolatedServer = await listen(t, box(d), at4(d), port);
  for (const [place, ip, gateway] of [
    [outside, '10.213.9.9', '10.213.0.1'],
    [two, '10.213.0.2', '10.213.0.1'],
    [box(b), at4(b), '169.254.1.1'],
    [box(d), at4(d), '169.254.1.1'],
    [bridged, '172.17.0.2', '172.17.0.1'],
  ] as const) {
    // As somebody would who may send whatever he likes.
    const link = place === bridged ? 'eth1' : 'eth0';
    for (const name of ['all', link]) place.run('sysctl', '-qw', `net.ipv4.conf.${name}.route_localnet=1`);
    place.ip('addr', 'flush', 'dev', 'lo', 'scope', 'host');
    place.ip('route', 'replace', '127.0.0.1', 'via', gateway, 'dev', link);
    const thief = await listen(t, place, ip);
    const until = one.count('entry');
    const text = word();
    for (const hostPort of [5555, 5001, 6001, 5004, 6004]) await thief.send(text, { ip: '127.0.0.1', port: hostPort });
    // The domain of the isolated network lets them get no further than itself.
    if (place !== box(d)) await eventually(() => one.count('entry') >= until + 5, `what comes from ${ip} is dropped`);
    for (const peer of [service, server, isolatedServer]) assert.ok(!peer.messages.some((message) => message.text === text), ip);
    // A container with a loopback source is nobody's either.
    if (place === box(b)) {
      place.ip('addr', 'add', '127.0.0.1/8', 'dev', 'lo');
      const spoofer = await listen(t, place, '127.0.0.1');
      const dropped = one.count('members');
      await spoofer.send(text, { ip: '10.213.0.1', port: 5001 });
      await eventually(() => one.count('members') > dropped, 'a loopback source is refused');
    }
  }
});

const at4 = ({ endpoint }: LocalEndpoint): Ip => endpoint.addresses[0] ?? assert.fail();
