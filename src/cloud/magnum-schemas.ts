// What of Magnum's resources Causeway reads (docs.openstack.org/api-ref/container-infrastructure-management). Every release answers
// with further fields; a list of clusters has fewer of them than a single one.
import * as v from 'valibot';
import type { Schema } from '#api/parse.ts';

export type Labels = Readonly<Record<string, string>>;

export interface ClusterTemplate {
  readonly id: string;
  readonly name: string;
  /** Container orchestration engine: `kubernetes`, formerly also `swarm-mode`. */
  readonly coe: string;
  readonly networkDriver: string | undefined;
  readonly image: string;
  readonly externalNetwork: string | undefined;
  readonly network: string | undefined;
  readonly subnet: string | undefined;
  readonly labels: Labels;
}
export interface MagnumCluster {
  readonly id: string;
  readonly name: string;
  readonly template: string;
  /** How the driver calls it, where it makes clusters of something else: with Cluster API the Helm release and the Cluster. */
  readonly stack: string | undefined;
  readonly project: string | undefined;
  /** `CREATE_IN_PROGRESS`, `UPDATE_COMPLETE`, `DELETE_FAILED` and so on. */
  readonly status: string;
  readonly reason: string | undefined;
  /** `HEALTHY`, `UNHEALTHY`, `UNKNOWN`; undefined before anybody has looked. */
  readonly health: string | undefined;
  /** `api`, and a line for each node: `NAME.Ready`. */
  readonly healthReason: Labels;
  /** https address; undefined until there is one. */
  readonly api: string | undefined;
  readonly masters: number;
  readonly workers: number;
  readonly masterAddresses: readonly string[];
  readonly workerAddresses: readonly string[];
  readonly labels: Labels;
  readonly faults: Labels;
}
/** A certificate that was signed, or the authority's own. PEM. */
export interface MagnumCertificate {
  readonly pem: string;
}

/** An empty text is how an absent one is written as well. */
const text = v.pipe(
  v.nullish(v.string()),
  v.transform((value) => (value === null || value === '' ? undefined : value)),
);
const labels = v.pipe(
  v.nullish(v.record(v.string(), v.nullable(v.union([v.string(), v.number(), v.boolean()]))), {}),
  v.transform((all): Labels =>
    Object.fromEntries(Object.entries(all).flatMap(([key, value]) => (value === null ? [] : [[key, String(value)]]))),
  ),
);
const addresses = v.nullish(v.array(v.string()), []);

export const template: Schema<ClusterTemplate> = v.pipe(
  v.object({
    uuid: v.string(),
    name: v.string(),
    coe: v.string(),
    network_driver: text,
    image_id: v.string(),
    external_network_id: text,
    fixed_network: text,
    fixed_subnet: text,
    labels,
  }),
  v.transform((one) => ({
    id: one.uuid,
    name: one.name,
    coe: one.coe,
    networkDriver: one.network_driver,
    image: one.image_id,
    externalNetwork: one.external_network_id,
    network: one.fixed_network,
    subnet: one.fixed_subnet,
    labels: one.labels,
  })),
);

export const cluster: Schema<MagnumCluster> = v.pipe(
  v.object({
    uuid: v.string(),
    name: v.string(),
    cluster_template_id: v.string(),
    stack_id: text,
    project_id: text,
    status: v.nullish(v.string()),
    status_reason: text,
    health_status: text,
    health_status_reason: labels,
    api_address: text,
    master_count: v.nullish(v.number()),
    node_count: v.nullish(v.number()),
    master_addresses: addresses,
    node_addresses: addresses,
    labels,
    faults: labels,
  }),
  v.transform((one) => ({
    id: one.uuid,
    name: one.name,
    template: one.cluster_template_id,
    stack: one.stack_id,
    project: one.project_id,
    status: one.status ?? 'UNKNOWN',
    reason: one.status_reason,
    health: one.health_status,
    healthReason: one.health_status_reason,
    api: one.api_address,
    masters: one.master_count ?? 0,
    workers: one.node_count ?? 0,
    masterAddresses: one.master_addresses,
    workerAddresses: one.node_addresses,
    labels: one.labels,
    faults: one.faults,
  })),
);

export const certificate: Schema<MagnumCertificate> = v.object({ pem: v.pipe(v.string(), v.includes('BEGIN CERTIFICATE')) });
export const accepted: Schema<{ readonly uuid: string }> = v.object({ uuid: v.string() });
