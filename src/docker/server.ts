// The plugin's HTTP side: one POST per method, parsed, run, answered. Calls never ask the engine anything (several plugins
// dead-locked that way, moby#33871). dockerd finds the socket below /run/docker/plugins and asks Plugin.Activate first.
import { type CallAnswer, CallServer } from '#api/call-server.ts';
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

export interface PluginAnswer extends CallAnswer {
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

/** The plugin's socket, which only root may open. */
export const listenPlugin = ({ call }: Pick<Plugin, 'call'>, path: string): Promise<CallServer> =>
  CallServer.listen({ call: (called, body) => call(called.slice(1), body), refuse: refusal, maxBody, contentType }, path);
