// Sub-ports of a network that their host is not in, with real packets. The cloud here is two programs between the host's wire and a
// namespace in which that network's instance and router are: what the host sends in one of the VLANs comes out there, and what is sent
// to a container's MAC, or asks for its address, goes to the host in that one's VLAN. Nobody answers in anybody's name.
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { type NetnsHost, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { linkIndexes } from '#kernel/batch.ts';
import { addClsact, setFilter } from '#kernel/bpf.ts';
import { assemble, call, compute, compute32, exit, go, type Instruction, jump, jump32, label, load } from '#kernel/bpf-assembler.ts';
import { loadFilterProgram } from '#kernel/libc.ts';
import { arp, arpProtocol, discovery, protocols, swapped16 } from '#kernel/packet.ts';
import { Sockets } from '#kernel/sockets.ts';
import { emptyDesired } from '#model/desired.ts';
import { type Family, type Ip, parseCidr, parseIp } from '#model/ip.ts';
import { askingName, endpointMac } from '#model/numbers.ts';
import type { LocalEndpoint, Pool } from '#model/resources.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const self = makeHost(1, {
  underlay: [
    { interface: 'eth0', ip: parseIp('10.213.0.1'), subnet: parseCidr('10.213.0.0/16'), mtu: 1450 },
    { interface: 'eth0', ip: parseIp('fd00:213::1'), subnet: parseCidr('fd00:213::/64'), mtu: 1450 },
  ],
});
const placeOf = (network: string, more: object = {}) => ({
  ...makeNetwork(network, { model: 'neutron' }),
  neutron: { network, subnet: network, ...more },
});
const networks = [placeOf('near'), placeOf('other', { mtu: 1400, fallback: true as const })];
const near = makePool('near', parseCidr('10.213.0.0/16'), 29);
const near6 = makePool('near', parseCidr('fd00:213::/64'), 125);
const other: Pool = { ...makePool('other', parseCidr('10.30.0.0/24'), 29), gateway: parseIp('10.30.0.1') };
const other6: Pool = { ...makePool('other', parseCidr('fd00:30::/64'), 125), gateway: parseIp('fd00:30::1') };
const portless: Pool = { ...makePool('other', parseCidr('10.64.0.0/16'), 29), id: 'portless', fallback: true };
const portless6: Pool = { ...makePool('other', parseCidr('fd00:64::/64'), 125), id: 'portless6', fallback: true };
const [firstVlan, beyond6] = [200, 100];
const blocks = [
  { ...makeBlock(near, 4096, 'host-1'), vlan: 100 },
  { ...makeBlock(near6, 4096, 'host-1'), vlan: 110 },
  { ...makeBlock(other, 16, 'host-1'), vlan: firstVlan },
  { ...makeBlock(other6, 16, 'host-1'), vlan: firstVlan + beyond6 },
  makeBlock(portless, 0, 'host-1'),
  makeBlock(portless6, 0, 'host-1'),
  // An address pair of the host's port.
  makeBlock(near, 4097, 'host-1'),
];
const firstOctet = 128;
const published = { protocol: 'udp' as const, hostPort: 8080, port: 80 };
const container = (network: string, number: number, ...ips: readonly string[]): LocalEndpoint => ({
  endpoint: {
    ...makeEndpoint(
      network,
      'host-1',
      number,
      ips.map((ip) => parseIp(ip)),
    ),
    ports: number === 2 ? [published] : [],
  },
  slot: number,
  sandbox: `/run/docker/netns/${number}`,
  order: 1,
});
const local = [
  container('near', 1, '10.213.128.1', 'fd00:213::8001'),
  container('other', 2, '10.30.0.130', 'fd00:30::82'),
  container('other', 3, '10.30.0.131', 'fd00:30::83'),
  container('other', 4, '10.64.0.1', 'fd00:64::1'),
  container('near', 5, '10.213.128.9'),
];
const snapshotWith = (...pools: readonly Pool[]) =>
  snapshotOf({
    hosts: [self],
    networks,
    pools: [near, near6, ...pools, portless, portless6],
    blocks,
    endpoints: local.map(({ endpoint }) => endpoint),
  });
const wanted = plan(snapshotWith(other, other6), local, self);

/** What is where, by family. */
const places = {
  4: {
    at: 0,
    instance: '10.30.0.50',
    asker: '10.30.0.128',
    named: '10.30.0.128',
    elsewhere: '192.0.2.9',
    host: '10.213.0.1',
    neighbour: '10.213.9.9',
  },
  6: {
    at: 1,
    instance: 'fd00:30::50',
    asker: 'fd00:30::80',
    named: askingName(parseIp('fd00:30::80')),
    elsewhere: '2001:db8::9',
    host: 'fd00:213::1',
    neighbour: 'fd00:213::9:9',
  },
} as const;
const families = [4, 6] as const;

let wire: Wire;
let host: NetnsHost;
let neighbour: Place;
let outside: Place;
let boxes: readonly Place[];
const [nearBox, box, secondBox, portlessBox, pairBox] = [0, 1, 2, 3, 4].map((index) => (): Place => boxes[index] ?? assert.fail());
const addressOf = (index: number, family: Family = 4): Ip => local[index]?.endpoint.addresses[places[family].at] ?? assert.fail();

const sendTo = (index: number): Instruction[] => [compute('mov', 'r1', index), compute('mov', 'r2', 0), call(23), exit];
const begin = compute('mov', 'r6', 'r1');
const pass = [label('pass'), compute('mov', 'r0', -1), exit];

/** What comes from the host in the network's VLANs goes to its members, or back to the host where it is for one of its addresses. */
const fromHost = (to: { outside: number; host: number }): Uint8Array =>
  assemble([
    begin,
    load(4, 'r1', 'r6', 20),
    jump32('eq', 'r1', 0, 'pass'),
    load(4, 'r9', 'r6', 24),
    compute32('and', 'r9', 0xfff),
    jump32('lt', 'r9', firstVlan, 'pass'),
    compute('mov', 'r1', 'r6'),
    call(19),
    ...tagFor('out'),
    ...sendTo(to.host),
    label('out'),
    ...sendTo(to.outside),
    ...pass,
  ]);

const reach = (bytes: number, otherwise: string): Instruction[] => [
  compute('mov', 'r1', 'r6'),
  compute('mov', 'r2', bytes),
  call(39),
  load(4, 'r7', 'r6', 76),
  load(4, 'r2', 'r6', 80),
  compute('mov', 'r1', 'r7'),
  compute('add', 'r1', bytes),
  jump('gt', 'r1', 'r2', otherwise),
];

/** In the VLAN of the container that the frame is for; to `otherwise` where it is for none. */
const tagFor = (otherwise: string): Instruction[] => [
  ...reach(arp.bytes, otherwise),
  load(1, 'r3', 'r7', 5),
  load(2, 'r1', 'r7', 0),
  jump32('eq', 'r1', swapped16(0x0a63), 'tag'),
  load(4, 'r1', 'r6', 16),
  jump32('eq', 'r1', protocols[6], 'six'),
  jump32('ne', 'r1', arpProtocol, otherwise),
  load(1, 'r3', 'r7', arp.target + 3),
  go('tag'),
  label('six'),
  ...reach(discovery.answerBytes, otherwise),
  load(1, 'r1', 'r7', discovery.type),
  jump32('ne', 'r1', discovery.question, otherwise),
  load(1, 'r3', 'r7', discovery.target + 15),
  label('tag'),
  jump32('lt', 'r3', firstOctet, otherwise),
  jump32('ge', 'r3', firstOctet + 8, otherwise),
  compute32('add', 'r3', firstVlan - firstOctet),
  load(4, 'r1', 'r6', 16),
  jump32('ne', 'r1', protocols[6], 'its vlan'),
  compute32('add', 'r3', beyond6),
  label('its vlan'),
  compute('mov', 'r1', 'r6'),
  compute('mov', 'r2', swapped16(0x8100)),
  call(18),
];
const fromOutside = (to: { host: number }): Uint8Array => assemble([begin, ...tagFor('pass'), ...sendTo(to.host), ...pass]);

function makeCloud(): void {
  using sockets = new Sockets(wire.folder);
  const socket = sockets.of('');
  const names = ['to-host-1', 'to-outside'];
  const found = linkIndexes(socket, names);
  const [toHost = 0, toOutside = 0] = names.map((name) => found.get(name));
  for (const [index, program] of [
    [toHost, fromHost({ outside: toOutside, host: toHost })],
    [toOutside, fromOutside({ host: toHost })],
  ] as const) {
    const fd = loadFilterProgram(program, 'cloud');
    for (const { fault } of socket.batch([addClsact(index, 'open'), setFilter(index, { fd, name: 'cloud' }, 'open')]))
      assert.equal(fault, undefined);
    closeSync(fd);
  }
}

before(() => {
  wire = new Wire();
  host = wire.host('host-1', ['10.213.0.1/16', 'fd00:213::1/64']);
  neighbour = wire.place('neighbour', ['10.213.9.9/16', 'fd00:213::9:9/64']);
  const of4 = [`${places[4].instance}/24`, '10.30.0.1/24', '192.0.2.9/32'];
  outside = wire.place('outside', [...of4, `${places[6].instance}/64`, 'fd00:30::1/64', '2001:db8::9/128']);
  // As usual where systemd sets it.
  host.run('sysctl', '-w', 'net.ipv4.conf.all.rp_filter=2');
  host.apply(wanted);
  boxes = local.map((each) => wire.container(host, each));
  makeCloud();
});
after(() => wire[Symbol.dispose]());

async function askPublished(family: Family): Promise<void> {
  const place = places[family];
  using server = await (box?.() ?? assert.fail()).udp(addressOf(1, family), published.port);
  using client = await neighbour.udp(place.neighbour);
  await client.send('there', { ip: place.host, port: published.hostPort });
  const { from, port } = await server.hears('there');
  assert.equal(from, place.neighbour);
  await server.send('back', { ip: from, port });
  assert.equal((await client.hears('back')).from, place.host);
}

for (const family of families) {
  const { instance, asker, named, elsewhere, host: own, neighbour: beside } = places[family];

  test(`IPv${family}: neighbours of the network are asked for and answered in its VLANs, in the name of its ports`, () => {
    assert.ok(outside.ping(addressOf(1, family)), 'an instance finds the container');
    const found = outside.run('ip', 'neigh', 'show', addressOf(1, family));
    assert.match(found, new RegExp(`lladdr ${endpointMac(addressOf(1, family))}`));
    assert.ok(box?.().ping(instance), 'a container finds the instance');
    assert.match(outside.run('ip', 'neigh'), new RegExp(`${named} .*lladdr ${endpointMac(parseIp(asker))}`));
    assert.ok(box?.().ping(instance, { size: 1400 }));
    assert.ok(box?.().loses(instance, { size: 1401 }));
  });

  test(`IPv${family}: two of its containers on one host reach each other by way of the network, which finds them by asking`, () => {
    assert.ok(box?.().ping(addressOf(2, family)));
    assert.ok(secondBox?.().ping(addressOf(1, family)));
  });

  test(`IPv${family}: what is elsewhere is behind the network's own gateway, also what the host could reach`, () => {
    assert.ok(box?.().ping(elsewhere), 'by the gateway');
    assert.ok(box?.().loses(beside));
    assert.ok(box?.().loses(addressOf(0, family)));
    assert.ok(nearBox?.().loses(addressOf(1, family)));
    assert.ok(neighbour.loses(addressOf(1, family)));
  });

  test(`IPv${family}: containers without a port of the cloud are beside it`, () => {
    assert.ok(box?.().ping(addressOf(3, family)));
    assert.ok(portlessBox?.().ping(addressOf(1, family)));
  });

  test(`IPv${family}: the host and its own containers reach each other`, () => {
    assert.ok(host.ping(addressOf(1, family)));
    assert.ok(box?.().ping(own));
  });

  test(`IPv${family}: a published port is answered to whoever has asked the host, and sees his address`, () => askPublished(family));
}

test('a container with an address pair does not come in past the cloud', () => {
  assert.ok(pairBox?.().loses(addressOf(1)));
  assert.ok(host.count('forward') > 0);
});

test('without gateways there is the network only, and published ports', async () => {
  const [closed, closed6] = [other, other6].map(({ gateway, ...pool }): Pool => (assert.ok(gateway !== undefined), pool));
  assert.ok(closed !== undefined && closed6 !== undefined);
  host.apply(plan(snapshotWith(closed, closed6), local, self));
  for (const family of families) {
    const { instance, elsewhere } = places[family];
    assert.ok(box?.().ping(instance));
    assert.ok(box?.().loses(elsewhere));
    assert.ok(box?.().loses(addressOf(0, family)));
    await askPublished(family);
  }
  host.apply(wanted);
  for (const { elsewhere } of Object.values(places)) assert.ok(box?.().ping(elsewhere));
});

test('what somebody has changed comes back, a restarted agent changes nothing, and without containers nothing is left', () => {
  const table = String(Number.parseInt('0a1e0000', 16));
  const [, table6 = ''] = /from fd00:30::80\/125 lookup (\d+)/.exec(host.run('ip', '-6', 'rule')) ?? [];
  host.forget();
  assert.equal(host.apply(wanted).changed, 0);
  for (const [family, name] of [
    ['-4', table],
    ['-6', table6],
  ] as const) {
    host.ip(family, 'route', 'del', 'default', 'table', name);
    host.forget();
    assert.ok(host.apply(wanted).changed > 0);
  }
  for (const { elsewhere } of Object.values(places)) assert.ok(box?.().ping(elsewhere));
  host.apply(emptyDesired);
  const shown = (...family: readonly string[]): string => host.run('ip', ...family, 'rule') + host.run('ip', ...family, 'address');
  const tables = [host.try('ip', 'route', 'show', 'table', table), host.try('ip', '-6', 'route', 'show', 'table', table6)];
  const left = shown() + shown('-6') + tables.map(({ output }) => output).join('');
  assert.doesNotMatch(left, new RegExp(`lookup (?:197|${table}|${table6})|10\\.30\\.|fd00:30:|${places[6].named}`));
});
