// The HTTP side: every route of the table with its handler, what they have in common before and after, and nothing that
// decides. Works without a socket (`app.fetch`), which is how most tests use it.
import type { ServerResponse } from 'node:http';
import { Hono } from 'hono';
import { Fault } from '#model/fault.ts';
import { problemOf, Refusal } from '#api/faults.ts';
import { openapi } from '#api/openapi.ts';
import { parse } from '#api/parse.ts';
import { noBody, type Route, routes } from '#api/routes.ts';
import { apiVersion, bodyLimit, bootHeader, versionHeader } from '#api/protocol.ts';
import { checkAccess, describePrincipal, type Principal } from './access.ts';
import { authenticate, type Peer, type Shown } from './authentication.ts';
import type { Control } from './control.ts';
import { bindAll } from './handlers.ts';
import type { Hub } from './hub.ts';
import type { Metrics } from './metrics.ts';

export interface Bindings {
  /** The client's certificate, if it showed one. */
  readonly peer?: Peer;
  /** Node's response, for answers without end; absent in tests. */
  readonly outgoing?: ServerResponse;
  readonly isLoopback?: boolean;
}

export interface Call<Query, Body> {
  readonly principal: Principal;
  readonly params: Readonly<Record<string, string>>;
  readonly query: Query;
  readonly body: Body;
  /** The revision of If-Match. */
  readonly match: number | undefined;
  readonly outgoing: ServerResponse | undefined;
  readonly signal: AbortSignal;
}

/** What becomes the answer's body; `etag` its revision. A Response is passed on as it is. */
export type Reply = { readonly body?: unknown; readonly etag?: number } | Response;
export type Handler<Query, Body> = (call: Call<Query, Body>) => Promise<Reply>;
export type Bind = <Query, Body>(route: Route<Query, Body>, handler: Handler<Query, Body>) => void;

export interface Surroundings {
  readonly control: Control;
  readonly hub: Hub;
  readonly metrics: Metrics;
}

const problemResponse = (error: unknown): Response => {
  const problem = problemOf(error);
  const headers: Record<string, string> = { 'content-type': 'application/problem+json' };
  if (problem.status === 401) headers['www-authenticate'] = 'Bearer';
  if (problem.status === 503) headers['retry-after'] = '1';
  return new Response(JSON.stringify(problem), { status: problem.status, headers });
};

function checkVersion(request: Request): void {
  const asked = request.headers.get(versionHeader);
  if (asked === null || asked === apiVersion) return;
  throw new Fault('version', `This controller speaks version ${apiVersion} of the protocol, not ${JSON.stringify(asked.slice(0, 40))}`, {
    field: versionHeader,
    hint: 'Use the same release of agent, CLI and controller',
  });
}

const tooLarge = (): Refusal =>
  new Refusal(413, 'invalid', `The request holds more than ${bodyLimit} bytes`, { hint: 'Send less at once' });

const shownBy = ({ headers }: Request, peer: Peer | undefined): Shown => ({
  authorization: headers.get('authorization') ?? undefined,
  boot: headers.get(bootHeader)?.slice(0, 64),
  peer,
});

async function readBody(request: Request): Promise<unknown> {
  if (Number(request.headers.get('content-length') ?? 0) > bodyLimit) throw tooLarge();
  const type = request.headers.get('content-type');
  if (type !== null && !/^application\/json\b/i.test(type)) {
    throw new Refusal(415, 'invalid', `A body of type ${JSON.stringify(type.slice(0, 80))} is not understood`, {
      hint: 'Send application/json',
    });
  }
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request.body ?? []) {
    size += chunk.length;
    if (size > bodyLimit) throw tooLarge();
    chunks.push(chunk);
  }
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks)));
  } catch (error) {
    throw new Fault('invalid', 'The body is not JSON', { cause: error });
  }
}

function readMatch(request: Request, rule: Route<unknown, unknown>['ifMatch']): number | undefined {
  const header = request.headers.get('if-match');
  if (header === null) {
    if (rule !== 'required') return undefined;
    throw new Refusal(428, 'invalid', 'A change needs the revision that it is based on', {
      field: 'If-Match',
      hint: 'Send If-Match with the ETag of what you read',
    });
  }
  if (header === '*') return undefined;
  const [, revision] = /^"([0-9]{1,16})"$/.exec(header) ?? [];
  if (revision === undefined)
    throw new Fault('invalid', 'If-Match is not an ETag of ours', { field: 'If-Match', hint: 'For example "42"' });
  return Number(revision);
}

function readParams(params: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  for (const [key, value] of Object.entries(params)) {
    if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/.test(value)) {
      throw new Fault('invalid', `${JSON.stringify(value.slice(0, 80))} is neither an id nor a name`, { field: key });
    }
  }
  return params;
}

function readQuery(url: string): Record<string, string> {
  const query: Record<string, string> = {};
  for (const [key, value] of new URL(url).searchParams) {
    if (key in query) throw new Fault('invalid', `${JSON.stringify(key.slice(0, 80))} is given twice`, { field: key.slice(0, 80) });
    query[key] = value;
  }
  return query;
}

function respond(route: Pick<Route<unknown, unknown>, 'status'>, reply: Reply): Response {
  if (reply instanceof Response) return reply;
  const headers: Record<string, string> = reply.etag === undefined ? {} : { etag: `"${reply.etag}"` };
  if (route.status === 204) return new Response(null, { status: 204, headers });
  return new Response(JSON.stringify(reply.body), { status: route.status, headers: { ...headers, 'content-type': 'application/json' } });
}

const honoPath = (path: string): string => path.replaceAll(/\{(\w+)\}/g, ':$1');

export function buildApp(surroundings: Surroundings): Hono<{ Bindings: Bindings }> {
  const { control, metrics } = surroundings;
  const app = new Hono<{ Bindings: Bindings }>();
  const bound = new Set<object>();

  const bind: Bind = (route, handler) => {
    bound.add(route);
    app.on(route.method, honoPath(route.path), async (context) => {
      const { raw } = context.req;
      checkVersion(raw);
      const peer = context.env.peer;
      const principal = await authenticate(control, shownBy(raw, peer));
      checkAccess(principal, route.access);
      const call = {
        principal,
        params: readParams(context.req.param()),
        query: parse(route.query, readQuery(raw.url), 'The query'),
        match: readMatch(raw, route.ifMatch),
        outgoing: context.env.outgoing,
        signal: raw.signal,
      };
      const body = parse(route.body, route.body === noBody ? undefined : await readBody(raw), 'The request');
      if (route.method !== 'GET')
        control.log.debug({ who: describePrincipal(principal), method: route.method, path: context.req.path }, 'A request');
      return respond(route, await handler({ ...call, body }));
    });
  };
  app.use(async (context, next) => {
    const done = metrics.startRequest();
    await next();
    done(context.req.method, context.res.status);
  });
  bindAll(bind, surroundings);
  for (const [operation, route] of Object.entries(routes)) {
    if (!bound.has(route)) throw new TypeError(`Broken invariant: no handler for ${operation}`);
  }

  app.get('/healthz', (context) => context.text('ok\n'));
  app.get('/openapi.json', (context) => context.json(openapi(control.version)));
  app.get('/metrics', async (context) => {
    checkVersion(context.req.raw);
    if (context.env.isLoopback !== true) {
      const principal = await authenticate(control, shownBy(context.req.raw, context.env.peer));
      checkAccess(principal, ['admin', 'operator', 'viewer']);
    }
    return new Response(await metrics.text(), { headers: { 'content-type': metrics.contentType } });
  });
  for (const [path, ofPath] of Map.groupBy(Object.values(routes), (route) => honoPath(route.path))) {
    const allow = ofPath.map(({ method }) => method).join(', ');
    app.all(path, (context) => {
      const refusal = new Refusal(405, 'unsupported', `${context.req.method} is not possible here`, { hint: `Possible: ${allow}` });
      const response = problemResponse(refusal);
      response.headers.set('allow', allow);
      return response;
    });
  }
  app.notFound(() => problemResponse(new Fault('not-found', 'Nothing is at this path', { hint: 'See /openapi.json' })));
  app.onError((error) => {
    if (!(error instanceof Fault) || error.code === 'internal' || error.code === 'corrupt')
      control.log.error({ error }, 'A request has failed');
    return problemResponse(error);
  });
  return app;
}
