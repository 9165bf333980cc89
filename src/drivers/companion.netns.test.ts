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

const hosts = [makeHost(1), makeHost(2)];
const network = { ...makeNetwork('ports', { model: 'neutron' }), neutron: { network: 'net', subnet: 'subnet', fallback: true as const } };
const ported = makePool('ports', parseCidr('10.213.0.0/16'), 29);
const portless = { ...makePool('ports', parseCidr('10.64.0.0/16'), 29), id: 'ports-besides', fallback: true as const };
const blocks = [0, 1].flatMap((at) => [makeBlock(ported, 4096 + at, `host-${at + 1}`), makeBlock(portless, at, `host-${at + 1}`)]);
const on = (number: number, address: string, host: 1 | 2): LocalEndpoint => ({
  endpoint: makeEndpoint('ports', `host-${host}`, number, [parseIp(address)]),
  slot: number,
  sandbox: `/run/docker/netns/${number}`,
  order: 1,
});
const addresses = { port1: '10.213.128.1', box1: '10.64.0.1', port2: '10.213.128.9', box2: '10.64.0.9' } as const;
type Name = keyof typeof addresses;
const local = [on(1, addresses.port1, 1), on(2, addresses.box1, 1), on(3, addresses.port2, 2), on(4, addresses.box2, 2)] as const;
const snapshot = snapshotOf({
  hosts,
  networks: [network],
  pools: [ported, portless],
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
  chain out { type filter hook postrouting priority 300; policy accept; oifname "eth0" ip saddr 10.64.0.0/16 counter drop; }
}`;

before(() => {
  wire = new Wire();
  kernels = [wire.host('host-1', ['10.213.0.1/16']), wire.host('host-2', ['10.213.0.2/16'])];
  instance = wire.place('instance', ['10.213.9.9/16']);
  wire.hub();
  for (const [at, kernel] of kernels.entries()) {
    kernel.run('nft', portSecurity);
    apply(at);
  }
  const [port1, box1, port2, box2] = local.map((each, index) => wire.container(kernels[index >> 1] ?? assert.fail(), each));
  assert.ok(port1 !== undefined && box1 !== undefined && port2 !== undefined && box2 !== undefined);
  boxes = { port1, box1, port2, box2 };
});
after(() => wire[Symbol.dispose]());

const names: readonly Name[] = ['port1', 'box1', 'port2', 'box2'];
for (const from of names)
  for (const to of names.filter((name) => name !== from))
    test(`${from} reaches ${to}`, () => {
      assert.ok(boxes[from].ping(addresses[to]));
      // Packets into the tunnel have a part of it taken away, and the sender is told.
      const isShort = from.startsWith('box') || to.startsWith('box');
      assert.ok(boxes[from].ping(addresses[to], { size: isShort ? 1400 : 1450 }));
    });

test('an instance sees the host, and reaches nobody without a port', () => {
  assert.ok(boxes.box1.ping('10.213.9.9'));
  assert.equal(instance.ping(addresses.box1), false);
  assert.ok(instance.ping(addresses.port1));
});

test('nothing left a host with an address that the cloud does not know', () => {
  for (const kernel of kernels) assert.equal(kernel.count('out', 'cloud'), 0);
});

test('hosts reach them, too, and a restarted agent changes nothing', () => {
  for (const [at, kernel] of kernels.entries()) {
    for (const name of names) assert.ok(kernel.ping(addresses[name]), `host ${at + 1} to ${name}`);
    kernel.forget();
    assert.equal(apply(at), 0);
  }
});
