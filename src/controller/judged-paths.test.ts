import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeHost } from '#drivers/cluster.fixture.ts';
import type { LostPath, Paths } from '#model/paths.ts';
import { judgePaths } from './judged-paths.ts';

const now = Date.parse('2026-03-01T12:00:00Z');
const none: Paths = { tried: 1, passing: 1, lost: [], narrow: [] };
const lost: LostPath = { host: 'host-2', sort: 'tunnel', what: 'UDP port 8472', networks: ['a', 'b'], seconds: 30, isAlone: true };

/** Where the other host was seen so many seconds ago. */
function judged(paths: Paths | undefined, seenSecondsAgo: number, probes = true) {
  const other = makeHost(2);
  const status = { ...other.status, seenAt: new Date(now - seenSecondsAgo * 1000).toISOString(), ...(probes ? { paths: none } : {}) };
  const hosts = new Map([['host-2', { ...other, status }]]);
  const mirror = { all: () => hosts };
  return judgePaths({ mirror: mirror as never, now: () => new Date(now) }, paths);
}

test('a way is lost when the other host has reported since, and the host is not ready when it is the only one', () => {
  const { isReady, failing } = judged({ ...none, lost: [lost] }, 10);
  assert.equal(isReady, false);
  assert.match(failing.join(), /UDP port 8472 does not reach host host-2, for 30 s \(networks a, b\)\. A security group/);
  assert.equal(judged({ ...none, lost: [{ ...lost, isAlone: false }] }, 10).isReady, true);
});

test('of a host that is away, or sends no probes itself, nothing is said', () => {
  for (const [seen, probes] of [
    [29, true],
    [600, true],
    [1, false],
  ] as const) {
    assert.deepEqual(judged({ ...none, lost: [lost] }, seen, probes), { isReady: true, failing: [] });
  }
  assert.deepEqual(judged(undefined, 1), { isReady: true, failing: [] });
});

test('a link with a smaller MTU is told, and the host stays ready', () => {
  const { isReady, failing } = judged({ ...none, narrow: [{ host: 'host-2', mtu: 1400, usual: 1450 }] }, 1);
  assert.equal(isReady, true);
  assert.match(failing.join(), /more than 1400 bytes do not reach host host-2, though the interfaces of both take 1450/);
});
