import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { CarryName, Host, ModelName } from '#model/resources.ts';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from './cluster.fixture.ts';
import { presentNetworks } from './plan.ts';
import { probesOf, virtualChecks } from './probes.ts';

/** The third is behind a router, and takes smaller packets. */
const far = makeHost(3, { underlay: [{ interface: 'eth0', ip: parseIp('10.214.0.3'), subnet: parseCidr('10.214.0.0/16'), mtu: 1400 }] });
const hosts: readonly Host[] = [makeHost(1), makeHost(2), far];

/** What the first host tries for two networks alike, a line for each packet. */
function tried(model: ModelName, carry?: CarryName): string[] {
  const networks = ['a', 'b'].map((id) =>
    makeNetwork(id, { model, ...(carry === undefined ? {} : { carry }), vni: id === 'a' ? 5000 : 5001 }),
  );
  const pools = networks.map(({ id }, index) => makePool(id, parseCidr(`10.${index}.0.0/16`), 24));
  const blocks = pools.flatMap((pool) => hosts.map(({ id }, index) => makeBlock(pool, index, id)));
  const local = networks.map(({ id }, index) => ({
    endpoint: makeEndpoint(id, 'host-1', index, [parseIp(`10.${index}.0.5`)]),
    slot: index + 1,
    sandbox: '/run/netns/x',
  }));
  const [self] = hosts;
  assert.ok(self !== undefined);
  const presents = presentNetworks(snapshotOf({ hosts, networks, pools, blocks }), local, { self, learned: undefined });
  return probesOf(presents.map(({ carriage }) => carriage)).flatMap(({ host, mtu, checks }) =>
    checks.map(({ what, to, networks: names }) => `${host} ${mtu}: ${what}, at ${to}, ${names.join(' ')}`),
  );
}

test('of each sort of packet that networks send to a host one is tried, whichever of them it is for', () => {
  assert.deepEqual(tried('overlay'), [
    'host-2 1450: UDP port 8472, at 10.213.0.2, net-a net-b',
    'host-3 1400: UDP port 8472, at 10.214.0.3, net-a net-b',
  ]);
  assert.deepEqual(
    tried('overlay', 'wireguard')
      .slice(0, 2)
      .map((line) => line.replace(/5\d{4}/, 'N')),
    ['host-2 1450: UDP port N, at 10.213.0.2, net-a', 'host-2 1450: UDP port N, at 10.213.0.2, net-b'],
  );
});

test('packets as they are go from block to block, where they do; those behind a router are reached by the tunnel', () => {
  const plain = [
    'host-2 1450: A packet from 10.0.0.0/24 to 10.0.1.0/24 as it is, at 10.0.1.0, net-a',
    'host-2 1450: A packet from 10.1.0.0/24 to 10.1.1.0/24 as it is, at 10.1.1.0, net-b',
  ];
  assert.deepEqual(tried('flannel', 'direct-routing'), [...plain, 'host-3 1400: UDP port 8472, at 10.214.0.3, net-a net-b']);
  assert.deepEqual(tried('flannel', 'host-gateway').slice(0, 2), plain);
  assert.deepEqual(tried('calico', 'bgp').slice(0, 3), ['host-2 1450: TCP port 179, at 10.213.0.2, net-a net-b', ...plain]);
});

test('hosts that share an address which moves are tried by the port by which they settle who has it', () => {
  const [self, other] = hosts;
  assert.ok(self !== undefined && other !== undefined);
  const known = snapshotOf({ hosts, networks: [makeNetwork('a')] });
  const others = new Map([
    ['host-2', parseIp('10.213.0.2')],
    ['host-9', parseIp('10.213.0.9')],
  ]);
  const found = probesOf([], virtualChecks([{ ip: parseIp('10.213.0.99'), network: 'a', others }], self, known));
  const texts = found.flatMap(({ host, checks }) =>
    checks.map(({ what, from, to, networks }) => [host, what, from, to, networks.join()].join(' ')),
  );
  assert.deepEqual(texts, ['host-2 UDP port 7482 10.213.0.1 10.213.0.2 net-a']);
});

test('Docker carries its own networks', () => {
  assert.deepEqual(tried('swarm'), []);
});
