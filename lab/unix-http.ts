// HTTP over a unix socket, which is reached from any network namespace.
import { type IncomingHttpHeaders, type OutgoingHttpHeaders, request } from 'node:http';
import { text } from 'node:stream/consumers';
import { Fault } from '#model/fault.ts';

export interface SocketQuestion {
  readonly method?: string;
  readonly path: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string;
  /** Of silence. */
  readonly timeoutMs: number;
}

export interface SocketAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/**
 * Asks on a connection of its own: some servers end each after their answer, and the next question could meet that. Answers of any
 * status. Fault `timeout`; the error of the socket while nobody listens.
 */
export async function askSocket(
  socketPath: string,
  { method = 'GET', path, headers = {}, body, timeoutMs }: SocketQuestion,
): Promise<SocketAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<SocketAnswer>();
  const asked = request({ socketPath, agent: false, method, path, headers, timeout: timeoutMs }, (response) => {
    const { statusCode: status = 0, headers: said } = response;
    text(response).then((whole) => resolve({ status, headers: said, text: whole }), reject);
  });
  asked.once('timeout', () => asked.destroy(new Fault('timeout', `${socketPath} does not answer ${method} ${path}`)));
  asked.once('error', reject);
  asked.end(body);
  return await promise;
}
