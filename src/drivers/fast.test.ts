import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr } from '#model/ip.ts';
import { makeCluster, makeHost, makeNetwork } from './cluster.fixture.ts';
import { plan } from './plan.ts';

const network = makeNetwork('aaaaaaaaaa', { vni: 9 });

test('every endpoint of this host and the tunnel have a short cut', () => {
  const { snapshot, local, self } = makeCluster(2, 2, network);
  const { link, fast } = plan(snapshot, local, self);
  const names = link.map(({ name }) => name).filter((name) => /^cw[ex]/.test(name));
  assert.deepEqual(fast.map((path) => path.link).toSorted(), names.toSorted());
  assert.deepEqual(fast[0], {
    netns: 'cw-aaaaaaaaaa',
    link: 'cwe00000000aaa',
    ranges: ['10.0.0.0/8'],
    member: { mac: '0a:63:0a:00:00:02', addresses: ['10.0.0.2'] },
    tunnel: { mac: '02:63:77:00:00:01', mtu: 1400 },
  });
  assert.deepEqual(fast.at(-1), { netns: 'cw-aaaaaaaaaa', link: 'cwx9', ranges: ['10.0.0.0/8'] });
});

test('what the remote host with the least room cannot take goes the long way', () => {
  const { snapshot, local, self } = makeCluster(2, 1, network);
  const narrow = makeHost(2, { underlay: makeHost(2).underlay.map((underlay) => ({ ...underlay, mtu: 1300 })) });
  const hosts = new Map([...snapshot.hosts, [narrow.id, narrow]]);
  assert.equal(plan({ ...snapshot, hosts }, local, self).fast[0]?.tunnel?.mtu, 1250);
});

test('an encrypted network is short between endpoints of one host only, and one that the host routes not at all', () => {
  const encrypted = makeCluster(2, 2, makeNetwork('aaaaaaaaaa', { carry: 'wireguard' }));
  const paths = plan(encrypted.snapshot, encrypted.local, encrypted.self).fast;
  assert.deepEqual(
    paths.map(({ link, tunnel }) => [link, tunnel]),
    encrypted.local.map(({ endpoint }) => [`cwe${endpoint.id.slice(0, 11)}`, undefined]),
  );
  const hosted = makeCluster(2, 2, makeNetwork('aaaaaaaaaa', { model: 'flannel' }));
  assert.deepEqual(plan(hosted.snapshot, hosted.local, hosted.self).fast, []);
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
