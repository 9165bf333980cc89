// The HTTP side of what engines and runtimes call: one POST for each call, its body read whole, its answer JSON. Written for node:http
// itself: Request and Response objects with their streams cost more than most calls do, and who starts many containers calls often.
import { mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { dirname } from 'node:path';

export interface CallAnswer {
  readonly status: number;
  /** Undefined: the answer is empty. */
  readonly body: object | undefined;
}

export interface Called {
  /** `path` begins with `/`. Never rejects: what goes wrong is in the answer. */
  readonly call: (path: string, body: string) => Promise<CallAnswer>;
  /** What never comes to be a call. */
  readonly refuse: (status: number, message: string) => CallAnswer;
  /** Bytes of a body. */
  readonly maxBody: number;
  readonly contentType: string;
}

/** Undefined when it is longer than `most` bytes, or the caller has hung up. */
async function readBody(request: IncomingMessage, most: number): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let length = 0;
  return new Promise((resolve) => {
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length <= most) chunks.push(chunk);
      else resolve(undefined);
    });
    request.once('end', () => resolve(Buffer.concat(chunks).toString('utf8')));
    request.once('close', () => resolve(undefined));
  });
}

async function serve({ call, refuse, maxBody, contentType }: Called, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const send = ({ status, body }: CallAnswer, headers: Readonly<Record<string, string>> = {}): void => {
    const text = body === undefined ? '' : `${JSON.stringify(body)}\n`;
    response.writeHead(status, { 'content-type': contentType, 'content-length': Buffer.byteLength(text), ...headers });
    response.end(text);
  };
  if (request.method !== 'POST') {
    send(refuse(404, 'Not found'));
    return;
  }
  const body = await readBody(request, maxBody);
  // What is left of it is not waited for.
  if (body === undefined) send(refuse(413, `The request is longer than ${maxBody} bytes`), { connection: 'close' });
  else send(await call(request.url ?? '', body));
}

/** A server on a unix socket that only root may open. */
export class CallServer {
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
  static async listen(called: Called, path: string): Promise<CallServer> {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    // dockerd lists everything that ends in .sock as a plugin, so this name must not.
    const temporary = `${path}.${process.pid}`;
    rmSync(temporary, { force: true });
    const server = createServer((request, response) => void serve(called, request, response));
    // Callers end connections that they do not need. Were they ended here, a call that is just on its way would be lost; dockerd
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
    return new CallServer(path, server);
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
