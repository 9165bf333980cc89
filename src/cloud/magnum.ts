// Magnum's API v1 (docs.openstack.org/api-ref/container-infrastructure-management), as far as Causeway uses it: templates, clusters
// and the certificates of their authority. Clusters are made and removed in the background: who asks is told that it was heard.
import { setTimeout } from 'node:timers/promises';
import * as v from 'valibot';
import type { Schema } from '#api/parse.ts';
import { isFault } from '#model/fault.ts';
import { readAnswer } from './http.ts';
import {
  accepted,
  certificate,
  cluster,
  type ClusterTemplate,
  type Labels,
  type MagnumCertificate,
  type MagnumCluster,
  template,
} from './magnum-schemas.ts';
import type { CloudSession, Service, ServiceQuestion } from './session.ts';

const magnum: Service = { type: 'container-infra', name: 'Magnum' };
/** Of the API; Magnum 9 (Train, 2019) and later have it, and answer the same whatever they know beyond. */
const version = { 'openstack-api-version': 'container-infra 1.8' };
/** A cloud may give fewer at a time (max_limit) and says then that there are more. */
const pageSize = 500;

/** Fields as Magnum has them, for what it makes. */
export interface TemplateRequest {
  readonly name: string;
  readonly coe: string;
  readonly image_id: string;
  readonly network_driver: string;
  readonly external_network_id?: string | undefined;
  readonly fixed_network?: string | undefined;
  readonly fixed_subnet?: string | undefined;
  readonly flavor_id?: string | undefined;
  readonly master_flavor_id?: string | undefined;
  readonly keypair_id?: string | undefined;
  readonly dns_nameserver?: string | undefined;
  readonly floating_ip_enabled?: boolean;
  readonly master_lb_enabled?: boolean;
  readonly labels: Labels;
}
export interface ClusterRequest {
  readonly name: string;
  readonly cluster_template_id: string;
  readonly master_count?: number | undefined;
  readonly node_count?: number | undefined;
  readonly keypair?: string | undefined;
  /** Minutes. */
  readonly create_timeout?: number | undefined;
  readonly labels?: Labels;
  /** Beside the template's labels, not instead of them. */
  readonly merge_labels?: boolean;
}

const mostTries = 20;
const incompleteMs = 250;
/** Magnum checks its own answer by the rules for what it is asked, by which a cluster has a master (magnum/api/controllers/v1/cluster.py). */
const isIncomplete = (error: unknown): boolean => isFault(error, 'invalid') && /\bmaster_count\b.*'0'/.test(error.message);

type Kind = 'clustertemplates' | 'clusters';
const pathOf = (kind: Kind, name: string): string => `/v1/${kind}/${encodeURIComponent(name)}`;

export class Magnum {
  readonly #session: CloudSession;

  constructor(session: CloudSession) {
    this.#session = session;
  }

  /** Faults as CloudSession.ask; `corrupt`. */
  templates(): Promise<ClusterTemplate[]> {
    return this.#list('clustertemplates', template);
  }

  /** By id or name. Faults: `not-found`, `conflict` (several of that name). */
  template(name: string): Promise<ClusterTemplate> {
    return this.#one(template, { method: 'GET', path: pathOf('clustertemplates', name) });
  }

  /** Faults: `invalid` (an image, network or driver that there is not), `forbidden`. */
  createTemplate(request: TemplateRequest): Promise<ClusterTemplate> {
    return this.#one(template, { method: 'POST', path: '/v1/clustertemplates', body: request });
  }

  /** Absent already is success. Fault `invalid` while clusters are made of it. */
  removeTemplate(name: string): Promise<void> {
    return this.#remove('clustertemplates', name);
  }

  /** Without what only a single one says: addresses, reasons. */
  clusters(): Promise<MagnumCluster[]> {
    return this.#list('clusters', cluster);
  }

  /** By id or name. Faults: `not-found`, `conflict` (several of that name). */
  cluster(name: string): Promise<MagnumCluster> {
    return this.#one(cluster, { method: 'GET', path: pathOf('clusters', name) });
  }

  /** Begins to make a cluster and answers its id; it may take a moment until it is listed. Faults: `invalid`, `exhausted`. */
  async createCluster(request: ClusterRequest): Promise<string> {
    return (await this.#one(accepted, { method: 'POST', path: '/v1/clusters', body: request })).uuid;
  }

  /** Begins to upgrade it to another template. Faults: `invalid`, `conflict` (Magnum is at it), `unsupported` by the cluster's driver. */
  async upgradeCluster(id: string, templateId: string): Promise<void> {
    await this.#one(accepted, {
      method: 'POST',
      path: `${pathOf('clusters', id)}/actions/upgrade`,
      // Nodes at a time. Without it Magnum 20 fails: its API has no default for it, and cannot hand that over.
      body: { cluster_template: templateId, max_batch_size: 1 },
    });
  }

  /** Begins to remove it. Absent already is success. */
  removeCluster(name: string): Promise<void> {
    return this.#remove('clusters', name);
  }

  /** Of the cluster's authority for the Kubernetes API. */
  authority(id: string): Promise<MagnumCertificate> {
    return this.#one(certificate, { method: 'GET', path: `/v1/certificates/${encodeURIComponent(id)}` });
  }

  /** Has that authority sign a PKCS #10 request, subject and all. Faults: `invalid`, `forbidden`. */
  sign(id: string, csr: string): Promise<MagnumCertificate> {
    return this.#one(certificate, { method: 'POST', path: '/v1/certificates', body: { cluster_uuid: id, csr } });
  }

  async #list<T extends { readonly id: string }>(kind: Kind, schema: Schema<T>): Promise<T[]> {
    const found: T[] = [];
    const page = v.object({ [kind]: v.array(schema), next: v.nullish(v.string()) });
    for (let marker: string | undefined; ;) {
      const query = new URLSearchParams({ limit: String(pageSize), ...(marker === undefined ? {} : { marker }) });
      const body = await this.#ask({ method: 'GET', path: `/v1/${kind}?${query.toString()}` });
      const answer = readAnswer(page, body, magnum.name);
      const items = answer[kind];
      if (!Array.isArray(items)) throw new TypeError(`Broken invariant: ${kind} were read and are not there`);
      found.push(...items);
      const last = items.at(-1);
      if (last === undefined || typeof answer.next !== 'string') return found;
      marker = last.id;
    }
  }

  async #remove(kind: Kind, name: string): Promise<void> {
    try {
      await this.#ask({ method: 'DELETE', path: pathOf(kind, name), isRepeatable: true });
    } catch (error) {
      if (!isFault(error, 'not-found')) throw error;
    }
  }

  async #one<T>(schema: Schema<T>, question: ServiceQuestion): Promise<T> {
    return readAnswer(schema, await this.#ask(question), magnum.name);
  }

  /** While a cluster's first machines are not in its records yet, Magnum refuses to read it: asked again for a moment. */
  async #ask(question: ServiceQuestion): Promise<unknown> {
    for (let tries = 1; ; tries++) {
      try {
        return (await this.#session.ask(magnum, { ...question, headers: version })).body;
      } catch (error) {
        if (question.method !== 'GET' || tries === mostTries || !isIncomplete(error)) throw error;
        await setTimeout(incompleteMs);
      }
    }
  }
}
