// A watch over HTTP: NDJSON without end. Written straight to Node's response where there is one, because a web stream per
// connection costs more than everything else together with a thousand of them; tests read a web stream.
import type { ServerResponse } from 'node:http';
import { Fault } from '#model/fault.ts';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import type { WatchQuery } from '#api/routes.ts';
import type { Principal } from './access.ts';
import type { Call, Surroundings } from './app.ts';
import type { Interest, Watcher } from './watcher.ts';

const contentType = 'application/x-ndjson';
/** A reader that takes nothing for so long is gone. */
const stuckMs = 60_000;

function interestOf(principal: Principal, asked: string | undefined): Interest {
  if (principal.type === 'host') {
    if (asked === undefined || asked === principal.host) return { principal, host: principal.host };
    throw new Fault('forbidden', `Host ${principal.host} cannot watch as host ${asked}`, { field: 'host' });
  }
  if (asked === undefined) return { principal };
  if (principal.type === 'role') return { principal, host: asked };
  throw new Fault('forbidden', 'A tenant cannot watch as a host', { field: 'host' });
}

/** Faults: `forbidden` for a host that watches as another. */
export async function answerWatch({ control, hub }: Surroundings, call: Call<WatchQuery, unknown>): Promise<Response> {
  const interest = interestOf(call.principal, call.query.host);
  const { since, epoch } = call.query;
  // Another controller may have been ahead of this one.
  if (since !== undefined) await control.mirror.reached(since, 2000);
  const watcher = hub.watch(interest, since === undefined ? undefined : { revision: since, ...(epoch === undefined ? {} : { epoch }) });
  if (call.outgoing === undefined) return new Response(toStream(watcher, call.signal), { headers: { 'content-type': contentType } });
  send(watcher, call.outgoing);
  return RESPONSE_ALREADY_SENT;
}

function send(watcher: Watcher, outgoing: ServerResponse): void {
  let isBlocked = false;
  let stuck: NodeJS.Timeout | undefined;
  const pump = (): void => {
    if (watcher.isClosed) {
      outgoing.destroy();
      return;
    }
    while (!isBlocked) {
      const piece = watcher.take();
      if (piece === undefined) return;
      isBlocked = !outgoing.write(piece);
    }
    stuck ??= setTimeout(() => watcher.close(), stuckMs);
  };
  outgoing.on('drain', () => {
    isBlocked = false;
    clearTimeout(stuck);
    stuck = undefined;
    pump();
  });
  outgoing.on('close', () => {
    clearTimeout(stuck);
    watcher.close();
  });
  watcher.wake = pump;
  outgoing.writeHead(200, { 'content-type': contentType, 'cache-control': 'no-store' });
  pump();
}

function toStream(watcher: Watcher, signal: AbortSignal): ReadableStream<Uint8Array> {
  signal.addEventListener('abort', () => watcher.close());
  return new ReadableStream<Uint8Array>({
    start(controller) {
      watcher.wake = (): void => {
        for (let piece = watcher.take(); piece !== undefined; piece = watcher.take()) controller.enqueue(piece);
        if (!watcher.isClosed) return;
        watcher.wake = (): void => undefined;
        controller.close();
      };
      watcher.wake();
    },
    cancel: () => {
      watcher.wake = (): void => undefined;
      watcher.close();
    },
  });
}
