// For tests: a cluster as far as policies look at it, with its objects as the API has them.
export interface Pod {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly ips: readonly string[];
  readonly ports: readonly { readonly name: string; readonly protocol: string; readonly containerPort: number }[];
  readonly hostNetwork?: boolean;
  readonly account?: string;
}
export interface Requirement {
  readonly key: string;
  readonly operator: string;
  readonly values?: readonly string[];
}
export interface LabelSelector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly Requirement[];
}
export interface NetworkPolicyPeer {
  readonly podSelector?: LabelSelector;
  readonly namespaceSelector?: LabelSelector;
  readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] };
}
export interface NetworkPolicyPort {
  readonly protocol?: string;
  readonly port?: number | string;
  readonly endPort?: number;
}
export interface NetworkPolicyRule {
  readonly from?: readonly NetworkPolicyPeer[];
  readonly to?: readonly NetworkPolicyPeer[];
  readonly ports?: readonly NetworkPolicyPort[];
}
export interface NetworkPolicy {
  readonly metadata: { readonly namespace: string; readonly name: string };
  readonly spec: {
    readonly podSelector: LabelSelector;
    readonly policyTypes?: readonly string[];
    readonly ingress?: readonly NetworkPolicyRule[];
    readonly egress?: readonly NetworkPolicyRule[];
  };
}
export interface ClusterPeer {
  readonly namespaces?: LabelSelector;
  readonly pods?: { readonly namespaceSelector: LabelSelector; readonly podSelector: LabelSelector };
  readonly networks?: readonly string[];
  readonly [unknown: string]: unknown;
}
export interface ClusterProtocol {
  readonly tcp?: Transport;
  readonly udp?: Transport;
  readonly sctp?: Transport;
  readonly destinationNamedPort?: string;
}
export interface Transport {
  readonly destinationPort?: { readonly number?: number; readonly range?: { readonly start: number; readonly end: number } };
}
export interface ClusterRule {
  readonly name?: string;
  readonly action: string;
  readonly from?: readonly ClusterPeer[];
  readonly to?: readonly ClusterPeer[];
  readonly protocols?: readonly ClusterProtocol[];
}
export interface ClusterNetworkPolicy {
  readonly metadata: { readonly name: string };
  readonly spec: {
    readonly tier: string;
    readonly priority: number;
    readonly subject: Omit<ClusterPeer, 'networks'>;
    readonly ingress?: readonly ClusterRule[];
    readonly egress?: readonly ClusterRule[];
  };
}
export interface World {
  readonly namespaces: readonly { readonly name: string; readonly labels: Readonly<Record<string, string>> }[];
  readonly pods: readonly Pod[];
  readonly policies: readonly NetworkPolicy[];
  readonly clusterPolicies: readonly ClusterNetworkPolicy[];
  readonly calico?: CalicoWorld;
}
export interface WorldPacket {
  readonly source: string;
  readonly destination: string;
  /** TCP, UDP, SCTP or anything else. */
  readonly protocol: string;
  readonly port: number;
  readonly icmp?: { readonly type: number; readonly code: number };
}

export interface CalicoEnd {
  readonly nets?: readonly string[];
  readonly notNets?: readonly string[];
  readonly selector?: string;
  readonly notSelector?: string;
  readonly namespaceSelector?: string;
  readonly ports?: readonly (number | string)[];
  readonly notPorts?: readonly (number | string)[];
  readonly serviceAccounts?: { readonly names?: readonly string[]; readonly selector?: string };
  readonly services?: { readonly name: string; readonly namespace?: string };
}
interface IcmpMatch {
  readonly type?: number;
  readonly code?: number;
}
export interface CalicoRule {
  readonly action: string;
  readonly ipVersion?: number;
  readonly protocol?: string | number;
  readonly notProtocol?: string | number;
  readonly icmp?: IcmpMatch;
  readonly notICMP?: IcmpMatch;
  readonly source?: CalicoEnd;
  readonly destination?: CalicoEnd;
  readonly http?: object;
}
export interface CalicoPolicy {
  readonly kind: string;
  readonly metadata: { readonly namespace?: string; readonly name: string };
  readonly spec: {
    readonly tier?: string;
    readonly order?: number;
    readonly selector?: string;
    readonly namespaceSelector?: string;
    readonly serviceAccountSelector?: string;
    readonly types?: readonly string[];
    readonly ingress?: readonly CalicoRule[];
    readonly egress?: readonly CalicoRule[];
    readonly [more: string]: unknown;
  };
}
export interface CalicoTier {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly order?: number; readonly defaultAction?: string };
}
export interface CalicoSet {
  readonly metadata: { readonly namespace?: string; readonly name: string; readonly labels: Readonly<Record<string, string>> };
  readonly spec: { readonly nets: readonly string[] };
}
export interface Account {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}
export interface WorldService {
  readonly namespace: string;
  readonly name: string;
  readonly ips: readonly string[];
  readonly ports: readonly { readonly protocol: string; readonly port: number }[];
}
export interface CalicoWorld {
  readonly policies: readonly CalicoPolicy[];
  readonly tiers: readonly CalicoTier[];
  readonly sets: readonly CalicoSet[];
  readonly accounts: readonly Account[];
  readonly services: readonly WorldService[];
}

const groups = (text: string): string[] => (text === '' ? [] : text.split(':'));

function toNumber(ip: string): { readonly bits: number; readonly value: bigint } {
  if (!ip.includes(':')) return { bits: 32, value: ip.split('.').reduce((sum, part) => sum * 256n + BigInt(part), 0n) };
  const [head = '', tail = ''] = ip.split('::');
  const [before, after] = [groups(head), ip.includes('::') ? groups(tail) : []];
  const all = [...before, ...Array.from({ length: 8 - before.length - after.length }, () => '0'), ...after];
  return { bits: 128, value: all.reduce((sum, group) => sum * 65_536n + BigInt(`0x${group}`), 0n) };
}

export function isInside(cidr: string, ip: string): boolean {
  const [base = '', length = base.includes(':') ? '128' : '32'] = cidr.split('/');
  const [a, b] = [toNumber(base), toNumber(ip)];
  const low = BigInt(a.bits - Number(length));
  return a.bits === b.bits && a.value >> low === b.value >> low;
}
