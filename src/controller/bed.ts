// For tests: a controller without a socket, and whoever asks it.
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import * as v from 'valibot';
import { assertNever, type FaultCode } from '#model/fault.ts';
import type { Host } from '#model/resources.ts';
import { MemoryStore } from '#store/memory.ts';
import type { Operation, Store } from '#store/store.ts';
import type { WatchLine } from '#api/answers.ts';
import { parseWatchLine } from '#api/answers.ts';
import { makeIdentity } from '#api/identity.ts';
import { linesOf } from '#api/transport.ts';
import type { Peer } from './authentication.ts';
import { type Controller, openController } from './controller.ts';
import { join } from './join.ts';
import { silentLog } from './log.ts';
import { createToken } from './tokens.ts';

/** How somebody shows who they are. */
export interface Asker {
  readonly peer?: Peer;
  readonly token?: string;
  /** Of the machine that asks. */
  readonly boot?: string;
}

export interface Answer {
  readonly status: number;
  /** The Fault's code; '' for success. */
  readonly code: FaultCode | '';
  readonly field: string | undefined;
  readonly etag: string | undefined;
  readonly body: unknown;
}

export interface Ask {
  readonly body?: unknown;
  /** As sent, instead of `body` in JSON. */
  readonly raw?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface HostAsker extends Asker {
  readonly peer: Peer;
  readonly host: Host;
  readonly certificate: string;
  readonly key: string;
}

const problemBody = v.object({ code: v.string(), field: v.optional(v.string()), detail: v.pipe(v.string(), v.minLength(5)) });

export class Bed implements AsyncDisposable {
  readonly controller: Controller;
  readonly store: Store;

  constructor(controller: Controller, store: Store) {
    this.controller = controller;
    this.store = store;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.controller[Symbol.asyncDispose]();
  }

  async ask(asker: Asker, line: string, { body, raw, headers = {} }: Ask = {}): Promise<Answer> {
    const [method = '', path = ''] = line.split(' ');
    const text = raw ?? (body === undefined ? undefined : JSON.stringify(body));
    const request = new Request(`https://controller${path}`, {
      method,
      headers: {
        ...(asker.token === undefined ? {} : { authorization: `Bearer ${asker.token}` }),
        ...(asker.boot === undefined ? {} : { 'causeway-boot': asker.boot }),
        ...(text === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(text === undefined ? {} : { body: text }),
    });
    const response = await this.controller.app.fetch(request, asker.peer === undefined ? {} : { peer: asker.peer });
    const answer = await response.text();
    const parsed: unknown = answer.startsWith('{') ? JSON.parse(answer) : undefined;
    const isProblem = response.headers.get('content-type') === 'application/problem+json';
    const problem = isProblem ? v.parse(problemBody, parsed) : { code: '', field: undefined };
    return {
      status: response.status,
      code: v.parse(
        v.custom<FaultCode | ''>((code) => typeof code === 'string'),
        problem.code,
      ),
      field: problem.field,
      etag: response.headers.get('etag') ?? undefined,
      body: parsed,
    };
  }

  /** As ask, of something that must succeed; the body read by `schema`. */
  async must<T>(asker: Asker, line: string, schema: v.GenericSchema<unknown, T>, ask: Ask = {}): Promise<T> {
    const answer = await this.ask(asker, line, ask);
    assert.equal(answer.code, '', `${line}: ${JSON.stringify(answer.body)}`);
    return v.parse(schema, answer.body);
  }

  async role(role: string): Promise<Asker> {
    return { token: (await createToken(this.controller.control, { type: 'api', role })).token };
  }

  async host(name: string): Promise<HostAsker> {
    const { control } = this.controller;
    const { token } = await createToken(control, { type: 'join' });
    const { key, csr } = await makeIdentity(name);
    const { certificate, host } = await join(control, { token, csr, host: name, version: '0.0.0' });
    return { peer: peerOf(certificate), host, certificate, key };
  }

  /** Waits until the mirror has seen what is in the store now. */
  async settled(): Promise<void> {
    const { revision } = await this.store.list('guards/', { limit: 1 });
    assert.ok(await this.controller.control.mirror.reached(revision));
    await new Promise((resolve) => void setImmediate(resolve));
  }

  /** Follows a watch; the lines so far, and a wait for one that fits. */
  async watch(asker: Asker, query = ''): Promise<Watching> {
    const abort = new AbortController();
    const request = new Request(`https://controller/v1/watch${query}`, {
      signal: abort.signal,
      headers: {
        ...(asker.token === undefined ? {} : { authorization: `Bearer ${asker.token}` }),
        ...(asker.boot === undefined ? {} : { 'causeway-boot': asker.boot }),
      },
    });
    const response = await this.controller.app.fetch(request, asker.peer === undefined ? {} : { peer: asker.peer });
    assert.equal(response.status, 200, await (response.status === 200 ? '' : response.text()));
    return new Watching(response, abort);
  }
}

export class Watching implements AsyncDisposable {
  readonly lines: WatchLine[] = [];
  readonly ended: Promise<void>;
  readonly #abort: AbortController;
  #seen: () => void = () => undefined;

  constructor(response: Response, abort: AbortController) {
    this.#abort = abort;
    this.ended = this.#read(response);
  }

  async #read(response: Response): Promise<void> {
    for await (const text of linesOf(response.body ?? nothing())) {
      const line = parseWatchLine(text);
      if (line !== undefined) this.lines.push(line);
      this.#seen();
    }
  }

  async until(fits: (line: WatchLine) => boolean): Promise<void> {
    while (!this.lines.some(fits)) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      this.#seen = resolve;
      const timer = setTimeout(() => reject(new Error(`Not seen in ${JSON.stringify(this.lines.map(brief))}`)), 3000);
      await promise.finally(() => clearTimeout(timer));
    }
  }

  /** `put networks red`, `delete endpoints …`, `synced`. */
  get said(): string[] {
    return this.lines.map(brief);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort();
    await this.ended;
  }
}

export const brief = (line: WatchLine): string => {
  switch (line.type) {
    case 'put':
      return `put ${line.kind} ${line.item.name}`;
    case 'delete':
      return `delete ${line.kind} ${line.id}`;
    case 'synced':
    case 'bookmark':
      return line.type;
    default:
      return assertNever(line);
  }
};

/** What TLS would say of a certificate that leads to the controller's authority. */
export function peerOf(certificate: string): Peer {
  const read = new X509Certificate(certificate);
  return {
    subject: read.subject.replace('CN=', ''),
    uris: (read.subjectAltName ?? '').split(', ').map((name) => name.replace('URI:', '')),
    serial: read.serialNumber,
    expiresAt: read.validToDate.getTime(),
  };
}

export async function openBed(options: { store?: Store; now?: () => Date } = {}): Promise<Bed> {
  const store = options.store ?? new MemoryStore();
  const now = options.now === undefined ? {} : { now: options.now };
  return new Bed(await openController({ store, log: silentLog, version: '0.0.0', ...now }), store);
}

/** A store in which somebody else is faster: `before` runs ahead of every commit. Where it throws, the commit has failed. */
export function overtaken(before: (operations: readonly Operation[]) => Promise<void> | void): Store {
  const store = new MemoryStore();
  return {
    name: store.name,
    isShared: store.isShared,
    get: (key) => store.get(key),
    list: (prefix, page) => store.list(prefix, page),
    watch: (prefix, options) => store.watch(prefix, options),
    compact: (revision) => store.compact(revision),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
    commit: async (operations) => {
      await before(operations);
      return store.commit(operations);
    },
  };
}

async function* nothing(): AsyncGenerator<unknown, void> {
  yield* [];
}

/** An endpoint as its host publishes it. */
export const endpointBody = (host: string, network: string, rest: Readonly<Record<string, unknown>> = {}): Record<string, unknown> => ({
  id: 'endpoint0001',
  name: 'web',
  network,
  host,
  owner: 'web',
  addresses: [],
  mac: '0a:63:0a:40:00:02',
  names: [],
  ports: [],
  sequence: 1,
  ...rest,
});

export const reportBody = (rest: Readonly<Record<string, unknown>> = {}): Record<string, unknown> => ({
  generation: 1,
  underlay: [{ interface: 'eth0', ip: '10.9.0.1', subnet: '10.9.0.0/24', mtu: 1450 }],
  agentVersion: '0.0.0',
  status: { ready: true, desired: 1, applied: 1, failing: [], features: {} },
  routes: [],
  ...rest,
});
