// A login that lasts: logs in at first use, again when the token is about to end or is refused, and knows where services are. What it
// logs in with may be read anew each time, so that a password or a secret can be changed beneath it.
import { Fault, isFault } from '#model/fault.ts';
import type { Cloud } from './clouds.ts';
import { CloudHttp, type HttpOptions, type Question, type Reply } from './http.ts';
import { endpointOf, logIn, type Token } from './keystone.ts';

/** A token that has less left than this is not begun anything with. */
const marginMs = 60_000;

export interface ServiceQuestion extends Omit<Question, 'url' | 'service'> {
  /** Below the service's address: `/v2.0/ports`. */
  readonly path: string;
}

export interface Service {
  /** In the catalogue: `network`. */
  readonly type: string;
  /** In messages: `Neutron`. */
  readonly name: string;
}

export interface SessionOptions extends HttpOptions {
  /** Asked before everything but reading; absent: always. */
  readonly mayWrite?: () => boolean;
  /** Asked before each login for what there is to log in with by then; absent: what was given stays. */
  readonly reread?: () => Promise<Cloud>;
}

export class CloudSession implements AsyncDisposable {
  #cloud: Cloud;
  /** The last one is in use; what is on its way by an earlier one, which trusted others, goes on. */
  readonly #clients: [CloudHttp, ...CloudHttp[]];
  readonly #options: HttpOptions;
  readonly #now: () => number;
  readonly #mayWrite: () => boolean;
  readonly #reread: (() => Promise<Cloud>) | undefined;
  #token: Promise<Token> | undefined;

  constructor(cloud: Cloud, { mayWrite, reread, ...options }: SessionOptions = {}, now: () => number = Date.now) {
    this.#cloud = cloud;
    this.#options = options;
    this.#clients = [this.#httpFor(cloud)];
    this.#now = now;
    this.#mayWrite = mayWrite ?? ((): boolean => true);
    this.#reread = reread;
  }

  #httpFor({ ca, verify }: Cloud): CloudHttp {
    return new CloudHttp({ ca, trustsAnybody: !verify, ...this.#options });
  }

  get #http(): CloudHttp {
    return this.#clients.at(-1) ?? this.#clients[0];
  }

  /** Requests that were sent, retries included. */
  get calls(): number {
    return this.#clients.reduce((sum, { calls }) => sum + calls, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#clients.map((http) => http[Symbol.asyncDispose]()));
  }

  /** The token in use. Faults as logIn, and as what reads the login. */
  async token(): Promise<Token> {
    const token = await (this.#token ??= this.#logIn());
    if (token.expiresAt - this.#now() > marginMs) return token;
    this.#token = undefined;
    return (this.#token ??= this.#logIn());
  }

  #logIn(): Promise<Token> {
    const asked = this.#logInAnew();
    // One that failed is not kept.
    asked.catch(() => (this.#token = undefined));
    return asked;
  }

  async #logInAnew(): Promise<Token> {
    const before = this.#cloud;
    this.#cloud = (await this.#reread?.()) ?? before;
    if (this.#cloud.ca !== before.ca || this.#cloud.verify !== before.verify) this.#clients.push(this.#httpFor(this.#cloud));
    return logIn(this.#http, this.#cloud.authUrl, this.#cloud.login);
  }

  /** Faults as CloudHttp.ask and endpointOf; `stale` when it may not write any more. A token that is refused is replaced once. */
  async ask(service: Service, question: ServiceQuestion): Promise<Reply> {
    if (question.method !== 'GET' && !this.#mayWrite()) {
      throw new Fault('stale', 'Another controller keeps the cloud now, so nothing was written', {
        hint: 'Repeat it: it then goes to that controller, or to whichever keeps the cloud by then',
      });
    }
    const token = await this.token();
    try {
      return await this.#askWith(token, service, question);
    } catch (error) {
      if (!isFault(error, 'unauthenticated')) throw error;
      // Somebody else may have logged in again meanwhile.
      if ((await this.token()) === token) this.#token = undefined;
      if (!this.#canRenew) throw error;
      return this.#askWith(await this.token(), service, question);
    }
  }

  /** A token that was given from outside cannot be had anew once it has ended: somebody has to give another. */
  get #canRenew(): boolean {
    return this.#cloud.login.type !== 'token';
  }

  #askWith(token: Token, service: Service, { path, ...question }: ServiceQuestion): Promise<Reply> {
    const base = this.#cloud.overrides[service.type] ?? endpointOf(token.catalogue, service.type, this.#cloud.place);
    // Some catalogues name the version, some do not; of Nova, old ones name the project behind it.
    const version = /^\/v[\d.]+/.exec(path)?.[0];
    const root = base.replace(/(\/v[\d.]+)(\/[0-9a-f]{32})?$/, (whole, said) => (said === version ? '' : whole));
    const url = `${root}${path}`;
    if (!URL.canParse(url)) throw new Fault('corrupt', `The cloud's catalogue has no usable address for ${service.name}: ${base}`);
    return this.#http.ask({ ...question, service: service.name, url, headers: { ...question.headers, 'x-auth-token': token.value } });
  }
}
