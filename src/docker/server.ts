// The plugin's HTTP side: one POST per method, parsed, run, answered. Calls never ask the engine anything (several plugins
// dead-locked that way, moby#33871). dockerd finds the socket below /run/docker/plugins and asks Plugin.Activate first.
import { mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { dirname } from 'node:path';
import { Sequence } from '#api/sequence.ts';
import { isFault } from '#model/fault.ts';
import { Endpoints } from './endpoints.ts';
import { pluginError } from './faults.ts';
import { addressSpaces, type Ipam } from './ipam.ts';
import { type DriverOptions, Networks } from './networks.ts';
import { isMethod, maxBody, type Method, parseRequest, type Requests } from './protocol.ts';
import { SwarmIpam } from './swarm-ipam.ts';

const contentType = 'application/vnd.docker.plugins.v1.2+json';

type Answer = object | undefined;
type Methods = { readonly [M in Method]: (request: Requests[M]) => Answer | Promise<Answer> };

const nothing = async (work: Promise<void>): Promise<undefined> => {
  await work;
  return undefined;
};

/** What the plugin says of itself. Endpoints reach every host whoever owns the definition, so connectivity is global in either scope. */
const introduction = (scope: DriverOptions['scope']): { readonly [M in Introduction]: object } => ({
  'Plugin.Activate': { Implements: ['NetworkDriver', 'IpamDriver'] },
  'NetworkDriver.GetCapabilities': { Scope: scope, ConnectivityScope: 'global' },
  'IpamDriver.GetCapabilities': { RequiresMACAddress: false, RequiresRequestReplay: false },
  'IpamDriver.GetDefaultAddressSpaces': {
    LocalDefaultAddressSpace: addressSpaces.local,
    GlobalDefaultAddressSpace: addressSpaces.global,
  },
});
type Introduction = 'Plugin.Activate' | `${'NetworkDriver' | 'IpamDriver'}.GetCapabilities` | 'IpamDriver.GetDefaultAddressSpaces';
/** By method, of a plugin outside of a Swarm. */
export const introductions: Readonly<Record<string, object>> = introduction('local');

function methods(options: DriverOptions, networks: Networks, endpoints: Endpoints, ipam: Ipam): Methods {
  const addresses = options.scope === 'global' ? new SwarmIpam({ ...options, ipam }) : ipam;
  const said = introduction(options.scope);
  return {
    'Plugin.Activate': () => said['Plugin.Activate'],
    'NetworkDriver.GetCapabilities': () => said['NetworkDriver.GetCapabilities'],
    'NetworkDriver.AllocateNetwork': async (request) => ({ Options: await networks.allocate(request) }),
    'NetworkDriver.FreeNetwork': (request) => nothing(networks.free(request)),
    'NetworkDriver.CreateNetwork': (request) => nothing(networks.create(request)),
    'NetworkDriver.DeleteNetwork': (request) => nothing(networks.remove(request)),
    'NetworkDriver.CreateEndpoint': async (request) => ({ Interface: await endpoints.create(request) }),
    'NetworkDriver.EndpointOperInfo': (request) => ({ Value: endpoints.operInfo(request) }),
    'NetworkDriver.DeleteEndpoint': (request) => nothing(endpoints.remove(request)),
    'NetworkDriver.Join': (request) => endpoints.join(request),
    'NetworkDriver.Leave': (request) => nothing(endpoints.leave(request)),
    'NetworkDriver.ProgramExternalConnectivity': (request) => nothing(endpoints.publish(request)),
    'NetworkDriver.RevokeExternalConnectivity': (request) => nothing(endpoints.unpublish(request)),
    // Hosts are known from the controller; what Swarm's gossip says of them adds nothing.
    'NetworkDriver.DiscoverNew': () => undefined,
    'NetworkDriver.DiscoverDelete': () => undefined,
    'IpamDriver.GetCapabilities': () => said['IpamDriver.GetCapabilities'],
    'IpamDriver.GetDefaultAddressSpaces': () => said['IpamDriver.GetDefaultAddressSpaces'],
    'IpamDriver.RequestPool': (request) => addresses.requestPool(request),
    'IpamDriver.ReleasePool': (request) => {
      addresses.releasePool(request);
      return undefined;
    },
    'IpamDriver.RequestAddress': (request) => addresses.requestAddress(request),
    'IpamDriver.ReleaseAddress': (request) => nothing(addresses.releaseAddress(request)),
  };
}

/** Calls about the same object run one after the other, also when dockerd repeats one that is still running. */
function subjectOf(request: Readonly<Record<string, unknown>>): string | undefined {
  const { EndpointID: endpoint, NetworkID: network, PoolID: pool } = request;
  return [endpoint, network, pool].find((id) => typeof id === 'string');
}

export interface PluginAnswer {
  readonly status: number;
  readonly body: object;
}

export interface Plugin {
  /** Runs one method with a body as it came. Never rejects: what goes wrong is in the answer. */
  readonly call: (method: string, body: string) => Promise<PluginAnswer>;
  readonly endpoints: Endpoints;
}

export function createPlugin(options: DriverOptions): Plugin {
  const { log, ipam } = options;
  const endpoints = new Endpoints(options);
  const table = methods(options, new Networks(options), endpoints, ipam);
  const sequence = new Sequence();

  async function run<M extends Method>(handlers: Pick<Methods, M>, method: M, body: string): Promise<Answer> {
    const request = parseRequest(method, body);
    const subject = subjectOf({ ...request });
    const work = async (): Promise<Answer> => handlers[method](request);
    return subject === undefined ? work() : sequence.run(subject, work);
  }

  async function call(method: string, body: string): Promise<PluginAnswer> {
    if (!isMethod(method)) return refusal(404, `Unknown method ${method.slice(0, 80)}`);
    const started = performance.now();
    const took = (): number => Math.round(performance.now() - started);
    try {
      const result = (await run(table, method, body)) ?? {};
      log.debug({ method, request: body.slice(0, 4096), answer: result, ms: took() }, 'plugin call');
      return { status: 200, body: result };
    } catch (error) {
      const { status, body: text } = pluginError(error);
      const fields = { method, request: body.slice(0, 4096), status, error, ms: took() };
      if (isFault(error)) log.warn(fields, `plugin call failed: ${text.Err}`);
      else log.error(fields, 'plugin call failed unexpectedly');
      return { status, body: text };
    }
  }
  return { call, endpoints };
}

const refusal = (status: number, text: string): PluginAnswer => ({ status, body: { Err: text } });

/** Undefined when it is longer than the limit, or the engine has hung up. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let length = 0;
  return new Promise((resolve) => {
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length <= maxBody) chunks.push(chunk);
      else resolve(undefined);
    });
    request.once('end', () => resolve(Buffer.concat(chunks).toString('utf8')));
    request.once('close', () => resolve(undefined));
  });
}

/**
 * Written for node:http itself: Request and Response objects with their streams cost more than the methods do, and an engine
 * that starts many containers calls many methods.
 */
async function serve({ call }: Pick<Plugin, 'call'>, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const send = ({ status, body }: PluginAnswer, headers: Readonly<Record<string, string>> = {}): void => {
    const text = JSON.stringify(body);
    response.writeHead(status, { 'content-type': contentType, 'content-length': Buffer.byteLength(text), ...headers });
    response.end(text);
  };
  if (request.method !== 'POST') {
    send(refusal(404, 'Not found'));
    return;
  }
  const body = await readBody(request);
  // What is left of it is not waited for.
  if (body === undefined) send(refusal(413, `The request is longer than ${maxBody} bytes`), { connection: 'close' });
  else send(await call((request.url ?? '').slice(1), body));
}

/** A server on a unix socket that only root may open. */
export class PluginServer {
  readonly path: string;
  readonly #server: Server;
  readonly #inode: number;

  private constructor(path: string, server: Server) {
    this.path = path;
    this.#server = server;
    this.#inode = statSync(path).ino;
  }

  /**
   * Listens under another name first and renames, so that the path always leads to a server that answers, also while a
   * dead process's socket is being replaced.
   */
  static async listen(plugin: Pick<Plugin, 'call'>, path: string): Promise<PluginServer> {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    // dockerd lists everything that ends in .sock as a plugin, so this name must not.
    const temporary = `${path}.${process.pid}`;
    rmSync(temporary, { force: true });
    const server = createServer((request, response) => void serve(plugin, request, response));
    // dockerd ends connections that it does not need. Were they ended here, a call that is just on its way would be lost; dockerd
    // sends it again without its body (pkg/plugins/client.go, callWithRetry), and the container would not start.
    server.keepAliveTimeout = 0;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      // The socket is made inside listen(), synchronously, with this mask.
      const before = process.umask(0o177);
      try {
        server.listen(temporary, resolve);
      } finally {
        process.umask(before);
      }
    });
    renameSync(temporary, path);
    return new PluginServer(path, server);
  }

  /** Waits for calls under way. Leaves the path alone where a successor listens by now. */
  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      // dockerd keeps its connections open.
      this.#server.closeIdleConnections();
    });
    if (statSync(this.path, { throwIfNoEntry: false })?.ino === this.#inode) rmSync(this.path, { force: true });
  }
}
