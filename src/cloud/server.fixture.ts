// Clouds in tests: real HTTP servers that answer as a test says, and the part of Keystone that every login needs.
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import type { Cloud } from './clouds.ts';

export type Answer = (request: IncomingMessage, response: ServerResponse, body: string) => void;

/** `make`: of a server of another sort than plain HTTP. */
export async function serving(
  answer: Answer,
  make: (listener: RequestListener) => Server = createServer,
): Promise<{ url: string; port: number } & AsyncDisposable> {
  const server = make((request, response) => {
    let body = '';
    request.on('data', (piece: Buffer) => (body += piece.toString()));
    request.on('end', () => answer(request, response, body));
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', resolve);
  await promise;
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

export const json = (response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}): void => {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
};
/** A cloud of one project whose tokens are numbered. */
export const cloudOf = (url: string, more: Partial<Cloud> = {}): Cloud => ({
  name: 'test',
  authUrl: `${url}/v3`,
  login: { type: 'password', user: { name: 'demo', domain: { id: 'default' } }, password: 'secret', project: { id: 'p' } },
  place: { interface: 'public', region: undefined },
  ca: undefined,
  verify: true,
  overrides: {},
  ...more,
});

/** Of `url`, which is known only when the server listens. `changes`: of the token in its answer. */
export function keystone(url: () => string, changes: object = {}): { answer: Answer; logins: () => number } {
  let logins = 0;
  const catalog = () => [
    { type: 'network', endpoints: [{ interface: 'public', region_id: 'one', region: 'one', url: `${url()}/network/` }] },
  ];
  return {
    logins: () => logins,
    answer: (_, response) => {
      logins++;
      const token = {
        expires_at: '2999-01-01T00:00:00.000000Z',
        project: { id: 'p', name: 'demo' },
        roles: [],
        catalog: catalog(),
        more: 1,
        ...changes,
      };
      json(response, 201, { token }, { 'x-subject-token': `token-${logins}` });
    },
  };
}
