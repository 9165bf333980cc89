// One pass over endpoints: names of containers are published, and endpoints whose container is gone without a word (Leave
// and DeleteEndpoint are lost when dockerd crashes) are detached.
import type { LocalAgent } from '#api/local.ts';
import type { Endpoint } from '#model/resources.ts';
import { firstOf } from '#model/words.ts';
import type { Endpoints } from './endpoints.ts';
import type { Engine, EngineContainer } from './engine.ts';
import type { Log } from './log.ts';
import type { DockerRecords } from './records.ts';
import { EngineResolver, isAskedPastUs } from './resolver.ts';

export interface EndpointSyncOptions {
  readonly agent: LocalAgent;
  readonly records: DockerRecords;
  readonly endpoints: Endpoints;
  readonly engine: Pick<Engine, 'containers' | 'container'>;
  readonly log: Log;
  /** Whether a network namespace is at the path. */
  readonly isNetns: (path: string) => boolean;
  /** How long an endpoint may be missing in the engine: a container that starts is not listed with it yet. */
  readonly lostMs: number;
}

/** The same while the container's namespace is there: something may still start in it. */
const patience = 20;
/** The same where the container was in the network and its namespace is gone: nothing can, and its address may be asked for again. */
const certainty = 1 / 30;

export class EndpointSync {
  readonly #options: EndpointSyncOptions;
  readonly #missingSince: Map<string, number> = new Map();
  /** Endpoints whose names were read since anything happened to their container. */
  readonly #named: Set<string> = new Set();
  readonly #resolver: EngineResolver;
  /** Containers whose questions for names do not pass us, by id. */
  readonly #deaf: Map<string, string> = new Map();

  constructor(options: EndpointSyncOptions) {
    this.#options = options;
    this.#resolver = new EngineResolver(options.records);
  }

  /** Something happened to the container: its names are read again at the next pass. Undefined: to any. */
  forget(container?: EngineContainer['id']): void {
    if (container === undefined) this.#named.clear();
    else for (const key of this.#named) if (key.startsWith(container)) this.#named.delete(key);
  }

  /** Whether endpoints wait to be detached because the engine does not list them. */
  get isMissingAny(): boolean {
    return this.#missingSince.size > 0;
  }

  /** What is amiss with containers as they were last looked at, a sentence each. */
  get notices(): string[] {
    return this.#deaf.size === 0 ? [] : [deafness([...this.#deaf.values()].toSorted())];
  }

  /** One container whose names or networks have changed. Fault `unavailable` (engine). */
  async look(container: EngineContainer['id']): Promise<void> {
    const details = await this.#options.engine.container(container);
    if (details !== undefined) await this.#publish(details);
  }

  /** Faults: `unavailable` (engine). Resolves with sentences about containers that need help. */
  async pass(): Promise<string[]> {
    const { agent, engine } = this.#options;
    const containers = await engine.containers();
    const problems: string[] = [];
    for (const container of containers) {
      const unread = container.endpoints.filter((id) => agent.localEndpoint(id) !== undefined && !this.#named.has(container.id + id));
      if (unread.length > 0) await this.look(container.id);
    }
    const ids = new Set(containers.map(({ id }) => id));
    for (const id of this.#deaf.keys()) if (!ids.has(id)) this.#deaf.delete(id);
    const listed = new Set(containers.flatMap((container) => container.endpoints));
    await this.#detachLost(listed);
    for (const { id, record } of this.#options.records.attachments.list()) {
      if (listed.has(id) && record.sandbox !== undefined && agent.localEndpoint(id) === undefined) {
        problems.push(`Endpoint ${id.slice(0, 12)} is lost; disconnect its container from the network and connect it again`);
      }
    }
    return problems;
  }

  async #publish(container: EngineContainer): Promise<void> {
    const { agent } = this.#options;
    const seen = isAskedPastUs(container.resolvConf);
    const isPast = seen ?? this.#resolver.asksPast();
    const ours = container.endpoints.filter(({ id }) => agent.localEndpoint(id) !== undefined);
    if (seen !== undefined && container.hasOwnServers !== true && ours.length > 0) this.#resolver.found(seen);
    const answered = await Promise.all(ours.map(({ id }) => agent.answerFirst(id, isPast)));
    if (isPast && answered.length > 0 && !answered.includes(true)) this.#deaf.set(container.id, container.name);
    else this.#deaf.delete(container.id);
    for (const { id, names } of ours) {
      const endpoint = agent.localEndpoint(id);
      if (endpoint === undefined) continue;
      if (!isNamed(endpoint, container.name, names)) await agent.rename(id, container.name, names);
      this.#named.add(container.id + id);
    }
  }

  async #detachLost(listed: ReadonlySet<string>): Promise<void> {
    const { endpoints, isNetns, log, lostMs, records } = this.#options;
    const now = performance.now();
    const known = records.attachments.list();
    const ids = new Set(known.map(({ id }) => id));
    for (const id of this.#missingSince.keys()) if (listed.has(id) || !ids.has(id)) this.#missingSince.delete(id);
    for (const { id, record } of known) {
      if (listed.has(id)) continue;
      const since = this.#missingSince.get(id) ?? now;
      this.#missingSince.set(id, since);
      // An engine that crashed leaves files of namespaces that are gone.
      const factor = record.sandbox === undefined ? 1 : isNetns(record.sandbox) ? patience : certainty;
      if (now - since < lostMs * factor) continue;
      log.warn({ endpoint: id }, 'detached an endpoint that the engine has lost');
      await endpoints.removeLost(id);
      this.#missingSince.delete(id);
    }
  }
}

function isNamed(endpoint: Endpoint, owner: string, names: readonly string[]): boolean {
  return (
    endpoint.owner === owner &&
    names.every((name) => name === endpoint.name || endpoint.names.includes(name)) &&
    endpoint.names.length <= names.length
  );
}

function deafness(names: readonly string[]): string {
  return `${firstOf(names, 3)} cannot find containers on other hosts by name: Docker asks the host's name servers past the network, and without an IPv4 address questions cannot come to Causeway first. Put name servers into "dns" of /etc/docker/daemon.json, restart Docker, and start them again`;
}
