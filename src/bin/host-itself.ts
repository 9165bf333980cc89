// What an agent knows of its host beside the cluster: how much room there is for connections, and by which interfaces the host is
// reached from the outside. It is looked at with each report: a plan, which is made for each container, takes what is known.
import type { Agent, Log } from '#agent/agent.ts';
import { ConnectionRooms } from '#agent/connection-rooms.ts';
import { connectionRoom } from '#kernel/connection-room.ts';
import type { RealKinds } from '#kernel/kinds.ts';
import { readWaysOut } from '#kernel/source-rules.ts';
import { isFault } from '#model/fault.ts';
import type { WaysOut } from '#model/ways-out.ts';

export interface HostItselfOptions {
  readonly kinds: Pick<RealKinds, 'sockets'>;
  /** Known as soon as this turn of the event loop is over. */
  readonly agent: () => Agent;
  readonly log: Log;
}

export class HostItself {
  readonly #options: HostItselfOptions;
  readonly #rooms: ConnectionRooms;
  #ways: WaysOut | undefined;

  constructor(options: HostItselfOptions) {
    const { kinds, agent } = options;
    this.#options = options;
    this.#rooms = new ConnectionRooms({
      read: (netns) => connectionRoom(kinds.sockets, netns),
      desired: () => agent().desired,
      networks: () => agent().view.snapshot.networks.values(),
      now: () => performance.now(),
    });
  }

  /** Undefined where they cannot be read, which the log tells. */
  get ways(): WaysOut | undefined {
    this.#ways ??= this.#read('the routing rules of this host', () => readWaysOut(this.#options.kinds.sockets.of('')));
    return this.#ways;
  }

  /** Where there is hardly any room for connections, sentences without a full stop. */
  crowded(): readonly string[] {
    return this.#read('how many connections the kernel keeps track of', () => this.#rooms.problems()) ?? [];
  }

  /** The same; another plan is made where ways out are others than they were. */
  look(): readonly string[] {
    const before = JSON.stringify(this.ways);
    this.#ways = undefined;
    if (JSON.stringify(this.ways) !== before) this.#options.agent().loop.kick();
    return this.crowded();
  }

  #read<T>(what: string, read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      if (!isFault(error, 'kernel')) throw error;
      this.#options.log.warn({ error }, `cannot read ${what}`);
      return undefined;
    }
  }
}
