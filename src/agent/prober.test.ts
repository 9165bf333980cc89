import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeHost, snapshotOf } from '#drivers/cluster.fixture.ts';
import type { Check, PeerChecks } from '#drivers/probes.ts';
import type { Probe } from '#kernel/probe-packet.ts';
import { parseIp } from '#model/ip.ts';
import { isBetweenHosts, Prober } from './prober.ts';

const own = parseIp('192.0.2.1');
const check = (index: number, port = 8472): Check => {
  const to = parseIp(`192.0.2.${index + 1}`);
  return {
    sort: port === 179 ? 'session' : 'tunnel',
    protocol: port === 179 ? 'tcp' : 'udp',
    port,
    from: own,
    to,
    what: `port ${port}`,
    networks: ['a'],
  };
};
const peer = (index: number, ...ports: number[]): PeerChecks => ({
  host: `host-${index}`,
  mtu: 1450,
  checks: ports.map((port) => check(index, port)),
});

/** A wire that answers at once what it lets through, and a clock that only waiting moves. */
function bed(peers: readonly PeerChecks[], passes: (probe: Probe) => boolean | undefined) {
  let now = 0;
  const sent: Probe[] = [];
  const changes = { count: 0 };
  const state = { isWhole: true };
  const prober: Prober = new Prober({
    checks: () => peers,
    isWhole: () => state.isWhole,
    send(probe) {
      sent.push(probe);
      const answer = passes(probe);
      if (answer === true) queueMicrotask(() => prober.answered(probe.protocol === 'tcp' ? probe.nonce.slice(0, 8) : probe.nonce));
      return answer !== undefined;
    },
    async wait(ms) {
      await new Promise((resolve) => setImmediate(resolve));
      now += ms;
    },
    now: () => now,
    changed: () => {
      changes.count += 1;
    },
    log: () => undefined,
  });
  return { prober, sent, changes, state };
}

test('what is answered passes; what is not is lost since it was first tried, and passes again', async () => {
  const closed = new Set([179]);
  const { prober } = bed([peer(1, 8472, 179)], ({ port }) => !closed.has(port));
  await prober.turn();
  await prober.turn();
  const { tried, passing, lost, narrow } = prober.paths();
  assert.deepEqual({ tried, passing, narrow }, { tried: 2, passing: 1, narrow: [] });
  assert.deepEqual(
    lost.map(({ host, sort, what, isAlone }) => ({ host, sort, what, isAlone })),
    [{ host: 'host-1', sort: 'session', what: 'port 179', isAlone: true }],
  );
  assert.ok((lost[0]?.seconds ?? 0) >= 6, 'three tries of a second in each of two turns');
  closed.clear();
  await prober.turn();
  assert.deepEqual(prober.paths(), { tried: 2, passing: 2, lost: [], narrow: [] });
});

test('a host that is one of several to be lost is not alone, and one that nothing is sent to any more is forgotten', async () => {
  const peers = [peer(1, 8472), peer(2, 8472)];
  const { prober } = bed(peers, ({ to }) => to === '192.0.2.2');
  await prober.turn();
  assert.deepEqual(
    prober.paths().lost.map(({ host, isAlone }) => `${host} ${isAlone}`),
    ['host-2 false'],
  );
  peers.pop();
  await prober.turn();
  assert.deepEqual(prober.paths(), { tried: 1, passing: 1, lost: [], narrow: [] });
});

test('nothing is said of ways that this host has none to send by', async () => {
  const { prober } = bed([peer(1, 8472)], () => undefined);
  await prober.turn();
  assert.deepEqual(prober.paths(), { tried: 0, passing: 0, lost: [], narrow: [] });
});

test('the largest packet that passes is found to the byte, told to routes, followed down, and full size again', async () => {
  let mtu = 1337;
  const { prober, changes } = bed([peer(1, 8472)], ({ size = 60 }) => size <= mtu);
  await prober.turn();
  assert.deepEqual(prober.paths().narrow, [{ host: 'host-1', mtu: 1337, usual: 1450 }]);
  const snapshot = snapshotOf({ hosts: [makeHost(1), makeHost(2)] });
  assert.deepEqual(
    [...prober.narrowed(snapshot).hosts.values()].map(({ underlay }) => underlay[0]?.mtu),
    [1337, 1450],
  );
  await prober.turn();
  assert.equal(changes.count, 2, 'no news, beside that all has been tried');
  mtu = 1281;
  await prober.turn();
  assert.equal(prober.paths().narrow[0]?.mtu, 1281);
  mtu = 1450;
  await prober.turn();
  assert.deepEqual(prober.paths().narrow, []);
  assert.equal(prober.narrowed(snapshot), snapshot);
  assert.equal(changes.count, 4);
});

test('a turn tries a bounded number of hosts, those that are lost among them, and all of them in turns', async () => {
  const peers = Array.from({ length: 100 }, (_, index) => peer(index + 1, 8472));
  const { prober, sent } = bed(peers, ({ to }) => to !== '192.0.2.2');
  const reached = new Set<string>();
  for (let turn = 0; turn < 30; turn++) {
    sent.length = 0;
    await prober.turn();
    const to = new Set(sent.map((probe) => probe.to));
    assert.ok(to.size <= 8 && sent.length <= 16, `${to.size} hosts, ${sent.length} packets`);
    for (const ip of to) reached.add(ip);
  }
  assert.equal(reached.size, 100);
  assert.deepEqual(
    prober.paths().lost.map(({ host }) => host),
    ['host-1'],
  );
  assert.ok(
    sent.some(({ to }) => to === '192.0.2.2'),
    'one that is lost is tried in every turn',
  );
});

test('all has been tried once each sort was, whatever became of it and of other hosts, and what comes later changes nothing', async () => {
  const peers = Array.from({ length: 20 }, (_, index) => peer(index + 1, 8472, 179));
  const { prober, changes, state } = bed(peers, ({ port }) => (port === 179 ? undefined : false));
  state.isWhole = false;
  await prober.turn();
  assert.deepEqual([prober.hasTriedAll, changes.count], [false, 0], 'the cluster may say more');
  state.isWhole = true;
  await prober.turn();
  assert.deepEqual([prober.hasTriedAll, changes.count], [true, 1]);
  peers.push({ ...peer(21), checks: [{ ...check(21), sort: 'plain' }] });
  await prober.turn();
  assert.deepEqual([prober.hasTriedAll, changes.count], [true, 1]);
  const alone = bed([], () => true);
  await alone.prober.turn();
  assert.ok(alone.prober.hasTriedAll, 'nothing is to be tried');
});

test('only hosts are answered: their addresses, and the first ones of their blocks', () => {
  const snapshot = snapshotOf({ hosts: [makeHost(1), makeHost(2)] });
  const between = (from: string, to: string): boolean => isBetweenHosts(snapshot, 'host-1', parseIp(from), parseIp(to));
  assert.ok(between('10.213.0.2', '10.213.0.1'));
  assert.ok(!between('10.213.0.3', '10.213.0.1'), 'somebody else asks');
  assert.ok(!between('10.213.0.2', '10.213.0.4'), 'somebody else is asked');
});
