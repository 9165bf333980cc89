import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { test, type TestContext } from 'node:test';
import { makeEndpoint, makeNetwork } from '#drivers/cluster.fixture.ts';
import { parseIp } from '#model/ip.ts';
import type { Exposure, LocalEndpoint, PublishedPort } from '#model/resources.ts';
import { ExposedPorts } from './exposed-ports.ts';
import { HostPorts } from './host-ports.ts';

const quiet = { log: (): void => undefined };
const loopback = parseIp('127.0.0.1');

async function listening(t: TestContext, port = 0): Promise<{ server: Server; port: number }> {
  const server = createServer().listen(port, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  return { server, port: address.port };
}

async function freePort(t: TestContext): Promise<number> {
  const { server, port } = await listening(t);
  server.close();
  await once(server, 'close');
  return port;
}

const network = makeNetwork('over');
const localEndpoint = (name: string, ports: readonly PublishedPort[] = []): LocalEndpoint => ({
  endpoint: { ...makeEndpoint('over', 'host-1', 1, [parseIp('10.0.0.1')]), id: name, name, ports },
  slot: 1,
});
const exposure = (id: string, hostPort: number, changes: Partial<Exposure> = {}): Exposure => ({
  id,
  name: id,
  revision: 1,
  createdAt: '2026-01-01T00:00:00.000Z',
  labels: {},
  network: network.id,
  endpoint: 'front',
  protocol: 'tcp',
  port: 80,
  hostPort,
  sources: [],
  ...changes,
});

/** Those that open on this host, and what is told of the others. */
function admitted(exposed: ExposedPorts, exposures: readonly Exposure[], local: readonly LocalEndpoint[]): string[] {
  const facts = { networks: new Map([[network.id, network]]), exposures: new Map(exposures.map((one) => [one.id, one])) };
  return [...exposed.admit(facts, local).exposures.keys()];
}

test('an exposure takes no port from a program of the host, opens when that ends, and then keeps others from the port', async (t) => {
  using exposed = new ExposedPorts(quiet);
  const { server, port } = await listening(t);
  const local = [localEndpoint('front')];
  assert.deepEqual(admitted(exposed, [exposure('ssh', port)], local), []);
  assert.match(exposed.problems.join(), /^Exposure ssh is not open here: Port [0-9]+\/tcp of this host is used by another program/);
  server.close();
  await once(server, 'close');
  assert.deepEqual(admitted(exposed, [exposure('ssh', port)], local), ['ssh']);
  assert.deepEqual(exposed.problems, []);
  await assert.rejects(listening(t, port), /EADDRINUSE/);
  assert.deepEqual(admitted(exposed, [exposure('ssh', port)], []), ['ssh'], 'where nothing is exposed nothing is held');
  await listening(t, port);
});

test('an exposure takes no published port, but may name one of its own container', async (t) => {
  using exposed = new ExposedPorts(quiet);
  using published = new HostPorts(quiet);
  const hostPort = await freePort(t);
  const ports = [{ protocol: 'tcp', hostPort, port: 80 }] as const;
  published.take(ports);
  assert.deepEqual(admitted(exposed, [exposure('late', hostPort)], [localEndpoint('front'), localEndpoint('other', ports)]), []);
  assert.deepEqual(admitted(exposed, [exposure('own', hostPort)], [localEndpoint('front', ports)]), ['own']);
});

test('of two exposures that ask for one port the older has it; two that lead to the same do not ask against each other', async (t) => {
  using exposed = new ExposedPorts(quiet);
  const port = await freePort(t);
  const local = [localEndpoint('front'), localEndpoint('back')];
  const old = exposure('b', port);
  const young = exposure('a', port, { createdAt: '2026-01-02T00:00:00.000Z', endpoint: 'back' });
  assert.deepEqual(admitted(exposed, [young, old], local), ['b']);
  assert.match(exposed.problems.join(), /^Exposure a is not open here: port [0-9]+\/tcp of this host is that of exposure b$/);
  assert.deepEqual(admitted(exposed, [{ ...young, endpoint: 'front' }, old], local), ['a', 'b']);
});

test('nothing is taken from addresses that are not this host’s, and addresses that move between hosts are left to the cloud', async (t) => {
  using exposed = new ExposedPorts(quiet);
  const { port } = await listening(t);
  const local = [localEndpoint('front')];
  const foreign = exposure('metadata', 80, { hostIp: parseIp('169.254.169.254') });
  const moving = exposure('moving', port, { virtualIp: { ip: loopback, hosts: ['host-1'] } });
  assert.deepEqual(admitted(exposed, [foreign, moving], local), ['moving']);
  assert.match(exposed.problems.join(), /^Exposure metadata is not open here: 169\.254\.169\.254 is no address of this host/);
});
