// The custom resources that say what has become of a policy (causeway.dev/v1alpha1): PolicyStatus in the policy's namespace,
// ClusterPolicyStatus of policies that belong to none.
import { createHash } from 'node:crypto';
import * as v from 'valibot';
import type { ClusterView } from '#agent/policy-report.ts';
import { type KubernetesClient, revisionOf } from './client.ts';
import { type Condition, withCondition } from './conditions.ts';
import type { PolicyKind } from './policy-kinds.ts';
import type { PolicyVerdict } from './policy-verdict.ts';

const group = '/apis/causeway.dev/v1alpha1';
const mostNameLength = 253;

export interface StatusKind {
  readonly kind: 'PolicyStatus' | 'ClusterPolicyStatus';
  readonly resource: string;
}
const namespaced: StatusKind = { kind: 'PolicyStatus', resource: 'policystatuses' };
const ofCluster: StatusKind = { kind: 'ClusterPolicyStatus', resource: 'clusterpolicystatuses' };
export const statusKinds: readonly StatusKind[] = [namespaced, ofCluster];
export const pathOfAll = ({ resource }: StatusKind): string => `${group}/${resource}`;

export interface StoredStatus {
  readonly metadata: {
    readonly namespace?: string | undefined;
    readonly name: string;
    readonly resourceVersion: string;
    readonly [field: string]: unknown;
  };
  readonly policy: Readonly<Record<'key' | 'apiVersion' | 'kind' | 'name' | 'uid', string>>;
  readonly status: {
    readonly generation: number;
    readonly resourceVersion: string;
    readonly hosts: { readonly inForce: number; readonly needed: number };
    readonly shown: string;
    readonly conditions: readonly Condition[];
  };
}
const schema: v.GenericSchema<unknown, StoredStatus> = v.looseObject({
  metadata: v.looseObject({ namespace: v.optional(v.string()), name: v.string(), resourceVersion: v.string() }),
  policy: v.object({ key: v.string(), apiVersion: v.string(), kind: v.string(), name: v.string(), uid: v.string() }),
  status: v.object({
    generation: v.number(),
    resourceVersion: v.string(),
    hosts: v.object({ inForce: v.number(), needed: v.number() }),
    shown: v.string(),
    conditions: v.array(v.record(v.string(), v.unknown())),
  }),
});

/** Undefined for what is no such object. */
export function readStatus(item: unknown): StoredStatus | undefined {
  const read = v.safeParse(schema, item);
  return read.success ? read.output : undefined;
}

/** Which policy, of the many that may have had its name. */
export interface PolicyIdentity {
  readonly key: string;
  readonly kind: PolicyKind;
  readonly namespace?: string | undefined;
  readonly name: string;
  readonly uid: string;
}

export interface Place {
  readonly kind: StatusKind;
  /** As follow.ts has it. */
  readonly key: string;
  /** Of objects of the kind in that namespace. */
  readonly path: string;
  readonly name: string;
}

/** Where its status is. Names of different sorts of policies do not meet, and long ones are cut. */
export function placeOf({ kind: { label, isNamespaced }, namespace = '', name: own }: PolicyIdentity): Place {
  const kind = isNamespaced ? namespaced : ofCluster;
  const whole = `${label.toLowerCase().replaceAll(' ', '-')}.${own}`;
  const digest = createHash('sha256').update(whole).digest('hex').slice(0, 16);
  const name = whole.length <= mostNameLength ? whole : `${whole.slice(0, mostNameLength - digest.length - 1)}-${digest}`;
  return isNamespaced
    ? { kind, name, key: `${namespace}/${name}`, path: `${group}/namespaces/${namespace}/${kind.resource}` }
    : { kind, name, key: name, path: pathOfAll(kind) };
}

export const pathOf = ({ resource }: StatusKind, { metadata: { namespace, name } }: StoredStatus): string =>
  namespace === undefined ? `${group}/${resource}/${name}` : `${group}/namespaces/${namespace}/${resource}/${name}`;

/** From when it is known that the policy has this generation, where an earlier controller has noted it. */
export function notedSince({ uid }: PolicyIdentity, generation: number, stored: StoredStatus | undefined): number {
  const isThis = stored?.policy.uid === uid && stored.status.generation === generation;
  return isThis ? revisionOf(stored.status.resourceVersion) : Number.POSITIVE_INFINITY;
}

interface Said {
  readonly verdict: PolicyVerdict;
  readonly since: number;
  readonly now: Date;
}

/** The object's own part. */
export function statusBody(
  { key, kind, name, uid }: PolicyIdentity,
  { verdict, since, now }: Said,
  stored: StoredStatus | undefined,
): object {
  const { generation, inForce, needed } = verdict;
  return {
    policy: { key, apiVersion: kind.apiVersion, kind: kind.kind, name, uid },
    status: {
      generation,
      resourceVersion: String(since),
      hosts: { inForce, needed },
      shown: `${inForce}/${needed}`,
      conditions: verdict.conditions.map((told) => withCondition(stored?.status.conditions, told, now).at(-1)),
    },
  };
}

const shownCondition = v.object({ status: v.string(), message: v.string() });

/** By the policy's key. Faults as list; `not-found` on a server without these resources. */
export async function readStatuses(client: KubernetesClient, signal: AbortSignal): Promise<Map<string, ClusterView>> {
  const listings = await Promise.all(statusKinds.map((kind) => client.list(pathOfAll(kind), signal)));
  return new Map(
    listings
      .flatMap(({ items }) => items)
      .flatMap((item): [string, ClusterView][] => {
        const stored = readStatus(item);
        if (stored === undefined) return [];
        const { generation, hosts, conditions: said } = stored.status;
        const problems = said.flatMap((one) => {
          const read = v.safeParse(shownCondition, one);
          return read.success && read.output.status !== 'True' ? [read.output.message] : [];
        });
        return [[stored.policy.key, { generation, ...hosts, problems }]];
      }),
  );
}
