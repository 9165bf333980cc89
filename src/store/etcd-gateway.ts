// etcd's JSON gateway (the gRPC API as POST requests, watches as one JSON document per line) on undici: several members,
// TLS, time limits, and answers turned into Faults. 64-bit numbers are strings and zero values are left out, as protobuf's
// JSON mapping has it.
import { Readable } from 'node:stream';
import { Agent, request, type Dispatcher } from 'undici';
import { Fault } from '#model/fault.ts';

export interface GatewayOptions {
  readonly endpoints: readonly string[];
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
  /** For one member's answer; all members together get twice that. */
  readonly timeoutMs?: number;
}

export type Answer = Readonly<Record<string, unknown>>;

/** gRPC status codes that a caller decides by. */
const grpc = { invalidArgument: 3, resourceExhausted: 8, outOfRange: 11, unauthenticated: 16, permissionDenied: 7 } as const;

const maxLine = 64 * 1_048_576;

export const isAnswer = (value: unknown): value is Answer => typeof value === 'object' && value !== null && !Array.isArray(value);

export class Gateway implements AsyncDisposable {
  readonly #endpoints: readonly string[];
  readonly #timeoutMs: number;
  readonly #agent: Agent;
  /** The member that answered last. */
  #preferred = 0;
  /** Aborts when the next member is preferred. */
  #turn = new AbortController();

  constructor({ endpoints, tls = {}, timeoutMs = 5000 }: GatewayOptions) {
    this.#endpoints = endpoints.map(checkEndpoint);
    this.#timeoutMs = timeoutMs;
    // A member that vanished without a word is noticed by TCP keep-alive: 5 s of silence, then ten probes a second apart.
    const connect = { ...tls, timeout: Math.min(timeoutMs, 2000), keepAlive: true, keepAliveInitialDelay: 5000 };
    this.#agent = new Agent({ connect, headersTimeout: timeoutMs, bodyTimeout: timeoutMs });
  }

  /**
   * One call, answered by the first member that can. With `once` a request that a member may have acted on is not repeated
   * elsewhere: Fault `timeout`, the outcome is unknown. Faults: `unavailable` when no member could be asked.
   */
  async call(path: string, body: Answer, { once = false }: { once?: boolean } = {}): Promise<Answer> {
    const failures: unknown[] = [];
    const deadline = performance.now() + this.#timeoutMs * 2;
    for (let attempt = 0; attempt < this.#endpoints.length && performance.now() < deadline; attempt += 1) {
      const endpoint = this.endpoint;
      let sent = false;
      try {
        const response = await this.#post(endpoint, path, body, AbortSignal.timeout(this.#timeoutMs), () => (sent = true));
        const text = await response.body.text();
        if (response.statusCode === 200) return parse(text);
        throw refusal(endpoint, text);
      } catch (error) {
        if (error instanceof Fault && error.code !== 'unavailable') throw error;
        this.giveUpOn(endpoint);
        if (once && sent && !isUntouched(error)) {
          throw new Fault('timeout', `No answer from etcd at ${endpoint}: it is not known whether the change was made`, {
            hint: 'Read again before repeating it',
            cause: error,
          });
        }
        failures.push(error);
      }
    }
    const cause = failures.at(-1);
    if (cause instanceof Fault) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Fault('unavailable', `No etcd member can be reached at ${this.#endpoints.join(', ')}: ${why}`, {
      hint: 'Look whether etcd runs and has a leader: etcdctl endpoint status --cluster',
      cause,
    });
  }

  /**
   * The answers of a streaming call by the member that is preferred, until it ends, `signal` aborts, or a call has given up on that
   * member: one that hangs (its disk, its process) ends no stream and sends nothing. Throws whatever breaks it.
   */
  async *stream(path: string, body: Answer, signal: AbortSignal): AsyncGenerator<Answer> {
    const { endpoint } = this;
    const response = await this.#post(endpoint, path, body, AbortSignal.any([signal, this.#turn.signal]), () => true, 0);
    if (response.statusCode !== 200) throw refusal(endpoint, await response.body.text());
    for await (const line of lines(response.body)) {
      const { result, error } = parse(line);
      if (error !== undefined) throw refusal(endpoint, JSON.stringify(error));
      if (isAnswer(result)) yield result;
    }
  }

  get endpoint(): string {
    return this.#endpoints[this.#preferred % this.#endpoints.length] ?? '';
  }

  /** The next call goes to the next member, and streams of this one end. */
  giveUpOn(endpoint: string): void {
    if (this.endpoint !== endpoint) return;
    this.#preferred += 1;
    this.#turn.abort();
    this.#turn = new AbortController();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }

  async #post(
    endpoint: string,
    path: string,
    body: Answer,
    signal: AbortSignal,
    onSent: () => void,
    bodyTimeout: number = this.#timeoutMs,
  ): Promise<Dispatcher.ResponseData> {
    const bytes = Buffer.from(JSON.stringify(body));
    // The body is only asked for once there is a connection: before that, nothing can have happened.
    async function* send(): AsyncGenerator<Buffer> {
      onSent();
      yield bytes;
    }
    return request(`${endpoint}${path}`, {
      method: 'POST',
      // Without a leader a member must refuse instead of waiting for one or serving a watch that stands still.
      headers: { 'content-type': 'application/json', 'content-length': String(bytes.length), 'grpc-metadata-hasleader': 'true' },
      body: Readable.from(send()),
      dispatcher: this.#agent,
      bodyTimeout,
      signal,
    });
  }
}

function checkEndpoint(text: string): string {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol) || url.pathname !== '/' || url.username !== '') {
    throw new Fault('invalid', `Not an etcd endpoint: ${text.slice(0, 80)}`, {
      field: 'store',
      hint: 'Write http://host:2379 or https://host:2379',
    });
  }
  return url.origin;
}

function parse(text: string): Answer {
  try {
    const value: unknown = JSON.parse(text);
    if (isAnswer(value)) return value;
  } catch (error) {
    throw new Fault('unavailable', `Not an answer of etcd: ${text.slice(0, 80)}`, { cause: error });
  }
  throw new Fault('unavailable', `Not an answer of etcd: ${text.slice(0, 80)}`);
}

/** What etcd said, as a Fault; its gRPC code is in `errno`. */
function refusal(endpoint: string, text: string): Fault {
  let said: Answer = {};
  try {
    said = parse(text);
  } catch {
    // A proxy's page, most likely: shown as it is.
  }
  const reason = [said['message'], said['error'], text.slice(0, 200)].find((part) => typeof part === 'string');
  const message = `etcd at ${endpoint} refuses: ${reason}`;
  const code = Number(said['code'] ?? said['grpc_code'] ?? 0);
  const detail = { errno: `GRPC_${code}` };
  if (code === grpc.outOfRange && message.includes('compacted')) return new Fault('compacted', message, detail);
  if (code === grpc.unauthenticated || code === grpc.permissionDenied) return new Fault('forbidden', message, detail);
  if (code === grpc.invalidArgument || code === grpc.outOfRange) return new Fault('internal', message, detail);
  const hint =
    code === grpc.resourceExhausted
      ? 'Free space: etcdctl compact, etcdctl defrag, etcdctl alarm disarm'
      : 'Look whether etcd has a leader: etcdctl endpoint status --cluster';
  return new Fault('unavailable', message, { ...detail, hint });
}

/** Whether the member refused before proposing the change to the others, so that certainly nothing happened. */
const isUntouched = (error: unknown): boolean =>
  error instanceof Fault && (error.errno === `GRPC_${grpc.resourceExhausted}` || error.message.endsWith('etcdserver: no leader'));

async function* lines(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  let parts: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      parts.push(chunk.subarray(start, end));
      yield Buffer.concat(parts).toString('utf8');
      [parts, length, start] = [[], 0, end + 1];
    }
    parts.push(chunk.subarray(start));
    length += chunk.length - start;
    if (length > maxLine) throw new Fault('unavailable', 'A line of etcd has no end');
  }
}
