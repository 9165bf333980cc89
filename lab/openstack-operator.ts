// What the operator of a cloud does with its API before anybody uses it (users, services, endpoints, an external network), and
// what Nova does with Neutron. Spoken over the services' unix sockets, so from any namespace.
import { Fault } from '#model/fault.ts';
import type { Host } from './host.ts';
import { apiPorts, apiSocket, type FurtherService, limitedRole, neutronService, type ServiceName } from './openstack-services.ts';
import { askSocket } from './unix-http.ts';

export interface Account {
  readonly user: string;
  readonly password: string;
  readonly project: string;
}

export const admin: Account = { user: 'admin', password: 'secret', project: 'admin' };
/** As whom a service asks Keystone about tokens. */
export const serviceAccount = (name: ServiceName): Account => ({ user: name, password: 'secret', project: 'service' });

const domain = { id: 'default' };

interface Identified {
  readonly id: string;
  readonly name: string;
}

export class Operator {
  readonly #controller: Host;
  readonly #account: Account;
  #token: Promise<string> | undefined;

  constructor(controller: Host, account: Account) {
    this.#controller = controller;
    this.#account = account;
  }

  /** The same cloud as somebody else. */
  as(account: Account): Operator {
    return new Operator(this.#controller, account);
  }

  /** The member `field` of the answer; without one all of it. Fault `internal` with the service's words when it refuses. */
  async get<T>(service: ServiceName, path: string, field?: string): Promise<T> {
    const answer = await this.#call(service, { method: 'GET', path });
    return (field === undefined ? answer : (answer as Record<string, T>)[field]) as T;
  }

  /** The members `field` of all pages. Fault as `get`. */
  async list<T>(service: ServiceName, path: string, field: string): Promise<T[]> {
    const found: T[] = [];
    for (let next: string | undefined = path; next !== undefined;) {
      const answer = (await this.#call(service, { method: 'GET', path: next })) as Readonly<Record<string, unknown>>;
      found.push(...(answer[field] as T[]));
      const links = (answer[`${field}_links`] ?? []) as readonly { readonly rel: string; readonly href: string }[];
      const link = links.find(({ rel }) => rel === 'next');
      next = link === undefined ? undefined : link.href.replace(/^\w+:\/\/[^/]+/, '');
    }
    return found;
  }

  /** The only member of the answer, or undefined for an empty one. Fault as `get`. */
  async send<T>(service: ServiceName, method: 'POST' | 'PUT' | 'DELETE', path: string, body?: object | string): Promise<T> {
    const answer = await this.#call(service, { method, path, body });
    return Object.values((answer ?? {}) as Record<string, T>)[0] as T;
  }

  /** Of the account itself. */
  async applicationCredential(name: string): Promise<{ readonly id: string; readonly secret: string }> {
    const { user } = await this.get<{ user: Identified }>('keystone', '/v3/auth/tokens', 'token');
    return this.send('keystone', 'POST', `/v3/users/${user.id}/application_credentials`, { application_credential: { name } });
  }

  /** The one that it has is none any more. */
  forgetToken(): void {
    this.#token = undefined;
  }

  async revoke(token: string): Promise<void> {
    await this.#call('keystone', { method: 'DELETE', path: '/v3/auth/tokens', headers: { 'x-subject-token': token } });
  }

  setQuota(project: string, quota: Readonly<Record<string, number>>): Promise<object> {
    return this.send('neutron', 'PUT', `/v2.0/quotas/${project}`, { quota });
  }

  /**
   * Endpoints of all services, and accounts with their projects: the services' as administrators, the others as members,
   * and in the role of their own name where there is one.
   */
  async seed(members: readonly Account[], further: readonly FurtherService[]): Promise<void> {
    await this.send('keystone', 'POST', '/v3/roles', { role: { name: limitedRole } });
    const roles = await this.get<Identified[]>('keystone', '/v3/roles', 'roles');
    const rolesOf = (...names: readonly string[]): string[] => roles.filter(({ name }) => names.includes(name)).map(({ id }) => id);
    for (const service of [neutronService, ...further]) {
      await this.#seedAccount(serviceAccount(service.name), rolesOf('admin', 'service'));
      await this.#seedEndpoints(service);
    }
    for (const account of members) await this.#seedAccount(account, rolesOf('member', account.user));
  }

  /** One more member of its project, in a new role of its own name. */
  async seedRestricted(account: Account): Promise<void> {
    const own = await this.send<Identified>('keystone', 'POST', '/v3/roles', { role: { name: account.user } });
    const [member] = await this.get<Identified[]>('keystone', '/v3/roles?name=member', 'roles');
    await this.#seedAccount(account, [own.id, ...(member === undefined ? [] : [member.id])]);
  }

  async #seedEndpoints({ name, type, path }: Omit<FurtherService, 'start'>): Promise<void> {
    const service = await this.send<Identified>('keystone', 'POST', '/v3/services', { service: { name, type } });
    const url = `http://${this.#controller.address}:${apiPorts[name]}${path}`;
    for (const one of ['public', 'internal', 'admin'])
      await this.send('keystone', 'POST', '/v3/endpoints', {
        endpoint: { service_id: service.id, interface: one, region_id: 'RegionOne', url },
      });
  }

  async #seedAccount({ user, password, project }: Account, roles: readonly string[]): Promise<void> {
    const [found] = await this.get<Identified[]>('keystone', `/v3/projects?name=${project}`, 'projects');
    const made =
      found ?? (await this.send<Identified>('keystone', 'POST', '/v3/projects', { project: { name: project, domain_id: domain.id } }));
    const person = await this.send<Identified>('keystone', 'POST', '/v3/users', {
      user: { name: user, password, domain_id: domain.id, default_project_id: made.id },
    });
    for (const role of roles) await this.send('keystone', 'PUT', `/v3/projects/${made.id}/users/${person.id}/roles/${role}`);
  }

  async #call(service: ServiceName, { headers = {}, ...question }: Question): Promise<unknown> {
    this.#token ??= this.#logIn();
    const token = await this.#token;
    // Keystone tells whose a token is only when it is named a second time.
    const own = { 'x-auth-token': token, 'x-subject-token': token };
    return (await this.#ask(service, { ...question, headers: { ...own, ...headers } })).answer;
  }

  async #logIn(): Promise<string> {
    const { user, password, project } = this.#account;
    const identity = { methods: ['password'], password: { user: { name: user, domain, password } } };
    const auth = { identity, scope: { project: { name: project, domain } } };
    const { headers } = await this.#ask('keystone', { method: 'POST', path: '/v3/auth/tokens', body: { auth } });
    return String(headers['x-subject-token']);
  }

  async #ask(service: ServiceName, { method, path, headers, body }: Question) {
    const content = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body);
    const type = typeof body === 'string' ? 'application/octet-stream' : 'application/json';
    const answer = await askSocket(this.#controller.file(apiSocket(service)), {
      method,
      path,
      headers: { ...headers, 'content-type': type, 'content-length': Buffer.byteLength(content) },
      body: content,
      timeoutMs: 120_000,
    });
    const { status, text: said } = answer;
    if (status >= 300) throw new Fault('internal', `Cannot ${method} ${path} of ${service}: ${status} ${said.slice(0, 500)}`);
    return { headers: answer.headers, answer: said === '' ? undefined : (JSON.parse(said) as unknown) };
  }
}

interface Question {
  readonly method: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** A text is sent as it is. */
  readonly body?: object | string | undefined;
}
