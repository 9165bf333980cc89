// The typed client of the controller's API, for agents and the CLI: several controllers with failover, mutual TLS or a token,
// retries where a call may safely be made twice, and Faults instead of statuses.
import { setTimeout as delay } from 'node:timers/promises';
import { Fault, isFault } from '#model/fault.ts';
import type { Cidr, Family } from '#model/ip.ts';
import type { BgpResource, Block, Endpoint, Host, Network, ResourceKind, Resources, Secret } from '#model/resources.ts';
import * as answers from './answers.ts';
import { Agent, type Dispatcher } from './dispatcher.ts';
import type { NetworkRequest } from './local.ts';
import { parseAnswer, type Schema } from './parse.ts';
import { apiVersion, bookmarkMs, bootHeader, versionHeader } from './protocol.ts';
import * as requests from './requests.ts';
import { schemas } from './schemas.ts';
import { askSkew, skewOf } from './clock.ts';
import { clockFault, isNeverSent, isUntimely, linesOf, parseJson, problemFault, toQuery, transportFault } from './transport.ts';

export type Credentials =
  | { readonly type: 'token'; readonly token: string }
  /** PEM texts. `boot`: the machine's boot id, so that a copy on another machine is noticed. */
  | { readonly type: 'certificate'; readonly certificate: string; readonly key: string; readonly boot?: string | undefined }
  | { readonly type: 'none' };

export interface ClientOptions {
  /** `https://host:7480`; the first is tried first, the one that answered last is kept. */
  readonly urls: readonly string[];
  /** PEM of the controllers' CA; absent: the system's. */
  readonly ca?: string | undefined;
  readonly credentials?: Credentials;
  /** Of one try. */
  readonly timeoutMs?: number;
  /** Tries beyond the first for calls that may be made twice. */
  readonly retries?: number;
  /** 0 to 1, for jitter. */
  readonly random?: () => number;
}

/** What `create` takes, by kind. */
export interface CreateRequests {
  readonly tenants: requests.TenantRequest;
  readonly networks: NetworkRequest;
  readonly pools: requests.AddPoolRequest;
  readonly exposures: requests.ExposureRequest;
}
export type ReplaceableKind = 'tenants' | 'hosts' | 'networks' | 'pools' | 'exposures';

export interface ListOptions {
  /** Id or name. */
  readonly network?: string;
  readonly host?: string;
  readonly pageSize?: number;
  readonly signal?: AbortSignal;
}

export interface WatchOptions {
  /** Absent: everything (for tokens). */
  readonly host?: string;
  readonly since?: number;
  /** Of the last `synced` or `bookmark` before `since`. */
  readonly epoch?: string;
  readonly signal?: AbortSignal;
}

interface Ask<T> {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  readonly body?: unknown;
  readonly match?: number | undefined;
  readonly answer: Schema<T>;
  readonly isRepeatable: boolean;
  /** It may take a controller longer, as it may have to ask a cloud first. */
  readonly isSlow?: true;
  readonly signal?: AbortSignal | undefined;
}

/** Docker's engine waits for its plugin for half a minute and then tells nothing but that. */
const slowMs = 25_000;

const part = (text: string): string => encodeURIComponent(text);

export class Client implements AsyncDisposable {
  readonly #options: ClientOptions;
  readonly #retries: number;
  #dispatcher: Agent;
  #credentials: Credentials;
  #current = 0;
  #skewMs: number | undefined;

  /** Fault `invalid` for an address that is none. */
  constructor(options: ClientOptions) {
    if (options.urls.length === 0) throw new Fault('invalid', 'No controller to talk to', { field: 'urls' });
    for (const url of options.urls) {
      if (!URL.canParse(url))
        throw new Fault('invalid', `Not an address of a controller: ${url}`, { field: 'urls', hint: 'Use https://HOST:7480' });
    }
    this.#options = options;
    this.#retries = options.retries ?? 4;
    this.#credentials = options.credentials ?? { type: 'none' };
    this.#dispatcher = this.#connect();
  }

  /** By how many milliseconds this machine's clock is ahead of the controller's, by its last answer; undefined before the first. */
  get skewMs(): number | undefined {
    return this.#skewMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispatcher.destroy();
  }

  /** For a certificate that was rotated: calls from now on use the new one, running ones end on the old. */
  useCredentials(credentials: Credentials): void {
    const old = this.#dispatcher;
    this.#credentials = credentials;
    this.#dispatcher = this.#connect();
    void old.close();
  }

  /** Every resource of a kind, a page at a time. */
  async *list<K extends ResourceKind>(
    kind: K,
    { network, host, pageSize = 500, signal }: ListOptions = {},
  ): AsyncGenerator<Resources[K], void> {
    const answer: Schema<answers.Page<Resources[K]>> = answers.pageOf<Resources[K]>(schemas[kind]);
    for (let after: string | undefined; ;) {
      const query = toQuery({ limit: pageSize, after, network, host });
      const page = await this.#ask({ method: 'GET', path: `/v1/${kind}${query}`, answer, isRepeatable: true, signal });
      yield* page.items;
      after = page.next;
      if (after === undefined) return;
    }
  }

  /** As list, all at once. */
  async all<K extends ResourceKind>(kind: K, options: ListOptions = {}): Promise<Resources[K][]> {
    return Array.fromAsync(this.list(kind, options));
  }

  /** Faults: `not-found`; `invalid` when a name is not unique. */
  get<K extends ResourceKind>(kind: K, idOrName: string): Promise<Resources[K]> {
    return this.#ask<Resources[K]>({ method: 'GET', path: `/v1/${kind}/${part(idOrName)}`, answer: schemas[kind], isRepeatable: true });
  }

  create<K extends keyof CreateRequests>(kind: K, request: CreateRequests[K]): Promise<Resources[K]> {
    return this.#ask<Resources[K]>({ method: 'POST', path: `/v1/${kind}`, body: request, answer: schemas[kind], isRepeatable: false });
  }

  createNetwork(request: NetworkRequest): Promise<Network> {
    return this.create('networks', request);
  }

  /** Based on `item.revision`. Fault `conflict` when somebody else has changed it since. */
  replace<K extends ReplaceableKind>(kind: K, item: Resources[K]): Promise<Resources[K]> {
    const path = `/v1/${kind}/${part(item.id)}`;
    return this.#ask<Resources[K]>({ method: 'PUT', path, body: item, match: item.revision, answer: schemas[kind], isRepeatable: true });
  }

  /** Makes or replaces it. Fault `invalid` naming the field. */
  putBgp(request: requests.BgpRequest): Promise<BgpResource> {
    const path = `/v1/bgp/${part(requests.bgpId(request))}`;
    return this.#ask({ method: 'PUT', path, body: request, answer: schemas.bgp, isRepeatable: true });
  }

  /** Makes or replaces it whole. */
  putSecret(name: string, request: requests.SecretRequest): Promise<Secret> {
    return this.#ask({ method: 'PUT', path: `/v1/secrets/${part(name)}`, body: request, answer: schemas.secrets, isRepeatable: true });
  }

  /** With a host's certificate. Fault `not-found`, also when none of the host's peers has it. */
  async secretTexts(name: string): Promise<answers.SecretTexts['texts']> {
    const path = `/v1/secrets/${part(name)}/texts`;
    return (await this.#ask({ method: 'GET', path, answer: answers.secretTexts, isRepeatable: true })).texts;
  }

  /** Blocks, loans and tokens too. Faults: `not-found`, `in-use`, `conflict` when `revision` is given and another is there. */
  async remove(kind: Exclude<ResourceKind, 'blocks' | 'endpoints'>, idOrName: string, revision?: number): Promise<void> {
    await this.#ask({
      method: 'DELETE',
      path: `/v1/${kind}/${part(idOrName)}`,
      match: revision,
      answer: answers.nothing,
      isRepeatable: true,
    });
  }

  /** Faults: `exhausted`, `exists` (another host has the block around `ip`), `forbidden`. */
  /** `isSlow`: the controller has to ask a cloud first. */
  claimBlock(request: requests.ClaimRequest, { isSlow }: Pick<Ask<Block>, 'isSlow'> = {}): Promise<Block> {
    const isRepeatable = request.ip !== undefined && isSlow !== true;
    return this.#ask({
      method: 'POST',
      path: '/v1/blocks',
      body: request,
      answer: schemas.blocks,
      isRepeatable,
      ...(isSlow && { isSlow }),
    });
  }

  /** Absent already is success. Faults: `in-use`; `conflict` when `revision` is given and another is there. */
  async releaseBlock(id: string, revision?: number): Promise<void> {
    await this.#ask({ method: 'DELETE', path: `/v1/blocks/${part(id)}`, match: revision, answer: answers.nothing, isRepeatable: true });
  }

  /** By the block's host. Faults: `not-found` (a group), `unsupported`, and as Neutron's. */
  setPortGroups(block: string, request: requests.PortGroupsRequest): Promise<Block> {
    const path = `/v1/blocks/${part(block)}/groups`;
    return this.#ask({ method: 'PUT', path, body: request, answer: schemas.blocks, isRepeatable: true, isSlow: true });
  }

  /** By the borrower; the same id again is answered with the block as it is. */
  askLoan(block: string, request: requests.LoanRequest): Promise<Block> {
    return this.#ask({
      method: 'POST',
      path: `/v1/blocks/${part(block)}/loans`,
      body: request,
      answer: schemas.blocks,
      isRepeatable: true,
    });
  }

  /** `granted` (with ip) and `refused` by the block's host, `returned` by the borrower. */
  settleLoan(block: string, loan: string, settlement: requests.LoanSettlement): Promise<Block> {
    const path = `/v1/blocks/${part(block)}/loans/${part(loan)}`;
    return this.#ask({ method: 'POST', path, body: settlement, answer: schemas.blocks, isRepeatable: true });
  }

  /** Removes a refused or returned loan. */
  async forgetLoan(block: string, loan: string): Promise<void> {
    await this.#ask({
      method: 'DELETE',
      path: `/v1/blocks/${part(block)}/loans/${part(loan)}`,
      answer: answers.nothing,
      isRepeatable: true,
    });
  }

  /** Faults: `stale` (older sequence), `exists` (address taken), `forbidden` (another host's endpoint or address), `invalid`. */
  putEndpoint(endpoint: requests.EndpointRequest): Promise<Endpoint> {
    const path = `/v1/endpoints/${part(endpoint.id)}`;
    return this.#ask({ method: 'PUT', path, body: endpoint, answer: schemas.endpoints, isRepeatable: true });
  }

  /** Absent already is success. Fault `stale` when `sequence` is older than what is stored. */
  async removeEndpoint(id: string, sequence?: number): Promise<void> {
    await this.#ask({
      method: 'DELETE',
      path: `/v1/endpoints/${part(id)}${toQuery({ sequence })}`,
      answer: answers.nothing,
      isRepeatable: true,
    });
  }

  /** At most 500 items; results in the order deletes, then puts. The call fails only as a whole, items fail in their results. */
  async batchEndpoints(batch: requests.BatchRequest): Promise<readonly answers.BatchResult[]> {
    const ask = { method: 'POST', path: '/v1/endpoints:batch', body: batch, answer: answers.batchAnswer, isRepeatable: true } as const;
    return (await this.#ask(ask)).results;
  }

  /** With one's own certificate only. Faults: `forbidden`, `stale`. */
  report(host: string, report: requests.Report): Promise<Host> {
    return this.#ask({ method: 'PUT', path: `/v1/hosts/${part(host)}/report`, body: report, answer: schemas.hosts, isRepeatable: true });
  }

  /** A new certificate for this host; pass it to useCredentials. */
  rotate(host: string, csr: string): Promise<answers.CertificateAnswer> {
    const path = `/v1/hosts/${part(host)}/certificate`;
    return this.#ask({ method: 'POST', path, body: { csr }, answer: answers.certificateAnswer, isRepeatable: true });
  }

  /** With the same token and key again when the answer got lost. Faults: `unauthenticated`, `forbidden`. See joinCluster. */
  join(request: requests.JoinRequest): Promise<answers.CertificateAnswer> {
    return this.#ask({ method: 'POST', path: '/v1/join', body: request, answer: answers.certificateAnswer, isRepeatable: true });
  }

  /** A free subnet, not reserved by asking. */
  async proposePool(family: Family, besides: readonly Cidr[] = []): Promise<Cidr> {
    const body: requests.ProposeRequest = { family, besides };
    return (await this.#ask({ method: 'POST', path: '/v1/pools:propose', body, answer: answers.proposal, isRepeatable: true })).cidr;
  }

  createToken(request: requests.TokenRequest): Promise<answers.NewToken> {
    return this.#ask({ method: 'POST', path: '/v1/tokens', body: request, answer: answers.newToken, isRepeatable: false });
  }

  async tokens(): Promise<readonly answers.TokenRecord[]> {
    const answer = answers.pageOf(answers.tokenRecord);
    return (await this.#ask({ method: 'GET', path: '/v1/tokens', answer, isRepeatable: true })).items;
  }

  async removeToken(id: string): Promise<void> {
    await this.#ask({ method: 'DELETE', path: `/v1/tokens/${part(id)}`, answer: answers.nothing, isRepeatable: true });
  }

  async certificates(): Promise<readonly answers.CertificateRecord[]> {
    const answer = answers.pageOf(answers.certificateRecord);
    return (await this.#ask({ method: 'GET', path: '/v1/certificates', answer, isRepeatable: true })).items;
  }

  async revokeCertificate(serial: string): Promise<void> {
    await this.#ask({ method: 'DELETE', path: `/v1/certificates/${part(serial)}`, answer: answers.nothing, isRepeatable: true });
  }

  /** Fault `not-found` while no controller keeps a cloud. */
  cloud(): Promise<answers.CloudReport> {
    return this.#ask({ method: 'GET', path: '/v1/cloud', answer: answers.cloudReport, isRepeatable: true });
  }

  version(): Promise<answers.VersionAnswer> {
    return this.#ask({ method: 'GET', path: '/version', answer: answers.versionAnswer, isRepeatable: true });
  }

  /**
   * One connection's lines. It ends with a Fault (`unavailable` when the connection breaks or is silent for three bookmarks);
   * the caller begins again with the revision of the last line as `since`, and the last `epoch`. A `synced` with `whole` means: drop what was not said.
   */
  async *watch({ host, since, epoch, signal }: WatchOptions = {}): AsyncGenerator<answers.WatchLine, void> {
    const path = `/v1/watch${toQuery({ host, since, epoch })}`;
    const { body } = await this.#try({ method: 'GET', path, answer: answers.nothing, isRepeatable: true, signal }, bookmarkMs * 3);
    try {
      for await (const text of linesOf(body)) {
        const line = answers.parseWatchLine(text);
        if (line !== undefined) yield line;
      }
    } catch (error) {
      if (signal?.aborted === true) return;
      throw transportFault(error);
    }
    if (signal?.aborted === true) return;
    throw new Fault('unavailable', 'The controller has ended the watch');
  }

  #connect(): Agent {
    const credentials = this.#credentials;
    const identity = credentials.type === 'certificate' ? { cert: credentials.certificate, key: credentials.key } : {};
    // No session is taken up again: with it the controller would take up what it thought of the certificate before.
    return new Agent({
      connect: { ...(this.#options.ca === undefined ? {} : { ca: this.#options.ca }), ...identity, timeout: 5000, maxCachedSessions: 0 },
      keepAliveTimeout: 30_000,
    });
  }

  async #ask<T>(ask: Ask<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#once(ask);
      } catch (error) {
        // The next controller may know better; with one, it is asked again after a while.
        const mayRepeat = ask.isRepeatable || isNeverSent(error);
        if (!mayRepeat || !(isFault(error, 'unavailable') || isFault(error, 'timeout')) || attempt >= this.#retries) throw error;
        this.#current = (this.#current + 1) % this.#options.urls.length;
        const round = Math.floor(attempt / this.#options.urls.length);
        await delay(
          Math.min(100 * 2 ** round, 5000) * (0.5 + (this.#options.random ?? Math.random)()),
          undefined,
          ask.signal === undefined ? {} : { signal: ask.signal },
        );
      }
    }
  }

  async #once<T>(ask: Ask<T>): Promise<T> {
    const { body } = await this.#try(ask, ask.isSlow === true ? slowMs : (this.#options.timeoutMs ?? 10_000));
    const text = await body.text().catch((error: unknown) => {
      throw transportFault(error);
    });
    return parseAnswer(ask.answer, parseJson(text), `the answer to ${ask.method} ${ask.path}`);
  }

  async #try({ method, path, body, match, signal }: Ask<unknown>, timeoutMs: number): Promise<Dispatcher.ResponseData> {
    const headers: Record<string, string> = { [versionHeader]: apiVersion, accept: 'application/json' };
    if (this.#credentials.type === 'token') headers['authorization'] = `Bearer ${this.#credentials.token}`;
    if (this.#credentials.type === 'certificate' && this.#credentials.boot !== undefined) headers[bootHeader] = this.#credentials.boot;
    if (match !== undefined) headers['if-match'] = `"${match}"`;
    if (body !== undefined) headers['content-type'] = 'application/json';
    const response = await this.#dispatcher
      .request({
        origin: this.#options.urls[this.#current] ?? '',
        path,
        method,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
        ...(signal === undefined ? {} : { signal }),
      })
      .catch(async (error: unknown) => {
        const fault = transportFault(error);
        throw isUntimely(fault) ? clockFault(fault, await askSkew(this.#options.urls[this.#current] ?? '')) : fault;
      });
    this.#skewMs = skewOf(response.headers['date'], Date.now());
    if (response.statusCode < 300) return response;
    const text = await response.body.text().catch(() => '');
    throw problemFault(response.statusCode, text);
  }
}
