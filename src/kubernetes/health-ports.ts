// Health-check node ports: load balancers ask every node by HTTP whether a service with externalTrafficPolicy Local has endpoints
// on it, and leave out those that answer 503. Path and method do not matter; the answer is kube-proxy's
// (pkg/proxy/healthcheck/service_health.go), for those who read more of it than its status.
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { HealthPort } from './service-source.ts';

export interface HealthPortsOptions {
  readonly log: { warn(fields: object, message: string): void };
}

interface Listening {
  readonly server: Server;
  told: HealthPort;
}

const indent = (value: object): string => `${JSON.stringify(value, undefined, '\t')}\n`;

function answer(response: ServerResponse, { namespace, name, localEndpoints }: HealthPort): void {
  response.writeHead(localEndpoints > 0 ? 200 : 503, {
    'content-type': 'application/json',
    'x-content-type-options': 'nosniff',
    'x-load-balancing-endpoint-weight': String(localEndpoints),
    connection: 'close',
  });
  response.end(indent({ service: { namespace, name }, localEndpoints, serviceProxyHealthy: true }));
}

export class HealthPorts implements Disposable {
  readonly #log: HealthPortsOptions['log'];
  readonly #listening = new Map<number, Listening>();

  constructor({ log }: HealthPortsOptions) {
    this.#log = log;
  }

  /** These and no others are served from now on; a port that is taken is told of and tried again at the next call. */
  update(ports: readonly HealthPort[]): void {
    const wanted = new Map(ports.map((port) => [port.port, port]));
    for (const [port, { server }] of this.#listening) {
      if (wanted.has(port)) continue;
      this.#listening.delete(port);
      close(server);
    }
    for (const told of wanted.values()) {
      const known = this.#listening.get(told.port);
      if (known === undefined) this.#listen(told);
      else known.told = told;
    }
  }

  [Symbol.dispose](): void {
    this.update([]);
  }

  #listen(told: HealthPort): void {
    const { port } = told;
    const server = createServer((_, response) => answer(response, listening.told));
    const listening: Listening = { server, told };
    this.#listening.set(port, listening);
    // Long enough for any load balancer's question, and no place to keep connections open for nothing.
    server.requestTimeout = 5_000;
    server.on('error', (error) => {
      this.#log.warn({ port, error: error.message }, 'cannot serve a health-check node port');
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
