// A controller on a real TLS socket of the loopback interface, spoken to by the real client.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from 'node:tls';
import { isFault } from '#model/fault.ts';
import { parseCidr, parseIp, parseMac } from '#model/ip.ts';
import { MemoryStore } from '#store/memory.ts';
import type { WatchLine } from '#api/answers.ts';
import { Client } from '#api/client.ts';
import { joinCluster } from '#api/join-cluster.ts';
import { openController } from './controller.ts';
import { silentLog } from './log.ts';
import { startServer } from './server.ts';
import { createToken } from './tokens.ts';

test('a host joins, reports, makes a network, publishes an endpoint and sees all of it in its watch', async () => {
  await using store = new MemoryStore();
  await using controller = await openController({ store, log: silentLog, version: '0.0.0' });
  await using server = await startServer(controller, { host: '127.0.0.1', port: 0, names: [] });
  const urls = [`https://127.0.0.1:${server.port}`];
  const { token } = await createToken(controller.control, { type: 'join' });
  const joined = await joinCluster({ urls, token, host: 'a', version: '0.0.0' });
  await using client = new Client({
    urls,
    ca: joined.ca,
    credentials: { type: 'certificate', certificate: joined.certificate, key: joined.key },
  });
  const abort = new AbortController();
  const lines: WatchLine[] = [];
  const seen = Promise.withResolvers<void>();
  const watching = (async (): Promise<void> => {
    for await (const line of client.watch({ host: 'a', signal: abort.signal })) {
      lines.push(line);
      if (line.type === 'put' && line.kind === 'endpoints') seen.resolve();
    }
  })();
  const host = await client.report('a', {
    generation: 1,
    underlay: [{ interface: 'eth0', ip: parseIp('10.9.0.1'), subnet: parseCidr('10.9.0.0/24'), mtu: 1450 }],
    agentVersion: '0.0.0',
    status: { ready: true, desired: 1, applied: 1, failing: [], features: {} },
    routes: [],
  });
  assert.equal(host.index, 1);
  const network = await client.createNetwork({ name: 'red' });
  const [pool] = await client.all('pools', { network: 'red' });
  assert.equal(pool?.cidr, '10.64.0.0/24');
  const block = await client.claimBlock({ network: network.id, pool: pool.id, host: 'a' });
  assert.equal(block.cidr, '10.64.0.0/27');
  await client.putEndpoint({
    id: 'endpoint0001',
    name: 'web',
    network: network.id,
    host: 'a',
    owner: 'web',
    addresses: [parseIp('10.64.0.2')],
    mac: parseMac('0a:63:0a:40:00:02'),
    names: [],
    ports: [],
    sequence: 1,
  });
  await seen.promise;
  abort.abort();
  await watching;
  assert.deepEqual(
    lines.flatMap((line) => (line.type === 'put' ? [line.kind] : line.type === 'synced' ? ['synced'] : [])),
    ['tenants', 'hosts', 'synced', 'hosts', 'networks', 'pools', 'blocks', 'endpoints'],
  );
  await assert.rejects(client.remove('networks', 'red'), (error) => isFault(error, 'in-use'));
});

const refused = (): never => {
  throw new Error('uv_interface_addresses returned Unknown system error 97');
};

test('a sandbox that does not let addresses be listed costs their place in the certificate, no more', async () => {
  await using store = new MemoryStore();
  const warnings: string[] = [];
  const log = { ...silentLog, warn: (_: object, message: string) => void warnings.push(message) };
  await using controller = await openController({ store, log, version: '0.0.0' });
  await using server = await startServer(controller, { host: '127.0.0.1', port: 0, names: ['127.0.0.1'], interfaces: refused });
  const { token } = await createToken(controller.control, { type: 'join' });
  await joinCluster({ urls: [`https://127.0.0.1:${server.port}`], token, host: 'a', version: '0.0.0' });
  assert.equal(warnings.length, 1);
});

test('who asks again and again without waiting for an answer is cut, whoever it is, and others are answered', async () => {
  await using store = new MemoryStore();
  await using controller = await openController({ store, log: silentLog, version: '0.0.0' });
  await using server = await startServer(controller, { host: '127.0.0.1', port: 0, names: [] });
  const answersTo = async (requests: number): Promise<number> => {
    const socket = connect({ host: '127.0.0.1', port: server.port, rejectUnauthorized: false });
    let text = '';
    const { promise, resolve } = Promise.withResolvers<number>();
    const count = (): number => text.split('HTTP/1.1 200').length - 1;
    socket.on('data', (bytes) => {
      text += String(bytes);
      if (count() === requests) resolve(requests);
    });
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(count()));
    socket.write('GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(requests));
    const answered = await promise;
    socket.destroy();
    return answered;
  };
  assert.ok((await answersTo(200)) <= 16);
  assert.equal(await answersTo(10), 10);
});
