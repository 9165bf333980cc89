// What an agent knows of the room for connections, put together for whoever tells it.
import type { Agent, Log } from '#agent/agent.ts';
import { ConnectionRooms } from '#agent/connection-rooms.ts';
import { connectionRoom } from '#kernel/connection-room.ts';
import type { RealKinds } from '#kernel/kinds.ts';
import { isFault } from '#model/fault.ts';

/** Sentences; none where it cannot be read, which the log tells. `agent`: known as soon as this turn of the event loop is over. */
export function crowdedOf({ sockets }: RealKinds, agent: () => Agent, log: Log): () => readonly string[] {
  const rooms = new ConnectionRooms({
    read: (netns) => connectionRoom(sockets, netns),
    desired: () => agent().desired,
    networks: () => agent().view.snapshot.networks.values(),
    now: () => performance.now(),
  });
  return () => {
    try {
      return rooms.problems();
    } catch (error) {
      if (!isFault(error, 'kernel')) throw error;
      log.warn({ error }, 'cannot count the connections that the kernel keeps track of');
      return [];
    }
  };
}
