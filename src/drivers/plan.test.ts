import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import * as fc from 'fast-check';
import { ipAdd, parseCidr, parseIp } from '#model/ip.ts';
import { emptyDesired, type Desired } from '#model/desired.ts';
import type { CarryName, Snapshot } from '#model/resources.ts';
import { isPlannedFor, plan } from './plan.ts';
import { makeBlock, makeCluster, makeEndpoint, makeHost, makeNetwork, makePool, snapshotOf } from './cluster.fixture.ts';

const reverse = <T>(map: ReadonlyMap<string, T>) => new Map([...map].toReversed());

const shuffled = (snapshot: Snapshot): Snapshot => {
  return {
    hosts: reverse(snapshot.hosts),
    networks: reverse(snapshot.networks),
    pools: reverse(snapshot.pools),
    blocks: reverse(snapshot.blocks),
    endpoints: reverse(snapshot.endpoints),
    exposures: reverse(snapshot.exposures),
  };
};
const count = (desired: Desired) => Object.fromEntries(Object.entries(desired).map(([kind, items]) => [kind, items.length]));
const sortItems = (desired: Desired) =>
  Object.fromEntries(Object.entries(desired).map(([kind, items]) => [kind, items.map((item: unknown) => JSON.stringify(item)).toSorted()]));

const by = (wants: CarryName, ...receives: CarryName[]) => ({ carrying: { wants, sends: [], receives } });

describe('plan', () => {
  it('wants nothing on a host without endpoints', () => {
    const { snapshot, self } = makeCluster(3, 2);
    assert.deepEqual(plan(snapshot, [], self), emptyDesired);
  });

  it('does not drop what comes for pods, also where a range of load balancers overlaps theirs', () => {
    const network = { ...makeNetwork('aaaaaaaaaa', { model: 'flannel' }), present: 'always', names: 'elsewhere' } as const;
    const pool = makePool(network.id, parseCidr('10.0.0.0/16'), 24);
    const [one] = [makeHost(1)];
    const snapshot = snapshotOf({
      hosts: [one],
      networks: [network],
      pools: [pool],
      blocks: [makeBlock(pool, 0, one.name)],
      endpoints: [],
    });
    const drained = (...balanced: readonly string[]): unknown[] =>
      plan(snapshot, [], one, { services: [], balanced: balanced.map((text) => parseCidr(text)) }).element.flatMap(({ set, key }) =>
        set === 'drained4' ? [key] : [],
      );
    assert.deepEqual(drained('10.0.0.0/15', '203.0.113.0/24'), drained('10.1.0.0/16', '203.0.113.0/24'));
    assert.deepEqual([drained('10.1.0.0/16').length, drained('10.0.7.0/24')], [1, []]);
  });

  it('wants a network that is always present where the host has a block of it, and no name service that is elsewhere', () => {
    const network = { ...makeNetwork('aaaaaaaaaa', { model: 'flannel' }), present: 'always', names: 'elsewhere' } as const;
    const pool = makePool(network.id, parseCidr('10.0.0.0/16'), 24);
    const [one, two, three] = [makeHost(1), makeHost(2), makeHost(3)];
    const blocks = [one, two].map(({ name }, index) => makeBlock(pool, index, name));
    const snapshot = snapshotOf({ hosts: [one, two, three], networks: [network], pools: [pool], blocks, endpoints: [] });
    const { route, element } = plan(snapshot, [], one);
    assert.deepEqual(
      [route.map(({ destination, type }) => [destination, type]), element.filter(({ set }) => set.startsWith('names'))],
      [
        [
          ['10.0.0.0/16', 'unreachable'],
          ['10.0.1.0/24', 'unicast'],
        ],
        [],
      ],
    );
    assert.deepEqual(plan(snapshot, [], three), emptyDesired);
  });

  it('leaves ways to others to the router as long as one of them is sent to by it', () => {
    const network = { ...makeNetwork('aaaaaaaaaa', { model: 'flannel' }), present: 'always', names: 'elsewhere' } as const;
    const pool = makePool(network.id, parseCidr('10.0.0.0/16'), 24);
    const blocks = [1, 2, 3].map((index) => makeBlock(pool, index, `host-${index}`));
    const ways = (...hosts: Parameters<typeof makeHost>[1][]) => {
      const [one, two, three] = hosts.map((carries, index) => makeHost(index + 1, carries));
      const snapshot = snapshotOf({ hosts: [one, two, three].flatMap((host) => host ?? []), networks: [network], pools: [pool], blocks });
      return plan(snapshot, [], one ?? assert.fail()).route.map(({ destination, type }) => `${destination} ${type}`);
    };
    const own = '10.0.1.0/24 unreachable';
    assert.deepEqual(ways(by('routes'), by('routes', 'routes'), by('routes', 'routes')), [own]);
    assert.deepEqual(ways(by('routes'), by('vxlan', 'vxlan'), by('routes', 'routes')), [own, '10.0.2.0/24 unicast']);
    const tunnels = ['10.0.2.0/24 unicast', '10.0.3.0/24 unicast'];
    assert.deepEqual(ways(by('vxlan'), by('vxlan', 'vxlan'), by('routes', 'vxlan')), [own, ...tunnels]);
    assert.deepEqual(ways(by('vxlan'), by('vxlan', 'vxlan'), by('vxlan', 'vxlan')), ['10.0.0.0/16 unreachable', ...tunnels]);
  });

  it('is not in the way to a pool that is one block of another host, whoever tells the way', () => {
    for (const carry of ['vxlan', 'bgp'] as const) {
      const network = { ...makeNetwork('aaaaaaaaaa', { model: 'calico', carry }), present: 'always', names: 'elsewhere' } as const;
      const pools = ['10.1.0.0/26', '10.2.0.0/26'].map((cidr, index) => ({
        ...makePool(network.id, parseCidr(cidr), 26),
        id: `pool${index}`,
      }));
      const hosts = [makeHost(1), makeHost(2)];
      const blocks = pools.map((pool, index) => makeBlock(pool, 0, `host-${index + 1}`));
      const { route } = plan(snapshotOf({ hosts, networks: [network], pools, blocks }), [], hosts[0] ?? assert.fail());
      assert.deepEqual(
        route.flatMap(({ destination, type }) => (destination.startsWith('10.') ? `${destination} ${type}` : [])),
        ['10.1.0.0/26 unreachable', ...(carry === 'bgp' ? [] : ['10.2.0.0/26 unicast'])],
      );
    }
  });

  it('grows with remote hosts, not with remote endpoints', () => {
    const few = makeCluster(10, 2);
    const many = makeCluster(10, 100);
    const local = few.local.slice(0, 1);
    assert.deepEqual(count(plan(few.snapshot, local, few.self)), count(plan(many.snapshot, many.local.slice(0, 1), many.self)));
  });

  it('is the same without the remote endpoints that it is said to have no part of', () => {
    const kinds = fc.constantFrom(
      { carry: 'vxlan' },
      { carry: 'wireguard' },
      { model: 'flannel', carry: 'host-gateway' },
      { model: 'calico' },
    );
    const places = fc.array(fc.record({ host: fc.integer({ min: 1, max: 4 }), at: fc.integer({ min: 0, max: 1023 }) }), { maxLength: 12 });
    fc.assert(
      fc.property(kinds, places, fc.integer({ min: 0, max: 3 }), (kind, remotes, held) => {
        const network = makeNetwork('aaaaaaaaaa', kind);
        const { snapshot, local, self } = makeCluster(4, 1, network);
        const blocks = new Map([...snapshot.blocks].slice(0, held + 1));
        const added = remotes.map(({ host, at }, number) =>
          makeEndpoint(network.id, `host-${host}`, 100 + number, [ipAdd(parseIp('10.0.0.0'), at)]),
        );
        const all = new Map([...snapshot.endpoints, ...added.map((endpoint) => [endpoint.id, endpoint] as const)]);
        const parts = new Map([...all].filter(([, endpoint]) => isPlannedFor(self.id, endpoint, { blocks })));
        assert.deepEqual(
          plan({ ...snapshot, blocks, endpoints: parts }, local, self),
          plan({ ...snapshot, blocks, endpoints: all }, local, self),
        );
      }),
    );
  });

  it('is the same whatever order the facts came in', () => {
    const { snapshot, local, self } = makeCluster(5, 3);
    assert.deepEqual(sortItems(plan(shuffled(snapshot), local.toReversed(), self)), sortItems(plan(snapshot, local, self)));
  });

  it('keeps networks with the same range in domains of their own', () => {
    const networks = [makeNetwork('aaaaaaaaaa', { vni: 4096 }), makeNetwork('bbbbbbbbbb', { vni: 4097 })];
    const pools = networks.map(({ id }) => makePool(id, parseCidr('10.0.0.0/24'), 27));
    const blocks = pools.map((pool) => makeBlock(pool, 0, 'host-1'));
    const endpoints = networks.map(({ id }, index) => makeEndpoint(id, 'host-1', index, [parseIp('10.0.0.2')]));
    const local = endpoints.map((endpoint, index) => ({ endpoint, slot: index + 1, sandbox: '/x' }));
    const self = makeHost(1);
    const desired = plan(snapshotOf({ hosts: [self], networks, pools, blocks, endpoints }), local, self);
    const routes = desired.route.filter(({ destination }) => destination === '10.0.0.2/32').map(({ netns }) => netns);
    assert.deepEqual(routes, ['cw-aaaaaaaaaa', 'cw-bbbbbbbbbb']);
    assert.deepEqual(
      desired.element.filter(({ set }) => set === 'inside4').map(({ key, value }) => [key, value]),
      [
        ['100.127.0.1', '10.0.0.2'],
        ['100.127.0.2', '10.0.0.2'],
      ],
    );
  });

  it('routes an address that no block of its host covers by itself', () => {
    const network = makeNetwork('aaaaaaaaaa');
    const pool = makePool(network.id, parseCidr('10.0.0.0/24'), 27);
    const blocks = [makeBlock(pool, 0, 'host-1'), makeBlock(pool, 1, 'host-2')];
    const endpoints = [
      makeEndpoint(network.id, 'host-1', 1, [parseIp('10.0.0.2')]),
      makeEndpoint(network.id, 'host-2', 2, [parseIp('10.0.0.200')]),
    ];
    const self = makeHost(1);
    const [first] = endpoints;
    assert.ok(first);
    const desired = plan(
      snapshotOf({ hosts: [self, makeHost(2)], networks: [network], pools: [pool], blocks, endpoints }),
      [{ endpoint: first, slot: 1, sandbox: '/x' }],
      self,
    );
    const remote = desired.route.filter(({ link }) => link === 'cwx4096').map(({ destination }) => destination);
    assert.deepEqual(remote, ['10.0.0.32/27', '10.0.0.200/32']);
  });

  it('carries plainly with a host gateway: a route per block through the host, nothing else', () => {
    const { snapshot, local, self } = makeCluster(2, 1, makeNetwork('aaaaaaaaaa', { model: 'flannel', carry: 'host-gateway' }));
    const desired = plan(snapshot, local, self);
    assert.deepEqual(
      desired.route.filter(({ via }) => via !== undefined),
      [{ netns: '', destination: '10.0.0.128/25', type: 'unicast', via: '10.213.0.2', link: 'eth0', onlink: true }],
    );
    assert.deepEqual([desired.fdb, desired.netns], [[], []]);
  });

  it('encrypts with a device per network whose peers hold their own addresses only', () => {
    const { snapshot, local, self } = makeCluster(3, 1, makeNetwork('aaaaaaaaaa', { carry: 'wireguard' }));
    const desired = plan(snapshot, local, self);
    assert.deepEqual(desired.wireguard, [
      {
        netns: 'cw-aaaaaaaaaa',
        link: 'cww4096',
        port: 51820,
        peers: [
          { publicKey: 'key2', endpoint: { ip: '10.213.0.2', port: 51820 }, allowed: ['10.0.0.128/25'] },
          { publicKey: 'key3', endpoint: { ip: '10.213.0.3', port: 51820 }, allowed: ['10.0.1.0/25'] },
        ],
      },
    ]);
    assert.equal(desired.link.find(({ type }) => type === 'wireguard')?.mtu, 1376);
  });

  it('gives an internal network no way out', () => {
    const { snapshot, local, self } = makeCluster(2, 1, makeNetwork('aaaaaaaaaa', { internal: true }));
    const desired = plan(snapshot, local, self);
    assert.deepEqual(
      desired.route.filter(({ destination }) => destination === '0.0.0.0/0'),
      [],
    );
    assert.equal(
      desired.link.some(({ name }) => name === 'cwup'),
      false,
    );
  });
});
