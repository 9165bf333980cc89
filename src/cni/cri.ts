// What a Kubernetes runtime says of its sandboxes: one unary call of the Container Runtime Interface, gRPC over HTTP/2 on the runtime's
// own socket (kubernetes/cri-api, api.proto: RuntimeService.ListPodSandbox; grpc/doc/PROTOCOL-HTTP2.md). Of the answer only ids are read.
import { connect as connectHttp2, constants, type IncomingHttpHeaders } from 'node:http2';
import { connect } from 'node:net';
import { Fault } from '#model/fault.ts';

const versions = ['runtime.v1', 'runtime.v1alpha2'] as const;
const patienceMs = 10_000;
const mostBytes = 16 * 1024 * 1024;
const unimplemented = 12;

const malformed = (what: string): Fault => new Fault('unsupported', `The runtime answers with a message that ${what}`);

/** A base-128 number at `at`, and where the next thing begins (protobuf encoding, "Base 128 Varints"). */
function varint(bytes: Buffer, at: number): { readonly value: number; readonly next: number } {
  let value = 0;
  for (let index = 0; index < 10; index++) {
    const byte = bytes[at + index];
    if (byte === undefined) throw malformed('ends too early');
    value += (byte & 0x7f) * 2 ** (7 * index);
    if (byte < 0x80) return { value, next: at + index + 1 };
  }
  throw malformed('has a number without an end');
}

/** Where a field's value begins and ends, after its tag ("Message Structure"). */
function extent(bytes: Buffer, at: number, type: number): { readonly start: number; readonly end: number } {
  if (type === 0) return { start: at, end: varint(bytes, at).next };
  if (type === 1) return { start: at, end: at + 8 };
  if (type === 5) return { start: at, end: at + 4 };
  if (type !== 2) throw malformed(`has a field of type ${type}`);
  const { value, next } = varint(bytes, at);
  return { start: next, end: next + value };
}

/** Every field of length-delimited type with that number. Others are passed over. */
function fieldsOf(bytes: Buffer, wanted: number): Buffer[] {
  const found: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    const { value: tag, next } = varint(bytes, at);
    const { start, end } = extent(bytes, next, tag & 7);
    if (end > bytes.length) throw malformed('ends too early');
    if (tag === wanted * 8 + 2) found.push(bytes.subarray(start, end));
    at = end;
  }
  return found;
}

/** Ids of a ListPodSandboxResponse: `repeated PodSandbox items = 1`, `string id = 1`. Fault `unsupported` when it is none. */
export function sandboxIds(message: Buffer): Set<string> {
  return new Set(
    fieldsOf(message, 1).map((item) => {
      const id = fieldsOf(item, 1).at(-1)?.toString('utf8') ?? '';
      if (id === '') throw malformed('has a sandbox without an id');
      return id;
    }),
  );
}

/** The one message of an answer: a byte that says whether it is compressed, four of its length, and it. */
function messageOf(body: Buffer): Buffer {
  if (body.length < 5 || body[0] !== 0 || body.readUInt32BE(1) !== body.length - 5) throw malformed('is not one whole message');
  return body.subarray(5);
}

interface Answer {
  readonly status: number;
  readonly message: string;
  readonly body: Buffer;
}

/** Fault `unavailable`, `timeout`. */
function call(socket: string, path: string): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const away = (cause: unknown): void =>
    reject(new Fault('unavailable', `Cannot ask the runtime at ${socket}: ${cause instanceof Error ? cause.message : ''}`, { cause }));
  const session = connectHttp2('http://localhost', { createConnection: () => connect(socket) });
  const timer = setTimeout(() => reject(new Fault('timeout', `The runtime at ${socket} does not answer`)), patienceMs);
  session.on('error', away);
  const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' });
  const chunks: Buffer[] = [];
  let said: IncomingHttpHeaders = {};
  let length = 0;
  const hear = (headers: IncomingHttpHeaders): void => {
    said = { ...said, ...headers };
  };
  stream.on('response', hear);
  stream.on('trailers', hear);
  stream.on('data', (chunk: Buffer) => {
    length += chunk.length;
    if (length > mostBytes) reject(malformed(`is longer than ${mostBytes} bytes`));
    else chunks.push(chunk);
  });
  stream.on('error', away);
  stream.on('close', () => {
    const status = said['grpc-status'];
    if (status === undefined || stream.rstCode !== constants.NGHTTP2_NO_ERROR) away(new Error('it broke off'));
    else resolve({ status: Number(status), message: String(said['grpc-message'] ?? ''), body: Buffer.concat(chunks) });
  });
  // An empty ListPodSandboxRequest: no filter.
  stream.end(Buffer.alloc(5));
  return promise.finally(() => {
    clearTimeout(timer);
    session.destroy();
  });
}

/**
 * Ids of all sandboxes that the runtime at this socket has, running or not. Undefined: whoever listens there is no runtime of
 * Kubernetes. Faults: `unavailable`, `timeout`, `unsupported` (an answer that cannot be understood).
 */
export async function listSandboxes(socket: string): Promise<ReadonlySet<string> | undefined> {
  for (const version of versions) {
    const { status, message, body } = await call(socket, `/${version}.RuntimeService/ListPodSandbox`);
    if (status === 0) return sandboxIds(messageOf(body));
    if (status !== unimplemented) throw new Fault('unavailable', `The runtime at ${socket} refuses: ${message} (gRPC status ${status})`);
  }
  return undefined;
}
