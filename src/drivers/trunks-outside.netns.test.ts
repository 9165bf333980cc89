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
import { assemble, call, compute, compute32, exit, type Instruction, jump, jump32, label, load } from '#kernel/bpf-assembler.ts';
import { loadFilterProgram } from '#kernel/libc.ts';
import { arp, arpProtocol, swapped16 } from '#kernel/packet.ts';
import { Sockets } from '#kernel/sockets.ts';
import { emptyDesired } from '#model/desired.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import { endpointMac } from '#model/numbers.ts';
import type { LocalEndpoint, Pool } from '#model/resources.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const self = makeHost(1);
const placeOf = (network: string, more: object = {}) => ({
  ...makeNetwork(network, { model: 'neutron' }),
  neutron: { network, subnet: network, ...more },
});
const networks = [placeOf('near'), placeOf('other', { mtu: 1400, fallback: true as const })];
const near = makePool('near', parseCidr('10.213.0.0/16'), 29);
const other: Pool = { ...makePool('other', parseCidr('10.30.0.0/24'), 29), gateway: parseIp('10.30.0.1') };
const portless: Pool = { ...makePool('other', parseCidr('10.64.0.0/16'), 29), id: 'portless', fallback: true };
const firstVlan = 200;
const blocks = [
  { ...makeBlock(near, 4096, 'host-1'), vlan: 100 },
  { ...makeBlock(other, 16, 'host-1'), vlan: firstVlan },
  makeBlock(portless, 0, 'host-1'),
  // An address pair of the host's port.
  makeBlock(near, 4097, 'host-1'),
];
const [instance, firstOctet] = ['10.30.0.50', 128];
const published = { protocol: 'udp' as const, hostPort: 8080, port: 80 };
const container = (network: string, number: number, ip: string): LocalEndpoint => ({
  endpoint: { ...makeEndpoint(network, 'host-1', number, [parseIp(ip)]), ports: number === 2 ? [published] : [] },
  slot: number,
  sandbox: `/run/docker/netns/${number}`,
  order: 1,
});
const local = [
  container('near', 1, '10.213.128.1'),
  container('other', 2, '10.30.0.130'),
  container('other', 3, '10.30.0.131'),
  container('other', 4, '10.64.0.1'),
  container('near', 5, '10.213.128.9'),
];
const snapshotWith = (pool: Pool) =>
  snapshotOf({ hosts: [self], networks, pools: [near, pool, portless], blocks, endpoints: local.map(({ endpoint }) => endpoint) });
const wanted = plan(snapshotWith(other), local, self);

let wire: Wire;
let host: NetnsHost;
let neighbour: Place;
let outside: Place;
let boxes: readonly Place[];
const [nearBox, box, secondBox, portlessBox, pairBox] = [0, 1, 2, 3, 4].map((index) => (): Place => boxes[index] ?? assert.fail());
const addressOf = (index: number): string => local[index]?.endpoint.addresses[0] ?? assert.fail();

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

/** In the VLAN of the container that the frame is for; to `otherwise` where it is for none. */
const tagFor = (otherwise: string): Instruction[] => [
  compute('mov', 'r1', 'r6'),
  compute('mov', 'r2', 42),
  call(39),
  load(4, 'r7', 'r6', 76),
  load(4, 'r2', 'r6', 80),
  compute('mov', 'r1', 'r7'),
  compute('add', 'r1', 42),
  jump('gt', 'r1', 'r2', otherwise),
  load(1, 'r3', 'r7', 5),
  load(2, 'r1', 'r7', 0),
  jump32('eq', 'r1', swapped16(0x0a63), 'tag'),
  load(4, 'r1', 'r6', 16),
  jump32('ne', 'r1', arpProtocol, otherwise),
  load(1, 'r3', 'r7', arp.target + 3),
  label('tag'),
  jump32('lt', 'r3', firstOctet, otherwise),
  jump32('ge', 'r3', firstOctet + 8, otherwise),
  compute32('add', 'r3', firstVlan - firstOctet),
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
  host = wire.host('host-1', ['10.213.0.1/16']);
  neighbour = wire.place('neighbour', ['10.213.9.9/16']);
  outside = wire.place('outside', [`${instance}/24`, '10.30.0.1/24', '192.0.2.9/32']);
  // As usual where systemd sets it.
  host.run('sysctl', '-w', 'net.ipv4.conf.all.rp_filter=2');
  host.apply(wanted);
  boxes = local.map((each) => wire.container(host, each));
  makeCloud();
});
after(() => wire[Symbol.dispose]());

test('neighbours of the network are asked for and answered in its VLANs, in the name of its ports', () => {
  assert.ok(outside.ping(addressOf(1)), 'an instance finds the container');
  assert.match(outside.run('ip', 'neigh', 'show', addressOf(1)), new RegExp(`lladdr ${endpointMac(parseIp('10.30.0.130'))}`));
  assert.ok(box?.().ping(instance), 'a container finds the instance');
  assert.match(outside.run('ip', 'neigh'), new RegExp(`10.30.0.128 .*lladdr ${endpointMac(parseIp('10.30.0.128'))}`));
  assert.ok(box?.().ping(instance, { size: 1400 }));
  assert.equal(box?.().ping(instance, { size: 1401 }), false);
});

test('two of its containers on one host reach each other by way of the network, which finds them by asking', () => {
  assert.ok(box?.().ping(addressOf(2)));
  assert.ok(secondBox?.().ping(addressOf(1)));
});

test("what is elsewhere is behind the network's own gateway, also what the host could reach", () => {
  assert.ok(box?.().ping('192.0.2.9'), 'by the gateway');
  assert.equal(box?.().ping('10.213.9.9'), false);
  assert.equal(box?.().ping(addressOf(0)), false);
  assert.equal(nearBox?.().ping(addressOf(1)), false);
  assert.equal(pairBox?.().ping(addressOf(1)), false);
  assert.ok(host.count('forward') > 0, 'past the cloud nobody of this host comes in');
  assert.equal(neighbour.ping(addressOf(1)), false);
});

test('containers without a port of the cloud are beside it', () => {
  assert.ok(box?.().ping(addressOf(3)));
  assert.ok(portlessBox?.().ping(addressOf(1)));
});

test('the host and its own containers reach each other', () => {
  assert.ok(host.ping(addressOf(1)));
  assert.ok(box?.().ping('10.213.0.1'));
});

async function askPublished(): Promise<void> {
  using server = await (box?.() ?? assert.fail()).udp('10.30.0.130', published.port);
  using client = await neighbour.udp('10.213.9.9');
  await client.send('there', { ip: '10.213.0.1', port: published.hostPort });
  const { from, port } = await server.hears('there');
  assert.equal(from, '10.213.9.9');
  await server.send('back', { ip: from, port });
  assert.equal((await client.hears('back')).from, '10.213.0.1');
}

test('a published port is answered to whoever has asked the host, and sees his address', askPublished);

test('without a gateway there is the network only, and published ports', async () => {
  const { gateway, ...closed } = other;
  assert.ok(gateway !== undefined);
  host.apply(plan(snapshotWith(closed), local, self));
  assert.ok(box?.().ping(instance));
  assert.equal(box?.().ping('192.0.2.9'), false);
  assert.equal(box?.().ping(addressOf(0)), false);
  await askPublished();
  host.apply(wanted);
  assert.ok(box?.().ping('192.0.2.9'));
});

test('what somebody has changed comes back, a restarted agent changes nothing, and without containers nothing is left', () => {
  const table = String(Number.parseInt('0a1e0000', 16));
  host.forget();
  assert.equal(host.apply(wanted).changed, 0);
  host.ip('route', 'del', 'default', 'table', table);
  host.forget();
  assert.ok(host.apply(wanted).changed > 0);
  assert.ok(box?.().ping('192.0.2.9'));
  host.apply(emptyDesired);
  const left = host.run('ip', 'rule') + host.try('ip', 'route', 'show', 'table', table).output;
  assert.doesNotMatch(left, /lookup (?:197|169738240)|10\.30\./);
});
