// Which endpoints of a host policies are about.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeEndpoint, makeHost, makeNetwork, snapshotOf } from '#drivers/cluster.fixture.ts';
import { parseIp } from '#model/ip.ts';
import type { LocalEndpoint } from '#model/resources.ts';
import { guarded } from './policies.ts';

const networks = [makeNetwork('pods', { model: 'flannel' }), makeNetwork('ports', { model: 'neutron' }), makeNetwork('apart')];
const snapshot = snapshotOf({ hosts: [makeHost(1)], networks, pools: [], blocks: [], endpoints: [] });
const on = (network: string, number: number, placed: Partial<LocalEndpoint> = {}): LocalEndpoint => ({
  endpoint: { ...makeEndpoint(network, 'host-1', number, [parseIp(`10.0.0.${number}`)]), owner: `shop/${number}` },
  slot: number,
  ...placed,
});
const inside = (ifname: string): Partial<LocalEndpoint> => ({ sandbox: '/run/netns/a', ifname });
const known = (local: readonly LocalEndpoint[], only?: string): unknown =>
  guarded(snapshot, local, only).map(({ owner, isFree = false }) => [owner, isFree]);

test("a container's first network is bound, whichever it is, and its further ones are known to be free", () => {
  const local = [on('pods', 1), on('ports', 2, inside('eth0')), on('ports', 3, inside('net1')), on('ports', 4)];
  assert.deepEqual(known(local, 'pods'), [
    ['shop/1', false],
    ['shop/2', false],
    ['shop/3', true],
  ]);
});

test('without a network that they are about they bind all that the host routes', () => {
  const local = [on('pods', 1), on('ports', 2, inside('eth1')), on('apart', 3, inside('eth0'))];
  assert.deepEqual(known(local), [
    ['shop/1', false],
    ['shop/2', false],
  ]);
});
