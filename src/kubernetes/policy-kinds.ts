// The sorts of policy objects that are served, for whoever reads them: agents, which translate them, and the controller, which
// says what has become of them.
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
