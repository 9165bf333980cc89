// The sorts of policy objects that are served, for whoever reads them: agents, which translate them, and the controller, which
// says what has become of them.
import {
  readCalicoPolicy,
  readGlobalPolicy,
  readStagedGlobalPolicy,
  readStagedKubernetesPolicy,
  readStagedPolicy,
} from './calico-policy.ts';
import { readClusterNetworkPolicy } from './cluster-network-policy.ts';
import { readNetworkPolicy } from './network-policy.ts';
import type { Reading } from './policy-parts.ts';

export interface PolicyKind {
  /** Unlike that of any other: in the log, in the journal, and in what hosts tell of how far they have read. */
  readonly name: string;
  /** With what keys of its policies begin; the rest is `namespace/name`, or the name of what belongs to no namespace. */
  readonly label: string;
  /** `group/version` of the API. */
  readonly apiVersion: string;
  readonly kind: string;
  readonly path: string;
  readonly isNamespaced: boolean;
  /** Whether objects have `status.conditions`. */
  readonly hasConditions: boolean;
  readonly read: (item: unknown) => Reading;
}

export const policyKinds: readonly PolicyKind[] = [
  {
    name: 'networkpolicies',
    label: 'NetworkPolicy',
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    path: '/apis/networking.k8s.io/v1/networkpolicies',
    isNamespaced: true,
    hasConditions: false,
    read: readNetworkPolicy,
  },
  {
    name: 'clusternetworkpolicies',
    label: 'ClusterNetworkPolicy',
    apiVersion: 'policy.networking.k8s.io/v1alpha2',
    kind: 'ClusterNetworkPolicy',
    path: '/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies',
    isNamespaced: false,
    hasConditions: true,
    read: readClusterNetworkPolicy,
  },
];

const calicoKind = (
  name: string,
  kind: string,
  more: Pick<PolicyKind, 'isNamespaced' | 'read'> & { readonly label?: string },
): PolicyKind => ({
  name: `calico-${name}`,
  label: kind,
  apiVersion: 'projectcalico.org/v3',
  kind,
  path: `/apis/projectcalico.org/v3/${name}`,
  hasConditions: false,
  ...more,
});

export const calicoPolicyKinds: readonly PolicyKind[] = [
  calicoKind('networkpolicies', 'NetworkPolicy', {
    label: 'Calico NetworkPolicy',
    isNamespaced: true,
    read: (item) => readCalicoPolicy(item),
  }),
  calicoKind('globalnetworkpolicies', 'GlobalNetworkPolicy', { isNamespaced: false, read: (item) => readGlobalPolicy(item) }),
  calicoKind('stagednetworkpolicies', 'StagedNetworkPolicy', { isNamespaced: true, read: readStagedPolicy }),
  calicoKind('stagedglobalnetworkpolicies', 'StagedGlobalNetworkPolicy', { isNamespaced: false, read: readStagedGlobalPolicy }),
  calicoKind('stagedkubernetesnetworkpolicies', 'StagedKubernetesNetworkPolicy', { isNamespaced: true, read: readStagedKubernetesPolicy }),
];
