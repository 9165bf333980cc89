import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { makeCluster, makeNetwork } from '#drivers/cluster.fixture.ts';
import { plan } from '#drivers/plan.ts';
import type { AgentStatus } from './status.ts';
import { createApps, listenSocket, objectsOf } from './server.ts';

const folder = mkdtempSync(join(tmpdir(), 'causeway-server-'));
after(() => rmSync(folder, { recursive: true }));
const network = makeNetwork('aaaaaaaaaa');
const { snapshot, local, self } = makeCluster(3, 2, network);
const desired = plan(snapshot, local, self);

function apps(status: Partial<AgentStatus> = {}) {
  const whole: AgentStatus = {
    host: 'a',
    connected: true,
    synced: true,
    inForce: true,
    revision: 7,
    runs: 3,
    desired: 12,
    failing: [],
    refused: [],
    addresses: 2,
    ...status,
  };
  return createApps({
    status: () => whole,
    isSpeakerRecovering: () => whole.host === 'speaker',
    desired: () => desired,
    network: (text) => (text === network.id || text === network.name ? network : undefined),
    policies: () => Promise.resolve(undefined),
    details: () => ({ version: '1.2.3' }),
  });
}

test('loopback tells health and figures, and nothing more', async () => {
  const { loopback } = apps();
  assert.equal((await loopback.request('/healthz')).status, 200);
  for (const [status, waitsFor] of [
    [{ synced: false, inForce: false }, 'the cluster to be told'],
    [{ inForce: false }, 'the kernel to have what was told'],
    [{ host: 'speaker' }, 'BGP peers to tell their routes again'],
  ] as const) {
    const response = await apps(status).loopback.request('/healthz');
    assert.deepEqual([response.status, await response.json()], [503, { ok: false, waitsFor }]);
  }
  assert.equal((await apps({ synced: false }).loopback.request('/livez')).status, 200);
  const figures = await (await loopback.request('/metrics')).text();
  for (const line of [
    'causeway_agent_connected 1',
    'causeway_agent_desired_objects 12',
    'causeway_agent_failing_objects 0',
    'causeway_agent_held_addresses 2',
    'causeway_agent_runs_total 3',
  ])
    assert.ok(figures.includes(`\n${line}\n`), line);
  for (const name of ['process_cpu_seconds_total', 'process_resident_memory_bytes', 'nodejs_eventloop_lag_p99_seconds'])
    assert.match(figures, new RegExp(`^causeway_agent_${name} `, 'm'), 'those of the process itself');
  assert.deepEqual(
    [(await loopback.request('/status')).status, (await loopback.request(`/networks/${network.id}/objects`)).status],
    [404, 404],
  );
});

test('the socket tells the status, and the objects of a network by id or name', async () => {
  const { socket } = apps();
  const status = (await (await socket.request('/status')).json()) as Record<string, unknown>;
  assert.deepEqual([status['host'], status['version'], status['revision']], ['a', '1.2.3', 7]);
  for (const text of [network.id, network.name]) {
    const { netns, objects } = (await (await socket.request(`/networks/${text}/objects`)).json()) as {
      netns: string;
      objects: Record<string, unknown[]>;
    };
    assert.equal(netns, `cw-${network.id}`);
    assert.equal(objects['netns']?.length, 1);
  }
  assert.equal((await socket.request('/networks/none/objects')).status, 404);
});

test('objects of a network are those of its domain and its links on the host, and no others', () => {
  const other = makeNetwork('bbbbbbbbbb', { vni: 4097 });
  assert.deepEqual(Object.values(objectsOf(desired, other)).flat(), []);
  const objects = objectsOf(desired, network);
  assert.equal(objects['link']?.length, desired.link.length);
  assert.equal(objects['route']?.length, desired.route.length);
  assert.deepEqual(
    objects['table']?.map((table) => (table as { netns: string }).netns),
    [`cw-${network.id}`],
    'the table of the host belongs to all',
  );
});

test('the socket is for its owner only, and takes the place of one that a dead process left', async () => {
  const path = join(folder, 'deeper', 'agent.sock');
  const first = await listenSocket(apps().socket, path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  first.close();
  writeFileSync(path, '');
  const second = await listenSocket(apps().socket, path);
  const answer = await new Promise<number | undefined>((resolve) => {
    request({ socketPath: path, path: '/healthz' }, ({ statusCode }) => resolve(statusCode)).end();
  });
  assert.equal(answer, 200);
  second.close();
  second.closeAllConnections();
  assert.ok(!existsSync(`${path}.new`));
});
