import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { closeSync, mkdtempSync, readlinkSync, writeFileSync } from 'node:fs';
import { readlink } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { isFault } from '#model/fault.ts';
import { parseIp } from '#model/ip.ts';
import { encodeLink } from './netlink/rtnl.ts';
import { NetlinkSocket } from './netlink/socket.ts';
import { RTM_SETLINK } from './netlink/uapi.ts';
import { bindUdpInNetns, createNetns, inNetns, listenTcpInNetns, listNetns, netnsIdentity, removeNetns, warmThreadPool } from './netns.ts';

mustBeIsolated();

const directory = mkdtempSync(join(tmpdir(), 'causeway-netns-'));
const path = `${directory}/cw-a`;
const here = () => readlinkSync('/proc/thread-self/ns/net');

await warmThreadPool();
createNetns(directory, 'cw-a', () => {
  using socket = new NetlinkSocket();
  socket.request({ type: RTM_SETLINK, body: encodeLink({ name: 'lo', up: true }), action: 'set link lo up' });
});
after(() => removeNetns(directory, 'cw-a'));

test('inside is inside, nested too, and afterwards everything is as before', () => {
  const outside = here();
  createNetns(directory, 'cw-b');
  const places = inNetns(path, () => [here(), inNetns(`${directory}/cw-b`, here), here()]);
  assert.equal(places[0], places[2]);
  assert.equal(new Set([outside, ...places]).size, 3);
  assert.equal(here(), outside);
  removeNetns(directory, 'cw-b');
});

test('an exception comes out, and the thread with it', () => {
  const outside = here();
  assert.throws(
    () =>
      inNetns(path, () => {
        throw new RangeError('inside');
      }),
    RangeError,
  );
  assert.equal(here(), outside);
});

test('the thread pool stays outside when it was warmed before', async () => {
  const outside = here();
  const pending = inNetns(path, () => {
    const links = Array.from({ length: 16 }, () => readlink('/proc/thread-self/ns/net'));
    return () => links;
  });
  assert.deepEqual(new Set(await Promise.all(pending())), new Set([outside]));
});

test('a promise cannot be returned from inside', () => {
  // @ts-expect-error -- the type refuses it
  void (() => inNetns(path, () => Promise.resolve(1)));
});

test('what is not a namespace cannot be entered', () => {
  writeFileSync(`${directory}/cw-file`, '');
  for (const [name, errno] of [
    ['cw-none', 'ENOENT'],
    ['cw-file', 'EINVAL'],
  ] as const) {
    assert.throws(
      () => inNetns(`${directory}/${name}`, here),
      (error) => isFault(error, 'kernel') && error.errno === errno,
    );
  }
});

test('a leftover file is no namespace, and does not stand in the way of one', () => {
  writeFileSync(`${directory}/cw-left`, '');
  const names = () => listNetns(directory).map(({ name }) => name);
  assert.deepEqual(names(), ['cw-a']);
  createNetns(directory, 'cw-left');
  assert.deepEqual(names(), ['cw-a', 'cw-left']);
  removeNetns(directory, 'cw-left');
  removeNetns(directory, 'cw-left');
  assert.equal(netnsIdentity(`${directory}/cw-left`), undefined);
});

test('a namespace that fails to be set up leaves nothing', () => {
  assert.throws(() =>
    createNetns(directory, 'cw-bad', () => {
      throw new RangeError('no');
    }),
  );
  assert.deepEqual(
    listNetns(directory).map(({ name }) => name),
    ['cw-a'],
  );
});

test('UDP and TCP sockets of a namespace serve from outside it', async () => {
  const binding = { ip: parseIp('127.0.0.1'), port: 5353 };
  const udp = createSocket('udp4');
  udp.bind({ fd: bindUdpInNetns(path, binding) });
  udp.on('message', (message, from) => udp.send(`${message.toString()} back`, from.port, from.address));
  const client = createSocket('udp4');
  client.bind({ fd: bindUdpInNetns(path, { ...binding, port: 0 }) });
  client.send('there and', 5353, '127.0.0.1');
  const [answer] = await once(client, 'message');
  assert.equal(String(answer), 'there and back');

  const server = createServer((socket) => socket.end('hello'));
  server.listen({ fd: listenTcpInNetns(path, binding) });
  await once(server, 'listening');
  const outsider = connect(5353, '127.0.0.1');
  const [refused] = await once(outsider, 'error');
  assert.equal(refused.code, 'ECONNREFUSED', 'it is not the host that listens');
  udp.close();
  client.close();
  server.close();
});

test('an IPv6 address can be bound before it is there', () => {
  closeSync(bindUdpInNetns(path, { ip: parseIp('fd63:7703::1'), port: 53 }));
});
