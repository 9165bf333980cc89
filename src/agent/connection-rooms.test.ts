import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyDesired } from '#model/desired.ts';
import type { ConnectionRoom } from '#kernel/connection-room.ts';
import { ConnectionRooms } from './connection-rooms.ts';

const clock = { now: 0 };
const rooms = new Map<string, ConnectionRoom>();
const asked: string[] = [];
const known = new ConnectionRooms({
  read: (netns) => {
    asked.push(netns);
    return rooms.get(netns);
  },
  desired: () => ({ ...emptyDesired, netns: [{ name: 'cw-aaaaaaaaaa' }, { name: 'cw-gone' }] }),
  networks: () => [{ id: 'aaaaaaaaaa', name: 'blue' }],
  now: () => clock.now,
});

test('where nine tenths of the room are used it is told, for the host and for each network with a namespace, until it is clearly less', () => {
  rooms.set('', { used: 235_929, most: 262_144 }).set('cw-aaaaaaaaaa', { used: 9, most: 0 });
  assert.deepEqual(known.problems(), []);
  assert.deepEqual(asked, ['', 'cw-aaaaaaaaaa', 'cw-gone']);

  rooms.set('', { used: 235_930, most: 262_144 }).set('cw-aaaaaaaaaa', { used: 262_144, most: 262_144 });
  clock.now = 4_999;
  assert.deepEqual(known.problems(), [], 'what is known is fresh enough');
  clock.now = 5_000;
  const [host, blue] = known.problems();
  assert.match(String(host), /^Nearly as many connections are open on this host as the kernel keeps track of, 262,144; .*: conntrack -L$/);
  assert.match(
    String(blue),
    /^Nearly as many connections are open in network blue on this host as .*: ip netns exec cw-aaaaaaaaaa conntrack -L$/,
  );

  rooms.set('', { used: 209_716, most: 262_144 }).delete('cw-aaaaaaaaaa');
  clock.now = 10_000;
  assert.deepEqual(known.problems(), [host]);
  rooms.set('', { used: 209_715, most: 262_144 });
  clock.now = 15_000;
  assert.deepEqual(known.problems(), []);
});
