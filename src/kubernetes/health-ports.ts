// Ports on which load balancers ask every node by HTTP whether it takes their connections, and leave out those that answer 503. Of a
// service with externalTrafficPolicy Local on its health-check node port: whether it has endpoints here; path and method do not matter.
// Of all others on kube-proxy's own port: whether the node stays, as cloud providers ask it (KEP-3836). The answers are kube-proxy's
// (pkg/proxy/healthcheck: service_health.go, proxy_health.go), for those who read more of them than their status.
import { createServer, type Server, type ServerResponse } from 'node:http';
import * as v from 'valibot';
import type { HealthPort } from './service-source.ts';

export interface HealthPortsOptions {
  readonly log: { warn(fields: object, message: string): void };
  /** Kube-proxy's unless given. */
  readonly nodePort?: number;
}

type Answer = (response: ServerResponse, path: string) => void;

interface Listening {
  readonly server: Server;
  answer: Answer;
}

const usualNodePort = 10_256;
/** By which the cluster autoscaler says that it is going to remove a node. */
const leavingTaint = 'ToBeDeletedByClusterAutoscaler';
const node = v.object({
  metadata: v.object({ deletionTimestamp: v.nullish(v.string()) }),
  spec: v.optional(v.object({ taints: v.nullish(v.array(v.object({ key: v.string() }))) }), {}),
});

/** Whether load balancers may go on with the Node. */
export function staysInUse(item: unknown): boolean {
  const read = v.safeParse(node, item);
  if (!read.success) return true;
  const { metadata, spec } = read.output;
  return (metadata.deletionTimestamp ?? undefined) === undefined && spec.taints?.some(({ key }) => key === leavingTaint) !== true;
}

const headers = { 'content-type': 'application/json', 'x-content-type-options': 'nosniff', connection: 'close' };

const ofService =
  ({ namespace, name, localEndpoints }: HealthPort): Answer =>
  (response) => {
    response.writeHead(localEndpoints > 0 ? 200 : 503, { ...headers, 'x-load-balancing-endpoint-weight': String(localEndpoints) });
    const told = { service: { namespace, name }, localEndpoints, serviceProxyHealthy: true };
    response.end(`${JSON.stringify(told, undefined, '\t')}\n`);
  };

const ofNode =
  (nodeEligible: boolean): Answer =>
  (response, path) => {
    const now = new Date().toISOString();
    const told = { lastUpdated: now, currentTime: now };
    if (path === '/livez') response.writeHead(200, headers).end(JSON.stringify(told));
    else if (path === '/healthz') response.writeHead(nodeEligible ? 200 : 503, headers).end(JSON.stringify({ ...told, nodeEligible }));
    else response.writeHead(404, headers).end('{}');
  };

export class HealthPorts implements Disposable {
  readonly #log: HealthPortsOptions['log'];
  readonly #nodePort: number;
  readonly #listening = new Map<number, Listening>();
  /** Ports that could not be served, which is said once. */
  readonly #refused = new Set<number>();
  #staysInUse = true;

  constructor({ log, nodePort = usualNodePort }: HealthPortsOptions) {
    this.#log = log;
    this.#nodePort = nodePort;
  }

  /** This host's own Node as the API shows it. */
  saw(item: unknown): void {
    this.#staysInUse = staysInUse(item);
    const known = this.#listening.get(this.#nodePort);
    if (known !== undefined) known.answer = ofNode(this.#staysInUse);
  }

  /** These, the node's, and no others are served from now on; a port that is taken is told of and tried again at the next call. */
  update(ports: readonly HealthPort[]): void {
    this.#serve(new Map([[this.#nodePort, ofNode(this.#staysInUse)], ...ports.map((one): [number, Answer] => [one.port, ofService(one)])]));
  }

  [Symbol.dispose](): void {
    this.#serve(new Map());
  }

  #serve(wanted: ReadonlyMap<number, Answer>): void {
    for (const [port, { server }] of this.#listening) {
      if (wanted.has(port)) continue;
      this.#listening.delete(port);
      close(server);
    }
    for (const [port, answer] of wanted) {
      const known = this.#listening.get(port);
      if (known === undefined) this.#listen(port, answer);
      else known.answer = answer;
    }
  }

  #listen(port: number, answer: Answer): void {
    const server = createServer(({ url = '/' }, response) => listening.answer(response, url.replace(/\?.*/s, '')));
    const listening: Listening = { server, answer };
    this.#listening.set(port, listening);
    // Long enough for any load balancer's question, and no place to keep connections open for nothing.
    server.requestTimeout = 5_000;
    server.on('listening', () => this.#refused.delete(port));
    server.on('error', (error) => {
      if (!this.#refused.has(port))
        this.#log.warn({ port, error: error.message }, 'cannot serve a port for the health checks of load balancers');
      this.#refused.add(port);
      if (this.#listening.get(port) === listening) this.#listening.delete(port);
    });
    // Of both families, where the node has both.
    server.listen(port);
    server.unref();
  }
}

function close(server: Server): void {
  server.close();
  server.closeAllConnections();
}
