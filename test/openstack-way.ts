// The way from a test, which is outside the lab, to the services of its cloud: by the port of an address to the service's unix socket; and a
// proxy in front of a service, which may speak TLS, garble what the service has answered, and be reached by programs of the lab.
import { request, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import { connect, createServer as createListener } from 'node:net';
import { buffer } from 'node:stream/consumers';
import type { Connector } from '#cloud/http.ts';
import { serving } from '#cloud/server.fixture.ts';
import type { Host } from '#lab/host.ts';
import { until } from '#lab/until.ts';
import { apiPorts, apiSocket, type ServiceName } from '#lab/openstack-services.ts';

/** Nobody listens on other ports. `fronts`: of services that are reached by them. */
export const wayInto =
  (controller: Host, fronts: Partial<Record<ServiceName, Front>> = {}): Connector =>
  ({ port }, done) => {
    const service = (Object.keys(apiPorts) as ServiceName[]).find((name) => apiPorts[name] === Number(port));
    const front = service === undefined ? undefined : fronts[service];
    const path = service === undefined ? '/nobody' : controller.file(apiSocket(service));
    const socket = connect(front === undefined ? { path } : { host: '127.0.0.1', port: front.port });
    socket.once('connect', () => done(null, socket));
    socket.once('error', (error) => done(error, null));
  };

export interface Passed {
  readonly method: string;
  /** With the query. */
  readonly path: string;
  /** Of the service's answer. */
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly content: Buffer;
}

export interface FrontOptions {
  /** PEM; absent: plain HTTP. */
  readonly tls?: { readonly key: string; readonly cert: string };
  /** Answers in place of the service, which has done by then what it was asked for; false: its answer is passed on. */
  readonly garble?: (passed: Passed, response: ServerResponse) => boolean;
}

export interface Front extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** Methods and paths, in order. */
  readonly asked: readonly string[];
}

export async function frontOf(controller: Host, service: ServiceName, { tls, garble = () => false }: FrontOptions = {}): Promise<Front> {
  const asked: string[] = [];
  const socketPath = controller.file(apiSocket(service));
  const server = await serving(
    ({ method = '', url: path = '', headers }, response, body) => {
      asked.push(`${method} ${path}`);
      const passing = request({ socketPath, method, path, headers, agent: false }, (answer) => {
        const { statusCode: status = 0 } = answer;
        const passOn = async (): Promise<void> => {
          const content = await buffer(answer);
          if (!garble({ method, path, status, headers: answer.headers, content }, response))
            response.writeHead(status, answer.headers).end(content);
        };
        passOn().catch(() => response.destroy());
      });
      passing.once('error', () => response.destroy());
      passing.end(body);
    },
    tls === undefined ? undefined : (listener) => createServer(tls, listener),
  );
  return {
    url: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${server.port}`,
    port: server.port,
    asked,
    [Symbol.asyncDispose]: () => Promise.resolve(server[Symbol.asyncDispose]()),
  };
}

/** A front on the loopback of a host of the lab, for the programs there. */
export async function leadTo({ port }: Front, host: Host): Promise<AsyncDisposable & { readonly url: string }> {
  const path = `/run/front-${port}`;
  const listener = createListener((socket) => {
    const behind = connect(port, '127.0.0.1');
    for (const end of [socket, behind])
      end.once('error', () => {
        socket.destroy();
        behind.destroy();
      });
    socket.pipe(behind).pipe(socket);
  });
  await new Promise<void>((resolve) => listener.listen(host.file(path), resolve));
  const forward = host.spawn(['socat', `TCP-LISTEN:${port},bind=127.0.0.1,reuseaddr,fork`, `UNIX-CONNECT:${path}`]);
  await until('the front to be reached', async () => (await host.ask(['ss', '-Hltn', `sport = :${port}`], { netOnly: true })) !== '');
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose](): Promise<void> {
      forward.kill('SIGKILL');
      await forward.ended;
      listener.close();
    },
  };
}
