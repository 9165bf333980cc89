// What the agent says of itself on its own host: health and metrics on loopback, and on a socket that only root may open
// what it holds in the kernel, for `causeway explain` and `causeway status`.
import { createServer, type Server } from 'node:http';
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { getRequestListener } from '@hono/node-server';
import { Hono } from 'hono';
import type { Desired } from '#model/desired.ts';
import { domainName, vxlanLink, vxlanLink6, wireguardLink } from '#model/numbers.ts';
import type { Network } from '#model/resources.ts';
import type { Figures } from './figures.ts';
import type { AgentStatus } from './status.ts';
import type { PolicyReport } from './policy-report.ts';

export interface ServerOptions {
  readonly status: () => AgentStatus;
  /** Whether a BGP speaker that was started anew has not heard all that its predecessor had. */
  readonly isSpeakerRecovering?: () => boolean;
  readonly desired: () => Desired;
  /** By id or name. */
  readonly network: (text: string) => Network | undefined;
  /** Of a cluster; undefined where the host is in none. */
  readonly policies?: () => Promise<readonly PolicyReport[] | undefined>;
  /** More about this host: the engine, name service counters. */
  readonly details: () => Readonly<Record<string, unknown>>;
}

/** Undefined: the host has all that it needs of the cluster, so that others may be taken from it, as those of an upgrade are one by one. */
function waitingFor({ status, isSpeakerRecovering }: Pick<ServerOptions, 'status' | 'isSpeakerRecovering'>): string | undefined {
  const { synced, inForce } = status();
  if (!synced) return 'the cluster to be told';
  if (!inForce) return 'the kernel to have what was told';
  return isSpeakerRecovering?.() === true ? 'BGP peers to tell their routes again' : undefined;
}

/** What of `desired` belongs to one network: everything in its domain, and on the host what names one of its links. */
export function objectsOf(desired: Desired, network: Network): Readonly<Record<string, readonly unknown[]>> {
  const netns = domainName(network.id);
  const links = new Set(desired.link.filter(({ alias }) => alias.startsWith(`causeway ${network.id} `)).map(({ name }) => name));
  for (const name of [vxlanLink(network.vni), vxlanLink6(network.vni), wireguardLink(network.vni)]) links.add(name);
  const belongs = (item: Desired[keyof Desired][number]): boolean => {
    if ('netns' in item && item.netns === netns) return true;
    if ('name' in item && item.name === netns) return true;
    if ('alias' in item) return links.has(item.name);
    if ('link' in item && item.link !== undefined) return links.has(item.link);
    return false;
  };
  return Object.fromEntries(Object.entries(desired).map(([kind, items]) => [kind, items.filter(belongs)]));
}

/** Loopback gets health and metrics; the socket everything. */
export function createApps(options: ServerOptions): { readonly loopback: Hono; readonly socket: Hono } {
  let loading: Promise<Figures> | undefined;
  const figures = (): Promise<Figures> => (loading ??= import('./figures.ts').then(({ createFigures }) => createFigures(options.status)));
  const health = (app: Hono): Hono => {
    // Answering at all is being alive: an agent that waits for its cluster is not made better by a restart.
    app.get('/livez', (context) => context.json({ ok: true }));
    app.get('/healthz', (context) => {
      const waitsFor = waitingFor(options);
      return waitsFor === undefined ? context.json({ ok: true }) : context.json({ ok: false, waitsFor }, 503);
    });
    app.get('/metrics', async () => {
      const loaded = await figures();
      return new Response(await loaded.text(), { headers: { 'content-type': loaded.contentType } });
    });
    return app;
  };
  const socket = health(new Hono());
  socket.get('/status', (context) => context.json({ ...options.status(), ...options.details() }));
  socket.get('/policies', async (context) => {
    const policies = await options.policies?.();
    return policies === undefined ? context.json({ code: 'not-found', detail: 'No cluster' }, 404) : context.json({ policies });
  });
  socket.get('/networks/:network/objects', (context) => {
    const network = options.network(context.req.param('network'));
    if (network === undefined) return context.json({ code: 'not-found', detail: 'No such network' }, 404);
    return context.json({
      network: network.name,
      netns: network.choices.domain === 'own' ? domainName(network.id) : '',
      objects: objectsOf(options.desired(), network),
    });
  });
  return { loopback: health(new Hono()), socket };
}

const listenOn = (app: Hono, where: { path: string } | { host: string; port: number }): Promise<Server> =>
  new Promise((resolve, reject) => {
    const listener = getRequestListener(app.fetch);
    const server = createServer((request, response) => void listener(request, response));
    server.once('error', reject);
    server.listen(where, () => resolve(server));
  });

/** A socket file left by a dead process is replaced. */
export async function listenSocket(app: Hono, path: string): Promise<Server> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  rmSync(path, { force: true });
  const server = await listenOn(app, { path });
  chmodSync(path, 0o600);
  return server;
}

export const listenLoopback = (app: Hono, port: number): Promise<Server> => listenOn(app, { host: '127.0.0.1', port });
