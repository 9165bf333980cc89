// Which name servers the engine's resolver asks past the container's networks, from the host's own namespace, so that the
// agent never sees the question: those of the host on loopback (dockerd up to 27), or all of the host's (dockerd from 28 on,
// libnetwork/internal/resolvconf), but none that were given with --dns or in daemon.json. The engine notes down what it does in
// the container's resolv.conf: `# ExtServers: [host(127.0.0.1)]`. Containers of such an engine have their names answered by the
// agent first. It must know of that before their first question, when there is no resolv.conf to be read yet, so what the last
// container had is remembered.
import { readFileSync } from 'node:fs';
import type { DockerRecords } from './records.ts';

/** Undefined where that cannot be read: a managed plugin does not see the engine's files. */
export function isAskedPastUs(resolvConf: string | undefined): boolean | undefined {
  let text: string;
  try {
    if (resolvConf === undefined) return undefined;
    text = readFileSync(resolvConf, 'utf8');
  } catch {
    return undefined;
  }
  // What the first one says of a name, also that there is none, is the answer.
  return /^# ExtServers: \[(.*)\]$/m.exec(text)?.[1]?.startsWith('host(') === true;
}

const key = 'resolver';
const firstPast = 28;

export class EngineResolver {
  readonly #records: DockerRecords['engine'];

  constructor(records: Pick<DockerRecords, 'engine'>) {
    this.#records = records.engine;
  }

  /** Whether a container that starts now will most likely have its questions asked past us. */
  asksPast(): boolean {
    return this.#records.get(key)?.asksPast === true;
  }

  /** Another version than the last time is taken to do as it does by itself. */
  began(version: string): void {
    if (this.#records.get(key)?.version === version) return;
    this.#records.put(key, { version, asksPast: Number.parseInt(version, 10) >= firstPast });
  }

  /** What was found in a container that was given no servers of its own. */
  found(asksPast: boolean): void {
    const known = this.#records.get(key);
    if (known !== undefined && known.asksPast !== asksPast) this.#records.put(key, { ...known, asksPast });
  }
}
