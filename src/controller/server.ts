// The controller's TLS socket. Client certificates are asked for but not demanded: tokens and joining come without. Whether a
// certificate leads to our authority is judged per request, so that the answer can say why not.
import { type IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import { networkInterfaces } from 'node:os';
import type { AddressInfo, Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { getRequestListener } from '@hono/node-server';
import { Fault } from '#model/fault.ts';
import type { Peer } from './authentication.ts';
import type { Controller } from './controller.ts';
import type { Log } from './log.ts';

export interface ServerOptions {
  readonly host: string;
  readonly port: number;
  /** Names and addresses under which the controller is reached, beside its own addresses and `localhost`. */
  readonly names: readonly string[];
  /** Lists the machine's own addresses; tests refuse. */
  readonly interfaces?: typeof networkInterfaces;
}

export interface RunningServer extends AsyncDisposable {
  readonly port: number;
  readonly server: Server;
}

const renewCheckMs = 3_600_000;
const watchEndMs = 2_000;

/** Empty, and a word to the log, where a sandbox does not let the program list them: `--san` can name what is missing. */
function ownAddresses(log: Log, list: typeof networkInterfaces): string[] {
  try {
    return (
      Object.values(list())
        .flatMap((found) => found ?? [])
        // A certificate names addresses, not zones.
        .filter(({ scopeid }) => scopeid === undefined || scopeid === 0)
        .map(({ address }) => address)
    );
  } catch (error) {
    log.warn({ error }, "This machine's addresses cannot be listed: the certificate holds only localhost and what --san says");
    return [];
  }
}

/** Requests of one connection that wait for their answers. No client of ours sends one before the last is answered. */
const mostAtOnce = 16;
const atOnce = new WeakMap<Socket, number>();

/** Whoever sends more without reading would have whole answers kept for each, before anybody has asked who it is: it is cut. */
function isInTurn({ socket }: IncomingMessage, response: ServerResponse): boolean {
  const count = (atOnce.get(socket) ?? 0) + 1;
  if (count > mostAtOnce) {
    socket.destroy();
    return false;
  }
  atOnce.set(socket, count);
  response.once('close', () => atOnce.set(socket, (atOnce.get(socket) ?? 1) - 1));
  return true;
}

const peers = new WeakMap<TLSSocket, Peer>();

/** What the other side of `socket` has shown; undefined when it showed no certificate. */
function peerOf(socket: TLSSocket): Peer | undefined {
  const known = peers.get(socket);
  if (known !== undefined) return known;
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return undefined;
  const peer: Peer = {
    subject: /^CN=(.*)$/m.exec(certificate.subject)?.[1] ?? '',
    uris: (certificate.subjectAltName ?? '').split(', ').flatMap((name) => (name.startsWith('URI:') ? [name.slice(4)] : [])),
    serial: certificate.serialNumber,
    expiresAt: certificate.validToDate.getTime(),
    ...(socket.remoteAddress === undefined ? {} : { address: socket.remoteAddress.replace(/^::ffff:/, '') }),
    ...(socket.authorized ? {} : { problem: String(socket.authorizationError) }),
  };
  peers.set(socket, peer);
  return peer;
}

const isLoopback = (address: string | undefined): boolean => address !== undefined && /^(127\.|::1$|::ffff:127\.)/.test(address);

/** Faults: `unavailable` when the address cannot be listened on. */
export async function startServer(controller: Controller, options: ServerOptions): Promise<RunningServer> {
  const { host, port, names, interfaces = networkInterfaces } = options;
  const { control, app } = controller;
  const issue = (): ReturnType<typeof control.authority.issueServer> =>
    control.authority.issueServer(['localhost', ...ownAddresses(control.log, interfaces), ...names], control.now());
  let identity = await issue();
  const contextOf = (): { cert: string; key: string; ca: string } => ({
    cert: identity.certificate,
    key: identity.key,
    ca: control.authority.certificate,
  });
  const listener = getRequestListener(
    (request, { incoming, outgoing }) => {
      const { socket } = incoming;
      const peer = socket instanceof TLSSocket ? peerOf(socket) : undefined;
      // What TLS found stands for as long as the connection does: a clock that is set right is noticed with the next one.
      if (peer?.problem !== undefined && outgoing instanceof ServerResponse) outgoing.shouldKeepAlive = false;
      return app.fetch(request, {
        ...(peer === undefined ? {} : { peer }),
        ...('writeHead' in outgoing && !('stream' in outgoing) ? { outgoing } : {}),
        isLoopback: isLoopback(socket.remoteAddress),
      });
    },
    { overrideGlobalObjects: false },
  );
  const server = createServer(
    { ...contextOf(), minVersion: 'TLSv1.3', requestCert: true, rejectUnauthorized: false },
    (request, response) => {
      if (isInTurn(request, response)) void listener(request, response);
    },
  );
  // Agents keep their connections; what is idle costs little.
  server.keepAliveTimeout = 75_000;
  server.requestTimeout = 30_000;
  await listen(server, host, port);
  const renew = async (): Promise<void> => {
    try {
      identity = await issue();
      server.setSecureContext(contextOf());
    } catch (error) {
      control.log.error({ error }, "The controller's certificate could not be renewed");
    }
  };
  const renewal = setInterval(() => {
    if (Date.parse(identity.expiresAt) - control.now().getTime() > 30 * 86_400_000) return;
    void renew();
  }, renewCheckMs);
  renewal.unref();
  return {
    port: portOf(server.address()),
    server,
    [Symbol.asyncDispose]: async () => {
      clearInterval(renewal);
      const closed = new Promise<void>((resolve) => void server.close(() => resolve()));
      // Watches never end by themselves, so they are ended before the rest has been waited for.
      controller.hub[Symbol.dispose]();
      server.closeIdleConnections();
      const impatience = setTimeout(() => server.closeAllConnections(), watchEndMs);
      await closed;
      clearTimeout(impatience);
    },
  };
}

const portOf = (address: AddressInfo | string | null): number => (typeof address === 'object' && address !== null ? address.port : 0);

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(new Fault('unavailable', `Cannot listen on ${host}:${port}`, { hint: 'Is another controller running?', cause: error })),
    );
    server.listen(port, host, () => resolve());
  });
}
