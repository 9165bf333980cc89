// List and watch of the Kubernetes API, as its conventions describe them ("Efficient detection of changes"): a list in pages
// at one resource version, then a stream of changes from there. A stream ends by itself after some minutes. Most bring a
// bookmark every minute before that; servers bring none for what has not changed since they began. So one that says nothing
// for longer is ended like that here, too: whoever goes on with it asks first whether there still is a server.
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { Agent } from '#api/dispatcher.ts';
import { linesOf } from '#api/transport.ts';
import { Fault, isFault } from '#model/fault.ts';
import type { ApiAccess } from './kubeconfig.ts';

export interface Listing<T = unknown> {
  readonly items: readonly T[];
  readonly revision: number;
}
/** `bookmark`: nothing has changed, and nothing before `revision` is missing. */
export type Change =
  | { readonly type: 'put' | 'delete'; readonly item: unknown; readonly revision: number }
  | { readonly type: 'bookmark'; readonly revision: number };

const answerMs = 20_000;
const silenceMs = 150_000;
const watchSeconds = 300;
/** A way to the server that has gone without a word is noticed 10 seconds later. */
const keepAliveMs = 15_000;
const pageSize = 500;
/** How often a request is put again that the server is too busy for, and how long is waited before at most, whatever it says. */
const mostBusy = 5;
const mostPatienceMs = 10_000;

const page = v.object({
  metadata: v.object({ resourceVersion: v.string(), continue: v.optional(v.string(), '') }),
  items: v.nullish(v.array(v.unknown()), []),
});
const line = v.object({
  type: v.string(),
  object: v.looseObject({
    metadata: v.optional(v.looseObject({ resourceVersion: v.optional(v.string()) }), {}),
    code: v.optional(v.number()),
  }),
});
const status = v.object({ message: v.string() });

/** Resource versions are numbers in every server that stores in etcd, and are compared as such since Kubernetes 1.35. */
export function revisionOf(text: string): number {
  const revision = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isNaN(revision)) throw new Fault('unsupported', `The resource version ${JSON.stringify(text.slice(0, 40))} is no number`);
  return revision;
}

function parsed<T>(schema: v.GenericSchema<unknown, T>, text: string): T {
  try {
    return v.parse(schema, JSON.parse(text));
  } catch (cause) {
    throw new Fault('corrupt', 'The Kubernetes API has answered with something else', { cause });
  }
}

function refusal(code: number, text: string): Fault {
  const read = v.safeParse(v.pipe(v.string(), v.parseJson(), status), text);
  const message = `The Kubernetes API refuses: ${read.success ? read.output.message : `status ${code}`}`;
  if (code === 401) return new Fault('unauthenticated', message, { hint: 'Is the certificate or token of --kubernetes still good?' });
  if (code === 403) return new Fault('forbidden', message, { hint: 'Apply packaging/kubernetes/causeway.yaml' });
  if (code === 409) return new Fault('conflict', message);
  // The version is older than what the server keeps: list again.
  if (code === 410) return new Fault('compacted', message);
  return new Fault(code === 404 ? 'not-found' : 'unavailable', message);
}

interface Asking {
  readonly method: 'GET' | 'PATCH' | 'POST' | 'PUT' | 'DELETE';
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal: AbortSignal;
}

interface Since {
  readonly since: number;
  readonly signal: AbortSignal;
}

const watching = (since: number): Record<string, string> => ({
  watch: 'true',
  allowWatchBookmarks: 'true',
  resourceVersion: String(since),
  timeoutSeconds: String(watchSeconds),
});
const withQuery = (path: string, query: Readonly<Record<string, string>>): string =>
  `${path}${path.includes('?') ? '&' : '?'}${new URLSearchParams(query).toString()}`;
const metadataOnly = 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json';

export class KubernetesClient implements AsyncDisposable {
  readonly #access: ApiAccess;
  readonly #dispatcher: Agent;

  /** `mostSilenceMs`: after which a watch that says nothing ends. */
  constructor(access: ApiAccess, mostSilenceMs: number = silenceMs) {
    const { ca, certificate } = access;
    this.#access = access;
    this.#dispatcher = new Agent({
      connect: {
        keepAlive: true,
        keepAliveInitialDelay: keepAliveMs,
        ...(ca === undefined ? {} : { ca }),
        ...(certificate && { cert: certificate.certificate, key: certificate.key }),
      },
      headersTimeout: answerMs,
      bodyTimeout: mostSilenceMs,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispatcher.destroy();
  }

  /** Everything below `path` (`/api/v1/nodes`), which may have a query that chooses. Faults: `unavailable`, `unauthenticated`, `forbidden`, `not-found`, `corrupt`. */
  list(path: string, signal: AbortSignal): Promise<Listing> {
    return this.listRead(path, signal, (item) => item);
  }

  /** As list(), each item as `read` takes it; while it does the next page is on its way, and pages are not kept. */
  async listRead<T>(path: string, signal: AbortSignal, read: (item: unknown) => T): Promise<Listing<T>> {
    const ask = (next: Readonly<Record<string, string>>) => this.#get(withQuery(path, { limit: String(pageSize), ...next }), signal);
    const items: T[] = [];
    for (let asked = ask({}); ;) {
      const answer = parsed(page, await (await asked).text());
      const next = answer.metadata.continue;
      if (next !== '') {
        asked = ask({ continue: next });
        // Told of when it is its turn.
        asked.catch(() => undefined);
      }
      for (const item of answer.items ?? []) items.push(read(item));
      if (next === '') return { items, revision: revisionOf(answer.metadata.resourceVersion) };
    }
  }

  /** Changes since `since`, until the server ends the stream or says nothing for too long. Faults as `list`, and `compacted`: list again. */
  watch(path: string, since: number, signal: AbortSignal): AsyncGenerator<Change, void> {
    return this.#changes(withQuery(path, watching(since)), { signal });
  }

  /** As watch(), of one object, of which nothing but its metadata is told; since 0: it comes first, if there is one. */
  watchOne(path: string, name: string, { since, signal }: Since): AsyncGenerator<Change, void> {
    const query = { ...watching(since), fieldSelector: `metadata.name=${name}` };
    return this.#changes(withQuery(path, query), { signal, headers: { accept: metadataOnly } });
  }

  async *#changes(path: string, asking: Pick<Asking, 'headers' | 'signal'>): AsyncGenerator<Change, void> {
    const body = await this.#request(path, { method: 'GET', ...asking });
    try {
      for await (const text of linesOf(body)) if (text !== '') yield changeOf(text);
    } catch (error) {
      if (!isSilence(error)) throw unreachable(error);
    }
  }

  /**
   * For going on with a watch after its stream has ended: fault `compacted`, list again, when the server has not come as far
   * as `since`. It has been restored from a backup then, and would not tell of changes until it has. Faults as `list`.
   */
  async checkReached(path: string, since: number, signal: AbortSignal): Promise<void> {
    const body = await this.#get(`${path}?limit=1`, signal);
    const { metadata } = parsed(page, await body.text());
    if (revisionOf(metadata.resourceVersion) < since)
      throw new Fault('compacted', 'The Kubernetes API has gone back to an earlier version');
  }

  /** Whether it has started: a server that is just starting does not know yet what definitions bring. One that does not say has. */
  async isReady(signal: AbortSignal): Promise<boolean> {
    try {
      const body = await this.#get('/readyz', signal);
      await body.text();
      return true;
    } catch (error) {
      if (isFault(error, 'unavailable')) return false;
      if (isFault(error)) return true;
      throw error;
    }
  }

  /** One object. Faults as `list`. */
  async get(path: string): Promise<unknown> {
    const body = await this.#get(path, AbortSignal.timeout(answerMs));
    return parsed(v.unknown(), await body.text());
  }

  /** Makes an object below `path` and answers it as stored. Faults as `list`, `conflict` when there is one of that name. */
  create(path: string, object: object): Promise<unknown> {
    return this.#send('POST', path, object);
  }

  /** Replaces an object of the resource version that it names. Faults as `list`, `conflict` when it has another by now. */
  replace(path: string, object: object): Promise<unknown> {
    return this.#send('PUT', path, object);
  }

  /** Changes an object by a strategic merge patch and answers it. Faults as `list`. */
  async patch(path: string, change: object): Promise<unknown> {
    const headers = { 'content-type': 'application/strategic-merge-patch+json' };
    const body = await this.#request(path, {
      method: 'PATCH',
      headers,
      body: JSON.stringify(change),
      signal: AbortSignal.timeout(answerMs),
    });
    return parsed(v.unknown(), await body.text());
  }

  /** Removes the object if it is still at `revision`; absent already is success. Faults as `list`, `conflict`. */
  async remove(path: string, revision: number): Promise<void> {
    try {
      await this.#send('DELETE', path, { preconditions: { resourceVersion: String(revision) } });
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
    }
  }

  async #send(method: 'POST' | 'PUT' | 'DELETE', path: string, object: object): Promise<unknown> {
    const headers = { 'content-type': 'application/json' };
    const signal = AbortSignal.timeout(answerMs);
    const body = await this.#request(path, { method, headers, body: JSON.stringify(object), signal });
    return parsed(v.unknown(), await body.text());
  }

  async #get(path: string, signal: AbortSignal) {
    return await this.#request(path, { method: 'GET', signal });
  }

  /** A server that is too busy, or just starting, says when to come again; then nothing of the request has been done. */
  async #request(path: string, asking: Asking) {
    const { signal } = asking;
    try {
      for (let tries = 1; ; tries++) {
        const { statusCode, headers, body } = await this.#ask(path, asking);
        if (statusCode >= 200 && statusCode < 300) return body;
        const text = await body.text();
        const patienceMs = patienceOf(statusCode, headers['retry-after']);
        if (patienceMs === undefined || tries > mostBusy) throw refusal(statusCode, text);
        // Of all that were sent away at once not all come again at once.
        await delay(patienceMs * (1 + Math.random() / 2), undefined, { signal });
      }
    } catch (error) {
      throw unreachable(error);
    }
  }

  #ask(path: string, { method, headers: more = {}, body: sent, signal }: Asking) {
    const { server, token } = this.#access;
    const base = new URL(server);
    return this.#dispatcher.request({
      origin: base.origin,
      path: `${base.pathname.replace(/\/$/, '')}${path}`,
      method,
      headers: { accept: 'application/json', ...more, ...(token === undefined ? {} : { authorization: `Bearer ${token()}` }) },
      ...(sent === undefined ? {} : { body: sent }),
      signal,
    });
  }
}

/** Undefined: to come again is of no use, or not asked for. */
function patienceOf(statusCode: number, retryAfter: string | string[] | undefined): number | undefined {
  if ((statusCode !== 429 && statusCode !== 503) || typeof retryAfter !== 'string' || !/^\d{1,6}$/.test(retryAfter)) return undefined;
  return Math.min(Number(retryAfter) * 1000, mostPatienceMs);
}

const isSilence = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'UND_ERR_BODY_TIMEOUT';

const unreachable = (error: unknown): unknown =>
  isFault(error) || !(error instanceof Error)
    ? error
    : new Fault('unavailable', `The Kubernetes API cannot be reached: ${error.message}`, { cause: error });

function changeOf(text: string): Change {
  const { type, object } = parsed(line, text);
  if (type === 'ERROR') throw refusal(object.code ?? 500, JSON.stringify(object));
  const revision = revisionOf(object.metadata.resourceVersion ?? '');
  if (type === 'BOOKMARK') return { type: 'bookmark', revision };
  return { type: type === 'DELETED' ? 'delete' : 'put', item: object, revision };
}
