import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeBlock, makeEndpoint, makeHost, makeNetwork, makePool } from '#drivers/cluster.fixture.ts';
import { parseCidr, parseIp } from '#model/ip.ts';
import type { Exposure, Host, Network } from '#model/resources.ts';
import { keyOfRule } from './rules.ts';
import { type CloudFacts, wishOf } from './wish.ts';

const hostsOf = (count: number): Host[] => Array.from({ length: count }, (_, index) => makeHost(index + 1));
const factsOf = (networks: readonly Network[], more: Partial<CloudFacts> = {}): CloudFacts => ({
  hosts: hostsOf(2),
  networks,
  pools: networks.map((network, index) => makePool(network.id, parseCidr(`10.${index}.0.0/16`), 24)),
  blocks: [],
  endpoints: [],
  exposures: [],
  ...more,
});

const over = makeNetwork('over');
const plain = makeNetwork('plain', { model: 'flannel', carry: 'host-gateway' });

test('a network by VXLAN needs one port each way between hosts, whatever their number', () => {
  for (const count of [2, 100]) {
    const { groups, ports } = wishOf(factsOf([over, makeNetwork('two')], { hosts: hostsOf(count) }), 'cw');
    assert.deepEqual(
      groups.map(({ name, rules }) => [name, rules.map(keyOfRule)]),
      [['cw', ['ingress IPv4 17 8472 hosts', 'egress IPv4 17 8472 hosts']]],
    );
    assert.equal(ports.length, count);
    assert.ok(ports.every((port) => port.pairs.length === 0 && port.groups.join() === 'cw'));
  }
});

test('packets of containers as they are need rules by range and a pair; what that admits anyway needs no rule', () => {
  const direct = makeNetwork('direct', { model: 'flannel', carry: 'direct-routing' });
  const { groups, ports } = wishOf(factsOf([direct]), 'cw');
  assert.deepEqual(groups[0]?.rules.map(keyOfRule), [
    'ingress IPv4 any all 10.0.0.0/16',
    'ingress IPv4 any all hosts',
    'egress IPv4 any all 10.0.0.0/16',
    'egress IPv4 any all hosts',
  ]);
  assert.deepEqual(ports[0]?.pairs, ['10.0.0.0/16']);
});

test('encrypted networks have a port each, Docker Swarm its own, BGP its session', () => {
  const networks = [makeNetwork('secret', { carry: 'wireguard', vni: 4097 }), makeNetwork('swarm', { model: 'swarm' })];
  const { groups } = wishOf(factsOf(networks), 'cw');
  const ingress = groups[0]?.rules.filter(({ direction }) => direction === 'ingress').map(({ protocol, port }) => [protocol, port]);
  assert.deepEqual(ingress, [
    [17, 51821],
    [17, 4789],
    [6, 2377],
    [6, 7946],
    [17, 7946],
  ]);
});

test('hosts speak BGP with routers outside, each by its address, where a network is carried so', () => {
  const routers = [
    { name: 'fabric', ip: parseIp('10.9.0.1'), port: 1179 },
    { name: 'host', ip: hostsOf(1)[0]?.underlay[0]?.ip ?? assert.fail('no address'), port: 179 },
    { name: 'other-family', ip: parseIp('fd00::1'), port: 179 },
  ];
  const hills = makeNetwork('hills', { model: 'calico', carry: 'bgp' });
  const { needs, groups } = wishOf(factsOf([hills], { routers }), 'cw');
  const [told, ...others] = needs.filter(({ what }) => what.includes('BGPPeer'));
  assert.deepEqual([told?.what, others], ['TCP 179 and 1179 between hosts and 10.9.0.1 (BGP with the router of BGPPeer fabric)', []]);
  const rules = groups[0]?.rules.map(keyOfRule).filter((key) => key.includes('10.9.0.1'));
  assert.deepEqual(rules, ['ingress IPv4 6 179 10.9.0.1/32', 'egress IPv4 6 1179 10.9.0.1/32']);
  assert.ok(wishOf(factsOf([plain], { routers }), 'cw').needs.every(({ what }) => !what.includes('BGPPeer')));
});

test('an exposure opens its port on the host of its container only, to its sources only', () => {
  const box = makeEndpoint('over', 'host-2', 1, [parseIp('10.0.0.9')]);
  const base = { revision: 1, createdAt: '', labels: {}, network: 'over', protocol: 'tcp', port: 80 } as const;
  const exposures: Exposure[] = [
    { ...base, id: 'a', name: 'all', endpoint: box.name, hostPort: 8080, sources: [] },
    {
      ...base,
      id: 'b',
      name: 'some',
      endpoint: box.name,
      hostPort: 8081,
      sources: [parseCidr('192.0.2.0/24'), parseCidr('2001:db8::/32')],
    },
    { ...base, id: 'c', name: 'none', endpoint: 'no-such', hostPort: 8082, sources: [] },
  ];
  const { groups, ports } = wishOf(factsOf([over], { endpoints: [box], exposures }), 'cw');
  assert.deepEqual(groups[1]?.name, 'cw-exposed-host-2');
  assert.deepEqual(groups[1]?.rules.map(keyOfRule), [
    'ingress IPv4 6 8080 anybody',
    'ingress IPv4 6 8081 192.0.2.0/24',
    'ingress IPv6 6 8081 2001:db8::/32',
  ]);
  assert.deepEqual(
    ports.map((port) => port.groups),
    [['cw'], ['cw', 'cw-exposed-host-2']],
  );
});

test('routers are told of blocks by way of their hosts, for networks that need it', () => {
  const facts = factsOf([over, plain]);
  const blocks = facts.pools.map((pool) => makeBlock(pool, 3, 'host-2'));
  const { routes } = wishOf({ ...facts, blocks }, 'cw');
  assert.deepEqual(routes, { ranges: ['10.1.0.0/16'], routes: [{ destination: '10.1.3.0/24', nexthop: '10.213.0.2' }] });
});

test('by a router a port has pairs for its own blocks only, unless the whole range is its own by another carriage', () => {
  const byRouter = makeNetwork('plain', { model: 'flannel', carry: 'routes' });
  const facts = factsOf([byRouter]);
  const blocks = facts.pools.flatMap((pool) => [makeBlock(pool, 1, 'host-1'), makeBlock(pool, 2, 'host-2')]);
  const pairsOf = (more: Partial<CloudFacts>): unknown[] => wishOf({ ...facts, blocks, ...more }, 'cw').ports.map(({ pairs }) => pairs);
  assert.deepEqual(pairsOf({}), [['10.0.1.0/24'], ['10.0.2.0/24']]);
  assert.deepEqual(pairsOf({ networks: [byRouter, plain].map((one) => ({ ...one, id: 'plain' })) }), [['10.0.0.0/16'], ['10.0.0.0/16']]);
});

test('hosts that no router can lead to are known', () => {
  const byRouter = makeNetwork('plain', { model: 'flannel', carry: 'routes' });
  const pool = makePool('plain', parseCidr('fd44::/48'), 64);
  const { routes } = wishOf(factsOf([byRouter], { pools: [pool], blocks: [makeBlock(pool, 1, 'host-1')] }), 'cw');
  assert.deepEqual(routes, { ranges: ['fd44::/48'], routes: [], lost: [{ host: 'host-1', destination: 'fd44:0:0:1::/64' }] });
});

test('hosts on IPv6 get rules of IPv6; without hosts, and for networks that are being removed, nothing is wished', () => {
  const six = { interface: 'eth0', ip: parseIp('fd00::1'), subnet: parseCidr('fd00::/64'), mtu: 1450 };
  const { groups } = wishOf(factsOf([over], { hosts: [makeHost(1, { underlay: [six] })] }), 'cw');
  assert.deepEqual(groups[0]?.rules.map(keyOfRule), ['ingress IPv6 17 8472 hosts', 'egress IPv6 17 8472 hosts']);
  assert.deepEqual(wishOf(factsOf([over], { hosts: [makeHost(1, { underlay: [] })] }), 'cw').groups, []);
  assert.deepEqual(wishOf(factsOf([{ ...over, deletedAt: '2026-01-01T00:00:00Z' }]), 'cw').groups, []);
});
