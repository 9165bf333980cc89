// What policies are weighed against, one sort of object each: where the API has it, what the journal keeps of one, and what
// becomes of it in the index.
import * as v from 'valibot';
import { texts } from '#api/fields.ts';
import { readNetworkSet, readTier } from './calico-tier.ts';
import { keptPod, readNamespace, readPod } from './pods.ts';
import type { PolicyIndex } from './policy-index.ts';
import { type Problem, problemText } from './policy-parts.ts';
import { keptSlice, readSlice, sliceVersions } from './services.ts';

/** One sort of object that is followed. */
export interface FactKind {
  readonly name: string;
  /** The first of these that the server has. */
  readonly paths: readonly string[];
  /** That the server has none counts as an empty listing. */
  readonly absent?: 'empty';
  /** Hosts tell how far they have heard of those. */
  readonly isPolicy?: true;
  /** What the journal keeps of it, and how it is taken in. Undefined: as if it were not there. */
  take(key: string, item: unknown): { readonly kept: unknown; readonly put: () => void } | undefined;
  drop(key: string): void;
}

/** Says what of an object is not served. */
export type Tell = (name: string, key: string, problems: readonly string[]) => void;

export const clusterKinds = (index: PolicyIndex): readonly FactKind[] => [
  {
    name: 'namespaces',
    paths: ['/api/v1/namespaces'],
    take: (key, item) => {
      const labels = readNamespace(item);
      return labels && { kept: { metadata: { name: key, labels } }, put: () => index.putNamespace(key, labels) };
    },
    drop: (key) => index.deleteNamespace(key),
  },
  {
    name: 'pods',
    paths: ['/api/v1/pods'],
    take: (key, item) => {
      const pod = readPod(item);
      return pod && { kept: keptPod(key, pod), put: () => index.putPod(key, pod) };
    },
    drop: (key) => index.deletePod(key),
  },
];

const labels = v.nullish(texts, {});
const labelled = v.object({
  metadata: v.object({ namespace: v.optional(v.string()), name: v.string(), generation: v.exactOptional(v.number()), labels }),
  spec: v.optional(v.unknown()),
});

/** As it was said, without who wrote it when. */
export const keptWhole = (item: unknown): unknown => {
  const read = v.safeParse(labelled, item);
  return read.success ? read.output : {};
};

export const calicoGroup = '/apis/projectcalico.org/v3';

/** What Calico's policies speak of beyond pods and namespaces. */
export function calicoKinds(index: PolicyIndex, tell: Tell): readonly FactKind[] {
  const told = (name: string, key: string, problems: readonly Problem[]): void => {
    if (problems.length > 0) tell(name, key, problems.map(problemText));
  };
  const sets = (name: string): FactKind => ({
    name,
    paths: [`${calicoGroup}/${name}`],
    absent: 'empty',
    take: (key, item) => {
      const { set, problems } = readNetworkSet(item);
      const put = (): void => {
        told(name, key, problems);
        if (set === undefined) index.deleteNetworkSet(`${name} ${key}`);
        else index.putNetworkSet(`${name} ${key}`, set);
      };
      return { kept: keptWhole(item), put };
    },
    drop: (key) => index.deleteNetworkSet(`${name} ${key}`),
  });
  return [
    {
      name: 'tiers',
      paths: [`${calicoGroup}/tiers`],
      absent: 'empty',
      take: (key, item) => {
        const { tier, problems } = readTier(item);
        const put = (): void => {
          told('tiers', key, problems);
          if (tier === undefined) index.deleteTier(key);
          else index.putTier(tier);
        };
        return { kept: keptWhole(item), put };
      },
      drop: (key) => index.deleteTier(key),
    },
    sets('networksets'),
    sets('globalnetworksets'),
  ];
}

/** Whose labels are in selectors of Calico's policies. */
export const accountKind = (index: PolicyIndex): FactKind => ({
  name: 'serviceaccounts',
  paths: ['/api/v1/serviceaccounts'],
  take: (key, item) => {
    const read = v.safeParse(labelled, item);
    if (!read.success) return undefined;
    const { namespace, name, labels: own } = read.output.metadata;
    return { kept: { metadata: { namespace, name, labels: own } }, put: () => index.putAccount(key, own ?? {}) };
  },
  drop: (key) => index.deleteAccount(key),
});

/** Which addresses stand behind a service, ready or not: for policies that name services. */
export const sliceKind = (index: PolicyIndex): FactKind => ({
  name: 'endpointslices',
  paths: sliceVersions,
  take: (key, item) => {
    const slice = readSlice(item);
    return slice && { kept: keptSlice(key, slice), put: () => index.putSlice(key, slice) };
  },
  drop: (key) => index.deleteSlice(key),
});
