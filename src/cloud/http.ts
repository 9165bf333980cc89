// The one way to speak with a cloud's services: JSON over HTTP with time limits, size limits and retries. What OpenStack services
// have in common is written down as guidelines (specs.openstack.org/openstack/api-sig): errors are JSON with a `message`
// somewhere in their only member, every answer names its request (X-Openstack-Request-Id), and a busy service says how long to
// wait (Retry-After, RFC 9110 section 10.2.3).
import { setMaxListeners } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { Agent, type Dispatcher } from '#api/dispatcher.ts';
import { parse, type Schema } from '#api/parse.ts';
import { Fault, isFault } from '#model/fault.ts';
import { faultOfStatus } from './faults.ts';

/** Of undici: options for sockets, or a function that makes them. */
export type Connector = NonNullable<ConstructorParameters<typeof Agent>[0]>['connect'];

export interface HttpOptions {
  /** PEM; absent: the system's authorities. */
  readonly ca?: string | undefined;
  /** `verify: false` of clouds.yaml: any certificate will do. */
  readonly trustsAnybody?: boolean;
  /** Of one try. */
  readonly timeoutMs?: number;
  /** Tries beyond the first. */
  readonly retries?: number;
  /** Of one answer. */
  readonly maxBytes?: number;
  /** Longest wait that a service may ask for. */
  readonly patienceMs?: number;
  readonly wait?: (ms: number) => Promise<void>;
  /** 0 to 1, for jitter. */
  readonly random?: () => number;
  /** Ends what is outstanding, and nothing is asked any more: Fault `unavailable`. For who ends, and may have asked what does not answer. */
  readonly signal?: AbortSignal;
  /** How to connect, where that is not as usual. */
  readonly connect?: Connector;
}

export interface Question {
  /** Whom it is for, in messages: `Neutron`. */
  readonly service: string;
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE' | 'HEAD';
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  /** Asking twice does the same as once. GET always is. */
  readonly isRepeatable?: boolean;
}

export interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** JSON; undefined for an empty answer. */
  readonly body: unknown;
}

/** The service has not taken the request up, whatever it was: overloaded, or not there at all. */
const notTaken = new Set([429]);
/** It may have; only what can be repeated is. */
const passing = new Set([502, 503, 504]);
/**
 * Its database has undone the request: a record has changed since it was read, a lock was not to be had, or a deadlock (MariaDB's errors 1020,
 * 1205 and 1213). Services repeat what they know of these themselves; the first one they do not (seen with Octavia).
 */
const isUndone = ({ status, body }: Reply): boolean =>
  status === 500 && /OperationalError\) \((1020|1205|1213),/.test(JSON.stringify(body));
const neverSent = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'UND_ERR_CONNECT_TIMEOUT']);
const coded = v.object({ code: v.string() });

export class CloudHttp implements AsyncDisposable {
  readonly #options: HttpOptions;
  readonly #agent: Agent;
  /** Tries so far, for figures. */
  calls = 0;

  constructor(options: HttpOptions = {}) {
    this.#options = options;
    const timeout = options.timeoutMs ?? 60_000;
    const { signal } = options;
    // Each request and connection listens, and there may be many.
    if (signal !== undefined) setMaxListeners(0, signal);
    const tls = {
      ...(options.ca === undefined ? {} : { ca: options.ca }),
      ...(options.trustsAnybody === true && { rejectUnauthorized: false }),
    };
    this.#agent = new Agent({
      connect: options.connect ?? { ...tls, ...(signal && { signal }), timeout: Math.min(timeout, 10_000) },
      headersTimeout: timeout,
      bodyTimeout: timeout,
      connections: 8,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }

  /**
   * Faults by status (faults.ts) with the service's own words and the request's id; `unavailable`, `timeout` when there is no
   * answer; `corrupt` for anything that is no JSON or too large.
   */
  async ask(question: Question): Promise<Reply> {
    const { retries = 4 } = this.#options;
    for (let round = 0; ; round++) {
      const pause = await this.#try(question, round >= retries);
      if ('reply' in pause) return pause.reply;
      const { signal, wait = (ms) => delay(ms, undefined, { ...(signal && { signal }) }).catch(() => undefined) } = this.#options;
      await wait(pause.waitMs ?? this.#backoff(round));
    }
  }

  /** Half to all of 0.25 s, 0.5 s, 1 s and so on. */
  #backoff(round: number): number {
    const { random = Math.random } = this.#options;
    return 250 * 2 ** round * (0.5 + random() / 2);
  }

  async #try(question: Question, isLast: boolean): Promise<{ reply: Reply } | { waitMs: number | undefined }> {
    const repeatable = question.method === 'GET' || question.method === 'HEAD' || question.isRepeatable === true;
    try {
      const reply = await this.#once(question);
      const again = notTaken.has(reply.status) || (repeatable && (passing.has(reply.status) || isUndone(reply)));
      const waitMs = again && !isLast ? this.#pause(reply, question) : undefined;
      if (again && !isLast) return { waitMs };
      if (reply.status >= 400) throw faultOfStatus(question, reply);
      return { reply };
    } catch (error) {
      if (isLast || !isFault(error) || !isPassing(error, repeatable)) throw error;
      return { waitMs: undefined };
    }
  }

  /** Retry-After in milliseconds. Fault `unavailable` when that is longer than anybody would wait. */
  #pause({ headers, status }: Reply, { service }: Question): number | undefined {
    const said = headers['retry-after'];
    if (said === undefined) return undefined;
    const ms = /^\d+$/.test(said) ? Number(said) * 1000 : Date.parse(said) - Date.now();
    if (Number.isNaN(ms)) return undefined;
    const { patienceMs = 60_000 } = this.#options;
    if (ms <= patienceMs) return Math.max(ms, 0);
    throw new Fault('unavailable', `${service} is overloaded (status ${status}) and asks to come again in ${Math.round(ms / 1000)} s`, {
      hint: 'Repeat the command then',
    });
  }

  async #once(question: Question): Promise<Reply> {
    const { service, method, url, body } = question;
    const { origin, pathname, search } = new URL(url);
    const { signal } = this.#options;
    this.#checkStopped(service);
    this.calls++;
    try {
      const answer = await this.#agent.request({
        origin,
        path: `${pathname}${search}`,
        method,
        ...(signal && { signal }),
        headers: {
          accept: 'application/json',
          'user-agent': 'causeway',
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...question.headers,
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const headers = flat(answer.headers);
      const text = await this.#read(answer.body, service);
      const status = answer.statusCode;
      return { status, headers, body: jsonOf(text, { status, headers }, question) };
    } catch (error) {
      this.#checkStopped(service);
      throw isFault(error) ? error : transportFault(error, question);
    }
  }

  /** Its fault has no cause, so nothing is tried again. */
  #checkStopped(service: string): void {
    if (this.#options.signal?.aborted === true) throw new Fault('unavailable', `${service} is not asked any more, as this process ends`);
  }

  async #read(body: Dispatcher.ResponseData['body'], service: string): Promise<string> {
    const { maxBytes = 8 << 20 } = this.#options;
    const pieces: Buffer[] = [];
    let size = 0;
    for await (const piece of body) {
      const bytes = Buffer.from(piece);
      size += bytes.length;
      // Leaving the loop ends the connection.
      if (size > maxBytes) throw new Fault('corrupt', `An answer of ${service} is larger than ${maxBytes >> 20} MiB`);
      pieces.push(bytes);
    }
    return Buffer.concat(pieces).toString('utf8');
  }
}

const isPassing = (fault: Fault, isRepeatable: boolean): boolean => {
  const read = v.safeParse(coded, fault.cause);
  if (fault.code === 'unavailable' && read.success && neverSent.has(read.output.code)) return true;
  return isRepeatable && fault.cause !== undefined && (fault.code === 'unavailable' || fault.code === 'timeout');
};

function flat(headers: Readonly<Record<string, string | string[] | undefined>>): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : (value ?? '')]),
  );
}

/** A proxy in front of a service, or a wrong address, answers in HTML. For an error its status says enough. */
function jsonOf(text: string, { status, headers }: Omit<Reply, 'body'>, { service, url }: Question): unknown {
  if (text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch (cause) {
    if (status >= 400) return undefined;
    const type = headers['content-type'] ?? 'something without a type';
    throw new Fault('corrupt', `${service} at ${new URL(url).origin} has answered with ${type}, not with JSON`, {
      hint: 'Is this the address of an OpenStack service? A dashboard or a proxy answers like that',
      cause,
    });
  }
}

const timeouts = new Set(['UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT', 'UND_ERR_CONNECT_TIMEOUT']);

function transportFault(error: unknown, { service, url }: Question): Fault {
  const read = v.safeParse(coded, error);
  const code = read.success ? read.output.code : '';
  const text = error instanceof Error ? error.message : String(error);
  const { origin } = new URL(url);
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID' || /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_)/.test(code)) {
    return new Fault('unauthenticated', `The certificate of ${service} at ${origin} is not to be trusted: ${text}`, {
      hint: "Name the cloud's own authority: cacert in clouds.yaml, or OS_CACERT",
      cause: error,
    });
  }
  if (timeouts.has(code)) {
    return new Fault('timeout', `${service} at ${origin} has not answered in time`, {
      hint: 'Repeat the command, which takes up what was done; if it stays, ask the operator of the cloud whether the service is overloaded',
      cause: error,
    });
  }
  return new Fault('unavailable', `${service} at ${origin} cannot be reached: ${text || code}`, {
    hint: 'Check the address and the way there',
    cause: error,
  });
}

/** Fault `corrupt` that names what is missing or wrong. Fields that we do not know are nobody's business. */
export function readAnswer<T>(schema: Schema<T>, body: unknown, service: string): T {
  try {
    return parse(schema, body, `The answer of ${service}`);
  } catch (error) {
    if (!isFault(error, 'invalid')) throw error;
    throw new Fault('corrupt', error.message.startsWith('The answer') ? error.message : `The answer of ${service}: ${error.message}`, {
      field: error.field,
      hint: `This is not a ${service} that Causeway knows, or something in between changes its answers`,
      cause: error,
    });
  }
}
