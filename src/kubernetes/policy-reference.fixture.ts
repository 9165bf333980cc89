// For tests: what the API's documents say of NetworkPolicy and ClusterNetworkPolicy, sentence by sentence and as slow as it
// likes. It shares nothing with the compiler; addresses are numbers here. Calico's policies are in calico-reference.fixture.ts.
import { CalicoReference } from './calico-reference.fixture.ts';
import {
  type CalicoPolicy,
  type CalicoWorld,
  type ClusterPeer,
  type ClusterProtocol,
  type ClusterRule,
  isInside,
  type LabelSelector,
  type NetworkPolicy,
  type NetworkPolicyPeer,
  type NetworkPolicyPort,
  type NetworkPolicyRule,
  type Pod,
  type Requirement,
  type Transport,
  type World,
  type WorldPacket,
} from './policy-world.fixture.ts';

type Way = 'ingress' | 'egress';

function matches({ matchLabels = {}, matchExpressions = [] }: LabelSelector, labels: Readonly<Record<string, string>>): boolean {
  const isMet = ({ key, operator, values = [] }: Requirement): boolean => {
    const value = labels[key];
    if (operator === 'In') return value !== undefined && values.includes(value);
    if (operator === 'NotIn') return value === undefined || !values.includes(value);
    return operator === 'Exists' ? value !== undefined : value === undefined;
  };
  return Object.entries(matchLabels).every(([key, value]) => labels[key] === value) && matchExpressions.every(isMet);
}

/** A policy of any dialect as its tier sees it. */
interface Weighed {
  readonly tier: string;
  readonly order: number;
  readonly name: string;
  /** Allow, Deny or Pass; undefined: none of its rules matches. */
  readonly action: () => string | undefined;
}
interface WeighedTier {
  readonly name: string;
  readonly order: number;
  readonly otherwise: string;
}
const textOrder = (a: string, b: string): number => (a < b ? -1 : Number(a > b));
const inOrder = (a: { order: number; name: string }, b: { order: number; name: string }): number =>
  a.order === b.order ? textOrder(a.name, b.name) : a.order - b.order;

const nowhere: CalicoWorld = { policies: [], tiers: [], sets: [], accounts: [], services: [] };

export class Reference {
  readonly #world: World;
  readonly #calico: CalicoReference;

  constructor(world: World) {
    this.#world = world;
    this.#calico = new CalicoReference(world, world.calico ?? nowhere);
  }

  allows(packet: WorldPacket): boolean {
    if (packet.source === packet.destination) return true;
    return this.#isPermitted(packet, 'egress') && this.#isPermitted(packet, 'ingress');
  }

  /** In the order of Calico's tiers, which has Kubernetes' policies in its midst. */
  #isPermitted(packet: WorldPacket, way: Way): boolean {
    const pod = this.#podAt(way === 'ingress' ? packet.destination : packet.source);
    if (pod === undefined) return true;
    const all = [
      ...this.#clusterPolicies(pod, packet, way),
      ...this.#ownPolicies(pod, packet, way),
      ...this.#calicoPolicies(pod, packet, way),
    ];
    for (const tier of this.#tiers(all)) {
      const policies = all.filter((policy) => policy.tier === tier.name).toSorted(inOrder);
      if (policies.length === 0) continue;
      const action = policies.map((policy) => policy.action()).find((one) => one !== undefined) ?? tier.otherwise;
      if (action !== 'Pass') return action === 'Allow';
    }
    return true;
  }

  /** A tier that does not exist comes first and can only deny. */
  #tiers(policies: readonly Weighed[]): WeighedTier[] {
    const known: readonly WeighedTier[] = [
      { name: 'kube-admin', order: 1000, otherwise: 'Pass' },
      { name: 'default', order: 1_000_000, otherwise: 'Deny' },
      { name: 'kube-baseline', order: 10_000_000, otherwise: 'Pass' },
      ...(this.#world.calico?.tiers ?? []).map(({ metadata: { name }, spec }) => ({
        name,
        order: spec.order ?? Infinity,
        otherwise: spec.defaultAction ?? 'Deny',
      })),
    ];
    const missing = policies.map(({ tier }) => tier).filter((name) => known.every((tier) => tier.name !== name));
    return [...known, ...[...new Set(missing)].map((name) => ({ name, order: -Infinity, otherwise: 'Deny' }))].toSorted(inOrder);
  }

  #ownPolicies(pod: Pod, packet: WorldPacket, way: Way): Weighed[] {
    return this.#world.policies
      .filter((policy) => isFor(policy, pod, way))
      .map((policy) => ({
        tier: 'default',
        order: 1000,
        name: `knp.default.${policy.metadata.name}`,
        action: () => ((policy.spec[way] ?? []).some((rule) => this.#ruleMatches(rule, policy, packet, way)) ? 'Allow' : undefined),
      }));
  }

  #calicoPolicies(pod: Pod, packet: WorldPacket, way: Way): Weighed[] {
    const tiers = ['default', 'kube-admin', 'kube-baseline', ...(this.#world.calico?.tiers ?? []).map(({ metadata }) => metadata.name)];
    const some = (this.#world.calico?.policies ?? []).filter((policy) => this.#calico.isFor(policy, pod, way));
    return some.map((policy) => {
      const { tier = 'default', order = Infinity } = policy.spec;
      const action = (): string | undefined => {
        const found = this.#calico.actionOf(policy, packet, way);
        return found === 'Allow' && !tiers.includes(tier) ? 'Pass' : found;
      };
      return { tier, order, name: withoutTier(policy, tier), action };
    });
  }

  #podAt(ip: string): Pod | undefined {
    return this.#world.pods.find(({ ips, hostNetwork }) => hostNetwork !== true && ips.includes(ip));
  }

  #namespaceMatches(selector: LabelSelector, name: string): boolean {
    const namespace = this.#world.namespaces.find((one) => one.name === name);
    return namespace !== undefined && matches(selector, { ...namespace.labels, 'kubernetes.io/metadata.name': name });
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

  #clusterPolicies(pod: Pod, packet: WorldPacket, way: Way): Weighed[] {
    const actions: Readonly<Record<string, string>> = { Accept: 'Allow' };
    return this.#world.clusterPolicies
      .filter(({ spec }) => (spec[way] ?? []).length > 0 && this.#isClusterPeer(spec.subject, pod.ips[0] ?? '') === true)
      .map(({ metadata: { name }, spec }) => ({
        tier: spec.tier === 'Admin' ? 'kube-admin' : 'kube-baseline',
        order: spec.priority,
        name,
        action: () => {
          const found = (spec[way] ?? []).map((rule) => this.#clusterAction(rule, packet, way)).find((one) => one !== undefined);
          return found === undefined ? undefined : (actions[found] ?? found);
        },
      }));
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

const withoutTier = ({ metadata: { name } }: CalicoPolicy, tier: string): string =>
  name.startsWith(`${tier}.`) ? name.slice(tier.length + 1) : name;
