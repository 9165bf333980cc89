// Containers without a port of the cloud, with real packets: they reach each other and the containers with ports, which reach them, and
// everything else sees their host. No packet leaves a host with an address that the cloud knows nothing of.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { type NetnsHost, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { LocalEndpoint } from '#model/resources.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const hosts = [1, 2].map((number) =>
  makeHost(number, {
    underlay: [
      { interface: 'eth0', ip: parseIp(`10.213.0.${number}`), subnet: parseCidr('10.213.0.0/16'), mtu: 1450 },
      { interface: 'eth0', ip: parseIp(`fd00:213::${number}`), subnet: parseCidr('fd00:213::/64'), mtu: 1450 },
    ],
  }),
);
const network = { ...makeNetwork('ports', { model: 'neutron' }), neutron: { network: 'net', subnet: 'subnet', fallback: true as const } };
const ported = makePool('ports', parseCidr('10.213.0.0/16'), 29);
const ported6 = makePool('ports', parseCidr('fd00:213::/64'), 125);
const portless = { ...makePool('ports', parseCidr('10.64.0.0/16'), 29), id: 'ports-besides', fallback: true as const };
const portless6 = { ...makePool('ports', parseCidr('fd00:64::/64'), 125), id: 'ports-besides6', fallback: true as const };
const blocks = [0, 1].flatMap((at) => [
  makeBlock(ported, 4096 + at, `host-${at + 1}`),
  makeBlock(ported6, 4096 + at, `host-${at + 1}`),
  makeBlock(portless, at, `host-${at + 1}`),
  makeBlock(portless6, at, `host-${at + 1}`),
]);
const on = (number: number, all: readonly string[], host: 1 | 2): LocalEndpoint => ({
  endpoint: makeEndpoint(
    'ports',
    `host-${host}`,
    number,
    all.map((ip) => parseIp(ip)),
  ),
  slot: number,
  sandbox: `/run/docker/netns/${number}`,
  order: 1,
});
const addresses = {
  port1: ['10.213.128.1', 'fd00:213::8001'],
  box1: ['10.64.0.1', 'fd00:64::1'],
  port2: ['10.213.128.9', 'fd00:213::8009'],
  box2: ['10.64.0.9', 'fd00:64::9'],
} as const;
type Name = keyof typeof addresses;
const local = [on(1, addresses.port1, 1), on(2, addresses.box1, 1), on(3, addresses.port2, 2), on(4, addresses.box2, 2)] as const;
const snapshot = snapshotOf({
  hosts,
  networks: [network],
  pools: [ported, ported6, portless, portless6],
  blocks,
  endpoints: local.map(({ endpoint }) => endpoint),
});
const ofHost = (at: number): LocalEndpoint[] => local.filter(({ endpoint }) => endpoint.host === `host-${at + 1}`);
const apply = (at: number): number => {
  const self = hosts[at] ?? assert.fail();
  return (kernels[at] ?? assert.fail()).apply(plan(snapshot, ofHost(at), self)).changed;
};

let wire: Wire;
let kernels: NetnsHost[];
let instance: Place;
let boxes: Record<Name, Place>;

/** What port security does: no address passes that it does not know. */
const portSecurity = `table inet cloud {
  chain out { type filter hook postrouting priority 300; policy accept; oifname "eth0" ip saddr 10.64.0.0/16 counter drop; oifname "eth0" ip6 saddr fd00:64::/64 counter drop; }
}`;

before(() => {
  wire = new Wire();
  kernels = [1, 2].map((number) => wire.host(`host-${number}`, [`10.213.0.${number}/16`, `fd00:213::${number}/64`]));
  instance = wire.place('instance', ['10.213.9.9/16', 'fd00:213::9:9/64']);
  wire.hub();
  for (const [at, kernel] of kernels.entries()) {
    kernel.run('nft', portSecurity);
    apply(at);
  }
  const [port1, box1, port2, box2] = local.map((each, index) => wire.container(kernels[index >> 1] ?? assert.fail(), each));
  assert.ok(port1 !== undefined && box1 !== undefined && port2 !== undefined && box2 !== undefined);
  boxes = { port1, box1, port2, box2 };
  // Of IPv6 ports are sub-ports, for which the cloud answers.
  const macs = kernels.map((kernel) => /link\/ether (\S+)/.exec(kernel.run('ip', 'link', 'show', 'eth0'))?.[1] ?? assert.fail());
  for (const [at, { port1: one, port2: two }] of [addresses, addresses].entries()) {
    const [own, other] = at === 0 ? [one, two] : [two, one];
    for (const [where, ip, mac] of [
      [kernels[at], other[1], macs[1 - at]],
      [instance, own[1], macs[at]],
    ] as const)
      where?.ip('neigh', 'replace', ip, 'lladdr', mac ?? '', 'dev', 'eth0', 'nud', 'permanent');
  }
});
after(() => wire[Symbol.dispose]());

const names: readonly Name[] = ['port1', 'box1', 'port2', 'box2'];
for (const from of names)
  for (const to of names.filter((name) => name !== from))
    test(`${from} reaches ${to}`, () => {
      // Packets into the tunnel have a part of it taken away, and the sender is told.
      const isShort = from.startsWith('box') || to.startsWith('box');
      for (const address of addresses[to]) {
        assert.ok(boxes[from].ping(address), address);
        assert.ok(boxes[from].ping(address, { size: isShort ? 1400 : 1450 }), address);
      }
    });

test('an instance sees the host, and reaches nobody without a port', () => {
  for (const [at, own] of ['10.213.9.9', 'fd00:213::9:9'].entries()) {
    assert.ok(boxes.box1.ping(own));
    assert.ok(instance.loses(addresses.box1[at] ?? ''));
    assert.ok(instance.ping(addresses.port1[at] ?? ''));
  }
});

test('nothing left a host with an address that the cloud does not know', () => {
  for (const kernel of kernels) assert.equal(kernel.count('out', 'cloud'), 0);
});

test('hosts reach them, too, and a restarted agent changes nothing', () => {
  for (const [at, kernel] of kernels.entries()) {
    for (const address of names.flatMap((name) => addresses[name])) assert.ok(kernel.ping(address), `host ${at + 1} to ${address}`);
    kernel.forget();
    assert.equal(apply(at), 0);
  }
});
