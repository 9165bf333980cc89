// A cluster whose pods have ports of the cloud, or none: with real packets they reach each other, pods of the cluster's own network, nodes
// that have no pod of that network, and instances; and no packet leaves a node with an address that the cloud knows nothing of.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { type NetnsHost, type Place, Wire } from '#agent/namespaces.fixture.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { LocalEndpoint, Network, Service } from '#model/resources.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from './cluster.fixture.ts';
import { plan } from './plan.ts';

mustBeIsolated();

const carrying = { wants: 'vxlan' as const, sends: ['vxlan' as const], receives: ['vxlan' as const] };
const hosts = [1, 2, 3].map((index) => makeHost(index, { carrying }));
const inCluster = { names: 'elsewhere', present: 'always' } as const;
const neutron = { network: 'net', subnet: 'subnet', fallback: true } as const;
const pods: Network = { ...makeNetwork('pods', { model: 'flannel', vni: 1 }), ...inCluster };
const ports: Network = { ...makeNetwork('ports', { model: 'neutron', vni: 4100 }), ...inCluster, neutron };
const [podPool, portPool] = [makePool('pods', parseCidr('10.244.0.0/16'), 24), makePool('ports', parseCidr('10.213.0.0/16'), 29)];
const portless = { ...makePool('ports', parseCidr('10.200.0.0/16'), 25), id: 'portless', fallback: true as const };
const blocks = [1, 2, 3].flatMap((number) => [
  makeBlock(podPool, number, `host-${number}`),
  makeBlock(portless, number, `host-${number}`),
  ...(number === 3 ? [] : [makeBlock(portPool, 4095 + number, `host-${number}`)]),
]);
const addresses = {
  pod1: '10.244.1.2',
  port1: '10.213.128.1',
  box1: '10.200.0.129',
  pod2: '10.244.2.2',
  port2: '10.213.128.9',
  box2: '10.200.1.1',
  pod3: '10.244.3.2',
} as const;
type Name = keyof typeof addresses;
const names = Object.keys(addresses) as Name[];
const on = (name: Name, number: number): LocalEndpoint => ({
  endpoint: makeEndpoint(name.startsWith('pod') ? 'pods' : 'ports', `host-${name.at(-1)}`, number, [parseIp(addresses[name])]),
  slot: number,
  sandbox: `/run/netns/${number}`,
  order: 1,
});
const local = names.map((name, index) => on(name, index + 1));
const snapshot = snapshotOf({ hosts, networks: [pods, ports], pools: [podPool, portPool, portless], blocks, endpoints: [] });
const services: Service[] = [
  { key: 'dns', ip: parseIp('10.96.0.10'), protocol: 'udp', port: 53, backends: [{ ip: parseIp(addresses.pod2), port: 53 }] },
];
const apply = (at: number): number => {
  const self = hosts[at] ?? assert.fail();
  const own = local.filter(({ endpoint }) => endpoint.host === self.id);
  return (kernels[at] ?? assert.fail()).apply(plan(snapshot, own, self, { services })).changed;
};

let wire: Wire;
let kernels: NetnsHost[];
let instance: Place;
const boxes = new Map<Name, Place>();

/** What port security does: no address passes that it does not know. */
const portSecurity = `table inet cloud {
  chain out { type filter hook postrouting priority 300; policy accept; oifname "eth0" ip saddr { 10.200.0.0/16, 10.244.0.0/16 } counter drop; }
}`;

before(() => {
  wire = new Wire();
  kernels = [1, 2, 3].map((number) => wire.host(`host-${number}`, [`10.213.0.${number}/16`]));
  instance = wire.place('instance', ['10.213.9.9/16']);
  wire.hub();
  for (const [at, kernel] of kernels.entries()) {
    kernel.run('nft', portSecurity);
    apply(at);
  }
  for (const [index, name] of names.entries())
    boxes.set(name, wire.container(kernels[Number(name.at(-1)) - 1] ?? assert.fail(), local[index] ?? assert.fail()));
});
after(() => wire[Symbol.dispose]());

for (const from of names)
  test(`${from} reaches all others, and an instance`, () => {
    for (const to of names) if (to !== from) assert.ok(boxes.get(from)?.ping(addresses[to]), `${from} to ${to}`);
    assert.ok(boxes.get(from)?.ping('10.213.9.9'));
  });

test('nodes reach all of them, also one without any of their network', () => {
  for (const [at, kernel] of kernels.entries())
    for (const name of names) assert.ok(kernel.ping(addresses[name]), `host ${at + 1} to ${name}`);
});

test('an instance reaches those with ports, and nobody else', () => {
  for (const name of names) assert.ok(name.startsWith('port') ? instance.ping(addresses[name]) : instance.loses(addresses[name]), name);
});

test('nothing left a node with an address that the cloud does not know, and a restarted agent changes nothing', () => {
  for (const [at, kernel] of kernels.entries()) {
    assert.equal(kernel.count('out', 'cloud'), 0);
    kernel.forget();
    assert.equal(apply(at), 0);
  }
});
