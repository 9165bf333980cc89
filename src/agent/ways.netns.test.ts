// Between two hosts' containers a packet each millisecond, while the way to the other host changes again and again: routes together
// with the neighbours, forwarding entries and links that they need.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { makeDualHost, makeFlatCluster, makeNetwork } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import { inNetns } from '#kernel/netns.ts';
import { eventually, type Place, Wire } from './namespaces.fixture.ts';
import { routeChanges, waysTo } from './route-changes.fixture.ts';

mustBeIsolated();

const families = [4, 6] as const;
const hosts = [1, 2].map((index) => makeDualHost(index));

/** Requests for an echo that have come in. */
const asked = (place: Place): Record<4 | 6, number> => {
  const [names = '', values = ''] = place.run('cat', '/proc/net/snmp').match(/^Icmp:.*/gm) ?? [];
  const four = values.split(' ')[names.split(' ').indexOf('InEchos')];
  const [, six] = /^Icmp6InEchos\s+(\d+)/m.exec(place.run('cat', '/proc/net/snmp6')) ?? [];
  return { 4: Number(four), 6: Number(six) };
};

/** A packet each millisecond until it is told to stop; how many there were. */
function stream(from: Place, target: string): () => Promise<number> {
  const child = inNetns(from.path, () => spawn('ping', ['-n', '-q', '-i', '0.001', target], { stdio: ['ignore', 'pipe', 'ignore'] }));
  let said = '';
  child.stdout.on('data', (bytes) => (said += String(bytes)));
  return async () => {
    child.kill('SIGINT');
    await once(child, 'close');
    return Number(/^(\d+) packets transmitted/m.exec(said)?.[1]);
  };
}

/** Two hosts with a container each. Ours can be told to carry otherwise, and then keeps its tunnels, as its agent would for a while. */
function twoHosts(wire: Wire) {
  const network = makeNetwork('flat', { model: 'flannel', vni: 7 });
  const { local, snapshot } = makeFlatCluster(network, hosts, '/run/ways');
  const [ours, theirs] = hosts.map(({ id, underlay }) =>
    wire.host(
      id,
      underlay.map(({ ip, subnet }) => ip + subnet.replace(/.*\//, '/')),
      { lingerMs: 60_000 },
    ),
  );
  const [self, other] = hosts;
  assert.ok(ours !== undefined && theirs !== undefined && self !== undefined && other !== undefined);
  theirs.apply(plan(snapshot, [local[2]], other));
  // Who is beyond the host's way to everywhere knows the way to the other's containers.
  for (const { ip } of other.underlay) ours.run('ip', 'route', 'add', 'default', 'via', ip);
  const carriedBy = (carry: 'vxlan' | 'host-gateway' | 'routes') => {
    const changed = { ...network, choices: { ...network.choices, carry } };
    ours.apply(plan({ ...snapshot, networks: new Map([[network.id, changed]]) }, [local[0]], self));
  };
  // The first time that the host's link is given a place for filters the kernel stops it for a moment (docs/operate.md#short-cuts).
  carriedBy('host-gateway');
  carriedBy('vxlan');
  return {
    carriedBy,
    host: ours,
    ours: { place: wire.container(ours, local[0]), at: local[0] },
    theirs: { place: wire.container(theirs, local[2]), at: local[2] },
  };
}

for (const direction of ['leaves', 'comes in'] as const) {
  test(`no packet that ${direction} is lost where hosts are reached by another way from one moment to the next`, async () => {
    using wire = new Wire();
    const { carriedBy, host, ours, theirs } = twoHosts(wire);
    const [from, to] = direction === 'leaves' ? [ours, theirs] : [theirs, ours];
    const addresses = to.at.endpoint.addresses;
    for (const ip of addresses) await eventually(() => from.place.ping(ip), `${ip} to answer`);
    const tables = families.map((family) => host.run('ip', `-${family}`, 'route'));
    using monitor = await routeChanges(host);
    const before = asked(to.place);
    const streams = addresses.map((ip) => stream(from.place, ip));
    for (let round = 0; round < 15; round++) {
      for (const carry of ['host-gateway', 'vxlan', 'routes', 'vxlan'] as const) {
        carriedBy(carry);
        await setTimeout(20);
      }
    }
    const [four, six] = await Promise.all(streams.map((stop) => stop()));
    const after = asked(to.place);
    assert.deepEqual({ 4: after[4] - before[4], 6: after[6] - before[6] }, { 4: four, 6: six });
    assert.ok((four ?? 0) > 100 && (six ?? 0) > 100);
    for (const [index, ip] of theirs.at.endpoint.addresses.entries()) {
      const ways = waysTo(ip, tables[index] ?? '', monitor.lines());
      assert.deepEqual(
        ways.filter((way) => way === undefined || way.startsWith('unreachable')),
        [],
      );
      assert.ok(ways.some((way) => way?.startsWith('default')) && ways.some((way) => way?.includes('dev cwx')));
    }
  });
}
