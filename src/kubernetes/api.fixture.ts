// For tests: a server that speaks the Kubernetes API's list and watch, and says in turn what it was told to say.
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Server as NetServer } from 'node:net';
import type { TestContext } from 'node:test';
import { KubernetesClient } from './client.ts';

export interface Answers {
  readonly lists: (object | number)[];
  readonly watches: (readonly object[] | Busy | number | undefined)[];
}

/** Says that it is too busy, and when to come again. */
export class Busy {
  readonly retryAfter: string;
  readonly status: number;

  constructor(retryAfter: string, status = 429) {
    this.retryAfter = retryAfter;
    this.status = status;
  }
}

export class Api {
  readonly asked: URL[] = [];
  /** What is left of each to answer with: a body, or a status that refuses. A watch without one stays open. */
  lists: (object | number)[] = [];
  watches: (readonly object[] | Busy | number | undefined)[] = [];
  isReady = true;
  /** As lists and watches, for one path. */
  readonly paths: Map<string, Answers> = new Map();
  readonly #server: ReturnType<typeof createServer>;

  constructor() {
    this.#server = createServer((request, response) => {
      const url = new URL(request.url ?? '', 'http://api');
      if (url.pathname === '/readyz') {
        response.writeHead(this.isReady ? 200 : 500).end();
        return;
      }
      this.asked.push(url);
      const { lists, watches } = this.paths.get(url.pathname) ?? this;
      const answer = url.searchParams.has('watch') ? watches.shift() : lists.shift();
      if (typeof answer === 'number') response.writeHead(answer).end(JSON.stringify({ kind: 'Status', message: 'no' }));
      else if (answer instanceof Busy)
        response.writeHead(answer.status, { 'retry-after': answer.retryAfter }).end(JSON.stringify({ kind: 'Status', message: 'busy' }));
      else if (Array.isArray(answer)) response.end(answer.map((line) => `${JSON.stringify(line)}\n`).join(''));
      else if (answer !== undefined) response.end(JSON.stringify(answer));
      else response.writeHead(200).flushHeaders();
    });
  }

  async listen(): Promise<string> {
    // So long that no test on a slow machine meets a connection that is just being closed.
    this.#server.keepAliveTimeout = 120_000;
    return listening(this.#server);
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

/** Where it listens from now on. */
export async function listening(server: NetServer): Promise<string> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  return `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`;
}

export const listOf = (revision: number, items: readonly object[], next = ''): object => ({
  metadata: { resourceVersion: String(revision), continue: next },
  items,
});

/** Of one test's own: a request that was given up may still be on its way to the server. */
export interface Server {
  readonly api: Api;
  readonly client: KubernetesClient;
  readonly port: number;
}
export async function serve(t: TestContext): Promise<Server> {
  const api = new Api();
  const server = await api.listen();
  const client = new KubernetesClient({ server });
  t.after(async () => {
    await client[Symbol.asyncDispose]();
    api.close();
  });
  return { api, client, port: Number(new URL(server).port) };
}
