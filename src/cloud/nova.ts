// Nova's API v2.1 (docs.openstack.org/api-ref/compute), as far as Causeway uses it: which servers a project has, and which of
// Neutron's ports belong to one. Nothing is changed there.
import * as v from 'valibot';
import type { Schema } from '#api/parse.ts';
import { readAnswer } from './http.ts';
import type { CloudSession, Service, ServiceQuestion } from './session.ts';

const nova: Service = { type: 'compute', name: 'Nova' };
/** Of the API; the first that this header asks for (Nova 14, Newton, 2016), answered the same by all later ones. */
const version = { 'openstack-api-version': 'compute 2.27' };
/** A cloud may give fewer at a time (max_limit) and says then that there are more. */
const pageSize = 500;

export interface Server {
  readonly id: string;
  /** Several may have the same. */
  readonly name: string;
}

const server: Schema<Server> = v.object({ id: v.string(), name: v.string() });
const page = v.object({ servers: v.array(server), servers_links: v.optional(v.array(v.object({ rel: v.string() })), []) });
const attachments = v.object({ interfaceAttachments: v.array(v.object({ port_id: v.string() })) });

export class Nova {
  readonly #session: CloudSession;

  constructor(session: CloudSession) {
    this.#session = session;
  }

  /** Undefined where the catalogue has no Nova. Faults as CloudSession.token. */
  static async of(session: CloudSession): Promise<Nova | undefined> {
    const { catalogue } = await session.token();
    return catalogue.some(({ type }) => type === nova.type) ? new Nova(session) : undefined;
  }

  /** Of the login's project. Faults as CloudSession.ask; `corrupt`. */
  async servers(): Promise<Server[]> {
    const found: Server[] = [];
    for (let marker: string | undefined; ;) {
      const query = new URLSearchParams({ limit: String(pageSize), ...(marker === undefined ? {} : { marker }) });
      const { servers, servers_links: links } = readAnswer(page, await this.#ask(`/v2.1/servers?${query.toString()}`), nova.name);
      found.push(...servers);
      const last = servers.at(-1);
      if (last === undefined || !links.some(({ rel }) => rel === 'next')) return found;
      marker = last.id;
    }
  }

  /** Ids of the ports of the server with this id. Faults: `not-found`, `forbidden`, and as CloudSession.ask. */
  async ports(id: string): Promise<string[]> {
    const body = await this.#ask(`/v2.1/servers/${encodeURIComponent(id)}/os-interface`);
    return readAnswer(attachments, body, nova.name).interfaceAttachments.map((one) => one.port_id);
  }

  async #ask(path: string): Promise<unknown> {
    const question: ServiceQuestion = { method: 'GET', path, headers: version };
    return (await this.#session.ask(nova, question)).body;
  }
}
