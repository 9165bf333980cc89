import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { HealthPorts, staysInUse } from './health-ports.ts';

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0);
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : assert.fail();
}
const ask = async (port: number, path = '/'): Promise<{ status: number; body: unknown; weight: string | null }> => {
  const response = await fetch(`http://127.0.0.1:${port}${path}`);
  return { status: response.status, body: await response.json(), weight: response.headers.get('x-load-balancing-endpoint-weight') };
};

test('a health-check port says how many endpoints are here, until its service is gone', async () => {
  using ports = new HealthPorts({ log: { warn: () => undefined }, nodePort: await freePort() });
  const port = await freePort();
  const told = { port, namespace: 'shop', name: 'web' };
  ports.update([{ ...told, localEndpoints: 2 }]);
  const body = { service: { namespace: 'shop', name: 'web' }, localEndpoints: 2, serviceProxyHealthy: true };
  assert.deepEqual(await ask(port, '/healthz'), { status: 200, body, weight: '2' });
  ports.update([{ ...told, localEndpoints: 0 }]);
  assert.deepEqual(await ask(port), { status: 503, body: { ...body, localEndpoints: 0 }, weight: '0' });
  ports.update([]);
  await assert.rejects(ask(port));
});

test('a port that somebody else has is told, and served once it is free', async () => {
  const said: string[] = [];
  using ports = new HealthPorts({ log: { warn: (_, message) => void said.push(message) }, nodePort: await freePort() });
  const other = createServer();
  other.listen(0);
  await once(other, 'listening');
  const address = other.address();
  const port = typeof address === 'object' && address !== null ? address.port : assert.fail();
  const wanted = [{ port, namespace: 'shop', name: 'web', localEndpoints: 1 }];
  ports.update(wanted);
  for (const end = performance.now() + 10_000; said.length === 0; await setTimeout(5)) assert.ok(performance.now() < end);
  other.close();
  await once(other, 'close');
  ports.update(wanted);
  assert.equal((await ask(port)).status, 200);
  assert.deepEqual(said, ['cannot serve a port for the health checks of load balancers']);
});

test("the node's own port says whether load balancers may go on with it", async () => {
  const nodePort = await freePort();
  using ports = new HealthPorts({ log: { warn: () => undefined }, nodePort });
  await assert.rejects(ask(nodePort), 'not before services are in the kernel');
  ports.update([]);
  const { status, body } = await ask(nodePort, '/healthz');
  assert.deepEqual([status, Object.keys(Object(body))], [200, ['lastUpdated', 'currentTime', 'nodeEligible']]);
  ports.saw({ metadata: { name: 'a' }, spec: { taints: [{ key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' }] } });
  const codes = async (): Promise<number[]> => [(await ask(nodePort, '/healthz')).status, (await ask(nodePort, '/livez?a=b')).status];
  assert.deepEqual(await codes(), [503, 200]);
  ports.update([]);
  assert.deepEqual([await codes(), (await ask(nodePort)).status], [[503, 200], 404]);
  ports.saw({ metadata: { name: 'a' }, spec: {} });
  assert.deepEqual(await codes(), [200, 200]);
});

test('a node that is cordoned stays in use, one that is being deleted does not', () => {
  assert.ok(staysInUse({ metadata: {}, spec: { taints: [{ key: 'node.kubernetes.io/unschedulable' }] } }));
  assert.ok(staysInUse({ metadata: {} }) && staysInUse({ metadata: {}, spec: { taints: null } }) && staysInUse(undefined));
  assert.ok(!staysInUse({ metadata: { deletionTimestamp: '2026-01-01T00:00:00Z' }, spec: {} }));
});
