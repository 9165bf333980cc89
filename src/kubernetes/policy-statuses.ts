// What has become of each policy, where kubectl shows it: follows policies, Nodes and what hosts tell, and while it leads writes one
// object for each policy (PolicyStatus, ClusterPolicyStatus; causeway.dev/v1alpha1), and the conditions of policies that have
// some. Kubernetes' own NetworkPolicy has no status. Writes are few: only what has changed, some tens a second at most.
import * as v from 'valibot';
import { texts } from '#api/fields.ts';
import { revisionOf } from './client.ts';
import { type Condition, isAlike, type Told, withCondition } from './conditions.ts';
import { hostPolicies, type HostReport, readHostReport } from './host-policies.ts';
import { type Attempt, Passes, type PassesOptions, type Sort } from './passes.ts';
import type { PolicyKind } from './policy-kinds.ts';
import { HostReports, type JudgedPolicy } from './policy-verdict.ts';
import {
  notedSince,
  pathOf,
  pathOfAll,
  placeOf,
  type PolicyIdentity,
  readStatus,
  statusBody,
  type StatusKind,
  statusKinds,
  type StoredStatus,
} from './policy-status.ts';

export interface PolicyStatusesOptions extends PassesOptions {
  readonly kinds: readonly PolicyKind[];
  readonly date: () => Date;
}

const policyObject = v.looseObject({
  metadata: v.looseObject({
    namespace: v.optional(v.string()),
    name: v.string(),
    uid: v.optional(v.string(), ''),
    generation: v.optional(v.number(), 0),
    resourceVersion: v.string(),
  }),
  status: v.nullish(v.looseObject({ conditions: v.nullish(v.array(v.record(v.string(), v.unknown()))) })),
});
type PolicyObject = v.InferOutput<typeof policyObject>;
const node = v.object({ metadata: v.object({ name: v.string(), labels: v.optional(texts, {}) }) });

interface Policy {
  readonly identity: PolicyIdentity;
  readonly object: PolicyObject;
  readonly judged: JudgedPolicy;
}

export class PolicyStatuses {
  readonly #options: PolicyStatusesOptions;
  /** By key. */
  readonly #policies = new Map<string, Policy>();
  readonly #nodes = new Set<string>();
  readonly #reports = new Map<string, HostReport>();
  /** By kind and `namespace/name`. */
  readonly #statuses: ReadonlyMap<StatusKind, Map<string, StoredStatus>> = new Map(statusKinds.map((kind) => [kind, new Map()]));
  /** By path: what was last written there, so that a server that drops a part is not asked for ever. */
  readonly #written = new Map<string, string>();
  readonly #passes: Passes;

  constructor(options: PolicyStatusesOptions) {
    this.#options = options;
    this.#passes = new Passes(options, {
      sorts: this.#sorts(),
      pass: (attempt) => this.#pass(attempt),
      failure: 'cannot write what has become of a policy',
    });
  }

  /** Resolves when `signal` has aborted. */
  run(signal: AbortSignal): Promise<void> {
    return this.#passes.run(signal);
  }

  /** Looks again at everything soon. */
  kick(): void {
    this.#passes.kick();
  }

  #sorts(): Sort[] {
    return [
      {
        name: 'nodes',
        path: '/api/v1/nodes',
        keys: () => this.#nodes,
        put: (key, item) => {
          const read = v.safeParse(node, item);
          // No agent runs on others.
          const isOurs = read.success && (read.output.metadata.labels['kubernetes.io/os'] ?? 'linux') === 'linux';
          const had = this.#nodes.has(key);
          if (isOurs) this.#nodes.add(key);
          else this.#nodes.delete(key);
          // Kubelets touch their Nodes every few seconds.
          return isOurs !== had;
        },
        delete: (key) => this.#nodes.delete(key),
      },
      {
        name: 'what hosts tell of policies',
        path: hostPolicies,
        keys: () => this.#reports.keys(),
        put: (key, item) => {
          const report = readHostReport(item);
          if (report === undefined) this.#reports.delete(key);
          else this.#reports.set(key, report);
        },
        delete: (key) => this.#reports.delete(key),
      },
      ...this.#options.kinds.map((kind) => this.#policiesOf(kind)),
      ...[...this.#statuses].map(([kind, known]): Sort => ({
        name: kind.resource,
        path: pathOfAll(kind),
        keys: () => known.keys(),
        put: (key, item) => {
          const stored = readStatus(item);
          if (stored !== undefined) known.set(key, stored);
        },
        delete: (key) => known.delete(key),
      })),
    ];
  }

  #policiesOf(kind: PolicyKind): Sort {
    const start = `${kind.label} `;
    return {
      name: kind.name,
      path: kind.path,
      keys: () => [...this.#policies.keys()].filter((key) => key.startsWith(start)).map((key) => key.slice(start.length)),
      put: (rest, item) => {
        const read = v.safeParse(policyObject, item);
        if (!read.success) return;
        const key = start + rest;
        const { namespace, name, uid, generation, resourceVersion } = read.output.metadata;
        const { policy, problems } = kind.read(item);
        const before = this.#policies.get(key);
        const isSame = before?.identity.uid === uid && before.judged.generation === generation;
        const at = revisionOf(resourceVersion);
        const since = isSame ? Math.min(at, before.judged.since) : at;
        const [isServed, isStaged] = [policy !== undefined, policy?.staged === true];
        const judged = { key, kind: kind.name, generation, since, problems, isServed, isStaged };
        this.#policies.set(key, { identity: { key, kind, namespace, name, uid }, object: read.output, judged });
      },
      delete: (rest) => this.#policies.delete(start + rest),
    };
  }

  async #pass(attempt: Attempt): Promise<void> {
    const hosts = new HostReports(this.#nodes, new Map(this.#reports));
    for (const key of this.#policies.keys()) await attempt(() => this.#tell(key, hosts));
    for (const [kind, known] of this.#statuses)
      for (const [name, stored] of known) if (!this.#policies.has(stored.policy.key)) await attempt(() => this.#remove(kind, name, stored));
  }

  /** Whether anything was written. */
  async #tell(key: string, hosts: HostReports): Promise<boolean> {
    const policy = this.#policies.get(key);
    if (policy === undefined) return false;
    const { identity, judged } = policy;
    const place = placeOf(identity);
    const known = this.#statuses.get(place.kind);
    const stored = known?.get(place.key);
    const since = Math.min(judged.since, notedSince(identity, judged.generation, stored));
    const verdict = hosts.verdict({ ...judged, since });
    const now = this.#options.date();
    const body = statusBody(identity, { verdict, since, now }, stored);
    const hasTold = identity.kind.hasConditions && (await this.#tellPolicy(policy, verdict.conditions));
    if (stored !== undefined && isAlike({ policy: stored.policy, status: stored.status }, body)) return hasTold;
    const { client } = this.#options;
    const object = {
      apiVersion: 'causeway.dev/v1alpha1',
      kind: place.kind.kind,
      metadata: stored?.metadata ?? { name: place.name, ...(identity.namespace === undefined ? {} : { namespace: identity.namespace }) },
      ...body,
    };
    const answer = await (stored === undefined ? client.create(place.path, object) : client.replace(pathOf(place.kind, stored), object));
    // Ahead of the watch.
    const next = readStatus(answer);
    if (next !== undefined) known?.set(place.key, next);
    return true;
  }

  /** In the policy's own conditions, of types that are recognisably ours. */
  async #tellPolicy({ identity, object }: Policy, told: readonly Told[]): Promise<boolean> {
    const before: readonly Condition[] = object.status?.conditions ?? [];
    const now = this.#options.date();
    const conditions = told
      .map((one) => ({ ...one, type: `causeway.dev/${one.type}` }))
      .reduce<readonly Condition[]>((all, one) => withCondition(all, one, now), before);
    if (isAlike(before, conditions)) return false;
    const path = `${identity.kind.path}/${identity.name}/status`;
    const digest = JSON.stringify([before, told]);
    if (this.#written.get(path) === digest) return false;
    await this.#options.client.replace(path, { ...object, status: { ...object.status, conditions } });
    this.#written.set(path, digest);
    return true;
  }

  async #remove(kind: StatusKind, key: string, stored: StoredStatus): Promise<boolean> {
    await this.#options.client.remove(pathOf(kind, stored), revisionOf(stored.metadata.resourceVersion));
    this.#statuses.get(kind)?.delete(key);
    return true;
  }
}
