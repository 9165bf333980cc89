// Sub-ports with real packets: a host tags what its containers send and untags what is for them, also between two of its own, so that
// the cloud is always asked. The cloud here is a program that hands frames back in the VLAN of whom they are for.
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { type NetnsHost, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { addClsact, removeFilter, setFilter } from '#kernel/bpf.ts';
import { assemble, call, compute, compute32, exit, go, jump32, label, load } from '#kernel/bpf-assembler.ts';
import { linkIndexes } from '#kernel/batch.ts';
import { loadFilterProgram } from '#kernel/libc.ts';
import { inNetns } from '#kernel/netns.ts';
import { Sockets } from '#kernel/sockets.ts';
import { emptyDesired } from '#model/desired.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import { endpointMac } from '#model/numbers.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const self = makeHost(1, {
  underlay: [
    { interface: 'eth0', ip: parseIp('10.213.0.1'), subnet: parseCidr('10.213.0.0/16'), mtu: 1450 },
    { interface: 'eth0', ip: parseIp('fd00:213::1'), subnet: parseCidr('fd00:213::/64'), mtu: 1450 },
  ],
});
const network = { ...makeNetwork('ports', { model: 'neutron' }), neutron: { network: 'net', subnet: 'subnet' } };
const pools = [makePool('ports', parseCidr('10.213.0.0/16'), 29), makePool('ports', parseCidr('fd00:213::/64'), 125)];
const vlans = { 4: 100, 6: 108 } as const;
const blocks = pools.map((pool, index) => ({ ...makeBlock(pool, 4096, 'host-1'), vlan: index === 0 ? vlans[4] : vlans[6] }));
const local = [1, 2].map((number) => ({
  endpoint: makeEndpoint('ports', 'host-1', number, [parseIp(`10.213.128.${number}`), parseIp(`fd00:213::800${number}`)]),
  slot: number,
  sandbox: `/run/docker/netns/${number}`,
  order: 1,
}));
const snapshot = snapshotOf({ hosts: [self], networks: [network], pools, blocks, endpoints: local.map(({ endpoint }) => endpoint) });

let wire: Wire;
let host: NetnsHost;
let cloud: Place;
let boxes: Place[];

/** In the VLANs of the first addresses packets come back in those of the second, and the other way round. */
function handBack(): Uint8Array {
  const pairs = ([4, 6] as const).flatMap((family) => [
    [vlans[family] + 1, vlans[family] + 2],
    [vlans[family] + 2, vlans[family] + 1],
  ]);
  return assemble([
    compute('mov', 'r6', 'r1'),
    load(4, 'r1', 'r6', 20),
    jump32('eq', 'r1', 0, 'pass'),
    load(4, 'r9', 'r6', 24),
    compute32('and', 'r9', 0xfff),
    ...pairs.flatMap(([from = 0, to = 0]) => [
      jump32('ne', 'r9', from, `not ${from}`),
      compute('mov', 'r9', to),
      go('turn'),
      label(`not ${from}`),
    ]),
    label('pass'),
    compute('mov', 'r0', -1),
    exit,
    label('turn'),
    compute('mov', 'r1', 'r6'),
    call(19),
    compute('mov', 'r1', 'r6'),
    compute('mov', 'r2', 0x0081),
    compute('mov', 'r3', 'r9'),
    call(18),
    load(4, 'r1', 'r6', 40),
    compute('mov', 'r2', 0),
    call(23),
    exit,
  ]);
}

function inCloud(isOpen: boolean): void {
  inNetns(cloud.path, () => {
    using sockets = new Sockets(wire.folder);
    const socket = sockets.of('');
    const index = linkIndexes(socket, ['eth0']).get('eth0') ?? assert.fail();
    const fd = loadFilterProgram(handBack(), 'cloud');
    const request = isOpen ? setFilter(index, { fd, name: 'cloud' }, 'open') : removeFilter(index, 'close');
    for (const { fault } of socket.batch([addClsact(index, 'open'), request])) assert.equal(fault, undefined);
    closeSync(fd);
  });
}

before(() => {
  wire = new Wire();
  host = wire.host('host-1', ['10.213.0.1/16', 'fd00:213::1/64']);
  cloud = wire.place('cloud', ['10.213.9.9/16', 'fd00:213::9:9/64']);
  wire.hub();
  host.apply(plan(snapshot, local, self));
  boxes = local.map((each) => wire.container(host, each));
  for (const { endpoint } of local)
    for (const ip of endpoint.addresses) host.ip('neigh', 'add', ip, 'lladdr', endpointMac(ip), 'dev', 'eth0', 'nud', 'permanent');
});
after(() => wire[Symbol.dispose]());

for (const [family, at] of [
  [4, 0],
  [6, 1],
] as const)
  test(`IPv${family}: two containers of a host reach each other by way of the cloud only, and the host reaches both`, () => {
    const [one, two] = local.map(({ endpoint }) => endpoint.addresses[at] ?? assert.fail());
    const [first] = boxes;
    assert.ok(first !== undefined && one !== undefined && two !== undefined);
    assert.ok(host.ping(one));
    assert.ok(first.loses(two));
    inCloud(true);
    assert.ok(first.ping(two));
    assert.ok(first.ping(two, { size: 1450 }));
    inCloud(false);
    assert.ok(first.loses(two));
  });

test('a restarted agent changes nothing, and without containers nothing is left', () => {
  assert.equal(host.apply(plan(snapshot, local, self)).changed, 0);
  host.forget();
  assert.equal(host.apply(plan(snapshot, local, self)).changed, 0);
  host.ip('rule', 'del', 'from', '10.213.128.0/29', 'lookup', '197');
  host.forget();
  assert.ok(host.apply(plan(snapshot, local, self)).changed > 0);
  assert.match(host.run('ip', 'rule'), /from 10.213.128.0\/29 lookup 197/);
  host.apply(emptyDesired);
  assert.doesNotMatch(host.run('ip', 'rule') + host.run('ip', '-6', 'rule'), /lookup 197/);
  assert.doesNotMatch(host.run('tc', 'filter', 'show', 'dev', 'eth0', 'egress') + host.run('ip', 'link', 'show', 'eth0'), /bpf|PROMISC/);
});
