import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { mustBeIsolated } from '#test/isolated.ts';
import { connectionRoom } from './connection-room.ts';
import { createNetns, removeNetns } from './netns.ts';
import { Sockets } from './sockets.ts';

mustBeIsolated();

const directory = '/run/netns';
using sockets = new Sockets(directory);
const most = Number(readFileSync('/proc/sys/net/netfilter/nf_conntrack_max', 'utf8'));

test('connections are counted for each namespace by itself, of as many as the kernel allows', async () => {
  const { status, stderr } = spawnSync('nft', [
    'add table inet t; add chain inet t c { type filter hook output priority 0; }; add rule inet t c ct state new accept',
  ]);
  assert.equal(status, 0, String(stderr));
  createNetns(directory, 'other');
  try {
    assert.deepEqual(connectionRoom(sockets, ''), { used: 0, most });
    const socket = createSocket('udp4');
    try {
      for (const port of [1001, 1002, 1003]) socket.send('x', port, '127.0.0.1');
      socket.send('x', 1004, '127.0.0.1', () => socket.emit('sent'));
      await once(socket, 'sent');
    } finally {
      socket.close();
    }
    assert.deepEqual(connectionRoom(sockets, ''), { used: 4, most });
    assert.deepEqual(connectionRoom(sockets, 'other'), { used: 0, most });
    assert.equal(connectionRoom(sockets, 'absent'), undefined);
  } finally {
    removeNetns(directory, 'other');
  }
});
