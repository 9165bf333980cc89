// What an engine keeps of our networks when the agent leaves its host for good. dockerd removes a network with its driver's
// word: once it was restarted without, it looks for it for half a minute and fails (moby, libnetwork/network.go, deleteNetwork), and
// each start of it waits, too. For that moment somebody answers in the driver's name who knows of no cluster: the networks stay
// everywhere else.
import { existsSync, rmSync } from 'node:fs';
import { Fault, isFault } from '#model/fault.ts';
import { firstOf } from '#model/words.ts';
import { Engine, type EngineNetwork } from './engine.ts';
import { introductions, listenPlugin, type Plugin } from './server.ts';

export interface Leaving {
  /** The engine's socket. */
  readonly engine: string;
  /** Where the engine looks for the plugin. */
  readonly plugin: string;
  readonly driver: string;
}

/** What dockerd says of a network that it removes; anything else would be somebody who begins to use one. */
const farewells: ReadonlySet<string> = new Set(['NetworkDriver.DeleteNetwork', 'IpamDriver.ReleaseAddress', 'IpamDriver.ReleasePool']);

const stranger: Pick<Plugin, 'call'> = {
  call: async (method) => {
    const body = introductions[method] ?? (farewells.has(method) ? {} : undefined);
    return body === undefined ? { status: 500, body: { Err: 'Causeway is being taken off this host' } } : { status: 200, body };
  },
};

/** None where there is no engine to ask. */
async function networksOf(engine: Engine, { engine: socket, driver }: Leaving): Promise<readonly EngineNetwork[]> {
  if (!existsSync(socket)) return [];
  const all = await engine.networks().catch((error: unknown) => {
    if (!isFault(error, 'unavailable')) throw error;
    throw new Fault('unavailable', `The Docker engine at ${socket} does not answer; networks of ours would stay in its list`, {
      hint: 'Start it for that, or leave them there: --engine none',
      cause: error,
    });
  });
  return all.filter((network) => network.driver === driver && network.scope === 'local');
}

/** Fault `in-use` naming the containers that would lose their network. */
async function mustBeUnused(engine: Engine, networks: readonly EngineNetwork[]): Promise<void> {
  for (const { id, name } of networks) {
    const members = (await engine.members(id)).map((member) => member.name);
    if (members.length === 0) continue;
    throw new Fault('in-use', `Network ${name} has containers on this host: ${firstOf(members, 5)}`, {
      hint: 'Remove them, or disconnect them: docker network disconnect',
    });
  }
}

/**
 * Removes the engine's copies of our networks, and the way to the plugin; what is not there is success. The names of those that were
 * removed. Faults: `in-use` before anything is removed; `unavailable` when there is an engine that does not answer.
 */
export async function leaveEngine(leaving: Leaving): Promise<string[]> {
  await using closing = new AsyncDisposableStack();
  const engine = closing.use(new Engine(leaving.engine));
  const networks = await networksOf(engine, leaving);
  await mustBeUnused(engine, networks);
  if (networks.length > 0) closing.use(await listenPlugin(stranger, leaving.plugin));
  for (const { id, name } of networks) {
    await engine.removeNetwork(id).catch((error: unknown) => {
      if (!isFault(error)) throw error;
      throw new Fault(error.code, `Cannot remove network ${name} from the engine: ${error.message}`, { cause: error });
    });
  }
  rmSync(leaving.plugin, { force: true });
  return networks.map(({ name }) => name);
}
