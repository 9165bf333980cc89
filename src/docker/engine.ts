// A small client of the Docker Engine API (v1.24 and later; every request is unversioned, so the engine's own version
// answers) over its unix socket. Only for use outside of plugin calls.
import { Agent, type Dispatcher } from '#api/dispatcher.ts';
import { dictionary, texts } from '#api/fields.ts';
import * as v from 'valibot';
import { Fault, isFault } from '#model/fault.ts';

export interface EngineNetwork {
  readonly id: string;
  readonly name: string;
  readonly driver: string;
  readonly scope: string;
  readonly internal: boolean;
  readonly ipamDriver: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly options: Readonly<Record<string, string>>;
}
const strings = v.pipe(
  v.nullish(texts, {}),
  v.transform((record): Readonly<Record<string, string>> => record),
);
const network = v.pipe(
  v.object({
    Id: v.string(),
    Name: v.string(),
    Driver: v.string(),
    Scope: v.string(),
    Internal: v.nullish(v.boolean(), false),
    IPAM: v.nullish(v.object({ Driver: v.nullish(v.string(), '') }), { Driver: '' }),
    Labels: strings,
    Options: strings,
  }),
  v.transform((one): EngineNetwork => ({
    id: one.Id,
    name: one.Name,
    driver: one.Driver,
    scope: one.Scope,
    internal: one.Internal,
    ipamDriver: one.IPAM.Driver,
    labels: one.Labels,
    options: one.Options,
  })),
);

/** One attachment of a running container: the engine's endpoint and the names that Docker's own resolver knows it by. */
export interface EngineEndpoint {
  readonly id: string;
  /** The engine's id of the network. */
  readonly network: string;
  readonly names: readonly string[];
}
export interface EngineContainer {
  readonly id: string;
  readonly name: string;
  readonly isRunning: boolean;
  /** Path of its network namespace. */
  readonly sandbox?: string;
  /** The container's resolv.conf, as a file of the host. */
  readonly resolvConf?: string;
  /** Whether name servers were given for this container alone. */
  readonly hasOwnServers?: boolean;
  readonly endpoints: readonly EngineEndpoint[];
}
const words = v.nullish(v.array(v.string()), []);
const attachment = v.object({
  EndpointID: v.nullish(v.string(), ''),
  NetworkID: v.nullish(v.string(), ''),
  Aliases: words,
  DNSNames: words,
});
const attachments = v.object({ Networks: v.nullish(dictionary(v.string(), attachment), {}) });
/** What such containers had when their machine went down is still in their records. */
const endedStates: ReadonlySet<string> = new Set(['exited', 'dead']);
const listed = v.object({ Id: v.string(), State: v.string(), NetworkSettings: v.nullish(attachments, { Networks: {} }) });
const inspected = v.object({
  Id: v.string(),
  Name: v.string(),
  State: v.object({ Running: v.boolean() }),
  NetworkSettings: v.object({ ...attachments.entries, SandboxKey: v.nullish(v.string(), '') }),
  ResolvConfPath: v.nullish(v.string(), ''),
  HostConfig: v.nullish(v.object({ Dns: words }), { Dns: [] }),
});

/** A network of a Swarm. */
export interface EngineOverlay extends Pick<EngineNetwork, 'id' | 'name' | 'driver' | 'internal' | 'labels' | 'options'> {
  readonly attachable: boolean;
  readonly pools: readonly { readonly subnet: string; readonly gateway?: string | undefined }[];
}
const subnets = v.nullish(v.array(v.object({ Subnet: v.nullish(v.string(), ''), Gateway: v.nullish(v.string(), '') })), []);
const overlay = v.pipe(
  v.object({
    Id: v.string(),
    Name: v.string(),
    Driver: v.string(),
    Internal: v.nullish(v.boolean(), false),
    Attachable: v.nullish(v.boolean(), false),
    Ingress: v.nullish(v.boolean(), false),
    IPAM: v.nullish(v.object({ Config: subnets }), { Config: [] }),
    Labels: strings,
    Options: strings,
  }),
  v.transform(({ Ingress: isIngress, IPAM: { Config: pools }, ...one }): EngineOverlay & { readonly isIngress: boolean } => ({
    id: one.Id,
    name: one.Name,
    driver: one.Driver,
    internal: one.Internal,
    attachable: one.Attachable,
    isIngress,
    pools: pools
      .filter(({ Subnet: subnet }) => subnet !== '')
      .map(({ Subnet: subnet, Gateway: gateway }) => (gateway === '' ? { subnet } : { subnet, gateway })),
    labels: one.Labels,
    options: one.Options,
  })),
);

/** A container on a network, as far as this engine runs it. */
export interface EngineMember {
  readonly endpoint: string;
  readonly name: string;
  readonly mac: string;
  readonly addresses: readonly string[];
}
const member = v.object({
  Name: v.string(),
  EndpointID: v.string(),
  MacAddress: v.nullish(v.string(), ''),
  IPv4Address: v.nullish(v.string(), ''),
  IPv6Address: v.nullish(v.string(), ''),
});
const members = v.object({ Containers: v.nullish(v.record(v.string(), member), {}) });

const swarm = v.object({ ID: v.string() });

export interface NetworkCreation {
  readonly name: string;
  readonly driver: string;
  readonly internal: boolean;
  readonly attachable: boolean;
  /** Engines before 28 give every network a range of IPv4, whatever is said here. */
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  readonly ipam: {
    readonly driver: string;
    readonly options: Readonly<Record<string, string>>;
    readonly pools: readonly { readonly subnet: string; readonly range?: string | undefined; readonly gateway?: string | undefined }[];
  };
  readonly options: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
}

export interface EngineEvent {
  readonly type: string;
  readonly action: string;
  /** Id of the network or container. */
  readonly id: string;
  /** Of network events: the container concerned, and the network's driver. */
  readonly container?: string | undefined;
  readonly driver?: string | undefined;
}
const event = v.pipe(
  v.object({
    Type: v.string(),
    Action: v.string(),
    Actor: v.object({ ID: v.string(), Attributes: v.nullish(v.record(v.string(), v.string()), {}) }),
  }),
  v.transform((one): EngineEvent => ({
    type: one.Type,
    action: one.Action,
    id: one.Actor.ID,
    container: one.Actor.Attributes['container'],
    driver: one.Actor.Attributes['type'],
  })),
);

const maxAnswer = 64 * 1024 * 1024;

/** Faults: `unavailable` (engine away), and what the engine's status says: `not-found`, `exists`, `in-use`, `internal`. */
export class Engine {
  readonly #agent: Agent;
  readonly #timeoutMs: number;

  constructor(socket: string, timeoutMs = 60_000) {
    this.#agent = new Agent({ connect: { socketPath: socket }, connections: 4, bodyTimeout: 0, maxResponseSize: -1 });
    this.#timeoutMs = timeoutMs;
  }

  /** As `docker version` says it: `28.3.0`. */
  async version(): Promise<string> {
    return (await this.#get('/version', v.object({ Version: v.string() }))).Version;
  }

  async networks(): Promise<readonly EngineNetwork[]> {
    return this.#get('/networks', v.array(network));
  }

  async network(id: string): Promise<EngineNetwork | undefined> {
    return absentIsUndefined(this.#get(`/networks/${encodeURIComponent(id)}`, network));
  }

  /**
   * Id of the Swarm that this engine is a manager of; undefined on workers, outside of a Swarm, and while it has no leader.
   * Not by /info, for which the engine executes each of its runtimes to ask for its version.
   */
  async managedSwarm(): Promise<string | undefined> {
    try {
      return (await this.#get('/swarm', swarm)).ID;
    } catch (error) {
      if (isFault(error, 'unavailable') || isFault(error, 'internal')) return undefined;
      throw error;
    }
  }

  /** Networks of the Swarm with these drivers, without the routing mesh's: all on a manager, those in use here on a worker. */
  async overlays(drivers: readonly string[]): Promise<readonly EngineOverlay[]> {
    const filters = encodeURIComponent(JSON.stringify({ driver: drivers, scope: ['swarm'] }));
    return (await this.#get(`/networks?filters=${filters}`, v.array(overlay))).filter(({ isIngress }) => !isIngress);
  }

  /** The containers of this engine on a network; none when it is not here. Its load balancer is no container. */
  async members(id: string): Promise<readonly EngineMember[]> {
    const found = await absentIsUndefined(this.#get(`/networks/${encodeURIComponent(id)}`, members));
    return Object.entries(found?.Containers ?? {})
      .filter(([container]) => /^[0-9a-f]{64}$/.test(container))
      .map(([, one]) => ({
        endpoint: one.EndpointID,
        name: one.Name,
        mac: one.MacAddress,
        addresses: [one.IPv4Address, one.IPv6Address].filter((address) => address !== ''),
      }));
  }

  /** Resolves with the engine's id. Fault `exists` when the name is taken. */
  async createNetwork(creation: NetworkCreation): Promise<string> {
    const answer = await this.#call('POST', '/networks/create', v.object({ Id: v.string() }), {
      Name: creation.name,
      CheckDuplicate: true,
      Driver: creation.driver,
      Internal: creation.internal,
      Attachable: creation.attachable,
      EnableIPv4: creation.ipv4,
      EnableIPv6: creation.ipv6,
      IPAM: {
        Driver: creation.ipam.driver,
        Options: creation.ipam.options,
        Config: creation.ipam.pools.map((pool) => ({ Subnet: pool.subnet, IPRange: pool.range, Gateway: pool.gateway })),
      },
      Options: creation.options,
      Labels: creation.labels,
    });
    return answer.Id;
  }

  /** Absent already is success. Fault `in-use` when containers are on it. */
  async removeNetwork(id: string): Promise<void> {
    await absentIsUndefined(this.#call('DELETE', `/networks/${encodeURIComponent(id)}`, v.unknown()));
  }

  /** Every container with the ids of its endpoints; a stopped one has none. Names need container(). */
  async containers(): Promise<readonly { id: string; endpoints: readonly string[] }[]> {
    const containers = await this.#get('/containers/json?all=true', v.array(listed));
    return containers.map((one) => ({
      id: one.Id,
      endpoints: endedStates.has(one.State)
        ? []
        : Object.values(one.NetworkSettings.Networks).flatMap(({ EndpointID: id }) => (id === '' ? [] : [id])),
    }));
  }

  async container(id: string): Promise<EngineContainer | undefined> {
    const found = await absentIsUndefined(this.#get(`/containers/${encodeURIComponent(id)}/json`, inspected));
    if (found === undefined) return undefined;
    const name = found.Name.replace(/^\//, '');
    const shortId = found.Id.slice(0, 12);
    return {
      id: found.Id,
      name,
      isRunning: found.State.Running,
      ...(found.NetworkSettings.SandboxKey === '' ? {} : { sandbox: found.NetworkSettings.SandboxKey }),
      ...(found.ResolvConfPath === '' ? {} : { resolvConf: found.ResolvConfPath }),
      hasOwnServers: found.HostConfig.Dns.length > 0,
      endpoints: Object.values(found.NetworkSettings.Networks).flatMap((one) =>
        one.EndpointID === ''
          ? []
          : [{ id: one.EndpointID, network: one.NetworkID, names: [...new Set([name, ...one.Aliases, ...one.DNSNames, shortId])] }],
      ),
    };
  }

  /** Events from now on, until the engine goes away (a Fault `unavailable`) or `signal` aborts. */
  async *events(options: { readonly signal: AbortSignal; readonly onOpen: () => void }): AsyncGenerator<EngineEvent> {
    // Of containers only new names; when they come and go, their networks tell, or the plugin is called.
    const actions = ['create', 'connect', 'disconnect', 'destroy', 'remove', 'rename'];
    const filters = encodeURIComponent(JSON.stringify({ type: ['network', 'container'], event: actions }));
    const { statusCode, body } = await this.#request('GET', `/events?filters=${filters}`, undefined, options.signal);
    if (statusCode !== 200) throw faultOf(statusCode, await body.text());
    options.onOpen();
    let rest = '';
    const decoder = new TextDecoder();
    try {
      for await (const chunk of body) {
        const bytes: unknown = chunk;
        rest += bytes instanceof Uint8Array ? decoder.decode(bytes, { stream: true }) : '';
        const lines = rest.split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) {
          const parsed = v.safeParse(event, JSON.parse(line));
          if (parsed.success && (parsed.output.type === 'network' || parsed.output.action === 'rename')) yield parsed.output;
        }
      }
    } catch (cause) {
      throw new Fault('unavailable', 'The event stream of the Docker engine broke', { cause });
    }
    throw new Fault('unavailable', 'The Docker engine ended its event stream');
  }

  async #get<T>(path: string, schema: v.GenericSchema<unknown, T>): Promise<T> {
    return this.#call('GET', path, schema);
  }

  async #call<T>(method: Dispatcher.HttpMethod, path: string, schema: v.GenericSchema<unknown, T>, send?: object): Promise<T> {
    const { statusCode, body } = await this.#request(method, path, send, AbortSignal.timeout(this.#timeoutMs));
    const text = await readText(body);
    if (statusCode >= 300) throw faultOf(statusCode, text);
    const parsed = v.safeParse(schema, text === '' ? undefined : jsonOf(text));
    if (parsed.success) return parsed.output;
    throw new Fault('version', `Cannot read the Docker engine's answer to ${method} ${path}: ${parsed.issues[0].message}`);
  }

  async #request(
    method: Dispatcher.HttpMethod,
    path: string,
    send: object | undefined,
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    try {
      return await this.#agent.request({
        origin: 'http://docker',
        path,
        method,
        signal,
        ...(send === undefined ? {} : { body: JSON.stringify(send), headers: { 'content-type': 'application/json' } }),
      });
    } catch (cause) {
      throw new Fault('unavailable', 'The Docker engine does not answer', { hint: 'Is dockerd running?', cause });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }
}

async function readText(body: Dispatcher.ResponseData['body']): Promise<string> {
  try {
    const text = await body.text();
    if (text.length > maxAnswer) throw new Fault('version', "The Docker engine's answer is too long");
    return text;
  } catch (cause) {
    if (isFault(cause)) throw cause;
    throw new Fault('unavailable', 'The Docker engine broke off its answer', { cause });
  }
}

function jsonOf(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return value;
  } catch (cause) {
    throw new Fault('version', "The Docker engine's answer is not JSON", { cause });
  }
}

async function absentIsUndefined<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (isFault(error, 'not-found')) return undefined;
    throw error;
  }
}

const problem = v.object({ message: v.string() });

function faultOf(status: number, text: string): Fault {
  let message = text.slice(0, 500);
  try {
    const parsed = v.safeParse(problem, JSON.parse(text));
    if (parsed.success) message = parsed.output.message;
  } catch {
    // Not JSON: the text itself is the message.
  }
  if (status === 404) return new Fault('not-found', message);
  if (status === 409) return new Fault('exists', message);
  // The engine says "has active endpoints" with 403.
  if (status === 403) return new Fault('in-use', message);
  return new Fault(status === 503 ? 'unavailable' : 'internal', `Docker engine: ${message}`);
}
