import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { HealthPorts } from './health-ports.ts';

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
  using ports = new HealthPorts({ log: { warn: () => undefined } });
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
  using ports = new HealthPorts({ log: { warn: (_, message) => void said.push(message) } });
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
});
