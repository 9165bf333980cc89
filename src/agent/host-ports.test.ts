import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { parseIp } from '#model/ip.ts';
import { HostPorts, type HostPort } from './host-ports.ts';

const local = parseIp('127.0.0.1');

/** A port that nobody has now. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  assert.ok(address !== null && typeof address === 'object');
  return address.port;
}

async function canListen(port: number): Promise<boolean> {
  const server = createServer();
  try {
    await once(server.listen(port, '127.0.0.1'), 'listening');
    return true;
  } catch {
    return false;
  } finally {
    server.close();
  }
}

function bed(): { ports: HostPorts; said: object[] } & Disposable {
  const said: object[] = [];
  const ports = new HostPorts({ log: (fields) => said.push(fields) });
  return { ports, said, [Symbol.dispose]: () => ports[Symbol.dispose]() };
}

test('a port that was taken is taken for every other program, until it is let go', async () => {
  using one = bed();
  const wish: HostPort = { protocol: 'tcp', hostPort: await freePort() };
  one.ports.take([wish]);
  one.ports.take([wish]);
  assert.equal(one.ports.isFree(wish), true);
  assert.equal(await canListen(wish.hostPort), false);
  one.ports.keep([]);
  assert.equal(await canListen(wish.hostPort), true);
});

test('a port that a program has is refused, and none of the others is kept', async (t) => {
  using one = bed();
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  const busy: HostPort = { protocol: 'tcp', hostPort: address.port };
  const other: HostPort = { protocol: 'tcp', hostPort: await freePort() };
  assert.equal(one.ports.isFree(busy), false);
  assert.throws(
    () => one.ports.take([other, busy]),
    (error) => isFault(error, 'exists'),
  );
  assert.equal(await canListen(other.hostPort), true);
  // A container that runs already keeps its port: the other program is told of in the log.
  one.ports.keep([busy, other]);
  assert.equal(one.said.length, 1);
  assert.equal(await canListen(other.hostPort), false);
});

test('datagram ports are held as well, and an address that is not ours is refused', async (t) => {
  using one = bed();
  const socket = createSocket('udp4');
  t.after(() => socket.close());
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  assert.equal(one.ports.isFree({ protocol: 'udp', hostIp: local, hostPort: port }), false);
  assert.equal(one.ports.isFree({ protocol: 'sctp', hostPort: port }), true);
  assert.throws(
    () => one.ports.take([{ protocol: 'tcp', hostIp: parseIp('192.0.2.1'), hostPort: 80 }]),
    (error) => isFault(error, 'invalid'),
  );
});
