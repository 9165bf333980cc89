// Neutron's API v2.0 (docs.openstack.org/api-ref/network/v2), as far as Causeway uses it. Lists come in pages, several of a kind
// are made by one call, and every change may name the revision that it is based on (extension revision-if-match: a resource that
// has changed since is refused with 412).
import * as v from 'valibot';
import type { Schema } from '#api/parse.ts';
import { isFault } from '#model/fault.ts';
import { readAnswer } from './http.ts';
import {
  type CollectionName,
  type Collections,
  collections,
  type ExtraRoute,
  type Quota,
  quotas,
  type SubPort,
} from './neutron-schemas.ts';
import type { CloudSession, Service, ServiceQuestion } from './session.ts';

const neutron: Service = { type: 'network', name: 'Neutron' };
/** A cloud may give fewer at a time (pagination_max_limit) and says then that there are more. */
const pageSize = 500;
const believedMs = 600_000;
const mostTries = 3;

export type Filter = Readonly<Record<string, string | readonly string[] | undefined>>;

const member = (name: CollectionName): string => name.replaceAll('-', '_');
/** The only member of an answer. */
const only = <T>(name: string, schema: Schema<T>): Schema<T> =>
  v.pipe(
    v.object({ [name]: schema }),
    v.transform((whole) => {
      const value = whole[name];
      if (value === undefined) throw new TypeError(`Broken invariant: ${name} was read and is not there`);
      return value;
    }),
  );
const link = v.object({ rel: v.string() });
/** Whether there is a next page. */
const hasNext = (name: CollectionName): Schema<boolean> =>
  v.pipe(
    v.object({ [`${member(name)}_links`]: v.optional(v.array(link), []) }),
    v.transform((whole) =>
      Object.values(whole)
        .flat()
        .some(({ rel }) => rel === 'next'),
    ),
  );

export class Neutron {
  readonly #session: CloudSession;
  /** Address pairs that a port takes, as the cloud has told it when it was asked for more. */
  mostPairs: number | undefined;
  /** When it last did, by `performance.now()`. */
  answeredAt = 0;
  #extensions: { readonly aliases: ReadonlySet<string>; readonly until: number } | undefined;

  constructor(session: CloudSession) {
    this.#session = session;
  }

  /** The login, by which other services of the same cloud are asked. */
  get session(): CloudSession {
    return this.#session;
  }

  /** Aliases of the extensions that the cloud has, which change when it is upgraded: what was read is believed for ten minutes. */
  async extensions(): Promise<ReadonlySet<string>> {
    if (this.#extensions === undefined || performance.now() > this.#extensions.until) {
      const aliases = new Set((await this.list('extensions')).map(({ alias }) => alias));
      this.#extensions = { aliases, until: performance.now() + believedMs };
    }
    return this.#extensions.aliases;
  }

  /** Everything of a collection that fits the filter. Faults as CloudSession.ask; `corrupt`. */
  async list<K extends CollectionName>(name: K, filter: Filter = {}): Promise<Collections[K][]> {
    const found: Collections[K][] = [];
    const items = only<Collections[K][]>(member(name), v.array<Schema<Collections[K]>>(collections[name].schema));
    for (let marker: string | undefined; ;) {
      // Extensions come all at once and know of no pages.
      const { fields } = collections[name];
      const query = queryOf(name === 'extensions' ? filter : { ...filter, fields, limit: String(pageSize), marker });
      const body = await this.#askForList(`/v2.0/${name}${query}`);
      const page = readAnswer(items, body, neutron.name);
      found.push(...page);
      const last = page.at(-1);
      if (last === undefined || !('id' in last) || !readAnswer(hasNext(name), body, neutron.name)) return found;
      marker = last.id;
    }
  }

  /** Faults: `not-found`, and as CloudSession.ask. */
  async get<K extends CollectionName>(name: K, id: string): Promise<Collections[K]> {
    const query = queryOf({ fields: collections[name].fields });
    return this.#one(name, { method: 'GET', path: `/v2.0/${name}/${encodeURIComponent(id)}${query}` });
  }

  /** Faults: `exhausted` (quota), `invalid`, `forbidden`, `exists`, `conflict`. */
  create<K extends CollectionName>(name: K, fields: object): Promise<Collections[K]> {
    return this.#one(name, { method: 'POST', path: `/v2.0/${name}`, body: { [collections[name].one]: fields } });
  }

  /** Several by one call: all of them or none. Faults as create. */
  async createAll<K extends CollectionName>(name: K, items: readonly object[]): Promise<readonly Collections[K][]> {
    if (items.length === 0) return [];
    const body = await this.#ask({ method: 'POST', path: `/v2.0/${name}`, body: { [member(name)]: items } });
    return readAnswer(only<Collections[K][]>(member(name), v.array<Schema<Collections[K]>>(collections[name].schema)), body, neutron.name);
  }

  /** `revision`: what the change is based on. Fault `conflict` when the resource has changed since. */
  update<K extends CollectionName>(name: K, { id, revision }: Target, fields: object): Promise<Collections[K]> {
    const body = { [collections[name].one]: fields };
    return this.#one(name, { method: 'PUT', path: `/v2.0/${name}/${encodeURIComponent(id)}`, body, headers: ifMatch(revision) });
  }

  /** Absent already is success. Faults: `in-use`, `conflict`. */
  async remove(name: CollectionName, { id, revision }: Target): Promise<void> {
    try {
      const path = `/v2.0/${name}/${encodeURIComponent(id)}`;
      await this.#ask({ method: 'DELETE', path, headers: ifMatch(revision), isRepeatable: true });
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
    }
  }

  /** Replaces all tags. */
  async setTags(name: CollectionName, id: string, tags: readonly string[]): Promise<void> {
    await this.#ask({ method: 'PUT', path: `/v2.0/${name}/${encodeURIComponent(id)}/tags`, body: { tags }, isRepeatable: true });
  }

  /** Beside the tags that are there. */
  async addTag(name: CollectionName, id: string, tag: string): Promise<void> {
    await this.#ask({ method: 'PUT', path: tagPath(name, id, tag), isRepeatable: true });
  }

  /** Absent already is success. */
  async removeTag(name: CollectionName, id: string, tag: string): Promise<void> {
    try {
      await this.#ask({ method: 'DELETE', path: tagPath(name, id, tag), isRepeatable: true });
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
    }
  }

  /** Replaces a router's extra routes. Faults as update. */
  setRoutes(router: Target, routes: readonly ExtraRoute[]): Promise<Collections['routers']> {
    return this.update('routers', router, { routes });
  }

  async setInterface(router: string, subnet: string, state: 'added' | 'removed'): Promise<void> {
    const action = state === 'added' ? 'add_router_interface' : 'remove_router_interface';
    await this.#ask({ method: 'PUT', path: `/v2.0/routers/${encodeURIComponent(router)}/${action}`, body: { subnet_id: subnet } });
  }

  async setSubPorts(trunk: string, ports: readonly SubPort[], state: 'added' | 'removed'): Promise<void> {
    const action = state === 'added' ? 'add_subports' : 'remove_subports';
    const named = state === 'added' ? ports : ports.map(({ port_id }) => ({ port_id }));
    await this.#ask({ method: 'PUT', path: `/v2.0/trunks/${encodeURIComponent(trunk)}/${action}`, body: { sub_ports: named } });
  }

  /** Id of the login's project. An administrator sees those of others, too, unless lists are narrowed to it. */
  async project(): Promise<string> {
    return (await this.#session.token()).project.id;
  }

  /** Limits of the login's project and what is used of them. */
  async quotas(): Promise<Readonly<Record<string, Quota>>> {
    const project = await this.project();
    const body = await this.#ask({ method: 'GET', path: `/v2.0/quotas/${encodeURIComponent(project)}/details` });
    return readAnswer(only('quota', quotas), body, neutron.name);
  }

  async #one<K extends CollectionName>(name: K, question: ServiceQuestion): Promise<Collections[K]> {
    const body = await this.#ask(question);
    return readAnswer(only<Collections[K]>(collections[name].one, collections[name].schema), body, neutron.name);
  }

  /** What is removed while Neutron gathers a list makes it refuse the whole (`Port … could not be found`): asked again at once. */
  async #askForList(path: string): Promise<unknown> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#ask({ method: 'GET', path });
      } catch (error) {
        if (tries === mostTries || !isFault(error, 'not-found') || !/ could not be found/.test(error.message)) throw error;
      }
    }
  }

  async #ask(question: ServiceQuestion): Promise<unknown> {
    const { body } = await this.#session.ask(neutron, question);
    this.answeredAt = performance.now();
    return body;
  }
}

/** What a change is about; without a revision it is made whatever has happened since. */
export interface Target {
  readonly id: string;
  readonly revision?: number | undefined;
}

const ifMatch = (revision: number | undefined): Readonly<Record<string, string>> =>
  revision === undefined ? {} : { 'if-match': `revision_number=${revision}` };

const tagPath = (name: CollectionName, id: string, tag: string): string =>
  `/v2.0/${name}/${encodeURIComponent(id)}/tags/${encodeURIComponent(tag)}`;

function queryOf(filter: Filter): string {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(filter)) {
    for (const one of value === undefined ? [] : typeof value === 'string' ? [value] : value) query.append(key, one);
  }
  return query.size === 0 ? '' : `?${query.toString()}`;
}
