// For tests: what the API's documents say of NetworkPolicy and ClusterNetworkPolicy, sentence by sentence and as slow as it
// likes. It shares nothing with the compiler; addresses are numbers here.
export interface Pod {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly ips: readonly string[];
  readonly ports: readonly { readonly name: string; readonly protocol: string; readonly containerPort: number }[];
  readonly hostNetwork?: boolean;
}
interface Requirement {
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
interface Transport {
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
}
export interface WorldPacket {
  readonly source: string;
  readonly destination: string;
  /** TCP, UDP, SCTP or anything else. */
  readonly protocol: string;
  readonly port: number;
}

type Way = 'ingress' | 'egress';

const groups = (text: string): string[] => (text === '' ? [] : text.split(':'));

function toNumber(ip: string): { readonly bits: number; readonly value: bigint } {
  if (!ip.includes(':')) return { bits: 32, value: ip.split('.').reduce((sum, part) => sum * 256n + BigInt(part), 0n) };
  const [head = '', tail = ''] = ip.split('::');
  const [before, after] = [groups(head), ip.includes('::') ? groups(tail) : []];
  const all = [...before, ...Array.from({ length: 8 - before.length - after.length }, () => '0'), ...after];
  return { bits: 128, value: all.reduce((sum, group) => sum * 65_536n + BigInt(`0x${group}`), 0n) };
}

function isInside(cidr: string, ip: string): boolean {
  const [base = '', length = ''] = cidr.split('/');
  const [a, b] = [toNumber(base), toNumber(ip)];
  const low = BigInt(a.bits - Number(length));
  return a.bits === b.bits && a.value >> low === b.value >> low;
}

function matches({ matchLabels = {}, matchExpressions = [] }: LabelSelector, labels: Readonly<Record<string, string>>): boolean {
  const isMet = ({ key, operator, values = [] }: Requirement): boolean => {
    const value = labels[key];
    if (operator === 'In') return value !== undefined && values.includes(value);
    if (operator === 'NotIn') return value === undefined || !values.includes(value);
    return operator === 'Exists' ? value !== undefined : value === undefined;
  };
  return Object.entries(matchLabels).every(([key, value]) => labels[key] === value) && matchExpressions.every(isMet);
}

export class Reference {
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  allows(packet: WorldPacket): boolean {
    if (packet.source === packet.destination) return true;
    return this.#isPermitted(packet, 'egress') && this.#isPermitted(packet, 'ingress');
  }

  #podAt(ip: string): Pod | undefined {
    return this.#world.pods.find(({ ips, hostNetwork }) => hostNetwork !== true && ips.includes(ip));
  }

  #namespaceMatches(selector: LabelSelector, name: string): boolean {
    const namespace = this.#world.namespaces.find((one) => one.name === name);
    return namespace !== undefined && matches(selector, { ...namespace.labels, 'kubernetes.io/metadata.name': name });
  }

  #isPermitted(packet: WorldPacket, way: Way): boolean {
    const pod = this.#podAt(way === 'ingress' ? packet.destination : packet.source);
    if (pod === undefined) return true;
    const admin = this.#clusterTier('Admin', pod, packet, way);
    if (admin !== undefined) return admin;
    const own = this.#world.policies.filter((policy) => isFor(policy, pod, way));
    if (own.length > 0) return own.some((policy) => (policy.spec[way] ?? []).some((rule) => this.#ruleMatches(rule, policy, packet, way)));
    return this.#clusterTier('Baseline', pod, packet, way) ?? true;
  }

  #ruleMatches(rule: NetworkPolicyRule, policy: NetworkPolicy, packet: WorldPacket, way: Way): boolean {
    const peers = (way === 'ingress' ? rule.from : rule.to) ?? [];
    const ports = rule.ports ?? [];
    const isPeer =
      peers.length === 0 ||
      peers.some((peer) => this.#isPeer(peer, policy.metadata.namespace, way === 'ingress' ? packet.source : packet.destination));
    return isPeer && (ports.length === 0 || ports.some((port) => this.#isPort(port, packet)));
  }

  #isPeer({ ipBlock, podSelector, namespaceSelector }: NetworkPolicyPeer, namespace: string, ip: string): boolean {
    if (ipBlock !== undefined) return isInside(ipBlock.cidr, ip) && !(ipBlock.except ?? []).some((except) => isInside(except, ip));
    const pod = this.#podAt(ip);
    if (pod === undefined) return false;
    const isThere =
      namespaceSelector === undefined ? pod.namespace === namespace : this.#namespaceMatches(namespaceSelector, pod.namespace);
    return isThere && (podSelector === undefined || matches(podSelector, pod.labels));
  }

  #isPort({ protocol = 'TCP', port, endPort }: NetworkPolicyPort, packet: WorldPacket): boolean {
    if (packet.protocol !== protocol) return false;
    if (port === undefined) return true;
    if (typeof port === 'string') return this.#isNamed(port, packet);
    return endPort === undefined ? packet.port === port : port <= packet.port && packet.port <= endPort;
  }

  #isNamed(name: string, packet: WorldPacket): boolean {
    const ports = this.#podAt(packet.destination)?.ports ?? [];
    return ports.some((port) => port.name === name && port.protocol === packet.protocol && port.containerPort === packet.port);
  }

  /** Undefined: nothing there decides. */
  #clusterTier(tier: string, pod: Pod, packet: WorldPacket, way: Way): boolean | undefined {
    const policies = this.#world.clusterPolicies
      .filter(({ spec }) => spec.tier === tier && this.#isClusterPeer(spec.subject, pod.ips[0] ?? '') === true)
      .toSorted((a, b) => a.spec.priority - b.spec.priority);
    for (const { spec } of policies) {
      for (const rule of spec[way] ?? []) {
        const action = this.#clusterAction(rule, packet, way);
        if (action === 'Pass') return undefined;
        if (action !== undefined) return action === 'Accept';
      }
    }
    return undefined;
  }

  #clusterAction(rule: ClusterRule, packet: WorldPacket, way: Way): string | undefined {
    const peers = (way === 'ingress' ? rule.from : rule.to) ?? [];
    const answers = peers.map((peer) => this.#isClusterPeer(peer, way === 'ingress' ? packet.source : packet.destination));
    if (answers.includes('unknown')) return rule.action === 'Accept' ? undefined : 'Deny';
    const { protocols } = rule;
    const isMeant = answers.includes(true) && (protocols === undefined || protocols.some((one) => this.#isClusterPort(one, packet)));
    return isMeant ? rule.action : undefined;
  }

  #isClusterPeer({ namespaces, pods, networks }: ClusterPeer, ip: string): boolean | 'unknown' {
    if (networks !== undefined) return networks.some((cidr) => isInside(cidr, ip));
    const pod = this.#podAt(ip);
    if (namespaces !== undefined) return pod !== undefined && this.#namespaceMatches(namespaces, pod.namespace);
    if (pods === undefined) return 'unknown';
    return pod !== undefined && this.#namespaceMatches(pods.namespaceSelector, pod.namespace) && matches(pods.podSelector, pod.labels);
  }

  #isClusterPort({ destinationNamedPort, ...transports }: ClusterProtocol, packet: WorldPacket): boolean {
    if (destinationNamedPort !== undefined) return this.#isNamed(destinationNamedPort, packet);
    return Object.entries(transports).some(([protocol, transport]: [string, Transport]) => {
      if (protocol.toUpperCase() !== packet.protocol) return false;
      const { number, range } = transport.destinationPort ?? {};
      if (range !== undefined) return range.start <= packet.port && packet.port <= range.end;
      return number === undefined || number === packet.port;
    });
  }
}

/** "policyTypes … If this field is not specified, it will default based on the existence of ingress or egress rules." */
function isFor({ metadata, spec }: NetworkPolicy, pod: Pod, way: Way): boolean {
  if (metadata.namespace !== pod.namespace || !matches(spec.podSelector, pod.labels)) return false;
  if (spec.policyTypes !== undefined) return spec.policyTypes.includes(way === 'ingress' ? 'Ingress' : 'Egress');
  return way === 'ingress' || (spec.egress ?? []).length > 0;
}
