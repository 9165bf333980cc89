// A controller put together from a store: what tests, the lab and src/bin start. Several may run on one store.
import { randomInt } from 'node:crypto';
import type { Hono } from 'hono';
import type { Store } from '#store/store.ts';
import { type Bindings, buildApp } from './app.ts';
import { openAuthority } from './ca.ts';
import { Contents } from './contents.ts';
import { type Control, serializer } from './control.ts';
import { beginEpoch } from './epochs.ts';
import { fillContents, Hub } from './hub.ts';
import type { Log } from './log.ts';
import { createMetrics } from './metrics.ts';
import { Mirror } from './mirror.ts';
import { Speakers } from './speakers.ts';
import { sweepAlways } from './sweep.ts';
import { ensureDefaultTenant } from './tenants.ts';

export interface ControllerOptions {
  /** Stays the caller's to close. */
  readonly store: Store;
  readonly log: Log;
  readonly version: string;
  readonly now?: () => Date;
}

export interface Controller extends AsyncDisposable {
  readonly control: Control;
  readonly hub: Hub;
  readonly app: Hono<{ Bindings: Bindings }>;
}

/** Hosts claim blocks again within seconds after they have reached a controller. */
const unsureMs = 60_000;

const idLength = 12;
const digits = '0123456789abcdefghijklmnopqrstuvwxyz';
export const newId = (): string => Array.from({ length: idLength }, () => digits[randomInt(digits.length)]).join('');

/** Makes what an empty store lacks: the certificate authority and the tenant `default`. Fault `unavailable`. */
export async function openController({ store, log, version, now = (): Date => new Date() }: ControllerOptions): Promise<Controller> {
  await using undo = new AsyncDisposableStack();
  const authority = await openAuthority(store, now());
  const mayBeRestored = await beginEpoch(store, newId());
  const mirror = undo.use(await Mirror.open(store, log));
  const contents = new Contents();
  fillContents(mirror, contents);
  const hub = undo.use(new Hub({ mirror, contents, now }));
  const speakers = new Speakers(now());
  const control: Control = {
    store,
    mirror,
    contents,
    authority,
    speakers,
    cloud: {},
    log,
    version,
    now,
    unsureUntil: mayBeRestored ? now().getTime() + unsureMs : 0,
    newId,
    serially: serializer(),
  };
  await ensureDefaultTenant(control);
  const stop = new AbortController();
  const sweeping = sweepAlways(control, stop.signal);
  undo.defer(async () => {
    stop.abort();
    await sweeping;
  });
  const app = buildApp({ control, hub, metrics: createMetrics({ hub, mirror }) });
  const stack = undo.move();
  return { control, hub, app, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}
