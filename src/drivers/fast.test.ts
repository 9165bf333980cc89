import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr, parseIp } from '#model/ip.ts';
import { makeCluster, makeHost, makeNetwork } from './cluster.fixture.ts';
import { type Beyond, plan } from './plan.ts';

const network = makeNetwork('aaaaaaaaaa', { vni: 9 });

test('every endpoint of this host and the tunnel have a short cut', () => {
  const { snapshot, local, self } = makeCluster(2, 2, network);
  const { link, fast } = plan(snapshot, local, self);
  const names = link.map(({ name }) => name).filter((name) => /^cw[ex]/.test(name));
  assert.deepEqual(fast.map((path) => path.link).toSorted(), names.toSorted());
  assert.deepEqual(fast[0], {
    netns: 'cw-aaaaaaaaaa',
    link: 'cwe00000000aaa',
    networks: [['10.0.0.0/8']],
    member: { mac: '0a:63:0a:00:00:02', addresses: ['10.0.0.2'] },
    tunnel: { mac: '02:63:77:00:00:01', mtu: 1400 },
  });
  assert.deepEqual(fast.at(-1), { netns: 'cw-aaaaaaaaaa', link: 'cwx9', networks: [['10.0.0.0/8']] });
});

test('what the remote host with the least room cannot take goes the long way', () => {
  const { snapshot, local, self } = makeCluster(2, 1, network);
  const narrow = makeHost(2, { underlay: makeHost(2).underlay.map((underlay) => ({ ...underlay, mtu: 1300 })) });
  const hosts = new Map([...snapshot.hosts, [narrow.id, narrow]]);
  assert.equal(plan({ ...snapshot, hosts }, local, self).fast[0]?.tunnel?.mtu, 1250);
});

test('an encrypted network is short between endpoints of one host only', () => {
  const encrypted = makeCluster(2, 2, makeNetwork('aaaaaaaaaa', { carry: 'wireguard' }));
  const paths = plan(encrypted.snapshot, encrypted.local, encrypted.self).fast;
  assert.deepEqual(
    paths.map(({ link, tunnel }) => [link, tunnel]),
    encrypted.local.map(({ endpoint }) => [`cwe${endpoint.id.slice(0, 11)}`, undefined]),
  );
});

const routed = makeNetwork('bbbbbbbbbb', { model: 'flannel', carry: 'host-gateway' });
const services = [{ key: 'a', ip: parseIp('10.96.0.1'), protocol: 'tcp' as const, port: 80, backends: [] }];

test('a plainly routed network is short from its endpoints and from the link to other hosts', () => {
  const { snapshot, local, self } = makeCluster(2, 1, routed);
  const { fast, element } = plan(snapshot, local, self);
  assert.deepEqual(fast, [
    { netns: '', link: 'eth0', networks: [['10.0.0.0/8']], strict: true },
    {
      netns: '',
      link: 'cwe00000000bbb',
      networks: [['10.0.0.0/8']],
      member: { mac: '0a:63:0a:00:00:02', addresses: ['10.0.0.2'] },
      outward: { links: ['eth0'], mtu: 1450 },
    },
  ]);
  assert.deepEqual(
    element.filter(({ set }) => set.startsWith('short')).map(({ set, key }) => `${set} ${key}`),
    ['short4 10.0.0.0/8 . 10.0.0.0/8'],
  );
});

test('where somebody else has a say between endpoints of a plainly routed network, nothing is short', () => {
  const { snapshot, local, self } = makeCluster(2, 1, routed);
  const slowed = local.map((one) => ({ ...one, bandwidth: { ingress: { rate: 1_000_000, burst: 65_536 } } }));
  const everywhere = { ...snapshot, networks: new Map([[routed.id, { ...routed, present: 'always' as const }]]) };
  const policy = { tiers: [], policies: new Map(), sets: new Map(), named: new Map(), endpoints: [] };
  for (const { fast, element, table } of [
    plan(snapshot, local, self, { services }),
    plan(snapshot, local, self, { services: [] }),
    plan(snapshot, local, self, { policy }),
    plan(snapshot, local, self, { hasIpsec: true }),
    plan(snapshot, local, self, { isShort: false }),
    plan(snapshot, slowed, self),
    plan(everywhere, local, self),
    ...(['vxlan', 'direct-routing', 'wireguard', 'bgp', 'routes'] as const).map((carry) => {
      const other = makeCluster(2, 1, makeNetwork('bbbbbbbbbb', { model: 'flannel', carry }));
      return plan(other.snapshot, other.local, other.self);
    }),
  ]) {
    assert.deepEqual(fast, []);
    assert.deepEqual(
      element.filter(({ set }) => set.startsWith('short')),
      [],
    );
    assert.ok(table.every(({ text }) => !text.includes('short')));
  }
});

test('isolated networks stay short where others are not, unless short cuts are not wanted at all', () => {
  const { snapshot, local, self } = makeCluster(2, 2, network);
  const count = (beyond: Beyond): number => plan(snapshot, local, self, beyond).fast.length;
  assert.deepEqual([count({ services }), count({ hasIpsec: true }), count({ isShort: false })], [3, 3, 0]);
});

test('a network without pools, or with very many, has none', () => {
  const { snapshot, local, self } = makeCluster(2, 1, network);
  const poolsOf = (count: number) =>
    new Map(
      Array.from({ length: count }, (_, index) => {
        const [pool] = snapshot.pools.values();
        return [`${index}`, { ...(pool ?? assert.fail()), id: `${index}`, cidr: parseCidr(`10.${index}.0.0/16`) }];
      }),
    );
  for (const count of [0, 9]) assert.deepEqual(plan({ ...snapshot, pools: poolsOf(count) }, local, self).fast, []);
  assert.equal(plan({ ...snapshot, pools: poolsOf(8) }, local, self).fast.length, 2);
});
